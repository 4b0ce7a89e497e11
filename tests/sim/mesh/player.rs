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
use portolan::unit::{Micros, Ppm};
use portolan::view::CapabilityId;
use portolan::view::outcome::Drained;
use portolan::view::row::{Path, Prior, Standing};

/// How the way to an orchestrator is for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Well,
    /// Nothing listens there.
    Refused,
    /// Connections and checks are fine; requests are broken off.
    Reset,
    /// Nothing ever comes back.
    Silent,
    /// Every second request fails, checks are fine.
    Half,
}

/// What a node does with its requests and with what it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Sends to all and tells what it saw.
    Even,
    /// Sends to the cheapest.
    Choosing,
    /// Tells the worst of the first orchestrator and the best of all others.
    Lying,
}

/// One node's orchestrators.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) held: Vec<Held>,
    pub(crate) temper: Temper,
}

/// One orchestrator as one node has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: OrchestratorId,
    pub(crate) way: Way,
    machine: Orchestrator,
    pub(crate) rtt: Duration,
    /// When outcomes of requests and checks under way are known, and what they are.
    requests: Vec<(Instant, bool)>,
    check: Option<(Instant, bool)>,
    n_checks_failed: u32,
    request_at: Instant,
    check_at: Instant,
    /// Since when it is avoided without a break.
    pub(crate) avoided_at: Option<Instant>,
    /// When it was first avoided since this was last cleared.
    pub(crate) first_avoided_at: Option<Instant>,
    /// Requests sent to it.
    pub(crate) n_requests: u64,
}

/// The worst of one that is well, and the best of one that is not.
fn lie(seen: Observation, worst: bool) -> Observation {
    let most = Observation::MAX_MILLI;
    Observation {
        rtt: Some(if worst { Observation::MAX_RTT } else { Micros(1) }),
        failures_milli: if worst { most } else { 0 },
        successes_milli: if worst { 0 } else { most },
        in_flight: if worst { Observation::MAX_IN_FLIGHT } else { 0 },
        arrivals_milli: if worst { most } else { 0 },
        capacity_milli: Some(if worst { 1 } else { most }),
        ..seen
    }
}

impl Way {
    /// When a request sent at `at` ends, and whether well.
    fn request(self, at: Instant, rtt: Duration) -> (Instant, bool) {
        match self {
            Self::Well => (at + rtt, true),
            Self::Refused | Self::Reset => (at + rtt, false),
            Self::Silent => (at + HEAD_TIMEOUT, false),
            Self::Half => (at + rtt, false),
        }
    }

    /// As [`Self::request`], of a check.
    fn check(self, at: Instant, rtt: Duration) -> (Instant, bool) {
        match self {
            Self::Well | Self::Reset | Self::Half => (at + rtt, true),
            Self::Refused => (at + rtt, false),
            Self::Silent => (at + CHECK_TIMEOUT, false),
        }
    }
}

impl Player {
    pub(crate) fn new(now: Instant, n: usize, seed: u64) -> Self {
        let held = (0..n).map(|it| Held::new(now, it, seed >> (it % 8))).collect();
        Self { held, temper: Temper::Even }
    }

    /// A tenth of a second: outcomes in, requests and checks out; returns what to tell peers.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Observation> {
        let chosen = match self.temper {
            Temper::Choosing => self.held.iter_mut().filter_map(|it| it.cost(now)).min(),
            Temper::Even | Temper::Lying => None,
        };
        let mut seen = Vec::new();
        for (at, held) in self.held.iter_mut().enumerate() {
            let is_asked = chosen.is_none_or(|(_, id)| id == held.id);
            let observed = held.tick(now, is_asked);
            seen.extend(match self.temper {
                Temper::Lying => observed.map(|it| lie(it, at == 0)),
                Temper::Even | Temper::Choosing => observed,
            });
        }
        seen
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
            n_checks_failed: 0,
            request_at: now + phase,
            check_at: now + phase * 10,
            avoided_at: None,
            first_avoided_at: None,
            n_requests: 0,
        }
    }

    /// What a request there costs now; `None` while it may not be asked.
    fn cost(&mut self, now: Instant) -> Option<(u64, OrchestratorId)> {
        let row = self.machine.row(now, |_| Some(CapabilityId(0)));
        let asked = matches!(row.standing, Standing::Ready | Standing::Probation);
        let offer = row.offers.first().filter(|_| asked)?;
        let path = Path {
            rtt: row.link.rtt,
            evidence: row.link.evidence,
            at: row.link.at,
            round_trips: 1,
            in_flight: self.requests.len() as u32,
            promised_milli: 0,
            claimed: 0,
            full_at: None,
            tried: 0,
            switch_us: 0,
        };
        let prior = Prior { failing: Ppm(1_000), service: Micros::from_ms(100) };
        let inputs = row.inputs(offer, &path, now.into(), prior);
        Some((inputs.terms(inputs.expected()).total().0, self.id))
    }

    fn tick(&mut self, now: Instant, is_asked: bool) -> Option<Observation> {
        let mut drained = Drained::default();
        for (_, well) in self.requests.extract_if(.., |(at, _)| *at <= now) {
            *(if well { &mut drained.successes } else { &mut drained.failures }) += 1;
        }
        let standing = self.machine.row(now, |_| None).standing;
        self.avoided_at = match standing {
            Standing::Suspended => self.avoided_at.or(Some(now)),
            Standing::Unknown | Standing::Ready | Standing::Probation | Standing::Draining => None,
        };
        self.first_avoided_at = self.first_avoided_at.or(self.avoided_at);
        while self.request_at <= now {
            if self.avoided_at.is_none() && is_asked {
                drained.started += 1;
                self.n_requests += 1;
                let (at, well) = self.way.request(self.request_at, self.rtt);
                let every_second = self.way == Way::Half && self.n_requests.is_multiple_of(2);
                self.requests.push((at, well || every_second));
            }
            self.request_at += REQUEST_EVERY;
        }
        if drained != Drained::default() {
            self.machine.handle_outcomes(now, &drained);
        }
        if let Some((_, well)) = self.check.take_if(|(at, _)| *at <= now) {
            self.n_checks_failed = if well { 0 } else { self.n_checks_failed + 1 };
            // As the directory has it: one that failed is looked into at once.
            let again = if self.n_checks_failed == 1 { RECHECK_AFTER } else { CHECK_EVERY };
            self.check_at = now + again;
            self.machine.handle_check(
                now,
                match well {
                    true => Ok(answer(Micros::from(self.rtt))),
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
        self.check.get_or_insert(self.way.check(now, self.rtt));
    }
}

fn answer(rtt: Micros) -> Answer {
    let advert = r#"{"url":"https://o:1/run","app":"a","mode":"single-shot","capacity":8}"#;
    Answer {
        rtt: Some(rtt),
        runners: Some(vec![serde_json::from_str(advert).unwrap()]),
        info: None,
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
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How soon after one check that failed,
const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// and how long a check waits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request waits for the head of its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
