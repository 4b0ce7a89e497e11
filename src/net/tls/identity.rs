//! Certificates and keys as PEM, in memory and in files.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::KeyPair;
use rcgen::SanType;
use rcgen::string::Ia5String;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use super::NoNode;
use crate::ca::BadList;
use crate::ca::Revoked;
use crate::ca::Serial;
use crate::ca::name;
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
    /// A revocation list cannot be used.
    #[error("{}: {source}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: BadList,
    },
    /// A certificate cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// The name of a node cannot stand in a certificate.
    #[error("the name {0} cannot stand in a certificate; use letters, digits and inner hyphens")]
    Name(NodeId),
}

impl TlsError {
    /// Returns the file it is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. }
            | Self::Write { path, .. }
            | Self::NotPem { path, .. }
            | Self::List { path, .. } => Some(path),
            Self::BadPem(_)
            | Self::Rustls(_)
            | Self::Verifier(_)
            | Self::Quic(_)
            | Self::Issue(_)
            | Self::Unreadable
            | Self::Name(_) => None,
        }
    }
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

    /// Returns the CA certificates; the first is that of the CA that signs.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.ca_pem)
    }

    /// Reads the revocation list of this mesh from a file.
    pub fn load_revoked(&self, path: &Path) -> Result<Revoked, TlsError> {
        Revoked::read(&read(path)?, &self.certificates()?)
            .map_err(|source| TlsError::List { path: path.to_owned(), source })
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

    /// Returns what the certificate says of itself.
    pub fn facts(&self) -> Result<Facts, TlsError> {
        let chain = self.chain()?;
        Facts::of(chain.first().ok_or(TlsError::Unreadable)?)
    }

    /// Returns a request in PEM for the next certificate of `node` under this key.
    pub fn request(&self, node: NodeId, trust_domain: &str) -> Result<String, TlsError> {
        request(node, trust_domain, &self.key_pem)
    }

    /// Returns the certificate, followed by those between it and the CA.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.cert_pem)
    }

    /// Returns the private key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
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

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub serial: Serial,
    /// From when it is good, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    der: CertificateDer<'static>,
}

impl Facts {
    /// Reads a certificate.
    pub fn of(der: &CertificateDer<'static>) -> Result<Self, TlsError> {
        let (_rest, parsed) =
            X509Certificate::from_der(der).map_err(|_der| TlsError::Unreadable)?;
        Ok(Self {
            serial: Serial::new(parsed.raw_serial()).map_err(|_long| TlsError::Unreadable)?,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            der: der.clone(),
        })
    }

    /// Returns the node it names.
    pub fn node_of(&self, trust_domain: &str) -> Result<NodeId, NoNode> {
        super::node_of(&self.der, trust_domain)
    }

    /// Returns its one URI name.
    pub fn uri(&self) -> Option<String> {
        super::uri_of(&self.der).ok()
    }

    /// Tells whether `authority` signed it.
    pub fn is_by(&self, authority: &CertificateDer<'_>) -> bool {
        let of = X509Certificate::from_der(&self.der)
            .ok()
            .zip(X509Certificate::from_der(authority).ok());
        of.is_some_and(|((_, it), (_, by))| it.verify_signature(Some(by.public_key())).is_ok())
    }
}

/// Makes the private key of a node, in PEM.
pub fn generate_key() -> Result<String, TlsError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// Makes a request in PEM for the certificate of `node` under a key in PEM, which stays here.
pub fn request(node: NodeId, trust_domain: &str, key_pem: &str) -> Result<String, TlsError> {
    let key = KeyPair::from_pem(key_pem)?;
    let text = |it: String| Ia5String::try_from(it).map_err(|_ascii| TlsError::Name(node));
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    params.subject_alt_names = vec![
        SanType::DnsName(text(name::server_name(node))?),
        SanType::URI(text(name::spiffe(trust_domain, node))?),
    ];
    Ok(params.serialize_request(&key)?.pem()?)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|it| !it.is_empty()).ok_or(TlsError::BadPem("certificate"))
}

fn not_pem(path: &Path, what: &'static str) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), what }
}

/// Reads a file of this mesh's identity.
pub fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Writes a file whole or not at all: whoever reads it meanwhile, or after a crash, finds what
/// was there before or what is there now. It never has another mode than `mode`.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let written = || {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        // The name is in the directory, which has entries of its own to be synced.
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|source| TlsError::Write { path: path.to_owned(), source })
}
