//! What nodes tell each other of clients, and where a client is sent.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use portolan::devorch::Params;
use portolan::id::OrchestratorId;
use portolan::mesh::Standing;
use serde_json::{Value, json};

use crate::enroll::{Ca, Joined};
use crate::mesh::peer;
use crate::node::{Answer, Node, ONCE, Orch, params};

/// An address of a network in Singapore.
const SINGAPOREAN: &str = "118.200.0.1";

async fn member(
    joined: &Joined,
    (name, region): (&'static str, &'static str),
    more: &str,
    orchs: &[Orch],
) -> Node {
    let from = if region == "FRA" { "127.1.0.1" } else { "127.2.0.1" };
    let mut setup = joined.setup(name, more);
    setup.more += &format!("[upstream]\nfrom = \"{from}\"\n");
    setup.region = region;
    setup.node = format!("public_url = \"http://{name}.test\"");
    setup.start(orchs).await
}

/// A node in Frankfurt and one in Singapore, which know each other, before one orchestrator in
/// each of three regions.
async fn world() -> (Arc<Node>, Arc<Node>, Vec<Orch>) {
    let mut orchs = Vec::new();
    for (code, from_fra, from_sin) in [("FRA", 2, 180), ("NYC", 95, 235), ("SIN", 180, 2)] {
        let delays = format!("127.1.0.0/16={from_fra}ms,127.2.0.0/16={from_sin}ms");
        let (region, delays) = (Some(code.parse().unwrap()), delays.parse().unwrap());
        orchs.push(Orch::start(Params { region, delays, ..params() }).await);
    }
    let ca = Ca::start().await;
    let (fra, sin) = (ca.join("fra").await, ca.join("sin").await);
    let fra = Arc::new(member(&fra, ("fra", "FRA"), "", &orchs).await);
    let sin = Arc::new(member(&sin, ("sin", "SIN"), &peer("fra", &fra), &orchs).await);
    for node in [&fra, &sin] {
        node.until("the peer says who it is", || {
            let peers = node.app.gateway.shared.peers.load();
            peers.rows.iter().any(|it| it.standing == Standing::Up && it.about.is_some())
        })
        .await;
    }
    (fra, sin, orchs)
}

async fn report(node: &Node, client: &str, observations: &Value) -> Answer {
    let answer = node.get_for(client, "/v1/resolve").await.json();
    let body = json!({ "ticket": answer["survey"]["ticket"], "observations": observations });
    let request = Request::post("/v1/observations").header("portolan-client-ip", client);
    node.send(request.body(body.to_string().into()).unwrap()).await
}

fn call(path: &str, client: &str) -> Request<Bytes> {
    let request = Request::post(path).header("portolan-client-ip", client);
    request.header("portolan-steer", "redirect").body(Bytes::from_static(b"hello")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_tell_one_node_places_their_network_right_at_the_other() {
    let (fra, sin, orchs) = world().await;
    let home = async |node: &Node, ip: &str| {
        node.admin_json(&format!("/v1/locate?ip={ip}")).await["home"].clone()
    };
    assert_eq!(home(&sin, "91.0.0.77").await, "FRA");
    let ways: Value = orchs
        .iter()
        .zip([165.0, 235.0, 19.0])
        .map(|(orch, ms)| {
            json!({ "orchestrator": OrchestratorId::of(&orch.uri).to_string(), "rtt_ms": ms })
        })
        .collect();
    for host in 1..=3 {
        let told = report(&fra, &format!("91.0.0.{host}"), &ways).await;
        assert_eq!(told.json()["accepted"], 3, "{}", told.text());
    }
    assert_eq!(home(&fra, "91.0.0.77").await, "SIN");
    let begin = portolan::clock::now();
    while home(&sin, "91.0.0.77").await != "SIN" {
        assert!(begin.elapsed().as_secs() < 20, "it never learned of it");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // The direct path follows, and another network is where it was.
    let list = sin.get_for("91.0.0.78", "/discover-orchestrators?app=demo/once").await.json();
    assert_eq!(list[0]["address"], orchs[2].uri.as_str());
    assert_eq!(home(&sin, "91.0.1.1").await, "FRA");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_found_through_a_seed_is_named_with_its_url() {
    let (fra, _sin, _orchs) = world().await;
    let found = fra.get_for(SINGAPOREAN, "/v1/resolve?app=demo/once").await.json();
    assert_eq!(found["caller"]["home"], "SIN", "{found}");
    assert_eq!(
        (&found["primary"]["node"], &found["primary"]["url"]),
        (&json!("sin"), &json!("http://sin.test"))
    );
    assert!(found["primary"]["beyond_ms"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!(found["survey"]["nodes"]["sin"], "http://sin.test/v1/probe");
    let plain = fra.get_for(SINGAPOREAN, "/v1/resolve").await.json();
    assert!(plain["primary"].get("beyond_ms").is_none(), "{plain}");
    let peers = fra.admin_json("/v1/peers").await;
    assert_eq!(peers["peers"][0]["url"], "http://sin.test");
    assert_eq!(peers["peers"][0]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_it_is_sent_to_the_better_entry_once() {
    let (fra, sin, _orchs) = world().await;
    // Who does not ask, and who is near, is served where it is.
    assert_eq!(fra.call("hello").await.status, 200);
    assert_eq!(fra.send(call(ONCE, "91.0.0.7")).await.status, 200);
    let sent = fra.send(call(&format!("{ONCE}?a=b"), SINGAPOREAN)).await;
    assert_eq!(sent.status, 307, "{}", sent.text());
    let location = sent.header("location");
    let path = location.strip_prefix("http://sin.test").unwrap();
    assert!(path.starts_with("/steered/") && path.ends_with(&format!("{ONCE}?a=b")), "{path}");
    assert_eq!(sin.send(call(path, SINGAPOREAN)).await.text(), "hello");
    // Wherever it was sent it is served, even where it would be sent on.
    assert_eq!(fra.send(call(path, SINGAPOREAN)).await.text(), "hello");
    // Nor does a right of another key or another time turn anybody away.
    let forged = path.replacen("/steered/", "/steered/A", 1);
    assert_eq!(sin.send(call(&forged, SINGAPOREAN)).await.text(), "hello");
    let other = path.replacen(ONCE, "/v1/resolve", 1);
    sin.send(call(&other, SINGAPOREAN)).await.refused(404);
}
