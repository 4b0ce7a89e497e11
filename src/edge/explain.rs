//! A decision in words and numbers: every candidate, each term, each age, each reason.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};

use crate::clock;
use crate::edge::Gateway;
use crate::edge::decisions::Record;
use crate::geo::Place;
use crate::id::RegionId;
use crate::policy::{Ask, PathKind, Seen, Verdict, examine, terms_of};
use crate::score::Terms;
use crate::unit::Micros;
use crate::view::View;
use crate::view::row::Row;

/// Explains a decision that was taken.
pub fn taken(view: &View, record: &Record) -> Value {
    let decision = &record.decision;
    let candidates: Vec<Value> = decision
        .seen()
        .zip(decision.terms())
        .enumerate()
        .map(|(at, (seen, terms))| {
            candidate(view, &seen, terms, at == decision.chosen, clock::now())
        })
        .collect();
    let mut found = caller(&record.place, record.home);
    merge(
        &mut found,
        json!({
            "decision": record.id,
            "at_ms": record.at_ms,
            "capability": record.capability,
            "path": record.path,
            "chosen": decision.chosen().orchestrator,
            "near_equal_ms": decision.band.as_ms(),
            "draw": format!("{:016x}", decision.draw),
            "scanned_whole_index": decision.scanned,
            "view": decision.view_version,
            "policies": record.applied,
            "tried_before": record.tried,
            "candidates": candidates,
        }),
    );
    found
}

/// Explains what would be decided for a caller at `ip`.
pub fn hypothetical(
    gateway: &Gateway,
    ip: IpAddr,
    capability: &str,
    path: PathKind,
) -> Option<Value> {
    let (view, params) = (gateway.view(), gateway.params.load());
    let located = gateway.locate_ip(ip);
    let number = view.capabilities.number(capability)?;
    let rules = gateway.under_orders(&params.rules, &view, &located);
    let ask = Ask::new(&located.caller, number, path, &rules);
    let now = clock::now();
    let seen = examine(&view, |gauge| gauge.into(), &ask, now);
    let known = seen.iter().filter_map(|it| match it.verdict {
        Verdict::Eligible(inputs) => Some(inputs),
        Verdict::Excluded(_) => None,
    });
    // Those who are out stand last, so terms and candidates go in step.
    let terms = terms_of(&known.collect::<Vec<_>>()).into_iter().map(Some);
    let terms = terms.chain(std::iter::repeat(None));
    let shown = seen.iter().zip(terms).take(SHOWN_MAX).enumerate();
    let candidates: Vec<Value> = shown
        .map(|(at, (it, terms))| {
            let first = at == 0 && terms.is_some();
            candidate(&view, it, terms, first, now)
        })
        .collect();
    let mut found = caller(&located.caller.place, located.home);
    merge(
        &mut found,
        json!({
            "capability": capability,
            "path": path,
            "view": view.version,
            "n_candidates": seen.len(),
            "candidates": candidates,
        }),
    );
    Some(found)
}

/// The best few candidates of a decision on one line, for a header.
pub fn short(view: &View, record: &Record) -> String {
    let mut eligible: Vec<(Micros, String)> = Vec::new();
    for (seen, terms) in record.decision.seen().zip(record.decision.terms()) {
        if let Some(terms) = terms {
            let region = view
                .row(seen.member.slot)
                .map_or_else(String::new, |row| view.atlas.name(row.region).to_string());
            let total = terms.total();
            let parts = [
                ("path", terms.path_us),
                ("queue", terms.queue_us),
                ("service", terms.service_us),
                ("failing", terms.failing_us),
                ("price", terms.price_us),
                ("weight", terms.weight_us),
            ];
            let parts = parts.map(|(name, us)| format!("{name}={:.1}", us as f64 / 1000.0));
            let text = format!(
                "{};{region};cost={:.1};{}",
                seen.orchestrator,
                total.as_ms(),
                parts.join(";")
            );
            eligible.push((total, text));
        }
    }
    eligible.sort();
    eligible.into_iter().take(5).map(|(_cost, text)| text).collect::<Vec<_>>().join(", ")
}

fn caller(place: &Place, home: RegionId) -> Value {
    json!({
        "caller": { "country": place.country, "confidence": place.confidence, "home": home },
    })
}

fn candidate(view: &View, seen: &Seen, terms: Option<Terms>, chosen: bool, now: Instant) -> Value {
    let mut found = json!({ "orchestrator": seen.orchestrator });
    if let Some((_slot, row)) = view.orchestrator(seen.orchestrator) {
        merge(&mut found, about(view, row, now));
    }
    let verdict = match seen.verdict {
        Verdict::Excluded(reason) => json!({ "verdict": "excluded", "reason": reason }),
        Verdict::Eligible(inputs) => {
            let terms = terms.unwrap_or_default();
            let ms = |us: u64| us as f64 / 1000.0;
            json!({
                "verdict": if chosen { "chosen" } else { "eligible" },
                "cost_ms": terms.total().as_ms(),
                "terms_ms": {
                    "path": ms(terms.path_us),
                    "queue": ms(terms.queue_us),
                    "service": ms(terms.service_us),
                    "failing": ms(terms.failing_us),
                    "price": ms(terms.price_us),
                    "weight": ms(terms.weight_us),
                    "switch": ms(terms.switch_us),
                },
                "data": {
                    "rtt_ms": ms(u64::from(inputs.rtt_us)),
                    "evidence": inputs.evidence,
                    "evidence_age_ms": age(inputs.evidence_age_ms),
                    "round_trips": inputs.round_trips,
                    "in_flight": inputs.in_flight,
                    "others_now": inputs.others_now_milli() as f64 / 1000.0,
                    "load_age_ms": age(inputs.load_age_ms),
                    "capacity": f64::from(inputs.capacity_milli) / 1000.0,
                    "failing_ppm": inputs.failing(),
                    "outcome_age_ms": age(inputs.outcome_age_ms),
                },
                "inputs": inputs,
            })
        }
    };
    merge(&mut found, verdict);
    found
}

/// What is known of an orchestrator whatever the request.
pub fn about(view: &View, row: &Row, now: Instant) -> Value {
    let ago = |at: Instant| now.saturating_duration_since(at).as_millis() as u64;
    let (failures, successes) = row.outcomes_at(now);
    json!({
        "uri": row.uri,
        "region": view.atlas.name(row.region),
        "country": row.country,
        "operator": row.operator,
        "standing": row.standing,
        "rtt_ms": row.link.rtt.as_ms(),
        "rtt_evidence": row.link.evidence,
        "rtt_by": row.link.by,
        "checked_ago_ms": row.checked_at.map(ago),
        "failures": failures as f64 / 1000.0,
        "successes": successes as f64 / 1000.0,
        "failures_told_by": row.outcomes.told_by,
        "in_flight": row.gauge.in_flight(),
        "claimed_by_peers": row.gauge.claimed(now),
        "share": row.gauge.share(now),
        "waiting": row.gauge.waiting(),
        "last_failure": row.last_failure,
    })
}

fn age(ms: u32) -> Option<u32> {
    (ms != u32::MAX).then_some(ms)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// Candidates shown of a hypothetical decision.
const SHOWN_MAX: usize = 1_000;
