//! The peers' actors: started, handed the links their nodes dialed, restarted.

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
        if node == local {
            return Ok(());
        }
        let args = peer::Args {
            local,
            node,
            at: self.args.addresses.get(&node).copied(),
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

    pub(super) fn hand_over(&self, now: Instant, link: Box<Established>) {
        let node = link.link.peer();
        match self.children.get(&node).filter(|_| self.mesh.admits(now, node)) {
            Some(child) => turn::tell(child, peer::Msg::Accepted(link)),
            None => link.link.close(CloseReason::Refused),
        }
    }
}
