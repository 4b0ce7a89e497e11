//! What this node says: its latest observation of each orchestrator, by version.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Observation, Params, Versioned};
use crate::id::OrchestratorId;

/// The node's own records, from which each link is fed what it has not been sent.
#[derive(Debug)]
pub struct Outbox {
    params: Params,
    version: u64,
    latest: BTreeMap<OrchestratorId, Own>,
    /// Which orchestrator a version is about; a version that was replaced is absent.
    by_version: BTreeMap<u64, OrchestratorId>,
    n_dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    version: u64,
    recorded_at: Instant,
    observation: Observation,
}

impl Outbox {
    /// Returns an empty outbox at version 0.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            version: 0,
            latest: BTreeMap::new(),
            by_version: BTreeMap::new(),
            n_dropped: 0,
        }
    }

    /// Keeps `observation` as the latest of its orchestrator. One equal to the last is
    /// not news until [`Params::refresh`] has gone by. When [`Params::max_records`] are held,
    /// the one longest without news makes room and is counted.
    pub fn record(&mut self, now: Instant, observation: Observation) {
        let orchestrator = observation.orchestrator;
        if let Some(held) = self.latest.get(&orchestrator) {
            let age = now.saturating_duration_since(held.recorded_at);
            if held.observation == observation && age < self.params.refresh {
                return;
            }
            self.by_version.remove(&held.version);
        } else if self.latest.len() >= self.params.max_records
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            self.latest.remove(&oldest);
            self.n_dropped += 1;
        }
        self.version += 1;
        let own = Own { version: self.version, recorded_at: now, observation };
        self.latest.insert(orchestrator, own);
        self.by_version.insert(self.version, orchestrator);
    }

    /// Returns at most `limit` records newer than `version`, by rising version, with their
    /// ages; those past their time to live are left out.
    pub fn take_since(&self, now: Instant, version: u64, limit: usize) -> Vec<Versioned> {
        self.by_version
            .range(version.saturating_add(1)..)
            .filter_map(|(_, orchestrator)| self.latest.get(orchestrator))
            .map(|own| Versioned {
                version: own.version,
                age: now.saturating_duration_since(own.recorded_at),
                observation: own.observation,
            })
            .filter(|it| it.age < self.params.ttl)
            .take(limit)
            .collect()
    }

    /// Forgets what is past its time to live.
    pub fn expire(&mut self, now: Instant) {
        while let Some((_, orchestrator)) = self.by_version.first_key_value()
            && let Some(own) = self.latest.get(orchestrator)
            && now.saturating_duration_since(own.recorded_at) >= self.params.ttl
        {
            self.latest.remove(orchestrator);
            self.by_version.pop_first();
        }
    }

    /// Returns the version of the latest record; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns how many records made room for others.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn outbox() -> Outbox {
        Outbox::new(Params {
            ttl: Duration::from_secs(90),
            refresh: Duration::from_secs(30),
            max_records: 2,
            max_origins: 1,
            max_version_jump: 1,
            max_epoch_jump: 1,
        })
    }

    fn seen(orchestrator: u64, in_flight: u32) -> Observation {
        Observation {
            orchestrator: OrchestratorId(orchestrator),
            rtt: None,
            failures_milli: 0,
            successes_milli: 0,
            in_flight,
            arrivals_milli: 0,
            service: None,
            capacity_milli: None,
        }
    }

    fn check(outbox: &Outbox, now: Instant, since: u64, expected: &[(u64, u64, u64)]) {
        let found: Vec<_> = outbox
            .take_since(now, since, 10)
            .iter()
            .map(|it| (it.version, it.observation.orchestrator.0, it.age.as_secs()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_latest_of_each_is_told_and_only_once() {
        let now = clock::now();
        let mut outbox = outbox();
        outbox.record(now, seen(1, 0));
        outbox.record(now, seen(2, 0));
        outbox.record(now, seen(1, 5));
        check(&outbox, now + Duration::from_secs(2), 0, &[(2, 2, 2), (3, 1, 2)]);
        check(&outbox, now, 2, &[(3, 1, 0)]);
        check(&outbox, now, 3, &[]);
        assert_eq!(outbox.take_since(now, 0, 1).len(), 1);
        check(&outbox, now, u64::MAX, &[]);
    }

    #[test]
    fn what_did_not_change_is_repeated_after_the_refresh_only() {
        let now = clock::now();
        let mut outbox = outbox();
        outbox.record(now, seen(1, 0));
        outbox.record(now + Duration::from_secs(29), seen(1, 0));
        assert_eq!(outbox.version(), 1);
        outbox.record(now + Duration::from_secs(30), seen(1, 0));
        assert_eq!(outbox.version(), 2);
    }

    #[test]
    fn the_longest_unheard_makes_room() {
        let now = clock::now();
        let mut outbox = outbox();
        for orchestrator in 1..=3 {
            outbox.record(now, seen(orchestrator, 0));
        }
        check(&outbox, now, 0, &[(2, 2, 0), (3, 3, 0)]);
        assert_eq!(outbox.n_dropped(), 1);
    }

    #[test]
    fn what_is_past_its_life_is_not_told() {
        let now = clock::now();
        let mut outbox = outbox();
        outbox.record(now, seen(1, 0));
        outbox.record(now + Duration::from_secs(60), seen(2, 0));
        let later = now + Duration::from_secs(90);
        check(&outbox, later, 0, &[(2, 2, 30)]);
        outbox.expire(later);
        assert_eq!((outbox.latest.len(), outbox.by_version.len()), (1, 1));
    }
}
