//! Requests that go through a peer, where that is the shorter way.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use portolan::devorch::Params;

use crate::enroll::Ca;
use crate::mesh::peer;
use crate::node::{Answer, Node, ONCE, Orch, params, post};

/// Two nodes before one orchestrator, which is far from the first and next to the second.
async fn strait(key: [u8; 32]) -> ([Arc<Node>; 2], Orch) {
    let delays = "127.1.0.0/16=150ms,127.2.0.0/16=1ms".parse().unwrap();
    let orch = Orch::start(Params { delays, ..params() }).await;
    let ca = Ca::start().await;
    let orchs = std::slice::from_ref(&orch);
    let [far, near] = [ca.join("far").await, ca.join("near").await];
    let far = far.setup("far", "").more("[upstream]\nfrom = \"127.1.0.1\"").start(orchs).await;
    let mut near = near.setup("near", &peer("far", &far)).more("[upstream]\nfrom = \"127.2.0.1\"");
    near.key = key;
    let [far, near] = [far, near.start(orchs).await].map(Arc::new);
    far.until("the way through the peer is the shorter one", || {
        let view = far.app.gateway.shared.view.load();
        view.rows().any(|(_slot, row)| row.link.via.is_some())
    })
    .await;
    ([far, near], orch)
}

fn via(answer: &Answer) -> Option<&str> {
    answer.headers.get("portolan-via").and_then(|it| it.to_str().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_takes_the_shorter_way_through_a_peer_whole() {
    let ([far, near], orch) = strait([7; 32]).await;
    let answer = far.call("hello").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
    assert_eq!(via(&answer), Some("near"));
    let long = "x".repeat(3_000_000);
    let answer = far.call(&long).await;
    assert_eq!(answer.body.len(), long.len());
    assert_eq!(via(&answer), Some("near"));
    // The one next to it goes by itself, and each request is metered where it entered.
    assert_eq!(via(&near.call("hello").await), None);
    let served = orch.seen().await["apps"].as_u64().unwrap();
    assert_eq!(served, 3);
    let lines = |node: &Node| {
        let log = std::fs::read_to_string(node.folder.path().join("journal")).unwrap_or_default();
        log.lines().count()
    };
    far.until("two lines at one", || lines(&far) == 2).await;
    near.until("one at the other", || lines(&near) == 1).await;
    let metrics = near.admin(Method::GET, "/metrics").await;
    assert!(metrics.text().contains("portolan_carried_total{result=\"passed\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_and_its_streams_go_through_a_peer() {
    let ([far, _near], _orch) = strait([7; 32]).await;
    let session = far.reserve().await;
    let request =
        Request::get(format!("{}/events?n=5&every_ms=20", session.app)).body(Bytes::new()).unwrap();
    let answer = far.open(request).await.unwrap();
    assert_eq!(answer.headers().get("portolan-via").unwrap(), "near");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&text).matches("data:").count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_the_meshs_key_passes_nothing_and_nobody_notices() {
    let ([far, near], _orch) = strait([9; 32]).await;
    for _ in 0..3 {
        // Whatever the peer makes of it, harmless work is served in the end.
        let request = post(ONCE, "hello");
        let (mut parts, body) = request.into_parts();
        parts.headers.insert("idempotency-key", "1".parse().unwrap());
        let answer = far.send(Request::from_parts(parts, body)).await;
        assert!(matches!(answer.status.as_u16(), 200 | 502), "{}", answer.text());
    }
    let metrics = near.admin(Method::GET, "/metrics").await;
    assert!(metrics.text().contains("portolan_carried_total{result=\"refused\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_peer_is_gone_requests_go_by_themselves() {
    let ([far, near], _orch) = strait([7; 32]).await;
    assert_eq!(via(&far.call("hello").await), Some("near"));
    near.app.root().stop(None);
    let Ok(near) = Arc::try_unwrap(near) else { panic!("nobody else holds it") };
    drop(near.stop().await);
    for _ in 0..3 {
        let answer = far.call("hello").await;
        assert_eq!((answer.status.as_u16(), via(&answer)), (200, None), "{}", answer.text());
    }
}
