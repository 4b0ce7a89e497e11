//! Means, percentiles, and the interval of a paired difference.

use super::draws::Draws;

/// What one run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// The mean time of those served, in milliseconds.
    pub(crate) mean_ms: f64,
    /// The time 99 of 100 served needed at most, in milliseconds.
    pub(crate) p99_ms: f64,
    /// The share nobody served, in percent.
    pub(crate) failed: f64,
}

/// A mean with the interval it lies in with a certainty of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Figures {
    /// Sums up the times of those served, in microseconds, and the number of others.
    pub(crate) fn of(mut served: Vec<u64>, failed: usize) -> Self {
        served.sort_unstable();
        let all = (served.len() + failed).max(1) as f64;
        let rank = (served.len() * 99).div_ceil(100).saturating_sub(1);
        Self {
            mean_ms: served.iter().sum::<u64>() as f64 / served.len().max(1) as f64 / 1000.0,
            p99_ms: served.get(rank).copied().unwrap_or_default() as f64 / 1000.0,
            failed: failed as f64 * 100.0 / all,
        }
    }
}

impl Interval {
    /// Returns the mean of `differences` and, by drawing them again 2,000 times with
    /// repetition, the interval it lies in: no shape of theirs is assumed.
    pub(crate) fn of(differences: &[f64]) -> Self {
        let (mut draws, count) = (Draws::new(differences.len() as u64, 11), differences.len());
        let mut means: Vec<f64> = (0..RESAMPLES)
            .map(|_| (0..count).map(|_| differences[draws.below(count)]).sum::<f64>())
            .map(|sum| sum / count as f64)
            .collect();
        means.sort_by(f64::total_cmp);
        Self {
            mean: differences.iter().sum::<f64>() / count as f64,
            low: means[RESAMPLES / 40],
            high: means[RESAMPLES - 1 - RESAMPLES / 40],
        }
    }
}

const RESAMPLES: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_more_of_the_same() {
        let few: Vec<f64> = (0..5).map(f64::from).collect();
        let many: Vec<f64> = (0..100).map(|it| f64::from(it % 5)).collect();
        let (few, many) = (Interval::of(&few), Interval::of(&many));
        assert!(few.low < 2.0 && 2.0 < few.high && few.mean == 2.0);
        assert!(many.high - many.low < (few.high - few.low) / 3.0);
        assert_eq!(Interval::of(&[0.0; 20]), Interval { mean: 0.0, low: 0.0, high: 0.0 });
    }

    #[test]
    fn figures_are_of_those_served() {
        let figures = Figures::of((1..=100).map(|it| it * 1000).collect(), 25);
        let expected = Figures { mean_ms: 50.5, p99_ms: 99.0, failed: 20.0 };
        assert_eq!(figures, expected);
    }
}
