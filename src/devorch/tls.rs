//! The certificate and the TLS settings of a development orchestrator, as real ones have
//! them: self-signed, and its own authority, which strict verifiers refuse.

use std::sync::Arc;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;
use rcgen::date_time_ymd;
use rustls::pki_types::PrivateKeyDer;

/// Why the TLS side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The host of the service URI fits into no certificate.
    #[error("no certificate can be made for this host")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refuses the certificate.
    #[error("the certificate cannot be used")]
    Settings(#[from] rustls::Error),
}

/// Makes a fresh certificate for `host`, valid for a year from `wall` (time since the Unix
/// epoch), and the settings that offer `h2` and `http/1.1`.
pub(crate) fn settings(host: &str, wall: Duration) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let key = KeyPair::generate()?;
    let certificate = params(host, wall)?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|reason| rustls::Error::General(reason.to_owned()))?;
    let mut settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(settings))
}

/// ECDSA P-256, the host as DNS name even when it is an address, an authority, no subject:
/// what go-livepeer writes.
fn params(host: &str, wall: Duration) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(1970, 1, 1) + wall.saturating_sub(CLOCK_SLACK);
    params.not_after = date_time_ymd(1970, 1, 1) + wall + YEAR;
    Ok(params)
}

/// How far a client's clock may be behind ours.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;
    use x509_parser::prelude::X509Certificate;

    use super::*;

    #[test]
    fn the_certificate_has_the_form_of_a_real_orchestrators() {
        let wall = Duration::from_secs(1_800_000_000);
        let key = KeyPair::generate().unwrap();
        let certificate = params("127.0.0.1", wall).unwrap().self_signed(&key).unwrap();
        let (_, read) = X509Certificate::from_der(certificate.der()).unwrap();
        assert!(read.is_ca());
        assert_eq!(read.subject().to_string(), "");
        let names = read.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names[0].to_string(), "DNSName(127.0.0.1)");
        let days = (read.validity().not_after.timestamp() - 1_800_000_000) / 86_400;
        assert_eq!(days, 365);
    }
}
