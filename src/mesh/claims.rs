//! What this node has in flight where few places are left, and what its peers have there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Fault;
use super::Mesh;
use super::Output;
use crate::health::Observation;
use crate::id::{NodeId, OrchestratorId};
use crate::view::claim::{LIFE, Use};
use crate::wire::v1::{LoadRowV1, LoadV1};
use crate::wire::{MAX_LOADS, Message};

/// How peers use one orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which one.
    pub orchestrator: OrchestratorId,
    /// What each of those that use it has in flight there.
    pub in_flight: Vec<u32>,
    /// When the latest of them said so.
    pub at: Instant,
}

/// Own use, as peers were told, and theirs, as they told; a peer writes only its own.
#[derive(Debug, Default)]
pub(super) struct Claims {
    told: BTreeMap<OrchestratorId, Told>,
    heard: BTreeMap<OrchestratorId, BTreeMap<NodeId, Claim>>,
    /// When the oldest of `heard` may be over.
    expire_at: Option<Instant>,
}

/// What peers were told of one orchestrator.
#[derive(Clone, Copy, Debug)]
struct Told {
    sent: u32,
    at: Instant,
    /// Since when less is used, and how much.
    less: Option<(Instant, u32)>,
    /// Attempts turned away as of the last look.
    refused: u32,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    in_flight: u32,
    at: Instant,
}

impl Claims {
    /// Takes how this node uses some orchestrators; returns what peers should know of it at
    /// once: what is scarce, and that it still is so. That less is used waits its time.
    fn news(&mut self, now: Instant, used: &[Use]) -> Vec<LoadRowV1> {
        let mut rows = Vec::new();
        for it in used {
            let (id, in_flight) = (it.orchestrator, it.in_flight);
            let n_told = self.told.len();
            let Some(told) = self.told.get_mut(&id) else {
                if it.scarce && in_flight > 0 && n_told < HELD_MAX {
                    let refused = it.refused;
                    let told = Told { sent: in_flight, at: now, less: None, refused };
                    self.told.insert(id, told);
                    rows.push(row(id, in_flight));
                }
                continue;
            };
            // Who was turned away took no place: that is told at once.
            let n_refused = it.refused.wrapping_sub(told.refused);
            let (before, refused) = (told.sent, it.refused);
            *told =
                Told { refused, sent: in_flight.max(before.saturating_sub(n_refused)), ..*told };
            if in_flight < told.sent {
                let since = told.less.map_or(now, |(since, _less)| since);
                told.less = Some((since, in_flight));
            } else {
                told.less = None;
            }
            let is_old = now.saturating_duration_since(told.at) >= RENEW;
            if told.sent != before || is_old {
                told.at = now;
                rows.push(row(id, told.sent));
            }
        }
        rows
    }

    /// Returns where less has been used for [`KEEP`].
    fn less(&mut self, now: Instant) -> Vec<LoadRowV1> {
        let mut rows = Vec::new();
        self.told.retain(|id, told| {
            let Some((_since, in_flight)) = told.less.filter(|it| it.0 + KEEP <= now) else {
                return true;
            };
            *told = Told { sent: in_flight, at: now, less: None, ..*told };
            rows.push(row(*id, in_flight));
            in_flight > 0
        });
        rows
    }

    /// Returns when [`Self::less`] next has something to say.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.told.values().filter_map(|it| Some(it.less?.0 + KEEP)).min()
    }

    /// Takes what `node` said; returns how its peers use what it named.
    fn hear(&mut self, now: Instant, node: NodeId, load: &LoadV1) -> Vec<Claimed> {
        let age = Duration::from_millis(load.age_ms.into());
        let Some(at) = now.checked_sub(age).filter(|_| age <= LIFE) else { return Vec::new() };
        self.expire_at = self.expire_at.or(Some(now + LIFE));
        let mut claimed = Vec::with_capacity(load.rows.len());
        for row in &load.rows {
            let orchestrator = OrchestratorId(row.orchestrator);
            if !self.heard.contains_key(&orchestrator) && self.heard.len() >= HELD_MAX {
                continue;
            }
            let of_it = self.heard.entry(orchestrator).or_default();
            of_it.retain(|_node, it| it.is_fresh(now));
            of_it.insert(node, Claim { in_flight: row.in_flight, at });
            let in_flight = of_it.values().map(|it| it.in_flight).collect();
            let latest = of_it.values().map(|it| it.at).max().unwrap_or(at);
            claimed.push(Claimed { orchestrator, in_flight, at: latest });
        }
        claimed
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.expire_at.is_none_or(|at| now < at) {
            return;
        }
        for of_it in self.heard.values_mut() {
            of_it.retain(|_node, it| it.is_fresh(now));
        }
        self.heard.retain(|_orchestrator, of_it| !of_it.is_empty());
        self.expire_at = (!self.heard.is_empty()).then(|| now + LIFE);
    }
}

fn row(orchestrator: OrchestratorId, in_flight: u32) -> LoadRowV1 {
    LoadRowV1 { orchestrator: orchestrator.0, in_flight }
}

impl Claim {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= LIFE
    }
}

impl Mesh {
    /// Takes how this node uses orchestrators now, and tells the peers at once what they
    /// should know of it. What no budget is left for, the next health record tells.
    pub fn handle_use(&mut self, now: Instant, used: &[Use]) {
        if self.params.share_load {
            let rows = self.claims.news(now, used);
            self.tell_load(&rows);
        }
    }

    /// Tells where less is used than before.
    pub(super) fn tell_less(&mut self, now: Instant) {
        let rows = self.claims.less(now);
        self.tell_load(&rows);
    }

    fn tell_load(&mut self, rows: &[LoadRowV1]) {
        let up: Vec<NodeId> = self.links().collect();
        for rows in rows.chunks(MAX_LOADS) {
            for &peer in &up {
                if self.budget.has_credit() {
                    let load = LoadV1 { age_ms: 0, rows: rows.to_vec() };
                    self.send(peer, Message::Load(load));
                }
            }
        }
    }

    /// Takes what a peer has in flight. It speaks for itself alone: the sender is the identity
    /// of the link.
    pub(super) fn take_load(&mut self, now: Instant, node: NodeId, load: &LoadV1) {
        if load.rows.iter().any(|row| row.in_flight > Observation::MAX_IN_FLIGHT) {
            return self.quarantine(now, node, Fault::Value);
        }
        if !self.params.share_load {
            return;
        }
        let claimed = self.claims.hear(now, node, load);
        if !claimed.is_empty() {
            self.outputs.push_back(Output::Claimed(claimed));
        }
    }
}

/// A place that is given back stays this node's for so long: its own clients who wait for one
/// come first, and no two nodes run for the same place.
const KEEP: Duration = Duration::from_millis(150);

/// What is in use is told again after so long, if it was touched: half of its life.
const RENEW: Duration = Duration::from_secs(1);

/// The most orchestrators of which use is told or heard: as many as peers of a large mesh fill
/// at once, and at most 320 claims each.
const HELD_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn load(age_ms: u32, rows: &[(u64, u32)]) -> LoadV1 {
        let row = |&(orchestrator, in_flight): &(u64, u32)| LoadRowV1 { orchestrator, in_flight };
        LoadV1 { age_ms, rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn more_is_told_at_once_and_less_when_it_lasts() {
        let (mut claims, now) = (Claims::default(), clock::now());
        let used_of = |in_flight, refused, scarce| {
            [Use { orchestrator: OrchestratorId(7), in_flight, refused, scarce }]
        };
        let used = |in_flight, scarce| used_of(in_flight, 0, scarce);
        let said = |in_flight| vec![row(OrchestratorId(7), in_flight)];
        assert_eq!(claims.news(now, &used(1, false)), []);
        assert_eq!(claims.news(now, &used(4, true)), said(4));
        assert_eq!(claims.news(now, &used(4, true)), []);
        assert_eq!(claims.news(now, &used(3, true)), []);
        assert_eq!(claims.next_timeout(), Some(now + KEEP));
        assert_eq!(claims.news(now, &used(4, true)), [], "taken again in time");
        assert_eq!(claims.next_timeout(), None);
        assert_eq!(claims.news(now, &used(1, false)), []);
        assert_eq!(claims.news(now + KEEP / 2, &used(2, false)), []);
        assert_eq!(claims.less(now + KEEP / 2), []);
        assert_eq!(claims.less(now + KEEP), said(2));
        assert_eq!(claims.news(now + RENEW, &used(2, true)), []);
        assert_eq!(claims.news(now + RENEW + KEEP, &used(2, true)), said(2), "still so");
        assert_eq!(claims.news(now + RENEW + KEEP, &used(0, false)), []);
        assert_eq!(claims.less(now + RENEW + KEEP * 2), said(0));
        assert!(claims.told.is_empty());
        let late = now + RENEW * 3;
        assert_eq!(claims.news(late, &used_of(6, 5, true)), said(6));
        assert_eq!(claims.news(late, &used_of(3, 7, true)), said(4), "two were turned away");
        assert_eq!(claims.less(late + KEEP), said(3));
        claims.told.clear();
        assert!(claims.told.is_empty());
    }

    #[test]
    fn each_peer_speaks_for_itself_and_is_forgotten_in_time() {
        let (mut claims, now) = (Claims::default(), clock::now());
        let [a, b]: [NodeId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        claims.hear(now, a, &load(0, &[(7, 4)]));
        let later = now + Duration::from_secs(1);
        let both = claims.hear(later, b, &load(0, &[(7, 2)]));
        let of = |in_flight: &[u32], at| Claimed {
            orchestrator: OrchestratorId(7),
            in_flight: in_flight.to_vec(),
            at,
        };
        assert_eq!(both, [of(&[4, 2], later)]);
        assert_eq!(claims.hear(later, a, &load(0, &[(7, 1)])), [of(&[1, 2], later)]);
        let last = later + LIFE + Duration::from_millis(1);
        assert_eq!(claims.hear(last, a, &load(0, &[(7, 3)])), [of(&[3], last)]);
        assert_eq!(claims.hear(last, a, &load(2_001, &[(7, 9)])), [], "too old on arrival");
        claims.expire(last + LIFE * 2);
        assert!(claims.heard.is_empty() && claims.expire_at.is_none());
    }

    #[test]
    fn no_more_is_held_than_fits() {
        let (mut claims, now) = (Claims::default(), clock::now());
        let node: NodeId = "a".parse().unwrap();
        for from in (0..10_000).step_by(MAX_LOADS) {
            let rows: Vec<(u64, u32)> = (from..from + MAX_LOADS as u64).map(|it| (it, 1)).collect();
            claims.hear(now, node, &load(0, &rows));
        }
        assert_eq!(claims.heard.len(), HELD_MAX);
    }
}
