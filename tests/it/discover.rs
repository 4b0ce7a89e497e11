//! The discover and resolve doors, and whose word on a client's address is taken.

use http::{Request, StatusCode};
use portolan::devorch::Params;
use portolan::livepeer::runner::parse_discovery;
use serde_json::Value;

use crate::node::{Node, Orch, Setup, params};

const GERMAN: &str = "91.0.0.1";
const AMERICAN: &str = "12.0.0.1";
const SINGAPOREAN: &str = "118.200.0.1";

/// A node in Frankfurt before one orchestrator in each of three regions, as far away as they
/// say: nobody is believed to be farther than its round trip allows.
async fn world() -> (Node, Vec<Orch>) {
    let mut orchs = Vec::new();
    for (code, gpu, delay) in
        [("FRA", "H100", "2ms"), ("NYC", "L40", "95ms"), ("SIN", "H100", "180ms")]
    {
        let (region, gpu) = (Some(code.parse().unwrap()), Some(gpu.to_owned()));
        let delays = delay.parse().unwrap();
        orchs.push(Orch::start(Params { region, gpu, delays, ..params() }).await);
    }
    (Setup::new("discover").start(&orchs).await, orchs)
}

fn addresses(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|it| it["address"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn everyone_gets_the_order_of_their_own_place() {
    let (node, orchs) = world().await;
    let expected = [(GERMAN, 0), (AMERICAN, 1), (SINGAPOREAN, 2)];
    for (client, first) in expected {
        for query in ["", "?app=demo/once"] {
            let answer = node.get_for(client, &format!("/discover-orchestrators{query}")).await;
            let list = answer.json();
            assert_eq!(addresses(&list).len(), 3);
            assert_eq!(addresses(&list)[0], orchs[first].uri.as_str(), "{client} {query}");
        }
    }
}

#[tokio::test]
async fn the_list_stays_the_same_to_the_byte_while_nothing_changes() {
    let (node, _orchs) = world().await;
    // The second check brings the prices; then nothing changes.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let one = node.get_for(GERMAN, "/discover-orchestrators").await;
    assert_eq!(one.header("content-type"), "application/json");
    for _ in 0..5 {
        assert_eq!(node.get_for(GERMAN, "/discover-orchestrators").await.body, one.body);
    }
}

#[tokio::test]
async fn a_stock_gateway_can_use_it_as_its_webhook() {
    let (node, orchs) = world().await;
    let answer = node.get("/discover-orchestrators").await;
    let list = answer.json();
    for address in addresses(&list) {
        assert!(address.starts_with("https://127.0.0.1:"), "{address}");
    }
    assert!(list.as_array().unwrap().iter().all(|it| it["score"] == 1));
    let parsed = parse_discovery(&answer.body).unwrap();
    assert_eq!((parsed.dropped_entries, parsed.dropped_runners), (0, 0));
    assert_eq!(parsed.entries.len(), orchs.len());
}

#[tokio::test]
async fn filters_leave_only_what_was_asked_for() {
    let (node, orchs) = world().await;
    let list = async |query: &str| {
        node.get_for(AMERICAN, &format!("/discover-orchestrators?{query}")).await.json()
    };
    let h100 = list("gpu=H100").await;
    let both = addresses(&h100);
    assert_eq!(both.len(), 2);
    assert!(!both.contains(&orchs[1].uri.as_str()));
    assert_eq!(addresses(&list("gpu=L40&app=demo/echo").await), [orchs[1].uri.as_str()]);
    assert_eq!(list("app=demo/none").await, serde_json::json!([]));
    assert_eq!(addresses(&list("caps=demo/image").await).len(), 3);
    let echo = list("app=demo/echo").await;
    let apps = echo[0]["runners"].as_array().unwrap();
    assert_eq!(apps.len(), 1);
    assert_eq!(apps[0]["app"], "demo/echo");
}

#[tokio::test]
async fn resolve_names_this_node_and_redirects_who_asks_for_it() {
    let (node, _orchs) = world().await;
    let found = node.get_for(SINGAPOREAN, "/v1/resolve").await.json();
    assert_eq!(found["caller"]["home"], "SIN");
    assert_eq!(found["caller"]["country"], "SG");
    assert_eq!(found["primary"]["node"], "discover");
    assert_eq!(found["primary"]["url"], format!("http://{}", node.app.public));
    let answer = node.get_for(SINGAPOREAN, "/v1/resolve?redirect=1").await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.header("location"), format!("http://{}", node.app.public));
}

async fn home(node: &Node, headers: &[(&'static str, &str)]) -> String {
    let request = Request::get("/v1/resolve");
    let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
    let found = node.send(request.body(bytes::Bytes::new()).unwrap()).await.json();
    found["caller"]["home"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_those_who_are_trusted_say_where_a_client_is() {
    let headers = [("x-forwarded-for", SINGAPOREAN)];
    let named = [("portolan-client-ip", SINGAPOREAN)];
    let orchs = [Orch::start(params()).await];
    let mut nobody = Setup::new("nobody");
    nobody.more = String::new();
    let nobody = nobody.start(&orchs).await;
    assert_eq!(home(&nobody, &headers).await, "FRA");
    assert_eq!(home(&nobody, &named).await, "FRA");
    let mut proxied = Setup::new("proxied");
    proxied.more = "[location]\ntrusted_proxies = [\"127.0.0.0/8\"]\n".to_owned();
    let proxied = proxied.start(&orchs).await;
    assert_eq!(home(&proxied, &headers).await, "SIN");
    assert_eq!(home(&proxied, &named).await, "FRA");
    // The client's own words stand left of what the proxy wrote.
    let forged = [("x-forwarded-for", "118.200.0.1, 12.0.0.1")];
    assert_eq!(home(&proxied, &forged).await, "OMA", "an American's");
}
