//! What this node says: its latest observation of each orchestrator, by version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Change, Digest, Observation, Params, Versioned, change};
use crate::id::OrchestratorId;

/// The node's own records, from which each link is fed what it has not been sent.
#[derive(Debug)]
pub struct Outbox {
    params: Params,
    version: u64,
    latest: BTreeMap<OrchestratorId, Own>,
    /// Which orchestrator a version is about; a version that was replaced is absent.
    by_version: BTreeMap<u64, OrchestratorId>,
    /// The versions that go first.
    urgent: BTreeSet<u64>,
    n_dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    version: u64,
    recorded_at: Instant,
    observation: Observation,
}

/// Through which versions a link was sent the records, those that go first and all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of those that go first.
    pub urgent: u64,
    /// Of the others; all of them count.
    pub others: u64,
}

impl Sent {
    /// Goes back to before `version`, which was not sent after all.
    pub fn rewind(&mut self, version: u64) {
        self.urgent = self.urgent.min(version.saturating_sub(1));
        self.others = self.others.min(version.saturating_sub(1));
    }
}

impl Outbox {
    /// Returns an empty outbox at version 0.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            version: 0,
            latest: BTreeMap::new(),
            by_version: BTreeMap::new(),
            urgent: BTreeSet::new(),
            n_dropped: 0,
        }
    }

    /// Keeps `observation` as the latest of its orchestrator and returns how much it differs
    /// from the one before. What differs little is not news until [`Params::refresh`] has gone
    /// by. What differs much, and what is in use here, goes first. When
    /// [`Params::max_records`] are held, the one longest without news makes room and is counted.
    pub fn record(&mut self, now: Instant, observation: Observation) -> Change {
        let orchestrator = observation.orchestrator;
        let mut by = match observation.failures_milli {
            0 => Change::Some,
            _ => Change::Much,
        };
        if let Some(held) = self.latest.get(&orchestrator) {
            by = change(&held.observation, &observation);
            let age = now.saturating_duration_since(held.recorded_at);
            if by == Change::Little && age < self.params.refresh {
                return by;
            }
            self.by_version.remove(&held.version);
            self.urgent.remove(&held.version);
        } else if self.latest.len() >= self.params.max_records
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            if let Some(gone) = self.latest.remove(&oldest) {
                self.urgent.remove(&gone.version);
            }
            self.n_dropped += 1;
        }
        self.version += 1;
        let own = Own { version: self.version, recorded_at: now, observation };
        self.latest.insert(orchestrator, own);
        self.by_version.insert(self.version, orchestrator);
        if by == Change::Much || observation.in_flight > 0 || observation.arrivals_milli > 0 {
            self.urgent.insert(self.version);
        }
        by
    }

    /// Numbers the next record no lower than `version`, where another outbox has come to.
    pub fn follow(&mut self, version: u64) {
        self.version = self.version.max(version.saturating_sub(1));
    }

    /// Whether the latest record of an orchestrator tells of failures.
    pub fn tells_of_failures(&self, orchestrator: OrchestratorId) -> bool {
        self.latest.get(&orchestrator).is_some_and(|own| own.observation.failures_milli > 0)
    }

    /// Returns the latest observation of each orchestrator.
    pub fn observations(&self) -> impl Iterator<Item = Observation> {
        self.latest.values().map(|own| own.observation)
    }

    /// Returns at most `limit` records that go first and were not sent, by rising version, with
    /// their ages; those past their time to live are left out.
    pub fn urgent_since(&self, now: Instant, sent: Sent, limit: usize) -> Vec<Versioned> {
        let versions = self.urgent.range(sent.urgent.saturating_add(1)..);
        let owners = versions.filter_map(|version| self.by_version.get(version));
        self.versioned(now, owners, limit)
    }

    /// As [`Self::urgent_since`], of all records that were not sent.
    pub fn others_since(&self, now: Instant, sent: Sent, limit: usize) -> Vec<Versioned> {
        let later = self.by_version.range(sent.others.saturating_add(1)..);
        let went = |version: u64| version <= sent.urgent && self.urgent.contains(&version);
        let owners = later.filter(|&(&version, _)| !went(version)).map(|(_, owner)| owner);
        self.versioned(now, owners, limit)
    }

    /// Returns what a link that was sent so much should have.
    pub fn digest(&self, sent: Sent) -> Digest {
        let mut digest = Digest::default();
        for (&version, &orchestrator) in &self.by_version {
            if version <= sent.others || version <= sent.urgent && self.urgent.contains(&version) {
                digest.add(orchestrator, version);
            }
        }
        digest
    }

    fn versioned<'a>(
        &self,
        now: Instant,
        owners: impl Iterator<Item = &'a OrchestratorId>,
        limit: usize,
    ) -> Vec<Versioned> {
        owners
            .filter_map(|orchestrator| self.latest.get(orchestrator))
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
            self.urgent.remove(&own.version);
            self.latest.remove(orchestrator);
            self.by_version.pop_first();
        }
    }

    /// Returns the version of the latest record; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the version of the latest record that goes first; 0 while there is none.
    pub fn urgent_version(&self) -> u64 {
        self.urgent.last().copied().unwrap_or(0)
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
        let sent = Sent { urgent: since, others: since };
        let found: Vec<_> = outbox
            .others_since(now, sent, 10)
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
        assert_eq!(outbox.others_since(now, Sent::default(), 1).len(), 1);
        check(&outbox, now, u64::MAX, &[]);
    }

    #[test]
    fn what_is_in_use_or_fails_goes_first_and_is_not_sent_twice() {
        let now = clock::now();
        let mut outbox = outbox();
        assert_eq!(outbox.record(now, seen(1, 0)), Change::Some);
        let failed = Observation { failures_milli: 1000, ..seen(2, 0) };
        assert_eq!(outbox.record(now, failed), Change::Much);
        let mut sent = Sent::default();
        let first = outbox.urgent_since(now, sent, 10);
        assert_eq!(first.iter().map(|it| it.version).collect::<Vec<_>>(), [2]);
        sent.urgent = 2;
        let next = outbox.others_since(now, sent, 10);
        assert_eq!(next.iter().map(|it| it.version).collect::<Vec<_>>(), [1]);
        let mut expected = Digest::default();
        expected.add(OrchestratorId(2), 2);
        assert_eq!(outbox.digest(sent), expected);
        sent.others = 2;
        expected.add(OrchestratorId(1), 1);
        assert_eq!(outbox.digest(sent), expected);
        sent.rewind(2);
        assert_eq!(outbox.others_since(now, sent, 10).len(), 1);
        assert_eq!(outbox.record(now, failed), Change::Little);
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
