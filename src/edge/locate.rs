//! Where a request comes from.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::HeaderMap;

use crate::address::parse;
use crate::clock;
use crate::edge::Gateway;
use crate::edge::listen::Speech;
use crate::edge::listen::names::{Names, is_misdirected};
use crate::edge::listen::pace::Pace;
use crate::edge::listen::tls::Certificate;
use crate::forwarded::client_address;
use crate::geo::{Confidence, Place};
use crate::http1::Fault;
use crate::id::RegionId;
use crate::policy::Caller;

/// One connection of a client, or of a proxy before it. What was found of an address is
/// kept for as long as the connection lives, and nowhere else.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    /// What was agreed on by TLS.
    pub secured: Option<Secured>,
    /// What is said on its listener.
    speech: Option<Arc<Speech>>,
    /// What it waits for.
    pub pace: Pace,
    fault: OnceLock<Fault>,
    known: Mutex<Option<(IpAddr, Arc<Located>)>>,
}

/// What a client and a listener agreed on by TLS.
#[derive(Debug)]
pub struct Secured {
    /// The host the client asked for, when it named one.
    pub sni: Option<Box<str>>,
    /// The certificate it was shown.
    pub certificate: Arc<Certificate>,
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
    pub fn new(peer: IpAddr, secured: Option<Secured>) -> Self {
        Self {
            peer: peer.to_canonical(),
            secured,
            speech: None,
            pace: Pace::new(clock::now()),
            fault: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// Notes on which listener.
    pub fn on(self, speech: Arc<Speech>) -> Self {
        Self { speech: Some(speech), ..self }
    }

    /// Notes what in the client's bytes cannot be read in one way.
    pub(crate) fn set_fault(&self, fault: Fault) {
        // The first one ends the connection.
        self.fault.get_or_init(|| fault);
    }

    /// Returns what could not be read.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Tells whether a request for `host` belongs on another listener.
    pub(crate) fn misdirects(&self, host: &str) -> bool {
        let anybody = Names::default();
        let names = self.speech.as_ref().map_or(&anybody, |speech| &speech.names);
        let certified = self.secured.as_ref().map_or(&anybody, |it| &it.certificate.names);
        let sni = self.secured.as_ref().and_then(|it| it.sni.as_deref());
        is_misdirected(host, sni, names, certified)
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
        let ip = named.unwrap_or_else(|| {
            client_address(connection.peer, headers, &self.params.load().proxies).ip
        });
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
            Place { point: self.identity.point, country: None, confidence: Confidence::Unknown };
        let place = self.shared.geo.lookup(ip).place.unwrap_or(here);
        let view = self.shared.view.load();
        let cell = view.atlas.cell(&place);
        let home = view.atlas.name(cell.region());
        Located { caller: Caller { place, cell, observed: Vec::new() }, home }
    }
}

/// The header with which a caller the configuration allows names a client's address.
pub const NAMED: &str = "portolan-client-ip";
