//! One session, from reserved to ended.
//!
//! Sans-IO. A session belongs to one orchestrator for as long as it lives; what may end it
//! is the client's stop, the operator, idleness, or the loss of its orchestrator.

pub mod table;

use std::time::{Duration, Instant};

pub use table::{Entry, Key, Table};

/// The knobs of [`Session`].
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// A session nobody uses any more is stopped after this; one nobody ever used through
    /// this node is let go of, and left to its orchestrator.
    pub idle: Duration,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Reserved; nothing was asked of it yet.
    Reserved,
    /// In use.
    Active,
    /// Takes no new request; ends when its streams do, or at its deadline.
    Draining,
    /// Over.
    Ended,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its client stopped it.
    Stopped,
    /// Nobody used it.
    Idle,
    /// The operator ended or drained it.
    Operator,
    /// Its orchestrator no longer knows it.
    Lost,
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the orchestrator that the session is over.
    Stop,
    /// Nothing more will come of it.
    Ended(Reason),
}

/// What the request path counted for a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Requests begun.
    pub requests: u64,
    /// Requests under way.
    pub open: u32,
    /// When one last began or ended.
    pub at: Option<Instant>,
    /// What the orchestrator's answers said of its end.
    pub end: Option<Reason>,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    params: Params,
    state: State,
    used_at: Instant,
    deadline: Option<Instant>,
    stop: bool,
    ended: Option<Reason>,
}

impl Session {
    /// Starts a session that was just reserved, or adopted from another node.
    pub fn new(now: Instant, params: Params) -> Self {
        Self {
            params,
            state: State::Reserved,
            used_at: now,
            deadline: None,
            stop: false,
            ended: None,
        }
    }

    /// Takes what the request path counted, and does what has fallen due by `now`.
    pub fn handle_use(&mut self, now: Instant, counted: Use) {
        if self.state == State::Ended {
            return;
        }
        self.used_at = counted.at.unwrap_or(self.used_at).max(self.used_at);
        if counted.requests > 0 && self.state == State::Reserved {
            self.state = State::Active;
        }
        let idle = counted.open == 0 && now >= self.used_at + self.params.idle;
        let drained = self.state == State::Draining && counted.open == 0;
        let overdue = self.deadline.is_some_and(|deadline| deadline <= now);
        match counted.end {
            Some(reason) => self.finish(reason, false),
            None if drained || overdue => self.finish(Reason::Operator, true),
            // One never used through this node may be in use through another.
            None if idle => self.finish(Reason::Idle, counted.requests > 0),
            None => {}
        }
    }

    /// Ends it now.
    pub fn handle_end(&mut self) {
        if self.state != State::Ended {
            self.finish(Reason::Operator, true);
        }
    }

    /// Lets it take nothing new and ends it with its last stream, or at `deadline`.
    pub fn handle_drain(&mut self, deadline: Instant) {
        if self.state != State::Ended {
            self.state = State::Draining;
            self.deadline = Some(self.deadline.map_or(deadline, |held| held.min(deadline)));
        }
    }

    /// Returns the next thing to do, until there is none.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.stop) {
            return Some(Output::Stop);
        }
        self.ended.take().map(Output::Ended)
    }

    /// Returns when [`Self::handle_use`] must be called again at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let idle = self.used_at + self.params.idle;
        (self.state != State::Ended).then(|| self.deadline.map_or(idle, |it| it.min(idle)))
    }

    /// Returns where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    fn finish(&mut self, reason: Reason, tell: bool) {
        self.state = State::Ended;
        self.stop = tell;
        self.ended = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PARAMS: Params = Params { idle: Duration::from_secs(60) };

    fn outputs(session: &mut Session) -> Vec<Output> {
        std::iter::from_fn(|| session.poll_output()).collect()
    }

    #[test]
    fn an_idle_session_is_stopped_at_its_orchestrator() {
        let now = clock::now();
        let mut session = Session::new(now, PARAMS);
        let counted = Use { requests: 1, open: 1, at: Some(now), end: None };
        let late = now + Duration::from_secs(600);
        session.handle_use(late, counted);
        assert_eq!((session.state(), outputs(&mut session)), (State::Active, vec![]));
        session.handle_use(late, Use { open: 0, ..counted });
        assert_eq!(outputs(&mut session), [Output::Stop, Output::Ended(Reason::Idle)]);
        assert_eq!(session.next_timeout(), None);
    }

    #[test]
    fn a_session_used_through_another_node_only_is_not_stopped_here() {
        let now = clock::now();
        let mut session = Session::new(now, PARAMS);
        session.handle_use(now + PARAMS.idle, Use::default());
        assert_eq!(outputs(&mut session), [Output::Ended(Reason::Idle)]);
    }

    #[test]
    fn a_stopped_session_is_not_stopped_again() {
        let now = clock::now();
        let mut session = Session::new(now, PARAMS);
        session.handle_use(now, Use { end: Some(Reason::Stopped), ..Use::default() });
        assert_eq!(outputs(&mut session), [Output::Ended(Reason::Stopped)]);
        session.handle_end();
        assert_eq!(outputs(&mut session), []);
    }

    #[test]
    fn a_draining_session_ends_with_its_last_stream_or_at_its_deadline() {
        let now = clock::now();
        let open = Use { requests: 1, open: 1, at: Some(now), end: None };
        let deadline = now + Duration::from_secs(5);
        let mut session = Session::new(now, PARAMS);
        session.handle_drain(deadline);
        session.handle_use(now, open);
        assert_eq!((session.state(), session.next_timeout()), (State::Draining, Some(deadline)));
        session.handle_use(deadline, open);
        assert_eq!(outputs(&mut session), [Output::Stop, Output::Ended(Reason::Operator)]);
        let mut session = Session::new(now, PARAMS);
        session.handle_drain(deadline);
        session.handle_use(now, Use { open: 0, ..open });
        assert_eq!(session.state(), State::Ended);
    }
}
