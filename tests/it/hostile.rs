//! Peers of the mesh, properly named, that misbehave while clients are served.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan::clock;
use portolan::id::OrchestratorId;
use portolan::wire::v1::{DeltaV1, HelloV1, LoadRowV1, LoadV1, PingV1, RecordV1};
use portolan::wire::{MAX_DELTA_FRAME, MAX_RECORDS, Message, encode};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::JoinSet;

use crate::enroll::{Ca, Joined};
use crate::mesh::member;
use crate::node::{Node, Orch, params};

/// A link to node `a` of somebody with a good certificate, who writes what it likes.
struct Rogue {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    _recv: quinn::RecvStream,
}

impl Rogue {
    /// Dials and greets like anyone.
    async fn greet(joined: &Joined, name: &str, at: SocketAddr) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in joined.trust.certificates().unwrap() {
            roots.add(certificate).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = &joined.identity;
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain().unwrap(), identity.key().unwrap())
            .unwrap();
        tls.alpn_protocols = vec![b"portolan/1".to_vec()];
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let dialed = endpoint.connect_with(config, at, "a.mesh.internal").unwrap();
        let connection = dialed.await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let hello = Message::Hello(HelloV1 {
            min: 1,
            max: 1,
            node: name.to_owned(),
            region: "FRA".to_owned(),
            epoch: EPOCH,
            features: 0,
        });
        send.write_all(&encode(&hello).unwrap()).await.unwrap();
        recv.read_chunk(1000, true).await.unwrap();
        Self { _endpoint: endpoint, connection, send, _recv: recv }
    }

    /// Writes a frame; `false` once it is not listened to.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.send.write_all(bytes).await.is_ok()
    }

    async fn say(&mut self, message: Message) -> bool {
        self.write(&encode(&message).unwrap()).await
    }

    /// Says the same until the other side has had enough, `n` times at most.
    async fn repeat(&mut self, message: Message, n: usize) {
        let bytes = encode(&message).unwrap();
        for _ in 0..n {
            if !self.write(&bytes).await {
                return;
            }
        }
        let closed = tokio::time::timeout(Duration::from_secs(10), self.connection.closed());
        closed.await.unwrap_or_else(|_| panic!("{n} times {message:?} are borne"));
    }
}

/// What a liar says of an orchestrator that serves everybody.
fn lie(orchestrator: OrchestratorId, after_first: u32) -> RecordV1 {
    RecordV1 {
        after_first,
        age_ms: 0,
        orchestrator: orchestrator.0,
        rtt_us: Some(9_000_000),
        failures_milli: 1_000_000,
        successes_milli: 0,
        in_flight: 10_000,
        arrivals_milli: 0,
        service_us: None,
        capacity_milli: Some(1),
    }
}

fn delta(epoch: u64, first_version: u64, records: Vec<RecordV1>) -> Message {
    Message::Delta(DeltaV1 { epoch, first_version, records })
}

/// Each of `NAMES` does what it is named after, all at once.
async fn assault(ca: &Ca, at: SocketAddr, orchestrator: OrchestratorId) {
    let mut rogues = JoinSet::new();
    for name in NAMES {
        let joined = ca.join(name).await;
        rogues.spawn(async move {
            let mut rogue = Rogue::greet(&joined, name, at).await;
            let one = lie(orchestrator, 0);
            match name {
                "flood" => rogue.repeat(Message::Ping(PingV1 { nonce: 1 }), 100_000).await,
                "replay" => {
                    let many = (0..MAX_RECORDS as u32).map(|at| lie(orchestrator, at)).collect();
                    rogue.repeat(delta(EPOCH, 1, many), 1_000).await;
                }
                "huge" => {
                    let mut head = (MAX_DELTA_FRAME as u32 + 1).to_be_bytes().to_vec();
                    head.extend([0, 3, 0, 1]);
                    head.extend(vec![0; 4096]);
                    rogue.write(&head).await;
                    rogue.connection.closed().await;
                }
                "jumper" => rogue.repeat(delta(EPOCH + 1, 7, vec![one]), 1).await,
                "backward" => {
                    let again = vec![one.clone(), one];
                    rogue.repeat(delta(EPOCH, u64::MAX, again), 1).await;
                }
                "greedy" => {
                    let row = LoadRowV1 { orchestrator: 1, in_flight: u32::MAX };
                    let load = LoadV1 { age_ms: 0, rows: vec![row] };
                    rogue.repeat(Message::Load(load), 1).await;
                }
                // Within all limits: it stays, and is not believed.
                _ => lie_on(&mut rogue, orchestrator).await,
            }
        });
    }
    rogues.join_all().await;
}

/// Lies for as long as the assault lasts: all of it fails, and all its places are taken.
async fn lie_on(rogue: &mut Rogue, orchestrator: OrchestratorId) {
    for version in 1..=40 {
        let row = LoadRowV1 { orchestrator: orchestrator.0, in_flight: 10_000 };
        let load = LoadV1 { age_ms: 0, rows: vec![row] };
        assert!(rogue.say(delta(EPOCH, version, vec![lie(orchestrator, 0)])).await);
        assert!(rogue.say(Message::Load(load)).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Calls until told to stop; returns how many calls were served, and all that was not.
async fn client(node: Arc<Node>, stop: Arc<AtomicBool>) -> (u64, Vec<u16>) {
    let (mut n_served, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match node.call("x").await.status.as_u16() {
            200 => n_served += 1,
            other => failed.push(other),
        }
    }
    (n_served, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what it shows")]
async fn hostile_peers_cost_no_client_anything_and_are_shown() {
    let ca = Ca::start().await;
    let orchs = [Orch::start(params()).await];
    let a = member(&ca.join("a").await, "a", "share_load = true\n", &orchs).await;
    let (at, orchestrator) = (a.app.mesh.unwrap(), OrchestratorId::of(&orchs[0].uri));
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(client(Arc::clone(&a), Arc::clone(&stop)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, began) = (resident(), clock::now());
    assault(&ca, at, orchestrator).await;
    let grown = resident().saturating_sub(before);
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for (n_served, failed) in clients.join_all().await {
        assert!(n_served > 0 && failed.is_empty(), "{n_served} served, {failed:?}");
    }
    println!("{took:?}, memory grew by {} KiB", grown / 1024);
    assert!(grown < MEMORY, "memory grew by {} KiB", grown / 1024);

    let peers = a.admin_json("/v1/peers").await;
    for name in NAMES.iter().filter(|it| **it != "liar") {
        let row = peers["peers"].as_array().unwrap().iter().find(|it| it["node"] == **name);
        let row = row.unwrap_or_else(|| panic!("{name} is not shown: {peers}"));
        assert_eq!((&row["standing"], &row["quarantines"]), (&"quarantined".into(), &1.into()));
        assert!(row["fault"].is_string(), "{row}");
    }
}

const NAMES: [&str; 7] = ["flood", "replay", "huge", "jumper", "backward", "greedy", "liar"];
const EPOCH: u64 = 1_800_000_000_000;
/// Seven links with the most each may have under way, and what a debug build wastes.
const MEMORY: u64 = 96 * 1024 * 1024;
