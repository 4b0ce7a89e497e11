//! Where a request comes from.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName};

use crate::address::parse;
use crate::edge::Gateway;
use crate::forwarded::client_address;
use crate::geo::{Confidence, Place};
use crate::id::RegionId;
use crate::listen::connection::Connection;
use crate::policy::Caller;

/// One connection of a client, or of a proxy before it, with what was found of an address:
/// that is kept for as long as the connection lives, and nowhere else.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub connection: Arc<Connection>,
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

impl Arrival {
    /// Begins with nothing found.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, known: Mutex::default() }
    }
}

impl Gateway {
    /// Returns the caller of a request.
    pub fn locate(&self, arrival: &Arrival, headers: &HeaderMap) -> Arc<Located> {
        let peer = arrival.connection.peer();
        let named = headers.get(NAMED).filter(|_| self.may_name_clients(peer));
        let named = named.and_then(|value| parse(value.to_str().ok()?));
        let ip =
            named.unwrap_or_else(|| client_address(peer, headers, &self.params.load().proxies).ip);
        let mut known = arrival.known.lock().unwrap_or_else(PoisonError::into_inner);
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
            Place { point: self.identity.point, country: None, confidence: Confidence::Unknown };
        let place = self.shared.geo.lookup(ip).place.unwrap_or(here);
        let view = self.shared.view.load();
        let cell = view.atlas.cell(&place);
        let home = view.atlas.name(cell.region());
        Located { caller: Caller { place, cell, observed: Vec::new() }, home }
    }
}

/// The header with which a caller the configuration allows names a client's address.
pub const NAMED: HeaderName = HeaderName::from_static("portolan-client-ip");
