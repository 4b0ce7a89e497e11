//! What a node does with its orchestrators: five requests a second to each it does not avoid,
//! checks, and what comes of them, around the real machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan::geo::Point;
use portolan::health::{Observation, Sighting};
use portolan::id::OrchestratorId;
use portolan::orchestrator::evidence::Told;
use portolan::orchestrator::{Answer, CheckFailure, Declared, Orchestrator, Output, Params, offer};
use portolan::suspension;
use portolan::unit::Micros;
use portolan::view::outcome::Drained;
use portolan::view::row::Standing;

/// How the way to an orchestrator is for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Well,
    Refused,
}

/// One node's orchestrators.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) held: Vec<Held>,
}

/// One orchestrator as one node has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: OrchestratorId,
    pub(crate) way: Way,
    machine: Orchestrator,
    rtt: Duration,
    /// When outcomes of requests and checks under way are known, and what they are.
    requests: Vec<(Instant, bool)>,
    check: Option<(Instant, bool)>,
    request_at: Instant,
    check_at: Instant,
    /// Since when it is avoided without a break.
    pub(crate) avoided_at: Option<Instant>,
}

impl Player {
    pub(crate) fn new(now: Instant, n: usize, seed: u64) -> Self {
        let held = (0..n).map(|it| Held::new(now, it, seed >> (it % 8))).collect();
        Self { held }
    }

    /// A tenth of a second: outcomes in, requests and checks out; returns what to tell peers.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Observation> {
        self.held.iter_mut().filter_map(|it| it.tick(now)).collect()
    }

    /// Takes what peers see.
    pub(crate) fn hear(&mut self, now: Instant, id: OrchestratorId, seen: &[Sighting]) {
        let told = seen.iter().map(|it| Told {
            node: it.node,
            observation: it.observation,
            at: now.checked_sub(it.age).unwrap_or(now),
            peer_rtt: None,
            peer_point: None,
        });
        if let Some(held) = self.held.iter_mut().find(|it| it.id == id) {
            held.machine.handle_told(now, told.collect());
        }
    }
}

impl Held {
    fn new(now: Instant, at: usize, seed: u64) -> Self {
        let declared = Declared {
            uri: format!("https://o{at}:1").parse().unwrap(),
            operator: "o".into(),
            point: None,
            region: 0,
            country: None,
            weight_permille: 1000,
        };
        let id = OrchestratorId::of(&declared.uri);
        let home = Point::new(0.0, 0.0).unwrap();
        let machine = Orchestrator::new(now, params(), declared, home, Arc::default(), seed);
        let rtt = Duration::from_millis(20 + seed % 130);
        let phase = Duration::from_millis(seed % 200);
        Self {
            id,
            way: Way::Well,
            machine,
            rtt,
            requests: Vec::new(),
            check: None,
            request_at: now + phase,
            check_at: now + phase * 10,
            avoided_at: None,
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Observation> {
        let mut drained = Drained::default();
        for (_, well) in self.requests.extract_if(.., |(at, _)| *at <= now) {
            *(if well { &mut drained.successes } else { &mut drained.failures }) += 1;
        }
        let standing = self.machine.row(now, |_| None).standing;
        self.avoided_at = match standing {
            Standing::Suspended => self.avoided_at.or(Some(now)),
            Standing::Unknown | Standing::Ready | Standing::Probation | Standing::Draining => None,
        };
        while self.request_at <= now {
            if self.avoided_at.is_none() {
                drained.started += 1;
                self.requests.push((self.request_at + self.rtt, self.way == Way::Well));
            }
            self.request_at += REQUEST_EVERY;
        }
        if drained != Drained::default() {
            self.machine.handle_outcomes(now, &drained);
        }
        if let Some((_, well)) = self.check.take_if(|(at, _)| *at <= now) {
            self.machine.handle_check(
                now,
                match well {
                    true => Ok(Answer { rtt: Some(Micros::from(self.rtt)), ..Answer::default() }),
                    false => Err(CheckFailure::Connect("refused".to_owned())),
                },
            );
        }
        if self.machine.next_timeout(now).is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        if self.check_at <= now {
            self.look(now);
        }
        let mut observed = None;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Changed => observed = Some(self.machine.observation(now)),
                Output::Doubt => self.look(now),
            }
        }
        observed
    }

    fn look(&mut self, now: Instant) {
        self.check_at = now + CHECK_EVERY;
        self.check.get_or_insert((now + self.rtt, self.way == Way::Well));
    }
}

fn params() -> Params {
    Params {
        forward: false,
        suspension: suspension::Params {
            consecutive: 5,
            share_permille: 500,
            requests_min: 20,
            checks: 2,
            first: Duration::from_secs(5),
            longest: Duration::from_secs(300),
        },
        slow_start: Duration::from_secs(30),
        weight_wait: Duration::ZERO,
        offers: offer::Params {
            capacity: 8,
            session: Duration::from_secs(60),
            wait_per_cent: Duration::from_millis(200),
            ether_cents: 300_000,
        },
    }
}

/// The least load at which a failure has to be noticed within a second.
const REQUEST_EVERY: Duration = Duration::from_millis(200);
/// How often one in use is checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);
