//! How dead actors come back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metrics::counter;

/// How one kind of actor comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind.
    pub actor: &'static str,
    /// How long its parent waits.
    pub after: Duration,
    /// What its death loses.
    pub loses: &'static str,
}

/// Counts the restarts one parent does, against a limit.
#[derive(Debug, Default)]
pub struct Restarts {
    recent: VecDeque<Instant>,
}

impl Restarts {
    /// Notes that `actor` died; returns how long to wait before starting it again, or
    /// `None` when too many have died of late, in which case the parent gives up and dies
    /// itself: whoever stands above may do better.
    pub fn note(&mut self, now: Instant, actor: &'static str) -> Option<Duration> {
        counter!("portolan_actor_restarts_total", "actor" => actor).increment(1);
        let old = |at: &Instant| now.saturating_duration_since(*at) > WITHIN;
        while self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
        if self.recent.len() >= AT_MOST {
            tracing::error!(actor, "too many restarts within a minute");
            return None;
        }
        self.recent.push_back(now);
        let rule = crate::actors::RULES.iter().find(|rule| rule.actor == actor);
        tracing::warn!(actor, "an actor died and is started again");
        Some(rule.map_or(Duration::ZERO, |rule| rule.after))
    }
}

/// Restarts one parent does within [`WITHIN`]; a thousand orchestrators may stumble over
/// the same bad answer once.
const AT_MOST: usize = 2_000;
const WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_parent_gives_up_after_too_many_restarts_and_forgets_old_ones() {
        let (now, mut restarts) = (clock::now(), Restarts::default());
        for _ in 0..AT_MOST {
            assert_eq!(restarts.note(now, "session"), Some(Duration::ZERO));
        }
        assert_eq!(restarts.note(now, "session"), None);
        let later = now + WITHIN + Duration::from_secs(1);
        assert_eq!(restarts.note(later, "peer"), Some(Duration::from_millis(200)));
    }
}
