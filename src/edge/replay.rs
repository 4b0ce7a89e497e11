//! Bodies held so that they can be sent again, within one bound for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{counter, gauge};

/// The bytes held for repetition on this node.
#[derive(Clone, Debug, Default)]
pub struct Replays(Arc<AtomicUsize>);

/// So many of them; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    replays: Replays,
    bytes: usize,
}

impl Replays {
    /// Reserves `bytes` of at most `max`; `None` when they are not there, in which case the
    /// body streams once.
    pub(crate) fn reserve(&self, bytes: usize, max: usize) -> Option<Reserved> {
        let before = self.0.fetch_add(bytes, Ordering::AcqRel);
        let reserved = Reserved { replays: self.clone(), bytes };
        if before.saturating_add(bytes) > max {
            counter!("portolan_replays_refused_total").increment(1);
            return None;
        }
        Some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let before = self.replays.0.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.bytes >= TOLD_FROM {
            gauge!("portolan_replay_bytes").set((before - self.bytes) as f64);
        }
    }
}

/// Small bodies come and go untold.
const TOLD_FROM: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_allowed_and_what_is_let_go_comes_back() {
        let replays = Replays::default();
        let held = replays.reserve(60, 100).unwrap();
        assert!(replays.reserve(41, 100).is_none());
        let more = replays.reserve(40, 100).unwrap();
        drop(held);
        assert!(replays.reserve(60, 100).is_some());
        drop(more);
        assert_eq!(replays.0.load(Ordering::Acquire), 0);
    }
}
