//! What is known of one orchestrator, as plain values.

use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;

use crate::geo::Point;
use crate::geo::expected_rtt;
use crate::id::{NodeId, OrchestratorId};
use crate::score::{Evidence, Inputs, OUTCOME_HALF_LIFE_MS};
use crate::unit::stamp::Stamp;
use crate::unit::{Country, Micros, Ppm, decayed, scaled};
use crate::uri::ServiceUri;
use crate::view::outcome::Gauge;
use crate::view::{CapabilityId, Slot};

/// One orchestrator instance.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one.
    pub id: OrchestratorId,
    /// Where it answers.
    pub uri: ServiceUri,
    /// Who runs it: instances of one operator share this.
    pub operator: Arc<str>,
    /// The declared place; `None` when nobody declared one, or when a round trip faster
    /// than light disproved it.
    pub point: Option<Point>,
    /// Number of the declared region, or of the one nearest to the point.
    pub region: u8,
    /// The declared country; residency is judged on nothing else.
    pub country: Option<Country>,
    /// Its software's version, as it says.
    pub version: Arc<str>,
    /// The round trip from this node.
    pub link: Link,
    /// The round trips peers told of, each peer once; as many as tell of it.
    pub told: Arc<[(NodeId, Micros)]>,
    /// How its measured round trips compare with what distance lets one expect, over all
    /// nodes that measured it: the binary logarithm, in 1/1024 steps; 0 is as expected.
    pub reach: i16,
    /// Decayed outcomes of requests and checks, own and told.
    pub outcomes: Outcomes,
    /// What its weight costs, as time: nothing for the best-weighed.
    pub weight: Micros,
    /// Whether it may be chosen.
    pub standing: Standing,
    /// When it last answered a check of this node.
    pub checked_at: Option<Instant>,
    /// Why its last check failed, when it did.
    pub last_failure: Option<Arc<str>>,
    /// What it offers.
    pub offers: Arc<[Offer]>,
    /// Capacity refusals this row has taken in; see [`crate::view::outcome::Refused`].
    pub refused_ever: u32,
    /// Counters the request path writes and reads.
    pub gauge: Arc<Gauge>,
}

impl Row {
    /// Returns the round trip to expect between `from` and this orchestrator.
    ///
    /// Distance, scaled by how this orchestrator's measured round trips compare with theirs;
    /// the default of the class where no place is known.
    pub fn expected_from(&self, from: &Point) -> (Micros, Evidence) {
        let Some(point) = &self.point else { return (PLACELESS_RTT, Evidence::Default) };
        let prior = expected_rtt(from.distance_m(point));
        match self.reach {
            0 => (prior, Evidence::Distance),
            reach => (Micros(scaled(prior.0, i32::from(reach))), Evidence::RegionPair),
        }
    }

    /// Returns what a cost needs to know of `offer` over `path` at `now`.
    #[inline]
    pub fn inputs(&self, offer: &Offer, path: &Path, now: Stamp, prior: Prior) -> Inputs {
        let service = offer.service.unwrap_or(prior.service);
        let age_ms = |at: Stamp| at.age_ms(now);
        Inputs {
            rtt_us: whole(path.rtt.0),
            evidence: path.evidence,
            evidence_age_ms: path.at.map_or(u32::MAX, age_ms),
            round_trips: path.round_trips,
            service_us: whole(service.0),
            holding_us: whole(offer.holding.max(service).0),
            in_flight: path.in_flight,
            promised_milli: path.promised_milli,
            claimed_milli: path.claimed.saturating_mul(1000),
            others_milli: offer.others_milli,
            arrivals_milli: offer.arrivals_milli,
            load_age_ms: age_ms(offer.load_at),
            capacity_milli: match path.full_at {
                None => offer.capacity_milli,
                Some(own) => {
                    let others = offer.others_milli.max(path.claimed.saturating_mul(1000));
                    let full = own.saturating_mul(1000).saturating_add(others);
                    offer.capacity_milli.min(full.max(FULL_LEAST_MILLI))
                }
            },
            tried: path.tried,
            failures_milli: self.outcomes.failures_milli,
            successes_milli: self.outcomes.successes_milli,
            outcome_age_ms: age_ms(self.outcomes.at),
            fleet: prior.failing,
            price_us: whole(offer.price.0),
            weight_us: whole(self.weight.0),
            switch_us: path.switch_us,
        }
    }

    /// Returns failures and successes as they weigh at `now`, in thousandths of an event.
    pub fn outcomes_at(&self, now: Instant) -> (u64, u64) {
        let age_ms = self.outcomes.at.age_ms(now.into()).into();
        let left = |milli: u32| decayed(u64::from(milli), age_ms, OUTCOME_HALF_LIFE_MS);
        (left(self.outcomes.failures_milli), left(self.outcomes.successes_milli))
    }
}

/// The path of one request to one candidate, with what is read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The round trip.
    pub rtt: Micros,
    /// Where it comes from.
    pub evidence: Evidence,
    /// When it was measured; `None` for what does not age.
    pub at: Option<Stamp>,
    /// Round trips until the first byte.
    pub round_trips: u8,
    /// Requests of this node in flight there.
    pub in_flight: u32,
    /// Places promised to clients shown it, in thousandths.
    pub promised_milli: u32,
    /// Places peers told of within the last moments.
    pub claimed: u32,
    /// What of ours was in flight when it said that it was full, where that is newer than
    /// the row.
    pub full_at: Option<u32>,
    /// How many were tried before for the same request.
    pub tried: u8,
    /// What moving a running session here costs.
    pub switch_us: u32,
}

/// What is assumed of a candidate before anything is known of it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    /// The failure rate of all orchestrators together.
    pub failing: Ppm,
    /// The usual service time of the capability: the median of what was learned.
    pub service: Micros,
}

/// A round trip and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The round trip.
    pub rtt: Micros,
    /// Where it comes from.
    pub evidence: Evidence,
    /// When it was measured; `None` for what does not age.
    pub at: Option<Stamp>,
    /// The peer that measured it, when [`Evidence::Peer`].
    pub by: Option<NodeId>,
    /// The peer to go through, where that is clearly shorter than the way from here.
    pub via: Option<NodeId>,
}

/// Decayed counts of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcomes {
    /// Failures, in thousandths of an event.
    pub failures_milli: u32,
    /// Successes, in thousandths of an event.
    pub successes_milli: u32,
    /// The moment the counts are decayed to.
    pub at: Stamp,
    /// The peer that told of failures: the one whose word outweighs what this node saw, or
    /// else the one that knew before this node did, until the orchestrator answers again.
    pub told_by: Option<NodeId>,
}

/// Whether an orchestrator may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing was heard of it yet.
    Unknown,
    /// Well.
    Ready,
    /// Put aside after failures.
    Suspended,
    /// Being tried again: one request at a time.
    Probation,
    /// Takes nothing new.
    Draining,
}

/// One capability at one orchestrator.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What it can do.
    pub capability: CapabilityId,
    /// The live runner behind it; `None` for a job capability.
    pub runner: Option<Arc<Runner>>,
    /// Time until its answer begins, learned from answers; `None` until the first.
    pub service: Option<Micros>,
    /// How long one unit of work keeps its slot, where that is longer than its answer takes.
    pub holding: Micros,
    /// How much it takes at once: the lower of advertised and learned, in thousandths.
    pub capacity_milli: u32,
    /// Sessions of others there as last told, in thousandths.
    pub others_milli: u32,
    /// Arrivals of others, in thousandths per second, as last told.
    pub arrivals_milli: u32,
    /// When the load was told.
    pub load_at: Stamp,
    /// The price of one unit, in wei; `None` when it names none.
    pub price_wei: Option<u128>,
    /// That price, as the time the operator would wait to save it.
    pub price: Micros,
}

/// One candidate: an offer of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The row.
    pub slot: Slot,
    /// Position of the offer in the row.
    pub offer: u8,
}

impl Member {
    /// Returns the row and the offer this names.
    pub(crate) fn of(self, rows: &[Option<Arc<Row>>]) -> Option<(&Arc<Row>, &Offer)> {
        let row = rows.get(self.slot.0 as usize)?.as_ref()?;
        Some((row, row.offers.get(usize::from(self.offer))?))
    }
}

/// A live runner, as its orchestrator advertises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// Its URL, as advertised.
    pub url: Arc<str>,
    /// Path and query of that URL; `None` when they are none, or lie at another origin than
    /// their orchestrator, in which case nothing is relayed to it.
    pub path: Option<PathAndQuery>,
    /// How work is given to it.
    pub mode: Mode,
    /// The graphics card's name, where told.
    pub gpu: Option<Arc<str>>,
    /// The advertised object, as JSON text, passed on unchanged but for its URL and its
    /// capacity figures.
    pub advert: Arc<str>,
    /// A fingerprint of price and graphics card; 0 for neither. Clients see one entry for
    /// each, since they hold an orchestrator to the price they were shown.
    pub variant: u32,
    /// Places advertised.
    pub capacity: u32,
    /// Places in use when last asked.
    pub capacity_used: u32,
}

/// How work is given to a live runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A session is reserved, used and stopped.
    Persistent,
    /// One request is the whole work.
    SingleShot,
}

/// Brings a count into a `u32`; what does not fit is as good as endless.
fn whole(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What is full without anything in flight there is taken to have half a place: whoever goes
/// waits for one.
const FULL_LEAST_MILLI: u32 = 500;
/// Round trip assumed to an orchestrator nobody has placed: about the mean between two
/// random cities.
pub const PLACELESS_RTT: Micros = Micros::from_ms(150);
