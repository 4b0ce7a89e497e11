//! Certificates of orchestrators: self-signed, so pinned on first use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::id::OrchestratorId;

/// What every orchestrator's certificate hashed to when it was first met.
#[derive(Debug, Default)]
pub struct Pins {
    pins: Mutex<BTreeMap<OrchestratorId, Pin>>,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    digest: [u8; 32],
    other: Option<Other>,
}

/// Another certificate than the one pinned, the only one met since the pinned one was.
#[derive(Clone, Copy, Debug)]
struct Other {
    digest: [u8; 32],
    /// When a check first met it.
    since: Option<Instant>,
    /// Whether it is taken when it is met again.
    due: bool,
}

impl Pins {
    /// Notes that a check met another certificate of `id` than the one pinned, and tells
    /// whether it is taken from now on: once checks have met the same one, and nobody any
    /// other, for [`REPIN_AFTER`]. Orchestrators make a new certificate when they lose their
    /// data folder, so a change is odd but not foul; a short one is.
    pub fn repin(&self, now: Instant, id: OrchestratorId) -> bool {
        let mut pins = self.lock();
        // One that is forgotten is first met next time; one met in order again stays pinned.
        let Some(pin) = pins.get_mut(&id) else { return true };
        let Some(other) = &mut pin.other else { return false };
        let since = *other.since.get_or_insert(now);
        other.due |= now.saturating_duration_since(since) >= REPIN_AFTER;
        other.due
    }

    /// Returns what the certificate of `id` hashed to when it was first met.
    pub fn of(&self, id: OrchestratorId) -> Option<[u8; 32]> {
        self.lock().get(&id).map(|it| it.digest)
    }

    /// Pins what an earlier process had pinned, unless one was met since.
    pub fn restore(&self, id: OrchestratorId, digest: [u8; 32]) {
        self.lock().entry(id).or_insert(Pin { digest, other: None });
    }

    /// Forgets an orchestrator.
    pub fn forget(&self, id: OrchestratorId) {
        self.lock().remove(&id);
    }

    /// Tells whether a connection of `id` under `certificate` may be used. To be asked only
    /// once the other side has proved that it holds the key, since the first one met is pinned.
    pub(crate) fn accepts(&self, id: OrchestratorId, certificate: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(certificate).into();
        let mut pins = self.lock();
        let pin = pins.entry(id).or_insert(Pin { digest, other: None });
        let other = pin.other.filter(|other| other.digest == digest);
        if pin.digest == digest || other.is_some_and(|it| it.due) {
            *pin = Pin { digest, other: None };
            return true;
        }
        pin.other = other.or(Some(Other { digest, since: None, due: false }));
        false
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrchestratorId, Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts any certificate whose key the other side holds: the signature of the handshake is
/// checked here, whose certificate it is by [`Pins::accepts`] after it.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How long checks must have met the same new certificate before it is taken. Two checks or
/// more of an idle orchestrator: whoever sits on the path for a moment is not believed, and one
/// that was made anew is out for a minute, which the others cover.
pub const REPIN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ID: OrchestratorId = OrchestratorId(1);

    fn pinned() -> (Pins, Instant) {
        let pins = Pins::default();
        assert!(pins.accepts(ID, b"first"));
        (pins, clock::now())
    }

    #[test]
    fn another_certificate_is_taken_once_checks_have_met_it_for_a_while() {
        let (pins, now) = pinned();
        assert!(!pins.accepts(ID, b"second"));
        assert!(!pins.repin(now, ID));
        assert!(!pins.accepts(ID, b"second"));
        assert!(!pins.repin(now + REPIN_AFTER / 2, ID));
        assert!(!pins.accepts(ID, b"second"));
        assert!(pins.repin(now + REPIN_AFTER, ID));
        assert!(pins.accepts(ID, b"second"));
        assert!(!pins.accepts(ID, b"first"));
    }

    #[test]
    fn a_third_certificate_starts_the_wait_again() {
        let (pins, now) = pinned();
        for (at, certificate) in [b"second", b"third!", b"second"].into_iter().enumerate() {
            assert!(!pins.accepts(ID, certificate));
            assert!(!pins.repin(now + REPIN_AFTER * at as u32, ID));
        }
        assert!(!pins.accepts(ID, b"second"));
        assert!(pins.repin(now + REPIN_AFTER * 3, ID));
        assert!(!pins.accepts(ID, b"third!"));
    }

    #[test]
    fn the_pinned_certificate_ends_the_wait_of_another() {
        let (pins, now) = pinned();
        assert!(!pins.accepts(ID, b"second"));
        assert!(!pins.repin(now, ID));
        assert!(pins.accepts(ID, b"first"));
        assert!(!pins.repin(now + REPIN_AFTER, ID));
        assert!(!pins.accepts(ID, b"second"));
    }

    #[test]
    fn a_pin_outlives_its_process() {
        let (pins, _now) = pinned();
        let later = Pins::default();
        later.restore(ID, pins.of(ID).unwrap());
        assert!(!later.accepts(ID, b"second"));
        assert!(later.accepts(ID, b"first"));
        let met = Pins::default();
        assert!(met.accepts(ID, b"second"));
        met.restore(ID, pins.of(ID).unwrap());
        assert!(met.accepts(ID, b"second"));
    }

    #[test]
    fn one_that_is_forgotten_is_met_for_the_first_time_again() {
        let (pins, now) = pinned();
        pins.forget(ID);
        assert!(pins.repin(now, ID));
        assert!(pins.accepts(ID, b"second"));
    }
}
