//! The development orchestrator over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portolan::clock;
use portolan::devorch::{Params, bind};
use portolan::livepeer::runner::{ReserveAnswer, parse_discovery};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

mod faults;
mod money;
mod streams;
mod tls;

/// A development orchestrator in this process; it ends with the value.
pub(crate) struct Orchestrator {
    pub(crate) addr: SocketAddr,
    tasks: JoinSet<()>,
}

pub(crate) fn params() -> Params {
    Params {
        listen: ([127, 0, 0, 1], 0).into(),
        service: Some("http://orchestrator.test".parse().unwrap()),
        region: Some("FRA".parse().unwrap()),
        gpu: None,
        capacity: 2,
        idle: Duration::from_secs(60),
        work: Duration::ZERO,
        delays: "".parse().unwrap(),
        faults: "".parse().unwrap(),
        asking: None,
    }
}

impl Orchestrator {
    pub(crate) async fn start(params: Params) -> Self {
        let bound = bind(params).await.unwrap();
        let addr = bound.addr();
        let mut tasks = JoinSet::new();
        tasks.spawn(bound.serve(std::future::pending()));
        Self { addr, tasks }
    }

    /// Sends one request on a connection of its own and returns the head of the answer.
    pub(crate) async fn open(
        &mut self,
        request: Request<&str>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        self.tasks.spawn(async { drop(connection.await) });
        send.send_request(request.map(|it| Full::new(Bytes::copy_from_slice(it.as_bytes())))).await
    }

    /// The same, with the whole body.
    pub(crate) async fn send(&mut self, request: Request<&str>) -> (StatusCode, HeaderMap, Bytes) {
        let (head, body) = self.open(request).await.unwrap().into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> (StatusCode, String) {
        let (status, _, body) = self.send(post(path, body)).await;
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    pub(crate) async fn get_json(&mut self, path: &str) -> serde_json::Value {
        let (status, _, body) = self.send(Request::get(path).body("").unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice(&body).unwrap()
    }

    /// Reserves a session of `demo/echo` and returns the path of its application.
    pub(crate) async fn reserve(&mut self) -> String {
        let (status, body) = self.post("/apps/echo/session", "{}").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: ReserveAnswer = serde_json::from_str(&body).unwrap();
        path_of(&answer.app_url)
    }
}

pub(crate) fn post<'a>(path: &str, body: &'a str) -> Request<&'a str> {
    Request::post(path).header("host", "orchestrator.test").body(body).unwrap()
}

fn path_of(url: &str) -> String {
    url.strip_prefix("http://orchestrator.test:80").unwrap().to_owned()
}

#[tokio::test]
async fn discovery_shows_the_runners_with_their_true_load() {
    let mut orch = Orchestrator::start(params()).await;
    orch.reserve().await;
    let (_, _, body) = orch.send(Request::get("/discovery").body("").unwrap()).await;
    let found = parse_discovery(&body).unwrap();
    assert_eq!((found.dropped_entries, found.dropped_runners), (0, 0));
    let runners = &found.entries[0].runners;
    let load: Vec<_> = runners.iter().map(|it| (&*it.app, it.capacity_used)).collect();
    assert_eq!(load, [("demo/echo", 1), ("demo/once", 0), ("demo/image", 0)]);
    assert_eq!(runners[0].region().as_deref(), Some("FRA"));
    assert_eq!(runners[0].capacity_available, 1);
}

#[tokio::test]
async fn a_session_is_reserved_used_and_stopped() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    let call = Request::put(format!("{app}/deep/er?q=1"))
        .header("content-type", "text/x")
        .header("livepeer-session-id", "forged");
    let (status, headers, body) = orch.send(call.body("hello").unwrap()).await;
    assert_eq!((status, &*body), (StatusCode::OK, &b"hello"[..]));
    let told = ["x-echo-method", "x-echo-query", "x-region", "content-type"];
    assert_eq!(told.map(|it| headers[it].to_str().unwrap()), ["PUT", "q=1", "FRA", "text/x"]);

    let described = orch.get_json(&format!("{app}/where")).await;
    let session = app.split('/').nth(4).unwrap();
    assert_eq!(described["headers"]["livepeer-session-id"], session);
    assert!(described["path"].as_str().unwrap().ends_with("/app/where"));

    let stop = app.strip_suffix("/app").unwrap().to_owned() + "/stop";
    assert_eq!(orch.post(&stop, "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(orch.post(&stop, "").await.0, StatusCode::NOT_FOUND);
    let (status, body) = orch.post(&app, "").await;
    assert_eq!((status, &*body), (StatusCode::NOT_FOUND, "session not found\n"));
}

#[tokio::test]
async fn a_full_runner_refuses_as_real_ones_do_and_takes_again() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    orch.reserve().await;
    let full = (StatusCode::SERVICE_UNAVAILABLE, "no capacity available for runner\n".to_owned());
    assert_eq!(orch.post("/apps/echo/session", "").await, full);
    assert_eq!(orch.post("/dev/capacity", "3").await.0, StatusCode::NO_CONTENT);
    orch.reserve().await;
    assert_eq!(orch.post("/apps/echo/session", "").await, full);
    orch.post(&(app.strip_suffix("/app").unwrap().to_owned() + "/stop"), "").await;
    orch.reserve().await;
    assert_eq!(orch.get_json("/dev/seen").await["full"], 2);
}

#[tokio::test]
async fn wrong_runners_and_modes_have_their_status() {
    let mut orch = Orchestrator::start(params()).await;
    assert_eq!(orch.post("/apps/none/session", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(orch.post("/apps/none/app", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(orch.post("/apps/once/session", "").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(orch.post("/apps/echo/app", "").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(orch.post("/dev/capacity", "many").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_single_shot_call_holds_its_slot_while_it_works() {
    let orch = Orchestrator::start(Params { capacity: 1, ..params() }).await;
    let (mut busy, mut idle) = (Orchestrator { tasks: JoinSet::new(), addr: orch.addr }, orch);
    let work = busy.post("/apps/once/app?work_ms=400", "done");
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        idle.post("/apps/once/app", "").await.0
    };
    let (worked, refused) = tokio::join!(work, meanwhile);
    assert_eq!(worked, (StatusCode::OK, "done".to_owned()));
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(idle.post("/apps/once/app", "again").await.1, "again");
}

#[tokio::test]
async fn an_idle_session_ends() {
    let mut orch =
        Orchestrator::start(Params { idle: Duration::from_millis(50), ..params() }).await;
    let app = orch.reserve().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(orch.post(&app, "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn callers_from_farther_networks_wait_longer() {
    let delays = "127.0.0.1=100ms".parse().unwrap();
    let mut orch = Orchestrator::start(Params { delays, ..params() }).await;
    let begin = clock::now();
    orch.get_json("/discovery").await;
    let far = begin.elapsed();
    assert_eq!(orch.post("/dev/delay", "0ms").await.0, StatusCode::NO_CONTENT);
    let begin = clock::now();
    orch.get_json("/discovery").await;
    let near = begin.elapsed();
    // One round trip for the connection, one for the request.
    assert!(far >= Duration::from_millis(200), "{far:?}");
    assert!(near < far / 2, "{near:?} against {far:?}");
}

#[tokio::test]
async fn a_delayed_body_of_many_megabytes_comes_whole() {
    let delays = "20ms".parse().unwrap();
    let mut orch = Orchestrator::start(Params { delays, ..params() }).await;
    let body = "0123456789abcdef".repeat(512 * 1024);
    let begin = clock::now();
    let (status, echo) = orch.post("/apps/once/app", &body).await;
    assert_eq!((status, echo.len()), (StatusCode::OK, body.len()));
    assert!(echo == body);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_picture_is_filtered_and_what_is_none_is_refused() {
    let mut orch = Orchestrator::start(params()).await;
    let (status, why) = orch.post("/apps/image/app?filter=edge", "no picture").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(why.contains("not a PNG"), "{why}");
    let (status, why) = orch.post("/apps/image/app?filter=blur", "").await;
    assert!(status == StatusCode::BAD_REQUEST && why.contains("grayscale"), "{why}");
    // One gray pixel, in base64, as clients send it that know JSON only.
    let dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==";
    let order = format!(r#"{{"image":"{dot}","filter":"invert"}}"#);
    let request = Request::post("/apps/image/app").header("content-type", "application/json");
    let (status, headers, picture) = orch.send(request.body(order.as_str()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{picture:?}");
    assert_eq!(headers["content-type"], "image/png");
    assert!(picture.starts_with(b"\x89PNG"));
}

#[tokio::test]
async fn any_method_reaches_the_application() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    for method in [Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let request = Request::builder().method(&method).uri(&app).body("x").unwrap();
        let (status, headers, _) = orch.send(request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["x-echo-method"], method.as_str());
    }
}
