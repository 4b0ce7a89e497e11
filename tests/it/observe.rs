//! What clients report of their ways, and what the node makes of it.

use http::{Method, Request};
use portolan::clock;
use portolan::devorch::Params;
use portolan::id::OrchestratorId;
use portolan::net::rtt::Seen;
use portolan::unit::Micros;
use serde_json::{Value, json};

use crate::node::{Answer, Node, Orch, Setup, params};

/// A node in Frankfurt before one orchestrator in each of three regions.
async fn world() -> (Node, Vec<Orch>) {
    let mut orchs = Vec::new();
    for (code, delay) in [("FRA", "2ms"), ("NYC", "95ms"), ("SIN", "180ms")] {
        let (region, delays) = (Some(code.parse().unwrap()), delay.parse().unwrap());
        orchs.push(Orch::start(Params { region, delays, ..params() }).await);
    }
    (Setup::new("observe").start(&orchs).await, orchs)
}

fn german(host: u8) -> String {
    format!("91.0.0.{host}")
}

/// The ways of somebody in Singapore.
fn ways(orchs: &[Orch]) -> Value {
    let seen = orchs.iter().zip([165.0, 235.0, 19.0]);
    let each = seen.map(|(orch, ms)| {
        json!({ "orchestrator": OrchestratorId::of(&orch.uri).to_string(), "rtt_ms": ms })
    });
    each.collect()
}

async fn ticket(node: &Node, client: &str) -> String {
    let answer = node.get_for(client, "/v1/resolve").await.json();
    answer["survey"]["ticket"].as_str().unwrap().to_owned()
}

async fn report(node: &Node, client: &str, ticket: &str, observations: &Value) -> Answer {
    let body = json!({ "ticket": ticket, "observations": observations }).to_string();
    let request = Request::post("/v1/observations").header("portolan-client-ip", client);
    node.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn three_clients_who_agree_move_their_network_and_two_do_not() {
    let (node, orchs) = world().await;
    let first = async |client: &str| {
        let list = node.get_for(client, "/discover-orchestrators?app=demo/once").await.json();
        list[0]["address"].as_str().unwrap().to_owned()
    };
    let home = async || node.admin_json("/v1/locate?ip=91.0.0.77").await["home"].clone();
    for host in 1..=3 {
        assert_eq!(first(&german(77)).await, orchs[0].uri.as_str(), "before {host} reports");
        assert_eq!(home().await, "FRA");
        let client = german(host);
        let told = report(&node, &client, &ticket(&node, &client).await, &ways(&orchs)).await;
        assert_eq!(told.status, 202, "{}", told.text());
        assert_eq!(told.json(), json!({ "accepted": 3, "refused": [] }));
    }
    assert_eq!(first(&german(78)).await, orchs[2].uri.as_str());
    assert_eq!(home().await, "SIN");
    // Another network is where it was.
    assert_eq!(first("91.0.1.1").await, orchs[0].uri.as_str());
}

#[tokio::test]
async fn one_client_is_one_voice_however_often_it_reports() {
    let (node, orchs) = world().await;
    let client = german(1);
    for _ in 0..5 {
        let told = report(&node, &client, &ticket(&node, &client).await, &ways(&orchs)).await;
        assert_eq!(told.json()["accepted"], 3);
    }
    assert_eq!(node.admin_json("/v1/locate?ip=91.0.0.77").await["home"], "FRA");
}

#[tokio::test]
async fn a_report_needs_a_ticket_of_its_own_network_and_a_form() {
    let (node, orchs) = world().await;
    let ticket = ticket(&node, &german(1)).await;
    let elsewhere = report(&node, "12.0.0.1", &ticket, &ways(&orchs)).await;
    assert!(elsewhere.refused(403).contains("GET /v1/resolve"), "{}", elsewhere.text());
    report(&node, &german(2), "forged", &ways(&orchs)).await.refused(403);
    assert!(node.post("/v1/observations", "{}").await.refused(400).contains("rtt_ms"));
    let many = Value::from(vec![json!({ "node": "observe", "rtt_ms": 1.0 }); 65]);
    report(&node, &german(1), &ticket, &many).await.refused(400);
    let odd = json!([
        { "node": "nowhere", "rtt_ms": 1.0 },
        { "orchestrator": "0123456789abcdef", "rtt_ms": 1.0 },
        { "rtt_ms": 1.0 },
        { "node": "observe", "rtt_ms": -1.0 },
        { "node": "observe", "rtt_ms": 1.0 },
    ]);
    let told = report(&node, &german(1), &ticket, &odd).await.json();
    assert_eq!(told["accepted"], 1);
    let refused: Vec<u64> =
        told["refused"].as_array().unwrap().iter().map(|it| it["at"].as_u64().unwrap()).collect();
    assert_eq!(refused, [0, 1, 2, 3], "{told}");
}

#[tokio::test]
async fn browsers_of_other_origins_may_measure_and_tell() {
    let (node, _orchs) = world().await;
    for path in ["/v1/probe", "/v1/observations", "/v1/resolve"] {
        let request = Request::builder().method(Method::OPTIONS).uri(path);
        let answer = node.send(request.body("".into()).unwrap()).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-headers"), "content-type");
    }
    let probe = node.get("/v1/probe").await;
    assert_eq!((probe.status.as_u16(), probe.body.len()), (204, 0));
    assert_eq!(probe.header("timing-allow-origin"), "*");
    assert_eq!(probe.header("cache-control"), "no-store");
    let module = node.get("/v1/probe.js").await;
    assert!(module.header("content-type").starts_with("text/javascript"));
    assert!(module.text().contains("export async function survey"));
}

#[tokio::test]
async fn discover_asks_in_headers_since_its_body_is_a_stock_one() {
    let (node, orchs) = world().await;
    let client = german(1);
    let list = node.get_for(&client, "/discover-orchestrators").await;
    let probes = list.header("portolan-probes").to_owned();
    assert!(probes.starts_with("observe=http") && probes.ends_with("/v1/probe"), "{probes}");
    let ticket = list.header("portolan-probe-ticket").to_owned();
    assert_eq!(report(&node, &client, &ticket, &ways(&orchs)).await.status, 202);
}

#[tokio::test]
async fn what_the_kernel_saw_of_a_client_counts_and_of_a_proxy_does_not() {
    let (node, _orchs) = world().await;
    let gateway = &node.app.gateway;
    let seen = |peer: &str| Seen { port: 1, peer: peer.parse().unwrap(), rtt: Micros::from_ms(40) };
    // Loopback may name clients here, so its own round trip is nobody's.
    gateway.note_ways(clock::now(), &[seen("91.0.0.5"), seen("127.0.0.1")]);
    let primary = async |client: &str| {
        let answer = node.get_for(client, "/v1/resolve").await.json();
        let it = &answer["primary"];
        (it["evidence"].clone(), it["expected_ms"].as_f64().unwrap().round() as u64)
    };
    assert_eq!(primary("91.0.0.9").await, ("own".into(), 40));
    assert_eq!(primary("91.0.1.9").await.0, "distance");
    assert_eq!(primary("127.0.0.9").await.0, "distance");
}

#[tokio::test]
async fn the_command_measures_and_tells() {
    let (node, _orchs) = world().await;
    let address = format!("http://{}", node.app.public);
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["probe", "--json", "--node", &address])
        .output();
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["told"]["accepted"], 4, "{said}");
    assert_eq!(said["observations"][0]["node"], "observe");
}
