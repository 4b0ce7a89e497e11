//! Joining a mesh: a CA on disk, its service on loopback, real TLS, and who is turned away.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan::ca::{Revoked, Token};
use portolan::enroll::client::{self, AskError};
use portolan::enroll::{Folder, Named, Rotation, Service, serve};
use portolan::id::NodeId;
use portolan::net::tls::{self, Identity, Trust};
use portolan::operator::{OperatorKey, OperatorPublic};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::node::Setup;

/// A CA and its service.
pub(crate) struct Ca {
    pub(crate) folder: Folder,
    pub(crate) path: PathBuf,
    fingerprint: String,
    pub(crate) at: SocketAddr,
    _kept: tempfile::TempDir,
    _served: JoinSet<()>,
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

impl Ca {
    pub(crate) async fn start() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let path = kept.path().join("ca");
        let folder = Folder::new(&path);
        let fingerprint = folder.init("mesh.test").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut served = JoinSet::new();
        let service = Service::new(folder.clone()).unwrap();
        served.spawn(serve(service, listener, std::future::pending()));
        Self { folder, path, fingerprint, at, _kept: kept, _served: served }
    }

    async fn ask(&self, token: &Token, key: &str) -> Result<Named, AskError> {
        client::enroll(&self.at.to_string(), &self.fingerprint, token, key).await
    }

    pub(crate) async fn join(&self, name: &str) -> Joined {
        let token = self.folder.token(node(name), MINUTE).unwrap();
        let key = tls::generate_key().unwrap();
        let named = self.ask(&token, &key).await.unwrap();
        Joined::of(named, key)
    }
}

/// A node that has joined.
pub(crate) struct Joined {
    pub(crate) trust: Trust,
    pub(crate) identity: Identity,
    pub(crate) named: Named,
}

impl Joined {
    fn of(named: Named, key_pem: String) -> Self {
        let trust = Trust {
            trust_domain: named.standing.trust_domain.clone(),
            ca_pem: named.standing.ca.clone(),
        };
        Self { trust, identity: Identity { cert_pem: named.certificate.clone(), key_pem }, named }
    }

    /// Returns what a node of the mesh under this name is made of; `more` goes on after
    /// `[mesh]`.
    pub(crate) fn setup(&self, name: &'static str, more: &str) -> Setup {
        let mut setup = Setup::new(name).more(&format!(
            "[mesh]\nlisten = \"127.0.0.1:0\"\ntrust_domain = \"mesh.test\"\nca = \"ca.pem\"\n\
             cert = \"node.pem\"\nkey = \"node.key\"\nrevoked = \"revoked.pem\"\n\
             operator = \"operator.pub\"\n{more}"
        ));
        for (file, text) in [
            ("ca.pem", &self.named.standing.ca),
            ("revoked.pem", &self.named.standing.revoked),
            ("node.pem", &self.identity.cert_pem),
            ("node.key", &self.identity.key_pem),
            ("operator.pub", &self.named.operator),
        ] {
            setup.files.push((file.to_owned(), text.clone().into_bytes()));
        }
        setup
    }

    fn name(&self) -> NodeId {
        self.identity.facts().unwrap().node_of("mesh.test").unwrap()
    }

    async fn renew(&self, ca: &Ca) -> Result<Self, AskError> {
        let named = client::renew(&ca.at.to_string(), &self.trust, &self.identity).await?;
        Ok(Self::of(named, self.identity.key_pem.clone()))
    }
}

#[track_caller]
fn check_refused<T>(answer: Result<T, AskError>, part: &str) {
    let error = match answer {
        Ok(_) => panic!("it was not refused"),
        Err(error) => format!("{error}"),
    };
    assert!(error.contains(part), "{part:?} is missing in: {error}");
}

#[tokio::test]
async fn a_node_joins_by_a_token_renews_by_its_certificate_and_learns_what_is_revoked() {
    let ca = Ca::start().await;
    let joined = ca.join("fra-1").await;
    assert_eq!(joined.name(), node("fra-1"));
    tls::check(&joined.trust, &joined.identity).unwrap();
    let operator = std::fs::read_to_string(ca.path.join("operator.key")).unwrap();
    let operator = OperatorKey::from_pem(&operator).unwrap();
    assert_eq!(OperatorPublic::from_pem(&joined.named.operator), Ok(operator.public()));

    let again = joined.renew(&ca).await.unwrap();
    let [first, second] = [&joined, &again].map(|it| it.identity.facts().unwrap());
    assert_eq!(again.name(), node("fra-1"));
    assert_ne!(first.serial, second.serial, "each certificate can be revoked by itself");

    ca.folder.revoke_serial(first.serial.clone()).unwrap();
    let at = ca.at.to_string();
    let told = client::standing(&at, &again.trust, &again.identity, None).await.unwrap();
    let (standing, tag): (_, String) = told.unwrap();
    let cas = again.trust.certificates().unwrap();
    let revoked = Revoked::read(&standing.revoked, &cas).unwrap();
    assert!(revoked.contains(&first.serial) && !revoked.contains(&second.serial));
    check_refused(joined.renew(&ca).await, "revoked");
    check_refused(client::standing(&at, &joined.trust, &joined.identity, None).await, "revoked");

    // Who knows how it stands is told when that changes, also that it is out itself.
    let waiting = async {
        let mut tag = tag;
        loop {
            match client::standing(&at, &again.trust, &again.identity, Some(&tag)).await {
                Ok(Some((_signed_anew, next))) => tag = next,
                Ok(None) => {}
                Err(error) => return error,
            }
        }
    };
    let changing = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        (ca.folder.revoke_node(node("fra-1")).unwrap(), portolan::clock::now())
    };
    let (told, (n_revoked, revoked_at)) = tokio::join!(waiting, changing);
    assert!(told.to_string().contains("revoked"), "{told}");
    assert!(revoked_at.elapsed() < Duration::from_secs(1));
    assert_eq!(n_revoked, 1);
    check_refused(again.renew(&ca).await, "revoked");
    // A new token is the way back.
    assert_eq!(ca.join("fra-1").await.name(), node("fra-1"));
}

#[tokio::test]
async fn a_ca_of_another_fingerprint_gets_no_token() {
    let (ca, other) = (Ca::start().await, Ca::start().await);
    let token = ca.folder.token(node("a"), MINUTE).unwrap();
    let key = tls::generate_key().unwrap();
    let asked = client::enroll(&ca.at.to_string(), &other.fingerprint, &token, &key).await;
    check_refused(asked, "fingerprint");
    // The token was not shown to it, and is still good.
    ca.ask(&token, &key).await.unwrap();
}

#[tokio::test]
async fn a_token_is_good_once_in_time_and_for_its_node() {
    let ca = Ca::start().await;
    let key = tls::generate_key().unwrap();
    let token = ca.folder.token(node("a"), MINUTE).unwrap();
    ca.ask(&token, &key).await.unwrap();
    check_refused(ca.ask(&token, &key).await, "unknown, used or expired");

    let brief = ca.folder.token(node("a"), Duration::from_secs(1)).unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    check_refused(ca.ask(&brief, &key).await, "unknown, used or expired");

    let guessed = Token::new(node("a"), [0; 32]);
    check_refused(ca.ask(&guessed, &key).await, "unknown, used or expired");

    // Another name under the same secret is another token.
    let token = ca.folder.token(node("a"), MINUTE).unwrap();
    let renamed: Token = token.reveal().replace(":a:", ":b:").parse().unwrap();
    check_refused(ca.ask(&renamed, &key).await, "unknown, used or expired");
    // And the names of the request are compared with those of the token, whoever writes both.
    let asked = ca.folder.enroll(&token, &tls::request(node("b"), "mesh.test", &key).unwrap());
    assert!(asked.unwrap_err().to_string().contains("another node"));
    let foreign = tls::request(node("a"), "other.test", &key).unwrap();
    let asked = ca.folder.enroll(&token, &foreign).unwrap_err();
    assert!(asked.to_string().contains("exactly one node of this mesh"), "{asked}");
    ca.ask(&token, &key).await.unwrap();
}

#[tokio::test]
async fn a_renewal_is_for_the_node_that_asks_and_for_nobody_without_a_certificate() {
    let ca = Ca::start().await;
    let [a, b] = [ca.join("a").await, ca.join("b").await];
    let request = b.identity.request(node("b"), "mesh.test").unwrap();
    let refused = ca.folder.renew(&a.identity.facts().unwrap(), &request).unwrap_err();
    assert!(refused.to_string().contains("another node"), "{refused}");
    // A certificate of another CA does not even begin.
    let stranger = Ca::start().await.join("a").await;
    let asked = client::standing(&ca.at.to_string(), &a.trust, &stranger.identity, None).await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn a_ca_is_rotated_in_three_steps_and_each_is_refused_out_of_turn() {
    let ca = Ca::start().await;
    let step = |step| ca.folder.rotate(step).map_err(|it| it.to_string());
    let refused = |it: Result<String, String>, part: &str| {
        let error = it.unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    let before = ca.join("a").await;
    refused(step(Rotation::Reissue { force: true }), "rotate add");
    assert_eq!(step(Rotation::Add), Ok(ca.fingerprint.clone()), "the old one still signs");
    refused(step(Rotation::Add), "under way");
    refused(step(Rotation::Drop { force: false }), "rotate reissue");
    let beside = before.renew(&ca).await.unwrap();
    let cas = beside.trust.certificates().unwrap();
    assert_eq!(cas.len(), 2);
    let by = |joined: &Joined, n: usize| joined.identity.facts().unwrap().is_by(&cas[n]);
    assert!(by(&beside, 0) && !by(&beside, 1));

    let fresh = step(Rotation::Reissue { force: true }).unwrap();
    assert_ne!(fresh, ca.fingerprint);
    refused(step(Rotation::Reissue { force: true }), "rotate drop");
    refused(step(Rotation::Drop { force: false }), "yet: a;");
    // A node that heard of both trusts the service under the new one.
    let after = beside.renew(&ca).await.unwrap();
    assert!(by(&after, 1) && !by(&after, 0));
    // One that missed the first step does not, and says so.
    until_refused(&ca, &before).await;

    assert_eq!(step(Rotation::Drop { force: false }), Ok(fresh));
    let last = after.renew(&ca).await.unwrap();
    assert_eq!(last.trust.certificates().unwrap(), [cas[1].clone()]);
    let stranger = ca.folder.standing(&beside.identity.facts().unwrap()).unwrap_err();
    assert!(stranger.to_string().contains("no CA of this mesh"), "{stranger}");
    until_refused(&ca, &beside).await;
    let keys = |it: &std::fs::DirEntry| it.file_name().to_string_lossy().starts_with("ca-");
    let n_keys = std::fs::read_dir(&ca.path).unwrap().map(Result::unwrap).filter(keys).count();
    assert_eq!(n_keys, 1, "the old CA's key is gone");
}

/// Asks until the service shows what the folder holds, and the node is refused.
async fn until_refused(ca: &Ca, node: &Joined) {
    let begin = portolan::clock::now();
    while node.renew(ca).await.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is not refused");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn secrets_are_their_owners_alone_and_tokens_are_kept_as_hashes() {
    let ca = Ca::start().await;
    let token = ca.folder.token(node("a"), MINUTE).unwrap();
    let mode = |it: &PathBuf| std::fs::metadata(it).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca.path), 0o700);
    for entry in std::fs::read_dir(&ca.path).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "key" || it == "json") {
            assert_eq!(mode(&path), 0o600, "{path:?}");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(token.reveal().rsplit(':').next().unwrap()), "{path:?}");
    }
    let again = ca.folder.init("mesh.test").unwrap_err().to_string();
    assert!(again.contains("holds a CA already"), "{again}");
}

/// Sends bytes to the service as somebody without a certificate; returns the answer.
async fn send(ca: &Ca, bytes: &[u8]) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(ca.folder.trust().unwrap().certificates().unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("ca.portolan.internal").unwrap();
    let stream = TcpStream::connect(ca.at).await.unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    answer
}

#[tokio::test]
async fn whoever_says_too_much_or_nothing_or_comes_too_often_is_cut_off() {
    let ca = Ca::start().await;
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (asked, status) in [
        (post("/v1/enroll", &"x".repeat(9000)), "413"),
        (post("/v1/enroll", "{}"), "400"),
        (post("/v1/enroll", "{\"token\":\"x\",\"request\":\"\"}"), "400"),
        (post("/v1/renew", "{\"request\":\"\"}"), "401"),
        (post("/v1/nothing", ""), "404"),
        ("GET /v1/standing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "401"),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(20_000)), "4"),
    ] {
        let answer = send(&ca, asked.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    // Who says nothing at all does not keep the place for long, and holds up nobody.
    let mut silent = TcpStream::connect(ca.at).await.unwrap();
    ca.join("a").await;
    let began = portolan::clock::now();
    let n_read = silent.read(&mut [0]).await;
    assert!(n_read.is_ok_and(|n| n == 0) && began.elapsed() < Duration::from_secs(8));
    let mut n_cut = 0;
    for _ in 0..120 {
        let mut stream = TcpStream::connect(ca.at).await.unwrap();
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0])).await;
        n_cut += usize::from(read.is_ok());
    }
    assert!(n_cut >= 20, "{n_cut}");
}
