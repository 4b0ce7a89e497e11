//! What this node has in flight where few places are left, and what its peers have there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Fault;
use super::Mesh;
use super::Output;
use crate::health::Observation;
use crate::id::{NodeId, OrchestratorId, RegionId};
use crate::view::board::{PeerNeed, Use};
use crate::view::claim::LIFE;
use crate::wire::v1::{LoadRowV1, LoadV1, WantRowV1, WantV1};
use crate::wire::{MAX_LOADS, Message};

/// How peers use one orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which one.
    pub orchestrator: OrchestratorId,
    /// What each of those that use it has in flight there, and wants.
    pub peers: Vec<PeerNeed>,
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
    waiting: u32,
    /// What all together had there at the last refusal.
    places: u32,
    /// Since when less waits, and how much.
    fewer: Option<(Instant, u32)>,
}

/// What peers are to be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    loads: Vec<LoadRowV1>,
    wants: Vec<WantRowV1>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    in_flight: u32,
    waiting: u32,
    places: u32,
    at: Instant,
}

impl Claims {
    /// Takes how this node uses some orchestrators; returns what peers should know of it at
    /// once: what is scarce, and that it still is so. That less is used waits its time.
    fn news(&mut self, now: Instant, used: &[Use]) -> News {
        let mut news = News::default();
        for it in used {
            let (id, in_flight) = (it.orchestrator, it.in_flight);
            let waiting = rounded(it.waiting);
            let n_told = self.told.len();
            let Some(told) = self.told.get_mut(&id) else {
                if it.scarce && in_flight + waiting > 0 && n_told < HELD_MAX {
                    self.told.insert(id, Told::new(now, it));
                    news.loads.push(row(id, in_flight));
                    if waiting > 0 || it.places > 0 {
                        news.wants.push(want(id, waiting, it.places));
                    }
                }
                continue;
            };
            // Who was turned away took no place: that is told at once.
            let n_refused = it.refused.wrapping_sub(told.refused);
            let (before, refused) = (told.sent, it.refused);
            *told =
                Told { refused, sent: in_flight.max(before.saturating_sub(n_refused)), ..*told };
            told.less = later(told.less, now, in_flight, told.sent);
            told.fewer = later(told.fewer, now, waiting, told.waiting);
            let is_old = now.saturating_duration_since(told.at) >= RENEW;
            if told.sent != before || is_old {
                told.at = now;
                news.loads.push(row(id, told.sent));
            }
            let is_known = waiting <= told.waiting && it.places == told.places;
            if !is_known || is_old && (told.waiting > 0 || told.places > 0) {
                (told.waiting, told.places) = (waiting.max(told.waiting), it.places);
                news.wants.push(want(id, told.waiting, told.places));
            }
        }
        news
    }

    /// Returns where less has been used, or fewer have waited, for [`KEEP`].
    fn less(&mut self, now: Instant) -> News {
        let mut news = News::default();
        self.told.retain(|id, told| {
            let is_due = |it: &(Instant, u32)| it.0 + KEEP <= now;
            if let Some((_since, waiting)) = told.fewer.filter(is_due) {
                (told.waiting, told.fewer) = (waiting, None);
                news.wants.push(want(*id, waiting, told.places));
            }
            if let Some((_since, in_flight)) = told.less.filter(is_due) {
                *told = Told { sent: in_flight, at: now, less: None, ..*told };
                news.loads.push(row(*id, in_flight));
            }
            told.sent > 0 || told.waiting > 0
        });
        news
    }

    /// Returns when [`Self::less`] next has something to say.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = |it: &Told| [it.less, it.fewer].into_iter().flatten().map(|it| it.0 + KEEP).min();
        self.told.values().filter_map(due).min()
    }

    /// Takes what `node` said it has in flight; returns which orchestrators that was about.
    fn hear(&mut self, now: Instant, node: NodeId, load: &LoadV1) -> Vec<OrchestratorId> {
        let age = Duration::from_millis(load.age_ms.into());
        let Some(at) = now.checked_sub(age).filter(|_| age <= LIFE) else { return Vec::new() };
        let mut heard = Vec::with_capacity(load.rows.len());
        for row in &load.rows {
            let id = OrchestratorId(row.orchestrator);
            if let Some(claim) = self.claim(now, id, node) {
                (claim.in_flight, claim.at) = (row.in_flight, at);
                heard.push(id);
            }
        }
        heard
    }

    /// Takes how much `node` said waits there; returns which orchestrators that was about.
    fn hear_want(&mut self, now: Instant, node: NodeId, want: &WantV1) -> Vec<OrchestratorId> {
        let mut heard = Vec::with_capacity(want.rows.len());
        for row in &want.rows {
            let id = OrchestratorId(row.orchestrator);
            if let Some(claim) = self.claim(now, id, node) {
                (claim.waiting, claim.places, claim.at) = (row.waiting, row.places, now);
                heard.push(id);
            }
        }
        heard
    }

    /// Returns what is held of `node` at an orchestrator; `None` when there is no room.
    fn claim(&mut self, now: Instant, id: OrchestratorId, node: NodeId) -> Option<&mut Claim> {
        if !self.heard.contains_key(&id) && self.heard.len() >= HELD_MAX {
            return None;
        }
        self.expire_at = self.expire_at.or(Some(now + LIFE));
        let of_it = self.heard.entry(id).or_default();
        of_it.retain(|_node, it| it.is_fresh(now));
        Some(of_it.entry(node).or_insert(Claim { in_flight: 0, waiting: 0, places: 0, at: now }))
    }

    /// Returns how peers use an orchestrator; `region` says where each of them runs.
    fn claimed(
        &self,
        orchestrator: OrchestratorId,
        region: impl Fn(NodeId) -> Option<RegionId>,
    ) -> Option<Claimed> {
        let of_it = self.heard.get(&orchestrator)?;
        let need = |(node, it): (&NodeId, &Claim)| PeerNeed {
            node: *node,
            region: region(*node),
            in_flight: it.in_flight,
            waiting: it.waiting,
            places: it.places,
        };
        let at = of_it.values().map(|it| it.at).max()?;
        Some(Claimed { orchestrator, peers: of_it.iter().map(need).collect(), at })
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

fn want(orchestrator: OrchestratorId, waiting: u32, places: u32) -> WantRowV1 {
    WantRowV1 { orchestrator: orchestrator.0, waiting, places }
}

/// Rounds up to a power of two: shares hardly change by less, and it is told seldom.
fn rounded(waiting: u32) -> u32 {
    match waiting {
        0 => 0,
        1.. => waiting.checked_next_power_of_two().unwrap_or(waiting),
    }
}

/// Returns since when there is less than was told, and how much.
fn later(
    before: Option<(Instant, u32)>,
    now: Instant,
    less: u32,
    told: u32,
) -> Option<(Instant, u32)> {
    (less < told).then(|| (before.map_or(now, |(since, _less)| since), less))
}

impl Told {
    fn new(now: Instant, used: &Use) -> Self {
        Self {
            sent: used.in_flight,
            at: now,
            less: None,
            refused: used.refused,
            waiting: rounded(used.waiting),
            places: used.places,
            fewer: None,
        }
    }
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
            let news = self.claims.news(now, used);
            self.tell_use(&news);
        }
    }

    /// Tells where less is used than before.
    pub(super) fn tell_less(&mut self, now: Instant) {
        let news = self.claims.less(now);
        self.tell_use(&news);
    }

    fn tell_use(&mut self, news: &News) {
        let load = |rows: &[LoadRowV1]| Message::Load(LoadV1 { age_ms: 0, rows: rows.to_vec() });
        let want = |rows: &[WantRowV1]| Message::Want(WantV1 { rows: rows.to_vec() });
        let loads = news.loads.chunks(MAX_LOADS).map(load);
        let messages: Vec<Message> = loads.chain(news.wants.chunks(MAX_LOADS).map(want)).collect();
        let up: Vec<NodeId> = self.links().collect();
        for message in messages {
            for &peer in &up {
                if self.budget.has_credit() {
                    self.send(peer, message.clone());
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
        let heard = self.claims.hear(now, node, load);
        self.tell_claimed(&heard);
    }

    /// Takes what waits for places at a peer.
    pub(super) fn take_want(&mut self, now: Instant, node: NodeId, want: &WantV1) {
        if want.rows.iter().any(|row| row.waiting > Observation::MAX_IN_FLIGHT) {
            return self.quarantine(now, node, Fault::Value);
        }
        if self.params.share_load {
            let heard = self.claims.hear_want(now, node, want);
            self.tell_claimed(&heard);
        }
    }

    fn tell_claimed(&mut self, heard: &[OrchestratorId]) {
        let region = |node| self.peers.get(&node)?.region;
        let claimed = heard.iter().filter_map(|it| self.claims.claimed(*it, region));
        let claimed: Vec<Claimed> = claimed.collect();
        if !claimed.is_empty() {
            self.outputs.push_back(Output::Claimed(claimed));
        }
    }
}

/// A place that is given back stays this node's for so long, and so does one that somebody
/// waited for: its own clients come first, and what comes and goes is told once. Then it is
/// lent to whoever wants it.
const KEEP: Duration = Duration::from_millis(50);

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
            [Use {
                orchestrator: OrchestratorId(7),
                in_flight,
                waiting: 0,
                places: 0,
                refused,
                scarce,
            }]
        };
        let used = |in_flight, scarce| used_of(in_flight, 0, scarce);
        let said =
            |in_flight| News { loads: vec![row(OrchestratorId(7), in_flight)], ..News::default() };
        let nothing = News::default;
        assert_eq!(claims.news(now, &used(1, false)), nothing());
        assert_eq!(claims.news(now, &used(4, true)), said(4));
        assert_eq!(claims.news(now, &used(4, true)), nothing());
        assert_eq!(claims.news(now, &used(3, true)), nothing());
        assert_eq!(claims.next_timeout(), Some(now + KEEP));
        assert_eq!(claims.news(now, &used(4, true)), nothing(), "taken again in time");
        assert_eq!(claims.next_timeout(), None);
        assert_eq!(claims.news(now, &used(1, false)), nothing());
        assert_eq!(claims.news(now + KEEP / 2, &used(2, false)), nothing());
        assert_eq!(claims.less(now + KEEP / 2), nothing());
        assert_eq!(claims.less(now + KEEP), said(2));
        assert_eq!(claims.news(now + RENEW, &used(2, true)), nothing());
        assert_eq!(claims.news(now + RENEW + KEEP, &used(2, true)), said(2), "still so");
        assert_eq!(claims.news(now + RENEW + KEEP, &used(0, false)), nothing());
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
    fn what_waits_is_told_in_steps_and_lent_when_it_is_gone() {
        let (mut claims, now) = (Claims::default(), clock::now());
        let waits = |waiting| {
            let orchestrator = OrchestratorId(7);
            [Use {
                orchestrator,
                in_flight: 0,
                waiting,
                places: 0,
                refused: 0,
                scarce: waiting > 0,
            }]
        };
        let said =
            |waiting| News { wants: vec![want(OrchestratorId(7), waiting, 0)], loads: vec![] };
        let first = News { loads: vec![row(OrchestratorId(7), 0)], ..said(4) };
        assert_eq!(claims.news(now, &waits(3)), first);
        assert_eq!(claims.news(now, &waits(4)), News::default());
        assert_eq!(claims.news(now, &waits(5)), said(8));
        assert_eq!(claims.news(now, &waits(0)), News::default());
        assert_eq!(claims.next_timeout(), Some(now + KEEP));
        assert_eq!(claims.less(now + KEEP), said(0));
        assert!(claims.told.is_empty());
    }

    #[test]
    fn each_peer_speaks_for_itself_and_is_forgotten_in_time() {
        let (mut claims, now) = (Claims::default(), clock::now());
        let id = OrchestratorId(7);
        let [a, b]: [NodeId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let told = |claims: &Claims| {
            let claimed = claims.claimed(id, |_node| None).unwrap();
            let of = claimed.peers.iter().map(|it| (it.node, it.in_flight, it.waiting)).collect();
            (of, claimed.at)
        };
        claims.hear(now, a, &load(0, &[(7, 4)]));
        let later = now + Duration::from_secs(1);
        assert_eq!(claims.hear(later, b, &load(0, &[(7, 2)])), [id]);
        assert_eq!(told(&claims), (vec![(a, 4, 0), (b, 2, 0)], later));
        let waits = WantV1 { rows: vec![WantRowV1 { orchestrator: 7, waiting: 8, places: 0 }] };
        assert_eq!(claims.hear_want(later, a, &waits), [id]);
        assert_eq!(told(&claims), (vec![(a, 4, 8), (b, 2, 0)], later));
        let last = later + LIFE + Duration::from_millis(1);
        claims.hear(last, a, &load(0, &[(7, 3)]));
        assert_eq!(told(&claims), (vec![(a, 3, 0)], last));
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
