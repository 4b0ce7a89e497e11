//! Three nodes, one orchestrator with ten places, thirty clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Three nodes of a mesh before one orchestrator with ten places.
struct World {
    orch: Orch,
    nodes: [Arc<Node>; 3],
    _ca: Ca,
}

impl World {
    /// Starts `a`, `b` and `c`, and waits until each has a link to both others.
    async fn start(share: bool) -> Self {
        let work = Duration::from_millis(800);
        let orch = Orch::start(Params { capacity: 10, work, ..params() }).await;
        let (ca, orchs) = (Ca::start().await, std::slice::from_ref(&orch));
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
        Self { orch, nodes, _ca: ca }
    }

    async fn n_refused(&self) -> u64 {
        self.orch.seen().await["full"].as_u64().unwrap()
    }

    /// Ten clients at each node call until it is over; who is refused tries again after
    /// [`PAUSE`].
    async fn run(&self, over: &Arc<AtomicBool>) -> Run {
        let mut clients = JoinSet::new();
        for client in 0..30 {
            let (node, over) = (Arc::clone(&self.nodes[client % 3]), Arc::clone(over));
            clients.spawn(async move {
                let (mut n_served, mut n_told) = (0, 0);
                while !over.load(Ordering::Relaxed) {
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
        let at_first = self.n_refused().await;
        let mut run = Run::default();
        for (node, n_served, n_told) in clients.join_all().await {
            run.served += n_served;
            run.at_node[node] += n_served;
            run.told += n_told;
        }
        run.refused = self.n_refused().await;
        run.later = run.refused - at_first;
        run
    }
}

/// Both at the same time, so that whatever else the machine does, it does to both; and until
/// trying and failing has failed so often, since a starved machine tries less in the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what it shows")]
async fn three_nodes_share_ten_places_with_a_tenth_of_the_refusals() {
    let (alone, shared) = tokio::join!(World::start(false), World::start(true));
    let (over, begin) = (Arc::<AtomicBool>::default(), clock::now());
    let enough = async {
        while alone.n_refused().await < ENOUGH && begin.elapsed() < LASTS_MAX {
            tokio::time::sleep(PAUSE).await;
        }
        over.store(true, Ordering::Relaxed);
        begin.elapsed()
    };
    let (alone, shared, lasted) = tokio::join!(alone.run(&over), shared.run(&over), enough);
    println!("within {lasted:?}:");
    println!("try and fail: {alone:?}");
    println!("shared:       {shared:?}");
    assert!(shared.later * 10 <= alone.later, "{alone:?} {shared:?}");
    assert!(shared.refused * 10 <= alone.refused, "{alone:?} {shared:?}");
    // A starved machine takes its time to hand a place on, and one node may be late to a rush of
    // some seconds; the simulation holds work and parts to what they come to.
    assert!(shared.served * 100 >= alone.served * 70, "{alone:?} {shared:?}");
    let least = shared.at_node.iter().min().unwrap();
    assert!(least * 12 >= shared.served, "no node has less than a quarter of a third: {shared:?}");
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
/// What trying and failing is refused in eleven seconds of a machine of its own.
const ENOUGH: u64 = 700;
const LASTS_MAX: Duration = Duration::from_secs(60);
const RUSH: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
