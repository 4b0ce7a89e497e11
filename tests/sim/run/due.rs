//! What is to happen, in order of time.

use portolan::health::Versioned;

use crate::algorithm::End;
use crate::scenario::Change;

/// One thing that is to happen; of two at once the one planned first comes first.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) event: Event,
}

/// What there is to happen; attempts, gateways, servers and requests go by their numbers.
#[derive(Debug)]
pub(super) enum Event {
    Ask(usize),
    Connects(usize),
    /// A connection that a gateway opened ahead to a server, in that life of it.
    Opened(usize, usize, u32),
    Reaches(usize),
    Finished(usize),
    Answers(usize, End),
    GaveUp(usize),
    Ticks(usize),
    Asks(usize, usize),
    Asked(usize, usize, usize),
    Checked(usize, usize, Option<(u64, usize)>),
    Tells(usize),
    Told(usize, usize, Vec<Versioned>),
    Changes(Change),
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
