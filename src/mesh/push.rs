//! What peers are sent of this node's records, in which order and for how many bytes.

use std::time::{Duration, Instant};

use super::Mesh;
use super::Output;
use super::peer::{Peer, State};
use super::translate;
use crate::health::HealthStore;
use crate::health::Versioned;
use crate::id::NodeId;
use crate::wire;
use crate::wire::MAX_RECORDS;
use crate::wire::Message;
use crate::wire::v1::{DigestV1, PullV1};

impl Mesh {
    /// Sends a message and charges it to the budget.
    pub(super) fn send(&mut self, peer: NodeId, message: Message) {
        self.budget.spend(wire::encode(&message).map_or(0, |it| it.len()));
        self.outputs.push_back(Output::Send { peer, message });
    }

    /// Returns the peers with a link, by name.
    pub(super) fn links(&self) -> impl Iterator<Item = NodeId> {
        let up = self.peers.iter().filter(|(_, peer)| matches!(peer.state, State::Up(_)));
        up.map(|(&node, _)| node)
    }

    /// Has what goes first sent to everybody at once rather than with the next push.
    pub(super) fn urge(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            if let Some(up) = peer.up() {
                let at = (up.urged_at + URGE_AT_MOST_EVERY).max(now);
                up.urge_at = Some(up.urge_at.map_or(at, |it| it.min(at)));
            }
        }
    }

    /// Sends a peer what is due: what goes first on credit if need be, the rest within the
    /// peer's share of the budget, along with the former or by itself when it has waited.
    pub(super) fn push(&mut self, now: Instant, node: NodeId) {
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        let pushes = now >= up.push_at;
        if !pushes && up.urge_at.is_none_or(|at| now < at) {
            return;
        }
        (up.urge_at, up.urged_at) = (None, now);
        // What has waited for half of its time goes along.
        let seldom = self.params.push_interval * self.spread(LINKS_PER_PUSH);
        let is_near = self.is_near(node);
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        let (others, along) = (now >= up.others_at, now + seldom / 2 >= up.others_at);
        if pushes && up.sent.urgent < self.levels.of(is_near).urgent_version() {
            // Also when there is no credit: asking again at once gives none.
            up.push_at = now + self.params.push_interval;
        }
        let mut left = self.params.frames_per_push;
        while left > 0 && self.budget.has_credit() {
            let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
            let records = self.levels.of(is_near).urgent_since(now, up.sent, MAX_RECORDS);
            let Some(through) = self.send_records(node, &records) else { break };
            if let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) {
                up.sent.urgent = through;
            }
            left -= 1;
        }
        if pushes && (others || along && left < self.params.frames_per_push) {
            // What goes first all the time must not keep the rest for ever.
            self.push_others(now, node, left.max(1));
        }
    }

    fn push_others(&mut self, now: Instant, node: NodeId, n_frames: u32) {
        let is_near = self.is_near(node);
        let version = self.levels.of(is_near).version();
        let interval = self.params.push_interval;
        let seldom = interval * self.spread(LINKS_PER_PUSH);
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        if up.sent.others >= version {
            return;
        }
        (up.push_at, up.others_at) = (now + interval, now + seldom);
        let share = self.budget.share(self.n_links, seldom.as_millis() as u64) / RECORD_BYTES;
        let mut share = (share as usize).max(RECORDS_MIN);
        for _ in 0..n_frames {
            let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
            let sent = up.sent;
            if share == 0 || !self.budget.has_left() {
                return;
            }
            let records = self.levels.of(is_near).others_since(now, sent, share.min(MAX_RECORDS));
            share = share.saturating_sub(records.len());
            let before = self.budget.n_spent();
            // Without any, what was newer has been replaced, is past its life or went first.
            let through = self.send_records(node, &records);
            self.budget.spend_kept(self.budget.n_spent() - before);
            if let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) {
                up.sent.others = through.unwrap_or(version);
            }
            if through.is_none() {
                return;
            }
        }
    }

    /// Sends records as one delta; returns the version it goes through, `None` when there were
    /// none to send.
    fn send_records(&mut self, node: NodeId, records: &[Versioned]) -> Option<u64> {
        let delta = translate::delta_of(self.local.epoch, records);
        let last = records.get(delta.records.len().checked_sub(1)?)?.version;
        self.send(node, Message::Delta(delta));
        Some(last)
    }

    /// Tells a peer what it should hold of this node's records, once it was sent all of them:
    /// until then it rightly holds an earlier version of some.
    pub(super) fn tell_digest(&mut self, now: Instant, node: NodeId) {
        let epoch = self.local.epoch;
        let outbox = self.levels.of(self.is_near(node));
        let (version, urgent) = (outbox.version(), outbox.urgent_version());
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        if now < up.digest_at {
            return;
        }
        if up.sent.others < version || up.sent.urgent < urgent {
            up.digest_at = up.others_at.max(now + self.params.push_interval);
            return;
        }
        up.digest_at = now + self.params.digest_interval;
        let sent = up.sent;
        let digest = self.levels.of(self.is_near(node)).digest(sent);
        let message = DigestV1 { epoch, n_records: digest.n_records, sum: digest.sum };
        self.send(node, Message::Digest(message));
    }

    /// Compares what is held of a peer's records with what it says it sent, and asks it, the
    /// only one who can vouch for them, to send them again if they differ.
    pub(super) fn take_digest(&mut self, now: Instant, node: NodeId, digest: &DigestV1) {
        let held = self.store.digest(node, digest.epoch);
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        let recent = |at: Instant| now.saturating_duration_since(at) < PULL_AT_MOST_EVERY;
        let agrees = (held.n_records, held.sum) == (digest.n_records, digest.sum);
        if agrees || digest.epoch != up.epoch || up.pulled_at.is_some_and(recent) {
            return;
        }
        up.pulled_at = Some(now);
        self.send(node, Message::Pull(PullV1 { epoch: digest.epoch }));
    }

    /// Sends a peer all records again; its part of the budget bounds how fast.
    pub(super) fn take_pull(&mut self, now: Instant, node: NodeId, pull: &PullV1) {
        if pull.epoch != self.local.epoch {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.counts.n_pulls += 1;
        if let Some(up) = peer.up() {
            up.sent.rewind(0);
            let soon = now + self.params.push_interval;
            (up.push_at, up.others_at) = (up.push_at.min(soon), up.others_at.min(soon));
        }
    }
}

/// What cannot wait goes out at most this often, so that a burst of failures is one frame.
const URGE_AT_MOST_EVERY: Duration = Duration::from_millis(20);

/// A peer is asked for everything at most this often: where its records do not fit here, the
/// two will never agree.
const PULL_AT_MOST_EVERY: Duration = Duration::from_secs(30);

/// For every so many links what does not go first waits a push longer: half a second in a mesh
/// of 31, 2.5 in one of 300, where the heads of packets would cost more than what is in them.
const LINKS_PER_PUSH: usize = 30;

/// What a record takes on the wire, rounded up; most take 26 bytes.
const RECORD_BYTES: u64 = 32;

/// The least records of one push, so that the largest mesh moves on too.
const RECORDS_MIN: usize = 4;
