//! The arithmetic of a choice, over plain inputs and one random word.

use crate::score::{Evidence, Inputs, Terms};
use crate::unit::Micros;

/// What [`decide`] made of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Position of the chosen one.
    pub chosen: usize,
    /// How far above the least cost still counts as equal.
    pub band: Micros,
    /// Position of a cold candidate that would be clearly better than the chosen one, were
    /// both warm.
    pub better_warm: Option<usize>,
}

/// Picks one of `candidates`; `None` only when there are none.
///
/// `running` is the position of the candidate a session runs on. It is kept unless another
/// is better by more than a tenth and by more than 5 ms, after the cost of switching.
/// Among near-equals two are drawn by free slots and the cheaper one is taken. `opens` tells of
/// whom a connection can be opened to and kept.
pub fn decide(
    candidates: &[Inputs],
    running: Option<usize>,
    draw: u64,
    opens: impl Fn(usize) -> bool,
) -> Option<Pick> {
    let weighed = weigh(candidates);
    let (best, least_cost) = two_least(weighed.iter().map(|it| it.cost)).0?;
    let band = near_equal(least_cost, &candidates[best]);
    if let Some(running) = running.filter(|at| keeps(weighed[*at].cost, least_cost)) {
        // It would be kept beside somebody warm as well.
        return Some(Pick { chosen: running, band, better_warm: None });
    }
    let chosen = draw_near_equal(candidates, &weighed, best, band, draw);
    let better_warm = better_warm(candidates, &weighed, chosen, band, opens);
    Some(Pick { chosen, band, better_warm })
}

/// Returns the parts of each candidate's cost.
pub fn terms_of(candidates: &[Inputs]) -> Vec<Terms> {
    let expected = candidates.iter().map(Inputs::expected);
    let Some(alternatives) = Alternatives::among(expected) else { return Vec::new() };
    candidates.iter().enumerate().map(|(at, it)| it.terms(alternatives.of(at))).collect()
}

/// Returns the least cost of any of `candidates`; `None` only when there are none.
pub(crate) fn least(candidates: &[Inputs]) -> Option<Micros> {
    weigh(candidates).iter().map(|it| it.cost).min()
}

/// What a choice needs of one candidate.
#[derive(Clone, Copy, Debug)]
struct Weighed {
    /// What is in flight there, in thousandths.
    load_milli: u64,
    /// The total of its [`terms_of`].
    cost: Micros,
}

/// Returns what the choice needs of each candidate, without the terms in between.
fn weigh(candidates: &[Inputs]) -> Vec<Weighed> {
    let expected = |it: &Inputs| {
        let load_milli = it.load_milli();
        Weighed { load_milli, cost: it.expected_under(load_milli) }
    };
    let mut weighed: Vec<Weighed> = candidates.iter().map(expected).collect();
    let Some(alternatives) = Alternatives::among(weighed.iter().map(|it| it.cost)) else {
        return weighed;
    };
    for (at, (of, it)) in weighed.iter_mut().zip(candidates).enumerate() {
        of.cost = it.cost(of.cost, alternatives.of(at));
    }
    weighed
}

/// Whom a failure turns to: the best other candidate; one without another, to itself.
struct Alternatives {
    least: Ranked,
    other: Micros,
}

impl Alternatives {
    fn among(expected: impl Iterator<Item = Micros>) -> Option<Self> {
        let (first, second) = two_least(expected);
        Some(Self { least: first?, other: second.or(first)?.1 })
    }

    /// Returns the expected time of whom a failure at position `at` turns to.
    fn of(&self, at: usize) -> Micros {
        if at == self.least.0 { self.other } else { self.least.1 }
    }
}

/// Tells whether a session stays where it runs.
fn keeps(running: Micros, best: Micros) -> bool {
    let gain = running.0.saturating_sub(best.0);
    gain <= STAY_MARGIN.0 || gain <= running.0 / STAY_SHARE
}

/// Returns how far above `cost` still counts as equal.
///
/// At rest 3 ms or 5 %, whichever is more. With the use of the best candidate and the age
/// of what is known of that use it widens, to at most 20 ms or 10 %: the less certain a
/// difference is, the more it pays to spread.
pub(crate) fn near_equal(cost: Micros, best: &Inputs) -> Micros {
    let narrow = (cost.0 / 20).max(NEAR_EQUAL.0);
    let wide = (cost.0 / 10).max(NEAR_EQUAL_MAX.0);
    let age_s = u64::from(best.load_age_ms) / 1000;
    let aged = best.utilisation_permille().saturating_mul(AGE_S + age_s) / AGE_S;
    Micros(narrow + (wide - narrow) * aged.min(1000) / 1000)
}

/// Returns the best of the cold candidates that would beat `chosen` by more than `band`, were
/// both warm.
///
/// Calls keep warm what they are sent to: without this, whoever is warm and farther would be
/// cheaper than whoever is near and cold for as long as calls come.
fn better_warm(
    candidates: &[Inputs],
    weighed: &[Weighed],
    chosen: usize,
    band: Micros,
    opens: impl Fn(usize) -> bool,
) -> Option<usize> {
    let cold = |at: usize| candidates[at].round_trips > 1;
    let warm = |at: usize| {
        let Inputs { rtt_us, round_trips, .. } = candidates[at];
        let opening = u64::from(rtt_us) * u64::from(round_trips.saturating_sub(1));
        weighed[at].cost.0.saturating_sub(opening)
    };
    let stays_cold = cold(chosen) && !opens(chosen);
    let limit = if stays_cold { weighed[chosen].cost.0 } else { warm(chosen) };
    let limit = limit.saturating_sub(band.0);
    let better = (0..candidates.len()).filter(|at| cold(*at) && warm(*at) < limit && opens(*at));
    better.min_by_key(|at| warm(*at))
}

/// Draws two of the near-equals by free slots and returns the cheaper.
///
/// While nothing is known of a candidate but its distance and nobody uses the best, there
/// is nothing to spread and no reason to go farther: the best is taken.
fn draw_near_equal(
    candidates: &[Inputs],
    weighed: &[Weighed],
    best: usize,
    band: Micros,
    draw: u64,
) -> usize {
    let idle = weighed[best].load_milli == 0;
    let limit = Micros(weighed[best].cost.0.saturating_add(band.0));
    let weight = |at: usize| {
        let Weighed { load_milli, cost } = weighed[at];
        let guessed = idle && candidates[at].evidence >= Evidence::RegionPair;
        let near = cost <= limit && (at == best || !guessed);
        let free_milli = u64::from(candidates[at].capacity_milli).saturating_sub(load_milli);
        if near { free_milli + FREE_FLOOR_MILLI } else { 0 }
    };
    let all = 0..weighed.len();
    let total = all.clone().map(weight).fold(0, u64::saturating_add);
    let drawn = |word: u64| {
        // `word` is 32 bits, so the product fits and the target is below the total.
        let mut target = ((u128::from(word) * u128::from(total)) >> 32) as u64;
        all.clone().find(|at| {
            let weight = weight(*at);
            let here = target < weight;
            target = target.saturating_sub(weight);
            here
        })
    };
    let (one, two) = (drawn(draw >> 32), drawn(draw & 0xffff_ffff));
    let cost = |at: usize| (weighed[at].cost, at);
    match (one, two) {
        (Some(one), Some(two)) => {
            if cost(two) < cost(one) {
                two
            } else {
                one
            }
        }
        (one, two) => one.or(two).unwrap_or(best),
    }
}

/// Returns the least and the second least with their positions; ties go to the earlier.
fn two_least(costs: impl Iterator<Item = Micros>) -> (Option<Ranked>, Option<Ranked>) {
    let (mut first, mut second): (Option<Ranked>, Option<Ranked>) = (None, None);
    for (at, cost) in costs.enumerate() {
        if first.is_none_or(|first| cost < first.1) {
            (first, second) = (Some((at, cost)), first);
        } else if second.is_none_or(|second| cost < second.1) {
            second = Some((at, cost));
        }
    }
    (first, second)
}

/// A position and what stands there.
type Ranked = (usize, Micros);

/// Near-equal at rest.
const NEAR_EQUAL: Micros = Micros::from_ms(3);
/// Near-equal at full use.
const NEAR_EQUAL_MAX: Micros = Micros::from_ms(20);
/// Load data this old, in seconds, doubles the effect of use on the band.
const AGE_S: u64 = 5;
/// Weight of a candidate without a free slot: a tenth of a slot.
const FREE_FLOOR_MILLI: u64 = 100;
/// A session moves only for more than this,
const STAY_MARGIN: Micros = Micros::from_ms(5);
/// and for more than one part in this many.
const STAY_SHARE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::tests::idle;

    fn chosen(candidates: &[Inputs], running: Option<usize>, draw: u64) -> usize {
        decide(candidates, running, draw, |_| true).unwrap().chosen
    }

    /// How often each of `candidates` is chosen over evenly spread words.
    fn shares(candidates: &[Inputs]) -> Vec<usize> {
        let mut counts = vec![0; candidates.len()];
        for step in 0_u64..4096 {
            let word = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step << 57;
            counts[chosen(candidates, None, word)] += 1;
        }
        counts
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        assert_eq!(decide(&[], None, 7, |_| true), None);
    }

    #[test]
    fn what_is_decided_by_is_the_sum_of_what_is_explained() {
        let candidates: Vec<Inputs> = (0..40)
            .map(|it| Inputs {
                in_flight: it % 7,
                tried: (it % 3) as u8,
                failures_milli: it * 150,
                others_milli: it * 90,
                load_age_ms: it * 10,
                price_us: if it == 39 { u32::MAX } else { it },
                ..idle(20_000 + it * 1_000)
            })
            .collect();
        for some in [&candidates[..], &candidates[..1]] {
            let sums: Vec<Micros> = terms_of(some).iter().map(Terms::total).collect();
            let costs: Vec<Micros> = weigh(some).iter().map(|it| it.cost).collect();
            assert_eq!(costs, sums);
        }
    }

    #[test]
    fn what_is_clearly_dearer_is_never_drawn() {
        let counts = shares(&[idle(20_000), idle(60_000)]);
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn near_equals_share_by_free_slots() {
        let (busy, free) = (Inputs { in_flight: 3, ..idle(20_000) }, idle(20_500));
        let counts = shares(&[busy, free]);
        assert!(counts[1] > counts[0], "{counts:?}");
        assert!(counts[0] > 0, "{counts:?}");
    }

    #[test]
    fn a_guess_from_distance_is_not_spread_while_idle() {
        let guess = |rtt| Inputs { evidence: Evidence::Distance, ..idle(rtt) };
        assert_eq!(shares(&[guess(21_000), guess(20_000)])[0], 0);
        let used = |rtt| Inputs { in_flight: 1, ..guess(rtt) };
        assert!(shares(&[used(21_000), used(20_000)])[0] > 0);
    }

    #[test]
    fn a_session_moves_only_for_a_clear_gain() {
        let moved = |running: u32, best: u32| {
            let at_best = Inputs { service_us: 0, ..idle(best) };
            chosen(&[Inputs { service_us: 0, ..idle(running) }, at_best], Some(0), 1) == 1
        };
        assert!(!moved(24_000, 20_000), "less than 5 ms");
        assert!(!moved(208_000, 200_000), "less than a tenth");
        assert!(moved(60_000, 20_000));
    }

    #[test]
    fn a_cold_one_worth_a_connection_is_named() {
        let cold = |rtt_us| Inputs { round_trips: 3, ..idle(rtt_us) };
        let named =
            |candidates: &[Inputs]| decide(candidates, None, 0, |_| true).unwrap().better_warm;
        let (far, farther) = (idle(80_000), Inputs { round_trips: 3, ..idle(70_000) });
        assert_eq!(named(&[far, farther, cold(34_000)]), Some(2), "the best of them");
        assert_eq!(named(&[far, cold(79_000)]), None, "a near-equal is not");
        assert_eq!(named(&[idle(34_000), cold(80_000)]), None, "a worse one is not");
        let failing = Inputs { failures_milli: 5_000, ..cold(34_000) };
        assert_eq!(named(&[far, failing]), None, "what fails is not");
        assert_eq!(named(&[cold(20_000)]), None, "the chosen one gets its own");
    }

    #[test]
    fn who_cannot_be_connected_to_hides_nobody_and_is_not_thought_warm() {
        let cold = |rtt_us| Inputs { round_trips: 3, ..idle(rtt_us) };
        let named = |candidates: &[Inputs], running, shut: usize| {
            decide(candidates, running, 0, |at| at != shut).unwrap().better_warm
        };
        let all = [idle(80_000), cold(34_000), cold(30_000)];
        assert_eq!((named(&all, None, 3), named(&all, None, 2)), (Some(2), Some(1)));
        // Chosen, and three round trips away for good.
        let all = [cold(26_000), cold(34_000)];
        assert_eq!((named(&all, None, 2), named(&all, None, 0)), (None, Some(1)));
        let all = [idle(38_000), cold(30_000)];
        assert_eq!((named(&all, None, 2), named(&all, Some(0), 2)), (Some(1), None), "it stays");
    }

    #[test]
    fn the_band_widens_with_use_and_age_up_to_its_limit() {
        let band = |in_flight, load_age_ms| {
            let inputs = Inputs { in_flight, load_age_ms, ..idle(20_000) };
            near_equal(Micros::from_ms(100), &inputs)
        };
        assert_eq!(band(0, 60_000), Micros::from_ms(5));
        assert!(band(2, 0) > band(0, 0));
        assert!(band(2, 5_000) > band(2, 0));
        assert_eq!(band(100, 0), Micros::from_ms(20));
    }
}
