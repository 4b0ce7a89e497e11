//! How a peer comes by its link, keeps one of two, and loses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;

use super::Args;
use super::Msg;
use super::News;
use super::State;
use crate::actors::mesh;
use crate::mesh::LinkEnd;
use crate::mesh::LinkId;
use crate::mesh::election;
use crate::mesh::election::Contender;
use crate::net::CloseReason;
use crate::net::Established;
use crate::net::Link;
use crate::wire::Message;

impl State {
    pub(super) fn dial(&mut self, myself: ActorRef<Msg>) {
        let Some(at) = self.args.at.filter(|_| self.current.is_none() && !self.dialing) else {
            return;
        };
        self.dialing = true;
        let Args { endpoint, node, .. } = self.args.clone();
        self.tasks.spawn(async move {
            let told = match endpoint.dial(node, at).await {
                Ok(established) => Msg::Dialed(Box::new(established)),
                Err(error) => {
                    tracing::debug!(%node, %error, "no link");
                    Msg::DialFailed
                }
            };
            // Without its actor this task is aborted.
            drop(myself.cast(told));
        });
    }

    pub(super) fn take(&mut self, fresh: Established, myself: ActorRef<Msg>) {
        let Established { link, mut frames, greeting, dialer } = fresh;
        let contender = Contender { dialer, epoch: greeting.epoch };
        let (local, node) = (self.args.local, self.args.node);
        if let Some((current, held)) = &self.current {
            if !election::replaces(local, node, *held, contender) {
                return link.close(CloseReason::Duplicate);
            }
            current.close(CloseReason::Duplicate);
        }
        self.backoff.reset();
        self.report(News::Up { link: link.id(), greeting });
        self.current = Some((link.clone(), contender));
        self.hear_datagrams(link.clone());
        let (mesh, permits) = (self.args.mesh.clone(), Arc::clone(&self.permits));
        self.tasks.spawn(async move {
            while let Some(frame) = frames.next().await
                && let Ok(permit) = Arc::clone(&permits).acquire_owned().await
            {
                let news = News::Heard { link: link.id(), frame, permit };
                // Without the mesh its peers end too.
                drop(mesh.cast(mesh::Msg::Peer(node, news)));
            }
            let end = link.closed().await;
            drop(myself.cast(Msg::Ended(link.id(), end)));
        });
    }

    /// Passes datagrams on to the mesh while it keeps up with them.
    fn hear_datagrams(&mut self, link: Link) {
        let (mesh, node) = (self.args.mesh.clone(), self.args.node);
        let permits = Arc::clone(&self.datagram_permits);
        self.tasks.spawn(async move {
            while let Some(bytes) = link.next_datagram().await {
                // Datagrams are lost in any case: one more when the mesh is behind.
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
                let news = News::Datagram { link: link.id(), bytes, permit };
                drop(mesh.cast(mesh::Msg::Peer(node, news)));
            }
        });
    }

    /// Takes where the node says it is, and dials there if nothing else was going on.
    pub(super) fn find_at(&mut self, at: SocketAddr, myself: &ActorRef<Msg>) {
        if self.args.at.replace(at) != Some(at) && self.current.is_none() {
            self.dial_later(myself);
        }
    }

    pub(super) fn end(&mut self, link: LinkId, end: LinkEnd, myself: &ActorRef<Msg>) {
        // One that was replaced, or closed by us, was ended before.
        if self.current.take_if(|(current, _)| current.id() == link).is_some() {
            self.report(News::Down { link, end });
        }
        if self.current.is_none() {
            self.dial_later(myself);
        }
    }

    pub(super) fn send(&self, message: Message) {
        let refused = match &self.current {
            Some((link, _)) => link.try_send(message).err(),
            None => Some(message),
        };
        if let Some(message) = refused {
            self.report(News::Unsent(message));
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if let Some((link, _)) = self.current.take() {
            link.close(reason);
        }
    }

    pub(super) fn report(&self, news: News) {
        // Without the mesh its peers end too.
        drop(self.args.mesh.cast(mesh::Msg::Peer(self.args.node, news)));
    }

    pub(super) fn dial_later(&mut self, myself: &ActorRef<Msg>) {
        // A longer wait that runs, such as a quarantine, is not cut short.
        if self.alarm.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        let wait = self.backoff.next_wait(rand::random());
        self.set_alarm(wait, myself);
    }

    pub(super) fn set_alarm(&mut self, wait: Duration, myself: &ActorRef<Msg>) {
        let alarm = myself.send_after(wait, || Msg::Dial).abort_handle();
        if let Some(older) = self.alarm.replace(alarm) {
            older.abort();
        }
    }
}
