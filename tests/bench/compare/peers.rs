//! Peers of a node: as many whole meshes as are asked for, in one process, so that what a link
//! costs the node can be measured.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan::actors::mesh::{Args, MeshActor, Msg};
use portolan::ca::Revoked;
use portolan::clock;
use portolan::clock::pulse::Pulses;
use portolan::health;
use portolan::health::Observation;
use portolan::id::{NodeId, OrchestratorId};
use portolan::mesh::{About, Greeting, Operator, Params, Peers, Standing, backoff, limits};
use portolan::net::tls::Authority;
use portolan::net::{self, Endpoint};
use portolan::unit::Micros;
use ractor::{Actor, ActorRef};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Makes a CA and writes what the node named `bench` joins its mesh with; then takes orders
/// from standard input until it ends: `links N` to hold as many links to it, `rows N` to have
/// each peer tell of as many orchestrators, all changed each second.
pub(crate) async fn hold(folder: &Path, at: SocketAddr) {
    let authority = Authority::generate("bench.mesh").unwrap();
    authority.trust().write(&folder.join("ca.pem")).unwrap();
    let named = authority.issue(node("bench")).unwrap();
    named.write(&folder.join("node.pem"), &folder.join("node.key")).unwrap();
    crate::say("ready");
    let rows = Arc::new(AtomicU32::new(0));
    let (mut held, mut tasks) = (Vec::new(), JoinSet::new());
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await.unwrap() {
        let (what, n) = order.split_once(' ').unwrap();
        let n: u32 = n.parse().unwrap();
        match what {
            "links" => {
                while held.len() < n as usize {
                    held.push(start(&authority, held.len(), at).await);
                    let (actor, _) = &held[held.len() - 1];
                    tasks.spawn(tell(actor.clone(), Arc::clone(&rows)));
                }
                for (_actor, peers) in &held {
                    until_up(peers).await;
                }
            }
            "rows" => rows.store(n, Ordering::Relaxed),
            _ => panic!("{order}"),
        }
        crate::say("done");
    }
}

/// Starts one node of the mesh, without a gateway.
async fn start(
    authority: &Authority,
    number: usize,
    at: SocketAddr,
) -> (ActorRef<Msg>, Arc<ArcSwap<Peers>>) {
    let name = node(&format!("peer-{number}"));
    let greeting = Greeting { node: name, region: "FRA".parse().unwrap(), epoch: 1, features: 0 };
    let bound = net::Params {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        identity: authority.issue(name).unwrap(),
        trust: authority.trust().clone(),
        revoked: Revoked::default(),
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(15),
        keep_alive: Duration::from_secs(5),
        age_max: Duration::from_secs(24 * 3600),
        outbound_max: 64,
    };
    let endpoint = Endpoint::bind(bound, greeting).unwrap();
    let peers = Arc::new(ArcSwap::from_pointee(Peers::default()));
    let (told, mut news) = mpsc::channel(4);
    let args = Args {
        params: params(),
        greeting,
        epochs: Arc::default(),
        at: endpoint.local_addr().ok(),
        endpoint,
        addresses: BTreeMap::from([(node("bench"), at)]),
        backoff: backoff::Params { first: Duration::from_millis(100), max: Duration::from_secs(1) },
        peers: Arc::clone(&peers),
        board: Arc::default(),
        news: told,
        ways: mpsc::channel(4).0,
        pulse: Pulses::default().of(clock::now(), "mesh", Duration::from_secs(60)),
        orders: Arc::default(),
        ordered: Arc::default(),
    };
    let (actor, mut running) = Actor::spawn(None, MeshActor, args).await.unwrap();
    let mut reading = JoinSet::new();
    reading.spawn(async move { while news.recv().await.is_some() {} });
    reading.spawn(async move { (&mut running).await.unwrap() });
    // Both end with the process.
    reading.detach_all();
    (actor, peers)
}

/// Tells of every row anew, a quarter of them each quarter of a second.
async fn tell(actor: ActorRef<Msg>, rows: Arc<AtomicU32>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut turn = 0_u32;
    loop {
        ticks.tick().await;
        let n = rows.load(Ordering::Relaxed);
        turn += 1;
        let seen = (0..n).filter(|row| row % 4 == turn % 4).map(|row| Observation {
            orchestrator: OrchestratorId(u64::from(row) + 1),
            // Half as much again or half as little each time: no push may leave it out.
            rtt: Some(Micros(if turn % 8 < 4 { 20_000 } else { 31_000 })),
            failures_milli: 0,
            successes_milli: 100_000,
            in_flight: 1 + turn / 4 % 7,
            arrivals_milli: 2_000,
            service: Some(Micros(80_000)),
            capacity_milli: Some(10_000),
        });
        if n > 0 && actor.cast(Msg::Observed(seen.collect())).is_err() {
            return;
        }
    }
}

async fn until_up(peers: &ArcSwap<Peers>) {
    let up = || {
        let peers = peers.load();
        peers.row(node("bench")).is_some_and(|it| it.standing == Standing::Up)
    };
    while !up() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// What a node takes when its configuration says nothing.
fn params() -> Params {
    Params {
        peers: vec![node("bench")],
        push_interval: Duration::from_millis(250),
        frames_per_push: 1,
        ping_interval: Duration::from_secs(1),
        silence: Duration::from_millis(2_500),
        bytes_per_second: 100_000,
        digest_interval: Duration::from_secs(7),
        quarantine: Duration::from_secs(60),
        news_interval: Duration::from_millis(100),
        levels_from: 300,
        share_load: false,
        about: About::default(),
        operator: Operator::default(),
        limits: limits::Params {
            frames_per_second: 200,
            bytes_per_second: 4_000_000,
            records_per_second: 30_000,
            datagrams_per_second: 200,
            datagram_bytes_per_second: 200_000,
        },
        health: health::Params {
            ttl: Duration::from_secs(90),
            refresh: Duration::from_secs(30),
            max_records: 20_000,
            max_origins: 320,
            max_version_jump: 1 << 32,
            max_epoch_jump: 1 << 42,
        },
    }
}
