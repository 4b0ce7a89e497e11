//! Certificates of orchestrators: self-signed, so pinned on first use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
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
    repinned_at: Option<Instant>,
}

impl Pins {
    /// Lets the next certificate of `id` be pinned in place of the one known; refused
    /// within [`REPIN_AFTER`] of the last time. Orchestrators make a new certificate when
    /// they lose their data folder, so a change is odd but not foul.
    pub fn repin(&self, now: Instant, id: OrchestratorId) -> bool {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pin) = pins.get_mut(&id) else { return true };
        let recent = |at: Instant| now.saturating_duration_since(at) < REPIN_AFTER;
        if pin.repinned_at.is_some_and(recent) {
            return false;
        }
        *pin = Pin { digest: ANY, repinned_at: Some(now) };
        true
    }

    /// Forgets an orchestrator.
    pub fn forget(&self, id: OrchestratorId) {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn accepts(&self, id: OrchestratorId, certificate: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(certificate).into();
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let pin = pins.entry(id).or_insert(Pin { digest, repinned_at: None });
        if pin.digest == ANY {
            pin.digest = digest;
        }
        pin.digest == digest
    }
}

/// Accepts the certificate pinned for one orchestrator, whoever signed it; the signature of
/// the handshake is checked, so only the holder of its key is accepted.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) pins: Arc<Pins>,
    pub(crate) id: OrchestratorId,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pins.accepts(self.id, end_entity) {
            true => Ok(ServerCertVerified::assertion()),
            false => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
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

/// A new certificate is taken at most this often.
pub const REPIN_AFTER: Duration = Duration::from_secs(600);
/// Stands for "whatever comes next": no SHA-256 of anything is known to be this.
const ANY: [u8; 32] = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_first_certificate_is_pinned_and_another_is_taken_only_once_in_a_while() {
        let (pins, id, now) = (Pins::default(), OrchestratorId(1), clock::now());
        assert!(pins.accepts(id, b"first"));
        assert!(!pins.accepts(id, b"second"));
        assert!(pins.repin(now, id));
        assert!(pins.accepts(id, b"second"));
        assert!(!pins.accepts(id, b"first"));
        assert!(!pins.repin(now + REPIN_AFTER / 2, id));
        assert!(pins.repin(now + REPIN_AFTER, id));
    }
}
