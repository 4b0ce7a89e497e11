//! Orchestrators put aside after failures, and the way back.
//!
//! Sans-IO. Three states: in use, suspended for a time that doubles, in probation with one
//! request at a time. A capacity refusal is not a failure and never comes here.

use std::time::{Duration, Instant};

/// The knobs of [`Suspension`].
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Failures in a row that suspend.
    pub consecutive: u32,
    /// Share of failures among the last ten seconds' requests that suspends, in thousandths.
    pub share_permille: u32,
    /// Requests within ten seconds below which the share says nothing.
    pub requests_min: u32,
    /// Failed checks in a row that suspend.
    pub checks: u32,
    /// The first suspension; each further one doubles it.
    pub first: Duration,
    /// The longest suspension.
    pub longest: Duration,
}

/// Whether one orchestrator is in use, and what led there.
#[derive(Clone, Debug)]
pub struct Suspension {
    params: Params,
    state: State,
    /// Suspensions since it was last well for a while.
    times: u32,
    /// Whether requests failed while checks were answered: then no check lifts it.
    by_work: bool,
    lifted_at: Option<Instant>,
    failures_in_row: u32,
    checks_failed_in_row: u32,
    window: [Bucket; BUCKETS],
    bucket: usize,
    bucket_at: Instant,
    jitter: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InUse,
    Suspended { until: Instant },
    Probation,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    successes: u32,
    failures: u32,
}

/// What a [`Suspension`] says of its orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    InUse,
    /// Leave it alone.
    Suspended,
    /// One request at a time, to learn.
    Probation,
}

impl Suspension {
    /// Starts in use. `draw` seeds the jitter that keeps a fleet from coming back at once.
    pub fn new(now: Instant, params: Params, draw: u64) -> Self {
        assert!(params.consecutive > 0 && params.checks > 0, "something must suspend");
        Self {
            params,
            state: State::InUse,
            times: 0,
            by_work: false,
            lifted_at: None,
            failures_in_row: 0,
            checks_failed_in_row: 0,
            window: [Bucket::default(); BUCKETS],
            bucket: 0,
            bucket_at: now,
            jitter: draw | 1,
        }
    }

    /// Takes outcomes of requests since the last call; their order within it is unknown.
    pub fn handle_outcomes(&mut self, now: Instant, successes: u32, failures: u32) {
        if successes + failures == 0 {
            return;
        }
        self.roll(now);
        self.window[self.bucket].successes += successes;
        self.window[self.bucket].failures += failures;
        self.failures_in_row = if successes > 0 { 0 } else { self.failures_in_row } + failures;
        match self.state {
            State::Probation if failures > 0 => self.suspend(now, true),
            State::Probation => self.lift(now),
            State::InUse if self.is_failing() => self.suspend(now, true),
            State::InUse | State::Suspended { .. } => {}
        }
    }

    /// Takes other knobs; a suspension under way ends as it was to.
    pub fn handle_params(&mut self, params: Params) {
        self.params = params;
    }

    /// Takes the result of a check. Enough failed ones in a row suspend; an answered one
    /// ends a probation, unless it was the work that failed while checks were answered: then
    /// only work can show that it is well again.
    pub fn handle_check(&mut self, now: Instant, answered: bool) {
        self.handle_timeout(now);
        if answered {
            self.checks_failed_in_row = 0;
            if self.state == State::Probation && !self.by_work {
                self.lift(now);
            }
            return;
        }
        self.checks_failed_in_row += 1;
        self.by_work = false;
        match self.state {
            State::Probation => self.suspend(now, false),
            State::InUse if self.checks_failed_in_row >= self.params.checks => {
                self.suspend(now, false);
            }
            State::InUse | State::Suspended { .. } => {}
        }
    }

    /// Lets a suspension that has run out become a probation.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Suspended { until } if until <= now => self.state = State::Probation,
            State::Suspended { .. } | State::InUse | State::Probation => {}
        }
    }

    /// Returns when [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Suspended { until } => Some(until),
            State::InUse | State::Probation => None,
        }
    }

    /// Returns what to do with the orchestrator.
    pub fn verdict(&self) -> Verdict {
        match self.state {
            State::InUse => Verdict::InUse,
            State::Suspended { .. } => Verdict::Suspended,
            State::Probation => Verdict::Probation,
        }
    }

    fn is_failing(&self) -> bool {
        let sum = |pick: fn(&Bucket) -> u32| self.window.iter().map(pick).sum::<u32>();
        let (failures, all) = (sum(|it| it.failures), sum(|it| it.failures + it.successes));
        let share = failures * 1000 / all.max(1);
        self.failures_in_row >= self.params.consecutive
            || (all >= self.params.requests_min && share >= self.params.share_permille)
    }

    fn suspend(&mut self, now: Instant, by_work: bool) {
        let well = |at: Instant| now.saturating_duration_since(at) >= WELL_AFTER;
        if self.lifted_at.take().is_some_and(well) {
            self.times = 0;
        }
        self.by_work = by_work && self.checks_failed_in_row == 0;
        // Equal jitter: at least half of the full time, so that nobody returns at once.
        let full = self.params.first.saturating_mul(1 << self.times.min(16));
        let full = full.min(self.params.longest);
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let part = (full / 2).mul_f64((self.jitter >> 11) as f64 / (1_u64 << 53) as f64);
        self.state = State::Suspended { until: now + full / 2 + part };
        self.times += 1;
        self.forget();
    }

    fn lift(&mut self, now: Instant) {
        self.state = State::InUse;
        self.lifted_at = Some(now);
        self.by_work = false;
        self.forget();
    }

    fn forget(&mut self) {
        self.failures_in_row = 0;
        self.window = [Bucket::default(); BUCKETS];
    }

    fn roll(&mut self, now: Instant) {
        let steps = now.saturating_duration_since(self.bucket_at).as_secs();
        for _ in 0..steps.min(BUCKETS as u64) {
            self.bucket = (self.bucket + 1) % BUCKETS;
            self.window[self.bucket] = Bucket::default();
        }
        self.bucket_at += Duration::from_secs(steps);
    }
}

/// Suspensions are counted on until it was well for this long.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// One bucket a second: exact counts, since a decaying average hides a burst.
const BUCKETS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PARAMS: Params = Params {
        consecutive: 5,
        share_permille: 500,
        requests_min: 20,
        checks: 2,
        first: Duration::from_secs(5),
        longest: Duration::from_secs(300),
    };

    fn fresh() -> (Instant, Suspension) {
        let now = clock::now();
        (now, Suspension::new(now, PARAMS, 7))
    }

    #[test]
    fn five_failures_in_a_row_suspend_and_four_do_not() {
        let (now, mut it) = fresh();
        it.handle_outcomes(now, 0, 4);
        assert_eq!(it.verdict(), Verdict::InUse);
        it.handle_outcomes(now, 1, 0);
        it.handle_outcomes(now, 0, 4);
        assert_eq!(it.verdict(), Verdict::InUse);
        it.handle_outcomes(now, 0, 1);
        assert_eq!(it.verdict(), Verdict::Suspended);
    }

    #[test]
    fn a_failing_share_suspends_only_within_its_window() {
        let (now, mut it) = fresh();
        for second in 0..40 {
            it.handle_outcomes(now + Duration::from_secs(second), 1, 1);
        }
        assert_eq!(it.verdict(), Verdict::Suspended);
        let (now, mut it) = fresh();
        for second in 0..40 {
            it.handle_outcomes(now + Duration::from_secs(second * 3), 1, 1);
        }
        assert_eq!(it.verdict(), Verdict::InUse);
    }

    #[test]
    fn a_suspension_ends_in_probation_and_a_success_lifts_it() {
        let (now, mut it) = fresh();
        it.handle_outcomes(now, 0, 5);
        let until = it.next_timeout().unwrap();
        assert!((2_500..=5_000).contains(&(until - now).as_millis()));
        it.handle_timeout(until);
        assert_eq!(it.verdict(), Verdict::Probation);
        it.handle_outcomes(until, 1, 0);
        assert_eq!(it.verdict(), Verdict::InUse);
    }

    #[test]
    fn each_failed_probation_doubles_the_wait_up_to_its_limit() {
        let (mut now, mut it) = fresh();
        it.handle_outcomes(now, 0, 5);
        for _ in 0..12 {
            let until = it.next_timeout().unwrap();
            assert!(until - now <= PARAMS.longest);
            now = until;
            it.handle_timeout(now);
            it.handle_outcomes(now, 0, 1);
        }
        assert!(it.next_timeout().unwrap() - now >= PARAMS.longest / 2);
    }

    #[test]
    fn an_answered_check_does_not_lift_what_failing_work_suspended() {
        let (now, mut it) = fresh();
        it.handle_check(now, true);
        it.handle_outcomes(now, 0, 5);
        let until = it.next_timeout().unwrap();
        it.handle_check(until, true);
        assert_eq!(it.verdict(), Verdict::Probation, "checks were answered all along");
        it.handle_outcomes(until, 1, 0);
        assert_eq!(it.verdict(), Verdict::InUse);
        it.handle_outcomes(until, 0, 5);
        assert!(it.next_timeout().unwrap() - until >= PARAMS.first, "the second one is longer");
    }

    #[test]
    fn checks_alone_suspend_and_lift() {
        let (now, mut it) = fresh();
        it.handle_check(now, false);
        assert_eq!(it.verdict(), Verdict::InUse);
        it.handle_check(now, false);
        assert_eq!(it.verdict(), Verdict::Suspended);
        it.handle_check(now, true);
        assert_eq!(it.verdict(), Verdict::Suspended, "not before its time");
        it.handle_check(it.next_timeout().unwrap(), true);
        assert_eq!(it.verdict(), Verdict::InUse);
    }
}
