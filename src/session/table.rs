//! The sessions of this node, as the request path and the actors share them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::geo::Place;
use crate::id::{DecisionId, OrchestratorId, RegionId, SessionId};
use crate::session::{Reason, State, Use};
use crate::uri::ServiceUri;
use crate::view::outcome::{Gauge, Outcome};

/// A session's name: ids of sessions are unique within their orchestrator only.
pub type Key = (OrchestratorId, SessionId);

/// One session.
#[derive(Debug)]
pub struct Entry {
    /// Its orchestrator.
    pub orchestrator: OrchestratorId,
    /// Its id there.
    pub session: SessionId,
    /// Where the orchestrator answers.
    pub uri: ServiceUri,
    /// What runs in it; empty for a session adopted from another node.
    pub app: Arc<str>,
    /// Path of its control URL at the orchestrator; empty when only its app URL was seen.
    pub control: String,
    /// The client's home region.
    pub home: RegionId,
    /// Where the client is thought to be, as a country.
    pub caller: Place,
    /// The decision that placed it.
    pub decision: Option<DecisionId>,
    /// When it was reserved or adopted here.
    pub opened_at: Instant,
    gauge: Arc<Gauge>,
    requests: AtomicU64,
    open: AtomicU32,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    /// Milliseconds since `opened_at`.
    used_ms: AtomicU64,
    state: AtomicU8,
    end: AtomicU8,
    /// Milliseconds since `opened_at`; [`NEVER`] while it is not drained.
    drain_by_ms: AtomicU64,
}

/// What makes an [`Entry`].
#[derive(Debug)]
pub struct Opening {
    /// Its orchestrator.
    pub orchestrator: OrchestratorId,
    /// Its id there.
    pub session: SessionId,
    /// Where the orchestrator answers.
    pub uri: ServiceUri,
    /// What runs in it.
    pub app: Arc<str>,
    /// Path of its control URL at the orchestrator.
    pub control: String,
    /// The client's home region.
    pub home: RegionId,
    /// Where the client is thought to be.
    pub caller: Place,
    /// The decision that placed it.
    pub decision: Option<DecisionId>,
    /// The counters of its orchestrator.
    pub gauge: Arc<Gauge>,
}

impl Entry {
    /// Counts a request in; the guard counts it out. `None` when the session takes no more.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Option<Using> {
        match self.state() {
            State::Reserved | State::Active => {}
            State::Draining | State::Ended => return None,
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.touch(now);
        Some(Using(Arc::clone(self)))
    }

    /// Counts bytes carried.
    pub fn count(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Ordering::Relaxed);
        self.bytes_down.fetch_add(down, Ordering::Relaxed);
    }

    /// Notes that the orchestrator's answer ended it.
    pub fn note_end(&self, reason: Reason) {
        self.end.store(code(reason), Ordering::Release);
    }

    /// Returns where it stands.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Reserved,
            1 => State::Active,
            2 => State::Draining,
            _ => State::Ended,
        }
    }

    /// Sets where it stands; called by the actor that owns it.
    pub fn set_state(&self, state: State) {
        let number = match state {
            State::Reserved => 0,
            State::Active => 1,
            State::Draining => 2,
            State::Ended => 3,
        };
        let before = self.state.swap(number, Ordering::AcqRel);
        if number == 3 && before != 3 {
            self.gauge.end(Outcome::Neutral);
        }
    }

    /// Notes by when it is to be over, the earliest if told twice; a drain outlives the actor
    /// that carries it out.
    pub fn note_drain(&self, deadline: Instant) {
        let ms = deadline.saturating_duration_since(self.opened_at).as_millis() as u64;
        self.drain_by_ms.fetch_min(ms, Ordering::AcqRel);
    }

    /// Returns by when it is to be over, once it is drained.
    pub fn drain_by(&self) -> Option<Instant> {
        let ms = self.drain_by_ms.load(Ordering::Acquire);
        (ms != NEVER).then(|| self.opened_at + Duration::from_millis(ms))
    }

    /// Returns what was counted.
    pub fn counted(&self) -> Use {
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        Use {
            requests: self.requests.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            at: Some(self.opened_at + Duration::from_millis(used_ms)),
            end: reason(self.end.load(Ordering::Acquire)),
        }
    }

    /// Returns bytes carried up and down.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.load(Ordering::Relaxed), self.bytes_down.load(Ordering::Relaxed))
    }

    /// Returns the key of the table.
    pub fn key(&self) -> Key {
        (self.orchestrator, self.session.clone())
    }

    fn touch(&self, now: Instant) {
        let age = now.saturating_duration_since(self.opened_at).as_millis() as u64;
        self.used_ms.fetch_max(age, Ordering::Relaxed);
    }
}

/// One request under way within a session.
#[derive(Debug)]
pub struct Using(Arc<Entry>);

impl Using {
    /// Returns the session.
    pub fn session(&self) -> &Arc<Entry> {
        &self.0
    }

    /// Counts the request out at `now`.
    pub fn end(self, now: Instant) {
        self.0.touch(now);
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The table.
#[derive(Debug)]
pub struct Table {
    rows: Mutex<BTreeMap<Key, Arc<Entry>>>,
    max: usize,
}

impl Table {
    /// Makes a table of at most `max` sessions, ended ones that are still remembered
    /// included.
    pub fn new(max: usize) -> Self {
        Self { rows: Mutex::default(), max }
    }

    /// Tells whether one more fits; asked before anything is reserved.
    pub fn has_room(&self) -> bool {
        self.lock().len() < self.max
    }

    /// Puts a session in, or returns the one that is there; it counts as in flight at its
    /// orchestrator until it ends. A full table still takes it, since it was reserved:
    /// [`Self::has_room`] holds the bound.
    pub fn open(&self, now: Instant, opening: Opening) -> Arc<Entry> {
        let key = (opening.orchestrator, opening.session.clone());
        let mut rows = self.lock();
        let entry = rows.entry(key).or_insert_with(|| {
            opening.gauge.hold();
            Arc::new(Entry {
                orchestrator: opening.orchestrator,
                session: opening.session,
                uri: opening.uri,
                app: opening.app,
                control: opening.control,
                home: opening.home,
                caller: opening.caller,
                decision: opening.decision,
                opened_at: now,
                gauge: opening.gauge,
                requests: AtomicU64::new(0),
                open: AtomicU32::new(0),
                bytes_up: AtomicU64::new(0),
                bytes_down: AtomicU64::new(0),
                used_ms: AtomicU64::new(0),
                state: AtomicU8::new(0),
                end: AtomicU8::new(0),
                drain_by_ms: AtomicU64::new(NEVER),
            })
        });
        Arc::clone(entry)
    }

    /// Returns a session.
    pub fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        self.lock().get(key).cloned()
    }

    /// Returns the session of that id, whoever its orchestrator is; the first one when two
    /// orchestrators gave the same.
    pub fn find_by_id(&self, session: &str) -> Option<Arc<Entry>> {
        self.lock().values().find(|it| it.session.as_str() == session).cloned()
    }

    /// Returns every session, by orchestrator.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    /// Forgets a session.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Entry>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn code(reason: Reason) -> u8 {
    match reason {
        Reason::Stopped => 1,
        Reason::Idle => 2,
        Reason::Operator => 3,
        Reason::Lost => 4,
    }
}

fn reason(code: u8) -> Option<Reason> {
    [None, Some(Reason::Stopped), Some(Reason::Idle), Some(Reason::Operator), Some(Reason::Lost)]
        .get(usize::from(code))
        .copied()
        .flatten()
}

const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::geo::{Confidence, Point};

    fn opening(gauge: &Arc<Gauge>, id: &str) -> Opening {
        let point = Point::new(0.0, 0.0).unwrap();
        Opening {
            orchestrator: OrchestratorId(1),
            session: id.parse().unwrap(),
            uri: "https://o:1".parse().unwrap(),
            app: "demo/echo".into(),
            control: "/apps/echo/session/s".into(),
            home: "FRA".parse().unwrap(),
            caller: Place { point, country: None, confidence: Confidence::Unknown },
            decision: None,
            gauge: Arc::clone(gauge),
        }
    }

    #[test]
    fn a_session_is_in_flight_at_its_orchestrator_until_it_ends_once() {
        let (table, gauge) = (Table::new(2), Arc::new(Gauge::default()));
        let entry = table.open(clock::now(), opening(&gauge, "a"));
        table.open(clock::now(), opening(&gauge, "a"));
        assert_eq!(gauge.in_flight(), 1);
        entry.set_state(State::Ended);
        entry.set_state(State::Ended);
        assert_eq!(gauge.in_flight(), 0);
    }

    #[test]
    fn a_draining_session_takes_nothing_new() {
        let (table, gauge) = (Table::new(2), Arc::new(Gauge::default()));
        let entry = table.open(clock::now(), opening(&gauge, "a"));
        let using = entry.begin(clock::now()).unwrap();
        entry.set_state(State::Draining);
        assert!(entry.begin(clock::now()).is_none());
        assert_eq!(entry.counted().open, 1);
        drop(using);
        assert_eq!((entry.counted().open, entry.counted().requests), (0, 1));
    }

    #[test]
    fn the_table_is_bounded_before_the_reservation() {
        let (table, gauge) = (Table::new(1), Arc::new(Gauge::default()));
        assert!(table.has_room());
        let entry = table.open(clock::now(), opening(&gauge, "a"));
        assert!(!table.has_room());
        table.forget(&entry.key());
        assert!(table.has_room());
    }
}
