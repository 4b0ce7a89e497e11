//! The mesh of this node: its peers, what they see, and what they are told.
//!
//! Configured peers are seeds. The others are learned from them, dialed and kept for as long as
//! somebody holds them for a member.
//!
//! [`Mesh`] reads no clock and moves no byte. Its shell hands it links, frames and time, then
//! drains [`Mesh::poll_output`] before the next input.

pub mod about;
pub mod backoff;
mod budget;
mod claims;
pub mod command;
pub mod election;
mod greeting;
mod levels;
pub mod limits;
mod members;
mod peer;
mod push;
mod roster;
mod timers;
mod translate;
mod ways;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::about::About;
use self::budget::Budget;
pub use self::claims::Claimed;
use self::claims::Claims;
use self::command::Standing as Orderly;
pub use self::command::{NotObeyed, Operator};
pub use self::greeting::{BadGreeting, Greeting};
use self::levels::Levels;
pub use self::limits::Fault;
use self::limits::Meters;
use self::members::Dropped;
pub use self::members::Identity;
use self::members::Members;
pub use self::members::Membership;
pub use self::peer::{Counts, N_SAMPLES, PeerRow, Peers, Standing};
use self::peer::{Peer, State, Up};
use bytes::Bytes;

use crate::health;
use crate::health::Change;
use crate::health::HealthStore;
use crate::health::MemoryStore;
use crate::health::Observation;
use crate::health::Sighting;
use crate::id::NodeId;
use crate::id::OrchestratorId;
use crate::legs::Way;
use crate::orders::InForce;
use crate::wire::Frame;
use crate::wire::MAX_RECORDS;
use crate::wire::Message;
use crate::wire::v1::DeltaV1;
use crate::wire::v1::PongV1;

/// Periods and bounds of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The peers this node begins with; itself is left out. Through any of them it learns of
    /// the others.
    pub peers: Vec<NodeId>,
    /// How often a peer is told what changed.
    pub push_interval: Duration,
    /// The most frames of [`MAX_RECORDS`] records for one peer in one push.
    pub frames_per_push: u32,
    /// What all peers together are sent a second, in bytes, heads of packets included. Records
    /// that change no decision soon wait for their part of it; twice as much from 299 links on.
    pub bytes_per_second: u32,
    /// How often a peer is told what it should hold of this node's records.
    pub digest_interval: Duration,
    /// How often a peer is pinged.
    pub ping_interval: Duration,
    /// How long a peer may say nothing before its link counts as lost.
    pub silence: Duration,
    /// How long a peer that broke a limit is not spoken to.
    pub quarantine: Duration,
    /// How often readers are told what changed, at most.
    pub news_interval: Duration,
    /// From how many nodes on other regions are told only what the nearest observers of this
    /// one see, and failures.
    pub levels_from: usize,
    /// Whether peers are told at once of what is in flight where few places are left, and
    /// what they tell is heeded.
    pub share_load: bool,
    /// What this node says of itself.
    pub about: About,
    /// Whose commands are obeyed.
    pub operator: Operator,
    /// What a peer may send.
    pub limits: limits::Params,
    /// Bounds of the records.
    pub health: health::Params,
}

/// One link, by a number never used twice in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// One side closed it by intent.
    #[error("the link was closed")]
    Closed,
    /// The connection failed or fell silent.
    #[error("the link was lost")]
    Lost,
    /// The peer sent what is no frame.
    #[error("the peer broke the protocol: {0}")]
    Broken(Fault),
}

/// What the shell does for the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message over the peer's link; report one that could not be queued with
    /// [`Mesh::handle_unsent`].
    Send {
        /// The peer.
        peer: NodeId,
        /// The message.
        message: Message,
    },
    /// Send this over the peer's link as it is, or lose it.
    Datagram {
        /// The peer.
        peer: NodeId,
        /// What to send; at most [`crate::wire::datagram::MAX_DATAGRAM`] bytes.
        bytes: Bytes,
    },
    /// Keep a link to this member, which may be found at `at` unless the configuration knows
    /// better; TLS proves who answers there.
    Learned {
        /// The member.
        peer: NodeId,
        /// Where it says it is; `None` when it can only dial us.
        at: Option<SocketAddr>,
    },
    /// Nobody holds this node for a member any more: let go of it.
    Forgotten(NodeId),
    /// Other is known of these orchestrators than before; at most [`MAX_NEWS`] at a time.
    Changed(Vec<OrchestratorId>),
    /// Peers use these orchestrators otherwise than they said before.
    Claimed(Vec<Claimed>),
    /// A peer tells of ways to clients.
    Ways {
        /// The peer.
        peer: NodeId,
        /// What it says, at most [`crate::wire::MAX_WAYS`].
        ways: Vec<Way>,
    },
    /// Other orders are in force.
    Ordered(Arc<InForce>),
    /// A link to the peer counts.
    PeerUp(NodeId),
    /// No link to the peer counts any more.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// Why.
        end: LinkEnd,
    },
    /// Close the peer's link: it counts no more.
    Close(NodeId),
    /// Close the peer's link and neither dial nor accept it for a while.
    Quarantine {
        /// The peer.
        peer: NodeId,
        /// What it did.
        fault: Fault,
        /// For how long.
        duration: Duration,
    },
}

/// Members, store and outbox of one node.
#[derive(Debug)]
pub struct Mesh {
    params: Params,
    local: Greeting,
    peers: BTreeMap<NodeId, Peer>,
    members: Members,
    budget: Budget,
    claims: Claims,
    standing: Orderly,
    /// With which peer news of ways begin.
    ways_from: usize,
    store: MemoryStore,
    levels: Levels,
    outputs: VecDeque<Output>,
    changed: BTreeSet<OrchestratorId>,
    news_at: Option<Instant>,
    nonce: u64,
    draining: bool,
    /// Peers with a link, as of the last timeout.
    n_links: usize,
}

impl Mesh {
    /// Returns the mesh of the node that greets as `local` and answers dials `at`, with every
    /// peer down. `seed` decides in which order it looks after the members.
    pub fn new(
        now: Instant,
        params: Params,
        local: Greeting,
        at: Option<SocketAddr>,
        seed: u64,
    ) -> Self {
        assert!(params.push_interval > Duration::ZERO, "a push takes its time");
        assert!(params.ping_interval * 2 <= params.silence, "two pings fit into a silence");
        assert!(params.health.refresh * 3 <= params.health.ttl, "three refreshes fit into a life");
        assert!(params.frames_per_push > 0, "a push sends something");
        let eager = u64::from(params.frames_per_push) * MAX_RECORDS as u64 * 1000
            / (params.push_interval.as_millis() as u64).max(1);
        let allowed = u64::from(params.limits.records_per_second);
        assert!(eager <= allowed, "a peer as eager as this node stays within the limits");
        let others = params.peers.iter().copied().filter(|&it| it != local.node);
        let Greeting { node, epoch, .. } = local;
        let identity = Identity { node, at, epoch, renewals: 0 };
        // Every member may have records here.
        let members_max = params.health.max_origins;
        Self {
            local,
            peers: others.map(|node| (node, Peer::new(true))).collect(),
            members: Members::new(now, identity, seed, members_max),
            budget: Budget::new(now, params.bytes_per_second),
            claims: Claims::default(),
            standing: Orderly::new(&params.operator, Arc::default()),
            ways_from: 0,
            store: MemoryStore::new(params.health.clone()),
            levels: Levels::new(&params.health, params.levels_from),
            outputs: VecDeque::new(),
            changed: BTreeSet::new(),
            news_at: None,
            nonce: 0,
            draining: false,
            n_links: 0,
            params,
        }
    }

    /// Begins with orders that were in force before, as they were kept.
    #[must_use]
    pub fn under(mut self, in_force: Arc<InForce>) -> Self {
        self.standing = Orderly::new(&self.params.operator, in_force);
        self
    }

    /// Whether a link to `node` would be taken: it is not in quarantine, and there is room for
    /// it if it is new. That it is a node of this mesh, its certificate has proven.
    pub fn admits(&self, now: Instant, node: NodeId) -> bool {
        match self.peers.get(&node).map(|it| &it.state) {
            Some(State::Quarantined { until }) => now >= *until,
            Some(State::Down | State::Up(_)) => true,
            None => node != self.local.node && self.peers.len() < self.params.health.max_origins,
        }
    }

    /// Takes a link whose greetings were exchanged. It replaces an earlier one to the same
    /// peer, and is sent everything afresh.
    pub fn handle_link_up(&mut self, now: Instant, link: LinkId, greeting: &Greeting) {
        let node = greeting.node;
        if !self.admits(now, node) {
            self.outputs.push_back(Output::Close(node));
            return;
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(false));
        let was_up = peer.up().is_some();
        peer.meters.get_or_insert_with(|| Meters::new(now, self.params.limits));
        let silence = self.params.silence;
        peer.region = Some(greeting.region);
        peer.state = State::Up(Box::new(Up::new(now, link, greeting, silence)));
        if !was_up {
            self.outputs.push_back(Output::PeerUp(node));
        }
        self.introduce(node);
        self.pass_on(node);
        if self.draining {
            self.send(node, Message::Draining);
        }
        self.announce(now, node);
    }

    /// Takes the end of a link; one that was replaced ends without effect.
    pub fn handle_link_down(&mut self, now: Instant, node: NodeId, link: LinkId, end: LinkEnd) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.up().is_none_or(|it| it.link != link) {
            return;
        }
        match end {
            LinkEnd::Broken(fault) => self.quarantine(now, node, fault),
            LinkEnd::Closed | LinkEnd::Lost => {
                peer.state = State::Down;
                self.outputs.push_back(Output::PeerDown { peer: node, end });
            }
        }
    }

    /// Takes the loss of whichever link the peer had: what owned it is gone.
    pub fn handle_peer_lost(&mut self, now: Instant, node: NodeId) {
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        let link = up.link;
        self.handle_link_down(now, node, link, LinkEnd::Lost);
    }

    /// Takes one frame of a peer; one of a link that counts no more is dropped.
    pub fn handle_frame(&mut self, now: Instant, node: NodeId, link: LinkId, frame: Frame) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let State::Up(up) = &mut peer.state else { return };
        if up.link != link {
            return;
        }
        peer.heard_at = Some(now);
        peer.counts.n_frames += 1;
        up.silent_at = now + self.params.silence;
        let n_records = frame.message.n_rows();
        let meters = peer.meters.get_or_insert_with(|| Meters::new(now, self.params.limits));
        if let Err(fault) = meters.take(now, frame.size, n_records) {
            self.quarantine(now, node, fault);
            return;
        }
        match frame.message {
            Message::Delta(delta) => self.take_delta(now, node, &delta),
            Message::Ping(ping) => {
                self.send(node, Message::Pong(PongV1 { nonce: ping.nonce }));
            }
            Message::Pong(pong) => up.note_pong(now, pong.nonce),
            Message::Draining => up.draining = true,
            Message::Goodbye(_) => {
                self.outputs.push_back(Output::Close(node));
                self.handle_link_down(now, node, link, LinkEnd::Closed);
            }
            Message::Digest(digest) => self.take_digest(now, node, &digest),
            Message::Pull(pull) => self.take_pull(now, node, &pull),
            Message::Load(load) => self.take_load(now, node, &load),
            Message::Ways(ways) => self.take_ways(now, node, &ways),
            Message::Command(command) => self.take_command(node, &command),
            Message::About(about) => self.take_about(now, node, &about),
            Message::Want(want) => self.take_want(now, node, &want),
            Message::Unknown { .. } => peer.counts.n_unknown += 1,
            Message::Hello(_) | Message::HelloAck(_) => {
                self.quarantine(now, node, Fault::OutOfPlace);
            }
        }
    }

    /// Takes an observation of this node's own, to tell the peers.
    pub fn handle_observation(&mut self, now: Instant, observation: Observation) {
        if self.note_own(now, observation) == Change::Much {
            self.urge(now);
        }
    }

    /// Takes back a message the peer's link had no room for.
    pub fn handle_unsent(&mut self, node: NodeId, message: &Message) {
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        if let Message::Delta(delta) = message {
            up.sent.rewind(delta.first_version);
        }
    }

    /// Takes back news that no reader had room for.
    pub fn handle_unread(&mut self, now: Instant, orchestrators: Vec<OrchestratorId>) {
        self.note_changed(now, orchestrators);
    }

    /// Tells every peer, also those to come, that this node takes no new work.
    pub fn handle_drain(&mut self) {
        self.draining = true;
        let up: Vec<NodeId> = self.links().collect();
        for peer in up {
            self.send(peer, Message::Draining);
        }
    }

    /// Returns the next thing to do; `None` when there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns what the others see of one orchestrator.
    pub fn observations(&self, now: Instant, orchestrator: OrchestratorId) -> Vec<Sighting> {
        self.store.observations(now, orchestrator)
    }

    /// Returns the peers as they stand.
    pub fn peers(&self) -> Peers {
        let row = |(&node, peer): (&NodeId, &Peer)| {
            let member = self.members.state_of(node);
            peer.row(node, self.store.n_records(node), member)
        };
        let rows = self.peers.iter().map(row).collect();
        Peers {
            local: Some(self.local.node),
            rows,
            n_restarts: 0,
            n_dropped: self.levels.n_dropped(),
            n_sent_bytes: self.budget.n_spent(),
        }
    }

    fn take_delta(&mut self, now: Instant, node: NodeId, delta: &DeltaV1) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let records = match translate::records_of(delta) {
            Ok(_) if peer.up().is_some_and(|it| it.epoch != delta.epoch) => {
                return self.quarantine(now, node, Fault::Epoch);
            }
            Ok(records) => records,
            Err(fault) => return self.quarantine(now, node, fault),
        };
        // The origin is the identity of the link, never a field of the message: a peer has no
        // way to write another's records.
        let applied = self.store.apply(now, node, delta.epoch, &records);
        peer.counts.n_older += u64::from(applied.n_older);
        peer.counts.n_expired += u64::from(applied.n_expired);
        peer.counts.n_refused += u64::from(applied.n_refused);
        self.note_changed(now, applied.changed);
    }

    fn quarantine(&mut self, now: Instant, node: NodeId, fault: Fault) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let duration = self.params.quarantine;
        peer.state = State::Quarantined { until: now + duration };
        peer.meters = None;
        peer.counts.n_quarantines += 1;
        peer.fault = Some(fault);
        self.outputs.push_back(Output::Quarantine { peer: node, fault, duration });
        let end = LinkEnd::Broken(fault);
        self.outputs.push_back(Output::PeerDown { peer: node, end });
    }

    fn note_changed(&mut self, now: Instant, orchestrators: Vec<OrchestratorId>) {
        if self.changed.is_empty() && !orchestrators.is_empty() {
            self.news_at = Some(now + self.params.news_interval);
        }
        self.changed.extend(orchestrators);
    }
}

/// The most orchestrators of one [`Output::Changed`]; the rest follows in the next.
pub const MAX_NEWS: usize = 4096;

#[cfg(test)]
pub(crate) mod tests;
