//! A wall of faults: what the caller and the orchestrators see of each way to fail.
//!
//! Everywhere the same two promises: no answer that was cut looks whole, and nothing that must
//! not be done twice is sent twice.

mod scripted;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use portolan::clock;
use portolan::id::OrchestratorId;
use portolan::view::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{Answer, Node, Setup, post};
use scripted::{Scripted, Step, answer};

/// A node before a near and a far orchestrator, both of them well.
struct Wall {
    node: Node,
    near: Scripted,
    far: Scripted,
}

const ONCE: &str = "/apps/wall~2fonce/app";
const RESERVE: &str = "/apps/wall~2flong/session";

impl Wall {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(more: &str) -> Self {
        let near = Scripted::start("FRA", Duration::ZERO).await;
        let far = Scripted::start("NYC", Duration::from_millis(60)).await;
        near.is_well();
        far.is_well();
        let tables = format!(
            "[upstream]\nhead_timeout_ms = 600\ncheck_busy_ms = 200\ncheck_idle_ms = 200\n\
             {more}\n{}{}",
            near.table(),
            far.table()
        );
        let node = Setup::new("wall").more(&tables).launch(&[]).await;
        node.until_ready(2).await;
        let wall = Self { node, near, far };
        wall.until_near_is_nearest().await;
        wall
    }

    /// The first checks may be slowed by what else this machine does.
    async fn until_near_is_nearest(&self) {
        self.node
            .until("the near one is nearer", || {
                let view = self.node.app.gateway.shared.view.load();
                let rtt = |it: &Scripted| {
                    let row = view.orchestrator(OrchestratorId::of(&it.uri));
                    row.map_or(0, |(_slot, row)| row.link.rtt.0)
                };
                rtt(&self.near) + 30_000 < rtt(&self.far)
            })
            .await;
    }

    /// A call that must not be done twice.
    async fn call(&self) -> Answer {
        self.node.post(ONCE, "work").await
    }

    /// One that may be.
    async fn call_again_if_need_be(&self) -> Answer {
        let mut request = post(ONCE, "work");
        request.headers_mut().insert("idempotency-key", "1".parse().unwrap());
        self.node.send(request).await
    }

    fn standing(&self, of: &Scripted) -> Option<Standing> {
        let view = self.node.app.gateway.shared.view.load();
        view.orchestrator(OrchestratorId::of(&of.uri)).map(|(_slot, row)| row.standing)
    }

    /// Returns how many requests each of the two has seen.
    fn seen(&self) -> (usize, usize) {
        (self.near.seen().len(), self.far.seen().len())
    }
}

fn send(text: &str) -> Step {
    Step::Send(text.to_owned())
}

fn replies(status: &str, fields: &str, body: &str) -> [Step; 2] {
    [Step::Read, Step::Send(answer(status, fields, body))]
}

#[track_caller]
fn served_by(answer: &Answer, by: &Scripted) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("portolan-orchestrator"), OrchestratorId::of(&by.uri).to_string());
    assert_eq!(answer.text(), "served");
}

/// Opens a stream and returns whether it came to its end.
async fn ends_whole(node: &Node, request: Request<Bytes>) -> bool {
    let answer = node.open(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect()).await;
    body.expect("the stream was left open").is_ok()
}

#[tokio::test]
async fn a_refused_connection_goes_elsewhere_unseen() {
    let mut wall = Wall::new().await;
    wall.near.leave().await;
    served_by(&wall.call().await, &wall.far);
    assert_eq!(wall.seen(), (0, 1));
}

#[tokio::test]
async fn a_reset_before_the_head_is_told_or_repeated_where_that_is_harmless() {
    let wall = Wall::new().await;
    wall.near.does([Step::Read, Step::Reset]);
    assert!(wall.call().await.refused(502).contains("broke off"));
    assert_eq!(wall.seen(), (1, 0), "not sent twice");
    served_by(&wall.call_again_if_need_be().await, &wall.far);
    assert_eq!(wall.seen(), (2, 1));
    assert_eq!(wall.far.seen()[0].body, "work", "the body is whole the second time");
}

#[tokio::test]
async fn a_reset_after_the_head_cuts_the_answer() {
    let wall = Wall::new().await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    wall.near.does([Step::Read, send(head), Step::Wait(Duration::from_millis(50)), Step::Reset]);
    assert!(!ends_whole(&wall.node, post(ONCE, "work")).await);
    assert_eq!(wall.seen(), (1, 0), "what began is not tried again");
}

#[tokio::test]
async fn a_429_is_no_failure_and_its_wait_is_kept() {
    let wall = Wall::new().await;
    wall.near.does(replies("429 Too Many Requests", "retry-after: 2\r\n", "{}"));
    served_by(&wall.call().await, &wall.far);
    wall.near.is_well();
    for _ in 0..3 {
        served_by(&wall.call().await, &wall.far);
    }
    assert_eq!(wall.near.seen().len(), 1, "left alone as it asked");
    assert_eq!(wall.standing(&wall.near), Some(Standing::Ready), "busy is not bad");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    served_by(&wall.call().await, &wall.near);
}

#[tokio::test]
async fn when_all_ask_to_wait_the_client_is_told_the_shortest() {
    let wall = Wall::new().await;
    wall.near.does(replies("503 Service Unavailable", "retry-after: 30\r\n", "no capacity"));
    wall.far.does(replies("503 Service Unavailable", "retry-after: 7\r\n", "no capacity"));
    wall.call().await.refused(503);
    let again = wall.call().await;
    again.refused(503);
    let wait: u32 = again.header("retry-after").parse().unwrap();
    assert!((5..=7).contains(&wait), "{wait}");
    assert_eq!(wall.seen(), (1, 1), "nobody was asked again");
}

#[tokio::test]
async fn a_503_goes_elsewhere() {
    let wall = Wall::new().await;
    wall.near.does(replies("503 Service Unavailable", "", "down for maintenance"));
    served_by(&wall.call().await, &wall.far);
    assert_eq!(wall.seen(), (1, 1));
}

#[tokio::test]
async fn a_storm_of_500s_puts_it_aside() {
    let wall = Wall::new().await;
    wall.near.does(replies("500 Internal Server Error", "", "boom"));
    let mut told = 0;
    let begin = clock::now();
    while wall.standing(&wall.near) == Some(Standing::Ready) {
        assert!(begin.elapsed() < Duration::from_secs(10), "not put aside after {told}");
        let answer = wall.call().await;
        told += usize::from(answer.status == StatusCode::INTERNAL_SERVER_ERROR);
        // Failing makes it dearer, so that the far one gets some before it is put aside.
        assert!(answer.status == StatusCode::OK || answer.text() == "boom", "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((1..=40).contains(&told), "{told}");
    served_by(&wall.call().await, &wall.far);
}

#[tokio::test]
async fn a_slow_head_is_waited_for() {
    let wall = Wall::new().await;
    let wait = Step::Wait(Duration::from_millis(300));
    wall.near.does([Step::Read, wait, Step::Send(answer("200 OK", "", "served"))]);
    served_by(&wall.call().await, &wall.near);
}

#[tokio::test]
async fn a_silent_head_is_failed_over_or_told_and_never_waited_for() {
    let wall = Wall::new().await;
    wall.near.does([Step::Read, Step::Hang]);
    let begin = clock::now();
    wall.call().await.refused(504);
    assert_eq!(wall.seen(), (1, 0));
    served_by(&wall.call_again_if_need_be().await, &wall.far);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_silent_stream_lives_while_its_connection_does() {
    let wall = Wall::new().await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let wait = Step::Wait(Duration::from_millis(1_200));
    wall.near.does([Step::Read, send(head), wait, send("5\r\nother\r\n0\r\n\r\n")]);
    assert!(ends_whole(&wall.node, post(ONCE, "work")).await);
}

#[tokio::test]
async fn a_truncated_body_does_not_look_whole() {
    let wall = Wall::new().await;
    for end in [Step::Close, Step::Reset] {
        let short = send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
        wall.near.does([Step::Read, short, Step::Wait(Duration::from_millis(30)), end]);
        assert!(!ends_whole(&wall.node, post(ONCE, "work")).await);
    }
    let open = send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    wall.near.does([Step::Read, open, Step::Close]);
    assert!(!ends_whole(&wall.node, post(ONCE, "work")).await, "chunks without an end");
}

#[tokio::test]
async fn a_bad_chunk_cuts_the_answer() {
    let wall = Wall::new().await;
    let bad = send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nxyz\r\n");
    wall.near.does([Step::Read, bad, Step::Hang]);
    assert!(!ends_whole(&wall.node, post(ONCE, "work")).await);
}

#[tokio::test]
async fn bytes_that_are_no_answer_are_a_failure() {
    let wall = Wall::new().await;
    wall.near.does([Step::Read, send("\u{1}\u{2}garbage\r\n\r\n"), Step::Close]);
    wall.call().await.refused(502);
    assert_eq!(wall.seen(), (1, 0));
    served_by(&wall.call_again_if_need_be().await, &wall.far);
}

#[tokio::test]
async fn a_200_with_garbage_is_no_session_and_somebody_else_is_asked() {
    let wall = Wall::new().await;
    let session = format!(
        "{{\"session_id\":\"s1\",\"app_url\":\"{0}/s1/app\",\"control_url\":\"{0}/s1\"}}",
        wall.far.uri
    );
    for garbage in ["{\"session_id\":", "<html>no</html>", "", "{}"] {
        let kind = "content-type: text/html\r\n";
        wall.near.does(replies("200 OK", kind, garbage));
        wall.far.does(replies("200 OK", "content-type: application/json\r\n", &session));
        let answer = wall.node.post(RESERVE, "{}").await;
        assert_eq!(answer.status, StatusCode::OK, "{garbage:?}: {}", answer.text());
        assert_eq!(
            answer.header("portolan-orchestrator"),
            OrchestratorId::of(&wall.far.uri).to_string()
        );
    }
}

#[tokio::test]
async fn an_empty_200_or_one_of_another_kind_is_passed_on_and_is_no_merit() {
    let wall = Wall::new().await;
    let successes = |wall: &Wall| {
        let view = wall.node.app.gateway.shared.view.load();
        let (_slot, row) = view.orchestrator(OrchestratorId::of(&wall.near.uri)).unwrap();
        row.offers[0].service
    };
    wall.near.does(replies("200 OK", "", ""));
    let empty = wall.call().await;
    assert_eq!((empty.status, empty.text()), (StatusCode::OK, ""));
    wall.near.does(replies("200 OK", "content-type: text/html\r\n", "<p>busy</p>"));
    let mut request = post(ONCE, "work");
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    let other = wall.node.send(request).await;
    assert_eq!(other.text(), "<p>busy</p>");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(successes(&wall), None, "nothing is learned of its speed");
    let metrics = wall.node.admin(http::Method::GET, "/metrics").await;
    assert!(metrics.text().contains("portolan_answers_odd_total"), "it is counted");
}

#[tokio::test]
async fn an_expired_token_is_the_clients_affair() {
    let wall = Wall::new().await;
    wall.near.does(replies("401 Unauthorized", "", "token expired"));
    let answer = wall.call().await;
    assert_eq!((answer.status, answer.text()), (StatusCode::UNAUTHORIZED, "token expired"));
    assert_eq!(wall.seen(), (1, 0));
    assert_eq!(wall.standing(&wall.near), Some(Standing::Ready));
}

#[tokio::test]
async fn out_of_budget_upstream_is_passed_on_as_it_came() {
    let wall = Wall::new().await;
    wall.near.does(replies("402 Payment Required", "", "insufficient balance"));
    let answer = wall.call().await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(answer.text(), "insufficient balance");
    assert_eq!(wall.seen(), (1, 0));
}

#[tokio::test]
async fn a_model_that_is_gone_is_found_elsewhere() {
    let wall = Wall::new().await;
    let session = format!(
        "{{\"session_id\":\"s1\",\"app_url\":\"{0}/s1/app\",\"control_url\":\"{0}/s1\"}}",
        wall.far.uri
    );
    wall.near.does(replies("404 Not Found", "", "no such runner"));
    wall.far.does(replies("200 OK", "content-type: application/json\r\n", &session));
    let reserved = wall.node.post(RESERVE, "{}").await;
    assert_eq!(reserved.status, StatusCode::OK, "{}", reserved.text());
    assert_eq!(wall.standing(&wall.near), Some(Standing::Ready), "nobody is blamed");
    // Once its own list says so, it is not asked at all.
    wall.near.offers("wall/other", 8);
    wall.far.is_well();
    let offered = || {
        let view = wall.node.app.gateway.shared.view.load();
        let wanted = view.capabilities.number("wall/once");
        let (_slot, row) = view.orchestrator(OrchestratorId::of(&wall.near.uri)).unwrap();
        row.offers.iter().any(|it| Some(it.capability) == wanted)
    };
    wall.node.until("its list was read again", || !offered()).await;
    let before = wall.near.seen().len();
    served_by(&wall.call().await, &wall.far);
    assert_eq!(wall.near.seen().len(), before);
}

#[tokio::test]
async fn with_all_down_every_caller_is_told_at_once() {
    let mut wall = Wall::new().await;
    wall.near.leave().await;
    wall.far.leave().await;
    let begin = clock::now();
    for _ in 0..10 {
        let answer = wall.call().await;
        assert!(answer.status == 502 || answer.status == 503, "{}", answer.status);
        answer.refused(answer.status.as_u16());
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_flapping_one_costs_few_calls() {
    let mut wall = Wall::new().await;
    let (mut served, mut failed) = (0, 0);
    for turn in 0..12 {
        if turn % 2 == 0 {
            wall.near.leave().await;
        } else {
            wall.near.come_back().await;
        }
        for _ in 0..5 {
            let answer = wall.call().await;
            if answer.status == StatusCode::OK {
                served += 1;
            } else {
                failed += 1;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // A call may be under way on a connection that dies with it; no other is lost.
    assert!(failed <= 2, "{failed} of {served}");
}

#[tokio::test]
async fn one_that_recovers_serves_again_by_probation() {
    let wall = Wall::new().await;
    wall.near.does(replies("500 Internal Server Error", "", "boom"));
    let begin = clock::now();
    while wall.standing(&wall.near) == Some(Standing::Ready) {
        assert!(begin.elapsed() < Duration::from_secs(10));
        drop(wall.call().await);
    }
    wall.near.is_well();
    let begin = clock::now();
    while wall.standing(&wall.near) != Some(Standing::Probation) {
        served_by(&wall.call().await, &wall.far);
        assert!(begin.elapsed() < Duration::from_secs(20), "it is never tried again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One success ends the probation; its failures fade, and with them what it costs.
    let mut request = post(ONCE, "work");
    let pin = format!("{}; only", OrchestratorId::of(&wall.near.uri));
    request.headers_mut().insert("portolan-prefer", pin.parse().unwrap());
    served_by(&wall.node.send(request).await, &wall.near);
    wall.node.until("it is well", || wall.standing(&wall.near) == Some(Standing::Ready)).await;
}

#[tokio::test]
async fn on_the_way_back_it_takes_one_at_a_time() {
    let wall = Wall::new().await;
    wall.near.does(replies("500 Internal Server Error", "", "boom"));
    let begin = clock::now();
    while wall.standing(&wall.near) == Some(Standing::Ready) {
        assert!(begin.elapsed() < Duration::from_secs(10));
        drop(wall.call().await);
    }
    let wait = Step::Wait(Duration::from_millis(300));
    wall.near.does([Step::Read, wait, Step::Send(answer("200 OK", "", "served"))]);
    wall.node
        .until("it is in probation", || wall.standing(&wall.near) == Some(Standing::Probation))
        .await;
    let before = wall.near.seen().len();
    let calls = (0..12).map(|_| wall.call());
    for answer in join_all(calls).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert!(wall.near.seen().len() <= before + 1, "more than one was sent on the way back");
}

/// Runs futures of one task side by side.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = futures.map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in &mut all {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match all.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test]
async fn a_deadline_shorter_than_any_way_is_refused_before_anybody_is_asked() {
    let wall = Wall::new().await;
    let mut request = post(ONCE, "work");
    request.headers_mut().insert("portolan-deadline", "1".parse().unwrap());
    wall.node.send(request).await.refused(504);
    assert_eq!(wall.seen(), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_and_blames_nobody() {
    let wall = Wall::new().await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    wall.near.does([Step::Read, send(head), Step::Hang]);
    for _ in 0..8 {
        let answer = wall.node.open(post(ONCE, "work")).await.unwrap();
        drop(answer);
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(wall.standing(&wall.near), Some(Standing::Ready));
    wall.near.is_well();
    served_by(&wall.call().await, &wall.near);
    assert_eq!(wall.near.seen().len(), 9);
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_is_passed_on_and_not_mixed_up() {
    let wall = Wall::new().await;
    wall.near.does([send(&answer("413 Content Too Large", "", "too much"))]);
    let mut tcp = TcpStream::connect(wall.node.app.public).await.unwrap();
    let head = format!("POST {ONCE} HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(&[b'x'; 1000]).await.unwrap();
    let mut told = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(5), tcp.read_exact(&mut told)).await;
    read.expect("the answer waits for the body").unwrap();
    assert_eq!(&told, b"HTTP/1.1 413");
    drop(tcp);
    // The connection it came over carries no other request behind the rest of that body.
    wall.near.is_well();
    served_by(&wall.call().await, &wall.near);
    let last = wall.near.seen().pop().unwrap();
    assert!(last.head.starts_with("POST /once HTTP/1.1"), "{}", last.head);
    assert_eq!(last.body, "work");
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_only_once_somebody_takes_it() {
    let mut wall = Wall::new().await;
    let head = format!(
        "POST {ONCE} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut tcp = TcpStream::connect(wall.node.app.public).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    tcp.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(wall.seen(), (0, 0), "connected, and nothing sent yet");
    tcp.write_all(b"work").await.unwrap();
    let mut told = [0; 12];
    tcp.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 200");
    assert!(!wall.near.seen()[0].head.contains("expect"), "{}", wall.near.seen()[0].head);
    wall.near.leave().await;
    wall.far.leave().await;
    // The node may take an idle connection for good until it hears of its end.
    for _ in 0..50 {
        let mut tcp = TcpStream::connect(wall.node.app.public).await.unwrap();
        tcp.write_all(head.as_bytes()).await.unwrap();
        tcp.read_exact(&mut told).await.unwrap();
        if told.starts_with(b"HTTP/1.1 5") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a no never comes without asking for the body: {}", String::from_utf8_lossy(&told));
}
