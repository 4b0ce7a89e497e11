//! Whether round trips agree with where a client is thought to be, and where they say it is.

use crate::geo::{Confidence, Place, Point, expected_rtt, fibre_floor};
use crate::unit::{Micros, log2_q10};

/// A measured round trip between a client and a known point.
pub type Anchor = (Point, Micros);

/// Returns where a client is to be taken to be: at `place`, or at the one of `regions` that
/// explains `anchors` far better.
///
/// A place explains a round trip by how near it comes to what distance lets one expect, the
/// binary logarithm of their ratio. Fewer than [`ANCHORS_MIN`] say nothing about a direction,
/// and a place that is off by less than `OFF_MIN` on the whole may well be right with a bad
/// network behind it. A moved place keeps its country: who may serve it is not a matter of
/// round trips.
pub fn placed(place: Place, anchors: &[Anchor], regions: &[Point]) -> Place {
    if anchors.len() < ANCHORS_MIN {
        return place;
    }
    let held = misfit(&place.point, anchors);
    let best = regions.iter().map(|it| (misfit(it, anchors), it)).min_by_key(|it| it.0);
    match best {
        Some((misfit, point)) if held >= OFF_MIN && misfit + BETTER_BY <= held => {
            Place { point: *point, confidence: Confidence::Country, ..place }
        }
        Some(_) | None => place,
    }
}

/// Tells whether `anchors` show that a client is not at `place`: they move it, or one of them
/// is faster than light from there.
pub fn disproves(place: &Place, anchors: &[Anchor], regions: &[Point]) -> bool {
    let too_fast = |(at, rtt): &Anchor| *rtt + SLACK < fibre_floor(place.point.distance_m(at));
    anchors.iter().any(too_fast) || placed(*place, anchors, regions) != *place
}

/// Returns how badly `point` explains `anchors`: the mean over them of by how many times the
/// round trip is off, in 1/1024 binary orders; beyond all where one is faster than light.
fn misfit(point: &Point, anchors: &[Anchor]) -> i64 {
    let off = |(at, rtt): &Anchor| {
        let metres = point.distance_m(at);
        // A region stands for all around it: its own point may be a little too far.
        if *rtt + SLACK < fibre_floor(metres) {
            return IMPOSSIBLE;
        }
        i64::from((log2_q10(rtt.0.max(1)) - log2_q10(expected_rtt(metres).0)).abs())
    };
    anchors.iter().map(off).sum::<i64>() / anchors.len() as i64
}

/// Three circles meet in a point.
pub const ANCHORS_MIN: usize = 3;
/// Off by less than 1.5 times on the whole is what round trips are off by anyway.
const OFF_MIN: i64 = 599;
/// Another place is to explain them better by as much again.
const BETTER_BY: i64 = 599;
/// The half of a region's width, as light takes it.
const SLACK: Micros = Micros::from_ms(10);
/// Sixteen binary orders: worse than anything that is possible.
const IMPOSSIBLE: i64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Country;

    const CITIES: [(f64, f64); 5] =
        [(50.11, 8.68), (38.91, -77.04), (1.35, 103.82), (-23.55, -46.63), (-33.87, 151.21)];

    fn points() -> Vec<Point> {
        CITIES.iter().map(|(lat, lon)| Point::new(*lat, *lon).unwrap()).collect()
    }

    fn seen_from(point: &Point, times: u64) -> Vec<Anchor> {
        let rtt = |it: &Point| Micros(expected_rtt(it.distance_m(point)).0 * times);
        points().iter().map(|it| (*it, rtt(it))).collect()
    }

    fn at(point: Point) -> Place {
        Place { point, country: Country::parse("DE"), confidence: Confidence::City }
    }

    #[test]
    fn a_place_that_cannot_be_is_moved_to_the_region_that_can() {
        let (points, madrid) = (points(), Point::new(40.42, -3.70).unwrap());
        let moved = placed(at(points[2]), &seen_from(&madrid, 1), &points);
        assert_eq!(moved.point, points[0]);
        assert_eq!(moved.confidence, Confidence::Country);
        assert_eq!(moved.country, Country::parse("DE"));
    }

    #[test]
    fn a_bad_network_is_no_other_place() {
        let points = points();
        for times in 1..=4 {
            let place = at(points[0]);
            assert_eq!(placed(place, &seen_from(&points[0], times), &points), place, "{times}");
        }
    }

    #[test]
    fn one_round_trip_disproves_a_place_by_being_faster_than_light() {
        let points = points();
        let near = [(points[0], Micros::from_ms(12))];
        assert!(disproves(&at(points[2]), &near, &points));
        assert!(!disproves(&at(points[0]), &near, &points));
        let three = &seen_from(&points[0], 1)[1..4];
        assert!(disproves(&at(points[4]), three, &points), "moved");
        assert!(!disproves(&at(points[0]), three, &points));
    }

    #[test]
    fn two_round_trips_say_nothing() {
        let points = points();
        let two = &seen_from(&points[0], 1)[..2];
        assert_eq!(placed(at(points[2]), two, &points), at(points[2]));
    }
}
