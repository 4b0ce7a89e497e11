//! The names in certificates of a mesh.

use sha2::{Digest, Sha256};

use crate::id::NodeId;

/// Why a text is no name of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a trust domain.
    #[error("a trust domain has 1 to 255 characters of a-z 0-9 - _ . such as mesh.example")]
    TrustDomain,
    /// Not the name of a node that can stand in a certificate.
    #[error("a node in a certificate has letters, digits and inner hyphens, such as fra-1")]
    Node,
    /// Not a fingerprint.
    #[error("a fingerprint is sha256: and 64 hexadecimal digits")]
    Fingerprint,
}

/// The name the enrolment service proves; no node can have it.
pub const SERVICE: &str = "ca.portolan.internal";

/// Returns the name a dialer asks `node` to prove.
pub fn server_name(node: NodeId) -> String {
    format!("{node}.mesh.internal")
}

/// Returns the name by which others know `node`.
pub fn spiffe(trust_domain: &str, node: NodeId) -> String {
    format!("spiffe://{trust_domain}/node/{node}")
}

/// Returns the name by which the enrolment service tells its trust domain.
pub fn service_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/ca")
}

/// Returns the trust domain an enrolment service tells by its name.
pub fn domain_of_service(uri: &str) -> Option<&str> {
    let domain = uri.strip_prefix("spiffe://")?.strip_suffix("/ca")?;
    check_trust_domain(domain).is_ok().then_some(domain)
}

/// Checks the name of a mesh as SPIFFE has it.
pub fn check_trust_domain(name: &str) -> Result<(), BadName> {
    let legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    let fits = (1..=255).contains(&name.len()) && name.bytes().all(legal);
    fits.then_some(()).ok_or(BadName::TrustDomain)
}

/// Checks that `node` can stand in a certificate as a host of the DNS.
pub fn check_node(node: NodeId) -> Result<(), BadName> {
    let fits = |label: &str| {
        let inner = label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    node.as_str().split('.').all(fits).then_some(()).ok_or(BadName::Node)
}

/// Returns the SHA-256 of a certificate as people compare it.
pub fn fingerprint(der: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(der)))
}

/// Reads a fingerprint as [`fingerprint`] writes it; colons between digits, as OpenSSL writes
/// them, are left out.
pub fn parse_fingerprint(text: &str) -> Result<String, BadName> {
    let digits = text.strip_prefix("sha256:").ok_or(BadName::Fingerprint)?;
    let digits: String = digits.chars().filter(|it| *it != ':').take(65).collect();
    let fits = digits.len() == 64 && digits.bytes().all(|it| it.is_ascii_hexdigit());
    fits.then(|| format!("sha256:{}", digits.to_lowercase())).ok_or(BadName::Fingerprint)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_service_tells_its_domain_and_nothing_else_does() {
        assert_eq!(domain_of_service(&service_uri("mesh.example")), Some("mesh.example"));
        let node = spiffe("mesh.example", "ca".parse().unwrap());
        assert_eq!(domain_of_service(&node), None, "a node called ca is no CA");
        assert_eq!(domain_of_service("spiffe:///ca"), None);
    }

    #[test]
    fn names_that_the_dns_has_not_are_refused() {
        for good in ["fra-1", "FRA", "a.b", "0"] {
            assert_eq!(check_node(good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["-a", "a-", "a..b", ".", "a_b"] {
            assert_eq!(check_node(bad.parse().unwrap()), Err(BadName::Node), "{bad}");
        }
        for bad in ["", "Mesh", "a/b", "a b", &"x".repeat(256)] {
            assert_eq!(check_trust_domain(bad), Err(BadName::TrustDomain), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn fingerprints_read_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let printed = fingerprint(&bytes);
            prop_assert_eq!(parse_fingerprint(&printed), Ok(printed.clone()));
            let spread = format!("sha256:{}:{}", &printed[7..9], printed[9..].to_uppercase());
            prop_assert_eq!(parse_fingerprint(&spread), Ok(printed));
        }

        #[test]
        fn no_text_breaks_the_reading_of_one(text in ".{0,200}") {
            prop_assert!(parse_fingerprint(&text).is_err());
            let prefixed = format!("sha256:{text}");
            prop_assert!(parse_fingerprint(&prefixed).is_err());
        }
    }
}
