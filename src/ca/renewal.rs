//! When a node asks for its next certificate.

use std::time::Duration;

/// Returns when to renew a certificate, in wall time since 1970: after two thirds of its life
/// and up to a twelfth of it later, by the random word `draw`, so that nodes enrolled together
/// do not come together.
pub fn due(not_before: i64, not_after: i64, draw: u32) -> Duration {
    let start = u64::try_from(not_before).unwrap_or(0);
    let life = u64::try_from(not_after).unwrap_or(0).saturating_sub(start);
    let jitter = u128::from(life) * u128::from(draw) / 12 / u128::from(u32::MAX);
    Duration::from_secs(start + life / 3 * 2 + jitter as u64)
}

/// Returns how long to wait after `n_failed` attempts in a row, at least one: twice as long
/// each time, a minute at most, less up to a quarter by `draw`.
pub fn wait(n_failed: u32, draw: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << n_failed.saturating_sub(1).min(10)).min(LONGEST);
    let less = whole.as_millis() * u128::from(draw) / 4 / u128::from(u32::MAX);
    whole - Duration::from_millis(less as u64)
}

/// Tells whether so little is left of a certificate's life that somebody should look: renewal
/// should have come long before the last sixth.
pub fn is_late(now: Duration, not_before: i64, not_after: i64) -> bool {
    let life = not_after.saturating_sub(not_before);
    let left = not_after.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    left < life / 6
}

/// The first attempt may have met a CA that was being started.
const FIRST: Duration = Duration::from_secs(5);

/// A CA that comes back is found soon, and 300 nodes that look for it do it no harm.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renewal_comes_between_two_thirds_and_three_quarters(
            start in 0..2_000_000_000i64,
            life in 100..100_000_000i64,
            draw in any::<u32>(),
        ) {
            let at = due(start, start + life, draw).as_secs() as i64;
            prop_assert!(at >= start + life / 3 * 2, "{at}");
            prop_assert!(at <= start + life / 4 * 3 + 3, "{at}");
            prop_assert!(!is_late(Duration::from_secs(at as u64), start, start + life));
        }

        #[test]
        fn no_times_break_it(a in any::<i64>(), b in any::<i64>(), draw in any::<u32>()) {
            prop_assert!(due(a, b, draw) >= due(a, b, 0));
            is_late(Duration::ZERO, a, b);
            prop_assert!(wait(draw, draw) <= LONGEST);
            prop_assert!(wait(draw, draw) >= FIRST * 3 / 4);
        }
    }
}
