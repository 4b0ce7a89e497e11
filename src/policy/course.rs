//! The whole course of relayed work: from the client to the node it enters by, and on.
//!
//! A node knows what its peers measured to every orchestrator. Of a client's way to each node
//! it knows what was measured, and estimates the rest; a choice of the entry that looks at
//! either part alone is wrong wherever the two disagree.

use crate::geo::{Point, expected_rtt, fibre_floor};
use crate::id::NodeId;
use crate::score::Evidence;
use crate::unit::Micros;

/// A node a client may enter by, and what is known of the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one.
    pub node: NodeId,
    /// Where it stands.
    pub point: Point,
    /// The round trip measured between the client, or those beside it, and this node; and by
    /// whom.
    pub measured: Option<(Micros, Evidence)>,
}

/// The way between a client and one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The node.
    pub node: NodeId,
    /// The round trip.
    pub rtt: Micros,
    /// Where it comes from.
    pub evidence: Evidence,
}

/// One entry and the cost of everything: the leg to it, and what lies beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// The way to the entry.
    pub leg: Leg,
    /// The least cost from the entry on.
    pub beyond: Micros,
}

impl Course {
    /// Returns the cost of the whole.
    pub fn total(&self) -> Micros {
        self.leg.rtt + self.beyond
    }
}

/// Returns the way of a client thought to be at `place` to each of `entries`, in their order.
///
/// What was measured stands. The rest is what distance lets one expect, and half of what the
/// measured way of the least surprise takes longer than that: the access network, which all
/// of a client's ways share, is in it, and the course of that one way, which they do not. A
/// way faster than light shows that the place is wrong; the nearest node by measurement then
/// stands in for it. What only peers say disproves no place and is no shorter than light lets
/// it be, so that none of them calls clients to itself from the other side of the globe.
pub fn legs(place: &Point, entries: &[Entry]) -> Vec<Leg> {
    let measured = |it: &Entry| {
        let (rtt, evidence) = it.measured?;
        (evidence != Evidence::Peer).then_some((rtt, it.point))
    };
    let too_fast = |(rtt, point): (Micros, Point)| rtt < fibre_floor(place.distance_m(&point));
    let from = match entries.iter().filter_map(measured).any(too_fast) {
        true => entries.iter().filter_map(measured).min_by_key(|it| it.0).map_or(*place, |it| it.1),
        false => *place,
    };
    let expected = |point: &Point| expected_rtt(from.distance_m(point)).0;
    let surprise = |(rtt, point): (Micros, Point)| rtt.0 as i64 - expected(&point) as i64;
    let least = entries.iter().filter_map(measured).map(surprise).min();
    let shared = least.unwrap_or_default() / 2;
    let leg = |entry: &Entry| match entry.measured {
        Some((rtt, evidence @ Evidence::Peer)) => {
            let floor = fibre_floor(from.distance_m(&entry.point));
            Leg { node: entry.node, rtt: rtt.max(floor), evidence }
        }
        Some((rtt, evidence)) => Leg { node: entry.node, rtt, evidence },
        None => {
            let rtt = (expected(&entry.point) as i64 + shared).max(0) as u64;
            let floor = fibre_floor(from.distance_m(&entry.point));
            let (rtt, evidence) = (Micros(rtt).max(floor), Evidence::Distance);
            Leg { node: entry.node, rtt, evidence }
        }
    };
    entries.iter().map(leg).collect()
}

/// Returns the least round trip to `to` of a client whose round trip to `here` is `own`: light
/// needs so long between the two, and the client is no farther from here than that. Where it is
/// thought to be does not come into it, since that may be wrong.
pub fn floor(here: &Point, to: &Point, own: Micros) -> Micros {
    Micros(fibre_floor(here.distance_m(to)).0.saturating_sub(own.0))
}

/// Returns the courses by their whole cost, best first; ties by node. `beyond` is the least
/// cost from a node on, `None` where nobody serves through it.
pub fn courses(legs: &[Leg], beyond: impl Fn(NodeId) -> Option<Micros>) -> Vec<Course> {
    let course = |leg: &Leg| Some(Course { leg: *leg, beyond: beyond(leg.node)? });
    let mut courses: Vec<Course> = legs.iter().filter_map(course).collect();
    courses.sort_by_key(|it| (it.total(), it.leg.node));
    courses
}

/// Tells whether a client that enters by a node of `held` is better sent to one of `best`: a
/// tenth and 5 ms of the whole have to be won, or it would be sent to and fro.
pub fn is_worth_moving(held: Micros, best: Micros) -> bool {
    let gain = held.0.saturating_sub(best.0);
    gain > MOVE_MARGIN.0 && gain > held.0 / MOVE_SHARE
}

/// A client moves only for more than this,
const MOVE_MARGIN: Micros = Micros::from_ms(5);
/// and for more than one part in this many.
const MOVE_SHARE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const FRA: (f64, f64) = (50.11, 8.68);
    const WAS: (f64, f64) = (38.91, -77.04);
    const SIN: (f64, f64) = (1.35, 103.82);

    fn point((lat, lon): (f64, f64)) -> Point {
        Point::new(lat, lon).unwrap()
    }

    fn entry(name: &str, at: (f64, f64), measured_ms: Option<u64>) -> Entry {
        let measured = measured_ms.map(|ms| (Micros::from_ms(ms), Evidence::Own));
        Entry { node: name.parse().unwrap(), point: point(at), measured }
    }

    #[test]
    fn what_was_measured_stands_and_the_rest_takes_half_of_the_surprise() {
        let (near, far) = (entry("fra", FRA, Some(55)), entry("was", WAS, None));
        let legs = legs(&point(FRA), &[near, far]);
        assert_eq!(legs[0].rtt, Micros::from_ms(55));
        let usual = expected_rtt(point(FRA).distance_m(&point(WAS)));
        assert_eq!(legs[1].rtt, usual + Micros::from_ms(20));
    }

    #[test]
    fn a_way_faster_than_light_moves_the_place() {
        // Thought to be in Singapore, and 12 ms from Frankfurt.
        let entries = [entry("sin", SIN, None), entry("fra", FRA, Some(12))];
        let legs = legs(&point(SIN), &entries);
        assert!(legs[0].rtt > Micros::from_ms(150), "{legs:?}");
    }

    #[test]
    fn a_peers_word_moves_nobody_and_calls_nobody_from_afar() {
        let told = |name, at, ms| Entry {
            measured: Some((Micros::from_ms(ms), Evidence::Peer)),
            ..entry(name, at, None)
        };
        let entries = [entry("fra", FRA, None), told("sin", SIN, 1)];
        let said = legs(&point(FRA), &entries);
        assert!(said[1].rtt >= fibre_floor(point(FRA).distance_m(&point(SIN))), "{said:?}");
        assert!(said[0].rtt < Micros::from_ms(30), "{said:?}");
        assert_eq!(legs(&point(FRA), &[told("fra", FRA, 40)])[0].rtt, Micros::from_ms(40));
    }

    #[test]
    fn the_least_round_trip_is_what_light_needs_beyond_the_way_to_here() {
        let (here, to) = (point(FRA), point(SIN));
        let light = fibre_floor(here.distance_m(&to));
        assert!(light > Micros::from_ms(90), "{light:?}");
        assert_eq!(floor(&here, &to, Micros::from_ms(20)) + Micros::from_ms(20), light);
        assert_eq!(floor(&here, &to, Micros::from_ms(300)), Micros::ZERO, "it may be beside it");
        assert_eq!(floor(&here, &here, Micros::from_ms(1)), Micros::ZERO);
    }

    #[test]
    fn the_sum_decides_and_not_the_nearest_node() {
        let entries = [entry("fra", FRA, Some(20)), entry("was", WAS, Some(60))];
        let legs = legs(&point(FRA), &entries);
        let beyond =
            |node: NodeId| Some(Micros::from_ms(if node.as_str() == "fra" { 90 } else { 1 }));
        let best = courses(&legs, beyond);
        assert_eq!(best[0].leg.node.as_str(), "was");
        assert_eq!(best[0].total(), Micros::from_ms(61));
        assert_eq!(courses(&legs, |_node| None), []);
    }

    #[test]
    fn a_client_moves_only_for_a_clear_gain() {
        let ms = Micros::from_ms;
        assert!(!is_worth_moving(ms(24), ms(20)), "less than 5 ms");
        assert!(!is_worth_moving(ms(208), ms(200)), "less than a tenth");
        assert!(is_worth_moving(ms(60), ms(20)));
    }
}
