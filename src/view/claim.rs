//! Places that peers say they use, told within moments rather than with the next check.
//!
//! A claim is evidence of load, never a verdict: it makes an orchestrator look busier for
//! [`LIFE`] and is then forgotten. Alone it keeps nobody away; only together with a refusal
//! that this node met itself does it, for [`HOLD`], so that a peer that lies costs nobody a
//! place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::id::OrchestratorId;
use crate::view::CapabilityId;
use crate::view::outcome::Gauge;

/// What peers claim at one orchestrator: places in the low bits, milliseconds since a moment
/// their owner keeps elsewhere above them.
#[derive(Debug, Default)]
pub(crate) struct Claims(AtomicU64);

impl Claims {
    /// Takes the places that all peers together claim as of `at`.
    pub(crate) fn take(&self, since: &OnceLock<Instant>, at: Instant, places: u32) {
        let places = u64::from(places).min(PLACES_MAX);
        self.0.store(ms(since, at) << PLACES_BITS | places, Ordering::Relaxed);
    }

    /// Returns the places claimed by peers, as they count at `now`.
    #[inline]
    pub(crate) fn places(&self, since: &OnceLock<Instant>, now: Instant) -> u32 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            packed => fresh(packed, ms(since, now)),
        }
    }
}

/// When an orchestrator last said that it was full, in milliseconds and one above the number
/// of the capability it said so of, 0 for never; and how often claims were wrong since.
#[derive(Debug, Default)]
pub(crate) struct Fulness(AtomicU64, AtomicU32);

impl Fulness {
    /// Notes that it said so of `of`.
    pub(crate) fn said(&self, since: &OnceLock<Instant>, now: Instant, of: CapabilityId) {
        self.1.store(0, Ordering::Relaxed);
        self.note(since, now, of);
    }

    /// Has further work for `of` wait as after a refusal.
    pub(crate) fn note(&self, since: &OnceLock<Instant>, now: Instant, of: CapabilityId) {
        let packed = (ms(since, now) + 1) << PLACES_BITS | u64::from(of.0) & PLACES_MAX;
        self.0.store(packed, Ordering::Relaxed);
    }

    /// Notes that somebody was served though by all accounts there was no place: the next
    /// attempt need not wait, and after [`WRONG_MAX`] of them nobody does.
    pub(crate) fn was_wrong(&self, since: &OnceLock<Instant>, now: Instant, of: CapabilityId) {
        if !self.is_said(of) {
            return;
        }
        if self.1.fetch_add(1, Ordering::Relaxed) + 1 >= WRONG_MAX {
            self.0.store(0, Ordering::Relaxed);
        } else if let Some(past) = now.checked_sub(HOLD + Duration::from_millis(1)) {
            self.note(since, past, of);
        }
    }

    /// Tells whether it was ever said of `of` and not taken back.
    pub(crate) fn is_said(&self, of: CapabilityId) -> bool {
        let packed = self.0.load(Ordering::Relaxed);
        packed > 0 && packed & PLACES_MAX == u64::from(of.0) & PLACES_MAX
    }

    /// Tells whether it said so of `of` a moment ago.
    pub(crate) fn is_recent(
        &self,
        since: &OnceLock<Instant>,
        now: Instant,
        of: CapabilityId,
    ) -> bool {
        let packed = self.0.load(Ordering::Relaxed);
        let age = (ms(since, now) + 1).saturating_sub(packed >> PLACES_BITS);
        packed > 0
            && packed & PLACES_MAX == u64::from(of.0) & PLACES_MAX
            && age <= HOLD.as_millis() as u64
    }
}

/// Kept out of the way of choices among whom nobody claims anything.
#[inline(never)]
fn fresh(packed: u64, now_ms: u64) -> u32 {
    let age = now_ms.saturating_sub(packed >> PLACES_BITS);
    if age > LIFE.as_millis() as u64 { 0 } else { (packed & PLACES_MAX) as u32 }
}

fn ms(since: &OnceLock<Instant>, at: Instant) -> u64 {
    let since = *since.get_or_init(|| at);
    (at.saturating_duration_since(since).as_millis() as u64).min(MS_MAX - 1)
}

/// The orchestrators whose use peers may have to be told of: marked by requests, read by the
/// mesh. A request writes two atomics; the lock is the actors' own.
#[derive(Debug)]
pub struct Board {
    stirred: AtomicBool,
    marks: [AtomicU64; MARKS],
    gauges: Mutex<BTreeMap<OrchestratorId, Weak<Gauge>>>,
}

/// What one orchestrator is used for, as peers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which one.
    pub orchestrator: OrchestratorId,
    /// What of this node's is in flight there.
    pub in_flight: u32,
    /// Attempts of this node it turned away because it was full, since the beginning.
    pub refused: u32,
    /// Whether so few places are left that peers should know at once.
    pub scarce: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            stirred: AtomicBool::new(false),
            marks: std::array::from_fn(|_mark| AtomicU64::new(0)),
            gauges: Mutex::default(),
        }
    }
}

impl Board {
    /// Returns the counters of an orchestrator on this board, new ones where there are none.
    pub fn gauge(self: &Arc<Self>, orchestrator: OrchestratorId) -> Arc<Gauge> {
        let mut gauges = self.lock();
        if let Some(gauge) = gauges.get(&orchestrator).and_then(Weak::upgrade) {
            return gauge;
        }
        gauges.retain(|_id, it| it.strong_count() > 0);
        let gauge = Arc::new(Gauge::on(Arc::clone(self), orchestrator));
        gauges.insert(orchestrator, Arc::downgrade(&gauge));
        gauge
    }

    /// Marks an orchestrator as used otherwise than before. Two that meet in one mark: the
    /// later one stays, and the other is told of with its next record.
    #[inline]
    pub(crate) fn mark(&self, orchestrator: OrchestratorId) {
        let at = orchestrator.0 as usize % MARKS;
        self.marks[at].store(orchestrator.0, Ordering::Relaxed);
        self.stirred.store(true, Ordering::Release);
    }

    /// Tells whether anything was marked since the last [`Self::drain`].
    pub fn is_stirred(&self) -> bool {
        self.stirred.load(Ordering::Acquire)
    }

    /// Takes the marks: how each marked orchestrator is used at `now`.
    pub fn drain(&self, now: Instant) -> Vec<Use> {
        if !self.stirred.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let gauges = self.lock();
        let used = |mark: &AtomicU64| {
            let orchestrator = OrchestratorId(mark.swap(0, Ordering::Relaxed));
            let gauge = gauges.get(&orchestrator)?.upgrade()?;
            let in_flight = gauge.in_flight();
            let load = u64::from(in_flight) + u64::from(gauge.claimed(now));
            let scarce = load * SCARCE_FROM >= u64::from(gauge.places());
            Some(Use { orchestrator, in_flight, refused: gauge.refused().ever, scarce })
        };
        self.marks.iter().filter_map(used).collect()
    }

    /// Takes what each of the peers that use an orchestrator has in flight there, as of `at`.
    /// Nobody is believed to use more than all of it.
    pub fn claim(&self, at: Instant, orchestrator: OrchestratorId, in_flight: &[u32]) {
        let gauge = self.lock().get(&orchestrator).and_then(Weak::upgrade);
        let Some(gauge) = gauge else { return };
        let most = gauge.places();
        let sum = in_flight.iter().fold(0, |sum: u32, it| sum.saturating_add((*it).min(most)));
        gauge.claim(at, sum);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrchestratorId, Weak<Gauge>>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim counts for so long: by then the next health record has told of what lasts.
pub const LIFE: Duration = Duration::from_secs(2);
/// A refusal met here keeps further work away for so long, while peers claim the places. Then
/// one attempt goes, and so a place that was given back without a word is found.
pub const HOLD: Duration = LIFE;
/// Claims that were wrong so often, without a refusal in between, keep nobody waiting.
const WRONG_MAX: u32 = 3;
/// Places are scarce from an eighth in use on: the rest may be those of another runner, and
/// several nodes may take what is left at once.
const SCARCE_FROM: u64 = 8;
/// Orchestrators marked between two looks, 25 ms apart; more meet in one mark.
const MARKS: usize = 256;
/// Places stand in the low 24 bits, milliseconds in the 40 above them (34 years).
const PLACES_BITS: u32 = 24;
const PLACES_MAX: u64 = (1 << PLACES_BITS) - 1;
const MS_MAX: u64 = (1 << (64 - PLACES_BITS)) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::view::outcome::Outcome;

    const ID: OrchestratorId = OrchestratorId(77);

    #[test]
    fn a_claim_counts_for_two_seconds() {
        let (gauge, now) = (Gauge::default(), clock::now());
        assert_eq!(gauge.claimed(now), 0);
        gauge.claim(now, 7);
        assert_eq!((gauge.claimed(now), gauge.claimed(now + LIFE)), (7, 7));
        assert_eq!(gauge.claimed(now + LIFE + Duration::from_millis(1)), 0);
        gauge.claim(now + LIFE, u32::MAX);
        assert_eq!(u64::from(gauge.claimed(now + LIFE)), PLACES_MAX);
    }

    #[test]
    fn what_requests_stir_is_told_once_and_only_what_is_scarce_is_urgent() {
        let (board, now) = (Arc::new(Board::default()), clock::now());
        let gauge = board.gauge(ID);
        assert!(Arc::ptr_eq(&gauge, &board.gauge(ID)), "one set of counters each");
        gauge.set_places(10);
        assert!(!board.is_stirred() && board.drain(now).is_empty());
        gauge.begin();
        let used = |in_flight, scarce| [Use { orchestrator: ID, in_flight, refused: 0, scarce }];
        assert_eq!(board.drain(now), used(1, false));
        assert_eq!(board.drain(now), []);
        gauge.begin();
        assert_eq!(board.drain(now), used(2, true));
        (0..2).for_each(|_| gauge.end(Outcome::Neutral));
        assert_eq!(board.drain(now), used(0, false));
        board.claim(now, ID, &[3]);
        gauge.begin();
        assert_eq!(board.drain(now), used(1, true), "peers' use counts too");
        drop(gauge);
        assert_eq!(board.lock().len(), 1);
        board.gauge(OrchestratorId(78));
        assert_eq!(board.lock().len(), 1, "what is gone makes room");
    }

    #[test]
    fn a_liar_keeps_nobody_away_and_claims_at_most_all_of_it() {
        let (board, now) = (Arc::new(Board::default()), clock::now());
        let (gauge, one, other) = (board.gauge(ID), CapabilityId(1), CapabilityId(2));
        gauge.set_places(20);
        board.claim(now, ID, &[u32::MAX, 2]);
        assert_eq!(gauge.claimed(now), 22);
        assert!(!gauge.is_taken(now, one, 10), "nothing here says so");
        gauge.note_full(now, one);
        assert!(gauge.is_taken(now, one, 10) && !gauge.is_taken(now, other, 10));
        let later = now + HOLD + Duration::from_millis(1);
        board.claim(later, ID, &[u32::MAX, 2]);
        for wrong in 1..=WRONG_MAX {
            assert!(!gauge.is_taken(later, one, 10), "one tries again");
            assert!(gauge.is_against_claims(later, one, 10), "{wrong}");
            assert!(gauge.is_taken(later, one, 10), "the others wait for it");
            gauge.note_room(later, one);
        }
        assert!(!gauge.is_taken(later, one, 10) && !gauge.is_against_claims(later, one, 10));
        gauge.note_full(now, one);
        board.claim(now, ID, &[8]);
        gauge.begin();
        assert!(!gauge.is_taken(now, one, 10), "a place is free by all accounts");
        gauge.begin();
        assert!(gauge.is_taken(now, one, 10));
    }
}
