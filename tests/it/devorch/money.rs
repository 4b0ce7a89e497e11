use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use portolan::devorch::Params;
use portolan::livepeer::proto::{OrchestratorInfo, Payment, SegData};
use portolan::livepeer::runner::{Challenge, ReserveAnswer};
use prost::Message;

use super::{Orchestrator, params};

async fn priced(asking: &str) -> Orchestrator {
    Orchestrator::start(Params { asking: Some(asking.parse().unwrap()), ..params() }).await
}

/// Asks for a session and returns the challenge with the headers that pay it.
async fn challenged(orch: &mut Orchestrator) -> (Challenge, [(&'static str, String); 2]) {
    let request = Request::post("/apps/echo/session").header("livepeer-payer-address", "0x1");
    let (status, _, body) = orch.send(request.body("{}").unwrap()).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    let challenge: Challenge = serde_json::from_slice(&body).unwrap();
    let about = STANDARD.decode(&challenge.payment_params).unwrap();
    let about = OrchestratorInfo::decode(&*about).unwrap();
    let segment = SegData { auth_token: about.auth_token, ..Default::default() };
    let payment = Payment { ticket_params: about.ticket_params, ..Default::default() };
    let headers = [
        ("livepeer-segment", STANDARD.encode(segment.encode_to_vec())),
        ("livepeer-payment", STANDARD.encode(payment.encode_to_vec())),
    ];
    (challenge, headers)
}

async fn pay(
    orch: &mut Orchestrator,
    path: &str,
    headers: &[(&'static str, String)],
) -> (StatusCode, Vec<u8>) {
    let request = Request::post(path);
    let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    let (status, _, body) = orch.send(request.body("{}").unwrap()).await;
    (status, body.to_vec())
}

#[tokio::test]
async fn a_paid_session_begins_with_a_challenge_and_takes_more_payments() {
    let mut orch = priced("1200").await;
    let unknown = orch.post("/apps/echo/session", "{}").await;
    assert_eq!(unknown.0, StatusCode::PAYMENT_REQUIRED);
    assert!(unknown.1.contains("error"), "without a payer there is no challenge");

    let (challenge, headers) = challenged(&mut orch).await;
    let (status, body) = pay(&mut orch, "/apps/echo/session", &headers).await;
    assert_eq!(status, StatusCode::OK);
    let answer: ReserveAnswer = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer.session_id, challenge.manifest_id);
    let again = pay(&mut orch, "/apps/echo/session", &headers).await;
    assert_eq!(again.0, StatusCode::CONFLICT);

    let more = super::path_of(&challenge.payment_url);
    assert_eq!(pay(&mut orch, &more, &headers).await.0, StatusCode::OK);
    let (_, other) = challenged(&mut orch).await;
    assert_eq!(pay(&mut orch, &more, &other).await.0, StatusCode::FORBIDDEN);
    let gone = "/apps/echo/session/none/payment";
    assert_eq!(pay(&mut orch, gone, &headers).await.0, StatusCode::NOT_FOUND);

    let seen = orch.get_json("/dev/seen").await;
    assert_eq!(seen["payments"].as_array().unwrap().len(), 5);
    let [first, second] = [0, 1].map(|i| &seen["payments"][i]["payment_sha256"]);
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_payment_for_another_orchestrator_is_refused() {
    let (mut here, mut there) = (priced("7").await, priced("7").await);
    let (_, mine) = challenged(&mut here).await;
    let (_, theirs) = challenged(&mut there).await;
    let path = "/apps/echo/session";
    assert_eq!(pay(&mut here, path, &theirs).await.0, StatusCode::PAYMENT_REQUIRED);
    let mixed = [theirs[0].clone(), mine[1].clone()];
    assert_eq!(pay(&mut here, path, &mixed).await.0, StatusCode::FORBIDDEN);
    assert_eq!(pay(&mut here, path, &mine).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_fixed_price_is_paid_once() {
    let mut orch = priced("7:fixed").await;
    let (challenge, headers) = challenged(&mut orch).await;
    assert_eq!(pay(&mut orch, "/apps/echo/session", &headers).await.0, StatusCode::OK);
    let more = super::path_of(&challenge.payment_url);
    assert_eq!(pay(&mut orch, &more, &headers).await.0, StatusCode::CONFLICT);
    let list = orch.get_json("/discovery").await;
    assert_eq!(list[0]["runners"][0]["price_info"]["unit"], "fixed");
}
