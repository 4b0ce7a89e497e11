//! A node in this process, orchestrators for it, and a client that speaks to both.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portolan::app::{self, App};
use portolan::config::Config;
use portolan::devorch::{self, Params};
use portolan::livepeer::runner::ReserveAnswer;
use portolan::upstream::fetch::exchange;
use portolan::upstream::{Body, Dialer};
use portolan::uri::ServiceUri;
use portolan::view::row::Standing;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An orchestrator under TLS, in the region it names.
pub(crate) struct Orch {
    pub(crate) uri: ServiceUri,
    region: Option<String>,
    tasks: JoinSet<()>,
}

/// Plenty of room, no faults, no delay, in Frankfurt.
pub(crate) fn params() -> Params {
    Params { service: None, capacity: 100, ..crate::devorch::params() }
}

impl Orch {
    pub(crate) async fn start(params: Params) -> Self {
        let region = params.region.map(|it| it.to_string());
        Self::serve(devorch::bind(params).await.unwrap(), region)
    }

    fn serve(bound: devorch::Bound, region: Option<String>) -> Self {
        let uri = bound.service().clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(bound.serve(std::future::pending()));
        Self { uri, region, tasks }
    }

    /// Starts at an address that one who died has just left.
    pub(crate) async fn start_again(at: SocketAddr) -> Self {
        let begin = portolan::clock::now();
        loop {
            let again = Params { listen: at, ..params() };
            match devorch::bind(again.clone()).await {
                Ok(bound) => return Self::serve(bound, again.region.map(|it| it.to_string())),
                // A connection of somebody else's may hold the port for a moment.
                Err(taken) => assert!(begin.elapsed() < Duration::from_secs(5), "{taken}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One nearby and one so far that it is second best whatever else is known.
    pub(crate) async fn near_and_far() -> [Self; 2] {
        [Self::start(params()).await, Self::start(far()).await]
    }

    /// Turns a switch, such as `fail`.
    pub(crate) async fn set(&self, switch: &str, to: &str) {
        let request = Request::post(format!("/dev/{switch}")).header("content-length", to.len());
        let answer = self.ask(request.body(Body::whole(to.to_owned())).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{switch} {to}");
    }

    /// Returns what it has seen.
    pub(crate) async fn seen(&self) -> Value {
        let answer = self.ask(Request::get("/dev/seen").body(Body::Empty).unwrap()).await;
        serde_json::from_slice(answer.body()).unwrap()
    }

    async fn ask(&self, request: Request<Body>) -> Response<Bytes> {
        let dialer = Dialer::anywhere(Duration::from_secs(5));
        exchange(&dialer, &self.uri, request, Duration::from_secs(5)).await.unwrap()
    }

    /// Dies: its listener and every connection are gone at once.
    pub(crate) async fn die(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// As [`params`], a round trip of 80 ms away.
pub(crate) fn far() -> Params {
    Params { delays: "80ms".parse().unwrap(), region: Some("NYC".parse().unwrap()), ..params() }
}

/// What a node is made of.
pub(crate) struct Setup {
    name: &'static str,
    /// Its region's code.
    pub(crate) region: &'static str,
    /// More keys of `[node]`.
    pub(crate) node: String,
    /// Further tables.
    pub(crate) more: String,
    /// The key of rewritten URLs.
    pub(crate) key: [u8; 32],
    /// Files that are to lie beside the TOML file.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Setup {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            region: "FRA",
            node: String::new(),
            more: "[location]\nnamed_by = [\"127.0.0.0/8\"]\n".to_owned(),
            key: [7; 32],
            files: Vec::new(),
        }
    }

    pub(crate) fn more(self, more: &str) -> Self {
        Self { more: format!("{}{more}\n", self.more), ..self }
    }

    /// Starts the node and waits until it has heard from every orchestrator.
    pub(crate) async fn start(self, orchs: &[Orch]) -> Node {
        let node = self.launch(orchs).await;
        node.until_ready(orchs.len()).await;
        node
    }

    /// Starts the node.
    pub(crate) async fn launch(self, orchs: &[Orch]) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(folder.path().join("ticket.key"), key).unwrap();
        for (name, bytes) in &self.files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let mut text = format!(
            "[node]\nname = \"{}\"\nregion = \"{}\"\nticket_key = \"ticket.key\"\n{}\n\
             [listen]\npublic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{}\n\
             [log]\njournal = \"journal\"\n",
            self.name, self.region, self.node, self.more
        );
        for orch in orchs {
            write!(text, "[[orchestrator]]\nuri = \"{}\"\n", orch.uri).unwrap();
            if let Some(region) = &orch.region {
                writeln!(text, "region = \"{region}\"").unwrap();
            }
        }
        let path = folder.path().join("node.toml");
        std::fs::write(&path, &text).unwrap();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let app = app::start(config).await.unwrap();
        Node { app, folder, tasks: Mutex::default() }
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) app: App,
    pub(crate) folder: TempDir,
    tasks: Mutex<JoinSet<()>>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A reserved session, by the paths of its URLs at the node.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) control: String,
    /// The orchestrator's id, as the node tells it.
    pub(crate) orchestrator: String,
}

impl Node {
    /// Starts where another has stopped.
    pub(crate) async fn again(folder: TempDir) -> Self {
        let config = Config::load(&folder.path().join("node.toml")).unwrap();
        Self { app: app::start(config).await.unwrap(), folder, tasks: Mutex::default() }
    }

    /// Waits until `n` orchestrators are ready.
    pub(crate) async fn until_ready(&self, n: usize) {
        self.until("orchestrators are ready", || {
            let view = self.app.gateway.shared.view.load();
            let ready = |row: &portolan::view::Row| row.standing == Standing::Ready;
            view.rows().filter(|(_slot, row)| ready(row)).count() == n
        })
        .await;
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begin = portolan::clock::now();
        while !so() {
            assert!(begin.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request on a connection of its own and returns the head of the answer.
    pub(crate) async fn open(&self, request: Request<Bytes>) -> hyper::Result<Response<Incoming>> {
        self.open_at(self.app.public, request).await
    }

    async fn open_at(
        &self,
        at: SocketAddr,
        mut request: Request<Bytes>,
    ) -> hyper::Result<Response<Incoming>> {
        let tcp = TcpStream::connect(at).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        self.tasks.lock().unwrap().spawn(async { drop(connection.await) });
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", at.to_string().parse().unwrap());
        }
        send.send_request(request.map(Full::new)).await
    }

    /// The same, with the whole body.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Answer {
        whole(self.open(request).await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn get_for(&self, client: &str, path: &str) -> Answer {
        let request = Request::get(path).header("portolan-client-ip", client);
        self.send(request.body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(post(path, body)).await
    }

    /// Calls the single-shot echo.
    pub(crate) async fn call(&self, body: &str) -> Answer {
        self.post(ONCE, body).await
    }

    /// Reserves a session of the persistent echo.
    pub(crate) async fn reserve(&self) -> Session {
        let answer = self.post(RESERVE, "{}").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self.session(&answer)
    }

    pub(crate) fn session(&self, answer: &Answer) -> Session {
        let reserved: ReserveAnswer = serde_json::from_slice(&answer.body).unwrap();
        Session {
            id: reserved.session_id,
            app: self.path_of(&reserved.app_url),
            control: self.path_of(&reserved.control_url),
            orchestrator: answer.header("portolan-orchestrator").to_owned(),
        }
    }

    /// Returns the path of a URL that leads to this node.
    pub(crate) fn path_of(&self, url: &str) -> String {
        let base = format!("http://{}", self.app.public);
        let path = url.strip_prefix(&base);
        path.unwrap_or_else(|| panic!("{url} does not lead to {base}")).to_owned()
    }

    /// Asks the admin door.
    pub(crate) async fn admin(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
        whole(self.open_at(self.app.admin, request).await.unwrap()).await
    }

    /// Gives it a command of the operator.
    pub(crate) async fn order(&self, command: Vec<u8>) -> Answer {
        let request = Request::post("/v1/orders").body(Bytes::from(command)).unwrap();
        whole(self.open_at(self.app.admin, request).await.unwrap()).await
    }

    pub(crate) async fn admin_json(&self, path: &str) -> Value {
        let answer = self.admin(Method::GET, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }

    /// Stops it in order and returns the folder with its journal.
    pub(crate) async fn stop(self) -> TempDir {
        self.app.stop().await;
        self.folder
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        let not_json = |bad| panic!("{bad}: {} {}", self.status, self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(not_json)
    }

    /// Returns a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// A refusal of this node: the status, and a body every SDK reads.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let body = self.json();
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{body}");
        assert_eq!(body["detail"]["msg"], message);
        message.to_owned()
    }
}

pub(crate) async fn whole(answer: Response<Incoming>) -> Answer {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

pub(crate) fn post(path: &str, body: &str) -> Request<Bytes> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

/// The single-shot echo.
pub(crate) const ONCE: &str = "/apps/demo~2fonce/app";
/// A reservation of the persistent echo.
pub(crate) const RESERVE: &str = "/apps/demo~2fecho/session";
