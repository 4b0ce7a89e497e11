//! A CA in memory, which names the nodes of one mesh.

use std::path::Path;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;
use rcgen::string::Ia5String;

use super::Identity;
use super::TlsError;
use super::Trust;
use super::identity;
use super::server_name;
use super::spiffe;
use crate::clock;
use crate::id::NodeId;

/// The certificate authority of one mesh, with its private key.
pub struct Authority {
    trust: Trust,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new CA for `trust_domain`, valid for ten years.
    pub fn generate(trust_domain: &str) -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = valid_for(CA_LIFE);
        params.distinguished_name.push(DnType::CommonName, format!("{trust_domain} mesh CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = params.self_signed(&key)?.pem();
        let trust = Trust { trust_domain: trust_domain.to_owned(), ca_pem };
        Ok(Self { trust, issuer: Issuer::new(params, key) })
    }

    /// Takes up a CA from its certificate and private key.
    pub fn from_pem(trust: Trust, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&trust.ca_pem, key)?;
        Ok(Self { trust, issuer })
    }

    /// Names `node`: a new key and a certificate for it, valid for a week.
    pub fn issue(&self, node: NodeId) -> Result<Identity, TlsError> {
        let dns = Ia5String::try_from(server_name(node)).map_err(|_ascii| TlsError::Name(node))?;
        rustls::pki_types::ServerName::try_from(server_name(node))
            .map_err(|_dns| TlsError::Name(node))?;
        let uri = Ia5String::try_from(spiffe(&self.trust.trust_domain, node))
            .map_err(|_ascii| TlsError::Name(node))?;
        self.issue_for(node, vec![SanType::DnsName(dns), SanType::URI(uri)])
    }

    /// Returns what nodes need to know of this CA.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Writes the CA's private key to a file that its owner alone may read.
    pub fn write_key(&self, key: &Path) -> Result<(), TlsError> {
        identity::write(key, &self.key_pem(), 0o600)
    }

    /// Returns the CA's private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(in crate::net) fn issue_for(
        &self,
        node: NodeId,
        names: Vec<SanType>,
    ) -> Result<Identity, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = valid_for(LEAF_LIFE);
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.subject_alt_names = names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn valid_for(life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = rcgen::date_time_ymd(1970, 1, 1) + clock::wall();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params
}

const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A stolen key is of use for at most this long without any revocation.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// A node whose clock is this far behind still takes a new certificate.
const SKEW: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::tls::NoNode;
    use crate::net::tls::node_of;

    fn node() -> NodeId {
        "fra-1".parse().unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.to_owned().try_into().unwrap())
    }

    #[test]
    fn an_issued_certificate_names_its_node_in_its_own_mesh_only() {
        let authority = Authority::generate("mesh.example").unwrap();
        let chain = authority.issue(node()).unwrap().chain().unwrap();
        assert_eq!(node_of(&chain[0], "mesh.example"), Ok(node()));
        assert_eq!(node_of(&chain[0], "mesh.exampl"), Err(NoNode::OtherMesh));
        assert_eq!(node_of(&chain[0], "other.example"), Err(NoNode::OtherMesh));
        let ca = authority.trust().certificates().unwrap();
        assert_eq!(node_of(&ca[0], "mesh.example"), Err(NoNode::NotOneUri));
        assert_eq!(node_of(&vec![1, 2, 3].into(), "mesh.example"), Err(NoNode::Unreadable));
    }

    #[test]
    fn a_certificate_of_two_names_names_nobody() {
        let authority = Authority::generate("m").unwrap();
        let two = vec![uri("spiffe://m/node/a"), uri("spiffe://m/node/b")];
        let chain = authority.issue_for(node(), two).unwrap().chain().unwrap();
        assert_eq!(node_of(&chain[0], "m"), Err(NoNode::NotOneUri));
        let service = vec![uri("spiffe://m/service/a")];
        let chain = authority.issue_for(node(), service).unwrap().chain().unwrap();
        assert_eq!(node_of(&chain[0], "m"), Err(NoNode::OtherMesh));
    }

    #[test]
    fn identities_survive_their_files_and_keys_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [ca, ca_key, cert, key] =
            ["ca.pem", "ca.key", "n.pem", "n.key"].map(|it| dir.path().join(it));
        std::fs::write(&key, "an older file that all may read").unwrap();
        let authority = Authority::generate("m").unwrap();
        authority.trust().write(&ca).unwrap();
        authority.write_key(&ca_key).unwrap();
        authority.issue(node()).unwrap().write(&cert, &key).unwrap();
        for key in [&ca_key, &key] {
            assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        Identity::load(&cert, &key).unwrap();
        let trust = Trust::load("m", &ca).unwrap();
        let again = Authority::from_pem(trust, &std::fs::read_to_string(&ca_key).unwrap());
        again.unwrap().issue("b".parse().unwrap()).unwrap();

        let swapped = Identity::load(&cert, &cert).unwrap_err().to_string();
        assert!(swapped.contains("n.pem holds no PEM private key"), "{swapped}");
        let missing = Trust::load("m", &dir.path().join("none.pem")).unwrap_err().to_string();
        assert!(missing.contains("none.pem"), "{missing}");
    }
}
