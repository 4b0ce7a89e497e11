//! The choice for one request.

use std::time::Instant;

use crate::id::OrchestratorId;
use crate::policy::ask::{Ask, PathKind};
use crate::policy::decide::{decide, terms_of};
use crate::policy::filter::{Exclusion, exclusion};
use crate::score::{Evidence, Inputs, Terms};
use crate::unit::Micros;
use crate::unit::stamp::Moment;
use crate::view::outcome::Gauge;
use crate::view::row::{Offer, Path, Prior, Row};
use crate::view::{Member, View};

/// A choice and everything it looked at.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Position of the chosen one in [`Decision::seen`].
    pub chosen: usize,
    looked: Vec<Looked>,
    inputs: Vec<Inputs>,
    /// Position of [`Decision::better_warm`].
    better_warm: Option<usize>,
    /// How far above the least cost counted as equal.
    pub band: Micros,
    /// The random word.
    pub draw: u64,
    /// Whether the short list was not enough and the whole index was scanned.
    pub scanned: bool,
    /// The View it was taken on.
    pub view_version: u64,
}

/// One candidate as a decision saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The orchestrator.
    pub orchestrator: OrchestratorId,
    /// Where it stands in the View.
    pub member: Member,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may serve; what was known of it.
    Eligible(Inputs),
    /// It may not.
    Excluded(Exclusion),
}

/// Why nobody was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("no orchestrator may serve this: {}", describe(.excluded))]
pub struct NoRoute {
    /// How many were out for each reason, most frequent first.
    pub excluded: Vec<(Exclusion, usize)>,
    /// Where a place is worth waiting for, best first; a few at most.
    pub held: Vec<OrchestratorId>,
}

/// Chooses who serves `ask`.
///
/// `live` returns the requests in flight at a candidate and whether the path to it is warm;
/// it is read once a candidate and what it said is kept in the decision. `draw` is one
/// random word. When fewer than three of the short list may serve, the whole index is
/// scanned.
pub fn choose(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Instant,
    draw: u64,
) -> Result<Decision, NoRoute> {
    let list = match ask.path {
        PathKind::Direct => view.direct(ask.caller.cell, ask.capability),
        PathKind::Relayed => view.relayed(ask.capability),
    };
    let (prior, now) = (view.prior(ask.capability), Moment::from(now));
    let mut found = Found::with_capacity(list.len(), prior);
    for member in list {
        found.look(view, *member, &live, ask, now);
    }
    let scanned = found.inputs.len() < ENOUGH && scan(view, &mut found, &live, ask, now);
    let running = ask.running.and_then(|running| found.position(running.on));
    // One that is reached through a peer keeps no connection.
    let opens = |at| {
        let row = view.row(found.looked[found.at(at)].member.slot);
        row.is_some_and(|row| row.link.via.is_none())
    };
    let Some(pick) = decide(&found.inputs, running, draw, opens) else {
        return Err(found.no_route());
    };
    Ok(Decision {
        chosen: found.at(pick.chosen),
        better_warm: pick.better_warm.map(|at| found.at(at)),
        looked: found.looked,
        inputs: found.inputs,
        band: pick.band,
        draw,
        scanned,
        view_version: view.version,
    })
}

/// What is read of a candidate before anything else; what else its gauge tells is read only
/// once it is known not to be out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests of this node in flight there.
    pub in_flight: u32,
    /// Whether an idle connection waits.
    pub warm: bool,
    /// Whether the one place of a probation is taken.
    pub probing: bool,
}

impl From<&Gauge> for Live {
    #[inline]
    fn from(gauge: &Gauge) -> Self {
        Self { in_flight: gauge.in_flight(), warm: gauge.warm() > 0, probing: gauge.is_probing() }
    }
}

impl NoRoute {
    /// Tells whether somebody was out for `reason`.
    pub fn has(&self, reason: Exclusion) -> bool {
        self.excluded.iter().any(|(it, _count)| *it == reason)
    }

    /// Tells whether all who were not tried yet were out for `reason`.
    pub fn is_all(&self, reason: Exclusion) -> bool {
        let others = self.excluded.iter().filter(|(it, _count)| *it != Exclusion::Tried);
        self.has(reason) && others.into_iter().all(|(it, _count)| *it == reason)
    }
}

impl NoRoute {
    /// Tells whether all who were not tried yet are out for the moment only, for lack of places.
    pub fn is_all_for_now(&self) -> bool {
        let mut others = self.excluded.iter().map(|it| it.0).filter(|it| *it != Exclusion::Tried);
        let first = others.next();
        first.is_some_and(Exclusion::is_for_now) && others.all(Exclusion::is_for_now)
    }
}

impl Decision {
    /// Returns the chosen candidate.
    pub fn chosen(&self) -> Seen {
        self.seen_of(&self.looked[self.chosen])
    }

    /// Returns who would have been clearly better, had a connection to it been open; means
    /// nothing where the caller connects by itself.
    pub fn better_warm(&self) -> Option<Seen> {
        self.better_warm.map(|at| self.seen_of(&self.looked[at]))
    }

    /// Returns everyone who was looked at.
    pub fn seen(&self) -> impl Iterator<Item = Seen> {
        self.looked.iter().map(|it| self.seen_of(it))
    }

    fn seen_of(&self, looked: &Looked) -> Seen {
        let verdict = match looked.end {
            Ok(at) => Verdict::Eligible(self.inputs[at]),
            Err(reason) => Verdict::Excluded(reason),
        };
        Seen { orchestrator: looked.orchestrator, member: looked.member, verdict }
    }

    /// Returns the parts of each candidate's cost, computed again from what was known; in
    /// the order of [`Decision::seen`], `None` for those that were out.
    pub fn terms(&self) -> Vec<Option<Terms>> {
        let terms = terms_of(&self.inputs);
        self.looked.iter().map(|it| it.end.ok().and_then(|at| terms.get(at).copied())).collect()
    }
}

/// Returns the path of `ask` to `row`, as it is known now.
#[inline]
pub(crate) fn path(row: &Row, live: Live, ask: &Ask<'_>, now: Instant) -> Path {
    let (rtt, evidence, at) = match ask.path {
        PathKind::Relayed => (row.link.rtt, row.link.evidence, row.link.at),
        PathKind::Direct => {
            let mut observed = ask.caller.observed.iter();
            match observed.find(|it| it.orchestrator == row.id) {
                Some(own) => (own.rtt, Evidence::Own, None),
                None => {
                    let (expected, evidence) = row.expected_from(&ask.caller.place.point);
                    // A guess never competes at face value with a measurement: of many
                    // guesses the least is too good to be true.
                    let is_rated = !ask.caller.observed.is_empty();
                    let charge = if is_rated { GUESS_CHARGE } else { 1 };
                    (Micros(expected.0.saturating_mul(charge)), evidence, None)
                }
            }
        }
    };
    let warm = live.warm && ask.path == PathKind::Relayed;
    let switch = ask.running.filter(|running| running.on != row.id).map_or(0, |it| it.switch.0);
    Path {
        rtt,
        evidence,
        at,
        round_trips: if warm { 1 } else { ask.cold_round_trips },
        in_flight: live.in_flight,
        promised_milli: row.gauge.promised_milli(now),
        claimed: row.gauge.claimed(now),
        full_at: row.gauge.refused().news(row.refused_ever),
        tried: u8::try_from(ask.tried.len()).unwrap_or(u8::MAX),
        switch_us: u32::try_from(switch).unwrap_or(u32::MAX),
    }
}

/// What was found so far.
struct Found {
    looked: Vec<Looked>,
    inputs: Vec<Inputs>,
    prior: Prior,
    beyond: std::collections::BTreeMap<Exclusion, usize>,
}

/// One candidate that was looked at.
#[derive(Clone, Copy, Debug)]
struct Looked {
    orchestrator: OrchestratorId,
    member: Member,
    /// Where among the inputs it stands, or why it does not.
    end: Result<usize, Exclusion>,
}

impl Found {
    fn with_capacity(count: usize, prior: Prior) -> Self {
        Self {
            looked: Vec::with_capacity(count),
            inputs: Vec::with_capacity(count),
            prior,
            beyond: std::collections::BTreeMap::new(),
        }
    }

    #[inline]
    fn look(
        &mut self,
        view: &View,
        member: Member,
        live: &impl Fn(&Gauge) -> Live,
        ask: &Ask<'_>,
        now: Moment,
    ) {
        let Some((row, offer)) = resolve(view, member) else { return };
        let end = judge(self.prior, row, offer, live, ask, now).map(|inputs| {
            self.inputs.push(inputs);
            self.inputs.len() - 1
        });
        self.looked.push(Looked { orchestrator: row.id, member, end });
    }

    /// Returns the position in [`Self::inputs`] of the first offer of `orchestrator` there.
    fn position(&self, orchestrator: OrchestratorId) -> Option<usize> {
        let mut of_it = self.looked.iter().filter(|it| it.orchestrator == orchestrator);
        of_it.find_map(|it| it.end.ok())
    }

    /// Returns the position in [`Self::looked`] of a position in [`Self::inputs`].
    fn at(&self, eligible: usize) -> usize {
        self.looked.iter().position(|it| it.end == Ok(eligible)).unwrap_or_default()
    }

    fn no_route(self) -> NoRoute {
        let mut counts = self.beyond;
        for reason in self.looked.iter().filter_map(|it| it.end.err()) {
            *counts.entry(reason).or_default() += 1;
        }
        let mut excluded: Vec<_> = counts.into_iter().collect();
        excluded.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        let is_held = |it: &&Looked| it.end.is_err_and(Exclusion::is_for_now);
        let mut held: Vec<_> =
            self.looked.iter().filter(is_held).map(|it| it.orchestrator).collect();
        held.dedup();
        held.truncate(HELD_MAX);
        NoRoute { excluded, held }
    }
}

/// Looks at everyone the short list did not name, and keeps the best few.
///
/// Those whose cost was lowest when the View was made come first; when enough of them may
/// serve, the rest is left alone.
fn scan(
    view: &View,
    found: &mut Found,
    live: &impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Moment,
) -> bool {
    let Some(column) = view.column(ask.capability) else { return false };
    if column.members().len() == found.looked.len() {
        return false;
    }
    let listed: std::collections::BTreeSet<Member> =
        found.looked.iter().map(|it| it.member).collect();
    let costs = view.costs_as_made(ask.path == PathKind::Direct, ask.caller.cell, ask.capability);
    let costed = |at: usize| (costs(at), column.members()[at]);
    let mut order: Vec<(u32, Member)> = match &ask.rules.countries {
        Some(countries) => {
            let within = countries.iter().flat_map(|country| column.in_country(*country));
            within.map(|at| costed(*at as usize)).collect()
        }
        None => (0..column.members().len()).map(costed).collect(),
    };
    order.retain(|(_cost, member)| !listed.contains(member));
    if order.len() > SCAN_FIRST {
        order.select_nth_unstable(SCAN_FIRST);
    }
    let (first, rest) = order.split_at(order.len().min(SCAN_FIRST));
    let mut best = Best { held: Vec::new(), beyond: std::mem::take(&mut found.beyond) };
    let prior = found.prior;
    first.iter().for_each(|(_, member)| best.consider(view, *member, prior, live, ask, now));
    if best.held.len() < SCAN_KEEP {
        rest.iter().for_each(|(_, member)| best.consider(view, *member, prior, live, ask, now));
    }
    found.beyond = best.beyond;
    for (_cost, member) in best.held {
        found.look(view, member, live, ask, now);
    }
    true
}

/// The best few of a scan, and why the others are out.
struct Best {
    held: Vec<(Micros, Member)>,
    beyond: std::collections::BTreeMap<Exclusion, usize>,
}

impl Best {
    fn consider(
        &mut self,
        view: &View,
        member: Member,
        prior: Prior,
        live: &impl Fn(&Gauge) -> Live,
        ask: &Ask<'_>,
        now: Moment,
    ) {
        let Some((row, offer)) = resolve(view, member) else { return };
        match judge(prior, row, offer, live, ask, now) {
            Err(reason) => *self.beyond.entry(reason).or_default() += 1,
            Ok(inputs) => {
                let limit = self.held.get(SCAN_KEEP - 1).map(|worst| worst.0);
                if limit.is_some_and(|limit| inputs.at_least() >= limit) {
                    return;
                }
                let cost = inputs.terms(Micros::ZERO).total();
                let at = self.held.partition_point(|held| *held < (cost, member));
                self.held.insert(at, (cost, member));
                self.held.truncate(SCAN_KEEP);
            }
        }
    }
}

pub(crate) fn resolve(view: &View, member: Member) -> Option<(&Row, &Offer)> {
    let row = view.row(member.slot)?;
    Some((row, row.offers.get(usize::from(member.offer))?))
}

/// Returns what is known of one candidate, or why it may not serve.
#[inline]
pub(crate) fn judge(
    prior: Prior,
    row: &Row,
    offer: &Offer,
    live: &impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Moment,
) -> Result<Inputs, Exclusion> {
    let live = live(&row.gauge);
    if let Some(reason) = exclusion(row, offer, ask, live.probing, now.at) {
        return Err(reason);
    }
    let inputs = row.inputs(offer, &path(row, live, ask, now.at), now.stamp, prior);
    match ask.deadline.is_some_and(|deadline| inputs.expected() > deadline) {
        true => Err(Exclusion::Deadline),
        false => Ok(inputs),
    }
}

fn describe(excluded: &[(Exclusion, usize)]) -> String {
    if excluded.is_empty() {
        return "nobody offers it".to_owned();
    }
    let one = |(reason, count): &(Exclusion, usize)| {
        let name = serde_json::to_string(reason).unwrap_or_default();
        format!("{count} {}", name.trim_matches('"'))
    };
    excluded.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Places are waited for at so many at once: whichever is free first.
const HELD_MAX: usize = 4;
/// With fewer than this many of the short list eligible, the whole index is scanned.
const ENOUGH: usize = 3;
/// A scan looks at this many of the cheapest first.
const SCAN_FIRST: usize = 256;
/// The most a scan adds to what the short list gave.
const SCAN_KEEP: usize = 8;
/// What an expectation is multiplied by once its caller has measured anybody: at 1 the
/// regret on real round trips more than doubles, from 1.5 to 2 it no longer depends on it.
const GUESS_CHARGE: u64 = 2;

#[cfg(test)]
mod tests;
