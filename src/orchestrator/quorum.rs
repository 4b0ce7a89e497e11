//! Whether what several observers report is enough to avoid an orchestrator unseen.
//!
//! Records carry evidence; the verdict is this node's own. One observer that fails may sit
//! behind a broken link of its own, so only most of those that lately saw the orchestrator are
//! believed, and a success of this node's own outweighs them all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::orchestrator::evidence::Told;
use crate::score::OUTCOME_HALF_LIFE_MS;
use crate::unit::decayed;

/// What each observer has reported, as runs of failures.
#[derive(Clone, Debug, Default)]
pub struct Voices {
    by_node: BTreeMap<NodeId, Voice>,
}

/// What one observer has reported.
#[derive(Clone, Copy, Debug)]
struct Voice {
    failures_milli: u32,
    successes_milli: u32,
    at: Instant,
    /// Failures since its last success, in thousandths of an event.
    run_milli: u64,
    /// When the run grew last, and when it began.
    failed_at: Option<Instant>,
    began_at: Option<Instant>,
}

/// What this node itself saw last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// Its last failure.
    pub failed_at: Option<Instant>,
    /// Its last success, of a request or a check.
    pub succeeded_at: Option<Instant>,
}

impl Voices {
    /// Takes what the observers report now; who is not among them has nothing to say.
    pub fn hear(&mut self, told: &[Told]) {
        self.by_node.retain(|node, _| told.iter().any(|it| it.node == *node));
        for it in told {
            let fresh = Voice::first(it);
            self.by_node.entry(it.node).and_modify(|voice| voice.follow(it)).or_insert(fresh);
        }
    }

    /// Whether to avoid the orchestrator at `now`: more than half of those that lately saw it,
    /// and at least two, report nothing but failures, and this node has not seen it
    /// succeed since. A failure of this node's own counts as one voice.
    pub fn say_avoid(&self, now: Instant, own: Own) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) <= LATELY;
        let voices = self.by_node.values().filter(|it| lately(it.at));
        let mut n_voices = voices.clone().count();
        let failing = voices.filter(|it| it.is_failing(now));
        let mut n_failing = failing.clone().count();
        let own_failing = own.failed_at.is_some_and(|at| {
            now.saturating_duration_since(at) <= HOLD && own.succeeded_at.is_none_or(|it| it < at)
        });
        if own_failing {
            n_voices += 1;
            n_failing += 1;
        }
        let latest = failing.filter_map(|it| it.began_at).chain(own.failed_at).max();
        let seen_well = own.succeeded_at >= latest && own.succeeded_at.is_some();
        n_failing >= QUORUM_MIN && n_failing * 2 > n_voices && !seen_well
    }

    /// Returns when [`Self::say_avoid`] may next say otherwise by itself.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let failed = self.by_node.values().filter(|it| it.is_failing(now));
        failed.filter_map(|it| it.failed_at).map(|at| at + HOLD + Duration::from_millis(1)).min()
    }
}

impl Voice {
    fn first(told: &Told) -> Self {
        let seen = &told.observation;
        Self {
            failures_milli: seen.failures_milli,
            successes_milli: seen.successes_milli,
            at: told.at,
            run_milli: 0,
            failed_at: None,
            began_at: None,
        }
    }

    /// Takes the next report; what it has beyond what is left of the one before is new.
    fn follow(&mut self, told: &Told) {
        if told.at <= self.at {
            return;
        }
        let age = told.at.saturating_duration_since(self.at).as_millis() as u64;
        let left = |milli: u32| decayed(u64::from(milli), age, OUTCOME_HALF_LIFE_MS);
        let seen = &told.observation;
        let failed = u64::from(seen.failures_milli).saturating_sub(left(self.failures_milli));
        let succeeded = u64::from(seen.successes_milli).saturating_sub(left(self.successes_milli));
        let run_milli = match () {
            () if succeeded >= EVENT_MILLI && succeeded >= failed => 0,
            () => self.run_milli.saturating_add(if failed >= NOISE_MILLI { failed } else { 0 }),
        };
        let (mut failed_at, mut began_at) = (self.failed_at, self.began_at);
        if run_milli > self.run_milli {
            failed_at = Some(told.at);
            began_at = began_at.filter(|_| self.run_milli > 0).or(failed_at);
        } else if run_milli == 0 {
            (failed_at, began_at) = (None, None);
        }
        let at = told.at;
        *self = Self { at, run_milli, failed_at, began_at, ..Self::first(told) };
    }

    fn is_failing(&self, now: Instant) -> bool {
        let held = |at: Instant| now.saturating_duration_since(at) <= HOLD;
        self.run_milli >= EVENT_MILLI && self.failed_at.is_some_and(held)
    }
}

/// One observer, whatever it reports, persuades nobody.
const QUORUM_MIN: usize = 2;
/// Who said nothing for this long does not count; unchanged evidence is repeated every 30 s.
const LATELY: Duration = Duration::from_secs(45);
/// Failures reported are believed for this long, unless they go on: what happens after that is
/// for this node to see.
const HOLD: Duration = Duration::from_secs(10);
/// Most of an event, in thousandths: what had decayed before it was told is missing.
const EVENT_MILLI: u64 = 800;
/// Less than this is what rounding leaves.
const NOISE_MILLI: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::health::Observation;
    use crate::id::OrchestratorId;

    fn told(node: &str, at: Instant, failures: u32, successes: u32) -> Told {
        let observation = Observation {
            orchestrator: OrchestratorId(1),
            rtt: None,
            failures_milli: failures * 1000,
            successes_milli: successes * 1000,
            in_flight: 0,
            arrivals_milli: 0,
            service: None,
            capacity_milli: None,
        };
        let node = node.parse().unwrap();
        Told { node, observation, at, peer_rtt: None, peer_point: None }
    }

    fn after(now: Instant, ms: u64) -> Instant {
        now + Duration::from_millis(ms)
    }

    /// Observers that were all well, then report what they have beyond that 100 ms later.
    fn voices(now: Instant, failures: &[u32]) -> Voices {
        let names = ["b", "c", "d", "e"];
        let round = |at, more: &dyn Fn(usize) -> u32| -> Vec<Told> {
            (0..failures.len()).map(|it| told(names[it], at, more(it), 50)).collect()
        };
        let mut voices = Voices::default();
        voices.hear(&round(now, &|_| 0));
        voices.hear(&round(after(now, 100), &|it| failures[it]));
        voices
    }

    fn check(failures: &[u32], own: Own, avoid: bool) {
        let now = clock::now();
        let voices = voices(now, failures);
        assert_eq!(voices.say_avoid(after(now, 200), own), avoid, "{failures:?} {own:?}");
    }

    #[test]
    fn most_of_at_least_two_persuade_and_one_does_not() {
        let own = Own::default();
        check(&[9], own, false);
        check(&[9, 0, 0], own, false);
        check(&[2, 1], own, true);
        check(&[2, 3, 0], own, true);
        check(&[2, 3, 0, 0], own, false);
        check(&[2, 3, 1, 0], own, true);
    }

    #[test]
    fn own_evidence_counts_and_own_success_outweighs() {
        let now = clock::now();
        let voices_of = |failures: &[u32]| voices(now, failures);
        let (before, later) = (now, after(now, 150));
        let at = after(now, 200);
        let failed = Own { failed_at: Some(later), succeeded_at: Some(before) };
        assert!(voices_of(&[9]).say_avoid(at, failed));
        assert!(voices_of(&[9, 0]).say_avoid(at, failed));
        assert!(!voices_of(&[9, 0, 0]).say_avoid(at, failed));
        let well = Own { failed_at: None, succeeded_at: Some(later) };
        assert!(!voices_of(&[9, 9, 9]).say_avoid(at, well));
        let was_well = Own { failed_at: None, succeeded_at: Some(before) };
        assert!(voices_of(&[9, 9, 9]).say_avoid(at, was_well));
    }

    #[test]
    fn a_success_among_the_failures_or_time_ends_it() {
        let now = clock::now();
        let own = Own::default();
        let mut heard = voices(now, &[2, 2]);
        let over = heard.next_change(after(now, 200)).unwrap();
        assert!(heard.say_avoid(over - Duration::from_millis(2), own));
        assert!(!heard.say_avoid(over, own));
        let at = after(now, 300);
        heard.hear(&[told("b", at, 2, 51), told("c", at, 2, 50)]);
        assert!(!heard.say_avoid(at, own));
        let mut gone = voices(now, &[2, 2]);
        gone.hear(&[]);
        assert!(!gone.say_avoid(at, own));
    }

    #[test]
    fn what_was_old_news_when_it_was_first_heard_is_no_report() {
        let now = clock::now();
        let mut voices = Voices::default();
        voices.hear(&[told("b", now, 9, 0), told("c", now, 9, 0)]);
        assert!(!voices.say_avoid(now, Own::default()));
    }
}
