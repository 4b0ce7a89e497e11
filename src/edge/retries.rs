//! The retry budgets of this node: one for each route and home region.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::counter;

use crate::retry::{Budget, Params};

/// Budgets by route and region. A fixed number of them: two that fall together share one,
/// which is the safe side.
#[derive(Debug)]
pub struct Retries(Vec<Mutex<Budget>>);

impl Default for Retries {
    fn default() -> Self {
        Self((0..BUDGETS).map(|_| Mutex::default()).collect())
    }
}

impl Retries {
    /// Counts a request of `route` by callers of `region`.
    pub(crate) fn count(&self, route: u16, region: u8, now: Instant) {
        self.of(route, region).lock().unwrap_or_else(PoisonError::into_inner).count(now);
    }

    /// Takes one retry out of their budget.
    pub(crate) fn take(&self, route: u16, region: u8, now: Instant, params: Params) -> bool {
        let mut budget = self.of(route, region).lock().unwrap_or_else(PoisonError::into_inner);
        let taken = budget.take(now, params);
        let outcome = if taken { "taken" } else { "refused" };
        counter!("portolan_retries_total", "outcome" => outcome).increment(1);
        taken
    }

    fn of(&self, route: u16, region: u8) -> &Mutex<Budget> {
        // Multiplied by an odd number, neighbours do not fall together.
        let key = (usize::from(route) << 8 | usize::from(region)).wrapping_mul(0x9e37_79b1);
        &self.0[key % BUDGETS]
    }
}

/// At a hundred bytes each, 25 KB.
const BUDGETS: usize = 251;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_route_in_trouble_spends_nobody_elses_budget() {
        let (retries, now) = (Retries::default(), clock::now());
        let params = Params { share_permille: 200, per_second: 1 };
        while retries.take(1, 1, now, params) {}
        assert!(retries.take(1, 2, now, params));
        assert!(retries.take(2, 1, now, params));
    }
}
