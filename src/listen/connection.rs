//! One connection of a client: who it is, what was agreed on, what it waits for.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use crate::clock;
use crate::http1::Fault;
use crate::listen::Speech;
use crate::listen::names::{Names, is_misdirected};
use crate::listen::pace::Pace;
use crate::listen::tls::Certificate;

/// One connection of a client, or of a proxy before it.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    /// What was agreed on by TLS.
    pub secured: Option<Secured>,
    /// What is said on its listener.
    speech: Arc<Speech>,
    /// What it waits for.
    pub pace: Pace,
    fault: OnceLock<Fault>,
}

/// What a client and a listener agreed on by TLS.
#[derive(Debug)]
pub struct Secured {
    /// The host the client asked for, when it named one.
    pub sni: Option<Box<str>>,
    /// The certificate it was shown.
    pub certificate: Arc<Certificate>,
}

impl Connection {
    /// Notes who connected.
    pub(crate) fn new(peer: IpAddr, secured: Option<Secured>, speech: Arc<Speech>) -> Self {
        Self {
            peer: peer.to_canonical(),
            secured,
            speech,
            pace: Pace::new(clock::now()),
            fault: OnceLock::new(),
        }
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
        let certified = self.secured.as_ref().map_or(&anybody, |it| &it.certificate.names);
        let sni = self.secured.as_ref().and_then(|it| it.sni.as_deref());
        is_misdirected(host, sni, &self.speech.names, certified)
    }

    /// Returns who connected.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}
