//! What the mesh does by itself as time passes.

use std::time::Instant;

use super::LinkEnd;
use super::MAX_NEWS;
use super::Mesh;
use super::Output;
use super::peer::{Peer, State};
use super::translate;
use crate::health::HealthStore;
use crate::id::NodeId;
use crate::wire::MAX_RECORDS;
use crate::wire::Message;
use crate::wire::v1::PingV1;

impl Mesh {
    /// Does what is due: pings, pushes, silences, expiries, news.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.outbox.expire(now);
        self.members.handle_timeout(now);
        self.heed_members();
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.end_what_is_over(now, node);
            self.ping(now, node);
            self.push(now, node);
        }
        let expired = self.store.expire(now);
        self.note_changed(now, expired);
        self.tell_news(now);
    }

    /// Returns when [`Self::handle_timeout`] is due next; `None` while nothing is.
    pub fn next_timeout(&self) -> Option<Instant> {
        let version = self.outbox.version();
        let of_peer = |peer: &Peer| match &peer.state {
            State::Down => None,
            State::Quarantined { until } => Some(*until),
            State::Up(up) => {
                let push = (up.sent < version).then_some(up.push_at);
                [Some(up.silent_at), Some(up.ping_at), push].into_iter().flatten().min()
            }
        };
        let peers = self.peers.values().filter_map(of_peer).min();
        [peers, self.members.next_timeout(), self.store.next_expiry(), self.news_at]
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
        self.outputs.push_back(Output::Send { peer: node, message });
        self.announce_again(now, node);
    }

    fn push(&mut self, now: Instant, node: NodeId) {
        let version = self.outbox.version();
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        if now < up.push_at || up.sent >= version {
            return;
        }
        up.push_at = now + self.params.push_interval;
        for _ in 0..self.params.frames_per_push {
            let records = self.outbox.take_since(now, up.sent, MAX_RECORDS);
            if records.is_empty() {
                // What was newer has been replaced or is past its life.
                up.sent = version;
                return;
            }
            let delta = translate::delta_of(self.local.epoch, &records);
            up.sent = records.get(delta.records.len() - 1).map_or(version, |it| it.version);
            let message = Message::Delta(delta);
            self.outputs.push_back(Output::Send { peer: node, message });
        }
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
