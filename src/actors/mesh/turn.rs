//! One turn of the mesh: news into the machine, then all that the machine asks for.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorRef;

use super::Msg;
use super::PeerNews;
use super::State;
use crate::actors::peer;
use crate::actors::peer::News;
use crate::clock;
use crate::id::NodeId;
use crate::id::OrchestratorId;
use crate::mesh::Output;
use crate::mesh::Peers;
use crate::net::CloseReason;
use crate::view::board::turn_of;

impl State {
    pub(super) fn take(&mut self, now: Instant, node: NodeId, news: News) {
        match news {
            News::Up { link, greeting } => self.mesh.handle_link_up(now, link, &greeting),
            News::Heard { link, frame, permit } => {
                self.mesh.handle_frame(now, node, link, frame);
                drop(permit);
            }
            News::Datagram { link, bytes, permit } => {
                self.mesh.handle_datagram(now, node, link, &bytes);
                drop(permit);
            }
            News::Down { link, end } => self.mesh.handle_link_down(now, node, link, end),
            News::Unsent(message) => self.mesh.handle_unsent(node, &message),
        }
    }

    pub(super) fn perform(&mut self, now: Instant) {
        let mut turned = false;
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { peer, message } => self.tell(peer, peer::Msg::Send(message)),
                Output::Datagram { peer, bytes } => self.tell(peer, peer::Msg::Datagram(bytes)),
                Output::Learned { peer, at } => self.learn(peer, at),
                Output::Forgotten(node) => {
                    turned = true;
                    tracing::info!(%node, "peer forgotten");
                    self.forget(node);
                }
                Output::Changed(orchestrators) => self.tell_readers(now, orchestrators),
                Output::Claimed(claimed) => {
                    let turn = turn_of(clock::wall());
                    for it in claimed {
                        self.args.board.claim(it.at, turn, it.orchestrator, &it.peers);
                    }
                }
                Output::Ordered(in_force) => {
                    tracing::info!(number = in_force.number, "other orders are in force");
                    self.args.orders.store(in_force);
                    self.args.ordered.notify_one();
                }
                // What finds no room is told again in a minute.
                Output::Ways { peer, ways } => drop(self.args.ways.try_send((peer, ways))),
                Output::PeerUp(node) => {
                    turned = true;
                    tracing::info!(%node, "peer up");
                }
                Output::PeerDown { peer: node, end } => {
                    turned = true;
                    tracing::info!(%node, %end, "peer down");
                }
                Output::Close(peer) => self.tell(peer, peer::Msg::Close(CloseReason::Silent)),
                Output::Quarantine { peer: node, fault, duration } => {
                    tracing::warn!(%node, %fault, ?duration, "peer in quarantine");
                    self.tell(node, peer::Msg::Hold(duration));
                }
            }
        }
        if turned || now >= self.publish_at {
            self.publish(now);
        }
    }

    pub(super) fn tell(&self, node: NodeId, msg: peer::Msg) {
        if let Some(child) = self.children.get(&node) {
            tell(child, msg);
        }
    }

    pub(super) fn tell_readers(&mut self, now: Instant, orchestrators: Vec<OrchestratorId>) {
        let Ok(place) = self.args.news.try_reserve() else {
            self.mesh.handle_unread(now, orchestrators);
            return;
        };
        let seen = |it: OrchestratorId| (it, self.mesh.observations(now, it));
        let changed = orchestrators.into_iter().map(seen).collect();
        place.send(PeerNews { taken_at: now, changed });
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.publish_at = now + self.args.params.news_interval;
        let peers = Peers { n_restarts: self.n_restarts, ..self.mesh.peers() };
        self.args.peers.store(Arc::new(peers));
    }

    /// Sets the alarm unless one goes off before: an early one finds nothing due and is set
    /// again.
    pub(super) fn set_alarm(&mut self, now: Instant, myself: &ActorRef<Msg>) {
        let Some(at) = self.mesh.next_timeout() else { return };
        if self.alarm.as_ref().is_some_and(|(set, _)| *set <= at) {
            return;
        }
        let wait = at.saturating_duration_since(now);
        let alarm = (at, myself.send_after(wait, || Msg::Alarm).abort_handle());
        if let Some((_, older)) = self.alarm.replace(alarm) {
            older.abort();
        }
    }
}

pub(super) fn tell(child: &ActorRef<peer::Msg>, msg: peer::Msg) {
    // A dead child's end arrives as a supervision event, which says all that is lost here.
    drop(child.cast(msg));
}
