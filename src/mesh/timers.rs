//! What the mesh does by itself as time passes.

use std::time::Instant;

use super::LinkEnd;
use super::MAX_NEWS;
use super::Mesh;
use super::Output;
use super::peer::{Peer, State};
use crate::health::HealthStore;
use crate::id::NodeId;
use crate::wire::Message;
use crate::wire::v1::PingV1;

impl Mesh {
    /// Does what is due: pings, pushes, silences, expiries, news.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.n_links = self.links().count();
        self.budget.fill(now, self.n_links);
        self.settle_levels(now);
        self.levels.expire(now);
        self.members.handle_timeout(now);
        self.heed_members();
        // In a large mesh few of the peers are due at any one time.
        let due = |it: &(&NodeId, &Peer)| self.due_of(it.1).is_some_and(|at| at <= now);
        let nodes: Vec<NodeId> = self.peers.iter().filter(due).map(|(&node, _)| node).collect();
        for node in nodes {
            self.end_what_is_over(now, node);
            self.ping(now, node);
            self.push(now, node);
            self.tell_digest(now, node);
        }
        self.claims.expire(now);
        self.tell_less(now);
        let expired = self.store.expire(now);
        self.note_changed(now, expired);
        self.tell_news(now);
    }

    /// Returns when [`Self::handle_timeout`] is due next; `None` while nothing is.
    pub fn next_timeout(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(|it| self.due_of(it)).min();
        [
            peers,
            self.members.next_timeout(),
            self.store.next_expiry(),
            self.news_at,
            self.claims.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns when something is due to one peer.
    fn due_of(&self, peer: &Peer) -> Option<Instant> {
        match &peer.state {
            State::Down => None,
            State::Quarantined { until } => Some(*until),
            State::Up(up) => {
                let outbox = self.levels.of(self.is_near_peer(peer));
                let urgent = (up.sent.urgent < outbox.urgent_version()).then_some(up.push_at);
                let others_at = up.others_at.max(up.push_at);
                let others = (up.sent.others < outbox.version()).then_some(others_at);
                [
                    Some(up.silent_at),
                    Some(up.ping_at),
                    Some(up.digest_at),
                    urgent,
                    others,
                    up.urge_at,
                ]
                .into_iter()
                .flatten()
                .min()
            }
        }
    }

    fn end_what_is_over(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match &peer.state {
            State::Quarantined { until } if now >= *until => peer.state = State::Down,
            State::Up(up) if now >= up.silent_at => {
                peer.state = State::Down;
                self.outputs.push_back(Output::Close(node));
                let end = LinkEnd::Lost;
                self.outputs.push_back(Output::PeerDown { peer: node, end });
            }
            State::Down | State::Up(_) | State::Quarantined { .. } => {}
        }
    }

    fn ping(&mut self, now: Instant, node: NodeId) {
        let interval = self.params.ping_interval;
        let measured_for = interval * self.spread(LINKS_PER_PING);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let heard = peer.heard_at.is_some_and(|at| now < at + interval / 2);
        let Some(up) = peer.up().filter(|it| now >= it.ping_at) else { return };
        up.ping_at = now + interval;
        // Any frame says that the peer is alive; a ping also says how far it is.
        if !heard || up.pinged_at.is_none_or(|at| now >= at + measured_for) {
            // Counted over all peers: an answer to another's ping is no answer.
            self.nonce += 1;
            up.note_ping(now, self.nonce);
            let message = Message::Ping(PingV1 { nonce: self.nonce });
            self.send(node, message);
        }
        self.announce_again(now, node);
    }

    /// By what a period grows with the links: by one for every `n_links` of them.
    pub(super) fn spread(&self, n_links: usize) -> u32 {
        1 + (self.n_links / n_links) as u32
    }

    fn tell_news(&mut self, now: Instant) {
        if self.news_at.is_none_or(|at| now < at) {
            return;
        }
        let mut told = Vec::new();
        while told.len() < MAX_NEWS
            && let Some(orchestrator) = self.changed.pop_first()
        {
            told.push(orchestrator);
        }
        self.news_at = (!self.changed.is_empty()).then(|| now + self.params.news_interval);
        self.outputs.push_back(Output::Changed(told));
    }
}

/// For every so many links a peer is measured a second more seldom: in a mesh of 300 every
/// fifth, which saves a sixth of all packets.
const LINKS_PER_PING: usize = 60;
