//! The apps door: discover, reserve, use, stop, and single-shot calls.

use std::net::TcpStream as Blocking;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use portolan::clock;
use portolan::ticket::{Key, Ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::node::{Node, ONCE, Orch, Setup, params};

async fn one() -> (Node, [Orch; 1]) {
    let orchs = [Orch::start(params()).await];
    (Setup::new("apps").start(&orchs).await, orchs)
}

#[tokio::test]
async fn discovery_lists_every_app_once_with_everybodys_places() {
    let orchs = Orch::near_and_far().await;
    let node = Setup::new("apps").start(&orchs).await;
    let list = node.get("/discovery").await.json();
    let runners = list[0]["runners"].as_array().unwrap();
    let apps: Vec<&str> = runners.iter().map(|it| it["app"].as_str().unwrap()).collect();
    assert_eq!(apps, ["demo/echo", "demo/image", "demo/once"]);
    assert_eq!(runners[2]["capacity"], 200);
    assert_eq!(node.path_of(runners[2]["url"].as_str().unwrap()), ONCE);
    let one = node.get("/discovery?app=demo/image").await.json();
    assert_eq!(one[0]["runners"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_is_reserved_used_by_any_method_and_stopped() {
    let (node, [orch]) = one().await;
    let session = node.reserve().await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::POST] {
        let request = Request::builder().method(&method).uri(format!("{}/a/b?q=%20", session.app));
        let answer = node.send(request.body(Bytes::from("hello")).unwrap()).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
        assert_eq!(answer.header("x-echo-method"), method.as_str());
        assert_eq!(answer.header("x-echo-query"), "q=%20");
        assert!(answer.header("x-echo-path").ends_with("/app/a/b"));
    }
    let stopped = node.post(&format!("{}/stop", session.control), "").await;
    assert_eq!(stopped.status, StatusCode::NO_CONTENT);
    assert_eq!(orch.seen().await["stopped"], 1);
    let after = node.get(&format!("{}/x", session.app)).await;
    assert_eq!(after.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_single_shot_call_tells_what_was_decided_and_why() {
    let (node, [orch]) = one().await;
    let answer = node.call("{\"n\":1}").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{\"n\":1}"));
    assert!(answer.header("server-timing").contains("ttfb;dur="), "{:?}", answer.headers);
    assert_eq!(answer.header("portolan-node"), "apps");
    assert_eq!(answer.header("portolan-region"), "FRA");
    let decision = answer.header("portolan-decision");
    let explained = node.admin_json(&format!("/v1/explain?decision={decision}")).await;
    assert_eq!(explained["candidates"][0]["verdict"], "chosen");
    assert_eq!(explained["candidates"][0]["uri"], orch.uri.as_str());
    assert_eq!(explained["chosen"], answer.header("portolan-orchestrator"));
    let mut request = crate::node::post(ONCE, "");
    request.headers_mut().insert("portolan-explain", "1".parse().unwrap());
    assert!(node.send(request).await.header("portolan-explain").contains("FRA;cost="));
}

/// Reads until `wanted` has come.
pub(crate) async fn read_until(tcp: &mut TcpStream, wanted: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(wanted) {
            assert!(tcp.read_buf(&mut all).await.unwrap() > 0, "ended without {wanted:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn an_upload_streams_both_ways_before_it_ends() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    let mut tcp = TcpStream::connect(node.app.public).await.unwrap();
    let head = format!(
        "POST {}/up HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        session.app, node.app.public
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    for piece in ["first", "other"] {
        let chunk = format!("5\r\n{piece}\r\n");
        tcp.write_all(chunk.as_bytes()).await.unwrap();
        // It is back before the next one is sent.
        read_until(&mut tcp, piece).await;
    }
    tcp.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut tcp, "0\r\n\r\n").await;
}

#[tokio::test]
async fn events_come_one_by_one() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    let begin = clock::now();
    let path = format!("{}/events?n=4&every_ms=150", session.app);
    let answer = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for seq in 0..4_u32 {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, format!("id: {seq}\ndata: {{\"seq\":{seq}}}\n\n"));
        assert!(begin.elapsed() >= Duration::from_millis(140) * seq);
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_web_socket_passes_both_ways_and_closes() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    let at = node.app.public;
    let talk = move || {
        let tcp = Blocking::connect(at).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let url = format!("ws://{at}{}/ws", session.app);
        let (mut socket, _) = tungstenite::client(url, tcp).unwrap();
        for message in [Message::text("hi"), Message::binary(vec![7; 300_000])] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        session
    };
    let session = tokio::task::spawn_blocking(talk).await.unwrap();
    node.until("the socket is counted out", || {
        let all = node.app.gateway.shared.sessions.all();
        let counted = all.iter().find(|it| it.session.as_str() == session.id).unwrap().counted();
        counted.open == 0
    })
    .await;
}

#[tokio::test]
async fn a_large_body_passes_unchanged() {
    let (node, _orchs) = one().await;
    let body: Bytes = (0..3_000_000_u32).map(|it| (it * 7) as u8).collect::<Vec<u8>>().into();
    let request = Request::post(ONCE).body(body.clone()).unwrap();
    assert!(node.send(request).await.body == body);
}

#[tokio::test]
async fn a_url_works_at_any_node_of_the_mesh_and_after_a_restart() {
    let orchs = [Orch::start(params()).await];
    let first = Setup::new("first").start(&orchs).await;
    let session = first.reserve().await;
    first.stop().await;
    for name in ["other", "first"] {
        let node = Setup::new(name).start(&orchs).await;
        let answer = node.post(&format!("{}/x", session.app), "hello").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"), "{name}");
    }
    let node = Setup::new("other").start(&orchs).await;
    let stopped = node.post(&format!("{}/stop", session.control), "").await;
    assert_eq!(stopped.status, StatusCode::NO_CONTENT);
    assert_eq!(orchs[0].seen().await["stopped"], 1);
}

#[tokio::test]
async fn a_forged_or_expired_url_leads_nowhere() {
    let (node, orchs) = one().await;
    let session = node.reserve().await;
    let ticket = |expires| Ticket {
        orchestrator: portolan::id::OrchestratorId::of(&orchs[0].uri),
        session: session.id.parse().unwrap(),
        path: format!("/apps/echo/session/{}/app", session.id),
        expires,
    };
    let now = clock::wall().as_secs();
    let run = |key: [u8; 32], expires| {
        format!("/run/{}/x", Key::new(key).seal(&ticket(expires)).unwrap())
    };
    assert_eq!(node.get(&run([7; 32], now + 60)).await.status, StatusCode::OK);
    let expired = node.get(&run([7; 32], now - 1)).await.refused(404);
    assert!(expired.contains("expired") && expired.contains("reserve again"), "{expired}");
    let forged = node.get(&run([8; 32], now + 60)).await.refused(404);
    assert!(forged.contains("not made by this mesh"), "{forged}");
    let mut cut = session.app.clone();
    cut.truncate(cut.len() - 1);
    node.get(&cut).await.refused(404);
    node.get("/run/x").await.refused(404);
}

#[tokio::test]
async fn no_path_leads_out_of_its_session() {
    let (node, orchs) = one().await;
    let session = node.reserve().await;
    let before = orchs[0].seen().await["apps"].clone();
    for way in ["/../../x", "/./x", "/%2e%2e/x", "/%2E%2e/stop", "/a/.."] {
        node.get(&format!("{}{way}", session.app)).await.refused(400);
    }
    assert_eq!(orchs[0].seen().await["apps"], before, "nothing of it reached the orchestrator");
}

#[tokio::test]
async fn what_names_the_client_or_the_session_is_not_passed_on() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    let request = Request::get(format!("{}/where", session.app))
        .header("x-forwarded-for", "91.0.0.1")
        .header("forwarded", "for=91.0.0.1")
        .header("x-real-ip", "91.0.0.1")
        .header("portolan-client-ip", "91.0.0.1")
        .header("livepeer-session-id", "forged")
        .header("livepeer-session-token", "forged")
        .header("livepeer-runner-route", "forged")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-own", "kept");
    let answer = node.send(request.body(Bytes::new()).unwrap()).await;
    let seen = answer.json()["headers"].clone();
    let text = seen.to_string();
    assert!(!text.contains("91.0.0.1") && !text.contains("forged"), "{text}");
    assert!(seen.get("x-hop").is_none(), "{text}");
    assert_eq!(seen["x-own"], "kept");
    assert_eq!(seen["livepeer-session-id"], session.id.as_str());
    assert!(seen["traceparent"].as_str().unwrap().starts_with("00-"), "{text}");
}
