//! What a node asks to be named: a certificate request, checked.

use rcgen::CertificateSigningRequestParams;
use rcgen::SanType;

use super::name;
use crate::id::NodeId;

/// A request that asks for exactly the two names of one node, signed by the key it is for.
#[derive(Clone, Debug)]
pub struct Request {
    node: NodeId,
    request: CertificateSigningRequestParams,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It is longer than [`MAX_REQUEST`].
    #[error("a certificate request has at most {MAX_REQUEST} bytes")]
    TooLong,
    /// It cannot be read, or its signature is not of its key.
    #[error("the certificate request cannot be read, or is not signed by its own key")]
    Unreadable,
    /// The key is of a kind that is not used here.
    #[error("the key has to be of P-256 or Ed25519; make one with `portolan node keygen`")]
    Key,
    /// It asks for other names than those of a node of this mesh.
    #[error("the certificate request has to name exactly one node of this mesh, by DNS and URI")]
    Names,
}

impl Request {
    /// Reads a request in PEM by a node of `trust_domain`.
    pub fn read(pem: &str, trust_domain: &str) -> Result<Self, BadRequest> {
        if pem.len() > MAX_REQUEST {
            return Err(BadRequest::TooLong);
        }
        let request = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|_any| BadRequest::Unreadable)?;
        let algorithm = request.public_key.algorithm();
        if algorithm != &rcgen::PKCS_ECDSA_P256_SHA256 && algorithm != &rcgen::PKCS_ED25519 {
            return Err(BadRequest::Key);
        }
        let node = node_of(&request.params.subject_alt_names, trust_domain);
        Ok(Self { node: node.ok_or(BadRequest::Names)?, request })
    }

    /// Returns the node it names.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the request with all that it asks for replaced by `params`: nothing but its key
    /// is taken from a node.
    pub fn with(&self, params: rcgen::CertificateParams) -> CertificateSigningRequestParams {
        CertificateSigningRequestParams { params, ..self.request.clone() }
    }
}

/// Returns the node of which these are both names and no others.
fn node_of(names: &[SanType], trust_domain: &str) -> Option<NodeId> {
    let (dns, uri) = match names {
        [SanType::DnsName(dns), SanType::URI(uri)] | [SanType::URI(uri), SanType::DnsName(dns)] => {
            (dns.as_str(), uri.as_str())
        }
        _ => return None,
    };
    let node: NodeId = dns.strip_suffix(".mesh.internal")?.parse().ok()?;
    let both = name::check_node(node).is_ok()
        && name::server_name(node) == dns
        && name::spiffe(trust_domain, node) == uri;
    both.then_some(node)
}

/// The longest request, in bytes; one of P-256 has about 500.
pub const MAX_REQUEST: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.to_owned().try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.to_owned().try_into().unwrap())
    }

    fn pem(names: Vec<SanType>, algorithm: &'static SignatureAlgorithm) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn good() -> Vec<SanType> {
        vec![dns("fra-1.mesh.internal"), uri("spiffe://m/node/fra-1")]
    }

    #[track_caller]
    fn check(names: Vec<SanType>, expected: Result<&str, BadRequest>) {
        let read = Request::read(&pem(names, &rcgen::PKCS_ECDSA_P256_SHA256), "m");
        assert_eq!(read.map(|it| it.node().to_string()).as_deref(), expected.as_ref().copied());
    }

    #[test]
    fn only_both_names_of_one_node_of_this_mesh_will_do() {
        check(good(), Ok("fra-1"));
        check(good().into_iter().rev().collect(), Ok("fra-1"));
        let names = Err(BadRequest::Names);
        check(vec![], names);
        check(vec![dns("fra-1.mesh.internal")], names);
        check(vec![dns("fra-1.mesh.internal"), uri("spiffe://m/node/nyc-1")], names);
        check(vec![dns("fra-1.mesh.internal"), uri("spiffe://other/node/fra-1")], names);
        check(vec![dns(name::SERVICE), uri(&name::service_uri("m"))], names);
        check([good(), vec![dns("nyc-1.mesh.internal")]].concat(), names);
    }

    #[test]
    fn other_keys_and_texts_are_refused() {
        let read = |pem: &str| Request::read(pem, "m").map(|it| it.node());
        let ed25519 = pem(good(), &rcgen::PKCS_ED25519);
        assert!(read(&ed25519).is_ok());
        assert_eq!(read(&pem(good(), &rcgen::PKCS_ECDSA_P384_SHA384)), Err(BadRequest::Key));
        assert_eq!(read(&format!("{ed25519}{}", "#".repeat(4096))), Err(BadRequest::TooLong));
        assert_eq!(read("nothing"), Err(BadRequest::Unreadable));
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let text = pem(good(), &rcgen::PKCS_ECDSA_P256_SHA256);
        let body: String = text.lines().filter(|it| !it.starts_with("---")).collect();
        let mut der = STANDARD.decode(body).unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        let begin = "-----BEGIN CERTIFICATE REQUEST-----";
        let end = "-----END CERTIFICATE REQUEST-----";
        let forged = format!("{begin}\n{}\n{end}\n", STANDARD.encode(der));
        assert_eq!(Request::read(&forged, "m").map(|it| it.node()), Err(BadRequest::Unreadable));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,300}") {
            prop_assert!(Request::read(&text, "m").is_err());
        }

        #[test]
        fn no_damage_breaks_it(
            at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = pem(good(), &rcgen::PKCS_ED25519).into_bytes();
            for (at, byte) in at {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(request) = Request::read(&String::from_utf8_lossy(&bytes), "m") {
                prop_assert_eq!(request.node().to_string(), "fra-1");
            }
        }
    }
}
