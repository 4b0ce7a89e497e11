//! Where a request comes from.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::address::parse;
use crate::edge::Gateway;
use crate::forwarded::client_address;
use crate::geo::{Confidence, Place};
use crate::id::RegionId;
use crate::policy::Caller;

/// One connection of a client, or of a proxy before it. What was found of an address is
/// kept for as long as the connection lives, and nowhere else.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    known: Mutex<Option<(IpAddr, Arc<Located>)>>,
}

/// A caller with its home.
#[derive(Debug)]
pub struct Located {
    /// As decisions see it.
    pub caller: Caller,
    /// The region nearest by geography.
    pub home: RegionId,
}

impl Connection {
    /// Notes who connected.
    pub fn new(peer: IpAddr) -> Self {
        Self { peer: peer.to_canonical(), known: Mutex::default() }
    }

    /// Returns who connected.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Gateway {
    /// Returns the caller of a request.
    pub fn locate(&self, connection: &Connection, headers: &HeaderMap) -> Arc<Located> {
        let named = headers.get(NAMED).filter(|_| self.may_name_clients(connection.peer));
        let named = named.and_then(|value| parse(value.to_str().ok()?));
        let ip = named
            .unwrap_or_else(|| client_address(connection.peer, headers, &self.params.proxies).ip);
        let mut known = connection.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, located)) = known.as_ref().filter(|(held, _)| *held == ip) {
            debug_assert_eq!(*held, ip);
            return Arc::clone(located);
        }
        let located = Arc::new(self.locate_ip(ip));
        *known = Some((ip, Arc::clone(&located)));
        located
    }

    /// Returns the caller at an address; this node's own region where nothing is known.
    pub fn locate_ip(&self, ip: IpAddr) -> Located {
        let here =
            Place { point: self.params.point, country: None, confidence: Confidence::Unknown };
        let place = self.shared.geo.lookup(ip).place.unwrap_or(here);
        let view = self.shared.view.load();
        let cell = view.atlas.cell(&place);
        let home = view.atlas.name(cell.region());
        Located { caller: Caller { place, cell, observed: Vec::new() }, home }
    }
}

/// The header with which a caller the configuration allows names a client's address.
pub const NAMED: &str = "portolan-client-ip";
