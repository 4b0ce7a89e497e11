//! Bad input at the public door: every refusal is an answer any SDK can read, and nothing
//! dies of it.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use ractor::{ActorCell, ActorId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{Node, ONCE, Orch, RESERVE, Setup, params};

async fn one() -> (Node, [Orch; 1]) {
    let orchs = [Orch::start(params()).await];
    (Setup::new("inputs").start(&orchs).await, orchs)
}

/// Every actor of a node; one that died and came back has a new id.
fn actors(of: &ActorCell) -> Vec<ActorId> {
    let mut found: Vec<ActorId> = of.get_children().iter().flat_map(actors).collect();
    found.push(of.get_id());
    found.sort_by_key(ToString::to_string);
    found
}

/// Sends raw bytes and returns all that comes back.
async fn raw(node: &Node, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(node.app.public).await.unwrap();
    // A node that refuses early closes while this still writes.
    drop(tcp.write_all(bytes).await);
    drop(tcp.shutdown().await);
    let mut all = Vec::new();
    let read = tcp.read_to_end(&mut all);
    drop(tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap());
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_refused_with_a_remedy() {
    let (node, _orchs) = one().await;
    let paths = ["/", "/x", "/apps", "/apps/", "/apps/a", "/apps/a/b", "/apps/~zz/app", "/run/"];
    for path in paths {
        node.get(path).await.refused(404);
    }
    node.get("/apps/demo~2fnone/app").await.refused(404);
    for path in ["/discovery", "/discover-orchestrators", "/v1/resolve"] {
        let answer = node.post(path, "{}").await;
        assert!(answer.refused(405).contains("GET"));
        // Browsers ask first whether they may ask.
        let allowed = if path == "/v1/resolve" { "GET, OPTIONS" } else { "GET" };
        assert_eq!(answer.header("allow"), allowed);
    }
    node.get(RESERVE).await.refused(405);
    node.get("/discovery?app=%ff").await.refused(400);
    node.get("/discover-orchestrators?gpu=%zz").await.refused(400);
    let many = vec!["app=x"; 65].join("&");
    node.get(&format!("/discover-orchestrators?{many}")).await.refused(400);
}

#[tokio::test]
async fn payment_headers_that_cannot_be_read_go_nowhere() {
    let (node, [orch]) = one().await;
    let long = "A".repeat(48 * 1024 + 4);
    for name in ["livepeer-segment", "livepeer-payment"] {
        for value in ["!", "////", "A", long.as_str()] {
            for path in [ONCE, RESERVE, "/refresh-payment"] {
                let request = Request::post(path).header(name, value);
                node.send(request.body(Bytes::new()).unwrap()).await.refused(400);
            }
        }
        let twice = Request::post(ONCE).header(name, "").header(name, "");
        node.send(twice.body(Bytes::new()).unwrap()).await.refused(400);
    }
    assert_eq!(orch.seen().await["apps"], 0);
}

#[tokio::test]
async fn bytes_that_are_no_http_end_the_connection_and_nothing_else() {
    let (node, _orchs) = one().await;
    let before = actors(&node.app.root().get_cell());
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let smuggled = "POST /apps/demo~2fonce/app HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\
                    transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let lengths = "POST /apps/demo~2fonce/app HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\
                   content-length: 4\r\n\r\nabc";
    let inputs: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
        lengths.as_bytes(),
        b"\0\0\0\0\r\n\r\n",
    ];
    for input in inputs {
        let answer = raw(&node, input).await;
        let head = answer.lines().next().unwrap_or_default();
        let is_refused = head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 505");
        assert!(answer.is_empty() || is_refused, "{answer}");
    }
    let answer = raw(&node, smuggled.as_bytes()).await;
    assert!(answer.matches("HTTP/1.1").count() <= 1, "one request, one answer: {answer}");
    let cut = raw(
        &node,
        b"POST /apps/demo~2fonce/app HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc",
    );
    drop(cut.await);
    assert_eq!(node.call("still here").await.text(), "still here");
    assert_eq!(actors(&node.app.root().get_cell()), before);
}

#[tokio::test]
async fn any_request_is_answered_and_nothing_dies() {
    let (node, _orchs) = one().await;
    let before = actors(&node.app.root().get_cell());
    let segment = "(/|[a-z]{1,8}|%[0-9a-f]{2}|~2f|@[0-9a-f]{8}|[.]{1,2}|apps|run|session|app)";
    let path = proptest::collection::vec(segment, 0..6).prop_map(|it| format!("/{}", it.join("/")));
    let names = [
        "livepeer-payment",
        "livepeer-segment",
        "forwarded",
        "x-forwarded-for",
        "portolan-client-ip",
        "traceparent",
        "idempotency-key",
        "upgrade",
        "host",
    ];
    let header = (proptest::sample::select(names.to_vec()), "[ -~]{0,60}");
    let headers = proptest::collection::vec(header, 0..4);
    let methods = [Method::GET, Method::POST, Method::PUT, Method::HEAD, Method::OPTIONS];
    let method = proptest::sample::select(methods.to_vec());
    let requests = (method, path, "([a-z]{1,6}=[a-z%+0-9]{0,9}&?){0,3}", headers, ".{0,40}");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..400 {
        let (method, path, query, headers, body) =
            requests.new_tree(&mut runner).unwrap().current();
        let head = method == Method::HEAD;
        let mut request = Request::builder().method(method).uri(format!("{path}?{query}"));
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        let Ok(request) = request.body(Bytes::from(body)) else { continue };
        let told = format!("{request:?}");
        let answer = crate::node::whole(node.open(request).await.expect(&told)).await;
        assert!(answer.status != StatusCode::INTERNAL_SERVER_ERROR, "{told}");
        if !answer.status.is_success() && !head {
            answer.refused(answer.status.as_u16());
        }
    }
    assert_eq!(actors(&node.app.root().get_cell()), before);
}

#[tokio::test]
async fn the_operators_door_refuses_in_the_same_words() {
    let (node, _orchs) = one().await;
    let before = actors(&node.app.root().get_cell());
    for (status, path) in [
        (400, "/v1/explain"),
        (400, "/v1/explain?decision=x"),
        (404, "/v1/explain?decision=0000000000000000"),
        (400, "/v1/explain?ip=x&capability=demo/once"),
        (400, "/v1/explain?ip=8.8.8.8&capability=demo/once&path=up"),
        (404, "/v1/explain?ip=8.8.8.8&capability=none"),
        (400, "/v1/locate?ip=x"),
        (400, "/v1/locate"),
        (400, "/v1/locate?ip=8.8.8.8&ip=8.8.8.8"),
        (404, "/"),
        (404, "/v1/none"),
    ] {
        node.admin(Method::GET, path).await.refused(status);
    }
    let answer = node.admin(Method::POST, "/v1/node").await;
    answer.refused(405);
    assert_eq!(answer.header("allow"), "GET,HEAD");
    node.admin(Method::GET, "/v1/sessions/x").await.refused(405);
    node.admin(Method::DELETE, "/v1/sessions/%ff").await.refused(400);
    node.admin(Method::POST, "/v1/sessions/x/drain?seconds=x").await.refused(400);
    node.admin(Method::POST, "/v1/orchestrators/x/drain").await.refused(400);
    node.admin(Method::POST, "/v1/orchestrators/0000000000000000/drain").await.refused(404);
    node.admin(Method::POST, "/v1/sessions/x/drain").await.refused(404);
    assert_eq!(actors(&node.app.root().get_cell()), before);
}

#[test]
fn a_command_whose_reader_is_gone_ends_in_peace() {
    for ip in ["8.8.8.8", "10.0.0.1"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
        let run = command.args(["locate", ip]).stdout(writer).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        assert!(run.stderr.is_empty(), "{run:?}");
    }
}
