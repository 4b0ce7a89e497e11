//! Between links and membership: who is let in, who is learned of, who is let go.

use std::time::Instant;

use bytes::Bytes;

use super::Dropped;
use super::Identity;
use super::LinkId;
use super::Membership;
use super::Mesh;
use super::Meters;
use super::Output;
use super::members;
use super::peer::{Peer, State};
use crate::id::NodeId;

impl Mesh {
    /// Takes one datagram of a peer; one of a link that counts no more, or one that claims
    /// another sender than the node at the other end, is dropped.
    pub fn handle_datagram(&mut self, now: Instant, node: NodeId, link: LinkId, bytes: &Bytes) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.up().is_none_or(|it| it.link != link) {
            return;
        }
        let meters = peer.meters.get_or_insert_with(|| Meters::new(now, self.params.limits));
        if let Err(fault) = meters.take_datagram(now, bytes.len()) {
            return self.quarantine(now, node, fault);
        }
        match self.members.handle_datagram(now, node, bytes) {
            Ok(()) => peer.counts.n_datagrams += 1,
            Err(Dropped::Forged) => peer.counts.n_forged += 1,
            Err(Dropped::Unreadable | Dropped::Unknown | Dropped::Crowd) => {
                peer.counts.n_dropped += 1;
            }
        }
        self.heed_members();
    }

    /// Asks the peer at the other end of a fresh link to be let in. Both ends ask: either
    /// datagram may be lost.
    pub(super) fn announce(&mut self, now: Instant, node: NodeId) {
        let Some(up) = self.peers.get_mut(&node).and_then(Peer::up) else { return };
        let to = Identity { node, at: None, epoch: up.epoch, renewals: 0 };
        self.members.announce(now, to);
        self.heed_members();
    }

    /// Asks again while a link is up and membership does not know it: both were lost, or the
    /// mesh had fallen in two. One that is suspected is told so, to refute it.
    pub(super) fn announce_again(&mut self, now: Instant, node: NodeId) {
        match self.members.state_of(node) {
            Some((Membership::Alive, _)) if self.members.is_heard() => {}
            Some((Membership::Suspect, _)) => {
                self.members.warn(node);
                self.heed_members();
            }
            Some((Membership::Alive | Membership::Down, _)) | None => self.announce(now, node),
        }
    }

    /// Turns what membership asks for into what the shell does.
    pub(super) fn heed_members(&mut self) {
        while let Some(output) = self.members.poll_output() {
            match output {
                members::Output::Send { to, datagram: bytes } => {
                    if self.peers.get_mut(&to).and_then(Peer::up).is_some() {
                        self.budget.spend(bytes.len());
                        self.outputs.push_back(Output::Datagram { peer: to, bytes });
                    }
                }
                members::Output::Changed(node) => self.heed_change(node),
            }
        }
    }

    fn heed_change(&mut self, node: NodeId) {
        let Some((membership, at)) = self.members.state_of(node) else { return };
        if membership == Membership::Down || node == self.local.node {
            return;
        }
        if !self.peers.contains_key(&node) {
            if self.peers.len() >= self.params.health.max_origins && !self.make_room() {
                return;
            }
            self.peers.insert(node, Peer::new(false));
        }
        self.outputs.push_back(Output::Learned { peer: node, at });
    }

    /// Lets go of one that was learned, is down by every account and has been heard of longest
    /// ago; returns whether there was one.
    fn make_room(&mut self) -> bool {
        let gone = |(node, peer): &(&NodeId, &Peer)| {
            let down = self.members.state_of(**node);
            !peer.seed
                && matches!(peer.state, State::Down)
                && down.is_none_or(|(it, _)| it == Membership::Down)
        };
        let oldest = self.peers.iter().filter(gone).min_by_key(|(_, peer)| peer.heard_at);
        let Some((&node, _)) = oldest else { return false };
        self.peers.remove(&node);
        self.outputs.push_back(Output::Forgotten(node));
        true
    }
}
