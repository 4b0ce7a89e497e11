//! A peer: keeps one link to one node.
//!
//! Owns the link and the waits between dials. Supervised by `mesh`, which restarts it after
//! a moment without a link: nothing else is lost.

mod link;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor::Actor;
use ractor::ActorProcessingErr;
use ractor::ActorRef;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::actors::mesh;
use crate::id::NodeId;
use crate::mesh::Greeting;
use crate::mesh::LinkEnd;
use crate::mesh::LinkId;
use crate::mesh::backoff;
use crate::mesh::backoff::Backoff;
use crate::mesh::election::Contender;
use crate::net::CloseReason;
use crate::net::Endpoint;
use crate::net::Established;
use crate::net::Link;
use crate::net::MAX_UNREAD;
use crate::wire::Frame;
use crate::wire::Message;

/// The actor.
#[derive(Debug)]
pub struct Peer;

/// What a peer can be told.
#[derive(Debug)]
pub enum Msg {
    /// The wait before a dial is over.
    Dial,
    /// A dial ended in a link.
    Dialed(Box<Established>),
    /// A dial ended in none.
    DialFailed,
    /// The node dialed us.
    Accepted(Box<Established>),
    /// A link ended.
    Ended(LinkId, LinkEnd),
    /// Send this over the link.
    Send(Message),
    /// Send this over the link, or lose it.
    Datagram(Bytes),
    /// The node says it is found here.
    At(SocketAddr),
    /// Close the link and dial again in time.
    Close(CloseReason),
    /// Close the link and dial no sooner than after this.
    Hold(Duration),
}

/// What a peer tells the mesh.
#[derive(Debug)]
pub enum News {
    /// This link counts.
    Up {
        /// The link.
        link: LinkId,
        /// What the node said of itself.
        greeting: Greeting,
    },
    /// A frame came. The mailbox of the mesh has no bound of its own: the permit, dropped
    /// with the frame, lets at most [`MAX_UNREAD`] of a peer wait there.
    Heard {
        /// The link.
        link: LinkId,
        /// The frame.
        frame: Frame,
        /// Its place in the mailbox.
        permit: OwnedSemaphorePermit,
    },
    /// A datagram came; those that find no place in the mailbox are lost.
    Datagram {
        /// The link.
        link: LinkId,
        /// What came.
        bytes: Bytes,
        /// Its place in the mailbox.
        permit: OwnedSemaphorePermit,
    },
    /// The link ended.
    Down {
        /// The link.
        link: LinkId,
        /// How.
        end: LinkEnd,
    },
    /// The link had no room for this, or there is none.
    Unsent(Message),
}

/// What a peer starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// This node.
    pub local: NodeId,
    /// The node at the other end.
    pub node: NodeId,
    /// Where to dial it; `None` for a node that can only dial us.
    pub at: Option<SocketAddr>,
    /// By what to dial it.
    pub endpoint: Endpoint,
    /// How long to wait between dials.
    pub backoff: backoff::Params,
    /// Whom to tell.
    pub mesh: ActorRef<mesh::Msg>,
}

/// What a peer owns while it runs.
#[derive(Debug)]
pub struct State {
    args: Args,
    backoff: Backoff,
    current: Option<(Link, Contender)>,
    dialing: bool,
    alarm: Option<AbortHandle>,
    permits: Arc<Semaphore>,
    datagram_permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Actor for Peer {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State {
            backoff: Backoff::new(args.backoff),
            args,
            current: None,
            dialing: false,
            alarm: None,
            permits: Arc::new(Semaphore::new(MAX_UNREAD)),
            datagram_permits: Arc::new(Semaphore::new(MAX_UNREAD_DATAGRAMS)),
            tasks: JoinSet::new(),
        };
        state.dial_later(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        while state.tasks.try_join_next().is_some() {}
        match msg {
            Msg::Dial => state.dial(myself),
            Msg::Dialed(established) => {
                state.dialing = false;
                state.take(*established, myself);
            }
            Msg::DialFailed => {
                state.dialing = false;
                state.dial_later(&myself);
            }
            Msg::Accepted(established) => state.take(*established, myself),
            Msg::Ended(link, end) => state.end(link, end, &myself),
            Msg::Send(message) => state.send(message),
            Msg::Datagram(bytes) => {
                if let Some((link, _)) = &state.current {
                    link.send_datagram(bytes);
                }
            }
            Msg::At(at) => state.find_at(at, &myself),
            Msg::Close(reason) => state.close(reason),
            Msg::Hold(duration) => {
                state.close(CloseReason::Refused);
                state.set_alarm(duration, &myself);
            }
        }
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(alarm) = &self.alarm {
            alarm.abort();
        }
    }
}

/// The most datagrams of one node that wait in the mailbox of the mesh: a burst of one probe
/// round of a large mesh.
const MAX_UNREAD_DATAGRAMS: usize = 64;
