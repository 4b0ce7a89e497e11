//! What others do, as they are defined: they get the same retries, the same checks and the
//! same connections as the node of this program.

mod ewma;
mod livepeer;

use portolan::geo::Point;

use super::algorithm::Answered;
use super::draws;
use super::gateway::Gateway;
use super::world::World;

pub(crate) use self::ewma::PeakEwma;
pub(crate) use self::livepeer::GoLivepeer;

/// The nearest that answers checks; when it refuses, the next nearest.
pub(crate) struct Nearest {
    ears: Ears,
    order: Vec<usize>,
    places: Vec<Point>,
}

impl Nearest {
    /// Starts the `number`th gateway.
    pub(crate) fn new(world: &World, number: usize) -> Self {
        let places: Vec<Point> = world.servers.iter().map(|it| it.site.point).collect();
        let order = by_distance(&places, &world.gateways[number].point);
        Self { ears: Ears::new(places.len()), order, places }
    }
}

impl Gateway for Nearest {
    fn choose(&mut self, _now: u64, tried: &[usize], _word: u64) -> Option<usize> {
        let left = || self.order.iter().copied().filter(|it| !tried.contains(it));
        left().find(|it| self.ears.hears(*it)).or_else(|| left().next())
    }

    fn list(&mut self, _now: u64, point: &Point, _word: u64) -> Vec<usize> {
        let mut order = by_distance(&self.places, point);
        order.retain(|it| self.ears.hears(*it));
        order
    }

    fn end(&mut self, _now: u64, _server: usize, _answered: Answered) {}

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

fn by_distance(places: &[Point], from: &Point) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|it| (places[*it].distance_m(from), *it));
    order
}

/// Checks every five seconds: two in a row without an answer, and one is left out until it
/// answers again.
pub(crate) struct Ears {
    failures: Vec<u32>,
    next: u64,
    due: Vec<usize>,
}

impl Ears {
    fn new(count: usize) -> Self {
        Self { failures: vec![0; count], next: 0, due: Vec::new() }
    }

    fn hears(&self, server: usize) -> bool {
        self.failures[server] < 2
    }

    fn take(&mut self, server: usize, answered: bool) {
        let failures = &mut self.failures[server];
        *failures = if answered { 0 } else { *failures + 1 };
    }

    fn tick(&mut self, now: u64) {
        if now >= self.next {
            self.next = now + CHECK_EVERY_US;
            self.due = (0..self.failures.len()).collect();
        }
    }

    fn due(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.due)
    }
}

/// Draws one of `left` by weight.
fn drawn(left: &[usize], weight: impl Fn(usize) -> f64, word: u64) -> Option<usize> {
    let total: f64 = left.iter().map(|it| weight(*it)).sum();
    let mut target = draws::unit(word) * total;
    let found = left.iter().find(|it| {
        target -= weight(**it);
        target <= 0.0
    });
    found.or(left.last()).copied()
}

const CHECK_EVERY_US: u64 = 5_000_000;
