//! What this node may send to all its peers together, in bytes.

use std::time::Instant;

/// A bucket of bytes that fills with time and may be overdrawn by what cannot wait.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u64,
    left: i64,
    /// What is kept for what can wait, however much there is that cannot.
    kept: i64,
    /// Microseconds times bytes that did not yet make a byte.
    rest: u64,
    filled_at: Instant,
    n_spent: u64,
}

impl Budget {
    pub(super) fn new(now: Instant, per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        let left = i64::try_from(per_second).unwrap_or(i64::MAX);
        Self { per_second, left, kept: 0, rest: 0, filled_at: now, n_spent: 0 }
    }

    /// Fills up to `now` for a mesh of so many links.
    pub(super) fn fill(&mut self, now: Instant, n_links: usize) {
        let rate = self.rate(n_links);
        let elapsed = now.saturating_duration_since(self.filled_at).min(DEPTH).as_micros() as u64;
        self.filled_at = now;
        let gained = elapsed * rate + self.rest;
        self.rest = gained % 1_000_000;
        let gained = (gained / 1_000_000) as i64;
        self.left = self.left.saturating_add(gained).min(rate as i64);
        // Rounded up, so that what fills often is kept as well.
        let kept = (gained as u64).div_ceil(KEPT_ONE_OF) as i64;
        self.kept = (self.kept + kept).min((rate / KEPT_ONE_OF) as i64);
    }

    /// Takes what was sent.
    pub(super) fn spend(&mut self, n_bytes: usize) {
        let n_bytes = n_bytes + OVERHEAD;
        self.n_spent += n_bytes as u64;
        self.left = self.left.saturating_sub(n_bytes as i64);
    }

    /// Notes that so much of what was spent was for what can wait.
    pub(super) fn spend_kept(&mut self, n_bytes: u64) {
        self.kept = self.kept.saturating_sub(n_bytes as i64).max(0);
    }

    /// Whether what can wait may be sent.
    pub(super) fn has_left(&self) -> bool {
        self.left > 0 || self.kept > 0
    }

    /// Whether what changes decisions may be sent: also on a second's credit, which what can
    /// wait pays back.
    pub(super) fn has_credit(&self) -> bool {
        self.left > -(self.per_second as i64)
    }

    /// Returns how many bytes each of so many links gets in `interval_ms`.
    pub(super) fn share(&self, n_links: usize, interval_ms: u64) -> u64 {
        self.rate(n_links) * interval_ms / 1000 / (n_links as u64).max(1)
    }

    /// Returns all bytes spent so far, those of packets' heads included.
    pub(super) fn n_spent(&self) -> u64 {
        self.n_spent
    }

    /// Up to [`SMALL`] links the plain rate, from there in a straight line to its double at
    /// [`LARGE`]: pings and the heads of packets grow with links, records do not.
    fn rate(&self, n_links: usize) -> u64 {
        let above = n_links.clamp(SMALL, LARGE) - SMALL;
        self.per_second + self.per_second * above as u64 / (LARGE - SMALL) as u64
    }
}

/// One byte of so many is kept for what can wait: where everything is in use, the rest would
/// never be told, and be unknown to the others once it is past its life.
const KEPT_ONE_OF: u64 = 4;

/// The most that is saved up.
const DEPTH: std::time::Duration = std::time::Duration::from_secs(1);

/// What a packet costs beside what is in it: heads of IP, UDP and QUIC and its seal.
const OVERHEAD: usize = 62;

const SMALL: usize = 30;
const LARGE: usize = 299;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn what_can_wait_pays_back_what_could_not() {
        let now = clock::now();
        let mut budget = Budget::new(now, 1000);
        budget.spend(1000 - OVERHEAD);
        assert!(!budget.has_left() && budget.has_credit());
        budget.spend(1000 - OVERHEAD);
        assert!(!budget.has_credit());
        budget.fill(now + Duration::from_secs(1), 3);
        budget.spend_kept(1000);
        assert!(!budget.has_left() && budget.has_credit());
        budget.fill(now + Duration::from_millis(1001), 3);
        assert!(budget.has_left());
        assert_eq!(budget.n_spent(), 2000);
    }

    #[test]
    fn a_quarter_is_kept_for_what_can_wait() {
        let now = clock::now();
        let mut budget = Budget::new(now, 1000);
        budget.spend(5000);
        budget.fill(now + Duration::from_secs(1), 3);
        assert!(!budget.has_credit() && budget.has_left());
        budget.spend_kept(249);
        assert!(budget.has_left());
        budget.spend_kept(1);
        assert!(!budget.has_left());
    }

    #[test]
    fn it_saves_up_for_a_second_and_grows_with_the_mesh() {
        let now = clock::now();
        let mut budget = Budget::new(now, 1000);
        budget.fill(now + Duration::from_secs(3600), 3);
        assert_eq!(budget.left, 1000);
        assert_eq!(budget.share(30, 250), 1000 / 4 / 30);
        assert_eq!(budget.share(299, 250), 2000 / 4 / 299);
    }

    #[test]
    fn slow_trickles_lose_nothing() {
        let now = clock::now();
        let mut budget = Budget::new(now, 1000);
        budget.spend(2000);
        let before = budget.left;
        for tick in 1..=10_000u64 {
            budget.fill(now + Duration::from_micros(tick * 100), 1);
        }
        assert_eq!(budget.left, before + 1000);
    }
}
