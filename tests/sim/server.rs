//! An orchestrator as a server: slots, a short queue, and what may be wrong with it.

use std::collections::VecDeque;

/// One orchestrator as it stands.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) slots: usize,
    queue_max: usize,
    busy: usize,
    waiting: VecDeque<usize>,
    pub(crate) state: State,
    /// Counts up whenever it goes down: what was begun before is lost.
    pub(crate) life: u32,
}

/// What is wrong with an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    Well,
    /// Takes all work, answers none; answers checks.
    Silent,
    /// Answers all work at once with an error; answers checks.
    FailsFast,
    /// Refuses connections.
    Down,
}

/// What becomes of work that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Begun,
    Queued,
    Refused,
}

impl Server {
    pub(crate) fn new(slots: usize, queue_max: usize) -> Self {
        Self { slots, queue_max, busy: 0, waiting: VecDeque::new(), state: State::Well, life: 0 }
    }

    /// Takes an attempt in.
    pub(crate) fn arrive(&mut self, attempt: usize) -> Arrival {
        if self.busy < self.slots {
            self.busy += 1;
            Arrival::Begun
        } else if self.waiting.len() < self.queue_max {
            self.waiting.push_back(attempt);
            Arrival::Queued
        } else {
            Arrival::Refused
        }
    }

    /// Ends one piece of work; returns the attempt begun in its place. Whoever gave up
    /// waiting is passed over.
    pub(crate) fn finish(&mut self, waits: impl Fn(usize) -> bool) -> Option<usize> {
        self.busy -= 1;
        while self.busy < self.slots {
            let next = self.waiting.pop_front()?;
            if waits(next) {
                self.busy += 1;
                return Some(next);
            }
        }
        None
    }

    /// Returns what it says is in use.
    pub(crate) fn used(&self) -> usize {
        self.busy + self.waiting.len()
    }

    /// Goes to another state; returns whoever was waiting and never will be served.
    pub(crate) fn turn(&mut self, state: State) -> Vec<usize> {
        self.state = state;
        if state != State::Down {
            return Vec::new();
        }
        self.life += 1;
        self.busy = 0;
        self.waiting.drain(..).collect()
    }
}
