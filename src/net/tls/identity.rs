//! Certificates and keys as PEM, in memory and in files.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::id::NodeId;

/// Why an identity cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}; check that it exists and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}; check its directory and who may write there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is not what its name promises.
    #[error("{} holds no PEM {what}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A text in memory is not what it should be.
    #[error("the text holds no PEM {0}")]
    BadPem(&'static str),
    /// Certificate and key do not fit each other, or the CA cannot be used.
    #[error("certificate, key and CA do not work together")]
    Rustls(#[from] rustls::Error),
    /// The CA cannot check the certificates of peers.
    #[error("the CA cannot check the certificates of peers")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The provider lacks the cipher QUIC begins with.
    #[error("TLS cannot start QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Issue(#[from] rcgen::Error),
    /// The name of a node cannot stand in a certificate.
    #[error("the name {0} cannot stand in a certificate; use letters, digits and inner hyphens")]
    Name(NodeId),
}

/// The CA certificates of a mesh and the trust domain they vouch for.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The domain of the mesh's SPIFFE names.
    pub trust_domain: String,
    /// One or more CA certificates; two while the CA is rotated.
    pub ca_pem: String,
}

impl Trust {
    /// Reads the CA certificates of `trust_domain` from a file.
    pub fn load(trust_domain: &str, ca: &Path) -> Result<Self, TlsError> {
        let trust = Self { trust_domain: trust_domain.to_owned(), ca_pem: read(ca)? };
        trust.certificates().map_err(|_pem| not_pem(ca, "certificate"))?;
        Ok(trust)
    }

    /// Writes the CA certificates to a file.
    pub fn write(&self, ca: &Path) -> Result<(), TlsError> {
        write(ca, &self.ca_pem, 0o644)
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.ca_pem)
    }
}

/// A node's certificate and its private key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, followed by those between it and the CA, if any.
    pub cert_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl Identity {
    /// Reads an identity from its two files.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let identity = Self { cert_pem: read(cert)?, key_pem: read(key)? };
        identity.chain().map_err(|_pem| not_pem(cert, "certificate"))?;
        identity.key().map_err(|_pem| not_pem(key, "private key"))?;
        Ok(identity)
    }

    /// Writes an identity to its two files; the key's is readable by its owner alone.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        write(cert, &self.cert_pem, 0o644)?;
        write(key, &self.key_pem, 0o600)
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.cert_pem)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_pem| TlsError::BadPem("private key"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key never reaches a log.
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|it| !it.is_empty()).ok_or(TlsError::BadPem("certificate"))
}

fn not_pem(path: &Path, what: &'static str) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), what }
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Writes a file that has its mode before it has its content, also where one was before.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let written = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|source| TlsError::Write { path: path.to_owned(), source })
}
