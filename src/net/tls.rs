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
use rustls::server::WebPkiClientVerifier;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

pub use self::authority::Authority;
pub use self::identity::{Identity, TlsError, Trust};
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
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_der| NoNode::Unreadable)?;
    let names = parsed.subject_alternative_name().map_err(|_extension| NoNode::Unreadable)?;
    let mut uris = names
        .iter()
        .flat_map(|it| &it.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(NoNode::NotOneUri) };
    uri.strip_prefix("spiffe://")
        .and_then(|it| it.strip_prefix(trust_domain))
        .and_then(|it| it.strip_prefix("/node/"))
        .and_then(|it| it.parse().ok())
        .ok_or(NoNode::OtherMesh)
}

/// Returns the name a dialer asks `node` to prove.
pub(super) fn server_name(node: NodeId) -> String {
    format!("{node}.mesh.internal")
}

fn spiffe(trust_domain: &str, node: NodeId) -> String {
    format!("spiffe://{trust_domain}/node/{node}")
}

pub(super) fn server(trust: &Trust, identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(trust)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain()?, identity.key()?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would skip the check of the certificate.
    config.send_tls13_tickets = 0;
    Ok(QuicServerConfig::try_from(config)?)
}

pub(super) fn client(trust: &Trust, identity: &Identity) -> Result<QuicClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(trust)?)
        .with_client_auth_cert(identity.chain()?, identity.key()?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(QuicClientConfig::try_from(config)?)
}

fn roots(trust: &Trust) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in trust.certificates()? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The protocol of links, named in every handshake.
const ALPN: &[u8] = b"portolan/1";
