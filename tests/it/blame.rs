//! Who is blamed for what went wrong: orchestrators for their own doing only.

use std::time::Duration;

use http::StatusCode;
use portolan::clock;
use portolan::view::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{Node, ONCE, Orch, Setup, params};

async fn one() -> (Node, [Orch; 1]) {
    let orchs = [Orch::start(params()).await];
    (Setup::new("blame").start(&orchs).await, orchs)
}

/// Sends the head of an upload and its first bytes, and no end.
async fn begin_upload(node: &Node, path: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(node.app.public).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(b"5\r\nhello\r\n").await.unwrap();
    tcp
}

/// Asserts that nothing is held against the orchestrator once everything was counted.
async fn blameless(node: &Node) {
    tokio::time::sleep(Duration::from_millis(400)).await;
    let view = node.app.gateway.shared.view.load();
    let (_slot, row) = view.rows().next().unwrap();
    let (failures, _successes) = row.outcomes_at(clock::now());
    assert_eq!((failures, row.standing), (0, Standing::Ready));
    assert_eq!(row.gauge.in_flight(), 0);
}

#[tokio::test]
async fn clients_that_break_off_their_uploads_suspend_nobody() {
    let (node, _orchs) = one().await;
    for _ in 0..8 {
        let tcp = begin_upload(&node, ONCE).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(tcp);
    }
    blameless(&node).await;
    assert_eq!(node.call("x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_long_upload_is_not_a_silent_orchestrator() {
    let orchs = [Orch::start(params()).await];
    let tables = "[upstream]\nhead_timeout_ms = 700";
    let node = Setup::new("slow").more(tables).start(&orchs).await;
    let mut tcp = begin_upload(&node, ONCE).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tcp.write_all(b"5\r\nhello\r\n").await.unwrap();
    }
    tcp.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    tcp.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    drop(tcp);
    blameless(&node).await;
}

/// Returns the failures counted against the orchestrator once `client` left, in thousandths,
/// and the journal.
async fn after_leaving(node: Node, client: TcpStream) -> (u64, String) {
    drop(client);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let view = node.app.gateway.shared.view.load();
    let (_slot, row) = view.rows().next().unwrap();
    let (failures, _successes) = row.outcomes_at(clock::now());
    assert_eq!(row.gauge.in_flight(), 0);
    let folder = node.stop().await;
    (failures, std::fs::read_to_string(folder.path().join("journal")).unwrap())
}

#[tokio::test]
async fn a_client_that_leaves_is_evidence_only_while_an_answer_is_owed() {
    // Both leave 3.6 s after they came; a wait of three is long.
    let (node, orchs) = one().await;
    orchs[0].set("fail", "silent-head").await;
    let mut slow = begin_upload(&node, ONCE).await;
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        slow.write_all(b"5\r\nhello\r\n").await.unwrap();
    }
    slow.write_all(b"0\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (failures, journal) = after_leaving(node, slow).await;
    assert_eq!(failures, 0, "nothing was owed while the upload was under way");
    assert!(journal.contains("\"status\":499") && journal.contains("abandoned"), "{journal}");

    let (node, orchs) = one().await;
    orchs[0].set("fail", "silent-head").await;
    let mut asked = begin_upload(&node, ONCE).await;
    asked.write_all(b"0\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(3600)).await;
    let (failures, journal) = after_leaving(node, asked).await;
    assert!((900..=1000).contains(&failures), "one failure, fading: {failures}");
    assert!(journal.contains("\"status\":499") && journal.contains("abandoned"), "{journal}");
}

#[tokio::test]
async fn a_full_orchestrator_is_not_a_broken_one_when_the_request_cannot_go_elsewhere() {
    let (node, orchs) = one().await;
    orchs[0].set("capacity", "0").await;
    for _ in 0..8 {
        let mut tcp = begin_upload(&node, ONCE).await;
        // The refusal may come before the end is sent.
        drop(tcp.write_all(b"0\r\n\r\n").await);
        let mut answer = vec![0; 12];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 503");
    }
    blameless(&node).await;
}

#[tokio::test]
async fn an_apps_own_stop_does_not_end_the_session() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    let answer = node.post(&format!("{}/stop", session.app), "{}").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    tokio::time::sleep(Duration::from_millis(600)).await;
    let again = node.post(&format!("{}/x", session.app), "still here").await;
    assert_eq!(again.text(), "still here");
    let stop = node.post(&format!("{}/stop", session.control), "").await;
    assert_eq!(stop.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_session_its_orchestrator_forgot_is_not_taken_in_again() {
    let (node, _orchs) = one().await;
    let session = node.reserve().await;
    assert_eq!(node.post(&format!("{}/stop", session.control), "").await.status, 204);
    let other = Setup::new("other").start(&_orchs).await;
    let gone = other.post(&format!("{}/x", session.app), "x").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(other.app.gateway.shared.sessions.all().is_empty());
}
