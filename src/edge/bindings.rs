//! Which orchestrator a payment challenge came from.
//!
//! A client that was challenged repeats its request with a payment that is good at one
//! orchestrator only. The challenge's manifest id comes back within that payment, and this
//! table says whose it is. Bounded; what is forgotten makes the client start afresh.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::{OrchestratorId, SessionId};

/// The table.
#[derive(Debug, Default)]
pub struct Bindings {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_manifest: BTreeMap<SessionId, (OrchestratorId, Instant)>,
    order: VecDeque<(Instant, SessionId)>,
}

impl Bindings {
    /// Notes that `orchestrator` challenged under `manifest`.
    pub fn bind(&self, now: Instant, manifest: SessionId, orchestrator: OrchestratorId) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        let held = inner.by_manifest.get(&manifest).map(|(held, _at)| *held);
        // Nobody takes over a payment by naming another's manifest.
        if held.is_none_or(|held| held == orchestrator) {
            inner.renew(now, manifest, orchestrator);
        }
    }

    /// Returns whose `manifest` is, and remembers that from now on.
    pub fn find(&self, now: Instant, manifest: &SessionId) -> Option<OrchestratorId> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        let found = inner.by_manifest.get(manifest).map(|(orchestrator, _at)| *orchestrator)?;
        inner.renew(now, manifest.clone(), found);
        Some(found)
    }
}

impl Inner {
    fn renew(&mut self, now: Instant, manifest: SessionId, orchestrator: OrchestratorId) {
        self.by_manifest.insert(manifest.clone(), (orchestrator, now));
        self.order.push_back((now, manifest));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) > KEPT_FOR;
        while self.order.front().is_some_and(|it| old(it.0) || self.order.len() > KEPT) {
            let Some((at, manifest)) = self.order.pop_front() else { return };
            // The same id may have been bound again since.
            if self.by_manifest.get(&manifest).is_some_and(|it| it.1 == at) {
                self.by_manifest.remove(&manifest);
            }
        }
    }
}

/// Challenges remembered; about 10 MB.
const KEPT: usize = 65_536;
/// An auth token is good for half an hour.
const KEPT_FOR: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_binding_is_forgotten_when_old_or_when_there_are_too_many() {
        let (bindings, now) = (Bindings::default(), clock::now());
        let manifest = |number: usize| format!("m{number}").parse::<SessionId>().unwrap();
        bindings.bind(now, manifest(0), OrchestratorId(1));
        bindings.bind(now, manifest(0), OrchestratorId(9));
        assert_eq!(bindings.find(now, &manifest(0)), Some(OrchestratorId(1)), "not taken over");
        let late = now + KEPT_FOR + Duration::from_secs(1);
        assert_eq!(bindings.find(late, &manifest(0)), None);
        for number in 0..=KEPT {
            bindings.bind(late, manifest(number), OrchestratorId(2));
        }
        assert_eq!(bindings.find(late, &manifest(0)), None);
        assert_eq!(bindings.find(late, &manifest(1)), Some(OrchestratorId(2)));
    }
}
