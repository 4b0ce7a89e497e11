//! The sessions of this node: every row of the table has its actor.
//!
//! Owns no state but who looks after which row; the rows lie in the table. Supervised by
//! `root`, which restarts it at once; it then finds every row again. Nothing tells it of a
//! new session: it looks, four times a second, so no rate of requests fills its mailbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use crate::actors::restart::Restarts;
use crate::actors::session::{Args as ChildArgs, Msg as ChildMsg, SessionActor};
use crate::actors::shared::Shared;
use crate::clock;
use crate::clock::pulse::Pulse;
use crate::session::{Entry, Key, Params, State as Standing};

/// The actor.
#[derive(Debug)]
pub struct SessionsActor;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// A quarter of a second has passed.
    Tick,
    /// End one session now.
    End(Key),
    /// Let one session, or all, take nothing new and end by this moment.
    Drain(Option<Key>, Instant),
}

/// What it is started with, each time anew.
#[derive(Clone, Debug)]
pub struct Args {
    /// The knobs of each session.
    pub params: Params,
    /// What is shared.
    pub shared: Arc<Shared>,
}

/// What it owns while it runs.
#[derive(Debug)]
pub struct State {
    args: Args,
    children: BTreeMap<Key, ActorRef<ChildMsg>>,
    actors: BTreeMap<ActorId, Key>,
    ended: BTreeMap<Key, Instant>,
    restarts: Restarts,
    pulse: Arc<Pulse>,
    _ticking: JoinSet<()>,
}

impl Actor for SessionsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        args.shared.refs.sessions.store(Some(Arc::new(myself.clone())));
        let mut ticking = JoinSet::new();
        ticking.spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if myself.cast(Msg::Tick).is_err() {
                    return;
                }
            }
        });
        Ok(State {
            pulse: args.shared.pulses.of(clock::now(), "sessions", TICK * 50),
            args,
            children: BTreeMap::new(),
            actors: BTreeMap::new(),
            ended: BTreeMap::new(),
            restarts: Restarts::default(),
            _ticking: ticking,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick => {
                state.pulse.beat(clock::now());
                state.look(&myself).await
            }
            Msg::End(key) => {
                state.tell(&key, ChildMsg::End);
                Ok(())
            }
            Msg::Drain(which, deadline) => {
                let all: Vec<Key> = state.children.keys().cloned().collect();
                let keys = which.map_or(all, |key| vec![key]);
                keys.iter().for_each(|key| state.tell(key, ChildMsg::Drain(deadline)));
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let died = match event {
            SupervisionEvent::ActorFailed(actor, _)
            | SupervisionEvent::ActorTerminated(actor, ..) => actor,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        let Some(key) = state.actors.remove(&died.get_id()) else { return Ok(()) };
        state.children.remove(&key);
        let over =
            state.args.shared.sessions.find(&key).is_none_or(|it| it.state() == Standing::Ended);
        if !over {
            // The next look starts it again from its row.
            state.restarts.note(clock::now(), "session").ok_or("too many restarts")?;
        }
        Ok(())
    }
}

impl State {
    /// Gives every live row its actor, wakes those whose answers ended them, and forgets
    /// what ended a while ago.
    async fn look(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let now = clock::now();
        let all = self.args.shared.sessions.all();
        let mut live = 0_u32;
        for entry in &all {
            let key = entry.key();
            if entry.state() == Standing::Ended {
                let ended_at = *self.ended.entry(key.clone()).or_insert(now);
                if now.saturating_duration_since(ended_at) > REMEMBERED {
                    self.args.shared.sessions.forget(&key);
                    self.ended.remove(&key);
                }
                continue;
            }
            live += 1;
            if !self.children.contains_key(&key) {
                self.spawn(myself, &key, entry).await?;
            }
            let counted = entry.counted();
            let fresh = counted.requests > 0 && entry.state() == Standing::Reserved;
            let drained = entry.state() == Standing::Draining && counted.open == 0;
            if counted.end.is_some() || fresh || drained {
                self.tell(&key, ChildMsg::Look);
            }
        }
        gauge!("livepeer_current_sessions_total").set(f64::from(live));
        Ok(())
    }

    async fn spawn(
        &mut self,
        myself: &ActorRef<Msg>,
        key: &Key,
        entry: &Arc<Entry>,
    ) -> Result<(), ActorProcessingErr> {
        let args = ChildArgs {
            params: self.args.params,
            entry: Arc::clone(entry),
            shared: Arc::clone(&self.args.shared),
        };
        let (actor, _end) =
            Actor::spawn_linked(None, SessionActor, args, myself.get_cell()).await?;
        self.actors.insert(actor.get_id(), key.clone());
        self.children.insert(key.clone(), actor);
        Ok(())
    }

    fn tell(&self, key: &Key, msg: ChildMsg) {
        if let Some(child) = self.children.get(key) {
            // A dead child is started again and looks for itself.
            drop(child.cast(msg));
        }
    }
}

const TICK: Duration = Duration::from_millis(250);
/// An ended session is remembered this long, so that a late request is told so.
const REMEMBERED: Duration = Duration::from_secs(60);
