//! How long to wait before dialing again.

use std::time::Duration;

/// The bounds of the wait between two dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The longest wait before the first dial and after the first failure.
    pub first: Duration,
    /// The longest wait at all.
    pub max: Duration,
}

/// Waits that double with every failure, jittered so that nodes do not dial in step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    params: Params,
    n_failures: u32,
}

impl Backoff {
    /// Returns the waits of a peer not yet dialed.
    pub fn new(params: Params) -> Self {
        Self { params, n_failures: 0 }
    }

    /// Returns the next wait, between half and the whole of its step by the random `word`.
    pub fn next_wait(&mut self, word: u32) -> Duration {
        let doubled = self.params.first.saturating_mul(1 << self.n_failures.min(MAX_DOUBLINGS));
        self.n_failures = self.n_failures.saturating_add(1);
        let whole = doubled.min(self.params.max);
        let half = whole / 2;
        half + (whole - half).mul_f64(f64::from(word) / f64::from(u32::MAX))
    }

    /// Begins again: a link was up.
    pub fn reset(&mut self) {
        self.n_failures = 0;
    }
}

/// Doubling stops here: 2^16 of any first wait passes any sensible longest one.
const MAX_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_bound_within_the_jitter() {
        let ms = Duration::from_millis;
        let params = Params { first: ms(100), max: ms(1000) };
        let mut backoff = Backoff::new(params);
        assert_eq!(backoff.next_wait(0), ms(50));
        assert_eq!(backoff.next_wait(u32::MAX), ms(200));
        assert_eq!(backoff.next_wait(0), ms(200));
        for _ in 0..100 {
            backoff.next_wait(7);
        }
        assert_eq!(backoff.next_wait(u32::MAX), ms(1000));
        backoff.reset();
        assert_eq!(backoff.next_wait(u32::MAX), ms(100));
    }
}
