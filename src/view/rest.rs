//! Until when an orchestrator asked to be left alone (`Retry-After`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When an orchestrator may be asked again; one atomic, written and read by requests.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Milliseconds after `since`, which its owner keeps elsewhere; 0 for never.
    until_ms: AtomicU64,
}

/// The end of a rest, as it stood when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resting(Option<Instant>);

impl Rest {
    /// Leaves it alone for `wait`, at most [`REST_MAX`]; a longer rest stands.
    pub(crate) fn take(&self, since: &OnceLock<Instant>, now: Instant, wait: Duration) {
        let since = *since.get_or_init(|| now);
        let until = now.saturating_duration_since(since) + wait.min(REST_MAX);
        self.until_ms.fetch_max(until.as_millis() as u64, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn read(&self, since: &OnceLock<Instant>) -> Resting {
        match self.until_ms.load(Ordering::Relaxed) {
            0 => Resting(None),
            ms => Resting(since.get().map(|since| *since + Duration::from_millis(ms))),
        }
    }
}

impl Resting {
    /// Returns how long it is still to be left alone.
    #[inline]
    pub fn left(self, now: Instant) -> Option<Duration> {
        self.0.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

/// What asks for more is not believed: that is what suspensions are for.
pub const REST_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_rest_ends_by_itself_and_the_longest_stands() {
        let (rest, since, now) = (Rest::default(), OnceLock::new(), clock::now());
        assert_eq!(rest.read(&since).left(now), None);
        rest.take(&since, now, Duration::from_secs(5));
        rest.take(&since, now, Duration::from_secs(1));
        assert_eq!(rest.read(&since).left(now), Some(Duration::from_secs(5)));
        assert_eq!(rest.read(&since).left(now + Duration::from_secs(5)), None);
        rest.take(&since, now, Duration::MAX);
        assert_eq!(rest.read(&since).left(now), Some(REST_MAX));
    }
}
