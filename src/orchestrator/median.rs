//! Figures of several observers, of whom some may lie: what fewer than half of them cannot move.

use std::time::{Duration, Instant};

use crate::health::OBSERVERS;
use crate::unit::Micros;

/// From so many observers on, the middle one is believed rather than the best or the sum: of
/// two nobody can say which one lies.
pub const ENOUGH: usize = 3;

/// Returns how many of so many observers may lie without anybody noticing: fewer than half, and
/// no more than a mesh is planned to bear of the eight that observe one orchestrator.
pub fn liars_among(n_observers: usize) -> usize {
    match n_observers < ENOUGH {
        true => 0,
        false => ((n_observers - 1) / 2).min(LIARS_MAX),
    }
}

/// Returns the middle of `figures`: cut off at both ends as many as one likes, it stays. Of an
/// even number the upper of the two in the middle; `None` of none.
pub fn median<T: Ord>(mut figures: Vec<T>) -> Option<T> {
    let middle = figures.len() / 2;
    if figures.is_empty() {
        return None;
    }
    figures.select_nth_unstable(middle);
    Some(figures.swap_remove(middle))
}

/// Returns the sum of what observers count, where from [`ENOUGH`] of them on nobody counts for
/// more than the middle one.
pub fn sum_of_counts(counts: impl Iterator<Item = u64> + Clone) -> u64 {
    let n_observers = counts.clone().count();
    let most = match n_observers >= ENOUGH {
        true => median(counts.clone().collect()).unwrap_or(0),
        false => u64::MAX,
    };
    counts.fold(0, |sum, it| sum.saturating_add(it.min(most)))
}

/// How far a figure that others tell may move within a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swing {
    /// The figure as it stood when the present interval began, and when that was.
    held: Option<(Micros, Instant)>,
}

impl Swing {
    /// Returns `told`, held within half and twice of what it was at the beginning of the
    /// present [`SWING_EVERY`]. The first figure is taken as it is.
    pub fn hold(&mut self, now: Instant, told: Micros) -> Micros {
        let Some((before, since)) = self.held else {
            self.held = Some((told, now));
            return told;
        };
        let held = Micros(told.0.clamp(before.0.div_ceil(2), before.0.saturating_mul(2).max(1)));
        if now.saturating_duration_since(since) >= SWING_EVERY {
            self.held = Some((held, now));
        }
        held
    }

    /// Forgets what was told: this node has measured for itself.
    pub fn release(&mut self) {
        self.held = None;
    }
}

/// Three of eight.
const LIARS_MAX: usize = (OBSERVERS - 1) / 2;

/// A figure told by others moves at most twofold in so long, so that a lie that becomes the
/// majority's shows in checks before it turns all traffic.
pub const SWING_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn of_two_the_sum_and_of_three_the_middle_counts() {
        assert_eq!(sum_of_counts([7, 1_000].into_iter()), 1_007);
        assert_eq!(sum_of_counts([7, 1_000, 3].into_iter()), 7 + 7 + 3);
        assert_eq!(median(Vec::<u64>::new()), None);
        assert_eq!(median(vec![4, 9, 1, 2]), Some(4));
        assert_eq!([0, 2, 3, 4, 5, 8, 30].map(liars_among), [0, 0, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn a_figure_moves_twofold_in_an_interval() {
        let (now, mut it) = (clock::now(), Swing::default());
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(it.hold(now, Micros(1_000)), Micros(1_000));
        assert_eq!(it.hold(now, Micros(1)), Micros(500));
        assert_eq!(it.hold(at(1), Micros(1)), Micros(500));
        assert_eq!(it.hold(at(1), Micros(1)), Micros(250));
        assert_eq!(it.hold(at(2), Micros(9_000)), Micros(1_000));
        it.release();
        assert_eq!(it.hold(at(2), Micros(9_000)), Micros(9_000));
    }

    proptest! {
        #[test]
        fn fewer_than_half_cannot_move_the_middle_beyond_the_others(
            honest in proptest::collection::vec(any::<u64>(), 2..9),
            lies in proptest::collection::vec(any::<u64>(), 0..8),
            turn in any::<usize>(),
        ) {
            let n_lies = lies.len().min(honest.len() - 1);
            let mut all: Vec<u64> = honest.iter().chain(&lies[..n_lies]).copied().collect();
            let turn = turn % all.len();
            all.rotate_left(turn);
            let found = median(all).unwrap();
            prop_assert!(honest.iter().min().unwrap() <= &found);
            prop_assert!(&found <= honest.iter().max().unwrap());
        }

        #[test]
        fn fewer_than_half_cannot_count_for_more_than_an_honest_one_each(
            honest in proptest::collection::vec(0_u64..1 << 40, 2..9),
            lies in proptest::collection::vec(any::<u64>(), 1..8),
        ) {
            let n_lies = lies.len().min(honest.len() - 1);
            let all = honest.iter().chain(&lies[..n_lies]).copied();
            let most = honest.iter().max().unwrap();
            prop_assert!(sum_of_counts(all.clone()) <= most * all.count() as u64);
        }

        #[test]
        fn a_swing_never_leaves_its_interval(
            told in proptest::collection::vec((0_u64..3_000, any::<u64>()), 1..40),
        ) {
            let (mut now, mut it) = (clock::now(), Swing::default());
            let mut held: Option<u64> = None;
            for (wait, figure) in told {
                now += Duration::from_millis(wait);
                let is = it.hold(now, Micros(figure)).0;
                // Two intervals meet between any two looks at most.
                if let Some(was) = held {
                    prop_assert!(is >= was / 4 && is <= was.saturating_mul(4).max(4));
                }
                held = Some(is);
            }
        }
    }
}
