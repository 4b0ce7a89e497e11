//! Whom a caller is asked to measure before it chooses.

use std::time::Instant;

use crate::geo::Point;
use crate::id::OrchestratorId;
use crate::policy::ask::{Ask, Observed, PathKind};
use crate::policy::choose::{Live, path, resolve};
use crate::policy::filter::exclusion;
use crate::unit::{Micros, decayed, log2_q10, scaled};
use crate::view::outcome::Gauge;
use crate::view::row::{Path, Row};
use crate::view::{Member, View};

/// Returns the `n` orchestrators that the caller of `ask` should measure next, best first:
/// those expected to cost it least. At most [`MEASURE_MAX`]; fewer when fewer may serve it.
///
/// `already` holds what the caller measured before, and none of those is named again. A
/// measurement slower or faster than expected moves the expectation of the orchestrators
/// around it, the nearer to it the more; so asking in two rounds, one and then two, finds
/// the way around a bad course on which one round would have measured three.
///
/// The path of relayed work is measured by the node itself: there, nobody is named.
pub fn to_measure(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    now: Instant,
    already: &[Observed],
    n: usize,
) -> Vec<OrchestratorId> {
    let n = n.min(MEASURE_MAX);
    if ask.path == PathKind::Relayed || n == 0 {
        return Vec::new();
    }
    let from = &ask.caller.place.point;
    let surprises = surprises(view, from, already);
    let consider = |best: &mut Vec<(Micros, OrchestratorId)>, member: Member| {
        let Some((row, offer)) = resolve(view, member) else { return };
        let live = live(&row.gauge);
        let is_known = already.iter().any(|it| it.orchestrator == row.id);
        if is_known || exclusion(row, offer, ask, live.probing, now).is_some() {
            return;
        }
        let (expected, _evidence) = row.expected_from(from);
        let rtt = Micros(scaled(expected.0, carried(row, &surprises)));
        let path = Path { rtt, ..path(row, live, ask, now) };
        let cost = row
            .inputs(offer, &path, now.into(), view.prior(offer.capability))
            .terms(Micros::ZERO)
            .total();
        keep(best, (cost, row.id), n);
    };
    let mut best = Vec::with_capacity(n + 1);
    let list = view.direct(ask.caller.cell, ask.capability);
    list.iter().for_each(|member| consider(&mut best, *member));
    if best.len() < n {
        let everyone = view.column(ask.capability).map_or(&[][..], |column| column.members());
        let beyond = everyone.iter().filter(|member| !list.contains(member));
        beyond.for_each(|member| consider(&mut best, *member));
    }
    best.into_iter().map(|(_cost, id)| id).collect()
}

/// One measurement held against what was expected.
struct Surprise {
    /// Where the measured orchestrator is.
    at: Point,
    /// The binary logarithm of measured over expected, in 1/1024 steps.
    by: i64,
}

fn surprises(view: &View, from: &Point, already: &[Observed]) -> Vec<Surprise> {
    let surprise = |observed: &Observed| {
        let (_slot, row) = view.orchestrator(observed.orchestrator)?;
        let expected = row.expected_from(from).0;
        let by = log2_q10(observed.rtt.0.max(1)) - log2_q10(expected.0);
        Some(Surprise { at: row.point?, by: by.into() })
    };
    already.iter().take(ALREADY_MAX).filter_map(surprise).collect()
}

/// Returns by how much `surprises` move what is expected of `row`: their mean, weighed by
/// nearness and held towards none as if one more had been as expected.
fn carried(row: &Row, surprises: &[Surprise]) -> i32 {
    let Some(point) = &row.point else { return 0 };
    let (mut sum, mut weights) = (0, WEIGHT);
    for surprise in surprises {
        let metres = surprise.at.distance_m(point);
        let weight = decayed(WEIGHT as u64, metres.into(), HALF_M) as i64;
        sum += weight * surprise.by;
        weights += weight;
    }
    (sum / weights) as i32
}

/// Keeps the `n` cheapest; an orchestrator with several offers stands once.
fn keep(best: &mut Vec<(Micros, OrchestratorId)>, found: (Micros, OrchestratorId), n: usize) {
    match best.iter().position(|held| held.1 == found.1) {
        Some(at) if best[at] <= found => return,
        Some(at) => drop(best.remove(at)),
        None => {}
    }
    let at = best.partition_point(|held| *held < found);
    best.insert(at, found);
    best.truncate(n);
}

/// The most anybody is asked to measure at once. On real round trips, eight in place of five
/// lower the mean regret from 0.33 to 0.27 ms where places are exact and from 4.3 to 2.6 ms
/// where only countries are known; each one more costs the caller a ping.
pub const MEASURE_MAX: usize = 8;
/// What a measurement says of an orchestrator halves with each 700 km between it and the
/// measured one: a correlation length of 1,000 km. From 500 to 1,000 km the mean regret on
/// real round trips stays within 0.3 to 0.5 ms with three measured, outside it doubles.
const HALF_M: u64 = 700_000;
/// More measurements than this teach nothing new; see [`crate::policy::Caller::observed`].
const ALREADY_MAX: usize = 64;
/// The weight of a measurement at its own place.
const WEIGHT: i64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::{Confidence, Place};
    use crate::policy::ask::{Caller, Rules};
    use crate::view::tests::{atlas, view};
    use crate::view::{CapabilityId, Slot};

    /// The slots named to a caller a little east of the first region; orchestrators stand
    /// in the regions in turn, by slot.
    #[track_caller]
    fn named(
        view: &View,
        rules: &Rules,
        path: PathKind,
        already: &[Observed],
        n: usize,
    ) -> Vec<u32> {
        let place = Place {
            point: Point::new(0.0, -178.0).unwrap(),
            country: None,
            confidence: Confidence::City,
        };
        let cell = view.atlas.cell(&place);
        let caller = Caller { place, cell, observed: Vec::new() };
        let ask = Ask { cold_round_trips: 1, ..Ask::new(&caller, CapabilityId(0), path, rules) };
        let now = view.published_at;
        let ids = to_measure(view, |gauge| gauge.into(), &ask, now, already, n);
        ids.iter().map(|id| view.orchestrator(*id).unwrap().0.0).collect()
    }

    fn id(view: &View, slot: u32) -> OrchestratorId {
        view.row(Slot(slot)).unwrap().id
    }

    #[test]
    fn those_expected_nearest_are_named_and_at_most_eight() {
        let view = view(&atlas(5), 5, 1);
        let rules = Rules::default();
        let direct = |n| named(&view, &rules, PathKind::Direct, &[], n);
        assert_eq!(direct(3), [0, 1, 2]);
        assert_eq!(direct(0), [0_u32; 0]);
        assert_eq!(direct(100), [0, 1, 2, 3, 4]);
        let many = crate::view::tests::view(&atlas(5), 50, 1);
        assert_eq!(named(&many, &rules, PathKind::Direct, &[], 100).len(), MEASURE_MAX);
        assert_eq!(named(&many, &rules, PathKind::Relayed, &[], 3), [0_u32; 0]);
    }

    #[test]
    fn nobody_is_named_twice_nor_without_being_eligible() {
        let view = view(&atlas(5), 5, 1);
        let rules = Rules { never: [id(&view, 1)].into(), ..Rules::default() };
        let rtt = Micros::from_ms(19);
        let already = [Observed { orchestrator: id(&view, 0), rtt }];
        assert_eq!(named(&view, &rules, PathKind::Direct, &already, 2), [2, 3]);
    }

    #[test]
    fn a_bad_course_turns_attention_elsewhere() {
        // Two orchestrators in each of the places 0, 10, 20, 30 and 40 degrees away.
        let view = view(&atlas(5), 10, 1);
        let (rules, slow) = (Rules::default(), Micros::from_ms(400));
        let second = |rtt| {
            let already = [Observed { orchestrator: id(&view, 0), rtt }];
            named(&view, &rules, PathKind::Direct, &already, 1)
        };
        assert_eq!(second(Micros::from_ms(19)), [5]);
        assert!([1, 6].contains(&second(slow)[0]));
    }

    #[test]
    fn what_stands_beyond_the_short_list_is_found() {
        let view = view(&atlas(20), 1_000, 1);
        let rules = Rules { only: Some([id(&view, 777)].into()), ..Rules::default() };
        assert_eq!(named(&view, &rules, PathKind::Direct, &[], 3), [777]);
    }
}
