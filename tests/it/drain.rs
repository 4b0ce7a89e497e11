//! Stopping a node: every stream is finished, or its client sees that it was not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use portolan::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::node::{Node, Orch, Setup, params};

async fn node(drain_s: u64) -> (Node, Orch) {
    let orch = Orch::start(params()).await;
    let limits = format!("[limits]\ndrain_s = {drain_s}");
    let node = Setup::new("drain").more(&limits).start(std::slice::from_ref(&orch)).await;
    (node, orch)
}

/// Opens a stream of events and returns whether it comes to its end.
async fn events(node: &Node, n: u32) -> impl Future<Output = bool> + use<> {
    let session = node.reserve().await;
    let path = format!("{}/events?n={n}&every_ms=50", session.app);
    let answer = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    async move { answer.into_body().collect().await.is_ok() }
}

#[tokio::test]
async fn a_stream_that_ends_in_time_ends_whole() {
    let (node, _orch) = node(10).await;
    let mut whole = JoinSet::new();
    whole.spawn(events(&node, 20).await);
    let begin = clock::now();
    node.stop().await;
    assert!(whole.join_next().await.unwrap().unwrap(), "cut though there was time");
    assert!(begin.elapsed() < Duration::from_secs(8), "waits for nobody: {:?}", begin.elapsed());
}

#[tokio::test]
async fn a_stream_that_does_not_is_cut_where_its_client_sees_it() {
    let (node, _orch) = node(1).await;
    let session = node.reserve().await;
    let mut socket = TcpStream::connect(node.app.public).await.unwrap();
    let head = format!(
        "GET {}/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        session.app
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    crate::apps::read_until(&mut socket, "101").await;
    let mut whole = JoinSet::new();
    whole.spawn(events(&node, 10_000).await);
    let begin = clock::now();
    node.stop().await;
    assert!(!whole.join_next().await.unwrap().unwrap(), "a cut stream must not look whole");
    let ended = tokio::time::timeout(Duration::from_secs(2), socket.read(&mut [0; 64])).await;
    drop(ended.expect("the socket was left open"));
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
}
