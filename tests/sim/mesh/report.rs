//! Bytes and arrival times of whole meshes with 10,000 orchestrators, without their machines:
//! what each node observes is drawn.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use portolan::health::{Candidate, OBSERVERS, Observation, observes};
use portolan::id::OrchestratorId;
use portolan::mesh::{LinkId, Mesh, Output};
use portolan::unit::Micros;
use portolan::wire::{self, Frame};

use super::sea::{greeting, name, params};

/// What a mesh is made of.
#[derive(Clone, Copy, Debug)]
struct Size {
    n_nodes: usize,
    n_orchestrators: u64,
    /// How long it settles and how long is counted, in virtual seconds.
    settle_s: u64,
    count_s: u64,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// Bytes a second of the node that sends most.
    bytes_most: u64,
    bytes_mean: u64,
    /// Milliseconds from observation to arrival, of rows in use and of the others.
    in_use: Vec<u64>,
    others: Vec<u64>,
    /// Times a node asked another for all its records again.
    n_pulls: u64,
}

/// Plays one mesh: everybody linked, one-way delays up to 150 ms, one check of each row in five
/// minutes and of each in use in five seconds, each of which brings something to tell.
fn play(size: Size, seed: u64) -> Found {
    let start = portolan::clock::now();
    let mut random = seed | 1;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut meshes: Vec<Mesh> = (0..size.n_nodes)
        .map(|it| Mesh::new(start, params(100_000), greeting(it), None, draw(u64::MAX)))
        .collect();
    let own: Vec<Vec<u64>> = shares(size);
    let delay: Vec<Vec<u64>> =
        (0..size.n_nodes).map(|_| (0..size.n_nodes).map(|_| 5 + draw(145)).collect()).collect();
    for (at, mesh) in meshes.iter_mut().enumerate() {
        for other in (0..size.n_nodes).filter(|&it| it != at) {
            mesh.handle_link_up(start, LinkId(1), &greeting(other));
        }
    }
    let mut afloat: BTreeMap<u64, VecDeque<(usize, usize, Output)>> = BTreeMap::new();
    let mut untold = Untold::new();
    let mut found = Found::default();
    let mut sent_before = vec![0; size.n_nodes];
    let end = (size.settle_s + size.count_s) * 1000;
    for t in (0..end).step_by(STEP_MS as usize) {
        let now = start + Duration::from_millis(t);
        if t == size.settle_s * 1000 {
            sent_before = meshes.iter().map(|it| it.peers().n_sent_bytes).collect();
            untold.clear();
        }
        for (at, mesh) in meshes.iter_mut().enumerate() {
            for (n, &orchestrator) in own[at].iter().enumerate() {
                let in_use = n % IN_USE_ONE_OF == 0;
                let every = if in_use { 5_000 } else { 300_000 };
                // At first everything is told within the time to settle.
                let first = t < size.settle_s * 500;
                let every = if first { size.settle_s * 500 } else { every };
                if draw(every / STEP_MS) != 0 {
                    continue;
                }
                mesh.handle_observation(now, observation(orchestrator, in_use, draw(1000)));
                untold.insert((at, orchestrator), (t, in_use, 0));
            }
            mesh.handle_timeout(now);
        }
        deliver(now, t, &mut meshes, &mut afloat);
        for (at, mesh) in meshes.iter_mut().enumerate() {
            while let Some(output) = mesh.poll_output() {
                let (Output::Send { peer, .. } | Output::Datagram { peer, .. }) = &output else {
                    continue;
                };
                let to: usize = peer.as_str()[1..].parse().unwrap();
                let wait = delay[at][to];
                let counted = (&mut found, size.n_nodes - 1);
                note_arrivals(t, at, &output, wait, &mut untold, counted);
                afloat.entry(t + wait).or_default().push_back((at, to, output));
            }
        }
    }
    let sent = meshes.iter().zip(sent_before).map(|(it, before)| it.peers().n_sent_bytes - before);
    let rates: Vec<u64> = sent.map(|it| it / size.count_s).collect();
    found.bytes_most = rates.iter().max().copied().unwrap_or(0);
    let rows = meshes.iter().flat_map(|it| it.peers().rows);
    found.n_pulls = rows.map(|it| it.counts.n_pulls).sum();
    found.bytes_mean = rates.iter().sum::<u64>() / size.n_nodes as u64;
    found
}

fn deliver(
    now: Instant,
    t: u64,
    meshes: &mut [Mesh],
    afloat: &mut BTreeMap<u64, VecDeque<(usize, usize, Output)>>,
) {
    while let Some(due) = afloat.first_entry().filter(|it| *it.key() <= t) {
        for (from, to, output) in due.remove() {
            match output {
                Output::Send { message, .. } => {
                    let size = wire::encode(&message).unwrap().len();
                    let frame = Frame { message, size };
                    meshes[to].handle_frame(now, name(from), LinkId(1), frame);
                }
                Output::Datagram { bytes, .. } => {
                    meshes[to].handle_datagram(now, name(from), LinkId(1), &bytes);
                }
                Output::Learned { .. }
                | Output::Forgotten(_)
                | Output::Changed(_)
                | Output::Claimed(_)
                | Output::Ways { .. }
                | Output::Ordered(_)
                | Output::PeerUp(_)
                | Output::PeerDown { .. }
                | Output::Close(_)
                | Output::Quarantine { .. } => {}
            }
        }
    }
}

/// When rows were observed that not every peer was sent yet, whether they are in use, and how
/// many peers were.
type Untold = BTreeMap<(usize, u64), (u64, bool, usize)>;

/// Notes when the rows of a message arrive that was just sent.
fn note_arrivals(
    t: u64,
    from: usize,
    output: &Output,
    wait: u64,
    untold: &mut Untold,
    (found, n_peers): (&mut Found, usize),
) {
    let Output::Send { message: wire::Message::Delta(delta), .. } = output else { return };
    for record in &delta.records {
        let key = (from, record.orchestrator);
        let Some((at, in_use, n_told)) = untold.get_mut(&key) else { continue };
        (if *in_use { &mut found.in_use } else { &mut found.others }).push(t + wait - *at);
        *n_told += 1;
        if *n_told == n_peers {
            untold.remove(&key);
        }
    }
}

fn observation(orchestrator: u64, in_use: bool, noise: u64) -> Observation {
    Observation {
        orchestrator: OrchestratorId(orchestrator),
        rtt: Some(Micros::from_ms(20 + noise)),
        failures_milli: 0,
        successes_milli: 1000,
        in_flight: if in_use { 1 + noise as u32 % 8 } else { 0 },
        arrivals_milli: if in_use { 5_000 } else { 0 },
        service: None,
        capacity_milli: Some(8_000),
    }
}

fn shares(size: Size) -> Vec<Vec<u64>> {
    let nodes: Vec<_> =
        (0..size.n_nodes).map(|it| Candidate { node: name(it), distance_m: None }).collect();
    let mut shares = vec![Vec::new(); size.n_nodes];
    for orchestrator in 0..size.n_orchestrators {
        let id = OrchestratorId(orchestrator);
        for (at, share) in shares.iter_mut().enumerate() {
            if observes(nodes[at].node, id, &nodes) {
                share.push(orchestrator);
            }
        }
    }
    assert!(
        shares.iter().map(Vec::len).sum::<usize>() == OBSERVERS * size.n_orchestrators as usize
    );
    shares
}

fn quantile(mut all: Vec<u64>, permille: usize) -> u64 {
    all.sort_unstable();
    all.get(all.len() * permille / 1000).copied().unwrap_or(0)
}

#[test]
fn a_small_mesh_keeps_to_its_budget_and_tells_in_time() {
    let size = Size { n_nodes: 9, n_orchestrators: 300, settle_s: 8, count_s: 8 };
    let found = play(size, 1);
    assert!(found.bytes_most < 100_000, "{found:?}");
    assert!(!found.in_use.is_empty());
    assert!(quantile(found.in_use.clone(), 990) <= 500, "{:?}", found.in_use);
    assert!(found.n_pulls == 0, "nothing was lost, so nothing is asked for again");
}

#[test]
#[ignore = "minutes long: run by scripts/mesh-report"]
fn report() {
    let quick = std::env::var("MESH_REPORT").is_ok_and(|it| it == "quick");
    for (n_nodes, bytes_max) in [(30, 100_000), (300, 200_000)] {
        if quick && n_nodes > 30 {
            continue;
        }
        let size = Size { n_nodes, n_orchestrators: 10_000, settle_s: 60, count_s: 60 };
        let found = play(size, 1);
        eprintln!(
            "{n_nodes} nodes x 10,000 orchestrators: {} B/s a node, {} at most; rows in use {} ms \
             median, {} p99; others {} ms median, {} p99",
            found.bytes_mean,
            found.bytes_most,
            quantile(found.in_use.clone(), 500),
            quantile(found.in_use.clone(), 990),
            quantile(found.others.clone(), 500),
            quantile(found.others.clone(), 990),
        );
        assert!(found.bytes_most <= bytes_max, "over the budget of {bytes_max} B/s");
        assert!(quantile(found.in_use, 990) <= 500, "rows in use are late");
        assert!(quantile(found.others, 990) <= 10_000, "other rows are late");
    }
}

/// One turn of all nodes.
const STEP_MS: u64 = 20;
/// One of so many rows is in use.
const IN_USE_ONE_OF: usize = 20;
