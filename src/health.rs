//! What nodes see of orchestrators, as evidence with an age.
//!
//! Every node writes records of its own only, so no two writers meet and (epoch, version)
//! decides which of two records is the later. Nothing here is a verdict: whether an
//! orchestrator is put aside is each node's own affair.

mod change;
mod observers;
mod outbox;
mod store;

use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::id::OrchestratorId;
use crate::unit::Micros;

pub use self::change::{Change, change};
pub use self::observers::{Candidate, OBSERVERS, observes};
pub use self::outbox::{Outbox, Sent};
pub use self::store::MemoryStore;

/// Bounds and periods of the health plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The age at which a record becomes unknown again; three refreshes is usual.
    pub ttl: Duration,
    /// How long an unchanged observation of our own is not repeated to the others.
    pub refresh: Duration,
    /// The most orchestrators of one origin; 20,000 is twice the largest network planned for.
    pub max_records: usize,
    /// The most origins; 320 nodes leave room above the 300 that full meshes
    /// of links are planned for.
    pub max_origins: usize,
    /// How far an origin's version may rise within one delta. 2^32 is half a year at 267
    /// updates a second; what jumps farther is broken and would block its successors.
    pub max_version_jump: u64,
    /// How far an origin's epoch may rise at once: 2^42 milliseconds is 139 years.
    pub max_epoch_jump: u64,
}

/// What one node sees of one orchestrator: counts, rates and times, never a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Which orchestrator.
    pub orchestrator: OrchestratorId,
    /// The round trip from the observer; `None` while unmeasured.
    pub rtt: Option<Micros>,
    /// Failures, decayed by the observer, in thousandths of an event.
    pub failures_milli: u32,
    /// Successes, decayed by the observer, in thousandths of an event.
    pub successes_milli: u32,
    /// Requests under way from the observer.
    pub in_flight: u32,
    /// Requests the observer starts there, in thousandths per second.
    pub arrivals_milli: u32,
    /// The service time of one request; `None` while unknown.
    pub service: Option<Micros>,
    /// The learned capacity, in thousandths of a request at a time; `None` while unknown.
    pub capacity_milli: Option<u32>,
}

impl Observation {
    /// The longest round trip believed: a minute is far beyond any network path.
    pub const MAX_RTT: Micros = Micros::from_ms(60_000);
    /// The longest service time believed: a day, for jobs that render through the night.
    pub const MAX_SERVICE: Micros = Micros::from_ms(86_400_000);
    /// The largest count or rate believed: a million a second, in thousandths.
    pub const MAX_MILLI: u32 = 1_000_000_000;
    /// The most requests under way believed of one observer at one orchestrator.
    pub const MAX_IN_FLIGHT: u32 = 1_000_000;

    /// Whether every value lies in its range; a round trip of nothing does not.
    pub fn is_plausible(&self) -> bool {
        let rates = [self.failures_milli, self.successes_milli, self.arrivals_milli];
        self.rtt.is_none_or(|it| it > Micros::ZERO && it <= Self::MAX_RTT)
            && self.service.is_none_or(|it| it <= Self::MAX_SERVICE)
            && rates.iter().all(|&it| it <= Self::MAX_MILLI)
            && self.capacity_milli.is_none_or(|it| it <= Self::MAX_MILLI)
            && self.in_flight <= Self::MAX_IN_FLIGHT
    }
}

/// An observation under its writer's version, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The writer's counter; rises by one with every observation of any orchestrator.
    pub version: u64,
    /// How old the observation was when it was sent.
    pub age: Duration,
    /// The evidence.
    pub observation: Observation,
}

/// An observation as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Who saw it.
    pub origin: NodeId,
    /// The origin's boot epoch.
    pub epoch: u64,
    /// The origin's version.
    pub version: u64,
    /// The evidence.
    pub observation: Observation,
    /// When it came here, by this node's clock.
    pub received_at: Instant,
    /// How old it was when sent. The time on the wire is not known and counts as nothing.
    pub age_at_send: Duration,
}

impl Stamped {
    /// Returns how old the observation is; wall clocks of two nodes are never compared.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.received_at).saturating_add(self.age_at_send)
    }
}

/// An observation as its reader takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who saw it.
    pub node: NodeId,
    /// The evidence.
    pub observation: Observation,
    /// How old it is.
    pub age: Duration,
}

/// What became of the records of one delta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Orchestrators of which something else is known than before, each once, in order.
    pub changed: Vec<OrchestratorId>,
    /// Records not newer than what was held, by epoch or version.
    pub n_older: u32,
    /// Records past their time to live on arrival.
    pub n_expired: u32,
    /// Records refused by a bound: origins, records of one origin, jumps of a counter.
    pub n_refused: u32,
}

/// What two nodes compare to see whether one holds what the other sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many records.
    pub n_records: u32,
    /// The exclusive or of a number per record, made of its orchestrator and version.
    pub sum: u64,
}

impl Digest {
    /// Counts a record.
    pub fn add(&mut self, orchestrator: OrchestratorId, version: u64) {
        self.n_records = self.n_records.saturating_add(1);
        self.sum ^= observers::mixed(observers::mixed(orchestrator.0) ^ version);
    }
}

/// What is known from other nodes.
pub trait HealthStore {
    /// Takes records that `origin` itself sent under `epoch`.
    fn apply(&mut self, now: Instant, origin: NodeId, epoch: u64, records: &[Versioned])
    -> Applied;

    /// Returns what the others see of one orchestrator, ordered by node.
    fn observations(&self, now: Instant, orchestrator: OrchestratorId) -> Vec<Sighting>;

    /// Forgets what is past its time to live; returns the orchestrators concerned, in order.
    fn expire(&mut self, now: Instant) -> Vec<OrchestratorId>;

    /// Returns when the next record expires.
    fn next_expiry(&self) -> Option<Instant>;

    /// Returns what is held of `origin`'s records under `epoch`.
    fn digest(&self, origin: NodeId, epoch: u64) -> Digest;

    /// Returns how many orchestrators `origin` is known to see.
    fn n_records(&self, origin: NodeId) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_out_of_range_is_implausible() {
        let sound = Observation {
            orchestrator: OrchestratorId(1),
            rtt: Some(Observation::MAX_RTT),
            failures_milli: Observation::MAX_MILLI,
            successes_milli: 0,
            in_flight: Observation::MAX_IN_FLIGHT,
            arrivals_milli: 0,
            service: Some(Observation::MAX_SERVICE),
            capacity_milli: Some(Observation::MAX_MILLI),
        };
        assert!(sound.is_plausible());
        let more = Observation::MAX_MILLI + 1;
        for odd in [
            Observation { rtt: Some(Micros::ZERO), ..sound },
            Observation { rtt: Some(Observation::MAX_RTT + Micros(1)), ..sound },
            Observation { failures_milli: more, ..sound },
            Observation { in_flight: Observation::MAX_IN_FLIGHT + 1, ..sound },
            Observation { service: Some(Observation::MAX_SERVICE + Micros(1)), ..sound },
            Observation { capacity_milli: Some(more), ..sound },
        ] {
            assert!(!odd.is_plausible(), "{odd:?}");
        }
    }
}
