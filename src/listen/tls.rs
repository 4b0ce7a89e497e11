//! TLS for clients: versions, protocols, and a certificate that is swapped while in use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::listen::names::Names;

/// Where a listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Two PEM files: the chain, the listener's own certificate first, and its key.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Made at start for these names, signed by itself.
    SelfSigned(Vec<String>),
}

impl Source {
    /// Tells whether it is read from files, which may change.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Files { .. })
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Certificate and key cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A certificate in use, with what it says of itself.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The hosts it is for.
    pub names: Names,
    /// When it ends, in seconds since the Unix epoch.
    pub not_after: i64,
}

/// The certificate of one listener; handshakes take the one of their moment.
#[derive(Debug)]
pub struct Tls {
    /// How handshakes are made.
    pub(crate) config: Arc<ServerConfig>,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current(ArcSwap<Certificate>);

impl Certificate {
    /// Reads or makes a certificate.
    pub fn load(source: &Source) -> Result<Self, TlsError> {
        match source {
            Source::Files { cert, key } => Self::new(read_chain(cert)?, read_key(key)?, key),
            Source::SelfSigned(names) => {
                let unusable = |error: rcgen::Error| TlsError::Unusable(error.to_string());
                let key = rcgen::KeyPair::generate().map_err(unusable)?;
                let made = rcgen::CertificateParams::new(names.clone()).map_err(unusable)?;
                let made = made.self_signed(&key).map_err(unusable)?;
                let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
                Self::new(vec![made.der().clone()], key, Path::new("(made at start)"))
            }
        }
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        path: &Path,
    ) -> Result<Self, TlsError> {
        let said = |problem: String| TlsError::File { path: path.to_owned(), problem };
        let first = chain.first().cloned().ok_or_else(|| said("no certificate in it".into()))?;
        let (names, not_after) = facts(&first).map_err(said)?;
        // Refuses a key that is not that of the certificate.
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = key.map_err(|error| said(format!("it does not fit the certificate: {error}")))?;
        Ok(Self { key: Arc::new(key), names, not_after })
    }
}

impl Tls {
    /// Begins with `certificate`.
    pub fn new(certificate: Certificate) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(certificate)));
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        // Among old clients are some that would rather have the weaker cipher.
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Stateless, under keys that change by themselves: nothing to hold for each client.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        // A first flight could be replayed by whoever saw it.
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), current })
    }

    /// Takes another certificate for the handshakes from now on.
    pub fn swap(&self, certificate: Certificate) {
        self.current.0.store(Arc::new(certificate));
    }

    /// Returns the certificate in use.
    pub fn certificate(&self) -> Arc<Certificate> {
        self.current.0.load_full()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let said = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| said(error.to_string()))?;
    let chain: Result<Vec<_>, _> = read.take(CHAIN_MAX).collect();
    chain.map_err(|error| said(format!("{error}; write certificates as PEM, the own one first")))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        path: path.to_owned(),
        problem: format!("{error}; write the key as PEM, unencrypted"),
    })
}

/// Returns the hosts a certificate is for, and when it ends.
fn facts(der: &CertificateDer<'_>) -> Result<(Names, i64), String> {
    let (_rest, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let general = alternatives.map_or(&[][..], |it| &it.value.general_names);
    let names = general.iter().filter_map(|name| {
        if let GeneralName::DNSName(name) = name {
            return Some((*name).to_owned());
        }
        let GeneralName::IPAddress(bytes) = name else { return None };
        let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        let ip = v4.or_else(|_not_v4| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
        ip.ok().map(|ip| ip.to_string())
    });
    Ok((Names::new(names), parsed.validity().not_after.timestamp()))
}

/// Certificates of one chain: no authority has more than four levels.
const CHAIN_MAX: usize = 16;
