//! What becomes of a request when its orchestrator fails, in every way it can.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use portolan::clock;
use portolan::id::OrchestratorId;
use portolan::upstream::pin::REPIN_AFTER;

use crate::node::{Answer, Node, ONCE, Orch, RESERVE, Setup, far, params, post};

/// A node before a near and a far orchestrator, with little patience.
async fn two() -> (Node, [Orch; 2]) {
    let orchs = Orch::near_and_far().await;
    let node = Setup::new("failover").more("[upstream]\nhead_timeout_ms = 700").start(&orchs).await;
    (node, orchs)
}

#[track_caller]
fn served(answer: &Answer, by: &Orch) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let served_by = answer.header("portolan-orchestrator");
    let expected = OrchestratorId::of(&by.uri).to_string();
    assert_eq!(served_by, expected, "{:?}", answer.headers);
}

async fn row(node: &Node, orch: &Orch) -> serde_json::Value {
    let list = node.admin_json("/v1/orchestrators").await;
    let rows = list["orchestrators"].as_array().unwrap();
    rows.iter().find(|it| it["uri"] == orch.uri.as_str()).unwrap().clone()
}

#[tokio::test]
async fn while_all_is_well_the_near_one_serves() {
    let (node, orchs) = two().await;
    for _ in 0..5 {
        served(&node.call("x").await, &orchs[0]);
    }
}

#[tokio::test]
async fn a_refused_connection_costs_nothing_but_a_turn() {
    let (node, mut orchs) = two().await;
    orchs[0].die().await;
    let answer = node.call("x").await;
    served(&answer, &orchs[1]);
    assert!(answer.header("server-timing").contains("retry;desc=\"1\""), "{:?}", answer.headers);
    let reserved = node.post(RESERVE, "{}").await;
    served(&reserved, &orchs[1]);
}

#[tokio::test]
async fn a_full_orchestrator_is_left_at_once_and_not_blamed() {
    let (node, orchs) = two().await;
    orchs[0].set("capacity", "0").await;
    for _ in 0..6 {
        served(&node.call("x").await, &orchs[1]);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let row = row(&node, &orchs[0]).await;
    assert_eq!((&row["standing"], &row["failures"]), (&"ready".into(), &0.0.into()), "{row}");
    orchs[1].set("capacity", "0").await;
    let refused = node.call("x").await;
    assert!(refused.refused(503).contains("full"), "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_reservation_that_breaks_off_is_made_elsewhere() {
    for fault in ["reset-before-head", "garbage", "status=500"] {
        let (node, orchs) = two().await;
        orchs[0].set("fail", fault).await;
        let answer = node.post(RESERVE, "{}").await;
        served(&answer, &orchs[1]);
        let session = node.session(&answer);
        let used = node.post(&format!("{}/x", session.app), "hello").await;
        assert_eq!(used.text(), "hello", "{fault}");
    }
}

#[tokio::test]
async fn work_that_may_have_been_done_is_not_done_twice() {
    let (node, orchs) = two().await;
    for fault in ["reset-before-head", "garbage"] {
        orchs[0].set("fail", fault).await;
        let before = orchs[0].seen().await["apps"].as_u64().unwrap();
        let message = node.call("pay once").await.refused(502);
        assert!(message.contains("broke off"), "{message}");
        assert_eq!(orchs[0].seen().await["apps"], before + 1);
        assert_eq!(orchs[1].seen().await["apps"], 0);
        orchs[0].set("fail", "").await;
        // Its one failure is forgotten soon enough for the next round.
        for _ in 0..4 {
            drop(node.call("well").await);
        }
    }
}

#[tokio::test]
async fn work_that_may_be_repeated_is() {
    let (node, orchs) = two().await;
    orchs[0].set("fail", "reset-before-head:1").await;
    let mut request = post(ONCE, "again");
    request.headers_mut().insert("idempotency-key", "1".parse().unwrap());
    served(&node.send(request).await, &orchs[1]);
    orchs[0].set("fail", "reset-before-head:1").await;
    let request = Request::put(ONCE).body(Bytes::from("again")).unwrap();
    assert_eq!(node.send(request).await.text(), "again");
}

#[tokio::test]
async fn a_body_too_long_to_be_held_is_sent_once() {
    let (node, orchs) = two().await;
    orchs[0].set("fail", "reset-before-head").await;
    let long = "x".repeat(600_000);
    let mut request = post(ONCE, &long);
    request.headers_mut().insert("idempotency-key", "1".parse().unwrap());
    node.send(request).await.refused(502);
    assert_eq!(orchs[1].seen().await["apps"], 0);
}

#[tokio::test]
async fn a_broken_stream_never_ends_as_if_it_were_whole() {
    let (node, orchs) = two().await;
    let session = node.reserve().await;
    let paths = [
        ("cut-stream=100", format!("{}/events?n=50&every_ms=5", session.app)),
        ("reset-after-head", format!("{}/events?n=50&every_ms=5", session.app)),
        ("cut-stream=10", format!("{}/where", session.app)),
    ];
    for (fault, path) in paths {
        orchs[0].set("fail", fault).await;
        let request = Request::get(&path).body(Bytes::new()).unwrap();
        let answer = node.open(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect());
        let broken = body.await.unwrap();
        assert!(broken.is_err(), "{fault} {path}: {:?}", broken.unwrap().to_bytes());
    }
}

#[tokio::test]
async fn a_silent_orchestrator_is_given_up_in_time() {
    let (node, orchs) = two().await;
    orchs[0].set("fail", "silent-head").await;
    let begin = clock::now();
    served(&node.post(RESERVE, "{}").await, &orchs[1]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    orchs[1].set("fail", "silent-head").await;
    node.call("once").await.refused(504);
}

#[tokio::test]
async fn an_answer_that_is_no_reservation_is_never_passed_on() {
    // Success without a session in it.
    for fault in ["status=200", "status=204"] {
        let (node, orchs) = two().await;
        orchs[0].set("fail", fault).await;
        let answer = node.post(RESERVE, "{}").await;
        match answer.status {
            StatusCode::OK => served(&answer, &orchs[1]),
            _ => assert!(answer.refused(502).contains("not a reserved session"), "{fault}"),
        }
    }
}

#[tokio::test]
async fn with_everybody_down_the_client_is_told_when_to_try_again() {
    let (node, mut orchs) = two().await;
    for orch in &mut orchs {
        orch.die().await;
    }
    node.call("x").await.refused(502);
    // Failures add up until both are put aside.
    for _ in 0..10 {
        drop(node.call("x").await);
    }
    node.until("both are put aside", || {
        let view = node.app.gateway.shared.view.load();
        let ready = portolan::view::row::Standing::Ready;
        view.rows().all(|(_slot, row)| row.standing != ready)
    })
    .await;
    let answer = node.call("x").await;
    let message = answer.refused(503);
    assert!(message.contains("suspended"), "{message}");
    assert!(!answer.header("retry-after").is_empty());
    let ready = node.admin(http::Method::GET, "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_session_whose_orchestrator_died_is_to_be_reserved_again() {
    let (node, mut orchs) = two().await;
    let session = node.reserve().await;
    orchs[0].die().await;
    let message = node.post(&format!("{}/x", session.app), "hello").await.refused(404);
    assert!(message.contains("reserve again"), "{message}");
    served(&node.post(RESERVE, "{}").await, &orchs[1]);
}

#[tokio::test]
async fn an_orchestrator_that_comes_back_serves_again() {
    let near = Orch::start(params()).await;
    let at = near.uri.authority().parse().unwrap();
    let mut orchs = [near, Orch::start(far()).await];
    let tables = "[upstream]\ncheck_busy_ms = 500\ncheck_idle_ms = 500";
    let node = Setup::new("back").more(tables).start(&orchs).await;
    orchs[0].die().await;
    served(&node.call("x").await, &orchs[1]);
    // Its certificate is new, so it is pinned anew.
    orchs[0] = Orch::start_again(at).await;
    orchs[1].die().await;
    let begin = clock::now();
    // Until checks have met the new certificate for a while nobody is left; then it serves.
    // The while is not waited for: the pins are told of a check now and of one after it.
    let (id, pins) =
        (OrchestratorId::of(&orchs[0].uri), &node.app.gateway.shared.upstream.dialer().pins);
    let answer = loop {
        let answer = node.call("x").await;
        if answer.status == StatusCode::OK || begin.elapsed() > Duration::from_secs(30) {
            break answer;
        }
        for at in [clock::now(), clock::now() + REPIN_AFTER] {
            pins.repin(at, id);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    served(&answer, &orchs[0]);
}
