//! Drains under way: since when this node has known of each, and whose sessions they end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Drained, Orders};
use crate::id::{NodeId, OrchestratorId, RegionId};

/// Since when this node has known of each drain; as many as there are in the orders.
#[derive(Debug, Default)]
pub struct Drains(BTreeMap<Drained, Instant>);

/// Drains whose time is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Over(BTreeSet<Drained>);

/// What a session runs on, as far as drains concern it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The node that holds it,
    pub node: NodeId,
    /// and that node's region.
    pub region: RegionId,
    /// The orchestrator that works for it,
    pub orchestrator: OrchestratorId,
    /// and that one's region, where it is known.
    pub works_in: Option<RegionId>,
}

impl Drains {
    /// Takes what is ordered now; returns those whose time is over.
    pub fn take(&mut self, now: Instant, orders: &Orders) -> Over {
        self.0.retain(|what, _since| orders.drains.iter().any(|it| it.what == *what));
        let mut over = BTreeSet::new();
        for it in &orders.drains {
            let since = *self.0.entry(it.what).or_insert(now);
            let within = it.within_s.map(|it| Duration::from_secs(it.into()));
            if within.is_some_and(|it| now.saturating_duration_since(since) >= it) {
                over.insert(it.what);
            }
        }
        Over(over)
    }
}

impl Over {
    /// Whether no drain is over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a session is to end: its node, its orchestrator or the region of either is among
    /// those whose time is over.
    pub fn ends(&self, held: &Held) -> bool {
        let concerned = [
            Some(Drained::Node(held.node)),
            Some(Drained::Region(held.region)),
            held.works_in.map(Drained::Region),
            Some(Drained::Orchestrator(held.orchestrator)),
        ];
        concerned.into_iter().flatten().any(|it| self.0.contains(&it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::orders::Drain;

    #[test]
    fn a_drain_is_over_after_its_time_and_never_once_it_is_taken_back() {
        let (mut drains, now) = (Drains::default(), clock::now());
        let s = Duration::from_secs;
        let what = Drained::Node("a".parse().unwrap());
        let mut orders = Orders::default();
        orders.set_drain(what, Some(Drain { what, within_s: Some(60) }));
        assert!(drains.take(now, &orders).is_empty());
        assert!(drains.take(now + s(59), &orders).is_empty());
        assert_eq!(drains.take(now + s(60), &orders), Over([what].into()));
        orders.set_drain(what, Some(Drain { what, within_s: None }));
        assert!(drains.take(now + s(99), &orders).is_empty(), "its sessions go on");
        orders.set_drain(what, None);
        assert!(drains.take(now + s(99), &orders).is_empty());
        orders.set_drain(what, Some(Drain { what, within_s: Some(60) }));
        assert!(drains.take(now + s(100), &orders).is_empty(), "it begins anew");
    }

    #[test]
    fn a_drain_ends_the_sessions_of_a_node_of_an_orchestrator_and_of_the_region_of_either() {
        let region = |code: &str| code.parse().unwrap();
        let (node, orchestrator) = ("fra-1".parse().unwrap(), OrchestratorId(7));
        let held =
            Held { node, region: region("FRA"), orchestrator, works_in: Some(region("LON")) };
        for what in [
            Drained::Node(node),
            Drained::Region(region("FRA")),
            Drained::Region(region("LON")),
            Drained::Orchestrator(orchestrator),
        ] {
            assert!(Over([what].into()).ends(&held), "{what:?}");
        }
        for what in [
            Drained::Node("fra-2".parse().unwrap()),
            Drained::Region(region("SIN")),
            Drained::Orchestrator(OrchestratorId(8)),
        ] {
            assert!(!Over([what].into()).ends(&held), "{what:?}");
        }
        // One that nobody knows any more is in no region.
        let lost = Held { works_in: None, ..held };
        assert!(!Over([Drained::Region(region("LON"))].into()).ends(&lost));
        assert!(!Over::default().ends(&held));
    }
}
