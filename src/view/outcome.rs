//! The counters the request path writes and the actors drain.
//!
//! Nothing at request rate is ever a message: an outcome is a handful of atomic additions
//! and one slot of a ring, whatever the load.

mod held;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::id::OrchestratorId;
use crate::unit::Micros;
use crate::view::board::Board;
use crate::view::claim::{Claims, Fulness, Trust};
use crate::view::promise::Promises;
use crate::view::rest::{Rest, Resting};

pub use self::held::HeldBack;

/// What the request path counts for one orchestrator.
///
/// What every choice reads stands together at the front and fills one line of the cache: a
/// scan of 10,000 waits for memory 10,000 times, not three times as often.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Gauge {
    in_flight: AtomicU32,
    warm: AtomicU32,
    /// Capacity refusals since the beginning: by it a row tells which it has taken in.
    refused_ever: AtomicU32,
    /// What of ours was in flight at the last of them.
    full_at: AtomicU32,
    promises: Promises,
    rest: Rest,
    claims: Claims,
    probing: AtomicBool,
    /// Whether it is in another region than this node.
    away: AtomicBool,
    dirty: AtomicBool,
    /// What the times in `promises` are counted from; set with the first. It stands behind
    /// the line, since nobody looks for it while nothing is promised.
    promised_since: OnceLock<Instant>,
    /// The same of `rest`.
    rested_since: OnceLock<Instant>,
    started: AtomicU32,
    successes: AtomicU32,
    failures: AtomicU32,
    refusals: AtomicU32,
    next: AtomicU32,
    times: Times,
    full: Fulness,
    /// One more than the places that are this node's while peers want some.
    share: Claims,
    /// Whether that share ends where other regions' part of the places does.
    is_guest: AtomicBool,
    trust: Trust,
    /// What the times in `claims`, `full`, `share` and `trust` are counted from; set with the
    /// first.
    claimed_since: OnceLock<Instant>,
    /// What all together had there when it last said that it was full.
    learned: Claims,
    /// The places of what was last sought there.
    sought: AtomicU32,
    /// Requests that wait for a place here.
    waiting: AtomicU32,
    /// Places kept for requests that have waited and are on their way.
    reserved: AtomicU32,
    /// What of ours is in flight here while the own region is not full.
    usual: AtomicU32,
    /// What all its runners take at once, by its own word; 0 while it gives none.
    places: AtomicU32,
    /// Where changes of use are marked for peers, and under which id.
    board: Option<(Arc<Board>, OrchestratorId)>,
}

#[derive(Debug)]
struct Times([AtomicU64; Gauge::RING]);

impl Default for Times {
    fn default() -> Self {
        Self(std::array::from_fn(|_slot| AtomicU64::new(0)))
    }
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Served; the time from the last byte sent to the first byte answered, and the offer's
    /// position in the row.
    Served {
        /// Service time: the answer's delay less one round trip.
        service: Micros,
        /// Position of the offer in its row.
        offer: u8,
    },
    /// Full: it said so. Lowers capacity, never health.
    Full,
    /// Broken: refused, reset, silent, or an answer of the 5xx kind.
    Failed,
    /// Broken in a way that no moment heals: a name that leads nowhere, a certificate that is
    /// not its own. Counts as so many failures in a row that it is put aside.
    Lasting,
    /// Neither its fault nor its merit: the client's error, or the client went away.
    Neutral,
}

/// Capacity refusals, as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many there were since the beginning.
    pub ever: u32,
    /// What of ours was in flight at the last of them.
    pub full_at: u32,
}

impl Refused {
    /// Returns how much of ours was in flight when it last said that it was full, unless a
    /// row that has taken in `known` refusals knows of that already.
    #[inline]
    pub fn news(self, known: u32) -> Option<u32> {
        (self.ever != known).then_some(self.full_at)
    }
}

/// What was counted since the last drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Attempts begun.
    pub started: u32,
    /// Attempts served.
    pub successes: u32,
    /// Attempts that broke.
    pub failures: u32,
    /// Capacity refusals.
    pub refusals: u32,
    /// The same since the beginning.
    pub refused: Refused,
    /// Service times with the offer they belong to; the latest [`Gauge::RING`] at most.
    pub times: Vec<(u8, Micros)>,
}

impl Gauge {
    /// Service times kept between two drains; more are forgotten, oldest first.
    pub const RING: usize = 64;

    /// What a failure that will not heal counts as: the failures in a row that suspend, by
    /// default.
    const LASTING: u32 = 5;

    /// Starts with nothing counted, and marks on `board` whenever something is.
    pub(crate) fn on(board: Arc<Board>, orchestrator: OrchestratorId) -> Self {
        Self { board: Some((board, orchestrator)), ..Self::default() }
    }

    fn stir(&self) {
        if let Some((board, orchestrator)) = &self.board {
            board.mark(*orchestrator);
        }
    }

    /// Sets what all its runners take at once by its own word; 0 where it gives none.
    pub fn set_places(&self, places: u32) {
        self.places.store(places, Ordering::Relaxed);
    }

    /// Returns what all its runners take at once by its own word.
    pub(crate) fn places(&self) -> u32 {
        self.places.load(Ordering::Relaxed)
    }

    /// Takes the places that all peers together use as of `at`.
    pub fn claim(&self, at: Instant, places: u32) {
        self.claims.take(&self.claimed_since, at, places);
    }

    /// Returns the places peers use, by what they told within the last moments.
    #[inline]
    pub fn claimed(&self, now: Instant) -> u32 {
        self.claims.places(&self.claimed_since, now)
    }

    /// Leaves it alone for `wait`, as it asked.
    pub fn rest(&self, now: Instant, wait: Duration) {
        self.rest.take(&self.rested_since, now, wait);
    }

    /// Returns until when it is to be left alone.
    #[inline]
    pub fn resting(&self) -> Resting {
        self.rest.read(&self.rested_since)
    }

    /// Counts an attempt in; returns what is in flight with it.
    pub fn begin(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed);
        let with_it = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.stir();
        with_it
    }

    /// Counts a session in whose reservation was counted as an attempt of its own.
    pub fn hold(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.stir();
    }

    /// Counts an attempt out.
    pub fn end(&self, outcome: Outcome) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.stir();
        match outcome {
            Outcome::Served { service, offer } => {
                self.successes.fetch_add(1, Ordering::Relaxed);
                let at = self.next.fetch_add(1, Ordering::Relaxed) as usize % Self::RING;
                let packed = service.0.min(TIME_MAX) << 8 | u64::from(offer);
                self.times.0[at].store(packed + 1, Ordering::Relaxed);
            }
            Outcome::Full => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                self.full_at.store(before.saturating_sub(1), Ordering::Relaxed);
                self.refused_ever.fetch_add(1, Ordering::Release);
            }
            Outcome::Failed => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Lasting => {
                self.failures.fetch_add(Self::LASTING, Ordering::Relaxed);
            }
            Outcome::Neutral => {}
        }
        self.dirty.store(true, Ordering::Release);
        self.ring();
    }

    /// Counts a failure of something that was already counted out, such as a stream cut
    /// after its head.
    pub fn fail_late(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Release);
    }

    /// Promises `milli` thousandths of a place to a client that was shown this orchestrator,
    /// for work that keeps its place for `holding`. Counts as traffic, so that the
    /// orchestrator is soon asked how full it is.
    pub fn promise(&self, now: Instant, milli: u32, holding: Micros) {
        self.promises.add(&self.promised_since, now, milli, holding);
        self.dirty.store(true, Ordering::Release);
    }

    /// Takes back `milli` thousandths of what was promised: the orchestrator's own figures
    /// show them.
    pub fn settle(&self, now: Instant, milli: u32) {
        self.promises.settle(&self.promised_since, now, milli);
    }

    /// Returns what is left of what was promised, in thousandths of a place.
    #[inline]
    pub fn promised_milli(&self, now: Instant) -> u32 {
        self.promises.milli(&self.promised_since, now)
    }

    /// Returns the attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the capacity refusals since the beginning, and what of ours was in flight at
    /// the last of them.
    #[inline]
    pub fn refused(&self) -> Refused {
        Refused {
            ever: self.refused_ever.load(Ordering::Acquire),
            full_at: self.full_at.load(Ordering::Relaxed),
        }
    }

    /// Returns the idle connections kept to it.
    pub fn warm(&self) -> u32 {
        self.warm.load(Ordering::Relaxed)
    }

    /// Sets the number of idle connections kept to it.
    pub fn set_warm(&self, connections: u32) {
        self.warm.store(connections, Ordering::Relaxed);
    }

    /// Takes the one place of an orchestrator in probation; `false` when it is taken.
    pub fn take_probe(&self) -> bool {
        !self.probing.swap(true, Ordering::AcqRel)
    }

    /// Gives the place of a probe back.
    pub fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// Tells whether a probe is under way.
    pub fn is_probing(&self) -> bool {
        self.probing.load(Ordering::Acquire)
    }

    /// Tells whether anything was counted since the last drain.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Takes what was counted since the last drain.
    pub fn drain(&self) -> Drained {
        self.dirty.store(false, Ordering::Release);
        let take = |counter: &AtomicU32| counter.swap(0, Ordering::Relaxed);
        let unpack = |packed: u64| ((packed & 0xff) as u8, Micros(packed >> 8));
        let times = self.times.0.iter().map(|slot| slot.swap(0, Ordering::Relaxed));
        Drained {
            started: take(&self.started),
            successes: take(&self.successes),
            failures: take(&self.failures),
            refused: self.refused(),
            refusals: take(&self.refusals),
            times: times.filter_map(|packed| Some(unpack(packed.checked_sub(1)?))).collect(),
        }
    }
}

/// An hour: a longer service time counts as this.
const TIME_MAX: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_drained_once() {
        let gauge = Gauge::default();
        for outcome in [
            Outcome::Served { service: Micros(1500), offer: 2 },
            Outcome::Full,
            Outcome::Failed,
            Outcome::Neutral,
        ] {
            gauge.begin();
            gauge.end(outcome);
        }
        assert!(gauge.is_dirty());
        let expected = Drained {
            started: 4,
            successes: 1,
            failures: 1,
            refusals: 1,
            refused: Refused { ever: 1, full_at: 0 },
            times: vec![(2, Micros(1500))],
        };
        assert_eq!(gauge.drain(), expected);
        let refused = Refused { ever: 1, full_at: 0 };
        let nothing = Drained { refused, ..Drained::default() };
        assert_eq!((gauge.drain(), gauge.is_dirty()), (nothing, false));
        assert_eq!(gauge.in_flight(), 0);
    }

    #[test]
    fn the_ring_keeps_no_more_than_it_holds() {
        let gauge = Gauge::default();
        for _ in 0..1000 {
            gauge.begin();
            gauge.end(Outcome::Served { service: Micros(u64::MAX), offer: 255 });
        }
        let drained = gauge.drain();
        assert_eq!((drained.successes, drained.times.len()), (1000, Gauge::RING));
        assert_eq!(drained.times[0], (255, Micros(TIME_MAX)));
    }

    #[test]
    fn a_refusal_is_news_until_a_row_has_taken_it_in() {
        let gauge = Gauge::default();
        for _ in 0..3 {
            gauge.begin();
        }
        assert_eq!(gauge.refused().news(0), None);
        gauge.end(Outcome::Full);
        assert_eq!((gauge.refused().news(0), gauge.refused().news(1)), (Some(2), None));
    }

    #[test]
    fn what_every_choice_reads_fills_one_line() {
        assert!(std::mem::offset_of!(Gauge, dirty) < 64);
    }

    #[test]
    fn only_one_probe_goes_at_a_time() {
        let gauge = Gauge::default();
        assert!(gauge.take_probe());
        assert!(!gauge.take_probe());
        gauge.end_probe();
        assert!(gauge.take_probe());
    }
}
