//! Which orchestrator served a client's earlier requests, for as long as that may matter.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::id::OrchestratorId;
use crate::view::CapabilityId;

/// Who served what before, by what the client ties its requests with.
#[derive(Debug, Default)]
pub struct Affinities(Mutex<BTreeMap<(u64, CapabilityId), (OrchestratorId, Instant)>>);

impl Affinities {
    /// Returns who served the last request of `key`, unless that is long ago.
    pub(crate) fn find(&self, now: Instant, key: (u64, CapabilityId)) -> Option<OrchestratorId> {
        let (orchestrator, at) = *self.lock().get(&key)?;
        (now.saturating_duration_since(at) < KEPT_FOR).then_some(orchestrator)
    }

    /// Notes who serves `key` now. When the table is full of fresh ones it is not kept.
    pub(crate) fn keep(&self, now: Instant, key: (u64, CapabilityId), by: OrchestratorId) {
        let mut table = self.lock();
        if table.len() >= TABLE_MAX && !table.contains_key(&key) {
            table.retain(|_key, (_by, at)| now.saturating_duration_since(*at) < KEPT_FOR);
            if table.len() >= TABLE_MAX {
                return;
            }
        }
        table.insert(key, (by, now));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, CapabilityId), (OrchestratorId, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an orchestrator remembers of a client, such as a model's cache, lasts minutes.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// At about 60 bytes each, 4 MB.
const TABLE_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_affinity_is_kept_for_a_while_and_the_table_is_bounded() {
        let (table, now) = (Affinities::default(), clock::now());
        let key = |n: u64| (n, CapabilityId(0));
        for n in 0..=TABLE_MAX as u64 {
            table.keep(now, key(n), OrchestratorId(n));
        }
        assert_eq!(table.find(now, key(7)), Some(OrchestratorId(7)));
        assert_eq!(table.find(now, key(TABLE_MAX as u64)), None, "there was no room");
        assert_eq!(table.find(now + KEPT_FOR, key(7)), None);
        table.keep(now + KEPT_FOR, key(TABLE_MAX as u64), OrchestratorId(1));
        assert_eq!(table.lock().len(), 1, "old ones make room");
    }
}
