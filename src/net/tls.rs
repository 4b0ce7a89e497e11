//! Who may speak to whom: TLS 1.3 with certificates of the mesh on both sides.
//!
//! A node's certificate carries `DNS:<node>.mesh.internal`, by which a dialer pins whom it
//! reaches, and `URI:spiffe://<trust-domain>/node/<node>`, by which both sides read the
//! peer's name. Sessions are not resumed and there is no 0-RTT: every link proves both
//! identities afresh.

mod authority;
mod identity;

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

pub use self::authority::Authority;
pub use self::identity::{Facts, Identity, TlsError, Trust};
pub use self::identity::{generate_key, read, request, write};
use crate::clock;
use crate::id::NodeId;

/// Why a peer's certificate names no node of this mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNode {
    /// The peer showed no certificate, or one that cannot be read.
    #[error("the peer shows no readable certificate")]
    Unreadable,
    /// The certificate has no URI name, or more than one.
    #[error("the peer's certificate has to carry exactly one URI name")]
    NotOneUri,
    /// The URI is not `spiffe://<trust-domain>/node/<node>` of this mesh.
    #[error("the URI name of the peer's certificate is not of this mesh")]
    OtherMesh,
}

/// Returns the node a certificate of `trust_domain` names.
pub fn node_of(certificate: &CertificateDer<'_>, trust_domain: &str) -> Result<NodeId, NoNode> {
    uri_of(certificate)?
        .strip_prefix("spiffe://")
        .and_then(|it| it.strip_prefix(trust_domain))
        .and_then(|it| it.strip_prefix("/node/"))
        .and_then(|it| it.parse().ok())
        .ok_or(NoNode::OtherMesh)
}

/// Returns the one URI name of a certificate.
fn uri_of(certificate: &CertificateDer<'_>) -> Result<String, NoNode> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_der| NoNode::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_extension| NoNode::Unreadable)?;
    let mut uris = names
        .iter()
        .flat_map(|it| &it.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(NoNode::NotOneUri) };
    Ok(uri.to_owned())
}

pub(super) fn server(trust: &Trust, identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(trust)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain()?, identity.key()?)?;
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_BULK.to_vec()];
    // A resumed session would skip the check of the certificate.
    config.send_tls13_tickets = 0;
    // What is said before the handshake is over could be said again by anyone.
    config.max_early_data_size = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

pub(super) fn client(
    trust: &Trust,
    identity: &Identity,
    alpn: &[u8],
) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(trust)?)
        .with_client_auth_cert(identity.chain()?, identity.key()?)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(QuicClientConfig::try_from(config)?)
}

/// Checks that an endpoint can begin with these: the key is that of the certificate, and the
/// CAs can check others.
pub fn fit(trust: &Trust, identity: &Identity) -> Result<(), TlsError> {
    CertifiedKey::from_der(identity.chain()?, identity.key()?, &provider())?;
    roots(trust)?;
    Ok(())
}

/// Checks that certificate, key and CA fit each other.
pub fn check(trust: &Trust, identity: &Identity) -> Result<(), TlsError> {
    fit(trust, identity)?;
    let chain = identity.chain()?;
    let (leaf, rest) = chain.split_first().ok_or(TlsError::Unreadable)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(trust)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    verifier.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(clock::wall()))?;
    Ok(())
}

/// Returns what checks the certificates of nodes where one may come without any.
pub(crate) fn nodes_or_nobody(trust: &Trust) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots(trust)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)
}

/// Returns the CAs of `trust` as rustls has them.
pub(crate) fn roots(trust: &Trust) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in trust.certificates()? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

/// Returns the cryptography of all TLS between nodes.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The protocol of links, named in every handshake.
/// Links.
pub(super) const ALPN: &[u8] = b"portolan/1";
/// Connections for what peers forward.
pub(super) const ALPN_BULK: &[u8] = b"portolan-bulk/1";
