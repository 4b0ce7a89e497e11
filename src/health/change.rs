//! How much two observations of one orchestrator differ, which decides how soon it is told.

use super::Observation;
use crate::unit::Micros;

/// How much an observation differs from the one told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Told with the next refresh.
    Little,
    /// Told with the next push.
    Some,
    /// Told at once, before anything else: it may turn decisions of others.
    Much,
}

/// Compares an observation with the one told `before`.
pub fn change(before: &Observation, after: &Observation) -> Change {
    let failed = after.failures_milli >= before.failures_milli.saturating_add(FAILED_MILLI);
    if failed || is_full(before) != is_full(after) {
        return Change::Much;
    }
    let rtt = differ(micros(before.rtt), micros(after.rtt), 20, 1_000);
    let service = differ(micros(before.service), micros(after.service), 20, 1_000);
    let capacity = (before.capacity_milli.map(u64::from), after.capacity_milli.map(u64::from));
    // Who shares an orchestrator in a rush has to know all of it: outcomes too.
    let in_use = |it: &Observation| it.in_flight > 0 || it.arrivals_milli > 0;
    let load = (in_use(before) || in_use(after)) && before != after;
    // That it works again, or that failures are forgotten, matters to whoever keeps away.
    let worked = after.successes_milli >= before.successes_milli.saturating_add(FAILED_MILLI);
    let forgotten = after.failures_milli < FAILED_MILLI;
    let healed = before.failures_milli >= FAILED_MILLI && (worked || forgotten);
    match rtt || service || differ(capacity.0, capacity.1, 20, 100) || load || healed {
        true => Change::Some,
        false => Change::Little,
    }
}

/// Whether as much is under way from the observer as it believes the orchestrator takes.
fn is_full(seen: &Observation) -> bool {
    let under_way = u64::from(seen.in_flight) * 1000;
    seen.capacity_milli.is_some_and(|it| it > 0 && under_way >= u64::from(it))
}

fn micros(it: Option<Micros>) -> Option<u64> {
    it.map(|it| it.0)
}

/// Whether two values differ by a `part`-th of the first or more, and by more than `least`.
fn differ(before: Option<u64>, after: Option<u64>, part: u64, least: u64) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            let by = before.abs_diff(after);
            by > least && by >= before / part
        }
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

/// Half a failure, in thousandths of an event: what has decayed since makes it less than one.
const FAILED_MILLI: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OrchestratorId;

    fn seen() -> Observation {
        Observation {
            orchestrator: OrchestratorId(1),
            rtt: Some(Micros(100_000)),
            failures_milli: 0,
            successes_milli: 1000,
            in_flight: 4,
            arrivals_milli: 10_000,
            service: Some(Micros(1_000_000)),
            capacity_milli: Some(8_000),
        }
    }

    #[test]
    fn a_failure_and_a_full_house_are_told_at_once() {
        let before = seen();
        for after in
            [Observation { failures_milli: 990, ..before }, Observation { in_flight: 8, ..before }]
        {
            assert_eq!(change(&before, &after), Change::Much, "{after:?}");
        }
        let idle = Observation { in_flight: 0, arrivals_milli: 0, ..before };
        let ill = Observation { failures_milli: 5000, ..idle };
        assert_eq!(change(&ill, &Observation { failures_milli: 5400, ..ill }), Change::Little);
        assert_eq!(change(&ill, &Observation { failures_milli: 400, ..ill }), Change::Some);
        assert_eq!(change(&ill, &Observation { successes_milli: 1900, ..ill }), Change::Some);
    }

    #[test]
    fn what_moves_within_its_noise_waits_for_the_refresh_unless_it_is_in_use() {
        let used = seen();
        let after = Observation { successes_milli: 1001, ..used };
        assert_eq!(change(&used, &after), Change::Some);
        let before = Observation { in_flight: 0, arrivals_milli: 0, ..used };
        for after in [
            Observation { rtt: Some(Micros(104_000)), ..before },
            Observation { successes_milli: 90_000, ..before },
            Observation { service: Some(Micros(1_040_000)), ..before },
        ] {
            assert_eq!(change(&before, &after), Change::Little, "{after:?}");
        }
        for after in [
            Observation { rtt: Some(Micros(105_000)), ..before },
            Observation { rtt: None, ..before },
            Observation { in_flight: 5, ..before },
            Observation { service: Some(Micros(1_200_000)), ..before },
        ] {
            assert_eq!(change(&before, &after), Change::Some, "{after:?}");
        }
    }
}
