//! The last decisions, each with everything it looked at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::edge::choice::Applied;
use crate::geo::Place;
use crate::id::{DecisionId, OrchestratorId, RegionId};
use crate::policy::{Decision, PathKind};

/// A decision with what it was about.
#[derive(Debug)]
pub struct Record {
    /// Its id, which the client was told.
    pub id: DecisionId,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What for.
    pub capability: Arc<str>,
    /// Which way the bytes went.
    pub path: PathKind,
    /// Where the caller was thought to be; never its address.
    pub place: Place,
    /// The caller's home region.
    pub home: RegionId,
    /// Who had been tried before.
    pub tried: Vec<OrchestratorId>,
    /// The policies that had a part in it.
    pub applied: Vec<Applied>,
    /// The decision.
    pub decision: Decision,
}

/// A ring of the last [`Decisions::KEPT`] decisions.
#[derive(Debug)]
pub struct Decisions {
    next: AtomicU64,
    ring: Mutex<VecDeque<Arc<Record>>>,
}

impl Decisions {
    /// Decisions kept; with 32 candidates each about 45 MB.
    pub const KEPT: usize = 10_000;

    /// Starts empty; ids count up from `start`.
    pub fn new(start: u64) -> Self {
        Self { next: AtomicU64::new(start), ring: Mutex::default() }
    }

    /// Returns a fresh id.
    pub fn next_id(&self) -> DecisionId {
        DecisionId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps a decision.
    pub fn keep(&self, record: Arc<Record>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if ring.len() == Self::KEPT { ring.pop_front() } else { None };
        ring.push_back(record);
        drop(ring);
        // Freed outside the lock.
        drop(oldest);
    }

    /// Returns a decision that is still kept.
    pub fn find(&self, id: DecisionId) -> Option<Arc<Record>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids count up along the ring, but for its wrap.
        ring.iter().rev().find(|it| it.id == id).cloned()
    }

    /// Returns the latest, newest first.
    pub fn latest(&self, n: usize) -> Vec<Arc<Record>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().rev().take(n).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::Confidence;
    use crate::policy::ask::{Caller, Rules};
    use crate::policy::{Ask, choose};
    use crate::view::CapabilityId;
    use crate::view::tests::{atlas, view};

    #[test]
    fn the_oldest_gives_its_place_to_the_newest() {
        let view = view(&atlas(1), 1, 1);
        let point = view.atlas.points[0];
        let place = Place { point, country: None, confidence: Confidence::City };
        let caller = Caller { place, cell: view.atlas.cell(&place), observed: Vec::new() };
        let (rules, path) = (Rules::default(), PathKind::Relayed);
        let ask = Ask::new(&caller, CapabilityId(0), path, &rules);
        let decision = choose(&view, |gauge| gauge.into(), &ask, view.published_at, 0).unwrap();
        let decisions = Decisions::new(u64::MAX - 1);
        for at_ms in 0..=Decisions::KEPT as u64 {
            decisions.keep(Arc::new(Record {
                id: decisions.next_id(),
                at_ms,
                capability: "app/0".into(),
                path,
                place,
                home: view.atlas.name(0),
                tried: Vec::new(),
                applied: Vec::new(),
                decision: decision.clone(),
            }));
        }
        assert_eq!(decisions.latest(usize::MAX).len(), Decisions::KEPT);
        assert!(decisions.find(DecisionId(u64::MAX - 1)).is_none());
        // Ids go on where their numbers end.
        for (id, at_ms) in [(u64::MAX, 1), (0, 2), (Decisions::KEPT as u64 - 2, 10_000)] {
            assert_eq!(decisions.find(DecisionId(id)).map(|it| it.at_ms), Some(at_ms));
        }
    }
}
