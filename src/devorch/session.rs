//! The sessions of the runners: who holds a slot, and until when.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::devorch::app::App;

/// Every session of one development orchestrator.
#[derive(Debug)]
pub(crate) struct Sessions {
    capacity: u32,
    idle: Duration,
    rows: BTreeMap<(App, String), Row>,
}

#[derive(Debug)]
struct Row {
    /// Requests under way.
    busy: u32,
    /// When the last one began or ended.
    used_at: Instant,
}

/// Why a session is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All slots of the runner are taken.
    Full,
    /// The session is already there.
    Exists,
}

impl Sessions {
    /// Makes an empty table of `capacity` slots for each runner, where a session ends once it
    /// was idle for `idle`.
    pub(crate) fn new(capacity: u32, idle: Duration) -> Self {
        Self { capacity: capacity.min(MAX_CAPACITY), idle, rows: BTreeMap::new() }
    }

    /// Returns how many sessions each runner may hold.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Changes that number; running sessions stay, even if they are too many.
    pub(crate) fn set_capacity(&mut self, capacity: u32) {
        self.capacity = capacity.min(MAX_CAPACITY);
    }

    /// Returns how many sessions `app` holds.
    pub(crate) fn used(&self, app: App) -> u32 {
        self.rows.keys().filter(|(it, _)| *it == app).count() as u32
    }

    /// Takes a slot.
    pub(crate) fn reserve(&mut self, now: Instant, app: App, id: &str) -> Result<(), Refused> {
        self.sweep(now);
        let key = (app, id.to_owned());
        if self.rows.contains_key(&key) {
            return Err(Refused::Exists);
        }
        if self.used(app) >= self.capacity {
            return Err(Refused::Full);
        }
        self.rows.insert(key, Row { busy: 0, used_at: now });
        Ok(())
    }

    /// Begins a request of a session; false if there is no such session.
    pub(crate) fn enter(&mut self, now: Instant, app: App, id: &str) -> bool {
        self.sweep(now);
        let Some(row) = self.rows.get_mut(&(app, id.to_owned())) else { return false };
        row.busy += 1;
        row.used_at = now;
        true
    }

    /// Ends a request of a session, which may be gone by now.
    pub(crate) fn leave(&mut self, now: Instant, app: App, id: &str) {
        if let Some(row) = self.rows.get_mut(&(app, id.to_owned())) {
            row.busy = row.busy.saturating_sub(1);
            row.used_at = now;
        }
    }

    /// Ends a session; false if there is no such session.
    pub(crate) fn end(&mut self, app: App, id: &str) -> bool {
        self.rows.remove(&(app, id.to_owned())).is_some()
    }

    /// Ends what was idle for too long.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let idle = self.idle;
        self.rows.retain(|_, row| row.busy > 0 || row.used_at + idle > now);
    }
}

/// The most slots of one runner; it bounds the table.
pub(crate) const MAX_CAPACITY: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn slots_are_counted_for_each_runner() {
        let now = crate::clock::now();
        let mut sessions = Sessions::new(1, IDLE);
        assert_eq!(sessions.reserve(now, App::Echo, "a"), Ok(()));
        assert_eq!(sessions.reserve(now, App::Echo, "a"), Err(Refused::Exists));
        assert_eq!(sessions.reserve(now, App::Echo, "b"), Err(Refused::Full));
        assert_eq!(sessions.reserve(now, App::Once, "b"), Ok(()));
        assert!(sessions.end(App::Echo, "a") && !sessions.end(App::Echo, "a"));
        assert_eq!(sessions.reserve(now, App::Echo, "b"), Ok(()));
        sessions.set_capacity(u32::MAX);
        assert_eq!((sessions.capacity(), sessions.used(App::Echo)), (MAX_CAPACITY, 1));
    }

    #[test]
    fn an_idle_session_ends_and_a_busy_one_does_not() {
        let start = crate::clock::now();
        let mut sessions = Sessions::new(2, IDLE);
        sessions.reserve(start, App::Echo, "idle").unwrap();
        sessions.reserve(start, App::Echo, "busy").unwrap();
        assert!(sessions.enter(start, App::Echo, "busy"));
        let late = start + IDLE;
        assert!(!sessions.enter(late, App::Echo, "idle"));
        assert_eq!(sessions.used(App::Echo), 1);
        sessions.leave(late, App::Echo, "busy");
        assert!(sessions.enter(late + IDLE / 2, App::Echo, "busy"));
        sessions.leave(late + IDLE / 2, App::Echo, "busy");
        sessions.sweep(late + IDLE * 2);
        assert_eq!(sessions.used(App::Echo), 0);
    }
}
