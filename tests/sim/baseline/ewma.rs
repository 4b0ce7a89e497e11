//! The better of two by peak-EWMA, plain and with failures made dear.

use portolan::geo::Point;

use super::Ears;
use crate::algorithm::{Answered, End};
use crate::draws;
use crate::gateway::Gateway;
use crate::world::World;

/// Of two drawn at random, the one with the lower load: the response time, whose peaks count
/// at once and fade over ten seconds, times what is in flight and one more.
pub(crate) struct PeakEwma {
    ears: Ears,
    hosts: Vec<Host>,
    /// Whether failures and refusals count as five seconds, and newcomers as one.
    biased: bool,
}

#[derive(Clone, Copy)]
struct Host {
    us: f64,
    at: u64,
    pending: u32,
}

impl PeakEwma {
    /// Starts a gateway.
    pub(crate) fn new(world: &World, _number: usize, biased: bool) -> Self {
        let us = if biased { 1_000_000.0 } else { 30_000.0 };
        let hosts = vec![Host { us, at: 0, pending: 0 }; world.servers.len()];
        Self { ears: Ears::new(hosts.len()), hosts, biased }
    }

    fn best_of_two(&self, now: u64, left: &[usize], word: u64) -> Option<usize> {
        let count = left.len();
        if count < 2 {
            return left.first().copied();
        }
        let one = (word >> 32) as usize % count;
        let two = (one + 1 + (word & 0xffff_ffff) as usize % (count - 1)) % count;
        let load = |at: usize| self.hosts[left[at]].load(now);
        Some(left[if load(two) < load(one) { two } else { one }])
    }

    fn left(&self, tried: &[usize]) -> Vec<usize> {
        let left = (0..self.hosts.len()).filter(|it| !tried.contains(it));
        let ready: Vec<usize> = left.clone().filter(|it| self.ears.hears(*it)).collect();
        if ready.is_empty() { left.collect() } else { ready }
    }
}

impl Host {
    fn load(&self, now: u64) -> f64 {
        self.us * fading(now - self.at) * f64::from(self.pending + 1)
    }

    fn take(&mut self, now: u64, us: f64) {
        let left = fading(now - self.at);
        let faded = self.us * left + us * (1.0 - left);
        self.us = if us > self.us * left { us } else { faded };
        self.at = now;
    }
}

impl Gateway for PeakEwma {
    fn choose(&mut self, now: u64, tried: &[usize], word: u64) -> Option<usize> {
        self.best_of_two(now, &self.left(tried), word)
    }

    fn list(&mut self, now: u64, _point: &Point, word: u64) -> Vec<usize> {
        let mut list = Vec::new();
        let mut left = self.left(&[]);
        while let Some(next) = self.best_of_two(now, &left, draws::word(&[word, list.len() as u64]))
        {
            left.retain(|it| *it != next);
            list.push(next);
        }
        list
    }

    fn begin(&mut self, _now: u64, server: usize) -> bool {
        self.hosts[server].pending += 1;
        true
    }

    fn end(&mut self, now: u64, server: usize, answered: Answered) {
        let host = &mut self.hosts[server];
        host.pending -= 1;
        let us = answered.took as f64;
        let dear = self.biased && answered.end != End::Served;
        host.take(now, if dear { us.max(PENALTY_US).max(host.us) } else { us });
    }

    fn checked(&mut self, _now: u64, server: usize, answer: Option<(u64, usize)>) {
        self.ears.take(server, answer.is_some());
    }

    fn tick(&mut self, now: u64) {
        self.ears.tick(now);
    }

    fn checks(&mut self) -> Vec<usize> {
        self.ears.due()
    }
}

fn fading(age_us: u64) -> f64 {
    (-(age_us as f64) / DECAY_US).exp()
}

const DECAY_US: f64 = 10_000_000.0;
const PENALTY_US: f64 = 5_000_000.0;
