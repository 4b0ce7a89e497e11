//! One long-lived session.
//!
//! Owns a [`Session`]. Supervised by `sessions`, which restarts it from its row: nothing is
//! lost, for all that counts lies there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};
use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};

use crate::actors::shared::Shared;
use crate::clock;
use crate::session::{Entry, Output, Params, Reason, Session};
use crate::upstream::Body;

/// The actor.
#[derive(Debug)]
pub struct SessionActor;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Look at what was counted.
    Look,
    /// End it now.
    End,
    /// Let it take nothing new and end by this moment.
    Drain(Instant),
}

/// What it is started with.
#[derive(Debug)]
pub struct Args {
    /// The knobs.
    pub params: Params,
    /// Its row.
    pub entry: Arc<Entry>,
    /// What is shared.
    pub shared: Arc<Shared>,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    machine: Session,
    args: Args,
    alarm: Option<JoinHandle<Result<(), MessagingErr<Msg>>>>,
}

impl Actor for SessionActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let mut machine = Session::new(args.entry.opened_at, args.params);
        if let Some(deadline) = args.entry.drain_by() {
            machine.handle_drain(deadline);
        }
        let mut state = State { machine, args, alarm: None };
        state.set_alarm(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let counted = state.args.entry.counted();
        match msg {
            Msg::Look => state.machine.handle_use(clock::now(), counted),
            Msg::End => state.machine.handle_end(),
            Msg::Drain(deadline) => {
                state.args.entry.note_drain(deadline);
                state.machine.handle_drain(deadline);
                state.machine.handle_use(clock::now(), counted);
            }
        }
        state.args.entry.set_state(state.machine.state());
        if state.perform().await.is_some() {
            myself.stop(None);
        }
        state.set_alarm(&myself);
        Ok(())
    }
}

impl State {
    /// Carries out what the machine has asked for; returns why the session ended, if it did.
    async fn perform(&mut self) -> Option<Reason> {
        let mut ended = None;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Stop => self.stop().await,
                Output::Ended(reason) => {
                    let entry = &self.args.entry;
                    tracing::info!(session = %entry.session, ?reason, "session ended");
                    if reason == Reason::Idle && entry.counted().requests == 0 {
                        // Let go of, not ended: it may live on through another node.
                        self.args.shared.sessions.forget(&entry.key());
                    }
                    ended = Some(reason);
                }
            }
        }
        ended
    }

    /// Tells the orchestrator. Nobody waits for this actor but its own alarm, so the call is
    /// made here; an orchestrator that cannot be told lets the session run out by itself.
    async fn stop(&self) {
        let entry = &self.args.entry;
        if entry.control.is_empty() {
            return;
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/stop", entry.control))
            .header(header::HOST, entry.uri.host_field())
            .header(header::CONTENT_LENGTH, 0)
            .body(Body::Empty);
        let Ok(request) = request else { return };
        let told = tokio::time::timeout(STOP_TIMEOUT, self.tell(request)).await;
        if !matches!(told, Ok(Some(()))) {
            tracing::debug!(session = %entry.session, "the orchestrator was not told of the end");
        }
    }

    async fn tell(&self, request: Request<Body>) -> Option<()> {
        let (entry, shared) = (&self.args.entry, &self.args.shared);
        let view = shared.view.load_full();
        let (_slot, row) = view.orchestrator(entry.orchestrator)?;
        let mut lease =
            shared.upstream.lease(row.id, &row.uri, &row.gauge, clock::now()).await.ok()?;
        let answer = lease.send_within(request, STOP_TIMEOUT).await.ok()?;
        Limited::new(answer.into_body(), 64 * 1024).collect().await.ok()?;
        lease.put_back(clock::now());
        Some(())
    }

    fn set_alarm(&mut self, myself: &ActorRef<Msg>) {
        let next = self.machine.next_timeout().map(|at| {
            let wait = at.saturating_duration_since(clock::now()).max(LOOK_AT_MOST_EVERY);
            myself.send_after(wait, || Msg::Look)
        });
        if let Some(old) = std::mem::replace(&mut self.alarm, next) {
            old.abort();
        }
    }
}

/// What telling an orchestrator of the end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// An overdue session with an open stream is not looked at more often than this.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(200);
