//! Nodes that want the places of one orchestrator: the real boards, counters and mesh machines
//! in virtual time; clients, links and the orchestrator are modelled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan::id::{NodeId, OrchestratorId};
use portolan::mesh::{Greeting, LinkId, Mesh, Output, Params};
use portolan::unit::Micros;
use portolan::view::CapabilityId;
use portolan::view::board::{Board, Manners, turn_of};
use portolan::view::outcome::{Gauge, Outcome};
use portolan::wire::{Frame, Message};

use crate::for_seeds;
use crate::mesh::sea::params;

/// Who wants how much.
#[derive(Clone)]
struct Story {
    /// The region of each node, and its clients.
    nodes: Vec<(&'static str, usize)>,
    places: u32,
    shares: bool,
    foreign_permille: u32,
    seed: u64,
    lasts: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
struct Told {
    served: Vec<u64>,
    refused: u64,
    /// The most places other regions had at once, after the first seconds.
    foreign_most: usize,
    /// Looks at which they had more than half.
    foreign_over: usize,
    /// Looks at which the shares of all nodes were more than there is, and all looks.
    too_much: (usize, usize),
}

enum Event {
    Try(usize),
    Arrive { node: usize, against: bool },
    Free(usize),
    Leave { node: usize, against: bool },
    Turned { node: usize },
    Expire { node: usize, number: u64 },
    Look,
    Heard { from: usize, to: usize, message: Message },
    Packet { from: usize, to: usize, bytes: bytes::Bytes },
}

struct Node {
    board: Arc<Board>,
    gauge: Arc<Gauge>,
    mesh: Mesh,
    waiting: VecDeque<u64>,
    is_home: bool,
}

struct Run {
    story: Story,
    start: Instant,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    n_events: u64,
    nodes: Vec<Node>,
    delays_us: Vec<Vec<u64>>,
    in_use: Vec<usize>,
    random: u64,
    told: Told,
}

impl Run {
    fn play(story: &Story) -> Told {
        let mut run = Self::new(story.clone());
        let end = run.now_us + story.lasts.as_micros() as u64;
        while let Some(((at, _), event)) = run.queue.pop_first() {
            if at > end {
                break;
            }
            run.now_us = at;
            run.step(event);
        }
        run.told
    }

    fn new(story: Story) -> Self {
        let start = portolan::clock::now();
        let n = story.nodes.len();
        let mut run = Self {
            start,
            now_us: 0,
            queue: BTreeMap::new(),
            n_events: 0,
            nodes: Vec::new(),
            delays_us: vec![vec![0; n]; n],
            in_use: vec![0; n],
            random: story.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            told: Told { served: vec![0; n], ..Told::default() },
            story,
        };
        for a in 0..n {
            for b in 0..a {
                let delay = 1_000 + run.draw(80_000);
                (run.delays_us[a][b], run.delays_us[b][a]) = (delay, delay);
            }
        }
        for at in 0..n {
            let node = run.node(at);
            run.nodes.push(node);
            for _ in 0..run.story.nodes[at].1 {
                let after = run.draw(20_000);
                run.later(after, Event::Try(at));
            }
        }
        run.later(0, Event::Look);
        run
    }

    fn node(&self, at: usize) -> Node {
        let (board, region) = (Arc::new(Board::default()), self.story.nodes[at].0);
        board.introduce(name(at), region.parse().unwrap());
        let foreign_permille = self.story.foreign_permille;
        board.set_manners(Manners { foreign_permille, ramp: Duration::ZERO });
        let gauge = board.gauge(ID);
        gauge.set_places(self.story.places);
        board.place(ID, "FRA".parse().unwrap());
        let greeting = |at: usize| Greeting {
            node: name(at),
            region: self.story.nodes[at].0.parse().unwrap(),
            epoch: 1,
            features: 0,
        };
        let params = Params { peers: Vec::new(), share_load: self.story.shares, ..params(100_000) };
        let mut mesh = Mesh::new(self.start, params, greeting(at), None, at as u64 + 1);
        for other in (0..self.story.nodes.len()).filter(|it| *it != at) {
            mesh.handle_link_up(self.start, LinkId(other as u64), &greeting(other));
        }
        Node { board, gauge, mesh, waiting: VecDeque::new(), is_home: region == "FRA" }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn later(&mut self, us: u64, event: Event) {
        self.n_events += 1;
        self.queue.insert((self.now_us + us, self.n_events), event);
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Try(at) => self.try_one(at),
            Event::Arrive { node, against } => self.arrive(node, against),
            Event::Free(node) => self.in_use[node] -= 1,
            Event::Leave { node, against } => {
                let gauge = &self.nodes[node].gauge;
                if against {
                    gauge.note_room(now, APP);
                }
                gauge.end(Outcome::Served { service: Micros::from_ms(200), offer: 0 });
                self.told.served[node] += 1;
                self.serve_waiting(node);
                self.later(0, Event::Try(node));
            }
            Event::Turned { node } => {
                let gauge = &self.nodes[node].gauge;
                gauge.note_full(now, APP, self.story.places);
                gauge.end(Outcome::Full);
                let is_shared = gauge.share(now).is_some();
                if is_shared { self.wait(node) } else { self.later(PAUSE_US, Event::Try(node)) }
            }
            Event::Expire { node, number } => {
                let it = &mut self.nodes[node];
                let before = it.waiting.len();
                it.waiting.retain(|waits| *waits != number);
                if it.waiting.len() < before {
                    it.gauge.end_wait();
                    self.later(PAUSE_US, Event::Try(node));
                }
            }
            Event::Look => self.look(),
            Event::Heard { from, to, message } => {
                let frame = Frame { message, size: 64 };
                self.nodes[to].mesh.handle_frame(now, name(from), LinkId(from as u64), frame);
                self.pump(to);
            }
            Event::Packet { from, to, bytes } => {
                let link = LinkId(from as u64);
                self.nodes[to].mesh.handle_datagram(now, name(from), link, &bytes);
                self.pump(to);
            }
        }
    }

    /// One client's next request.
    fn try_one(&mut self, at: usize) {
        let (now, places) = (self.now(), self.story.places);
        let held = self.nodes[at].gauge.held_back(now, APP, places, false);
        if held.is_some() { self.wait(at) } else { self.go(at, false) }
    }

    fn go(&mut self, at: usize, is_kept: bool) {
        let (now, gauge) = (self.now(), &self.nodes[at].gauge);
        gauge.note_sought(self.story.places);
        let against = !is_kept && gauge.is_against_claims(now, APP, self.story.places);
        gauge.begin();
        if is_kept {
            gauge.release();
        }
        self.later(WAY_US, Event::Arrive { node: at, against });
    }

    fn arrive(&mut self, node: usize, against: bool) {
        if self.in_use.iter().sum::<usize>() < self.story.places as usize {
            self.in_use[node] += 1;
            let lasts = 150_000 + self.draw(100_000);
            self.later(lasts + WAY_US, Event::Leave { node, against });
            // The place is free before its client hears of it.
            self.later(lasts, Event::Free(node));
        } else {
            self.told.refused += 1;
            self.later(WAY_US, Event::Turned { node });
        }
    }

    fn wait(&mut self, at: usize) {
        self.n_events += 1;
        let number = self.n_events;
        self.nodes[at].waiting.push_back(number);
        self.nodes[at].gauge.wait();
        self.later(PATIENCE_US, Event::Expire { node: at, number });
        self.serve_waiting(at);
    }

    fn serve_waiting(&mut self, at: usize) {
        let now = self.now();
        while self.nodes[at].gauge.has_room(now) && self.nodes[at].waiting.pop_front().is_some() {
            self.nodes[at].gauge.reserve();
            self.nodes[at].gauge.end_wait();
            self.go(at, true);
        }
    }

    /// What the mesh does 40 times a second.
    fn look(&mut self) {
        let (now, turn) = (self.now(), turn_of(Duration::from_micros(self.now_us)));
        for at in 0..self.nodes.len() {
            let it = &mut self.nodes[at];
            if it.board.is_stirred() {
                let used = it.board.drain(now, turn);
                it.mesh.handle_use(now, &used);
            }
            if it.mesh.next_timeout().is_some_and(|at| at <= now) {
                it.mesh.handle_timeout(now);
            }
            self.pump(at);
            self.serve_waiting(at);
        }
        if self.now_us > SETTLED_US {
            let foreign = self.nodes.iter().zip(&self.in_use).filter(|(it, _)| !it.is_home);
            let n_foreign: usize = foreign.map(|(_, n)| n).sum();
            self.told.foreign_most = self.told.foreign_most.max(n_foreign);
            self.told.foreign_over += usize::from(n_foreign * 2 > self.story.places as usize);
            let shares = self.nodes.iter().filter_map(|it| it.gauge.share(now));
            self.told.too_much.0 += usize::from(shares.sum::<u32>() > self.story.places);
            self.told.too_much.1 += 1;
        }
        self.later(LOOK_US, Event::Look);
    }

    fn pump(&mut self, at: usize) {
        let turn = turn_of(Duration::from_micros(self.now_us));
        while let Some(output) = self.nodes[at].mesh.poll_output() {
            match output {
                Output::Send { peer, message } => {
                    let to = index(peer);
                    self.later(self.delays_us[at][to], Event::Heard { from: at, to, message });
                }
                Output::Datagram { peer, bytes } => {
                    let to = index(peer);
                    self.later(self.delays_us[at][to], Event::Packet { from: at, to, bytes });
                }
                Output::Claimed(claimed) => {
                    for it in claimed {
                        self.nodes[at].board.claim(it.at, turn, it.orchestrator, &it.peers);
                    }
                    self.serve_waiting(at);
                }
                Output::Close(peer) | Output::Quarantine { peer, .. } => {
                    panic!("node {at} parts with {peer}")
                }
                Output::Learned { .. }
                | Output::Forgotten(_)
                | Output::Changed(_)
                | Output::Ways { .. }
                | Output::Ordered(_)
                | Output::PeerUp(_)
                | Output::PeerDown { .. } => {}
            }
        }
    }
}

fn name(at: usize) -> NodeId {
    format!("node-{at}").parse().unwrap()
}

fn index(node: NodeId) -> usize {
    node.as_str().trim_start_matches("node-").parse().unwrap()
}

fn story(seed: u64, nodes: &[(&'static str, usize)], places: u32) -> Story {
    let (shares, foreign_permille) = (true, 1000);
    let lasts = Duration::from_secs(30);
    Story { nodes: nodes.to_vec(), places, shares, foreign_permille, seed, lasts }
}

#[test]
fn sharing_saves_nineteen_refusals_of_twenty_and_costs_no_work() {
    for_seeds(|seed| {
        let shared = story(seed, &[("FRA", 10); 3], 10);
        let alone = Run::play(&Story { shares: false, ..shared.clone() });
        let shared = Run::play(&shared);
        let sum = |it: &Told| it.served.iter().sum::<u64>();
        eprintln!("seed {seed}: alone {alone:?}, shared {shared:?}");
        assert!(shared.refused * 20 <= alone.refused, "{alone:?} {shared:?}");
        assert!(sum(&shared) * 100 >= sum(&alone) * 95, "{alone:?} {shared:?}");
        let (too_much, looks) = shared.too_much;
        assert!(too_much * 10 <= looks, "nodes agree but for moments: {shared:?}");
    });
}

#[test]
fn a_node_with_little_to_do_is_not_pushed_aside_and_none_goes_without() {
    for_seeds(|seed| {
        let uneven = Run::play(&story(seed, &[("FRA", 2), ("FRA", 40), ("FRA", 40)], 10));
        // Two clients that never wait are served five times a second each.
        assert!(uneven.served[0] >= 240, "{uneven:?}");
        let many = Run::play(&Story {
            lasts: Duration::from_secs(60),
            ..story(seed, &[("FRA", 4); 9], 4)
        });
        let (least, all) = (*many.served.iter().min().unwrap(), many.served.iter().sum::<u64>());
        assert!(least * 9 * 3 >= all, "each has at least a third of an even part: {many:?}");
    });
}

#[test]
fn work_of_other_regions_keeps_to_its_part_while_the_own_is_there() {
    for_seeds(|seed| {
        let open = story(seed, &[("FRA", 2), ("NYC", 30), ("SIN", 30)], 10);
        let kept = Run::play(&Story { foreign_permille: 500, ..open.clone() });
        let open = Run::play(&open);
        assert!(open.foreign_most >= 8, "{open:?}");
        // A place that changes hands between two guests is both's for a moment.
        assert!(kept.foreign_most <= 6 && kept.foreign_over * 50 <= kept.too_much.1, "{kept:?}");
        assert!(kept.served[0] * 100 >= open.served[0] * 95, "{open:?} {kept:?}");
        let away = story(seed, &[("FRA", 0), ("NYC", 30), ("SIN", 30)], 10);
        let away = Run::play(&Story { foreign_permille: 500, ..away });
        assert!(away.foreign_most == 10, "nobody at home, nothing to keep: {away:?}");
    });
}

const ID: OrchestratorId = OrchestratorId(77);
const APP: CapabilityId = CapabilityId(1);
/// From a node to the orchestrator.
const WAY_US: u64 = 2_000;
/// Who was turned away tries again after this.
const PAUSE_US: u64 = 30_000;
/// How long one waits for a place.
const PATIENCE_US: u64 = 500_000;
/// What the mesh's own task takes between two looks at the board.
const LOOK_US: u64 = 25_000;
/// What the start did is over.
const SETTLED_US: u64 = 5_000_000;
