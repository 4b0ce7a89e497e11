mod overseas;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::clock::pulse::Pulses;
use crate::health;
use crate::mesh::Fault;
use crate::mesh::Membership;
use crate::mesh::PeerRow;
use crate::mesh::Standing;
use crate::mesh::limits;
use crate::net::tests::Rogue;
use crate::net::tests::endpoint;
use crate::net::tests::greeting;
use crate::net::tests::node;
use crate::net::tls::Authority;
use crate::unit::Micros;
use crate::wire::WireError;

/// One node of a test mesh.
struct Node {
    actor: ActorRef<Msg>,
    task: JoinHandle<()>,
    endpoint: Endpoint,
    epochs: Arc<AtomicU64>,
    peers: Arc<ArcSwap<Peers>>,
    news: mpsc::Receiver<PeerNews>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A mesh in a hurry.
fn params() -> Params {
    let usual = crate::mesh::tests::params();
    // A full frame every 50 ms is 20,480 records a second.
    let limits = limits::Params { records_per_second: 30_000, ..usual.limits };
    let health =
        health::Params { ttl: ms(2000), refresh: ms(500), max_records: 100, ..usual.health };
    Params {
        push_interval: ms(50),
        frames_per_push: 1,
        ping_interval: ms(200),
        news_interval: ms(20),
        limits,
        health,
        ..usual
    }
}

fn seen(orchestrator: u64) -> Observation {
    Observation {
        orchestrator: OrchestratorId(orchestrator),
        rtt: Some(Micros(7000)),
        failures_milli: 0,
        successes_milli: 1000,
        in_flight: 2,
        arrivals_milli: 0,
        service: None,
        capacity_milli: None,
    }
}

async fn start(
    name: &str,
    endpoint: Endpoint,
    addresses: BTreeMap<NodeId, SocketAddr>,
    epochs: Arc<AtomicU64>,
) -> Node {
    let peers = Arc::new(ArcSwap::from_pointee(Peers::default()));
    let (told, news) = mpsc::channel(4);
    let args = Args {
        params: params(),
        greeting: greeting(name),
        epochs: Arc::clone(&epochs),
        at: endpoint.local_addr().ok(),
        endpoint: endpoint.clone(),
        addresses,
        backoff: backoff::Params { first: ms(50), max: ms(400) },
        peers: Arc::clone(&peers),
        board: Arc::default(),
        news: told,
        ways: mpsc::channel(4).0,
        pulse: Pulses::default().of(clock::now(), "mesh", SILENT_MAX),
        orders: Arc::default(),
        ordered: Arc::default(),
    };
    let (actor, task) = Actor::spawn(None, MeshActor, args).await.unwrap();
    Node { actor, task, endpoint, epochs, peers, news }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_know_only_a_seed_find_each_other() {
    let authority = Authority::generate("mesh.example").unwrap();
    let a = start("a", endpoint(&authority, "a"), BTreeMap::new(), Arc::default()).await;
    let seed = BTreeMap::from([(node("a"), a.endpoint.local_addr().unwrap())]);
    // Neither is named in anybody's configuration.
    let d = start("d", endpoint(&authority, "d"), seed.clone(), Arc::default()).await;
    let e = start("e", endpoint(&authority, "e"), seed, Arc::default()).await;
    let at = e.endpoint.local_addr().ok();
    d.until("e", |it| it.standing == Standing::Up && !it.seed && it.at == at).await;
    e.until("d", |it| it.membership == Some(Membership::Alive)).await;
    a.until("d", |it| it.membership == Some(Membership::Alive)).await;
}

async fn mesh_of(authority: &Authority, names: &[&str]) -> Vec<Node> {
    let endpoints: Vec<_> = names.iter().map(|it| (*it, endpoint(authority, it))).collect();
    let at = |(name, it): &(&str, Endpoint)| (node(name), it.local_addr().unwrap());
    let addresses: BTreeMap<_, _> = endpoints.iter().map(at).collect();
    let mut nodes = Vec::new();
    for (name, endpoint) in endpoints {
        let others = addresses.iter().filter(|(it, _)| it.as_str() != name);
        let others = others.map(|(&node, &at)| (node, at)).collect();
        nodes.push(start(name, endpoint, others, Arc::default()).await);
    }
    nodes
}

impl Node {
    async fn until(&self, name: &str, holds: impl Fn(&PeerRow) -> bool) {
        let waited = async {
            while !self.peers.load().row(node(name)).is_some_and(&holds) {
                tokio::time::sleep(ms(5)).await;
            }
        };
        let waited = timeout(LONG, waited).await;
        assert!(waited.is_ok(), "{name} in {:?}", self.peers.load());
    }

    async fn until_up(&self, names: &[&str]) {
        for name in names {
            self.until(name, |it| it.standing == Standing::Up && it.rtt.is_some()).await;
        }
    }

    /// Waits for news of one orchestrator in which so many nodes see it.
    async fn news_of(&mut self, orchestrator: u64, n_nodes: usize) -> Vec<Sighting> {
        let waited = async {
            loop {
                let news = self.news.recv().await.unwrap();
                for (id, sightings) in news.changed {
                    if id.0 == orchestrator && sightings.len() == n_nodes {
                        return sightings;
                    }
                }
            }
        };
        timeout(LONG, waited).await.unwrap()
    }

    async fn kill(self) {
        self.actor.kill();
        self.task.await.unwrap();
        self.endpoint.close();
    }
}

/// Far longer than anything here takes on a loaded machine; only a failure waits for it.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_sees_the_others_know_until_it_dies_and_its_records_decay() {
    let authority = Authority::generate("mesh.example").unwrap();
    let mut nodes = mesh_of(&authority, &["a", "b", "c"]).await;
    nodes[0].until_up(&["b", "c"]).await;
    nodes[1].until_up(&["a", "c"]).await;
    nodes[2].until_up(&["a", "b"]).await;

    nodes[2].actor.cast(Msg::Observed(vec![seen(5)])).unwrap();
    for other in &mut nodes[..2] {
        let sightings = other.news_of(5, 1).await;
        assert_eq!((sightings[0].node, sightings[0].observation), (node("c"), seen(5)));
        assert!(sightings[0].age < params().health.ttl);
    }

    let c = nodes.pop().unwrap();
    c.kill().await;
    for other in &mut nodes {
        other.until("c", |it| it.standing == Standing::Down).await;
        assert_eq!(other.news_of(5, 0).await, []);
    }
    nodes[0].until_up(&["b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_garbage_is_put_aside_and_the_others_go_on() {
    let authority = Authority::generate("mesh.example").unwrap();
    let mut nodes = mesh_of(&authority, &["a", "b"]).await;
    nodes[0].until_up(&["b"]).await;
    let at = nodes[0].endpoint.local_addr().unwrap();
    let mut rogue = Rogue::greet(&authority, "c", at).await;
    nodes[0].until("c", |it| it.standing == Standing::Up).await;
    rogue.write(&[0; 64]).await;
    timeout(LONG, rogue.closed()).await.unwrap();
    nodes[0].until("c", |it| it.standing == Standing::Quarantined).await;
    let row = nodes[0].peers.load().row(node("c")).unwrap().clone();
    assert_eq!(row.fault, Some(Fault::Garbage(WireError::TooShort(0))));

    // It is not let in again, and nobody else noticed.
    let again = Rogue::greet(&authority, "c", at).await;
    timeout(LONG, again.closed()).await.unwrap();
    assert_eq!(nodes[0].peers.load().row(node("c")).unwrap().standing, Standing::Quarantined);
    nodes[0].actor.cast(Msg::Observed(vec![seen(6)])).unwrap();
    assert_eq!(nodes[1].news_of(6, 1).await[0].node, node("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_actor_of_a_peer_and_a_restarted_node_are_linked_again() {
    let authority = Authority::generate("mesh.example").unwrap();
    let mut nodes = mesh_of(&authority, &["a", "b"]).await;
    nodes[0].until_up(&["b"]).await;
    for child in nodes[0].actor.get_children() {
        child.kill();
    }
    let waited = async {
        while nodes[0].peers.load().n_restarts < 2 {
            tokio::time::sleep(ms(5)).await;
        }
    };
    timeout(LONG, waited).await.unwrap();
    nodes[0].until_up(&["b"]).await;

    // The same endpoint under a new actor: a later epoch, so that its records count anew.
    nodes[1].actor.cast(Msg::Observed(vec![seen(5), seen(6)])).unwrap();
    nodes[0].news_of(6, 1).await;
    let b = nodes.pop().unwrap();
    b.actor.stop(None);
    b.task.await.unwrap();
    nodes[0].until("b", |it| it.standing == Standing::Down).await;
    let addresses = [(node("a"), nodes[0].endpoint.local_addr().unwrap())].into();
    let again = start("b", b.endpoint, addresses, b.epochs).await;
    again.until_up(&["a"]).await;
    nodes[0].until_up(&["b"]).await;
    again.actor.cast(Msg::Observed(vec![seen(9)])).unwrap();
    nodes[0].news_of(9, 1).await;
}
