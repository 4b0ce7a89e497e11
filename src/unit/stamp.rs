//! Moments as numbers.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment as nanoseconds from the first this process asked for, so that an age is one
/// subtraction.
///
/// An [`Instant`] is two numbers, and the difference of two of them a call: a choice asks for
/// three ages of every candidate. Exact within 292 years of that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(i64);

/// A moment in both forms, for who passes it on to many.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// As the standard library has it.
    pub at: Instant,
    /// The same.
    pub stamp: Stamp,
}

impl Stamp {
    /// Returns how many whole milliseconds lie between this and a later moment; none when it is
    /// not later, and `u32::MAX` from 49 days on.
    #[inline]
    pub fn age_ms(self, now: Self) -> u32 {
        let age_ns = now.0.saturating_sub(self.0).max(0) as u64;
        u32::try_from(age_ns / 1_000_000).unwrap_or(u32::MAX)
    }
}

impl From<Instant> for Stamp {
    fn from(at: Instant) -> Self {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(|| at);
        let ns = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        match at.checked_duration_since(origin) {
            Some(later) => Self(ns(later)),
            None => Self(-ns(origin.saturating_duration_since(at))),
        }
    }
}

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        Self { at, stamp: at.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_age_is_that_of_the_instants() {
        let now = clock::now();
        for (later, ns) in
            [(true, 0), (true, 999_999), (true, 1_000_000), (true, 86_400_999_999_999)]
                .into_iter()
                .chain([(false, 1), (false, 5_000_000_000)])
        {
            let apart = Duration::from_nanos(ns);
            let other = if later { now.checked_sub(apart) } else { now.checked_add(apart) };
            let Some(other) = other else { continue };
            let expected = now.saturating_duration_since(other).as_millis();
            assert_eq!(u128::from(Stamp::from(other).age_ms(now.into())), expected, "{ns}");
        }
        let long = Duration::from_secs(60 * 86_400);
        assert_eq!(Stamp::from(now).age_ms((now + long).into()), u32::MAX);
    }
}
