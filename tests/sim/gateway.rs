//! What a run asks of a gateway, whoever it is.

use portolan::geo::Point;
use portolan::health::Versioned;

use super::algorithm::Answered;

/// One gateway. Times are in microseconds since the run began.
pub(crate) trait Gateway {
    /// Returns who serves next, none of `tried`; `word` is random.
    fn choose(&mut self, now: u64, tried: &[usize], word: u64) -> Option<usize>;

    /// Returns whom the last choice would have fallen on, had a connection been open.
    fn better_warm(&mut self) -> Option<usize> {
        None
    }

    /// Returns what a client at `point` is shown that asks for a list.
    fn list(&mut self, now: u64, point: &Point, word: u64) -> Vec<usize>;

    /// Begins an attempt; `false` when there is no place for it.
    fn begin(&mut self, _now: u64, _server: usize) -> bool {
        true
    }

    /// Ends an attempt.
    fn end(&mut self, now: u64, server: usize, answered: Answered);

    /// Says how many connections to `server` are idle.
    fn warm(&mut self, _server: usize, _idle: u32) {}

    /// Takes the end of a check: round trip and places in use, or nothing.
    fn checked(&mut self, now: u64, server: usize, answer: Option<(u64, usize)>);

    /// Does what is to be done every tenth of a second.
    fn tick(&mut self, now: u64);

    /// Returns whom to check now.
    fn checks(&mut self) -> Vec<usize>;

    /// Returns what `peer` is to be told.
    fn tell(&mut self, _now: u64, _peer: usize) -> Vec<Versioned> {
        Vec::new()
    }

    /// Takes what `peer` tells.
    fn told(&mut self, _now: u64, _peer: usize, _records: &[Versioned]) {}
}
