//! How fast work turns to other regions when its own is full.
//!
//! Who fills the last place of somebody in the own region, or is refused for lack of one,
//! begins a spill. From then on each
//! orchestrator elsewhere takes, of this node, what it had before and a part of its places
//! that grows until the ramp is over, so that a neighbour feels a wave rather than a wall.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the own region began to be full, and when it last said so, each in milliseconds and
/// one more; 0 for never. And how long the ramp takes; 0 for no ramp.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    began: AtomicU64,
    last: AtomicU64,
    ramp_ms: AtomicU64,
    since: OnceLock<Instant>,
}

impl Spill {
    pub(crate) fn set_ramp(&self, ramp: Duration) {
        let ms = u64::try_from(ramp.as_millis()).unwrap_or(u64::MAX);
        self.ramp_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.ramp_ms.load(Ordering::Relaxed) > 0
    }

    /// Notes that somebody in the own region is full. What was said longer ago than a ramp
    /// lasts was another spill.
    pub(crate) fn note(&self, now: Instant) {
        let ramp_ms = self.ramp_ms.load(Ordering::Relaxed);
        if ramp_ms == 0 {
            return;
        }
        let at = self.ms(now) + 1;
        let last = self.last.swap(at, Ordering::Relaxed);
        if last == 0 || at.saturating_sub(last) > ramp_ms {
            self.began.store(at, Ordering::Relaxed);
        }
    }

    /// Returns how far the ramp has come, in thousandths, while a spill goes up it.
    #[inline]
    pub(crate) fn permille(&self, now: Instant) -> Option<u32> {
        match self.ramp_ms.load(Ordering::Relaxed) {
            0 => None,
            ramp_ms => self.climbed(now, ramp_ms),
        }
    }

    fn climbed(&self, now: Instant, ramp_ms: u64) -> Option<u32> {
        let (began, last) = (self.began.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        let now = self.ms(now) + 1;
        if last == 0 || now.saturating_sub(last) > ramp_ms {
            return None;
        }
        let age = now.saturating_sub(began);
        (age < ramp_ms).then(|| (age * 1000 / ramp_ms) as u32)
    }

    fn ms(&self, at: Instant) -> u64 {
        let since = *self.since.get_or_init(|| at);
        at.saturating_duration_since(since).as_millis() as u64
    }
}

/// Returns how much of an orchestrator elsewhere a node may use while a spill is `permille`
/// of its way up: what it `usual`ly has there and a part of the `places` that begins with an
/// eighth, but not less than one.
pub(crate) fn allowed(places: u32, usual: u32, permille: u32) -> u32 {
    let first = (places / FIRST_SHARE).max(1);
    let grown = u64::from(places) * u64::from(permille) / 1000;
    usual.saturating_add(first.max(u32::try_from(grown).unwrap_or(u32::MAX)))
}

/// One part in this many of its places is taken at once: none would only delay the wave.
const FIRST_SHARE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_spill_climbs_ends_and_begins_anew() {
        let (spill, now) = (Spill::default(), clock::now());
        let at = |ms| now + Duration::from_millis(ms);
        spill.note(now);
        assert_eq!(spill.permille(now), None, "no ramp was asked for");
        spill.set_ramp(Duration::from_secs(4));
        assert_eq!(spill.permille(now), None, "nobody was full");
        spill.note(at(1000));
        spill.note(at(1500));
        assert_eq!((spill.permille(at(1000)), spill.permille(at(2000))), (Some(0), Some(250)));
        spill.note(at(4900));
        assert_eq!(spill.permille(at(4999)), Some(999));
        assert_eq!(spill.permille(at(5000)), None, "the whole wave is through");
        assert_eq!(spill.permille(at(20_000)), None);
        spill.note(at(20_000));
        assert_eq!(spill.permille(at(21_000)), Some(250));
    }

    #[test]
    fn what_is_allowed_grows_from_an_eighth_to_all_of_it() {
        assert_eq!([0, 125, 500, 1000].map(|it| allowed(80, 0, it)), [10, 10, 40, 80]);
        assert_eq!((allowed(4, 0, 0), allowed(4, 3, 0)), (1, 4));
    }
}
