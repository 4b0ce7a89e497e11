use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use portolan::clock;
use portolan::devorch::Params;

use super::{Orchestrator, params, post};

async fn faulty(faults: &str) -> Orchestrator {
    Orchestrator::start(Params { faults: faults.parse().unwrap(), ..params() }).await
}

/// Calls a runner and tells how far the answer came: the status, and the bytes of the body
/// with whether they are all.
async fn call(orch: &mut Orchestrator) -> Option<(StatusCode, usize, bool)> {
    let answer = orch.open(post("/apps/once/app", &"x".repeat(10_000))).await.ok()?;
    let status = answer.status();
    let (mut body, mut n, mut whole) = (answer.into_body(), 0, true);
    let wait = Duration::from_millis(300);
    loop {
        match tokio::time::timeout(wait, body.frame()).await {
            Ok(Some(Ok(frame))) => n += frame.into_data().map_or(0, |it| it.len()),
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Some((status, n, whole))
}

#[tokio::test]
async fn a_fault_hits_calls_and_spares_checks() {
    for fault in ["refuse", "reset-before-head", "garbage"] {
        let mut orch = faulty(fault).await;
        assert_eq!(call(&mut orch).await, None, "{fault}");
        orch.get_json("/discovery").await;
    }
}

#[tokio::test]
async fn faults_of_the_answer_stop_where_they_say() {
    let ok = StatusCode::OK;
    let mut orch = faulty("reset-after-head").await;
    assert_eq!(call(&mut orch).await, Some((ok, 0, false)));
    let mut orch = faulty("cut-stream=4096").await;
    assert_eq!(call(&mut orch).await, Some((ok, 4096, false)));
    let mut orch = faulty("silent-stream").await;
    let (status, n, whole) = call(&mut orch).await.unwrap();
    assert!(status == ok && n > 0 && !whole);
    let mut orch = faulty("status=429").await;
    assert_eq!(call(&mut orch).await.unwrap().0, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_silent_head_never_comes() {
    let mut orch = faulty("silent-head").await;
    let wait = tokio::time::timeout(Duration::from_millis(200), call(&mut orch)).await;
    assert!(wait.is_err());
}

#[tokio::test]
async fn faults_are_switched_at_run_time_and_run_out() {
    let mut orch = faulty("").await;
    assert_eq!(orch.post("/dev/fail", "status=500:1").await.0, StatusCode::NO_CONTENT);
    assert_eq!(call(&mut orch).await.unwrap().0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(call(&mut orch).await, Some((StatusCode::OK, 10_000, true)));
    assert_eq!(orch.post("/dev/fail", "boom").await.0, StatusCode::BAD_REQUEST);

    orch.post("/dev/fail", "all:status=500").await;
    let (status, _, _) = orch.send(Request::get("/discovery").body("").unwrap()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    orch.post("/dev/fail", "").await;
    orch.get_json("/discovery").await;
    assert_eq!(orch.get_json("/dev/seen").await["faults"], 2);
}

#[tokio::test]
async fn a_slow_head_is_late_and_whole() {
    let mut orch = faulty("slow-head=200ms").await;
    let begin = clock::now();
    assert_eq!(call(&mut orch).await, Some((StatusCode::OK, 10_000, true)));
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn refusing_all_closes_connections_on_accept() {
    let mut orch = faulty("all:refuse:1").await;
    let refused = orch.open(Request::get("/discovery").body("").unwrap()).await;
    assert!(refused.is_err());
    orch.get_json("/discovery").await;
}
