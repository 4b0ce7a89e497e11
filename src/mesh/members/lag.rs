//! How late this process is with itself: one that is slow must not blame the others.

use std::time::Duration;

/// A score that rises with every late turn and falls with every timely one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lag {
    score: u32,
}

impl Lag {
    /// Takes how late a turn began.
    pub(super) fn note(&mut self, late: Duration) {
        self.score = match late >= LATE {
            true => (self.score + 1).min(SCORE_MAX),
            false => self.score.saturating_sub(1),
        };
    }

    /// Returns a time of patience as this process may hold others to it.
    pub(super) fn stretch(self, patience: Duration) -> Duration {
        patience * (1 + self.score)
    }
}

/// A turn this late would make a direct answer across an ocean look late too.
const LATE: Duration = Duration::from_millis(200);

/// The most that is added to every patience, in multiples of itself.
const SCORE_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_while_turns_are_late_and_shrinks_when_they_are_not() {
        let second = Duration::from_secs(1);
        let mut lag = Lag::default();
        lag.note(Duration::from_millis(199));
        assert_eq!(lag.stretch(second), second);
        lag.note(LATE);
        lag.note(LATE);
        assert_eq!(lag.stretch(second), second * 3);
        for _ in 0..20 {
            lag.note(second);
        }
        assert_eq!(lag.stretch(second), second * 8);
        for _ in 0..20 {
            lag.note(Duration::ZERO);
        }
        assert_eq!(lag.stretch(second), second);
    }
}
