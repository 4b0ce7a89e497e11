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
        self.outbox.expire(now);
        self.members.handle_timeout(now);
        self.heed_members();
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
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
        let version = self.outbox.version();
        let urgent = self.outbox.urgent_version();
        let of_peer = |peer: &Peer| match &peer.state {
            State::Down => None,
            State::Quarantined { until } => Some(*until),
            State::Up(up) => {
                let behind = up.sent.others < version || up.sent.urgent < urgent;
                let push = behind.then_some(up.push_at);
                [Some(up.silent_at), Some(up.ping_at), Some(up.digest_at), push, up.urge_at]
                    .into_iter()
                    .flatten()
                    .min()
            }
        };
        let peers = self.peers.values().filter_map(of_peer).min();
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
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        if now < up.ping_at {
            return;
        }
        // Counted over all peers: an answer to another's ping is no answer.
        self.nonce += 1;
        up.note_ping(now, self.nonce);
        up.ping_at = now + self.params.ping_interval;
        let message = Message::Ping(PingV1 { nonce: self.nonce });
        self.send(node, message);
        self.announce_again(now, node);
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
