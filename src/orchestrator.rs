//! One orchestrator as this node knows it.
//!
//! Sans-IO. Answers of checks, outcomes of requests and what peers tell go in; the row that
//! decisions read and the observation that peers are told come out. Busy is not bad: a
//! capacity refusal lowers capacity, never health.

pub mod evidence;
pub mod median;
pub mod offer;
pub mod quorum;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::geo::Point;
use crate::health::Observation;
use crate::id::NodeId;
use crate::id::OrchestratorId;
use crate::livepeer::capability;
use crate::livepeer::proto::OrchestratorInfo;
use crate::livepeer::runner;
use crate::orchestrator::evidence::{RoundTrips, Tally, Told};
use crate::orchestrator::median::Swing;
use crate::orchestrator::offer::Offers;
use crate::orchestrator::quorum::{Own, Voices};
use crate::score::Evidence;
use crate::suspension::{self, Suspension};
use crate::unit::{Country, Micros};
use crate::uri::ServiceUri;
use crate::view::CapabilityId;
use crate::view::outcome::{Drained, Gauge};
use crate::view::row::{Row, Standing};

/// The knobs of [`Orchestrator`].
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// When to put it aside.
    pub suspension: suspension::Params,
    /// How long its capacity ramps up after a suspension.
    pub slow_start: Duration,
    /// How long one would wait for the best-weighed rather than take the worst-weighed.
    pub weight_wait: Duration,
    /// What its offers are assumed to take and to cost.
    pub offers: offer::Params,
    /// Whether a shorter way through a peer is one.
    pub forward: bool,
}

/// Who and where one orchestrator is, as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Where it answers.
    pub uri: ServiceUri,
    /// Who runs it.
    pub operator: Arc<str>,
    /// The declared point, or that of the declared region.
    pub point: Option<Point>,
    /// The number of its region.
    pub region: u8,
    /// The declared country.
    pub country: Option<Country>,
    /// What somebody outside makes of it: 1000 is best.
    pub weight_permille: u16,
}

/// What an answered check brought.
#[derive(Debug, Default)]
pub struct Answer {
    /// The round trip, measured over an open connection.
    pub rtt: Option<Micros>,
    /// Its live runners, when it was asked for them and has any support for them.
    pub runners: Option<Vec<runner::Runner>>,
    /// What it says of itself over gRPC, when it was asked.
    pub info: Option<Box<OrchestratorInfo>>,
}

/// Why a check brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckFailure {
    /// Nothing listens there, or the name does not resolve.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The certificate is not the one pinned.
    #[error(
        "its certificate changed; a new one is pinned once it has lasted for a minute of checks"
    )]
    Pin,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// An answer that cannot be read.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Its row changed: publish it.
    Changed,
    /// A peer saw what this node has not: check soon.
    Doubt,
}

/// The machine.
#[derive(Debug)]
pub struct Orchestrator {
    id: OrchestratorId,
    params: Params,
    declared: Declared,
    home: Point,
    suspension: Suspension,
    round_trips: RoundTrips,
    tally: Tally,
    told: Vec<Told>,
    /// What peers let expect of the way, while this node has not measured it.
    swing: Swing,
    voices: Voices,
    own: Own,
    /// Whether most of its observers report nothing but failures, and nothing here says
    /// otherwise.
    avoided: bool,
    offers: Offers,
    version: Arc<str>,
    instances: Vec<ServiceUri>,
    heard_at: Option<Instant>,
    last_failure: Option<CheckFailure>,
    recovered_at: Option<Instant>,
    draining: bool,
    doubted_at: Option<Instant>,
    /// Who told of failures before this node saw any; until it answers again.
    warned_by: Option<NodeId>,
    /// Capacity refusals taken in.
    refused_ever: u32,
    gauge: Arc<Gauge>,
    changed: bool,
    doubt: bool,
}

impl Orchestrator {
    /// Starts with nothing known. `home` is where this node is; `draw` seeds jitter.
    pub fn new(
        now: Instant,
        params: Params,
        declared: Declared,
        home: Point,
        gauge: Arc<Gauge>,
        draw: u64,
    ) -> Self {
        Self {
            id: OrchestratorId::of(&declared.uri),
            suspension: Suspension::new(now, params.suspension, draw),
            round_trips: RoundTrips::default(),
            tally: Tally::new(now),
            told: Vec::new(),
            swing: Swing::default(),
            voices: Voices::default(),
            own: Own::default(),
            avoided: false,
            offers: Offers::new(params.offers),
            version: "".into(),
            instances: Vec::new(),
            heard_at: None,
            last_failure: None,
            recovered_at: None,
            draining: false,
            doubted_at: None,
            warned_by: None,
            refused_ever: 0,
            changed: false,
            doubt: false,
            params,
            declared,
            home,
            gauge,
        }
    }

    /// Takes other knobs; what was learned stays.
    pub fn handle_params(&mut self, params: Params) {
        self.suspension.handle_params(params.suspension);
        self.offers.handle_params(params.offers);
        self.params = params;
        self.changed = true;
    }

    /// Takes a new declaration.
    pub fn handle_declared(&mut self, declared: Declared) {
        self.changed |= self.declared != declared;
        self.declared = declared;
    }

    /// Takes the end of a check.
    pub fn handle_check(&mut self, now: Instant, end: Result<Answer, CheckFailure>) {
        let was = self.suspension.verdict();
        self.suspension.handle_check(now, end.is_ok());
        self.tally.count(now, u32::from(end.is_ok()), u32::from(end.is_err()));
        self.note_own(now, u32::from(end.is_ok()), u32::from(end.is_err()));
        self.note_recovery(now, was);
        self.changed = true;
        match end {
            Ok(answer) => self.learn(now, answer),
            Err(failure) => self.last_failure = Some(failure),
        }
    }

    fn learn(&mut self, now: Instant, answer: Answer) {
        self.heard_at = Some(now);
        self.last_failure = None;
        self.warned_by = None;
        if let Some(rtt) = answer.rtt {
            self.round_trips.add(now, rtt);
        }
        // One that supports no runners, or no longer does, offers none.
        let runners = answer.runners.unwrap_or_default();
        let before = self.offers.others();
        self.offers.take_runners(now, &self.declared.uri, &runners, self.gauge.in_flight());
        if let Some(info) = answer.info {
            let capabilities = info.capabilities.unwrap_or_default();
            // An empty service URI is how an orchestrator says that it does no work.
            let jobs = match info.transcoder.is_empty() {
                true => std::collections::BTreeMap::new(),
                false => capability::offers(&capabilities),
            };
            self.offers.take_jobs(now, &jobs);
            let version = capabilities.version.chars().take(VERSION_MAX);
            self.version = version.collect::<String>().into();
            let others = info.nodes.iter().filter_map(|uri| uri.parse::<ServiceUri>().ok());
            let own = &self.declared.uri;
            self.instances = others.filter(|uri| uri != own).take(INSTANCES_MAX).collect();
        }
        self.gauge.set_places(self.offers.places());
        // Clients that were shown it and came count in its own figures from here on.
        let came = self.offers.others().saturating_sub(before);
        self.gauge.settle(now, came.saturating_mul(1000));
    }

    /// Takes what the request path counted since the last call.
    pub fn handle_outcomes(&mut self, now: Instant, drained: &Drained) {
        let was = self.suspension.verdict();
        self.suspension.handle_outcomes(now, drained.successes, drained.failures);
        self.tally.count(now, drained.successes, drained.failures);
        self.tally.arrive(now, drained.started);
        self.offers.take_outcomes(drained, self.gauge.in_flight(), self.gauge.claimed(now));
        self.refused_ever = drained.refused.ever;
        self.note_own(now, drained.successes, drained.failures);
        self.note_recovery(now, was);
        if drained.failures > 0 {
            self.doubt_now(now);
        }
        self.changed = true;
    }

    /// Takes what peers see of it now; replaces what they said before.
    pub fn handle_told(&mut self, now: Instant, told: Vec<Told>) {
        let worst = |told: &[Told]| told.iter().map(|it| it.observation.failures_milli).max();
        let (before, after) = (worst(&self.told).unwrap_or(0), worst(&told).unwrap_or(0));
        if after >= DOUBT_FROM_MILLI && after > before {
            self.doubt_now(now);
        }
        let own_failures = self.tally.own(now).0;
        if after >= DOUBT_FROM_MILLI && own_failures < NONE_MILLI {
            let worst = told.iter().max_by_key(|it| it.observation.failures_milli);
            self.warned_by = worst.map(|it| it.node).or(self.warned_by);
        }
        self.voices.hear(&told);
        self.told = told;
        self.weigh_voices(now);
        self.changed = true;
    }

    /// Stops or resumes giving it new work.
    pub fn handle_drain(&mut self, draining: bool) {
        self.changed |= self.draining != draining;
        self.draining = draining;
    }

    /// Does everything that has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let was = self.suspension.verdict();
        self.suspension.handle_timeout(now);
        self.weigh_voices(now);
        self.note_recovery(now, was);
        // The way back begins with a look, whatever the schedule says.
        let is = self.suspension.verdict();
        self.doubt |= was != is && is == suspension::Verdict::Probation;
        let ramped = |at: Instant| now.saturating_duration_since(at) >= self.params.slow_start;
        if self.recovered_at.is_some_and(ramped) {
            self.recovered_at = None;
            self.changed = true;
        } else if self.recovered_at.is_some() {
            self.changed = true;
        }
    }

    /// Returns when [`Self::handle_timeout`] next has something to do.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let ramp = self.recovered_at.map(|_at| now + RAMP_STEP);
        let voices = self.voices.next_change(now).filter(|_| self.avoided);
        self.suspension.next_timeout().into_iter().chain(ramp).chain(voices).min()
    }

    /// Returns the next thing to do, until there is none.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.changed) {
            return Some(Output::Changed);
        }
        std::mem::take(&mut self.doubt).then_some(Output::Doubt)
    }

    /// Returns further instances its operator named.
    pub fn instances(&self) -> &[ServiceUri] {
        &self.instances
    }

    /// Returns the counters the request path writes.
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Returns the row decisions read. `intern` gives a capability its number; a capability
    /// without one is left out.
    pub fn row(&mut self, now: Instant, intern: impl FnMut(&str) -> Option<CapabilityId>) -> Row {
        let mut reading = self.round_trips.read(
            now,
            &self.home,
            self.declared.point,
            &self.told,
            self.params.forward,
        );
        match (reading.link.evidence, reading.link.via) {
            (Evidence::Peer, None) => {
                reading.link.rtt = self.swing.hold(now, reading.link.rtt);
            }
            _ => self.swing.release(),
        }
        let ramp = self.recovered_at.map_or(1000, |at| {
            let passed = now.saturating_duration_since(at).as_millis() as u64;
            passed * 1000 / (self.params.slow_start.as_millis() as u64).max(1)
        });
        let mut outcomes = self.tally.outcomes(now, &self.told);
        // Own failures soon outweigh a warning; who gave it stays worth knowing.
        outcomes.told_by = outcomes.told_by.or(self.warned_by);
        Row {
            id: self.id,
            uri: self.declared.uri.clone(),
            operator: Arc::clone(&self.declared.operator),
            point: reading.point,
            region: self.declared.region,
            country: self.declared.country,
            version: Arc::clone(&self.version),
            link: reading.link,
            told: self.told.iter().filter_map(|it| Some((it.node, it.observation.rtt?))).collect(),
            reach: reading.reach,
            outcomes,
            weight: self.weight(),
            standing: self.standing(),
            checked_at: self.heard_at,
            last_failure: self.last_failure.as_ref().map(|it| it.to_string().into()),
            offers: self.offers.rows(now, &self.told, ramp.min(1000), intern).into(),
            refused_ever: self.refused_ever,
            gauge: Arc::clone(&self.gauge),
        }
    }

    /// Returns what peers are told: own evidence only.
    pub fn observation(&self, now: Instant) -> Observation {
        let (failures_milli, successes_milli) = self.tally.own(now);
        Observation {
            orchestrator: self.id,
            rtt: self.round_trips.own(now).map(|(rtt, _at)| rtt),
            failures_milli,
            successes_milli,
            in_flight: self.gauge.in_flight().min(Observation::MAX_IN_FLIGHT),
            arrivals_milli: self.tally.arrivals_milli(now),
            service: self.offers.service(),
            capacity_milli: self.offers.capacity_milli(),
        }
    }

    /// Returns what its weight costs, as time.
    fn weight(&self) -> Micros {
        let lacking = 1000_u64.saturating_sub(self.declared.weight_permille.into());
        Micros(Micros::from(self.params.weight_wait).0.saturating_mul(lacking) / 1000)
    }

    /// Asks for a check soon, but not again and again.
    fn doubt_now(&mut self, now: Instant) {
        let recent = |at: Instant| now.saturating_duration_since(at) < DOUBT_AT_MOST_EVERY;
        if !self.doubted_at.is_some_and(recent) {
            self.doubted_at = Some(now);
            self.doubt = true;
        }
    }

    fn standing(&self) -> Standing {
        match self.suspension.verdict() {
            _ if self.draining => Standing::Draining,
            suspension::Verdict::Suspended => Standing::Suspended,
            suspension::Verdict::Probation => Standing::Probation,
            suspension::Verdict::InUse if self.avoided => Standing::Suspended,
            suspension::Verdict::InUse if self.heard_at.is_none() => Standing::Unknown,
            suspension::Verdict::InUse => Standing::Ready,
        }
    }

    /// Notes what this node saw itself; failures and successes of one report are taken for
    /// failures, since their order is unknown.
    fn note_own(&mut self, now: Instant, successes: u32, failures: u32) {
        match (successes, failures) {
            (0, 0) => return,
            (_, 0) => self.own.succeeded_at = Some(now),
            (_, _) => self.own.failed_at = Some(now),
        }
        self.weigh_voices(now);
    }

    fn weigh_voices(&mut self, now: Instant) {
        let avoided = self.voices.say_avoid(now, self.own);
        self.changed |= avoided != self.avoided;
        self.avoided = avoided;
    }

    fn note_recovery(&mut self, now: Instant, was: suspension::Verdict) {
        let is = self.suspension.verdict();
        if was != is {
            self.changed = true;
        }
        if was != suspension::Verdict::InUse && is == suspension::Verdict::InUse {
            self.recovered_at = Some(now);
        }
    }
}

/// The longest version text kept, in characters.
const VERSION_MAX: usize = 32;
/// The most further instances taken from one orchestrator.
const INSTANCES_MAX: usize = 16;
/// A peer that saw this many failures, in thousandths of an event, makes one look.
const DOUBT_FROM_MILLI: u32 = 1_000;
/// Below this, in thousandths of an event, this node has seen no failure of late.
const NONE_MILLI: u32 = 250;
/// A doubt brings a check forward at most this often.
const DOUBT_AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// A row in slow start is published again this often.
const RAMP_STEP: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
