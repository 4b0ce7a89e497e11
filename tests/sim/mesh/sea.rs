//! A model network between real meshes in virtual time: delay, jitter, loss, cuts each way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portolan::health;
use portolan::id::{NodeId, OrchestratorId};
use portolan::mesh::{
    About, Greeting, LinkEnd, LinkId, Membership, Mesh, Operator, Output, Params, Standing, limits,
};
use portolan::wire::{self, Frame, Message};

use super::player::Player;
use super::stream::{Course, Stream};

/// What a sea is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waters {
    pub(crate) n_nodes: usize,
    pub(crate) n_orchestrators: usize,
    pub(crate) loss_permille: u64,
    pub(crate) seed: u64,
}

/// Something that happens to a node.
#[derive(Debug)]
enum Event {
    Frame { from: usize, to: usize, link: u64, left_at: u64, frame: Frame },
    Datagram { from: usize, to: usize, link: u64, bytes: bytes::Bytes },
    Dial(usize),
    Linked(usize, usize),
    Closed { at: usize, by: usize, link: u64 },
    Wake(usize),
    Tick(usize),
}

/// One end of a link.
#[derive(Clone, Copy, Debug)]
struct End {
    link: u64,
    stream: Stream,
    /// A frame was lost for good; those behind it wait for ever.
    stuck: bool,
}

/// A node and the ends of its links.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) player: Player,
    ends: BTreeMap<usize, End>,
    wake_at: Option<u64>,
    frozen_at: Option<u64>,
    /// When each peer was found down: by whom, when, how.
    pub(crate) lost: Vec<(usize, u64, LinkEnd)>,
}

/// The nodes and all that is under way between them. Time is in microseconds.
#[derive(Debug)]
pub(crate) struct Sea {
    pub(crate) waters: Waters,
    pub(crate) now: u64,
    start: Instant,
    pub(crate) nodes: Vec<Node>,
    delays: Vec<Vec<u64>>,
    pub(crate) cut: BTreeSet<(usize, usize)>,
    queue: BTreeMap<(u64, u64), Event>,
    n_events: u64,
    n_links: u64,
    random: u64,
}

/// What a node of a mesh in virtual time is given.
pub(crate) fn params(bytes_per_second: u32) -> Params {
    Params {
        peers: vec![name(0)],
        push_interval: ms(250),
        frames_per_push: 1,
        bytes_per_second,
        digest_interval: ms(7_000),
        ping_interval: ms(1_000),
        silence: ms(2_500),
        quarantine: ms(60_000),
        news_interval: ms(100),
        levels_from: 300,
        share_load: true,
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
            ttl: ms(90_000),
            refresh: ms(30_000),
            max_records: 20_000,
            max_origins: 320,
            max_version_jump: 1 << 32,
            max_epoch_jump: 1 << 42,
        },
    }
}

impl Sea {
    /// Nodes that know only the first of them, up to 150 ms apart.
    pub(crate) fn new(waters: Waters) -> Self {
        let n = waters.n_nodes;
        let mut sea = Self {
            waters,
            now: 0,
            start: portolan::clock::now(),
            nodes: Vec::new(),
            delays: vec![vec![0; n]; n],
            cut: BTreeSet::new(),
            queue: BTreeMap::new(),
            n_events: 0,
            n_links: 0,
            random: waters.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        for a in 0..n {
            for b in 0..a {
                let delay = 2_000 + sea.draw(148_000);
                (sea.delays[a][b], sea.delays[b][a]) = (delay, delay);
            }
        }
        for at in 0..n {
            let greeting = greeting(at);
            let address: SocketAddr = ([10, 0, (at / 250) as u8, (at % 250) as u8], 1).into();
            let seed = sea.draw(u64::MAX);
            let mesh = Mesh::new(sea.start, params(97_000), greeting, Some(address), seed);
            let player = Player::new(sea.start, waters.n_orchestrators, seed);
            sea.nodes.push(Node {
                name: name(at),
                mesh,
                player,
                ends: BTreeMap::new(),
                wake_at: None,
                frozen_at: None,
                lost: Vec::new(),
            });
            let (dial, tick) = (sea.draw(1_000_000), sea.draw(100_000));
            sea.after(dial, Event::Dial(at));
            sea.after(tick, Event::Tick(at));
        }
        sea
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration.as_micros() as u64;
        while let Some(next) = self.queue.first_entry()
            && next.key().0 <= end
        {
            let ((at, _), event) = next.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    pub(crate) fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// Whether every node has a link to every other and holds it for alive.
    pub(crate) fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let peers = node.mesh.peers();
            let well = peers.rows.iter().filter(|it| {
                it.standing == Standing::Up && it.membership == Some(Membership::Alive)
            });
            well.count() == self.nodes.len() - 1
        })
    }

    /// Runs until the mesh is whole; returns how long that took.
    pub(crate) fn until_whole(&mut self, at_most: Duration) -> Option<Duration> {
        let from = self.now;
        while self.now - from <= at_most.as_micros() as u64 {
            if self.is_whole() {
                return Some(Duration::from_micros(self.now - from));
            }
            self.run(ms(100));
        }
        None
    }

    /// Stops a node as it stands; what it did not get through by now stays with it.
    pub(crate) fn freeze(&mut self, at: usize) {
        self.nodes[at].frozen_at = Some(self.now);
    }

    /// Lets a frozen node go on.
    pub(crate) fn thaw(&mut self, at: usize) {
        self.nodes[at].frozen_at = None;
    }

    /// Cuts every way between the first nodes and the others, or none.
    pub(crate) fn part(&mut self, n_first: usize) {
        self.cut.clear();
        for a in 0..n_first {
            for b in n_first..self.nodes.len() {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::Frame { from, to, link, left_at, frame } if self.holds(to, from, link) => {
                if self.nodes[from].frozen_at.is_some_and(|it| it < left_at) {
                    return;
                }
                let from = self.nodes[from].name;
                self.nodes[to].mesh.handle_frame(now, from, LinkId(link), frame);
                self.settle(to);
            }
            Event::Datagram { from, to, link, bytes } if self.holds(to, from, link) => {
                let from = self.nodes[from].name;
                self.nodes[to].mesh.handle_datagram(now, from, LinkId(link), &bytes);
                self.settle(to);
            }
            Event::Closed { at, by, link } if self.holds(at, by, link) => {
                self.nodes[at].ends.remove(&by);
                let by = self.nodes[by].name;
                self.nodes[at].mesh.handle_link_down(now, by, LinkId(link), LinkEnd::Closed);
                self.settle(at);
            }
            Event::Frame { .. } | Event::Datagram { .. } | Event::Closed { .. } => {}
            Event::Dial(at) => self.dial(at),
            Event::Linked(a, b) => self.link(a, b),
            // One that was brought forward since is over.
            Event::Wake(at) if self.nodes[at].wake_at != Some(self.now) => {}
            Event::Wake(at) => {
                self.nodes[at].wake_at = None;
                if self.nodes[at].frozen_at.is_none() {
                    self.nodes[at].mesh.handle_timeout(now);
                    self.settle(at);
                }
            }
            Event::Tick(at) => self.tick(at),
        }
    }

    fn holds(&self, at: usize, peer: usize, link: u64) -> bool {
        let node = &self.nodes[at];
        node.frozen_at.is_none() && node.ends.get(&peer).is_some_and(|it| it.link == link)
    }

    fn tick(&mut self, at: usize) {
        let now = self.instant();
        self.after(100_000, Event::Tick(at));
        if self.nodes[at].frozen_at.is_some() {
            return;
        }
        for observation in self.nodes[at].player.tick(now) {
            self.nodes[at].mesh.handle_observation(now, observation);
        }
        self.settle(at);
    }

    /// Dials everybody this node knows and has no link to.
    fn dial(&mut self, at: usize) {
        let jitter = self.draw(500_000);
        self.after(750_000 + jitter, Event::Dial(at));
        if self.nodes[at].frozen_at.is_some() {
            return;
        }
        for row in self.nodes[at].mesh.peers().rows {
            let other = index(row.node);
            let through = !self.cut.contains(&(at, other)) && !self.cut.contains(&(other, at));
            let frozen = self.nodes[other].frozen_at.is_some();
            if self.nodes[at].ends.contains_key(&other) || !through || frozen {
                continue;
            }
            let mut took = self.delays[at][other] * 3;
            while self.draw(1000) < self.waters.loss_permille * 3 {
                took += 1_000_000;
            }
            self.after(took, Event::Linked(at, other));
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        let ends = (self.nodes[a].ends.get(&b), self.nodes[b].ends.get(&a));
        let same = ends.0.zip(ends.1).is_some_and(|(one, other)| one.link == other.link);
        let cut = self.cut.contains(&(a, b)) || self.cut.contains(&(b, a));
        let frozen = |it: usize| self.nodes[it].frozen_at.is_some();
        if same || cut || frozen(a) || frozen(b) {
            return;
        }
        self.n_links += 1;
        let (now, link) = (self.instant(), self.n_links);
        for (at, other) in [(a, b), (b, a)] {
            self.nodes[at]
                .ends
                .insert(other, End { link, stream: Stream::default(), stuck: false });
            self.nodes[at].mesh.handle_link_up(now, LinkId(link), &greeting(other));
        }
        self.settle(a);
        self.settle(b);
    }

    /// Carries out all that a node's mesh asks for.
    fn settle(&mut self, at: usize) {
        let now = self.instant();
        while let Some(output) = self.nodes[at].mesh.poll_output() {
            match output {
                Output::Send { peer, message } => self.send(at, index(peer), message),
                Output::Datagram { peer, bytes } => self.send_datagram(at, index(peer), bytes),
                Output::Changed(orchestrators) => self.pass_news(at, &orchestrators),
                Output::Close(peer) | Output::Quarantine { peer, .. } => {
                    self.close(at, index(peer));
                }
                Output::PeerDown { peer, end } => {
                    let now = self.now;
                    self.nodes[at].lost.push((index(peer), now, end));
                }
                Output::PeerUp(_)
                | Output::Learned { .. }
                | Output::Forgotten(_)
                | Output::Claimed(_)
                | Output::Ways { .. }
                | Output::Ordered(_) => {}
            }
        }
        let Some(next) = self.nodes[at].mesh.next_timeout() else { return };
        let wait = next.saturating_duration_since(now).as_micros() as u64;
        let due = self.now + wait.max(1);
        if self.nodes[at].wake_at.is_none_or(|it| due < it) {
            self.nodes[at].wake_at = Some(due);
            self.after(due - self.now, Event::Wake(at));
        }
    }

    fn pass_news(&mut self, at: usize, orchestrators: &[OrchestratorId]) {
        let now = self.instant();
        for &orchestrator in orchestrators {
            let seen = self.nodes[at].mesh.observations(now, orchestrator);
            self.nodes[at].player.hear(now, orchestrator, &seen);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let Some(mut end) = self.nodes[from].ends.get(&to).copied() else { return };
        let size = wire::encode(&message).unwrap().len();
        let course = self.course(from, to);
        let at = end.stream.send(self.now, size, course, |below| self.draw(below));
        end.stuck |= self.cut.contains(&(from, to));
        self.nodes[from].ends.insert(to, end);
        if !end.stuck {
            let (link, left_at) = (end.link, at.saturating_sub(course.delay + course.jitter));
            let frame = Frame { message, size };
            self.after(at - self.now, Event::Frame { from, to, link, left_at, frame });
        }
    }

    fn course(&self, from: usize, to: usize) -> Course {
        let loss_permille = self.waters.loss_permille;
        Course { delay: self.delays[from][to], jitter: JITTER, loss_permille }
    }

    fn send_datagram(&mut self, from: usize, to: usize, bytes: bytes::Bytes) {
        let Some(link) = self.nodes[from].ends.get(&to).map(|it| it.link) else { return };
        let lost = self.draw(1000) < self.waters.loss_permille;
        if !lost && !self.cut.contains(&(from, to)) {
            let wait = self.delays[from][to] + self.draw(JITTER);
            self.after(wait, Event::Datagram { from, to, link, bytes });
        }
    }

    fn close(&mut self, at: usize, peer: usize) {
        let Some(end) = self.nodes[at].ends.remove(&peer) else { return };
        if !self.cut.contains(&(at, peer)) {
            let told = Event::Closed { at: peer, by: at, link: end.link };
            self.after(self.delays[at][peer], told);
        }
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.n_events += 1;
        self.queue.insert((self.now + wait, self.n_events), event);
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn name(at: usize) -> NodeId {
    format!("n{at}").parse().unwrap()
}

fn index(node: NodeId) -> usize {
    node.as_str()[1..].parse().unwrap()
}

pub(crate) fn greeting(at: usize) -> Greeting {
    Greeting { node: name(at), region: "FRA".parse().unwrap(), epoch: 1, features: 0 }
}

/// How much later than usual a packet may be.
const JITTER: u64 = 3_000;
