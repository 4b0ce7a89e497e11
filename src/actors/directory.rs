//! The directory: who the orchestrators are, when each is checked, and the View.
//!
//! Owns a [`Directory`] and is the only writer of the View, at most ten times a second.
//! Supervised by `root`, which restarts it at once: requests go on with the last View while
//! it hears from everyone again. Supervises one `orchestrator` each.

mod children;
mod configured;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::{AbortHandle, JoinSet};

use crate::actors::mesh::PeerNews;
use crate::actors::orchestrator;
use crate::actors::restart::Restarts;
use crate::actors::shared::Shared;
use crate::actors::sources;
use crate::clock;
use crate::clock::pulse::Pulse;
use crate::directory::{Directory, Named, Params, Source};
use crate::health::Observation;
use crate::id::OrchestratorId;
use crate::region::RegionMap;
use crate::uri::ServiceUri;
use crate::view::Row;

/// The actor.
#[derive(Debug)]
pub struct DirectoryActor;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// A tenth of a second has passed.
    Tick,
    /// A source was read.
    Source(Source, Vec<Named>),
    /// A check ended, and whether it was answered.
    Checked(OrchestratorId, bool),
    /// An orchestrator's row changed, and with it what peers are to be told.
    Row(Box<Row>, Observation),
    /// Something was said of an orchestrator that should be seen with one's own eyes.
    Doubt(OrchestratorId),
    /// An orchestrator named further instances.
    Instances(OrchestratorId, Vec<ServiceUri>),
    /// Peers see something else than before.
    News(PeerNews),
    /// Stop or resume giving work to an orchestrator.
    SetDraining(OrchestratorId, bool),
    /// What the configuration names is another than before.
    Reload,
    /// A child's moment of rest after its death is over.
    Respawn(OrchestratorId),
}

/// What it is started with, each time anew.
#[derive(Clone, Debug)]
pub struct Args {
    /// The knobs.
    pub params: Params,
    /// What the configuration names; swapped by a reload.
    pub named: Arc<ArcSwap<Configured>>,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// The regions.
    pub regions: Arc<RegionMap>,
    /// What is shared.
    pub shared: Arc<Shared>,
}

/// What a configuration says of orchestrators.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The knobs of each.
    pub orchestrator: crate::orchestrator::Params,
    /// Those it lists.
    pub listed: Vec<Named>,
    /// Lists to fetch.
    pub fetched: Vec<sources::Fetch>,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    args: Args,
    machine: Directory,
    children: BTreeMap<OrchestratorId, Child>,
    actors: BTreeMap<ActorId, OrchestratorId>,
    restarts: Restarts,
    changes: BTreeMap<OrchestratorId, Option<Arc<Row>>>,
    observed: Vec<Observation>,
    /// Named by nobody any more, but with sessions that have not ended.
    leaving: BTreeSet<OrchestratorId>,
    alarm_at: Option<Instant>,
    /// Who reads which list.
    pollers: BTreeMap<ServiceUri, (sources::Fetch, AbortHandle)>,
    /// Shows that the ticks still come.
    pulse: Arc<Pulse>,
    /// Pollers of sources, the ticker and the reader of news; they end with the actor.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Child {
    actor: ActorRef<orchestrator::Msg>,
    named: Named,
    draining: bool,
}

impl Actor for DirectoryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let mut tasks = JoinSet::new();
        tasks.spawn(tick(myself.clone()));
        tasks.spawn(hear(Arc::clone(&args.shared), myself.clone()));
        let now = clock::now();
        let mut state = State {
            pulse: args.shared.pulses.of(now, "directory", TICK * 50),
            machine: Directory::new(now, args.params),
            args,
            pollers: BTreeMap::new(),
            children: BTreeMap::new(),
            actors: BTreeMap::new(),
            restarts: Restarts::default(),
            changes: BTreeMap::new(),
            observed: Vec::new(),
            leaving: BTreeSet::new(),
            alarm_at: None,
            tasks,
        };
        state.configure(now, &myself);
        state.take_over(now);
        state.args.shared.refs.directory.store(Some(Arc::new(myself.clone())));
        state.perform(&myself).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = clock::now();
        match msg {
            Msg::Tick => {
                state.pulse.beat(now);
                state.tick(now).await?;
            }
            Msg::Source(source, named) => state.machine.handle_source(now, source, named),
            Msg::Checked(id, answered) => state.machine.handle_checked(now, id, answered),
            Msg::Row(row, observation) => state.take_row(row, observation),
            Msg::Doubt(id) => state.machine.handle_doubt(now, id),
            Msg::Instances(id, uris) => state.take_instances(now, id, uris),
            Msg::News(news) => state.pass_news(now, &news),
            Msg::SetDraining(id, draining) => state.set_draining(id, draining),
            Msg::Reload => state.reload(now, &myself),
            Msg::Respawn(id) => state.respawn(&myself, id).await?,
        }
        state.perform(&myself).await?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, _)
            | SupervisionEvent::ActorTerminated(actor, ..) => state.bury(&myself, actor.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

async fn tick(myself: ActorRef<Msg>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if myself.cast(Msg::Tick).is_err() {
            return;
        }
    }
}

/// Passes on what the mesh tells; the mesh itself sees to it that this is seldom.
async fn hear(shared: Arc<Shared>, myself: ActorRef<Msg>) {
    let mut news = shared.news.lock().await;
    while let Some(news) = news.recv().await {
        if myself.cast(Msg::News(news)).is_err() {
            return;
        }
    }
}

/// A View is published at most this often.
const TICK: Duration = Duration::from_millis(100);
