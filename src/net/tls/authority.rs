//! A CA in memory, which names the nodes of one mesh.

use std::path::Path;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SanType;
use rcgen::SerialNumber;
use rcgen::string::Ia5String;

use super::Identity;
use super::TlsError;
use super::Trust;
use super::identity;
use crate::ca::Request;
use crate::ca::Serial;
use crate::ca::name;
use crate::ca::name::server_name;
use crate::ca::name::spiffe;
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
        self.issue_for(node, self.names_of(node)?)
    }

    /// Names the node that asks by `request`, under the number `serial`, for a week. Nothing
    /// but the key is taken from the request. Returns the certificate in PEM, and when it
    /// ends, in wall time since 1970.
    pub fn certify(
        &self,
        request: &Request,
        serial: &Serial,
    ) -> Result<(String, Duration), TlsError> {
        let node = request.node();
        let mut params = leaf(node.as_str(), self.names_of(node)?);
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let ends = u64::try_from(params.not_after.unix_timestamp()).unwrap_or(0);
        let certificate = request.with(params).signed_by(&self.issuer)?;
        Ok((certificate.pem(), Duration::from_secs(ends)))
    }

    /// Names the enrolment service of this CA, for a week; no node takes it for a node.
    pub fn service(&self) -> Result<Identity, TlsError> {
        let text = |it: String| Ia5String::try_from(it).map_err(TlsError::Issue);
        let uri = text(name::service_uri(&self.trust.trust_domain))?;
        let dns = text(name::SERVICE.to_owned())?;
        let mut params = leaf(name::SERVICE, vec![SanType::DnsName(dns), SanType::URI(uri)]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { cert_pem, key_pem: key.serialize_pem() })
    }

    /// Signs the list of what is revoked, with the wall time of each in seconds since 1970.
    /// Returns it in PEM.
    pub fn revocation_list<'a>(
        &self,
        number: u64,
        revoked: impl Iterator<Item = (&'a Serial, u64)>,
    ) -> Result<String, TlsError> {
        let began = rcgen::date_time_ymd(1970, 1, 1);
        let now = began + clock::wall();
        let revoked_certs = revoked.map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_bytes()),
            revocation_time: began + Duration::from_secs(at),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + LIST_LIFE,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
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

    fn names_of(&self, node: NodeId) -> Result<Vec<SanType>, TlsError> {
        let dns = Ia5String::try_from(server_name(node)).map_err(|_ascii| TlsError::Name(node))?;
        rustls::pki_types::ServerName::try_from(server_name(node))
            .map_err(|_dns| TlsError::Name(node))?;
        let uri = Ia5String::try_from(spiffe(&self.trust.trust_domain, node))
            .map_err(|_ascii| TlsError::Name(node))?;
        Ok(vec![SanType::DnsName(dns), SanType::URI(uri)])
    }

    pub(in crate::net) fn issue_for(
        &self,
        node: NodeId,
        names: Vec<SanType>,
    ) -> Result<Identity, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(node.as_str(), names);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn leaf(common_name: &str, names: Vec<SanType>) -> CertificateParams {
    let mut params = valid_for(LEAF_LIFE);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
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

/// A list is read long after it was made where the CA is away; it says when to worry.
const LIST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// A node whose clock is this far behind still takes a new certificate.
const SKEW: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use std::sync::OnceLock;

    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::ca::{BadList, Revoked};
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

    /// A request as a node makes it, for a key of its own.
    fn request(node: NodeId, trust_domain: &str) -> (KeyPair, Request) {
        let key = KeyPair::generate().unwrap();
        let request = identity::request(node, trust_domain, &key.serialize_pem()).unwrap();
        let request = Request::read(&request, trust_domain).unwrap();
        (key, request)
    }

    #[test]
    fn a_certificate_by_request_has_the_names_uses_and_days_the_ca_gives() {
        let authority = Authority::generate("m").unwrap();
        let (key, request) = request(node(), "m");
        let serial = Serial::random([9; 16]);
        let (cert_pem, ends) = authority.certify(&request, &serial).unwrap();
        let identity = Identity { cert_pem, key_pem: key.serialize_pem() };
        let chain = identity.chain().unwrap();
        assert_eq!(node_of(&chain[0], "m"), Ok(node()));
        let facts = identity.facts().unwrap();
        assert_eq!((&facts.serial, facts.node_of("m")), (&serial, Ok(node())));
        let now = clock::wall().as_secs() as i64;
        assert_eq!(facts.not_after, ends.as_secs() as i64);
        let [back, life] = [now - facts.not_before, facts.not_after - now];
        assert!((3600..3660).contains(&back) && (604_740..=604_800).contains(&life));
        let parsed = X509Certificate::from_der(&chain[0]).unwrap().1;
        let uses = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(uses.server_auth && uses.client_auth && !uses.code_signing);
        assert!(!parsed.is_ca());
    }

    #[test]
    fn a_list_is_read_back_under_its_ca_alone() {
        let [ours, theirs] = [(); 2].map(|()| Authority::generate("m").unwrap());
        let [one, other] = [1, 2].map(|it| Serial::random([it; 16]));
        let list = ours.revocation_list(7, [(&one, 1_800_000_000)].into_iter()).unwrap();
        let read = |by: &Authority| Revoked::read(&list, &by.trust().certificates().unwrap());
        let revoked = read(&ours).unwrap();
        assert_eq!((revoked.number(), revoked.len()), (7, 1));
        assert!(revoked.contains(&one) && !revoked.contains(&other));
        assert_eq!(read(&theirs), Err(BadList::Signature));
        let none = ours.revocation_list(8, std::iter::empty()).unwrap();
        let none = Revoked::read(&none, &ours.trust().certificates().unwrap()).unwrap();
        assert!(none.is_empty() && none.next_update() > clock::wall().as_secs() as i64);
        let cas = ours.trust().certificates().unwrap();
        assert_eq!(Revoked::read(&ours.trust().ca_pem, &cas), Err(BadList::Unreadable));
        let long = "#".repeat(crate::ca::MAX_LIST + 1);
        assert_eq!(Revoked::read(&long, &cas), Err(BadList::TooLong));
    }

    #[test]
    fn the_longest_list_the_ledger_allows_can_be_read() {
        let authority = Authority::generate("m").unwrap();
        let serial = |n: usize| {
            let mut bytes = [0xee; 16];
            bytes[8..].copy_from_slice(&n.to_be_bytes());
            Serial::random(bytes)
        };
        let serials: Vec<Serial> = (0..crate::ca::MAX_REVOKED).map(serial).collect();
        let list = authority.revocation_list(1, serials.iter().map(|it| (it, 4_000_000_000)));
        let cas = authority.trust().certificates().unwrap();
        assert_eq!(Revoked::read(&list.unwrap(), &cas).unwrap().len(), serials.len());
    }

    proptest! {
        #[test]
        fn no_damage_to_a_list_breaks_its_reading(
            at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            static MADE: OnceLock<(String, Vec<CertificateDer<'static>>)> = OnceLock::new();
            let (list, cas) = MADE.get_or_init(|| {
                let authority = Authority::generate("m").unwrap();
                let serial = Serial::random([3; 16]);
                let list = authority.revocation_list(7, [(&serial, 1)].into_iter()).unwrap();
                (list, authority.trust().certificates().unwrap())
            });
            let mut bytes = list.clone().into_bytes();
            for (at, byte) in at {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = Revoked::read(&String::from_utf8_lossy(&bytes), cas) {
                prop_assert_eq!((read.number(), read.len()), (7, 1));
            }
        }
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
