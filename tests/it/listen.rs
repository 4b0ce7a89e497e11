//! The listeners: TLS, HTTP/2, PROXY headers, and clients that take too much or too long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::{Answer, Node, ONCE, Orch, Setup, params, whole};

/// An authority, a certificate of it, and whoever trusts it.
#[derive(Clone)]
pub(crate) struct Trusted {
    pub(crate) cert: String,
    pub(crate) key: String,
    root: CertificateDer<'static>,
    authority: Arc<rcgen::Issuer<'static, rcgen::KeyPair>>,
    names: Vec<String>,
}

impl Trusted {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_key = rcgen::KeyPair::generate().unwrap();
        let made = root.self_signed(&root_key).unwrap();
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let authority = Arc::new(rcgen::Issuer::new(root, root_key));
        let root = made.der().clone();
        let mut trusted = Self { cert: String::new(), key, root, authority, names };
        trusted.cert = trusted.again();
        trusted
    }

    /// Makes another certificate for the same key.
    pub(crate) fn again(&self) -> String {
        let key = rcgen::KeyPair::from_pem(&self.key).unwrap();
        let params = rcgen::CertificateParams::new(self.names.clone()).unwrap();
        params.signed_by(&key, &self.authority).unwrap().pem()
    }

    /// Connects to `at` as a client that asks for `name` and speaks `protocols`.
    pub(crate) async fn connect(
        &self,
        at: SocketAddr,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await
    }
}

/// A node that also listens as `table` says, before one orchestrator.
async fn node(table: &str, files: &Trusted) -> (Node, Orch) {
    let orch = Orch::start(params()).await;
    let mut setup = Setup::new("listen").more(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n{table}"
    ));
    setup.files.push(("c.pem".to_owned(), files.cert.clone().into_bytes()));
    setup.files.push(("k.pem".to_owned(), files.key.clone().into_bytes()));
    let node = setup.start(std::slice::from_ref(&orch)).await;
    (node, orch)
}

/// Sends one request over HTTP/2.
async fn send_h2(tls: TlsStream<TcpStream>, request: Request<Bytes>) -> (Version, Answer) {
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let answer: Response<_> = send.send_request(request.map(Full::new)).await.unwrap();
    (answer.version(), whole(answer).await)
}

/// Writes `bytes` and returns all that comes back until the node ends the connection.
async fn raw(at: SocketAddr, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), tcp.read_to_end(&mut answer)).await;
    drop(read.expect("the connection was left open"));
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn one_port_speaks_whatever_the_client_does() {
    let trusted = Trusted::new(&["fra.test", "other.test"]);
    let (node, _orch) = node("", &trusted).await;
    let at = node.app.all_public[1];

    let tls = trusted.connect(at, "fra.test", &["h2", "http/1.1"]).await.unwrap();
    let request = Request::post(format!("https://fra.test{ONCE}")).body(Bytes::from("two"));
    let (version, answer) = send_h2(tls, request.unwrap()).await;
    assert_eq!((version, answer.status, answer.text()), (Version::HTTP_2, StatusCode::OK, "two"));
    assert!(answer.header("strict-transport-security").contains("max-age"));

    for protocols in [&["http/1.1"][..], &[]] {
        let tls = trusted.connect(at, "fra.test", protocols).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = Request::get("/discovery").header("host", "fra.test");
        let answer = send.send_request(request.body(Full::new(Bytes::new())).unwrap()).await;
        let answer = whole(answer.unwrap()).await;
        let list = answer.json();
        assert_eq!(list[0]["address"], "https://fra.test", "URLs lead back by TLS");
    }
    assert!(trusted.connect(at, "fra.test", &["spdy/3"]).await.is_err(), "nothing in common");
}

/// A body that has nothing in it and ends when its other end is dropped.
struct Held(oneshot::Receiver<()>);

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll(context).map(|_dropped| None)
    }
}

#[tokio::test]
async fn a_connection_has_a_hundred_streams_at_once_and_another_when_one_ends() {
    let trusted = Trusted::new(&["fra.test"]);
    let (node, _orch) = node("", &trusted).await;
    let tls = trusted.connect(node.app.all_public[1], "fra.test", &["h2"]).await.unwrap();
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(connection.await) });
    let mut begin = || {
        let (end, held) = oneshot::channel();
        let request = Request::post("https://fra.test/v1/observations").body(Held(held)).unwrap();
        (end, send.send_request(request))
    };
    let mut open = Vec::new();
    for _ in 0..100 {
        let (end, answer) = begin();
        tasks.spawn(async { drop(answer.await) });
        open.push(end);
    }
    let (end, answer) = begin();
    drop(end);
    let mut answer = std::pin::pin!(answer);
    let early = tokio::time::timeout(Duration::from_millis(300), answer.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    drop(open.pop());
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "there is nothing in it");
}

#[tokio::test]
async fn a_grpc_client_learns_that_the_node_lives_and_what_it_does_not_do() {
    let trusted = Trusted::new(&["fra.test"]);
    let (node, _orch) = node("", &trusted).await;
    for (method, status) in [("Ping", "0"), ("GetOrchestrator", "12")] {
        let tls = trusted.connect(node.app.all_public[1], "fra.test", &["h2"]).await.unwrap();
        let (mut send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let message = Bytes::from_static(b"\0\0\0\0\x04\x0a\x02hi");
        let request = Request::post(format!("https://fra.test/net.Orchestrator/{method}"))
            .header("content-type", "application/grpc")
            .body(Full::new(message.clone()));
        let (head, body) = send.send_request(request.unwrap()).await.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        let body = body.collect().await.unwrap();
        let late = body.trailers().and_then(|it| it.get("grpc-status")).cloned();
        let found = head.headers.get("grpc-status").cloned().or(late).unwrap();
        assert_eq!(found, status, "{method}");
        if status == "0" {
            assert_eq!(body.to_bytes(), message);
        }
    }
}

#[tokio::test]
async fn whoever_enters_under_one_name_cannot_ask_for_another() {
    let trusted = Trusted::new(&["fra.test", "fra-2.test"]);
    let (node, _orch) = node("names = [\"fra.test\", \"fra-2.test\"]\n", &trusted).await;
    for (host, status) in [("fra.test", 200), ("fra-2.test", 200), ("nyc.test", 421)] {
        let tls = trusted.connect(node.app.all_public[1], "fra.test", &["h2"]).await.unwrap();
        let request = Request::get(format!("https://{host}/v1/resolve")).body(Bytes::new());
        let (_version, answer) = send_h2(tls, request.unwrap()).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_whom_the_proxy_names_and_nobody_else_may_connect() {
    let orch = Orch::start(params()).await;
    let table = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n";
    let node = Setup::new("proxied").more(table).start(std::slice::from_ref(&orch)).await;
    let at = node.app.all_public[1];
    let request = b"GET /v1/resolve HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // 84.200.0.1 is in Germany, and 8.8.8.8 nowhere in particular.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([84, 200, 0, 1, 127, 0, 0, 1, 0x1f, 0x90, 0x23, 0x28]);
    let answer = raw(at, &[&header[..], request].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"country\":\"DE\""), "{answer}");
    assert_eq!(raw(at, request).await, "", "no header, no answer");
    let plain = raw(node.app.public, &[&header[..], request].concat()).await;
    assert!(plain.starts_with("HTTP/1.1 400"), "on another listener it is no request: {plain}");
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_counted() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("unreadable").start(std::slice::from_ref(&orch)).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("REFUSED / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
    ] {
        let answer = raw(node.app.public, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{request}: {answer}"
        );
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
    }
    // What was sound before it is served first, once.
    let both = format!(
        "POST {ONCE} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\n\r\n"
    );
    let answer = raw(node.app.public, both.as_bytes()).await;
    let (first, second) = (answer.find("HTTP/1.1 200"), answer.find(" 400 "));
    assert!(first == Some(0) && second > first, "{answer}");
    let metrics = node.admin(http::Method::GET, "/metrics").await;
    assert!(metrics.text().contains("portolan_refusals_total{reason=\"unreadable\"}"));
}

#[tokio::test]
async fn who_dawdles_is_let_go_and_who_is_served_is_not() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("slow")
        .more("[limits]\nhead_s = 1\nidle_s = 1")
        .start(std::slice::from_ref(&orch))
        .await;
    assert_eq!(raw(node.app.public, b"").await, "", "idle");
    assert_eq!(raw(node.app.public, b"GET / HTTP/1.1\r\nHo").await, "", "within a head");
    // A slow answer is no idleness.
    orch.set("fail", "slow-head=1500ms").await;
    assert_eq!(node.call("x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn one_address_holds_so_many_connections_and_no_more() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("each")
        .more("[limits]\nconnections_each = 2")
        .start(std::slice::from_ref(&orch))
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(node.app.public).await.unwrap();
        tcp.write_all(b"GET /v1/resolve HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(tcp.read(&mut [0; 64]).await.unwrap() > 0);
        held.push(tcp);
    }
    assert_eq!(raw(node.app.public, b"GET /v1/resolve HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
    drop(held);
    let again = || async {
        let at = node.app.public;
        raw(at, b"GET /v1/resolve HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
    };
    let begin = portolan::clock::now();
    while again().await.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(5), "places do not come back");
    }
}

#[tokio::test]
async fn a_node_short_of_memory_sheds_new_work_and_keeps_sessions() {
    use portolan::edge::pressure::Level;
    let orch = Orch::start(params()).await;
    let node = Setup::new("memory").start(std::slice::from_ref(&orch)).await;
    let session = node.reserve().await;
    node.app.gateway.pressure.set(Level::Tight);
    assert!(node.call("x").await.refused(503).contains("memory"));
    let used = node.post(&format!("{}/x", session.app), "still").await;
    assert_eq!(used.text(), "still");
    assert_eq!(node.admin(http::Method::GET, "/livez").await.status, StatusCode::OK);
    node.app.gateway.pressure.set(Level::Calm);
    assert_eq!(node.call("x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_at_once_or_where_it_becomes_so() {
    let orch = Orch::start(params()).await;
    let limits = "[limits]\ncall_body_mib = 1";
    let node = Setup::new("long").more(limits).start(std::slice::from_ref(&orch)).await;
    let declared = format!(
        "POST {ONCE} HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(node.app.public, declared.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(orch.seen().await["apps"], 0);
    let mut chunked =
        format!("POST {ONCE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for _ in 0..20 {
        chunked.extend_from_slice(b"186a0\r\n");
        chunked.extend(std::iter::repeat_n(b'x', 100_000));
        chunked.extend_from_slice(b"\r\n");
    }
    let mut tcp = TcpStream::connect(node.app.public).await.unwrap();
    // The node stops reading somewhere within it.
    drop(tokio::time::timeout(Duration::from_secs(2), tcp.write_all(&chunked)).await);
    let mut head = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(5), tcp.read_exact(&mut head)).await;
    // The echo begins before the end; what began is cut, and what did not is told.
    if let Err(error) = read.expect("neither told nor cut") {
        // Cut before its head was on its way; a reset would have taken an answer along.
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    } else if head == *b"HTTP/1.1 200" {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), tcp.read_to_end(&mut rest)).await;
        drop(read.expect("left open"));
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole");
    } else {
        assert_eq!(&head, b"HTTP/1.1 413");
    }
    assert_eq!(node.call("x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_arrives_whatever_its_method_and_a_broken_one_is_answered() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("bodies").start(std::slice::from_ref(&orch)).await;
    let call = |method: &str, body: &str| {
        format!(
            "{method} {ONCE} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n{body}"
        )
    };
    for (method, told) in [("POST", "abc"), ("GET", r#""transfer-encoding":"chunked""#)] {
        let answer = raw(node.app.public, call(method, "3\r\nabc\r\n0\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(told), "{answer}");
    }
    for broken in ["x\r\n", "3\nabc\r\n", "3;\n\r\nabc", "3\r\nabcd", "0\r\nHost: b\r\n\r\n"] {
        let answer = raw(node.app.public, call("POST", broken).as_bytes()).await;
        // The echo may have begun; then it is cut.
        let is_cut = answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n");
        assert!(is_cut || answer.starts_with("HTTP/1.1 400 "), "{broken:?}: {answer}");
    }
}
