//! Three nodes, one orchestrator with ten places, thirty clients at once.

use std::sync::Arc;
use std::time::Duration;

use portolan::clock;
use portolan::devorch::Params;
use portolan::mesh::Standing;
use tokio::task::JoinSet;

use crate::enroll::{Ca, Joined};
use crate::node::{Node, Orch, Setup, params};

/// What came of one run.
#[derive(Debug)]
struct Run {
    /// Calls served.
    served: u64,
    /// Calls the orchestrator turned away because it was full.
    refused: u64,
}

/// Starts a node of the mesh that knows the peers in `more`.
pub(crate) async fn member(
    joined: &Joined,
    name: &'static str,
    more: &str,
    orchs: &[Orch],
) -> Arc<Node> {
    let mut setup = Setup::new(name).more(&format!(
        "[mesh]\nlisten = \"127.0.0.1:0\"\ntrust_domain = \"mesh.test\"\nca = \"ca.pem\"\n\
         cert = \"node.pem\"\nkey = \"node.key\"\n{more}"
    ));
    let ca = &joined.named.standing.ca;
    let files = [("ca.pem", ca), ("node.pem", &joined.identity.cert_pem)];
    for (file, text) in files.into_iter().chain([("node.key", &joined.identity.key_pem)]) {
        setup.files.push((file.to_owned(), text.clone().into_bytes()));
    }
    Arc::new(setup.start(orchs).await)
}

pub(crate) fn peer(name: &str, node: &Node) -> String {
    format!("[[peer]]\nnode = \"{name}\"\naddress = \"{}\"\n", node.app.mesh.unwrap())
}

pub(crate) fn n_links(node: &Node) -> usize {
    let peers = node.app.gateway.shared.peers.load();
    peers.rows.iter().filter(|it| it.standing == Standing::Up).count()
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
    let work = Duration::from_millis(200);
    let orchs = [Orch::start(Params { capacity: 10, work, ..params() }).await];
    let nodes = three(&ca, &orchs, share).await;
    let until = clock::now() + LASTS;
    let mut clients = JoinSet::new();
    for client in 0..30 {
        let node = Arc::clone(&nodes[client % 3]);
        clients.spawn(async move {
            let mut n_served = 0;
            while clock::now() < until {
                match node.call("x").await.status.as_u16() {
                    200 => n_served += 1,
                    503 => tokio::time::sleep(PAUSE).await,
                    other => panic!("{other}"),
                }
            }
            n_served
        });
    }
    let served = clients.join_all().await.into_iter().sum();
    let refused = orchs[0].seen().await["full"].as_u64().unwrap();
    Run { served, refused }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes both cores for 24 s; run it alone, by name"]
#[expect(clippy::print_stdout, reason = "the figures are what it shows")]
async fn three_nodes_share_ten_places_with_a_tenth_of_the_refusals() {
    let alone = run(false).await;
    let shared = run(true).await;
    println!("try and fail {alone:?}, shared {shared:?}");
    assert!(shared.refused * 10 <= alone.refused, "{alone:?} {shared:?}");
    assert!(shared.served * 2 >= alone.served, "{alone:?} {shared:?}");
}

const LASTS: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(30);
