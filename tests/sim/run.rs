//! One run: what happens, in order of time, from the first request to the last answer.

mod attempt;
mod due;
mod news;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use self::attempt::Attempt;
use self::due::{Due, Event};
use super::algorithm::{Algorithm, End};
use super::draws;
use super::gateway::Gateway;
use super::scenario::{Change, Scenario};
use super::server::{Server, State};
use super::stats::Figures;
use super::world::World;

/// What one run came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    /// Requests that counted.
    pub(crate) counted: usize,
    /// Attempts, by gateway and orchestrator, in order: what was decided.
    pub(crate) moves: Vec<Move>,
    /// How long the last request of all took to be over, in microseconds.
    pub(crate) over_at: u64,
}

/// One attempt, as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at: u64,
    pub(crate) request: u32,
    pub(crate) server: u16,
}

/// The sea: everything there is, and what is to happen.
pub(crate) struct Run<'a> {
    world: &'a World,
    scenario: &'a Scenario,
    servers: Vec<Server>,
    gateways: Vec<Box<dyn Gateway>>,
    cut: Vec<(usize, usize)>,
    /// Idle connections by gateway and orchestrator.
    idle: Vec<Vec<u32>>,
    /// Who opens a connection ahead, and to whom.
    opening: BTreeSet<(usize, usize)>,
    jobs: Vec<Job>,
    attempts: Vec<Attempt>,
    due: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    served: Vec<u64>,
    failed: usize,
    moves: Vec<Move>,
}

/// One request under way.
#[derive(Clone, Debug, Default)]
struct Job {
    tried: Vec<usize>,
    /// What a client was shown that goes by itself.
    list: Option<Vec<usize>>,
}

impl<'a> Run<'a> {
    /// Plays `scenario` in `world` with every gateway doing as `algorithm` does.
    pub(crate) fn play(world: &'a World, scenario: &'a Scenario, algorithm: Algorithm) -> Outcome {
        let count = world.gateways.len();
        let mut run = Self {
            world,
            scenario,
            servers: world.servers.iter().map(|it| Server::new(it.slots, it.queue)).collect(),
            gateways: (0..count).map(|number| algorithm.gateway(world, number)).collect(),
            cut: Vec::new(),
            idle: vec![vec![0; world.servers.len()]; count],
            opening: BTreeSet::new(),
            jobs: vec![Job::default(); world.requests.len()],
            attempts: Vec::new(),
            due: BinaryHeap::new(),
            sequence: 0,
            served: Vec::new(),
            failed: 0,
            moves: Vec::new(),
        };
        for gateway in 0..count {
            // Nobody's clock ticks with another's.
            let phase = gateway as u64 * 17_000;
            run.then(phase, Event::Ticks(gateway));
            let every = scenario.told_every.as_micros() as u64;
            run.then(phase + every * gateway as u64 / count as u64, Event::Tells(gateway));
        }
        for (at, change) in scenario.changes(world) {
            run.then(at.as_micros() as u64, Event::Changes(change));
        }
        if let Some(first) = world.requests.first() {
            run.then(first.at, Event::Ask(0));
        }
        let mut over_at = 0;
        let ends = (scenario.length + AFTERWARDS).as_micros() as u64;
        while let Some(Reverse(due)) = run.due.pop()
            && due.at < ends
        {
            if !matches!(due.event, Event::Ticks(_) | Event::Tells(_)) {
                over_at = due.at;
            }
            run.take(due.at, due.event);
        }
        let counted = run.served.len() + run.failed;
        let figures = Figures::of(run.served, run.failed);
        Outcome { figures, counted, moves: run.moves, over_at }
    }

    fn then(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.due.push(Reverse(Due { at, sequence: self.sequence, event }));
    }

    fn take(&mut self, now: u64, event: Event) {
        match event {
            Event::Ask(request) => {
                if let Some(next) = self.world.requests.get(request + 1) {
                    self.then(next.at, Event::Ask(request + 1));
                }
                if let Some(point) = self.world.requests[request].direct {
                    let gateway = self.world.requests[request].gateway;
                    let word = draws::word(&[self.world.seed, 5, request as u64]);
                    let list = self.gateways[gateway].list(now, &point, word);
                    self.jobs[request].list = Some(list);
                }
                self.go_on(now, request);
            }
            Event::Opened(gateway, server, life) => self.opened(gateway, server, life),
            Event::Connects(attempt) => self.connects(now, attempt),
            Event::Reaches(attempt) => self.reaches(now, attempt),
            Event::Finished(attempt) => self.finished(now, attempt),
            Event::Answers(attempt, end) => self.ends(now, attempt, end),
            Event::GaveUp(attempt) => self.ends(now, attempt, End::Silent),
            Event::Ticks(gateway) => {
                self.gateways[gateway].tick(now);
                self.then(now + TICK_US, Event::Ticks(gateway));
                self.look(now, gateway);
            }
            Event::Asks(gateway, server) => self.asks(now, gateway, server),
            Event::Asked(gateway, server, rtt) => {
                let used = self.servers[server].used();
                self.then(
                    now + rtt as u64,
                    Event::Checked(gateway, server, Some((rtt as u64, used))),
                );
            }
            Event::Checked(gateway, server, answer) => {
                self.gateways[gateway].checked(now, server, answer);
                self.look(now, gateway);
            }
            Event::Tells(gateway) => self.tells(now, gateway),
            Event::Told(from, to, records) => {
                self.gateways[to].told(now, from, &records);
                self.look(now, to);
            }
            Event::Changes(change) => self.changes(now, change),
        }
    }

    /// Tries the next orchestrator for a request, or gives it up.
    fn go_on(&mut self, now: u64, request: usize) {
        let gateway = self.world.requests[request].gateway;
        let job = &self.jobs[request];
        let number = job.tried.len();
        let word = draws::word(&[self.world.seed, 6, request as u64, number as u64]);
        let next = match &job.list {
            Some(list) => list.get(number).copied().filter(|_| number < WALKED_MAX),
            None if number == ATTEMPTS_MAX => None,
            None => self.gateways[gateway].choose(now, &job.tried, word),
        };
        let Some(server) = next else {
            let at = self.world.requests[request].at;
            if at >= self.scenario.counts_from().as_micros() as u64 {
                self.failed += 1;
            }
            return;
        };
        if let Some(better) = self.gateways[gateway].better_warm() {
            self.open_ahead(now, request, better);
        }
        self.moves.push(Move { at: now, request: request as u32, server: server as u16 });
        let direct = self.jobs[request].list.is_some();
        self.jobs[request].tried.push(server);
        if !direct && !self.gateways[gateway].begin(now, server) {
            self.go_on(now, request);
            return;
        }
        self.set_out(now, request, server);
    }

    fn changes(&mut self, now: u64, change: Change) {
        match change {
            Change::Slots(server, slots) => self.servers[server].slots = slots,
            Change::Cut(gateway, server) => self.cut.push((gateway, server)),
            Change::Turn(server, state) => {
                self.servers[server].turn(state);
                if state != State::Down {
                    return;
                }
                self.idle.iter_mut().for_each(|of_gateway| of_gateway[server] = 0);
                for gateway in 0..self.gateways.len() {
                    self.gateways[gateway].warm(server, 0);
                }
                // Whatever was there is reset, and its sender hears of it.
                let there = |it: &Attempt| it.open && it.server == server && it.sent <= now;
                let lost: Vec<usize> = (0..self.attempts.len())
                    .rev()
                    .take(LOOK_BACK)
                    .filter(|number| there(&self.attempts[*number]))
                    .collect();
                for number in lost {
                    let back = now + self.attempts[number].rtt / 2;
                    self.then(back, Event::Answers(number, End::Broken));
                }
            }
        }
    }
}

/// As of `edge`: after four orchestrators the fault is hardly theirs.
const ATTEMPTS_MAX: usize = 4;
/// A client walks this far down a list.
const WALKED_MAX: usize = 8;
const TICK_US: u64 = 100_000;
/// Answers still come in after the last request.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// Attempts still open are among the last so many.
const LOOK_BACK: usize = 20_000;
