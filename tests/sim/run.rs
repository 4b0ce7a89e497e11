//! One run: what happens, in order of time, from the first request to the last answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use portolan::health::Versioned;

use super::algorithm::{Algorithm, Answered, End};
use super::draws;
use super::gateway::Gateway;
use super::scenario::{Change, Scenario};
use super::server::{Arrival, Server, State};
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

#[derive(Clone, Copy, Debug)]
struct Attempt {
    request: usize,
    server: usize,
    /// When it was begun, and when it was sent over an open connection.
    began: u64,
    sent: u64,
    rtt: u64,
    open: bool,
    life: u32,
}

#[derive(Debug)]
struct Due {
    at: u64,
    sequence: u64,
    event: Event,
}

#[derive(Debug)]
enum Event {
    Ask(usize),
    Connects(usize),
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
        self.moves.push(Move { at: now, request: request as u32, server: server as u16 });
        let direct = self.jobs[request].list.is_some();
        self.jobs[request].tried.push(server);
        if !direct && !self.gateways[gateway].begin(now, server) {
            self.go_on(now, request);
            return;
        }
        let noise = draws::unit(draws::word(&[self.world.seed, 7, request as u64, server as u64]));
        let rtt = self.world.course(request, server) as f64 * (1.0 - 0.05 * noise.ln());
        let rtt = rtt as u64;
        let warm = !direct && self.lease(gateway, server);
        let attempt = self.attempts.len();
        let life = self.servers[server].life;
        let sent = if warm { now } else { now + 2 * rtt };
        self.attempts.push(Attempt { request, server, began: now, sent, rtt, open: true, life });
        if !direct && self.cut.contains(&(gateway, server)) {
            let patience = if warm { HEAD_PATIENCE } else { CONNECT_PATIENCE };
            self.then(now + patience.as_micros() as u64, Event::GaveUp(attempt));
        } else {
            self.then(now + rtt / 2, Event::Connects(attempt));
        }
    }

    /// Takes an idle connection, if there is one.
    fn lease(&mut self, gateway: usize, server: usize) -> bool {
        let idle = &mut self.idle[gateway][server];
        let warm = *idle > 0;
        *idle = idle.saturating_sub(1);
        self.gateways[gateway].warm(server, *idle);
        warm
    }

    /// The first packet arrives: at a closed port, or at somebody.
    fn connects(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &self.servers[attempt.server];
        if server.state == State::Down || server.life != attempt.life {
            self.then(now + attempt.rtt / 2, Event::Answers(number, End::Broken));
            return;
        }
        let late = attempt.sent + HEAD_PATIENCE.as_micros() as u64;
        self.then(late, Event::GaveUp(number));
        self.then(attempt.sent + attempt.rtt / 2, Event::Reaches(number));
    }

    fn reaches(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &mut self.servers[attempt.server];
        let back = now + attempt.rtt / 2;
        match server.state {
            State::Silent => {}
            State::Down => self.then(back, Event::Answers(number, End::Broken)),
            State::FailsFast => self.then(back, Event::Answers(number, End::Failed)),
            State::Well => match server.arrive(number) {
                Arrival::Begun => self.begins(now, number),
                Arrival::Queued => {}
                Arrival::Refused => self.then(back, Event::Answers(number, End::Full)),
            },
        }
    }

    fn begins(&mut self, now: u64, number: usize) {
        let Attempt { request, server, .. } = self.attempts[number];
        self.attempts[number].life = self.servers[server].life;
        self.then(now + self.world.work_us(request, server), Event::Finished(number));
    }

    fn finished(&mut self, now: u64, number: usize) {
        let attempt = self.attempts[number];
        let server = &mut self.servers[attempt.server];
        if server.life != attempt.life {
            return;
        }
        let attempts = &self.attempts;
        let next = server.finish(|waiting| attempts[waiting].open);
        if server.state == State::Well {
            self.then(now + attempt.rtt / 2, Event::Answers(number, End::Served));
        }
        if let Some(next) = next {
            self.begins(now, next);
        }
    }

    /// An attempt ends, one way or the other; whatever comes after that is not heard.
    fn ends(&mut self, now: u64, number: usize, end: End) {
        let attempt = self.attempts[number];
        if !std::mem::take(&mut self.attempts[number].open) {
            return;
        }
        let request = self.world.requests[attempt.request];
        let gateway = request.gateway;
        if request.direct.is_none() {
            if end == End::Served || end == End::Full || end == End::Failed {
                let idle = &mut self.idle[gateway][attempt.server];
                *idle = (*idle + 1).min(IDLE_MAX);
                self.gateways[gateway].warm(attempt.server, *idle);
            }
            let took = now - attempt.began;
            let waited = now.saturating_sub(attempt.sent);
            self.gateways[gateway].end(now, attempt.server, Answered { end, took, waited });
        }
        match end {
            End::Served if request.at >= self.scenario.counts_from().as_micros() as u64 => {
                self.served.push(now - request.at);
            }
            End::Served => {}
            End::Full | End::Failed | End::Broken | End::Silent => {
                self.go_on(now, attempt.request);
            }
        }
    }

    /// Starts the checks a gateway wants.
    fn look(&mut self, now: u64, gateway: usize) {
        for server in self.gateways[gateway].checks() {
            self.then(now, Event::Asks(gateway, server));
        }
    }

    fn asks(&mut self, now: u64, gateway: usize, server: usize) {
        self.sequence += 1;
        let noise = draws::unit(draws::word(&[self.world.seed, 8, self.sequence]));
        let rtt = (self.world.rtt[gateway][server] as f64 * (1.0 - 0.05 * noise.ln())) as u64;
        if self.cut.contains(&(gateway, server)) {
            self.then(
                now + CHECK_PATIENCE.as_micros() as u64,
                Event::Checked(gateway, server, None),
            );
        } else if self.servers[server].state == State::Down {
            self.then(now + rtt, Event::Checked(gateway, server, None));
        } else {
            self.then(now + 5 * rtt / 2, Event::Asked(gateway, server, rtt as usize));
        }
    }

    fn tells(&mut self, now: u64, gateway: usize) {
        let (held, from) = (self.scenario.held, &self.world.gateways[gateway].point);
        let mut sent: BTreeMap<usize, Vec<Versioned>> = BTreeMap::new();
        for peer in (0..self.gateways.len()).filter(|peer| *peer != gateway) {
            let mut records = self.gateways[gateway].tell(now, peer);
            records.iter_mut().for_each(|it| it.age += held);
            sent.insert(peer, records);
        }
        for (peer, records) in sent.into_iter().filter(|(_, records)| !records.is_empty()) {
            let metres = from.distance_m(&self.world.gateways[peer].point);
            let way = portolan::geo::expected_rtt(metres).0 / 2;
            let at = now + held.as_micros() as u64 + way;
            self.then(at, Event::Told(gateway, peer, records));
        }
        self.then(now + self.scenario.told_every.as_micros() as u64, Event::Tells(gateway));
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

/// As of `edge`: after four orchestrators the fault is hardly theirs.
const ATTEMPTS_MAX: usize = 4;
/// A client walks this far down a list.
const WALKED_MAX: usize = 8;
/// How long an answer's head may take: ten times what usual work does.
const HEAD_PATIENCE: Duration = Duration::from_secs(4);
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const CHECK_PATIENCE: Duration = Duration::from_secs(3);
const IDLE_MAX: u32 = 16;
const TICK_US: u64 = 100_000;
/// Answers still come in after the last request.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// Attempts still open are among the last so many.
const LOOK_BACK: usize = 20_000;
