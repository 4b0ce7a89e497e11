//! Sessions as the operator sees them: listed, ended, drained, swept when idle.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::node::{Node, Orch, Session, Setup, params};

async fn one(more: &str) -> (Node, [Orch; 1]) {
    let orchs = [Orch::start(params()).await];
    (Setup::new("sessions").more(more).start(&orchs).await, orchs)
}

async fn listed(node: &Node, session: &Session) -> Value {
    let list = node.admin_json("/v1/sessions").await;
    let rows = list["sessions"].as_array().unwrap();
    rows.iter().find(|it| it["session"] == session.id.as_str()).cloned().unwrap_or_default()
}

async fn until_state(node: &Node, session: &Session, state: &str) {
    node.until(state, || {
        let all = node.app.gateway.shared.sessions.all();
        let found = all.iter().find(|it| it.session.as_str() == session.id).unwrap();
        serde_json::to_value(found.state()).unwrap() == state
    })
    .await;
}

#[tokio::test]
async fn a_session_is_listed_with_its_use() {
    let (node, _orchs) = one("").await;
    let session = node.reserve().await;
    until_state(&node, &session, "reserved").await;
    node.post(&format!("{}/x", session.app), "hello").await;
    until_state(&node, &session, "active").await;
    let row = listed(&node, &session).await;
    assert_eq!(row["app"], "demo/echo");
    assert_eq!(row["orchestrator"], session.orchestrator.as_str());
    assert_eq!((&row["requests"], &row["open"]), (&1.into(), &0.into()), "{row}");
    assert_eq!((&row["bytes_up"], &row["bytes_down"]), (&5.into(), &5.into()), "{row}");
    assert_eq!(row["home"], "FRA");
}

#[tokio::test]
async fn the_operator_ends_a_session_here_and_at_its_orchestrator() {
    let (node, [orch]) = one("").await;
    let session = node.reserve().await;
    node.post(&format!("{}/x", session.app), "hello").await;
    until_state(&node, &session, "active").await;
    let told = node.admin(Method::DELETE, &format!("/v1/sessions/{}", session.id)).await;
    assert_eq!(told.status, StatusCode::ACCEPTED);
    until_state(&node, &session, "ended").await;
    let over = node.get(&format!("{}/x", session.app)).await.refused(404);
    assert!(over.contains("reserve again"), "{over}");
    assert_eq!(orch.seen().await["stopped"], 1);
    node.admin(Method::DELETE, "/v1/sessions/none").await.refused(404);
}

#[tokio::test]
async fn a_draining_session_takes_nothing_new_and_lets_its_stream_end() {
    let (node, [orch]) = one("").await;
    let session = node.reserve().await;
    let path = format!("{}/events?n=8&every_ms=150", session.app);
    let stream = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    until_state(&node, &session, "active").await;
    node.admin(Method::POST, &format!("/v1/sessions/{}/drain?seconds=30", session.id)).await;
    until_state(&node, &session, "draining").await;
    let over = node.get(&format!("{}/x", session.app)).await.refused(404);
    assert!(over.contains("drained") && over.contains("reserve again"), "{over}");
    let whole = stream.into_body().collect().await.unwrap().to_bytes();
    assert!(whole.ends_with(b"{\"seq\":7}\n\n"), "{whole:?}");
    until_state(&node, &session, "ended").await;
    assert_eq!(orch.seen().await["stopped"], 1);
}

#[tokio::test]
async fn a_drain_ends_an_endless_stream_at_its_deadline() {
    let (node, [orch]) = one("").await;
    let session = node.reserve().await;
    let path = format!("{}/events?n=1000&every_ms=50", session.app);
    let _stream = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    until_state(&node, &session, "active").await;
    node.admin(Method::POST, &format!("/v1/sessions/{}/drain?seconds=1", session.id)).await;
    until_state(&node, &session, "ended").await;
    assert_eq!(orch.seen().await["stopped"], 1);
}

#[tokio::test]
async fn a_drain_outlives_the_actor_that_carries_it_out() {
    let (node, [orch]) = one("").await;
    let session = node.reserve().await;
    let path = format!("{}/events?n=1000&every_ms=50", session.app);
    let _stream = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    until_state(&node, &session, "active").await;
    node.admin(Method::POST, &format!("/v1/sessions/{}/drain?seconds=2", session.id)).await;
    until_state(&node, &session, "draining").await;
    let actor = || {
        let sessions = node.app.gateway.shared.refs.sessions.load_full().unwrap();
        sessions.get_cell().get_children().pop()
    };
    let dying = actor().unwrap();
    dying.kill();
    node.until("it is back", || actor().is_some_and(|it| it.get_id() != dying.get_id())).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    node.get(&format!("{}/x", session.app)).await.refused(404);
    until_state(&node, &session, "ended").await;
    assert_eq!(orch.seen().await["stopped"], 1);
}

#[tokio::test]
async fn an_idle_session_is_given_back() {
    let (node, [orch]) = one("[limits]\nsession_idle_s = 1").await;
    let session = node.reserve().await;
    assert_eq!(node.post(&format!("{}/x", session.app), "x").await.status, StatusCode::OK);
    until_state(&node, &session, "ended").await;
    assert_eq!(orch.seen().await["stopped"], 1);
    node.get(&format!("{}/x", session.app)).await.refused(404);
}

#[tokio::test]
async fn a_session_used_through_another_node_lives_on_when_it_looks_idle_here() {
    let (node, orchs) = one("[limits]\nsession_idle_s = 1").await;
    let other = Setup::new("beside").start(&orchs).await;
    let session = node.reserve().await;
    let forgotten = || node.app.gateway.shared.sessions.all().is_empty();
    node.until("the session is let go of", forgotten).await;
    assert_eq!(other.post(&format!("{}/x", session.app), "there").await.text(), "there");
    assert_eq!(node.post(&format!("{}/x", session.app), "here again").await.text(), "here again");
    assert_eq!(orchs[0].seen().await["stopped"], 0);
}

#[tokio::test]
async fn a_full_table_refuses_reservations_and_nothing_else() {
    let (node, _orchs) = one("[limits]\nsessions = 2").await;
    let first = node.reserve().await;
    node.reserve().await;
    let full = node.post(crate::node::RESERVE, "{}").await;
    assert!(full.refused(503).contains("try another node"));
    assert!(!full.header("retry-after").is_empty());
    assert_eq!(node.call("x").await.status, StatusCode::OK);
    assert_eq!(node.post(&format!("{}/x", first.app), "x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stopping_node_ends_what_runs_and_takes_nothing_new() {
    let (node, _orchs) = one("").await;
    let session = node.reserve().await;
    let path = format!("{}/events?n=5&every_ms=150", session.app);
    let stream = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    node.app.gateway.drain();
    let refused = node.call("x").await;
    assert!(refused.refused(503).contains("stopping"));
    assert_eq!(node.admin(Method::GET, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let begin = portolan::clock::now();
    let (whole, _folder) = tokio::join!(stream.into_body().collect(), node.stop());
    assert!(whole.unwrap().to_bytes().ends_with(b"{\"seq\":4}\n\n"));
    assert!(begin.elapsed() < Duration::from_secs(10));
}
