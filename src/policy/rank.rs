//! Everybody in order: what a discovery list shows, and what `explain` tells.

use std::time::Instant;

use crate::policy::ask::{Ask, PathKind};
use crate::policy::choose::{Live, Seen, Verdict, judge, resolve};
use crate::policy::filter::Exclusion;
use crate::score::Inputs;
use crate::unit::{Micros, log2_q10};
use crate::view::View;
use crate::view::outcome::Gauge;

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
    let see = |member: &_| {
        let (row, offer) = resolve(view, *member)?;
        let verdict = judged(judge(view, row, offer, &live, ask, now));
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

/// Returns everybody who offers what `ask` wants with what becomes of them, best first,
/// those who are out last.
pub fn examine(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Instant,
) -> Vec<Seen> {
    let Some(column) = view.column(ask.capability) else { return Vec::new() };
    let see = |member: &_| {
        let (row, offer) = resolve(view, *member)?;
        let verdict = judged(judge(view, row, offer, &live, ask, now));
        Some(Seen { orchestrator: row.id, member: *member, verdict })
    };
    let mut everyone: Vec<Seen> = column.members().iter().filter_map(see).collect();
    let least = everyone.iter().filter_map(expected).min().unwrap_or(Micros::ZERO);
    for seen in &mut everyone {
        if let Verdict::Eligible { inputs, terms } = &mut seen.verdict {
            *terms = inputs.terms(least);
        }
    }
    everyone.sort_by_key(|seen| match seen.verdict {
        Verdict::Eligible { terms, .. } => (0, terms.total(), seen.orchestrator, seen.member),
        Verdict::Excluded(_) => (1, Micros::ZERO, seen.orchestrator, seen.member),
    });
    everyone
}

/// Returns a verdict whose terms are still without an alternative.
fn judged(end: Result<Inputs, Exclusion>) -> Verdict {
    match end {
        Ok(inputs) => Verdict::Eligible { inputs, terms: inputs.terms(Micros::ZERO) },
        Err(reason) => Verdict::Excluded(reason),
    }
}

fn expected(seen: &Seen) -> Option<Micros> {
    match seen.verdict {
        Verdict::Eligible { inputs, .. } => Some(inputs.expected()),
        Verdict::Excluded(_) => None,
    }
}

/// Returns the step of about 5 % a candidate's cost falls in, lower is better; `None` when
/// it is out.
pub fn step(seen: &Seen) -> Option<i32> {
    match seen.verdict {
        Verdict::Eligible { terms, .. } => Some(log2_q10(terms.total().0) / STEP),
        Verdict::Excluded(_) => None,
    }
}

/// `1024 * log2(1.05)`, rounded.
const STEP: i32 = 72;
