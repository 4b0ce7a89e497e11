//! Places promised to clients that were shown a list and have not been seen since.
//!
//! Whoever walks a list from the top takes up its first entry within moments, without asking
//! again. Until the orchestrator's own figures show it, the promise stands in for it; when
//! nobody comes, it fades by itself. A few atomics, written by the door and read by choices.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::unit::{Micros, decayed};

/// Promises at one orchestrator, for brief work and for lasting work. The times within are
/// counted from the first promise, a moment their owner keeps elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    brief: AtomicU64,
    lasting: AtomicU64,
}

impl Promises {
    /// Adds `milli` thousandths of a place, for work that keeps its place for `holding`.
    pub(crate) fn add(&self, since: &OnceLock<Instant>, now: Instant, milli: u32, holding: Micros) {
        let at = age_ms(*since.get_or_init(|| now), now);
        let (kept, half_ms) = match holding < BRIEF {
            true => (&self.brief, BRIEF_HALF_LIFE_MS),
            false => (&self.lasting, LASTING_HALF_LIFE_MS),
        };
        update(kept, at, half_ms, |held| held + u64::from(milli));
    }

    /// Takes back `milli` thousandths: so much of what was promised has been seen.
    pub(crate) fn settle(&self, since: &OnceLock<Instant>, now: Instant, milli: u32) {
        let Some(since) = since.get() else { return };
        let at = age_ms(*since, now);
        let mut rest = u64::from(milli);
        for (kept, half_ms) in
            [(&self.lasting, LASTING_HALF_LIFE_MS), (&self.brief, BRIEF_HALF_LIFE_MS)]
        {
            let before = left(kept.load(Ordering::Relaxed), at, half_ms);
            update(kept, at, half_ms, |held| held.saturating_sub(rest));
            rest = rest.saturating_sub(before);
        }
    }

    /// Returns what is left of it at `now`, in thousandths of a place; a trace is nothing.
    #[inline]
    pub(crate) fn milli(&self, since: &OnceLock<Instant>, now: Instant) -> u32 {
        let (brief, lasting) =
            (self.brief.load(Ordering::Relaxed), self.lasting.load(Ordering::Relaxed));
        match brief | lasting {
            0 => 0,
            _ => since.get().map_or(0, |since| sum(brief, lasting, age_ms(*since, now))),
        }
    }
}

/// Kept out of the way of choices among whom nobody was promised.
#[inline(never)]
fn sum(brief: u64, lasting: u64, at: u64) -> u32 {
    let sum = left(brief, at, BRIEF_HALF_LIFE_MS) + left(lasting, at, LASTING_HALF_LIFE_MS);
    if sum < TRACE_MILLI { 0 } else { sum as u32 }
}

fn age_ms(since: Instant, now: Instant) -> u64 {
    (now.saturating_duration_since(since).as_millis() as u64).min(AT_MAX)
}

fn update(kept: &AtomicU64, at: u64, half_ms: u64, change: impl Fn(u64) -> u64) {
    let next = |packed: u64| {
        // Two writers may come in the wrong order by a moment.
        let at = at.max(packed >> MILLI_BITS);
        at << MILLI_BITS | change(left(packed, at, half_ms)).min(MILLI_MAX)
    };
    kept.update(Ordering::Relaxed, Ordering::Relaxed, next);
}

fn left(packed: u64, at: u64, half_ms: u64) -> u64 {
    match packed & MILLI_MAX {
        0 => 0,
        milli => decayed(milli, at.saturating_sub(packed >> MILLI_BITS), half_ms),
    }
}

/// Thousandths of a place stand in the low 24 bits (16,777 places), milliseconds since the
/// first promise in the 40 above them (34 years).
const MILLI_BITS: u32 = 24;
const MILLI_MAX: u64 = (1 << MILLI_BITS) - 1;
const AT_MAX: u64 = (1 << (64 - MILLI_BITS)) - 1;
/// Work that keeps its place for less than this is over before anybody looks for it.
const BRIEF: Micros = Micros::from_ms(5_000);
/// Brief work: a client needs about a second to come and less than a few to be done.
const BRIEF_HALF_LIFE_MS: u64 = 1_000;
/// Lasting work stays, but one whom promises were made of is asked for its own figures
/// within five seconds: what they do not show by then was hardly taken up.
const LASTING_HALF_LIFE_MS: u64 = 5_000;
/// Less than a sixteenth of a place counts as nothing, so that lists come to rest.
const TRACE_MILLI: u64 = 63;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const SESSION: Micros = Micros::from_ms(60_000);
    const CALL: Micros = Micros::from_ms(400);

    #[test]
    fn a_promise_nobody_takes_up_fades_to_nothing() {
        let (now, since, promises) = (clock::now(), OnceLock::new(), Promises::default());
        let milli = |seconds| promises.milli(&since, now + Duration::from_secs(seconds));
        assert_eq!(milli(0), 0);
        promises.add(&since, now, 1_000, SESSION);
        assert_eq!((milli(0), milli(5), milli(10)), (1_000, 500, 250));
        assert_eq!(milli(60), 0);
        promises.add(&since, now + Duration::from_secs(60), 1_000, CALL);
        assert_eq!((milli(60), milli(61), milli(70)), (1_000, 500, 0));
    }

    #[test]
    fn promises_add_up_and_what_was_seen_is_taken_back() {
        let (now, since, promises) = (clock::now(), OnceLock::new(), Promises::default());
        promises.settle(&since, now, 5_000);
        (0..10).for_each(|_| promises.add(&since, now, 1_000, SESSION));
        promises.add(&since, now, 1_000, CALL);
        assert_eq!(promises.milli(&since, now), 11_000);
        promises.settle(&since, now, 4_000);
        assert_eq!(promises.milli(&since, now), 7_000);
        promises.settle(&since, now, 6_500);
        assert_eq!(promises.milli(&since, now), 500);
        promises.settle(&since, now, 9_000);
        assert_eq!(promises.milli(&since, now), 0);
    }

    #[test]
    fn no_more_is_promised_than_fits() {
        let (now, since, promises) = (clock::now(), OnceLock::new(), Promises::default());
        (0..20).for_each(|_| promises.add(&since, now, u32::MAX, SESSION));
        assert_eq!(u64::from(promises.milli(&since, now)), MILLI_MAX);
    }
}
