//! What is told within a region and what beyond it, in a mesh too large to tell everybody all.
//!
//! Within its region a node tells everything it observes, as in a small mesh. Beyond it, it
//! tells of an orchestrator only where it is one of the region's nearest observers of that one,
//! and of failures always: the rest is what the others there would have said as well.

use std::time::{Duration, Instant};

use super::Mesh;
use super::peer::{Peer, State};
use crate::health::{Change, HealthStore, Observation, Outbox, Params, Sent, Sighting};
use crate::id::NodeId;
use crate::unit::Micros;

/// What this node tells, for each level.
#[derive(Debug)]
pub(super) struct Levels {
    near: Outbox,
    far: Outbox,
    /// From so many nodes on there are two.
    from: usize,
    two: bool,
}

impl Levels {
    pub(super) fn new(params: &Params, from: usize) -> Self {
        let outbox = || Outbox::new(params.clone());
        Self { near: outbox(), far: outbox(), from, two: false }
    }

    /// Returns what a peer is told from, within this node's region or beyond it.
    pub(super) fn of(&self, is_near: bool) -> &Outbox {
        if is_near || !self.two { &self.near } else { &self.far }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.near.expire(now);
        self.far.expire(now);
    }

    /// Returns how many records of our own made room for others before their time.
    pub(super) fn n_dropped(&self) -> u64 {
        self.near.n_dropped()
    }

    fn record(&mut self, now: Instant, seen: Observation, speaks: impl Fn() -> bool) -> Change {
        let by = self.near.record(now, seen);
        // Whoever was told of failures is told that they are over.
        let was_failing = || self.far.tells_of_failures(seen.orchestrator);
        if self.two && (by == Change::Much || was_failing() || speaks()) {
            // One sequence of versions, so that a link may go from one level to the other.
            self.far.follow(self.near.version());
            self.far.record(now, seen);
        }
        by
    }

    /// Takes how many nodes there are; returns whether there are as many levels as before.
    fn is_settled(&mut self, n_nodes: usize) -> bool {
        let before = self.two;
        // A node that comes and goes does not have everything told again each time.
        let enough = if before { self.from - self.from / 10 } else { self.from };
        self.two = n_nodes >= enough;
        self.two == before
    }
}

impl Mesh {
    /// Keeps an observation of this node's own, to be told.
    pub(super) fn note_own(&mut self, now: Instant, seen: Observation) -> Change {
        let Self { levels, store, peers, local, .. } = self;
        let speaks = || {
            let others = store.observations(now, seen.orchestrator);
            let is_near =
                |node: &NodeId| peers.get(node).is_some_and(|it| it.region == Some(local.region));
            speaks(local.node, seen.rtt, others.iter().filter(|it| is_near(&it.node)))
        };
        levels.record(now, seen, speaks)
    }

    /// Whether a peer is told all this node observes.
    pub(super) fn is_near(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|it| self.is_near_peer(it))
    }

    pub(super) fn is_near_peer(&self, peer: &Peer) -> bool {
        peer.region == Some(self.local.region)
    }

    /// Returns how often a peer is told what changed: beyond the region less often, but for
    /// what cannot wait.
    pub(super) fn push_interval_to(&self, node: NodeId) -> Duration {
        let times = if self.levels.two && !self.is_near(node) { FAR_TIMES } else { 1 };
        self.params.push_interval * times
    }

    /// Counts the nodes, and begins anew with every link where there are other levels then.
    pub(super) fn settle_levels(&mut self, now: Instant) {
        if self.levels.is_settled(self.n_links + 1) {
            return;
        }
        if self.levels.two {
            let own: Vec<Observation> = self.levels.near.observations().collect();
            for seen in own {
                self.note_own(now, seen);
            }
        }
        for peer in self.peers.values_mut() {
            if let State::Up(up) = &mut peer.state {
                up.sent = Sent::default();
            }
        }
    }
}

/// Whether a node is one of its region's nearest observers of an orchestrator, given the other
/// ones there and its own round trip.
fn speaks<'a>(
    local: NodeId,
    rtt: Option<Micros>,
    others: impl Iterator<Item = &'a Sighting>,
) -> bool {
    let place = |rtt: Option<Micros>, node| (rtt.unwrap_or(Micros(u64::MAX)), node);
    let own = place(rtt, local);
    others.filter(|it| place(it.observation.rtt, it.node) < own).count() < SPEAKERS
}

/// How many nodes of a region tell the other regions of one orchestrator: a second, so that one
/// that is cut off or lies is not the only one heard.
const SPEAKERS: usize = 2;
/// Other regions are told at every fourth push: in a mesh of hundreds of nodes the heads of
/// packets would cost more than what is in them, and nobody there is next to what is told of.
const FAR_TIMES: u32 = 4;
