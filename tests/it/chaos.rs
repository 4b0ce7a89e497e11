//! Actors die under load: no request notices, and each comes back by its rule, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use ractor::{ActorCell, ActorStatus};
use tokio::task::JoinSet;

use crate::enroll::Ca;
use crate::mesh::{member, n_links, peer};
use crate::node::{Node, ONCE, Orch, RESERVE, Setup, params, post};

const CLIENTS: u64 = 20;

/// Two nodes that gossip, before the same three orchestrators.
async fn mesh(orchs: &[Orch]) -> [Arc<Node>; 2] {
    let ca = Ca::start().await;
    let a = member(&ca.join("a").await, "a", "[[peer]]\nnode = \"b\"\n", orchs).await;
    let b = member(&ca.join("b").await, "b", &peer("a", &a), orchs).await;
    for node in [&a, &b] {
        node.until("the peer is up", || n_links(node) == 1).await;
    }
    [a, b]
}

/// Works until told to stop: single-shot calls and whole sessions in turn. Returns what went
/// wrong.
async fn client(
    node: Arc<Node>,
    at: u64,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut turn = at;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let body = format!("turn {turn}");
        let outcome = if turn.is_multiple_of(2) {
            call(&node, &body).await
        } else {
            session(&node, &body).await
        };
        failed.extend(outcome.err());
        done.fetch_add(1, Ordering::Relaxed);
    }
    failed
}

async fn call(node: &Node, body: &str) -> Result<(), String> {
    echoed(node, ONCE, body).await
}

async fn session(node: &Node, body: &str) -> Result<(), String> {
    let answer = node.send(post(RESERVE, "{}")).await;
    if answer.status != StatusCode::OK {
        return Err(format!("reserve: {} {}", answer.status, answer.text()));
    }
    let session = node.session(&answer);
    echoed(node, &format!("{}/x", session.app), body).await?;
    let stopped = node.post(&format!("{}/stop", session.control), "").await;
    match stopped.status {
        StatusCode::NO_CONTENT => Ok(()),
        status => Err(format!("stop: {status} {}", stopped.text())),
    }
}

async fn echoed(node: &Node, path: &str, body: &str) -> Result<(), String> {
    let answer = node.send(post(path, body)).await;
    let well = answer.status == StatusCode::OK && answer.body == body;
    well.then_some(()).ok_or_else(|| format!("{path}: {} {}", answer.status, answer.text()))
}

/// The actor of a kind that dies next; none while it is being started again.
fn victim(node: &Node, kind: &str) -> Option<ActorCell> {
    let refs = &node.app.gateway.shared.refs;
    let cell = match kind {
        "geoip" => refs.geoip.load().as_ref()?.get_cell(),
        "mesh" | "peer" => refs.mesh.load().as_ref()?.get_cell(),
        "directory" | "orchestrator" => refs.directory.load().as_ref()?.get_cell(),
        _ => refs.sessions.load().as_ref()?.get_cell(),
    };
    match kind {
        "peer" | "orchestrator" | "session" => cell.get_children().pop(),
        _ => Some(cell),
    }
}

/// Counts how often actors of a kind came back, over all nodes of this process.
async fn restarts(node: &Node, kind: &str) -> u64 {
    let metrics = node.admin(Method::GET, "/metrics").await;
    let name = format!("portolan_actor_restarts_total{{actor=\"{kind}\"}} ");
    let count = metrics.text().lines().find_map(|it| it.strip_prefix(&name)?.parse().ok());
    count.unwrap_or(0)
}

/// Kills one actor of a kind and waits until it is back.
async fn kill(node: &Node, kind: &str) {
    let before = restarts(node, kind).await;
    let dying = victim(node, kind).unwrap();
    let siblings = dying.try_get_supervisor().map_or(0, |it| it.get_children().len());
    dying.kill();
    let counted = async {
        while restarts(node, kind).await <= before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), counted)
        .await
        .unwrap_or_else(|_elapsed| panic!("no restart of {kind} was counted"));
    // Sessions come and go; of everything else there are as many as before.
    let back = || {
        victim(node, kind).is_some_and(|it| {
            let many = it.try_get_supervisor().map_or(0, |it| it.get_children().len());
            let all = kind == "session" || many == siblings;
            all && it.get_id() != dying.get_id() && it.get_status() == ActorStatus::Running
        })
    };
    node.until(&format!("{kind} is back"), back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_actors_death_costs_a_request() {
    let orchs =
        [Orch::start(params()).await, Orch::start(params()).await, Orch::start(params()).await];
    let [node, peer] = mesh(&orchs).await;
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut clients = JoinSet::new();
    for at in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&node), at, Arc::clone(&stop), Arc::clone(&done)));
    }
    // A session that lives through all of it.
    let long = node.reserve().await;
    let path = format!("{}/events?n=40&every_ms=100", long.app);
    let stream = node.open(Request::get(path).body(Bytes::new()).unwrap()).await.unwrap();
    let stream = async { stream.into_body().collect().await };

    let deaths = async {
        for kind in ["geoip", "mesh", "peer", "directory", "orchestrator", "sessions", "session"] {
            let before = done.load(Ordering::Relaxed);
            kill(&node, kind).await;
            // Some work goes through between one death and the next.
            let enough = || done.load(Ordering::Relaxed) > before + CLIENTS;
            node.until("work goes on", enough).await;
        }
    };
    let (streamed, ()) = tokio::join!(stream, deaths);
    assert!(streamed.unwrap().to_bytes().ends_with(b"{\"seq\":39}\n\n"));
    stop.store(true, Ordering::Relaxed);
    let mut failed = Vec::new();
    while let Some(client) = clients.join_next().await {
        failed.extend(client.unwrap());
    }
    let n_done = done.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{} of {n_done} failed: {failed:#?}", failed.len());

    for node in [&node, &peer] {
        node.until("the peer is up again", || n_links(node) == 1).await;
        node.until_ready(orchs.len()).await;
    }
    assert_eq!(node.get("/discovery").await.status, StatusCode::OK);
    node.post(&format!("{}/stop", long.control), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_ends_is_noticed_and_requests_go_on_by_what_it_last_knew() {
    let orchs = [Orch::start(params()).await];
    let node = Setup::new("chaos-loop").start(&orchs).await;
    let stalled = async |name: &str| {
        let loops = node.admin_json("/v1/node").await["loops"].clone();
        assert!(loops[name]["silent_ms"].is_u64(), "{loops}");
        loops[name]["stalled"] == true
    };
    for name in ["directory", "sessions", "memory", "ways"] {
        assert!(!stalled(name).await, "{name}");
    }
    node.app.root().stop(None);
    let begin = portolan::clock::now();
    while !(stalled("directory").await && stalled("sessions").await) {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(node.call("hello").await.status, StatusCode::OK);
    let metrics = node.admin(Method::GET, "/metrics").await;
    assert!(metrics.text().contains("portolan_loop_stalled{loop=\"memory\"} 0"));
}
