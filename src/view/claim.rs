//! Places that peers say they use, told within moments rather than with the next check.
//!
//! A claim is evidence of load, never a verdict: it makes an orchestrator look busier for
//! [`LIFE`] and is then forgotten. It never takes this node's even share away; beyond that it
//! keeps work away while refusals met here bear it out, and for a few attempts, [`HOLD`]
//! apart and more, where none does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::view::CapabilityId;

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

    /// Tells whether nothing was ever taken.
    #[inline]
    pub(crate) fn is_blank(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Returns the places claimed by peers, as they count at `now`.
    #[inline]
    pub(crate) fn places(&self, since: &OnceLock<Instant>, now: Instant) -> u32 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            packed => fresh(packed, ms(since, now), LIFE),
        }
    }

    /// Returns the places taken within `life`.
    pub(crate) fn within(&self, since: &OnceLock<Instant>, now: Instant, life: Duration) -> u32 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            packed => fresh(packed, ms(since, now), life),
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
        self.is_within(since, now, HOLD) && self.is_said(of)
    }

    /// Tells whether it said so, of whatever, within `last`.
    pub(crate) fn is_within(
        &self,
        since: &OnceLock<Instant>,
        now: Instant,
        last: Duration,
    ) -> bool {
        let packed = self.0.load(Ordering::Relaxed);
        let age = (ms(since, now) + 1).saturating_sub(packed >> PLACES_BITS);
        packed > 0 && age <= last.as_millis() as u64
    }
}

/// Whether the division of an orchestrator's places is believed: what it rests on is the word
/// of peers. When it was last put to the test, and how often of late it did not pass.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    tested: AtomicU64,
    wrong: AtomicU64,
}

impl Trust {
    /// Begins anew: the next test is due after [`HOLD`].
    pub(crate) fn begin(&self, since: &OnceLock<Instant>, now: Instant) {
        self.tested.store((ms(since, now) + 1) << COUNT_BITS, Ordering::Relaxed);
    }

    /// Notes a test: the next is due after twice the time this one was.
    pub(crate) fn test(&self, since: &OnceLock<Instant>, now: Instant) {
        let n_tests = (self.tested.load(Ordering::Relaxed) & COUNT_MAX) + 1;
        let packed = (ms(since, now) + 1) << COUNT_BITS | n_tests.min(TESTS_APART_MAX);
        self.tested.store(packed, Ordering::Relaxed);
    }

    /// Notes a refusal: there was no place beyond what is divided.
    pub(crate) fn passed(&self) {
        self.wrong.store(0, Ordering::Relaxed);
    }

    /// Notes that somebody was served beyond this node's share.
    pub(crate) fn failed(&self, since: &OnceLock<Instant>, now: Instant) {
        let count = (self.n_wrong(since, now) + 1).min(COUNT_MAX);
        self.wrong.store((ms(since, now) + 1) << COUNT_BITS | count, Ordering::Relaxed);
        self.begin(since, now);
    }

    /// Tells whether work beyond the share is to wait.
    pub(crate) fn holds(&self, since: &OnceLock<Instant>, now: Instant) -> bool {
        let tested = self.tested.load(Ordering::Relaxed);
        let age = (ms(since, now) + 1).saturating_sub(tested >> COUNT_BITS);
        age <= (HOLD.as_millis() as u64) << (tested & COUNT_MAX)
            && self.n_wrong(since, now) < u64::from(WRONG_MAX)
    }

    fn n_wrong(&self, since: &OnceLock<Instant>, now: Instant) -> u64 {
        let packed = self.wrong.load(Ordering::Relaxed);
        let age = (ms(since, now) + 1).saturating_sub(packed >> COUNT_BITS);
        if age > FORGIVEN.as_millis() as u64 { 0 } else { packed & COUNT_MAX }
    }
}

/// Kept out of the way of choices among whom nobody claims anything.
#[inline(never)]
fn fresh(packed: u64, now_ms: u64, life: Duration) -> u32 {
    let age = now_ms.saturating_sub(packed >> PLACES_BITS);
    if age > life.as_millis() as u64 { 0 } else { (packed & PLACES_MAX) as u32 }
}

fn ms(since: &OnceLock<Instant>, at: Instant) -> u64 {
    let since = *since.get_or_init(|| at);
    (at.saturating_duration_since(since).as_millis() as u64).min(MS_MAX - 1)
}

/// A claim counts for so long: by then the next health record has told of what lasts.
pub const LIFE: Duration = Duration::from_secs(2);
/// A refusal met here keeps further work away for so long, while peers claim the places. Then
/// one attempt goes, and so a place that was given back without a word is found.
pub const HOLD: Duration = LIFE;
/// Claims that were wrong so often, without a refusal in between, keep nobody waiting.
const WRONG_MAX: u32 = 3;
/// How much was in use when it last said that it was full is believed for so long.
pub(crate) const LEARNED_FOR: Duration = Duration::from_secs(30);
/// After a refusal within the share, somebody outside the mesh has places: no more than were
/// in flight then are tried for so long.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// Divisions that did not pass the test are given another chance after this.
const FORGIVEN: Duration = Duration::from_secs(30);
/// The most doublings between two tests of a division that passes them: 16 s apart.
const TESTS_APART_MAX: u64 = 3;
const COUNT_BITS: u32 = 8;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Places stand in the low 24 bits, milliseconds in the 40 above them (34 years).
const PLACES_BITS: u32 = 24;
const PLACES_MAX: u64 = (1 << PLACES_BITS) - 1;
const MS_MAX: u64 = (1 << (64 - PLACES_BITS)) - 1;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::id::OrchestratorId;
    use crate::view::board::{Board, PeerNeed};
    use crate::view::outcome::Gauge;

    const ID: OrchestratorId = OrchestratorId(77);

    fn is_taken(gauge: &Gauge, now: Instant, of: CapabilityId, places: u32) -> bool {
        gauge.held_back(now, of, places, false).is_some()
    }

    fn peers(in_flight: &[u32]) -> Vec<PeerNeed> {
        let need = |(at, in_flight): (usize, &u32)| PeerNeed {
            node: format!("peer-{at}").parse().unwrap(),
            region: None,
            in_flight: *in_flight,
            waiting: 0,
            places: 0,
        };
        in_flight.iter().enumerate().map(need).collect()
    }

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
    fn a_liar_keeps_nobody_away_and_claims_at_most_all_of_it() {
        let (board, now) = (Arc::new(Board::default()), clock::now());
        let (gauge, one, other) = (board.gauge(ID), CapabilityId(1), CapabilityId(2));
        gauge.set_places(20);
        board.claim(now, 0, ID, &peers(&[u32::MAX, 2]));
        assert_eq!(gauge.claimed(now), 22);
        assert!(!is_taken(&gauge, now, one, 10), "nothing here says so");
        gauge.note_full(now, one, 10);
        assert!(is_taken(&gauge, now, one, 10) && !is_taken(&gauge, now, other, 10));
        let later = now + HOLD + Duration::from_millis(1);
        board.claim(later, 0, ID, &peers(&[u32::MAX, 2]));
        for wrong in 1..=WRONG_MAX {
            assert!(!is_taken(&gauge, later, one, 10), "one tries again");
            assert!(gauge.is_against_claims(later, one, 10), "{wrong}");
            assert!(is_taken(&gauge, later, one, 10), "the others wait for it");
            gauge.note_room(later, one);
        }
        assert!(!is_taken(&gauge, later, one, 10) && !gauge.is_against_claims(later, one, 10));
        gauge.note_full(now, one, 10);
        board.claim(now, 0, ID, &peers(&[8]));
        gauge.begin();
        assert!(!is_taken(&gauge, now, one, 10), "a place is free by all accounts");
        gauge.begin();
        assert!(is_taken(&gauge, now, one, 10));
    }
}
