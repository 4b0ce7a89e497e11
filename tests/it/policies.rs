//! What an operator and a client may say about a choice: each shows in the answer, in
//! `explain` and in the metrics.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use portolan::devorch::Params;
use portolan::id::OrchestratorId;
use portolan::view::row::Standing;

use crate::node::{self, Answer, Node, ONCE, Orch, Setup, params};

/// A node before a near and a far orchestrator.
async fn two(more: &str) -> (Node, [Orch; 2]) {
    let orchs = Orch::near_and_far().await;
    let node = Setup::new("policies").more(more).start(&orchs).await;
    (node, orchs)
}

fn id(orch: &Orch) -> String {
    OrchestratorId::of(&orch.uri).to_string()
}

async fn call(node: &Node, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(Request::post(ONCE), |it, (name, value)| it.header(*name, *value));
    node.send(request.body(Bytes::from("x")).unwrap()).await
}

#[track_caller]
fn served_by(answer: &Answer, orch: &Orch) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("portolan-orchestrator"), id(orch));
}

/// Returns the policies `explain` names for the decision behind an answer.
async fn applied(node: &Node, answer: &Answer) -> Vec<String> {
    let path = format!("/v1/explain?decision={}", answer.header("portolan-decision"));
    let policies = node.admin_json(&path).await["policies"].clone();
    serde_json::from_value(policies).unwrap()
}

async fn metric(node: &Node, line: &str) -> f64 {
    let metrics = node.admin(http::Method::GET, "/metrics").await;
    let found = metrics.text().lines().find_map(|it| it.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

#[tokio::test]
async fn a_client_pins_prefers_and_excludes() {
    let (node, [near, far]) = two("").await;
    served_by(&call(&node, &[]).await, &near);
    let pinned = call(&node, &[("portolan-prefer", &format!("{}; only", id(&far)))]).await;
    served_by(&pinned, &far);
    assert_eq!(applied(&node, &pinned).await, ["pinned"]);
    let excluded = call(&node, &[("portolan-exclude", &id(&near))]).await;
    served_by(&excluded, &far);
    assert_eq!(applied(&node, &excluded).await, ["excluded"]);
    // 80 ms farther is not good enough to be preferred.
    served_by(&call(&node, &[("portolan-prefer", &id(&far))]).await, &near);
    let both = format!("{}, {}", id(&near), id(&far));
    assert!(call(&node, &[("portolan-exclude", &both)]).await.refused(503).contains("denied"));
    assert!(
        call(&node, &[("portolan-exclude", "x")]).await.refused(400).contains("portolan-exclude")
    );
    let counted = metric(&node, "portolan_policies_applied_total{policy=\"pinned\"}").await;
    assert!(counted >= 1.0);
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_refused_by_name() {
    let (node, [near, _far]) = two("[policy]\nclients_may = [\"exclude\"]").await;
    for (name, value) in [
        ("portolan-prefer", id(&near)),
        ("portolan-deadline", "100".to_owned()),
        ("portolan-affinity", "x".to_owned()),
    ] {
        let said = call(&node, &[(name, &value)]).await.refused(403);
        assert!(said.contains("policy.clients_may"), "{said}");
    }
}

#[tokio::test]
async fn a_deadline_nobody_can_keep_is_refused_and_a_silent_one_is_not_waited_for() {
    let (node, [near, far]) = two("").await;
    assert!(call(&node, &[("portolan-deadline", "1")]).await.refused(504).contains("Deadline"));
    let kept = call(&node, &[("portolan-deadline", "5000")]).await;
    served_by(&kept, &near);
    assert_eq!(applied(&node, &kept).await, ["deadline"]);
    for orch in [&near, &far] {
        orch.set("fail", "silent-head").await;
    }
    let begin = portolan::clock::now();
    call(&node, &[("portolan-deadline", "700")]).await.refused(504);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn who_served_a_client_serves_it_again_while_good_enough() {
    let orchs = [Orch::start(params()).await, Orch::start(params()).await];
    let node = Setup::new("affinity").start(&orchs).await;
    let mut first = None;
    for turn in 0..12 {
        let answer = call(&node, &[("portolan-affinity", "user-7")]).await;
        let by = answer.header("portolan-orchestrator").to_owned();
        assert_eq!(*first.get_or_insert(by.clone()), by, "turn {turn}");
        let expected = if turn == 0 { vec![] } else { vec!["affinity"] };
        assert_eq!(applied(&node, &answer).await, expected, "turn {turn}");
    }
}

#[tokio::test]
async fn a_price_ceiling_is_raised_only_as_far_as_the_operator_says() {
    use portolan::devorch::Params;
    let priced = Params { asking: Some("1200:fixed".parse().unwrap()), ..params() };
    let orchs = [Orch::start(priced).await];
    let ceiling = "[policy]\nprice_max_wei = \"1000\"\n";
    let strict = Setup::new("strict").more(ceiling).start(&orchs).await;
    assert!(
        call(&strict, &[]).await.status.is_client_error() || call(&strict, &[]).await.status == 503
    );
    let relaxed = format!("{ceiling}price_relax_percent = 25\n");
    let relaxed = Setup::new("relaxed").more(&relaxed).start(&orchs).await;
    let list = relaxed.get("/discovery").await.json();
    let url = list[0]["runners"].as_array().unwrap().iter().find(|it| it["app"] == "demo/once");
    let path = relaxed.path_of(url.unwrap()["url"].as_str().unwrap());
    let challenged = relaxed.post(&path, "x").await;
    assert_eq!(challenged.status, 402, "asked to pay, so chosen: {}", challenged.text());
    assert_eq!(applied(&relaxed, &challenged).await, ["price-relaxed"]);
    let strict_path = strict.path_of(&format!("http://{}{path}", strict.app.public));
    strict.post(&strict_path, "x").await.refused(503);
}

#[tokio::test]
async fn a_panic_is_the_operators_choice_and_never_silent() {
    for (policy, status) in [("all", 200), ("fail_fast", 503), ("shed_low", 503)] {
        let (node, orchs) = two(&format!("[policy]\npanic = \"{policy}\"")).await;
        for orch in &orchs {
            orch.set("fail", "status=500").await;
        }
        let all_aside = || {
            let view = node.app.gateway.shared.view.load();
            view.rows().all(|(_slot, row)| row.standing == Standing::Suspended)
        };
        let begin = portolan::clock::now();
        while !all_aside() {
            assert!(begin.elapsed() < Duration::from_secs(10), "{policy}: not all are put aside");
            drop(call(&node, &[]).await);
        }
        for orch in &orchs {
            orch.set("fail", "").await;
        }
        let answer = call(&node, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{policy}: {}", answer.text());
        if status == 200 {
            assert_eq!(applied(&node, &answer).await, ["panic"]);
        }
    }
}

#[tokio::test]
async fn retries_have_a_budget_and_what_was_never_sent_costs_none_of_it() {
    let (node, [near, _far]) = two("[policy]\nretry_percent = 0\nretries_per_second = 0").await;
    near.set("capacity", "0").await;
    let said = call(&node, &[]).await.refused(503);
    assert!(said.contains("full"), "{said}");
    assert!(metric(&node, "portolan_retries_total{outcome=\"refused\"}").await >= 1.0);
    let (node, mut orchs) = two("[policy]\nretry_percent = 0\nretries_per_second = 0").await;
    orchs[0].die().await;
    served_by(&call(&node, &[]).await, &orchs[1]);
}

#[tokio::test]
async fn who_is_near_and_cold_is_connected_to_and_takes_over_from_who_is_far_and_warm() {
    let near = Orch::start(Params { delays: "40ms".parse().unwrap(), ..params() }).await;
    let orchs = [near, Orch::start(node::far()).await];
    let node = Setup::new("policies").start(&orchs).await;
    let [near, far] = &orchs;
    served_by(&call(&node, &[("portolan-exclude", &id(near))]).await, far);
    // Three round trips of 40 ms are dearer than one of 80.
    served_by(&call(&node, &[]).await, far);
    // Three at once, as many connections.
    let taken_over = async || loop {
        let three = tokio::join!(call(&node, &[]), call(&node, &[]), call(&node, &[]));
        let is_near = |it: &Answer| it.header("portolan-orchestrator") == id(near);
        if <[Answer; 3]>::from(three).iter().all(is_near) {
            return;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), taken_over()).await.unwrap();
    let made = metric(&node, "portolan_preconnects_total{result=\"made\"}").await;
    assert!(made >= 1.0);
}
