//! One orchestrator: asks it how it is, folds in what requests found, writes its row.
//!
//! Owns an [`Orchestrator`]. Supervised by `directory`, which restarts it empty; its last
//! row stays in the View until the new one has heard from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use rand::RngExt;
use tokio::task::JoinSet;

use crate::actors::directory;
use crate::actors::shared::Shared;
use crate::clock;
use crate::geo::Point;
use crate::id::OrchestratorId;
use crate::orchestrator::evidence::Told;
use crate::orchestrator::{Answer, CheckFailure, Declared, Orchestrator, Output, Params};
use crate::upstream::check::check;
use crate::upstream::pin;
use crate::view::outcome::Gauge;

/// The actor.
#[derive(Debug)]
pub struct OrchestratorActor;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Ask it how it is.
    Check,
    /// A check ended.
    Checked(Result<Answer, CheckFailure>),
    /// Requests were counted: take them.
    Drain,
    /// What peers see of it now.
    Told(Vec<Told>),
    /// The knobs are others than before.
    Params(Params),
    /// Its declaration changed.
    Declared(Declared),
    /// Stop or resume giving it new work.
    SetDraining(bool),
    /// The alarm set for the machine's next timeout went off.
    Alarm,
}

/// What it is started with.
#[derive(Debug)]
pub struct Args {
    /// The knobs.
    pub params: Params,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// Who it is.
    pub declared: Declared,
    /// Where this node is.
    pub home: Point,
    /// Its counters; they outlive the actor.
    pub gauge: Arc<Gauge>,
    /// What is shared.
    pub shared: Arc<Shared>,
    /// Whom to tell.
    pub directory: ActorRef<directory::Msg>,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    id: OrchestratorId,
    machine: Orchestrator,
    args: Args,
    checks: JoinSet<()>,
    info_at: Option<Instant>,
    alarm: Option<JoinHandle<Result<(), MessagingErr<Msg>>>>,
}

impl Actor for OrchestratorActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let gauge = Arc::clone(&args.gauge);
        let draw = rand::rng().random();
        let declared = args.declared.clone();
        let machine =
            Orchestrator::new(clock::now(), args.params, declared, args.home, gauge, draw);
        let id = OrchestratorId::of(&args.declared.uri);
        Ok(State { id, machine, args, checks: JoinSet::new(), info_at: None, alarm: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = clock::now();
        match msg {
            Msg::Check => state.check(now, &myself),
            Msg::Checked(end) => state.checked(now, end),
            Msg::Drain => {
                state.args.gauge.note_usual(now);
                state.machine.handle_outcomes(now, &state.args.gauge.drain());
            }
            Msg::Told(told) => state.machine.handle_told(now, told),
            Msg::Params(params) => state.machine.handle_params(params),
            Msg::Declared(declared) => {
                state.args.declared = declared.clone();
                state.machine.handle_declared(declared);
            }
            Msg::SetDraining(draining) => state.machine.handle_drain(draining),
            Msg::Alarm => state.machine.handle_timeout(now),
        }
        state.perform(now)?;
        state.set_alarm(now, &myself);
        Ok(())
    }
}

impl State {
    /// Starts a check beside the mailbox; its end comes back as a message.
    fn check(&mut self, now: Instant, myself: &ActorRef<Msg>) {
        let due = |at: Instant| now.saturating_duration_since(at) >= INFO_EVERY;
        let ask_info = self.info_at.is_none_or(due);
        if ask_info {
            self.info_at = Some(now);
        }
        let (shared, myself) = (Arc::clone(&self.args.shared), myself.clone());
        let (uri, timeout) = (self.args.declared.uri.clone(), self.args.check_timeout);
        // One check at a time: the directory starts the next only when told of the end.
        while self.checks.try_join_next().is_some() {}
        self.checks.spawn(async move {
            let end = check(shared.upstream.dialer(), &uri, ask_info, timeout).await;
            // An actor that is gone needs no answer.
            drop(myself.cast(Msg::Checked(end)));
        });
    }

    fn checked(&mut self, now: Instant, end: Result<Answer, CheckFailure>) {
        if matches!(end, Err(CheckFailure::Pin)) {
            let taken = self.args.shared.upstream.dialer().pins.repin(now, self.id);
            tracing::warn!(
                orchestrator = %self.id,
                taken,
                after_s = pin::REPIN_AFTER.as_secs(),
                "its certificate changed; it gets no requests until the new one has lasted",
            );
        }
        if end.is_err() {
            self.info_at = None;
        }
        let answered = end.is_ok();
        self.machine.handle_check(now, end);
        // A directory that is gone takes this actor with it.
        drop(self.args.directory.cast(directory::Msg::Checked(self.id, answered)));
        let instances = self.machine.instances().to_vec();
        drop(self.args.directory.cast(directory::Msg::Instances(self.id, instances)));
    }

    /// Carries out everything the machine has asked for.
    fn perform(&mut self, now: Instant) -> Result<(), ActorProcessingErr> {
        while let Some(output) = self.machine.poll_output() {
            let news = match output {
                Output::Changed => {
                    let row = self.machine.row(now, |name| self.args.shared.intern(name));
                    directory::Msg::Row(Box::new(row), self.machine.observation(now))
                }
                Output::Doubt => directory::Msg::Doubt(self.id),
            };
            self.args.directory.cast(news)?;
        }
        Ok(())
    }

    fn set_alarm(&mut self, now: Instant, myself: &ActorRef<Msg>) {
        let next = self
            .machine
            .next_timeout(now)
            .map(|at| myself.send_after(at.saturating_duration_since(clock::now()), || Msg::Alarm));
        if let Some(old) = std::mem::replace(&mut self.alarm, next) {
            old.abort();
        }
    }
}

/// Capabilities, prices and further instances change seldom.
const INFO_EVERY: Duration = Duration::from_secs(60);
