//! Three nodes, one orchestrator with ten places, thirty clients at once.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use portolan::clock;
use portolan::devorch::Params;
use portolan::view::View;
use tokio::task::JoinSet;

use crate::enroll::Ca;
use crate::mesh::{member, n_links, peer};
use crate::node::{Node, Orch, Setup, params};

/// What came of one run.
#[derive(Debug, Default)]
struct Run {
    /// Calls served.
    served: u64,
    /// The same by node.
    at_node: [u64; 3],
    /// Calls the orchestrator turned away because it was full.
    refused: u64,
    /// The same once the first rush was over, in which nobody had heard of anybody yet.
    later: u64,
    /// Calls a client was told to try again later.
    told: u64,
}

/// Starts `a`, `b` and `c`, and waits until each has a link to both others.
async fn three(ca: &Ca, orchs: &[Orch], share: bool) -> [Arc<Node>; 3] {
    let own = format!("share_load = {share}\n");
    let [a, b, c] = [ca.join("a").await, ca.join("b").await, ca.join("c").await];
    let a = member(&a, "a", &own, orchs).await;
    let to_a = format!("{own}{}", peer("a", &a));
    let b = member(&b, "b", &to_a, orchs).await;
    let c = member(&c, "c", &format!("{to_a}{}", peer("b", &b)), orchs).await;
    let nodes = [a, b, c];
    for node in &nodes {
        node.until("all links are up", || n_links(node) == 2).await;
    }
    nodes
}

/// Ten clients at each node call for [`LASTS`]; who is refused tries again after [`PAUSE`].
async fn run(share: bool) -> Run {
    let ca = Ca::start().await;
    let work = Duration::from_millis(800);
    let orchs = [Orch::start(Params { capacity: 10, work, ..params() }).await];
    let nodes = three(&ca, &orchs, share).await;
    let until = clock::now() + LASTS;
    let mut clients = JoinSet::new();
    for client in 0..30 {
        let node = Arc::clone(&nodes[client % 3]);
        clients.spawn(async move {
            let (mut n_served, mut n_told) = (0, 0);
            while clock::now() < until {
                match node.call("x").await.status.as_u16() {
                    200 => n_served += 1,
                    503 => {
                        n_told += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    other => panic!("{other}"),
                }
            }
            (client % 3, n_served, n_told)
        });
    }
    tokio::time::sleep(RUSH).await;
    let at_first = orchs[0].seen().await["full"].as_u64().unwrap();
    let mut run = Run::default();
    for (node, n_served, n_told) in clients.join_all().await {
        run.served += n_served;
        run.at_node[node] += n_served;
        run.told += n_told;
    }
    run.refused = orchs[0].seen().await["full"].as_u64().unwrap();
    run.later = run.refused - at_first;
    run
}

/// Both at the same time, so that whatever else the machine does, it does to both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what it shows")]
async fn three_nodes_share_ten_places_with_a_tenth_of_the_refusals() {
    let (alone, shared) = tokio::join!(run(false), run(true));
    let per_s = |it: &Run| it.served as f64 / LASTS.as_secs_f64();
    println!("try and fail: {:.1} served a second, {alone:?}", per_s(&alone));
    println!("shared:       {:.1} served a second, {shared:?}", per_s(&shared));
    assert!(shared.later * 10 <= alone.later, "{alone:?} {shared:?}");
    // A starved machine leaves little of trying and failing, and takes its time to hand a place
    // on; the simulation holds both to what they come to.
    assert!(shared.refused * 5 <= alone.refused, "{alone:?} {shared:?}");
    assert!(shared.served * 100 >= alone.served * 70, "{alone:?} {shared:?}");
    let least = shared.at_node.iter().min().unwrap();
    assert!(
        least * 5 >= shared.served,
        "no node has less than three fifths of a third: {shared:?}"
    );
}

/// Twenty clients of a region with two places, and sixteen more elsewhere; returns the most that
/// were elsewhere at once, and the node's metrics.
async fn spill(policy: &str) -> (u32, String) {
    let region = |it: &str| Some(it.parse().unwrap());
    let near = Params { capacity: 2, work: WORK, region: region("FRA"), ..params() };
    let delays = "80ms".parse().unwrap();
    let far = Params { capacity: 16, work: WORK, region: region("NYC"), delays, ..params() };
    let orchs = [Orch::start(near).await, Orch::start(far).await];
    let node = Arc::new(Setup::new("fra-1").more(policy).start(&orchs).await);
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let node = Arc::clone(&node);
        clients.spawn(async move { node.call("x").await });
    }
    let away = |view: &View| -> u32 {
        let rows = view.rows().filter(|(_slot, row)| view.atlas.name(row.region).as_str() == "NYC");
        rows.map(|(_slot, row)| row.gauge.in_flight()).sum()
    };
    let mut most = 0;
    while !clients.is_empty() {
        most = most.max(away(&node.app.gateway.shared.view.load()));
        while clients.try_join_next().is_some() {}
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (most, node.admin(Method::GET, "/metrics").await.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_to_another_region_begins_with_an_eighth_of_it() {
    let (at_once, _metrics) = spill("").await;
    // Two and one more: two threads may choose at the same moment.
    let (most, metrics) = spill("[policy]\nspill_ramp_s = 3600").await;
    assert!(at_once > 3 && most <= 3 && most > 0, "{at_once} {most}");
    let held = "portolan_held_back_total{reason=\"spill-ramp\"}";
    assert!(metrics.contains(held), "{metrics}");
}

const WORK: Duration = Duration::from_millis(500);
const LASTS: Duration = Duration::from_secs(12);
const RUSH: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
