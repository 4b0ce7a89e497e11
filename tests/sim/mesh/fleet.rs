//! Whole meshes with 10,000 orchestrators, without their machines: what each node observes is
//! drawn, what it sends and when that arrives is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use portolan::health::{OBSERVERS, Observation};
use portolan::id::OrchestratorId;
use portolan::mesh::{Greeting, LinkId, Mesh, Output};
use portolan::unit::Micros;
use portolan::view::board::Use;
use portolan::wire::v1::DeltaV1;
use portolan::wire::{self, Frame, Message};

use super::sea::{greeting, name, params};
use super::stream::{ACK_HELD_BACK, Course, PACKET, Stream};

/// What a mesh is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) n_nodes: usize,
    /// Of as many nodes each.
    pub(crate) n_regions: usize,
    pub(crate) n_orchestrators: u64,
    /// How long it settles and how long is counted, in virtual seconds.
    pub(crate) settle_s: u64,
    pub(crate) count_s: u64,
    pub(crate) loss_permille: u64,
    /// How often there is news of a row in use.
    pub(crate) in_use_every_ms: u64,
    /// And of any other.
    pub(crate) others_every_ms: u64,
    /// One node of so many keeps what it is told; the others only count and answer it.
    pub(crate) keeps_one_of: usize,
}

impl Size {
    /// Whether two nodes are of one region: their numbers tell.
    fn are_near(self, a: usize, b: usize) -> bool {
        a % self.n_regions == b % self.n_regions
    }

    /// How many others there are in a region.
    fn n_near(self) -> usize {
        self.n_nodes / self.n_regions - 1
    }

    fn greeting(self, at: usize) -> Greeting {
        let region = format!("R{}", at % self.n_regions);
        Greeting { region: region.parse().unwrap(), ..greeting(at) }
    }
}

/// Bytes on the wire, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) health: u64,
    /// Digests and pulls.
    pub(crate) repair: u64,
    pub(crate) load: u64,
    pub(crate) pings: u64,
    /// Datagrams of the membership.
    pub(crate) members: u64,
    /// Heads of packets, those of mere acknowledgements included: an estimate.
    pub(crate) heads: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Bytes a second of the node that sends most, and of all nodes on average by kind.
    pub(crate) bytes_most: u64,
    pub(crate) bytes: Bytes,
    /// What the node that spends most charges itself.
    pub(crate) charged_most: u64,
    /// Milliseconds from observation to arrival, of rows in use and of the others.
    pub(crate) in_use: Vec<u64>,
    pub(crate) others: Vec<u64>,
    /// Times a node asked another for all its records again.
    pub(crate) n_pulls: u64,
}

/// One node and its ends of the links.
struct Node {
    at: usize,
    mesh: Mesh,
    /// Its orchestrators, and what falls due when: the tick, and which of them.
    own: Vec<Own>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    random: u64,
    peers: Vec<Peer>,
    /// By the tick in which it arrives: from whom, and what.
    inbox: BTreeMap<u64, Vec<(usize, Parcel)>>,
    outbox: Vec<(usize, u64, Parcel)>,
    keeps: bool,
    sent: Bytes,
    found: Found,
}

/// The link to one peer.
#[derive(Clone, Copy, Default)]
struct Peer {
    delay: u64,
    stream: Stream,
    /// What goes out in this tick.
    n_bytes: usize,
    /// When what must be acknowledged arrived.
    owes_at: Option<u64>,
}

/// One orchestrator that a node tells of.
struct Own {
    id: u64,
    in_use: bool,
    n_observed: u32,
    /// When what not every peer in the region was sent yet was observed, and how many were.
    untold: Option<(u64, usize)>,
    /// The same of the other regions, which need not be told of all.
    untold_afar: Option<(u64, usize)>,
}

enum Parcel {
    Frame(Frame),
    Datagram(bytes::Bytes),
}

/// Plays one mesh: everybody linked, one-way delays of 5 to 150 ms; checks of each row and of
/// each in use as often as a node makes them, each of which brings something to tell.
pub(crate) fn play(size: Size, seed: u64) -> Found {
    let start = portolan::clock::now();
    let mut nodes = nodes(size, seed, start);
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = size.n_nodes.div_ceil(n_cores);
    let settled = size.settle_s * 1000 / STEP_MS;
    let mut charged_before = vec![0; size.n_nodes];
    for tick in 0..settled + size.count_s * 1000 / STEP_MS {
        if tick == settled {
            charged_before = nodes.iter().map(|it| it.mesh.peers().n_sent_bytes).collect();
            nodes.iter_mut().for_each(Node::forget_counts);
        }
        let turn = Turn { tick, now: start + Duration::from_millis(tick * STEP_MS), size };
        std::thread::scope(|scope| {
            for some in nodes.chunks_mut(share) {
                scope.spawn(move || some.iter_mut().for_each(|it| it.play(turn)));
            }
        });
        for from in 0..nodes.len() {
            for (to, due, parcel) in std::mem::take(&mut nodes[from].outbox) {
                nodes[to].inbox.entry(due).or_default().push((from, parcel));
            }
        }
    }
    sum_up(&nodes, &charged_before, size)
}

#[derive(Clone, Copy)]
struct Turn {
    tick: u64,
    now: Instant,
    size: Size,
}

fn nodes(size: Size, seed: u64, start: Instant) -> Vec<Node> {
    let mut random = seed | 1;
    let mut draw = |below| draw(&mut random, below);
    let own = shares(size, &mut draw);
    let pairs = size.n_nodes * size.n_nodes;
    let delays: Vec<u64> = (0..pairs).map(|_| 5_000 + draw(145_000)).collect();
    let delay = |a: usize, b: usize| delays[a.min(b) * size.n_nodes + a.max(b)];
    let mut node = |(at, own): (usize, Vec<u64>)| {
        let peer = |to: usize| Peer { delay: delay(at, to), ..Peer::default() };
        // All of it is told for the first time within half of the time to settle.
        let first = |n| Reverse((draw(size.settle_s * 500 / STEP_MS), n));
        let due = (0..own.len()).map(first).collect();
        let own = own.into_iter().enumerate();
        let own = own.map(|(n, id)| Own {
            id,
            in_use: n % IN_USE_ONE_OF == 0,
            n_observed: 0,
            untold: None,
            untold_afar: None,
        });
        Node {
            at,
            mesh: Mesh::new(start, params(97_000), size.greeting(at), None, draw(u64::MAX)),
            own: own.collect(),
            due,
            random: draw(u64::MAX) | 1,
            peers: (0..size.n_nodes).map(peer).collect(),
            inbox: BTreeMap::new(),
            outbox: Vec::new(),
            keeps: at % size.keeps_one_of == 0,
            sent: Bytes::default(),
            found: Found::default(),
        }
    };
    own.into_iter().enumerate().map(&mut node).collect()
}

impl Node {
    fn play(&mut self, turn: Turn) {
        let Turn { tick, now, size } = turn;
        self.link(turn);
        while let Some(&Reverse((due, which))) = self.due.peek()
            && due <= tick
        {
            self.due.pop();
            self.observe(turn, which);
        }
        while let Some(due) = self.inbox.first_entry().filter(|it| *it.key() <= tick) {
            for (from, parcel) in due.remove() {
                self.peers[from].owes_at.get_or_insert(tick);
                self.take(turn, from, parcel);
            }
        }
        self.mesh.handle_timeout(now);
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { peer, message } => self.send(turn, number(peer.as_str()), message),
                Output::Datagram { peer, bytes } => {
                    let to = number(peer.as_str());
                    self.sent.members += bytes.len() as u64;
                    self.peers[to].n_bytes += bytes.len();
                    let lost = draw(&mut self.random, 1000) < size.loss_permille;
                    let due = tick + (self.peers[to].delay / (STEP_MS * 1000)).max(1);
                    if !lost {
                        self.outbox.push((to, due, Parcel::Datagram(bytes)));
                    }
                }
                Output::PeerUp(_)
                | Output::PeerDown { .. }
                | Output::Learned { .. }
                | Output::Forgotten(_)
                | Output::Changed(_)
                | Output::Claimed(_)
                | Output::Ways { .. }
                | Output::Ordered(_) => {}
                Output::Close(_) | Output::Quarantine { .. } => panic!("{}: {output:?}", self.at),
            }
        }
        self.count_packets(tick);
    }

    /// Takes the links of this tick: all come up within the first second.
    fn link(&mut self, Turn { tick, now, size }: Turn) {
        if tick < 1000 / STEP_MS {
            let due =
                |a: usize, b: usize| (a.min(b) * 31 + a.max(b) * 17) as u64 % (1000 / STEP_MS);
            let at = self.at;
            for other in (0..size.n_nodes).filter(|&it| it != at && due(at, it) == tick) {
                self.mesh.handle_link_up(now, LinkId(1), &size.greeting(other));
            }
        }
    }

    fn observe(&mut self, Turn { tick, now, size }: Turn, which: usize) {
        let noise = draw(&mut self.random, 1000);
        let own = &mut self.own[which];
        let every = if own.in_use { size.in_use_every_ms } else { size.others_every_ms } / STEP_MS;
        // After the first time, when all are told of at once, they spread.
        let least = if own.n_observed == 0 { 0 } else { every / 2 };
        let wait = (least + noise * every / 1000).max(1);
        self.due.push(Reverse((tick + wait, which)));
        own.n_observed += 1;
        // What had not reached everybody by now never will.
        if let Some((since, n_told)) = own.untold.replace((tick, 0)) {
            let late = (tick - since) * STEP_MS;
            let times = if own.in_use { &mut self.found.in_use } else { &mut self.found.others };
            times.extend(std::iter::repeat_n(late, size.n_near() - n_told));
        }
        own.untold_afar = Some((tick, 0));
        let seen = observation(own, noise);
        self.mesh.handle_observation(now, seen);
        if own.in_use {
            let scarce = own.id.is_multiple_of(SCARCE_ONE_OF);
            let used = Use {
                orchestrator: seen.orchestrator,
                in_flight: seen.in_flight,
                waiting: 0,
                places: 0,
                refused: 0,
                scarce,
            };
            self.mesh.handle_use(now, &[used]);
        }
    }

    fn take(&mut self, Turn { now, size, .. }: Turn, from: usize, parcel: Parcel) {
        match parcel {
            Parcel::Frame(mut frame) => {
                if !self.keeps && !size.are_near(self.at, from) {
                    if matches!(frame.message, Message::Digest(_)) {
                        return;
                    }
                    if let Message::Delta(delta) = &mut frame.message {
                        delta.records.clear();
                    }
                }
                self.mesh.handle_frame(now, name(from), LinkId(1), frame);
            }
            Parcel::Datagram(bytes) => {
                self.mesh.handle_datagram(now, name(from), LinkId(1), &bytes);
            }
        }
    }

    fn send(&mut self, Turn { tick, size, .. }: Turn, to: usize, message: Message) {
        let n_bytes = wire::encode(&message).unwrap().len();
        let kind = if matches!(message, Message::Delta(_)) {
            &mut self.sent.health
        } else if matches!(message, Message::Digest(_) | Message::Pull(_)) {
            &mut self.sent.repair
        } else if matches!(message, Message::Load(_)) {
            &mut self.sent.load
        } else {
            &mut self.sent.pings
        };
        *kind += n_bytes as u64;
        let peer = &mut self.peers[to];
        peer.n_bytes += n_bytes;
        let course =
            Course { delay: peer.delay, jitter: JITTER, loss_permille: size.loss_permille };
        let random = &mut self.random;
        let sent_at = tick * STEP_MS * 1000;
        let at = peer.stream.send(sent_at, n_bytes, course, |below| draw(random, below));
        if let Message::Delta(delta) = &message {
            self.note_arrivals(tick, (at - sent_at) / 1000, delta, to, size);
        }
        let due = at.div_ceil(STEP_MS * 1000);
        self.outbox.push((to, due, Parcel::Frame(Frame { message, size: n_bytes })));
    }

    /// Notes when the rows arrive that were just sent.
    fn note_arrivals(&mut self, tick: u64, way: u64, delta: &DeltaV1, to: usize, size: Size) {
        let is_near = size.are_near(self.at, to);
        let n_peers = if is_near { size.n_near() } else { size.n_nodes - 1 - size.n_near() };
        for record in &delta.records {
            let Ok(which) = self.own.binary_search_by_key(&record.orchestrator, |it| it.id) else {
                continue;
            };
            let own = &mut self.own[which];
            let untold = if is_near { &mut own.untold } else { &mut own.untold_afar };
            let Some((since, n_told)) = untold else { continue };
            let times = if own.in_use { &mut self.found.in_use } else { &mut self.found.others };
            times.push((tick - *since) * STEP_MS + way);
            *n_told += 1;
            if *n_told == n_peers {
                *untold = None;
            }
        }
    }

    /// What goes to one peer in one tick shares its packets; an acknowledgement goes along, or
    /// by itself when nothing else has gone within the time it may be held back.
    fn count_packets(&mut self, tick: u64) {
        for peer in &mut self.peers {
            let n_bytes = std::mem::take(&mut peer.n_bytes);
            if n_bytes > 0 {
                self.sent.heads += (n_bytes.div_ceil(PACKET) * HEAD) as u64;
                peer.owes_at = None;
            } else if let Some(since) = peer.owes_at
                && (tick - since) * STEP_MS * 1000 >= ACK_HELD_BACK
            {
                self.sent.heads += HEAD as u64;
                peer.owes_at = None;
            }
        }
    }

    fn forget_counts(&mut self) {
        self.sent = Bytes::default();
        self.found = Found::default();
        self.own.iter_mut().for_each(|it| (it.untold, it.untold_afar) = (None, None));
    }
}

impl Bytes {
    pub(crate) fn sum(self) -> u64 {
        let Self { health, repair, load, pings, members, heads } = self;
        health + repair + load + pings + members + heads
    }
}

fn sum_up(nodes: &[Node], charged_before: &[u64], size: Size) -> Found {
    let mut found = Found::default();
    let mean = |pick: fn(&Bytes) -> u64| {
        nodes.iter().map(|it| pick(&it.sent)).sum::<u64>() / (size.n_nodes as u64 * size.count_s)
    };
    found.bytes = Bytes {
        health: mean(|it| it.health),
        repair: mean(|it| it.repair),
        load: mean(|it| it.load),
        pings: mean(|it| it.pings),
        members: mean(|it| it.members),
        heads: mean(|it| it.heads),
    };
    for (node, before) in nodes.iter().zip(charged_before) {
        let peers = node.mesh.peers();
        found.bytes_most = found.bytes_most.max(node.sent.sum() / size.count_s);
        let charged = (peers.n_sent_bytes - before) / size.count_s;
        found.charged_most = found.charged_most.max(charged);
        found.n_pulls += peers.rows.iter().map(|it| it.counts.n_pulls).sum::<u64>();
        found.in_use.extend(&node.found.in_use);
        found.others.extend(&node.found.others);
    }
    found
}

/// What is seen of it now: always worth telling.
fn observation(own: &Own, noise: u64) -> Observation {
    let turn = u64::from(own.n_observed % 2);
    Observation {
        orchestrator: OrchestratorId(own.id),
        rtt: Some(Micros::from_ms(20 + noise / 10 + turn * 200)),
        failures_milli: 0,
        successes_milli: 1000,
        in_flight: if own.in_use { 1 + noise as u32 % 8 } else { 0 },
        arrivals_milli: if own.in_use { 5_000 } else { 0 },
        service: None,
        capacity_milli: Some(12_000),
    }
}

/// Which orchestrators each node tells of, in order: each is told of by [`OBSERVERS`] of them,
/// half in one region, as the nearest are, and the others anywhere.
fn shares(size: Size, mut draw: impl FnMut(u64) -> u64) -> Vec<Vec<u64>> {
    let mut shares: Vec<Vec<u64>> = vec![Vec::new(); size.n_nodes];
    for orchestrator in 0..size.n_orchestrators {
        // Ids are hashes: small numbers would take fewer bytes.
        let orchestrator = (orchestrator + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = draw(size.n_regions as u64) as usize;
        let mut n_left = OBSERVERS.min(size.n_nodes);
        while n_left > 0 {
            let mut at = draw(size.n_nodes as u64) as usize;
            if n_left > OBSERVERS / 2 {
                at = at / size.n_regions * size.n_regions + home;
            }
            let share = &mut shares[at];
            if share.last() != Some(&orchestrator) {
                share.push(orchestrator);
                n_left -= 1;
            }
        }
    }
    shares.iter_mut().for_each(|it| it.sort_unstable());
    shares
}

fn draw(random: &mut u64, below: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random % below
}

fn number(name: &str) -> usize {
    name[1..].parse().unwrap()
}

/// One turn of all nodes.
const STEP_MS: u64 = 25;
/// One of so many rows is in use, and one of so many of those has few places left.
const IN_USE_ONE_OF: usize = 20;
const SCARCE_ONE_OF: u64 = 10;
/// How much later than usual a packet may be, in microseconds.
const JITTER: u64 = 3_000;
/// What a packet costs beside what is in it: heads of IP, UDP, QUIC and a frame, and its seal;
/// also what an acknowledgement takes by itself.
const HEAD: usize = 62;
