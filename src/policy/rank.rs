//! Everybody in order: what a discovery list shows, and what `explain` tells.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::policy::ask::{Ask, PathKind};
use crate::policy::choose::{Live, Seen, Verdict, judge, resolve};
use crate::policy::decide::near_equal;
use crate::policy::filter::Exclusion;
use crate::score::Inputs;
use crate::unit::{Micros, log2_q10};
use crate::view::outcome::Gauge;
use crate::view::{Slot, View};

/// Returns who may serve `ask`, best first, at most `limit`, in an order that stays as it
/// is while nothing changes.
///
/// Costs are compared in steps of about 5 %, so that a microsecond's jitter of a
/// measurement does not shuffle a list that stock gateways compare byte by byte; within a
/// step the orchestrator's id decides.
pub fn rank(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Instant,
    limit: usize,
) -> Vec<Seen> {
    let list = match ask.path {
        PathKind::Direct => view.direct(ask.caller.cell, ask.capability),
        PathKind::Relayed => view.relayed(ask.capability),
    };
    let (prior, moment) = (view.prior(ask.capability), now.into());
    let see = |member: &_| {
        let (row, offer) = resolve(view, *member)?;
        let verdict = judged(judge(prior, row, offer, &live, ask, moment));
        Some(Seen { orchestrator: row.id, member: *member, verdict })
    };
    let mut ranked: Vec<(i32, Seen)> =
        list.iter().filter_map(see).filter_map(|seen| Some((step(&seen)?, seen))).collect();
    if ranked.len() < limit {
        let everyone = examine(view, &live, ask, now);
        let more = everyone.into_iter().filter(|seen| !list.contains(&seen.member));
        ranked.extend(more.filter_map(|seen| Some((step(&seen)?, seen))));
    }
    ranked.sort_by_key(|(step, seen)| (*step, seen.orchestrator, seen.member));
    ranked.into_iter().map(|(_step, seen)| seen).take(limit).collect()
}

/// Returns `seen`, of one question or of several, as a client should walk it: everyone once,
/// with the best of its offers, at most `limit`.
///
/// While nobody was promised anything the order is that of [`rank`] and stays as it is. Once
/// somebody was, a thousand clients may be asking at this moment: near-equals are then drawn
/// by their free slots, promised ones taken off, so that each client is sent elsewhere.
pub fn in_order(seen: impl IntoIterator<Item = Seen>, limit: usize, draw: u64) -> Vec<Seen> {
    let mut best: BTreeMap<Slot, Costed> = BTreeMap::new();
    for seen in seen {
        let Some(costed) = Costed::of(seen) else { continue };
        let held = best.entry(seen.member.slot).or_insert(costed);
        if costed.cost < held.cost {
            *held = costed;
        }
    }
    let mut order: Vec<Costed> = best.into_values().collect();
    if order.iter().all(|it| it.inputs.promised_milli == 0) {
        order.sort_by_key(|it| (log2_q10(it.cost.0) / STEP, it.seen.orchestrator));
    } else {
        order.sort_by_key(|it| (it.cost, it.seen.orchestrator));
        rotate(&mut order, draw);
    }
    order.into_iter().map(|it| it.seen).take(limit).collect()
}

/// Draws the order within each stretch of near-equals, the freest being likeliest to lead.
fn rotate(order: &mut [Costed], draw: u64) {
    let (mut at, mut word) = (0, draw);
    while at < order.len() {
        let limit = order[at].cost + near_equal(order[at].cost, &order[at].inputs);
        let end = order.partition_point(|it| it.cost <= limit).max(at + 1);
        while at < end {
            let weights = order[at..end].iter().map(|it| it.inputs.free_milli() + TRACE_MILLI);
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let drawn = drawn(weights, mixed(word) >> 32);
            order[at..=at + drawn].rotate_right(1);
            at += 1;
        }
    }
}

/// Returns a position drawn by weight; `word` is 32 bits.
fn drawn(weights: impl Iterator<Item = u64> + Clone, word: u64) -> usize {
    let total: u64 = weights.clone().sum();
    let mut target = ((u128::from(word) * u128::from(total)) >> 32) as u64;
    let mut weights = weights;
    let found = weights.position(|weight| {
        let here = target < weight;
        target = target.saturating_sub(weight);
        here
    });
    found.unwrap_or_default()
}

/// SplitMix64's finish: one word becomes as many as there are to draw.
fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// One who may serve, and its cost.
#[derive(Clone, Copy)]
struct Costed {
    seen: Seen,
    inputs: Inputs,
    cost: Micros,
}

impl Costed {
    fn of(seen: Seen) -> Option<Self> {
        match seen.verdict {
            Verdict::Eligible(inputs) => {
                Some(Self { seen, inputs, cost: inputs.terms(Micros::ZERO).total() })
            }
            Verdict::Excluded(_) => None,
        }
    }
}

/// Returns everybody who offers what `ask` wants with what becomes of them, best first,
/// those who are out last.
pub fn examine(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Instant,
) -> Vec<Seen> {
    let Some(column) = view.column(ask.capability) else { return Vec::new() };
    let (prior, moment) = (view.prior(ask.capability), now.into());
    let see = |member: &_| {
        let (row, offer) = resolve(view, *member)?;
        let verdict = judged(judge(prior, row, offer, &live, ask, moment));
        Some(Seen { orchestrator: row.id, member: *member, verdict })
    };
    let mut everyone: Vec<Seen> = column.members().iter().filter_map(see).collect();
    everyone.sort_by_key(|seen| match seen.verdict {
        Verdict::Eligible(inputs) => {
            (0, inputs.terms(Micros::ZERO).total(), seen.orchestrator, seen.member)
        }
        Verdict::Excluded(_) => (1, Micros::ZERO, seen.orchestrator, seen.member),
    });
    everyone
}

fn judged(end: Result<Inputs, Exclusion>) -> Verdict {
    end.map_or_else(Verdict::Excluded, Verdict::Eligible)
}

/// Returns the step of about 5 % a candidate's cost falls in, lower is better; `None` when
/// it is out.
fn step(seen: &Seen) -> Option<i32> {
    match seen.verdict {
        Verdict::Eligible(inputs) => Some(log2_q10(inputs.terms(Micros::ZERO).total().0) / STEP),
        Verdict::Excluded(_) => None,
    }
}

/// `1024 * log2(1.05)`, rounded.
const STEP: i32 = 72;
/// Weight of one without a free slot: a tenth of a slot.
const TRACE_MILLI: u64 = 100;

#[cfg(test)]
mod tests;
