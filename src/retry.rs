//! How many requests may be sent again: a budget, so that trouble is not multiplied.
//!
//! Sans-IO. Of what was asked within the last ten seconds a fifth may be tried again, and ten
//! a second in any case (the defaults of Finagle's and tower's budgets). Exact counts in
//! buckets of a second: an average that decays would hide a burst.

use std::time::{Duration, Instant};

/// The knobs of a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Retries for each thousand requests.
    pub share_permille: u32,
    /// Retries a second whatever is asked.
    pub per_second: u32,
}

/// The retries of one route in one region.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    buckets: [Bucket; BUCKETS],
    at: usize,
    began_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Counts a request that came in.
    pub fn count(&mut self, now: Instant) {
        self.roll(now);
        self.buckets[self.at].requests = self.buckets[self.at].requests.saturating_add(1);
    }

    /// Takes one retry out of the budget; `false` when there is none left.
    pub fn take(&mut self, now: Instant, params: Params) -> bool {
        self.roll(now);
        if self.left(params) == 0 {
            return false;
        }
        self.buckets[self.at].retries += 1;
        true
    }

    /// Returns the retries left at the last call.
    pub fn left(&self, params: Params) -> u64 {
        let sum = |pick: fn(&Bucket) -> u32| self.buckets.iter().map(pick).map(u64::from).sum();
        let (requests, retries): (u64, u64) = (sum(|it| it.requests), sum(|it| it.retries));
        let share = requests * u64::from(params.share_permille) / 1000;
        let least = u64::from(params.per_second) * BUCKETS as u64;
        (share + least).saturating_sub(retries)
    }

    fn roll(&mut self, now: Instant) {
        let began_at = *self.began_at.get_or_insert(now);
        let seconds = now.saturating_duration_since(began_at).as_secs();
        for _ in 0..seconds.min(BUCKETS as u64) {
            self.at = (self.at + 1) % BUCKETS;
            self.buckets[self.at] = Bucket::default();
        }
        self.began_at = Some(began_at + Duration::from_secs(seconds));
    }
}

/// The window, in seconds.
const BUCKETS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PARAMS: Params = Params { share_permille: 200, per_second: 10 };

    #[test]
    fn a_quiet_route_may_retry_a_little_and_a_busy_one_its_share() {
        let now = clock::now();
        let mut budget = Budget::default();
        let taken =
            |budget: &mut Budget, now| (0..10_000).filter(|_| budget.take(now, PARAMS)).count();
        assert_eq!(taken(&mut budget, now), 100);
        for _ in 0..1000 {
            budget.count(now);
        }
        assert_eq!(taken(&mut budget, now), 200);
        assert!(!budget.take(now, PARAMS));
    }

    #[test]
    fn what_was_spent_comes_back_after_its_window() {
        let now = clock::now();
        let mut budget = Budget::default();
        while budget.take(now, PARAMS) {}
        assert!(!budget.take(now + Duration::from_millis(9_999), PARAMS));
        assert!(budget.take(now + Duration::from_secs(10), PARAMS));
        assert_eq!(budget.left(PARAMS), 99);
    }
}
