//! The peers' actors: started, handed the links their nodes dialed, restarted.

use std::time::{Duration, Instant};

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

    pub(super) fn bury(&mut self, id: ActorId, myself: &ActorRef<Msg>) {
        let found = self.children.iter().find(|(_, child)| child.get_id() == id);
        let Some(node) = found.map(|(&node, _)| node) else { return };
        let now = clock::now();
        self.children.remove(&node);
        self.n_restarts += 1;
        tracing::warn!(%node, n_restarts = self.n_restarts, "a peer's actor ended and is restarted");
        self.mesh.handle_peer_lost(now, node);
        self.perform(now);
        self.set_alarm(now, myself);
        drop(myself.send_after(RESPAWN_AFTER, move || Msg::Respawn(node)));
    }

    pub(super) fn hand_over(&self, now: Instant, link: Box<Established>) {
        let node = link.link.peer();
        match self.children.get(&node).filter(|_| self.mesh.admits(now, node)) {
            Some(child) => turn::tell(child, peer::Msg::Accepted(link)),
            None => link.link.close(CloseReason::Refused),
        }
    }
}

/// How long a peer's actor that died stays so: it may die again at once.
const RESPAWN_AFTER: Duration = Duration::from_millis(500);
