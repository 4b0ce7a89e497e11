//! What the operator orders for a whole mesh, by signed commands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use portolan::devorch::Params;
use portolan::id::OrchestratorId;
use portolan::operator::{Command, OperatorKey};
use portolan::orders::{Drain, Drained, Orders};
use serde_json::Value;
use tokio::process;

use crate::enroll::Ca;
use crate::mesh::{n_links, peer};
use crate::node::{Node, ONCE, Orch, params};

struct World {
    ca: Ca,
    nodes: [Arc<Node>; 2],
    orchs: Vec<Orch>,
    key: std::path::PathBuf,
}

/// A node in Frankfurt and one in New York, which obey the CA's operator, before one
/// orchestrator in each.
async fn world() -> World {
    let mut orchs = Vec::new();
    for (code, from_fra, from_nyc) in [("FRA", 2, 90), ("NYC", 90, 2)] {
        let delays = format!("127.1.0.0/16={from_fra}ms,127.2.0.0/16={from_nyc}ms");
        let (region, delays) = (Some(code.parse().unwrap()), delays.parse().unwrap());
        orchs.push(Orch::start(Params { region, delays, ..params() }).await);
    }
    let ca = Ca::start().await;
    let key = ca.path.join("operator.key");
    let fra = member(&ca, ("fra", "FRA"), "", &orchs).await;
    let seed = peer("fra", &fra);
    let nyc = member(&ca, ("nyc", "NYC"), &seed, &orchs).await;
    let nodes = [fra, nyc];
    for node in &nodes {
        node.until("the link is up", || n_links(node) == 1).await;
    }
    World { ca, nodes, orchs, key }
}

async fn member(
    ca: &Ca,
    (name, region): (&'static str, &'static str),
    more: &str,
    orchs: &[Orch],
) -> Arc<Node> {
    let joined = ca.join(name).await;
    let from = if region == "FRA" { "127.1.0.1" } else { "127.2.0.1" };
    let mut setup = joined.setup(name, &format!("forward = false\ndata = \".\"\n{more}"));
    setup.more += &format!("[upstream]\nfrom = \"{from}\"\n");
    setup.region = region;
    Arc::new(setup.start(orchs).await)
}

impl World {
    /// Runs a command at the first node, as its operator would.
    async fn run(&self, args: &[&str]) -> (bool, String) {
        let admin = format!("http://{}", self.nodes[0].app.admin);
        let output = process::Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(args)
            .args(["--admin", &admin, "--key", self.key.to_str().unwrap()])
            .output();
        let output = output.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    async fn done(&self, args: &[&str]) -> String {
        let (done, said) = self.run(args).await;
        assert!(done, "{said}");
        said
    }

    /// Waits until both nodes are under the first one's orders; returns those.
    async fn agreed(&self) -> Value {
        let of = async |node: &Node| node.admin_json("/v1/orders").await;
        let begin = portolan::clock::now();
        loop {
            let (a, b) = (of(&self.nodes[0]).await, of(&self.nodes[1]).await);
            if a["number"] == b["number"] {
                assert_eq!(a["orders"], b["orders"]);
                return a;
            }
            assert!(begin.elapsed() < Duration::from_secs(5), "{a} {b}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn id(&self, at: usize) -> String {
        OrchestratorId::of(&self.orchs[at].uri).to_string()
    }
}

/// Who served one call of a client of network `number`.
async fn served_by(node: &Node, number: u8) -> String {
    let request = Request::post(ONCE).header("portolan-client-ip", format!("91.0.{number}.1"));
    let answer = node.send(request.body(Bytes::from_static(b"hello")).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("portolan-orchestrator").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_node_holds_everywhere_and_is_rolled_back_by_one_command() {
    let world = world().await;
    let [fra, nyc] = &world.nodes;
    let session = nyc.reserve().await;
    let said = world.done(&["drain", "node", "nyc"]).await;
    assert!(said.contains("drain node nyc: sessions go on"), "{said}");
    world.agreed().await;
    // Nobody is sent there, and who comes all the same is told to go elsewhere; a session and
    // the node itself go on.
    let found = fra.get_for("12.0.0.1", "/v1/resolve").await.json();
    assert_eq!(found["primary"]["node"], "fra", "{found}");
    assert!(nyc.call("hello").await.refused(503).contains("another"));
    assert_eq!(nyc.post(&session.app, "still").await.status, 200);
    let said = world.done(&["orders", "--roll-back"]).await;
    assert!(said.contains("nothing is ordered"), "{said}");
    world.agreed().await;
    assert_eq!(nyc.call("hello").await.status, 200);
    let found = fra.get_for("12.0.0.1", "/v1/resolve").await.json();
    assert_eq!(found["primary"]["node"], "nyc", "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_orchestrator_gets_nothing_new_and_its_sessions_end_in_time() {
    let world = world().await;
    let [fra, _nyc] = &world.nodes;
    let session = fra.reserve().await;
    let near = session.orchestrator.clone();
    world.done(&["drain", "orchestrator", &near, "--within", "3"]).await;
    world.agreed().await;
    assert_eq!(fra.post(&session.app, "x").await.status, 200, "it has its time");
    for number in 0..5 {
        assert_ne!(served_by(fra, number).await, near);
    }
    let begin = portolan::clock::now();
    while fra.post(&session.app, "x").await.status == 200 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the session goes on and on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.done(&["drain", "orchestrator", &near, "--undo"]).await;
    assert_eq!(served_by(fra, 1).await, near);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_moves_its_share_of_clients_and_of_work_and_no_more() {
    let world = world().await;
    let [fra, nyc] = &world.nodes;
    world.done(&["dial", "FRA", "30"]).await;
    world.agreed().await;
    let (mut work, mut entries) = (0, 0);
    for number in 0..200 {
        work += usize::from(served_by(fra, number).await == world.id(0));
        let client = format!("91.0.{number}.1");
        let found = nyc.get_for(&client, "/v1/resolve").await.json();
        entries += usize::from(found["primary"]["node"] == "fra");
    }
    assert!((30..=90).contains(&work), "{work} of 200 at 30 %");
    assert_eq!(entries, work, "both nodes draw the same line");
    world.done(&["dial", "FRA", "0"]).await;
    for number in 0..20 {
        assert_eq!(served_by(fra, number).await, world.id(1));
    }
    world.done(&["dial", "FRA", "100"]).await;
    assert_eq!(served_by(fra, 0).await, world.id(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_outlive_a_restart_and_reach_who_comes_later() {
    let world = world().await;
    world.done(&["dial", "FRA", "50"]).await;
    let told = world.agreed().await;
    let late =
        member(&world.ca, ("late", "SIN"), &peer("fra", &world.nodes[0]), &world.orchs).await;
    late.until("it heard of them", || {
        late.app.gateway.shared.orders.load().number == told["number"].as_u64().unwrap()
    })
    .await;
    let World { nodes: [fra, nyc], .. } = world;
    drop(fra);
    let Ok(nyc) = Arc::try_unwrap(nyc) else { panic!("nobody else holds it") };
    let nyc = Node::again(nyc.stop().await).await;
    assert_eq!(nyc.admin_json("/v1/orders").await["orders"], told["orders"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_operators_or_comes_too_late_is_refused() {
    let mut world = world().await;
    let node = Arc::clone(&world.nodes[0]);
    let operator = OperatorKey::from_pem(&std::fs::read_to_string(&world.key).unwrap()).unwrap();
    let what = Drained::Region("FRA".parse().unwrap());
    let orders = |previous| Orders {
        previous,
        drains: vec![Drain { what, within_s: None }],
        ..Orders::default()
    };
    let wall = portolan::clock::wall();
    let command = |previous| Command {
        mesh: "mesh.test".to_owned(),
        sequence: wall.as_millis() as u64,
        not_after: wall.as_secs() + 60,
        body: orders(previous).write(),
    };
    let post = async |bytes: Vec<u8>| node.order(bytes).await;
    let stranger = OperatorKey::from_seed([9; 32]).unwrap();
    let said = post(command(0).sign(&stranger).unwrap()).await.refused(403);
    assert!(said.contains("not signed by the operator"), "{said}");
    let odd = Command { body: b"drain FRA".to_vec(), ..command(0) };
    assert!(post(odd.sign(&operator).unwrap()).await.refused(403).contains("no orders"));
    let other = Command { mesh: "else.test".to_owned(), ..command(0) };
    assert!(post(other.sign(&operator).unwrap()).await.refused(403).contains("another mesh"));
    let made_from_others = post(command(7).sign(&operator).unwrap()).await.refused(409);
    assert!(made_from_others.contains("order again"), "{made_from_others}");
    let bytes = command(0).sign(&operator).unwrap();
    assert_eq!(post(bytes.clone()).await.status, 204);
    assert!(post(bytes).await.refused(403).contains("obeyed before"));
    // The command line names the remedy too.
    world.key = world.ca.path.join("ca.pem");
    let (done, said) = world.run(&["dial", "FRA", "10"]).await;
    assert!(!done && said.contains("private key"), "{said}");
}
