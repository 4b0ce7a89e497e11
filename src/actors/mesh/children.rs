//! The peers' actors: started, handed the links their nodes dialed, restarted.

use std::net::SocketAddr;
use std::time::Instant;

use ractor::Actor;
use ractor::ActorId;
use ractor::ActorProcessingErr;
use ractor::ActorRef;

use super::Msg;
use super::State;
use super::turn;
use crate::actors::peer;
use crate::clock;
use crate::id::NodeId;
use crate::net::CloseReason;
use crate::net::Established;

impl State {
    pub(super) async fn spawn(
        &mut self,
        node: NodeId,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let local = self.args.greeting.node;
        if node == local || self.children.contains_key(&node) {
            return Ok(());
        }
        let args = peer::Args {
            local,
            node,
            at: self.args.addresses.get(&node).or(self.hints.get(&node)).copied(),
            endpoint: self.args.endpoint.clone(),
            backoff: self.args.backoff,
            mesh: myself.clone(),
        };
        let spawned = Actor::spawn_linked(None, peer::Peer, args, myself.get_cell()).await;
        let (child, _task) = spawned?;
        self.children.insert(node, child);
        Ok(())
    }

    /// Takes a peer's actor that died off the list and starts it again by its rule; an error
    /// when too many died of late.
    pub(super) fn bury(
        &mut self,
        id: ActorId,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let found = self.children.iter().find(|(_, child)| child.get_id() == id);
        let Some(node) = found.map(|(&node, _)| node) else { return Ok(()) };
        let now = clock::now();
        self.children.remove(&node);
        self.n_restarts += 1;
        let wait = self.restarts.note(now, "peer").ok_or("too many restarts")?;
        self.mesh.handle_peer_lost(now, node);
        self.perform(now);
        self.set_alarm(now, myself);
        drop(myself.send_after(wait, move || Msg::Respawn(node)));
        Ok(())
    }

    /// Passes a link that a node dialed to its actor, starting one for a node not seen before.
    pub(super) async fn hand_over(
        &mut self,
        now: Instant,
        link: Box<Established>,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let node = link.link.peer();
        let known = self.children.contains_key(&node);
        let room = known || self.children.len() < self.args.params.health.max_origins;
        if !room || !self.mesh.admits(now, node) {
            link.link.close(CloseReason::Refused);
            return Ok(());
        }
        // One socket dials and listens: where it came from is where it may be found again.
        self.hints.entry(node).or_insert_with(|| link.link.remote_address());
        self.spawn(node, myself).await?;
        if let Some(child) = self.children.get(&node) {
            turn::tell(child, peer::Msg::Accepted(link));
        }
        Ok(())
    }

    /// Notes where a member says it is; its actor dials there unless the configuration knows
    /// another place.
    pub(super) fn learn(&mut self, node: NodeId, at: Option<SocketAddr>) {
        if let Some(at) = at {
            self.hints.insert(node, at);
        }
        match self.children.get(&node) {
            Some(child) if !self.args.addresses.contains_key(&node) => {
                if let Some(&at) = self.hints.get(&node) {
                    turn::tell(child, peer::Msg::At(at));
                }
            }
            Some(_) => {}
            None => self.wanted.push(node),
        }
    }

    pub(super) async fn spawn_wanted(
        &mut self,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        for node in std::mem::take(&mut self.wanted) {
            self.spawn(node, myself).await?;
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.hints.remove(&node);
        self.wanted.retain(|it| *it != node);
        if let Some(child) = self.children.remove(&node) {
            child.stop(None);
        }
    }
}
