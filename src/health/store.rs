//! The store in memory: one writer per origin, the greatest (epoch, version) stays.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Applied, Digest, HealthStore, Params, Sighting, Stamped, Versioned};
use crate::id::NodeId;
use crate::id::OrchestratorId;

/// Records of other nodes, in memory, bounded by [`Params`].
///
/// An origin whose records have all expired is forgotten with its epoch, so one that came
/// back with a lower epoch (its clock was set back) is heard again after one time to live.
#[derive(Debug)]
pub struct MemoryStore {
    params: Params,
    origins: BTreeMap<NodeId, Origin>,
    /// What expires when, earliest first.
    expiries: BTreeSet<(Instant, NodeId, OrchestratorId)>,
}

#[derive(Debug)]
struct Origin {
    epoch: u64,
    /// The greatest version seen of any record.
    version: u64,
    records: BTreeMap<OrchestratorId, Stamped>,
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new(params: Params) -> Self {
        assert!(params.max_records > 0 && params.max_origins > 0, "a store has room");
        assert!(params.ttl > Duration::ZERO, "a record lives for a while");
        Self { params, origins: BTreeMap::new(), expiries: BTreeSet::new() }
    }

    /// Makes room for `epoch` of `origin`, forgetting what an earlier one said; returns
    /// whether its records may be taken.
    fn enter(
        &mut self,
        origin: NodeId,
        epoch: u64,
        changed: &mut BTreeSet<OrchestratorId>,
    ) -> Entry {
        let Some(known) = self.origins.get(&origin) else {
            return match self.origins.len() < self.params.max_origins {
                true => Entry::Open,
                false => Entry::Refused,
            };
        };
        if epoch < known.epoch {
            return Entry::Older;
        }
        if epoch - known.epoch > self.params.max_epoch_jump {
            return Entry::Refused;
        }
        if epoch > known.epoch
            && let Some(gone) = self.origins.remove(&origin)
        {
            for (orchestrator, record) in gone.records {
                self.expiries.remove(&(self.expiry_of(&record), origin, orchestrator));
                changed.insert(orchestrator);
            }
        }
        Entry::Open
    }

    fn expiry_of(&self, record: &Stamped) -> Instant {
        record.received_at + self.params.ttl.saturating_sub(record.age_at_send)
    }
}

enum Entry {
    Open,
    Older,
    Refused,
}

impl HealthStore for MemoryStore {
    fn apply(
        &mut self,
        now: Instant,
        origin: NodeId,
        epoch: u64,
        records: &[Versioned],
    ) -> Applied {
        let mut applied = Applied::default();
        let mut changed = BTreeSet::new();
        if records.is_empty() {
            return applied;
        }
        match self.enter(origin, epoch, &mut changed) {
            Entry::Open => {}
            Entry::Older => return Applied { n_older: records.len() as u32, ..applied },
            Entry::Refused => return Applied { n_refused: records.len() as u32, ..applied },
        }
        let (ttl, max_records) = (self.params.ttl, self.params.max_records);
        let fresh = || Origin { epoch, version: 0, records: BTreeMap::new() };
        let known = self.origins.entry(origin).or_insert_with(fresh);
        // The first delta of an epoch has nothing to be compared with.
        let ceiling = match known.version {
            0 => u64::MAX,
            version => version.saturating_add(self.params.max_version_jump),
        };
        for &Versioned { version, age, observation } in records {
            let orchestrator = observation.orchestrator;
            let held = known.records.get(&orchestrator).copied();
            if version > ceiling {
                applied.n_refused += 1;
                continue;
            }
            if held.is_some_and(|it| version <= it.version) {
                applied.n_older += 1;
                continue;
            }
            if held.is_none() && known.records.len() == max_records {
                applied.n_refused += 1;
                continue;
            }
            known.version = known.version.max(version);
            if let Some(held) = held {
                let expiry = held.received_at + ttl.saturating_sub(held.age_at_send);
                self.expiries.remove(&(expiry, origin, orchestrator));
            }
            if age >= ttl {
                applied.n_expired += 1;
                if known.records.remove(&orchestrator).is_some() {
                    changed.insert(orchestrator);
                }
                continue;
            }
            let stamped =
                Stamped { origin, epoch, version, observation, received_at: now, age_at_send: age };
            known.records.insert(orchestrator, stamped);
            self.expiries.insert((now + (ttl - age), origin, orchestrator));
            changed.insert(orchestrator);
        }
        if known.records.is_empty() {
            self.origins.remove(&origin);
        }
        applied.changed = changed.into_iter().collect();
        applied
    }

    fn observations(&self, now: Instant, orchestrator: OrchestratorId) -> Vec<Sighting> {
        self.origins
            .values()
            .filter_map(|origin| origin.records.get(&orchestrator))
            .filter(|record| record.age(now) < self.params.ttl)
            .map(|record| Sighting {
                node: record.origin,
                observation: record.observation,
                age: record.age(now),
            })
            .collect()
    }

    fn expire(&mut self, now: Instant) -> Vec<OrchestratorId> {
        let mut changed = BTreeSet::new();
        while let Some(&(at, node, orchestrator)) = self.expiries.first()
            && at <= now
        {
            self.expiries.pop_first();
            changed.insert(orchestrator);
            if let Some(origin) = self.origins.get_mut(&node) {
                origin.records.remove(&orchestrator);
                if origin.records.is_empty() {
                    self.origins.remove(&node);
                }
            }
        }
        changed.into_iter().collect()
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|&(at, _, _)| at)
    }

    fn digest(&self, origin: NodeId, epoch: u64) -> Digest {
        let mut digest = Digest::default();
        if let Some(known) = self.origins.get(&origin).filter(|it| it.epoch == epoch) {
            for (&orchestrator, record) in &known.records {
                digest.add(orchestrator, record.version);
            }
        }
        digest
    }

    fn n_records(&self, origin: NodeId) -> usize {
        self.origins.get(&origin).map_or(0, |it| it.records.len())
    }
}

#[cfg(test)]
mod tests;
