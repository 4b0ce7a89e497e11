//! Money through a node: every payment reaches the orchestrator it was made for, untouched.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use portolan::devorch::Params;
use portolan::livepeer::proto::{OrchestratorInfo, Payment, SegData};
use portolan::livepeer::runner::Challenge;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::node::{Answer, Node, Orch, Setup, far, params};

fn priced(params: Params) -> Params {
    Params { asking: Some("1200".parse().unwrap()), ..params }
}

async fn two() -> (Node, [Orch; 2]) {
    let orchs = [Orch::start(priced(params())).await, Orch::start(priced(far())).await];
    (Setup::new("paid").start(&orchs).await, orchs)
}

/// The path to reserve at, which holds the price the client was shown.
async fn door(node: &Node) -> String {
    let list = node.get("/discovery?app=demo/echo").await.json();
    let runners = list[0]["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 1, "one price, one entry: {list}");
    assert_eq!(runners[0]["price_info"]["unit"], "seconds");
    node.path_of(runners[0]["url"].as_str().unwrap())
}

type Headers = [(&'static str, String); 2];

async fn send(node: &Node, path: &str, headers: &[(&'static str, String)]) -> Answer {
    let request = Request::post(path).header("livepeer-payer-address", "0x1");
    let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
    node.send(request.body(Bytes::from_static(b"{}")).unwrap()).await
}

/// Asks for a session and returns the challenge, with the headers that pay it.
async fn challenged(node: &Node) -> (Challenge, Headers, Answer) {
    let answer = send(node, &door(node).await, &[]).await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED, "{}", answer.text());
    let challenge: Challenge = serde_json::from_slice(&answer.body).unwrap();
    let headers = payment(&challenge);
    (challenge, headers, answer)
}

fn payment(challenge: &Challenge) -> Headers {
    let about = STANDARD.decode(&challenge.payment_params).unwrap();
    let about = OrchestratorInfo::decode(&*about).unwrap();
    let segment = SegData { auth_token: about.auth_token, ..Default::default() };
    let payment = Payment { ticket_params: about.ticket_params, ..Default::default() };
    [
        ("livepeer-segment", STANDARD.encode(segment.encode_to_vec())),
        ("livepeer-payment", STANDARD.encode(payment.encode_to_vec())),
    ]
}

/// Whether `orch` has seen exactly these headers, byte for byte.
async fn has_seen(orch: &Orch, headers: &Headers) -> bool {
    let sum = |text: &str| -> String {
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let seen = orch.seen().await;
    seen["payments"].as_array().unwrap().iter().any(|it| {
        it["segment_sha256"] == sum(&headers[0].1).as_str()
            && it["payment_sha256"] == sum(&headers[1].1).as_str()
    })
}

#[tokio::test]
async fn of_a_challenge_only_the_payment_url_leads_through_the_node() {
    let (node, orchs) = two().await;
    let (challenge, _, answer) = challenged(&node).await;
    assert_eq!(challenge.orchestrator, orchs[0].uri.as_str());
    let about = STANDARD.decode(&challenge.payment_params).unwrap();
    let about = OrchestratorInfo::decode(&*about).unwrap();
    assert_eq!(about.transcoder, orchs[0].uri.as_str());
    assert!(node.path_of(&challenge.payment_url).starts_with("/run/"));
    let fields: Value = serde_json::from_slice(&answer.body).unwrap();
    let told: Vec<&String> = fields.as_object().unwrap().keys().collect();
    assert_eq!(told.len(), 4, "{told:?}");
    let text = answer.text();
    let own = format!("{}/apps/echo/session/{}/payment", orchs[0].uri, challenge.manifest_id);
    let original = text.replace(&challenge.payment_url, &own);
    let expected = serde_json::json!(Challenge { payment_url: own, ..challenge }).to_string();
    assert_eq!(original, expected, "every other byte is as the orchestrator wrote it");
}

#[tokio::test]
async fn the_paid_request_goes_back_to_who_asked_whoever_is_nearer_by_then() {
    let (node, orchs) = two().await;
    orchs[0].set("capacity", "0").await;
    let (challenge, headers, _) = challenged(&node).await;
    assert_eq!(challenge.orchestrator, orchs[1].uri.as_str());
    orchs[0].set("capacity", "10").await;
    let answer = send(&node, &door(&node).await, &headers).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(has_seen(&orchs[1], &headers).await && !has_seen(&orchs[0], &headers).await);
    let session = node.session(&answer);
    assert_eq!(session.id, challenge.manifest_id);
    let used = node.post(&format!("{}/x", session.app), "hello").await;
    assert_eq!(used.text(), "hello");

    let more = node.path_of(&challenge.payment_url);
    assert_eq!(send(&node, &more, &headers).await.status, StatusCode::OK);
    assert_eq!(orchs[0].seen().await["payments"], serde_json::json!([]));
    let stop = send(&node, &format!("{}/stop", session.control), &[]).await;
    assert_eq!(stop.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_payment_nobody_here_asked_for_draws_a_fresh_challenge() {
    let (node, orchs) = two().await;
    let (mut challenge, _, _) = challenged(&node).await;
    let about = STANDARD.decode(&challenge.payment_params).unwrap();
    let mut about = OrchestratorInfo::decode(&*about).unwrap();
    about.auth_token.as_mut().unwrap().session_id = "somewhere-else".to_owned();
    challenge.payment_params = STANDARD.encode(about.encode_to_vec());
    let stray = payment(&challenge);
    let answer = send(&node, &door(&node).await, &stray).await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    let fresh: Challenge = serde_json::from_slice(&answer.body).unwrap();
    assert!(!has_seen(&orchs[0], &stray).await && !has_seen(&orchs[1], &stray).await);
    assert_eq!(send(&node, &door(&node).await, &payment(&fresh)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn when_who_asked_is_full_or_gone_the_payment_goes_nowhere_else() {
    let (node, mut orchs) = two().await;
    let (_, headers, _) = challenged(&node).await;
    orchs[0].set("capacity", "0").await;
    let answer = send(&node, &door(&node).await, &headers).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    orchs[0].die().await;
    let message = send(&node, &door(&node).await, &headers).await.refused(404);
    assert!(message.contains("reserve again"), "{message}");
    assert!(!has_seen(&orchs[1], &headers).await);
}

#[tokio::test]
async fn fresh_parameters_come_from_who_asked() {
    let (node, orchs) = two().await;
    let (challenge, _, _) = challenged(&node).await;
    let about = |manifest: &str| json!({ "sender": "0x1", "manifest_id": manifest }).to_string();
    let answer = node.post("/refresh-payment", &about(&challenge.manifest_id)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("portolan-orchestrator"), {
        portolan::id::OrchestratorId::of(&orchs[0].uri).to_string()
    });
    let fresh: Challenge = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(fresh.manifest_id, challenge.manifest_id);
    assert!(fresh.payment_url.contains("/run/"), "it leads back here: {}", fresh.payment_url);
    let paid = send(&node, &door(&node).await, &payment(&fresh)).await;
    assert_eq!(paid.status, StatusCode::OK, "{}", paid.text());
    let nobodys = node.post("/refresh-payment", &about("nobodys")).await.refused(404);
    assert!(nobodys.contains("reserve again"), "{nobodys}");
    node.post("/refresh-payment", "not JSON").await.refused(400);
}
