//! Whether the loops of a process still go round.
//!
//! A loop beats at every turn. One that did not for too long is stuck or gone, which nothing
//! else would notice: requests go on by what it last published.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// All loops of one node, each by its name.
#[derive(Debug, Default)]
pub struct Pulses(Mutex<Vec<Arc<Pulse>>>);

/// One loop.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    within: Duration,
    since: Instant,
    /// Milliseconds since `since` at the last beat.
    last_ms: AtomicU64,
}

/// One loop, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which loop.
    pub name: &'static str,
    /// How long ago it beat.
    pub silent: Duration,
    /// Whether that is too long.
    pub is_stalled: bool,
}

impl Pulses {
    /// Returns the pulse of a loop that beats `within` so long; that of an earlier one of the
    /// same name, which it follows.
    pub fn of(&self, now: Instant, name: &'static str, within: Duration) -> Arc<Pulse> {
        let mut pulses = self.lock();
        if let Some(held) = pulses.iter().find(|it| it.name == name) {
            held.beat(now);
            return Arc::clone(held);
        }
        let pulse = Arc::new(Pulse { name, within, since: now, last_ms: AtomicU64::new(0) });
        pulses.push(Arc::clone(&pulse));
        pulse
    }

    /// Returns every loop as it stands, in the order they began.
    pub fn read(&self, now: Instant) -> Vec<Reading> {
        self.lock().iter().map(|it| it.read(now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Pulse>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// Notes a turn.
    pub fn beat(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.since).as_millis() as u64;
        self.last_ms.fetch_max(ms, Ordering::Relaxed);
    }

    fn read(&self, now: Instant) -> Reading {
        let last = self.since + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        let silent = now.saturating_duration_since(last);
        Reading { name: self.name, silent, is_stalled: silent > self.within }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_loop_that_does_not_beat_is_stalled_until_it_does() {
        let (pulses, now) = (Pulses::default(), clock::now());
        let s = Duration::from_secs;
        let pulse = pulses.of(now, "a", s(5));
        pulses.of(now, "b", s(60));
        let stalled = |at| pulses.read(at).iter().map(|it| it.is_stalled).collect::<Vec<_>>();
        assert_eq!(stalled(now + s(5)), [false, false]);
        assert_eq!(stalled(now + s(6)), [true, false]);
        pulse.beat(now + s(6));
        assert_eq!(stalled(now + s(11)), [false, false]);
        assert_eq!(stalled(now + s(90)), [true, true]);
        // Whoever takes a loop's place goes on with its pulse.
        pulses.of(now + s(90), "a", s(5));
        assert_eq!(stalled(now + s(91)), [false, true]);
    }
}
