//! The last round trips of one way, by who saw them.

use std::time::{Duration, Instant};

use crate::unit::Micros;

/// Round trips of the way between one group of clients and one place, at most
/// [`REPORTERS_MAX`], each by another reporter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Vec<Report>);

#[derive(Clone, Copy, Debug)]
struct Report {
    reporter: u64,
    rtt: Micros,
    at: Instant,
}

impl Reports {
    /// Takes a round trip; a reporter's earlier one goes, and the oldest when it is full.
    pub(crate) fn take(&mut self, now: Instant, reporter: u64, rtt: Micros) {
        self.0.retain(|it| it.reporter != reporter);
        if self.0.len() == REPORTERS_MAX {
            self.0.remove(0);
        }
        self.0.push(Report { reporter, rtt, at: now });
    }

    /// Returns the median of what is not older than `kept`, when at least `n_min` saw it.
    pub(crate) fn median(&self, now: Instant, kept: Duration, n_min: usize) -> Option<Micros> {
        let fresh = |it: &&Report| now.saturating_duration_since(it.at) <= kept;
        let mut rtts: Vec<Micros> = self.0.iter().filter(fresh).map(|it| it.rtt).collect();
        if rtts.len() < n_min.max(1) {
            return None;
        }
        rtts.sort_unstable();
        // Of an even number the lower one, so that it is always one somebody saw.
        Some(rtts[(rtts.len() - 1) / 2])
    }
}

/// Reporters of one way: two liars among five change a median by one place only.
pub(crate) const REPORTERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn one_reporter_has_one_voice() {
        let (mut reports, now) = (Reports::default(), clock::now());
        let kept = Duration::from_secs(60);
        for _ in 0..100 {
            reports.take(now, 1, Micros(1));
        }
        assert_eq!(reports.median(now, kept, 2), None);
        reports.take(now, 2, Micros(50));
        reports.take(now, 3, Micros(60));
        assert_eq!(reports.median(now, kept, 3), Some(Micros(50)));
        assert_eq!(reports.median(now + kept + kept, kept, 1), None, "too old");
        for reporter in 10..100 {
            reports.take(now, reporter, Micros(7));
        }
        assert_eq!(reports.0.len(), REPORTERS_MAX);
    }
}
