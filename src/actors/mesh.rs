//! The mesh: what this node and its peers tell each other.
//!
//! Owns a [`Mesh`] and publishes [`Peers`]. Supervised by `root`, which restarts it empty
//! under a greater epoch: links come back within a second or two, records with them.
//! Supervises one `peer` per node it was told of or learned of and restarts it after a moment.

mod children;
mod turn;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ractor::Actor;
use ractor::ActorProcessingErr;
use ractor::ActorRef;
use ractor::RpcReplyPort;
use ractor::SupervisionEvent;
use ractor::rpc::CallResult;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::actors::peer;
use crate::actors::peer::News;
use crate::actors::restart::Restarts;
use crate::clock;
use crate::clock::pulse::Pulse;
use crate::health::Observation;
use crate::health::Sighting;
use crate::id::NodeId;
use crate::id::OrchestratorId;
use crate::legs::Way;
use crate::mesh::Greeting;
use crate::mesh::Mesh;
use crate::mesh::NotObeyed;
use crate::mesh::Params;
use crate::mesh::Peers;
use crate::mesh::backoff;
use crate::net::Endpoint;
use crate::net::Established;
use crate::orders::InForce;
use crate::view::board::{Board, turn_of};

/// The actor.
#[derive(Debug)]
pub struct MeshActor;

/// What the mesh can be told.
#[derive(Debug)]
pub enum Msg {
    /// A peer dialed us; the permit bounds how many of these wait in the mailbox.
    Accepted(Box<Established>, OwnedSemaphorePermit),
    /// A peer's actor has news.
    Peer(NodeId, News),
    /// This node observed something; the sender bounds how often it says so.
    Observed(Vec<Observation>),
    /// Tell the peers of ways to clients; at most [`crate::wire::MAX_WAYS`] at a time, from
    /// time to time.
    Ways(Vec<Way>),
    /// Requests use orchestrators otherwise than before.
    Stirred,
    /// Obey a command of the operator, and say whether it was.
    Command(Vec<u8>, RpcReplyPort<Result<(), NotObeyed>>),
    /// Tell the peers that this node takes no new work.
    Drain,
    /// The alarm set for [`Mesh::next_timeout`] went off.
    Alarm,
    /// The moment after a peer's actor died is over.
    Respawn(NodeId),
}

/// What is seen of the orchestrators of which something else is seen than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNews {
    /// When the ages were taken.
    pub taken_at: Instant,
    /// Everything the peers see of each; none where it has decayed to unknown.
    pub changed: Vec<(OrchestratorId, Vec<Sighting>)>,
}

/// What the mesh starts with; the same again after a restart.
#[derive(Clone, Debug)]
pub struct Args {
    /// The machine's parameters.
    pub params: Params,
    /// What this node says of itself; `epoch` is taken from `epochs`.
    pub greeting: Greeting,
    /// The epoch of the latest life; every start takes the next. Begins with a number
    /// greater than that of any earlier process, such as milliseconds since 1970.
    pub epochs: Arc<AtomicU64>,
    /// The endpoint, bound; nobody else accepts from it.
    pub endpoint: Endpoint,
    /// Where others may dial this node; `None` when it can only dial them.
    pub at: Option<SocketAddr>,
    /// Where to dial each peer; one without an address is dialed where it says it is, or can
    /// only dial us.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// How long peers wait between dials.
    pub backoff: backoff::Params,
    /// Where to publish the peers.
    pub peers: Arc<ArcSwap<Peers>>,
    /// What this node and its peers use, beside the records.
    pub board: Arc<Board>,
    /// Where to tell what changed; while it is full, news waits and merges.
    pub news: mpsc::Sender<PeerNews>,
    /// Where to tell what peers say of ways to clients; while it is full, that is lost.
    pub ways: mpsc::Sender<(NodeId, Vec<Way>)>,
    /// Shows that the mesh still takes its turns.
    pub pulse: Arc<Pulse>,
    /// Where the operator's orders stand, also those this actor begins with,
    pub orders: Arc<ArcSwap<InForce>>,
    /// and what is rung when others are in force.
    pub ordered: Arc<Notify>,
}

/// What the mesh owns while it runs.
#[derive(Debug)]
pub struct State {
    args: Args,
    mesh: Mesh,
    children: BTreeMap<NodeId, ActorRef<peer::Msg>>,
    /// Where peers say they are.
    hints: BTreeMap<NodeId, SocketAddr>,
    /// Peers learned of whose actors are not started yet.
    wanted: Vec<NodeId>,
    n_restarts: u64,
    restarts: Restarts,
    alarm: Option<(Instant, AbortHandle)>,
    publish_at: Instant,
    /// Takes accepted links off the endpoint and looks at the board; both end with the actor.
    _accepting: JoinSet<()>,
}

impl Actor for MeshActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let epoch = args.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let greeting = Greeting { epoch, ..args.greeting };
        args.endpoint.announce(greeting);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(args.endpoint.clone(), myself.clone()));
        accepting.spawn(watch(Arc::clone(&args.board), myself.clone()));
        let mut state = State {
            mesh: Mesh::new(clock::now(), args.params.clone(), greeting, args.at, rand::random())
                .under(args.orders.load_full()),
            args,
            children: BTreeMap::new(),
            hints: BTreeMap::new(),
            wanted: Vec::new(),
            n_restarts: 0,
            restarts: Restarts::default(),
            alarm: None,
            publish_at: clock::now(),
            _accepting: accepting,
        };
        for node in state.args.params.peers.clone() {
            state.spawn(node, &myself).await?;
        }
        state.publish(clock::now());
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = clock::now();
        state.args.pulse.beat(now);
        match msg {
            Msg::Accepted(link, _permit) => state.hand_over(now, link, &myself).await?,
            Msg::Peer(node, news) => state.take(now, node, news),
            Msg::Observed(seen) => {
                seen.into_iter().for_each(|it| state.mesh.handle_observation(now, it));
            }
            Msg::Ways(ways) => {
                state.mesh.handle_ways(&ways);
            }
            Msg::Stirred => {
                let used = state.args.board.drain(now, turn_of(clock::wall()));
                state.mesh.handle_use(now, &used);
            }
            Msg::Command(bytes, told) => {
                let obeyed = state.mesh.handle_command(clock::wall(), &bytes);
                // In force first, then said so; whoever asked may be gone.
                state.perform(now);
                drop(told.send(obeyed));
            }
            Msg::Drain => state.mesh.handle_drain(),
            Msg::Alarm => {
                state.alarm = None;
                state.mesh.handle_timeout(now);
            }
            Msg::Respawn(node) => state.spawn(node, &myself).await?,
        }
        state.perform(now);
        state.spawn_wanted(&myself).await?;
        state.set_alarm(now, &myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, ..)
            | SupervisionEvent::ActorFailed(cell, _) => state.bury(cell.get_id(), &myself)?,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

/// Has the mesh obey a command; `None` when it did not say in time, or restarts. Not for the
/// path of requests, which waits for no mailbox.
pub async fn obey(
    mesh: &ActorRef<Msg>,
    command: Vec<u8>,
    within: Duration,
) -> Option<Result<(), NotObeyed>> {
    match mesh.call(|told| Msg::Command(command, told), Some(within)).await {
        Ok(CallResult::Success(told)) => Some(told),
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
    }
}

async fn accept(endpoint: Endpoint, mesh: ActorRef<Msg>) {
    let permits = Arc::new(Semaphore::new(MAX_ACCEPTED));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await
        && let Some(link) = endpoint.accept().await
    {
        if mesh.cast(Msg::Accepted(Box::new(link), permit)).is_err() {
            return;
        }
    }
}

/// Says when requests have marked something, not more often than peers should hear of it; and
/// from time to time in any case, for the pulse.
async fn watch(board: Arc<Board>, mesh: ActorRef<Msg>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0_u32.. {
        ticks.tick().await;
        let is_due = board.is_stirred() || n.is_multiple_of(LOOKS_A_BEAT);
        if is_due && mesh.cast(Msg::Stirred).is_err() {
            return;
        }
    }
}

/// A fortieth of a second: less than most links take, and well within the frames a peer may
/// send.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The mesh takes a turn at least every second.
const LOOKS_A_BEAT: u32 = 40;

/// How long the mesh may take no turn.
pub const SILENT_MAX: Duration = Duration::from_secs(10);

/// The most accepted links that wait in the mailbox; more wait at the endpoint.
const MAX_ACCEPTED: usize = 8;

#[cfg(test)]
mod tests;
