//! Round trips and outcomes: own ones, and what peers tell.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::geo::{Point, expected_rtt, fibre_floor};
use crate::health::Observation;
use crate::id::NodeId;
use crate::orchestrator::median::{ENOUGH, liars_among, sum_of_counts};
use crate::policy::course::is_worth_moving;
use crate::score::{Evidence, OUTCOME_HALF_LIFE_MS};
use crate::unit::{Micros, decayed, log2_q10};
use crate::view::row::{Link, Outcomes, PLACELESS_RTT};

/// What a peer sees of an orchestrator, with what is known of the peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Who tells.
    pub node: NodeId,
    /// What it sees.
    pub observation: Observation,
    /// When that was so, by this node's clock.
    pub at: Instant,
    /// This node's round trip to the peer.
    pub peer_rtt: Option<Micros>,
    /// Where the peer is.
    pub peer_point: Option<Point>,
}

/// The last round trips this node measured.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    samples: VecDeque<(Instant, Micros)>,
}

/// What the evidence says of the way to an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The round trip from this node.
    pub link: Link,
    /// The declared point, unless a sample faster than light disproved it.
    pub point: Option<Point>,
    /// How measured round trips compare with expected ones; see
    /// [`crate::view::row::Row::reach`].
    pub reach: i16,
}

impl RoundTrips {
    /// Takes a measured round trip.
    pub fn add(&mut self, now: Instant, rtt: Micros) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, rtt));
    }

    /// Returns the least of the recent samples and when the latest was taken. The least,
    /// since waiting only ever adds to what the path itself takes.
    pub fn own(&self, now: Instant) -> Option<(Micros, Instant)> {
        let fresh = |at: Instant| now.saturating_duration_since(at) <= SAMPLES_FOR;
        let fresh = self.samples.iter().filter(|(at, _rtt)| fresh(*at));
        let least = fresh.map(|(_at, rtt)| *rtt).min()?;
        Some((least, self.samples.back()?.0))
    }

    /// Weighs everything known of the way: own samples, then what peers measured, then
    /// distance, then the default.
    pub fn read(
        &self,
        now: Instant,
        home: &Point,
        declared: Option<Point>,
        told: &[Told],
        may_forward: bool,
    ) -> Reading {
        let own = self.own(now);
        let own_rtt = own.map(|(rtt, _at)| rtt);
        let measured = |point: &Point| {
            let by_peers = told.iter().filter_map(|it| Some((it.peer_point?, it.observation.rtt?)));
            let here = own_rtt.map(|rtt| (*home, rtt));
            let all = by_peers.chain(here).map(|(from, rtt)| (from.distance_m(point), rtt));
            all.collect::<Vec<_>>()
        };
        // The sample is kept, the place dropped: nothing is faster than light in fibre. Of
        // several observers most have to say so, or this node itself.
        let too_fast = |it: &(u32, Micros)| it.1 < fibre_floor(it.0);
        let disproved = |point: &Point| {
            let measured = measured(point);
            let n_too_fast = measured.iter().filter(|it| too_fast(it)).count();
            let own = own_rtt.is_some_and(|rtt| too_fast(&(home.distance_m(point), rtt)));
            own || n_too_fast > 0 && (measured.len() < ENOUGH || n_too_fast * 2 > measured.len())
        };
        let point = declared.filter(|it| !disproved(it));
        let reach = point.as_ref().map_or(0, |point| reach(&measured(point)));
        let link = match own {
            Some((rtt, at)) => {
                through(rtt, at, point.as_ref(), if may_forward { told } else { &[] })
            }
            None => guess(home, point.as_ref(), told),
        };
        Reading { link, point, reach }
    }
}

/// Returns what to expect of a way nobody here has measured: distance, held within what
/// peers' measurements allow by the triangle they make with it. Of one or two peers the
/// narrower triangle counts; of more, only what holds however many of them may lie.
fn guess(home: &Point, point: Option<&Point>, told: &[Told]) -> Link {
    let prior = point.map(|point| expected_rtt(home.distance_m(point)));
    let (by_default, evidence) = match prior {
        Some(prior) => (prior, Evidence::Distance),
        None => (PLACELESS_RTT, Evidence::Default),
    };
    let through = told.iter().filter_map(|it| {
        let (to_peer, onwards) = (it.peer_rtt?, it.observation.rtt?);
        let (low, high) = (onwards.0.abs_diff(to_peer.0), (onwards + to_peer).0);
        Some((high, it.node, it.at, low))
    });
    let mut through: Vec<_> = through.collect();
    through.sort_unstable();
    let n_liars = liars_among(through.len());
    let Some(&(high, node, at, low)) = through.get(n_liars) else {
        return Link { rtt: by_default, evidence, at: None, by: None, via: None };
    };
    let low = if n_liars == 0 {
        low
    } else {
        let mut lows: Vec<u64> = through.iter().map(|it| it.3).collect();
        lows.sort_unstable();
        lows[lows.len() - 1 - n_liars].min(high)
    };
    let rtt = Micros(by_default.0.clamp(low, high));
    Link { rtt, evidence: Evidence::Peer, at: Some(at.into()), by: Some(node), via: None }
}

/// Returns the way this node measured, or the one through the peer by whom it is clearly
/// shorter: on the Internet two sides of a triangle may be less than the third. A peer that
/// claims to be nearer to `point` than light is from its place is no way.
fn through(own: Micros, at: Instant, point: Option<&Point>, told: &[Told]) -> Link {
    let possible = |it: &&Told| {
        let metres = it.peer_point.zip(point).map(|(peer, point)| peer.distance_m(point));
        metres.zip(it.observation.rtt).is_none_or(|(metres, rtt)| rtt >= fibre_floor(metres))
    };
    let sums = told
        .iter()
        .filter(possible)
        .filter_map(|it| Some((it.peer_rtt? + it.observation.rtt? + FORWARDING, it.at, it.node)));
    match sums.min_by_key(|it| (it.0, it.2)) {
        Some((rtt, told_at, node)) if is_worth_moving(own, rtt) => Link {
            rtt,
            evidence: Evidence::Peer,
            at: Some(at.min(told_at).into()),
            by: Some(node),
            via: Some(node),
        },
        Some(_) | None => {
            Link { rtt: own, evidence: Evidence::Own, at: Some(at.into()), by: None, via: None }
        }
    }
}

/// Returns the mean of the logarithms of measured over expected round trips, but for as many at
/// either end as may be lies, held towards "as expected" as if one more node had measured just
/// that: a single node's view must not decide alone. What is measured from next door says
/// nothing of the way across an ocean.
fn reach(measured: &[(u32, Micros)]) -> i16 {
    let far = measured.iter().filter(|(metres, _rtt)| *metres >= REACH_FROM_M);
    let ratio = |(metres, rtt): &(u32, Micros)| {
        i64::from(log2_q10(rtt.0.max(1)) - log2_q10(expected_rtt(*metres).0))
    };
    let mut ratios: Vec<i64> = far.map(ratio).collect();
    ratios.sort_unstable();
    let n_liars = liars_among(ratios.len());
    let believed = &ratios[n_liars..ratios.len() - n_liars];
    let (n_believed, n_all) = (believed.len().max(1) as i64, ratios.len() as i64);
    let mean = believed.iter().sum::<i64>() * n_all / (n_believed * (n_all + 1));
    mean.clamp(-REACH_MAX, REACH_MAX) as i16
}

/// Outcomes and arrivals, forgotten as they age.
#[derive(Clone, Debug)]
pub struct Tally {
    failures_milli: u64,
    successes_milli: u64,
    at: Instant,
    arrivals_milli: u64,
    arrived_at: Instant,
}

impl Tally {
    /// Starts with nothing seen.
    pub fn new(now: Instant) -> Self {
        Self { failures_milli: 0, successes_milli: 0, at: now, arrivals_milli: 0, arrived_at: now }
    }

    /// Counts outcomes.
    pub fn count(&mut self, now: Instant, successes: u32, failures: u32) {
        let age = now.saturating_duration_since(self.at).as_millis() as u64;
        let left = |milli: u64| decayed(milli, age, OUTCOME_HALF_LIFE_MS);
        let bounded = |milli: u64| milli.min(u64::from(Observation::MAX_MILLI));
        self.failures_milli = bounded(left(self.failures_milli) + u64::from(failures) * 1000);
        self.successes_milli = bounded(left(self.successes_milli) + u64::from(successes) * 1000);
        self.at = now;
    }

    /// Counts requests begun since the last call.
    pub fn arrive(&mut self, now: Instant, started: u32) {
        let rate = self.arrivals_now(now);
        // An event adds what makes its own decaying trace weigh one: rate = ln 2 / half-life.
        let gained = u64::from(started) * 693_147 / ARRIVALS_HALF_LIFE_MS;
        self.arrivals_milli = (rate + gained).min(u64::from(Observation::MAX_MILLI));
        self.arrived_at = now;
    }

    /// Returns requests begun a second, in thousandths.
    pub fn arrivals_milli(&self, now: Instant) -> u32 {
        self.arrivals_now(now) as u32
    }

    fn arrivals_now(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.arrived_at).as_millis() as u64;
        decayed(self.arrivals_milli, age, ARRIVALS_HALF_LIFE_MS)
    }

    /// Returns own failures and successes at `now`, in thousandths of an event.
    pub fn own(&self, now: Instant) -> (u32, u32) {
        let age = now.saturating_duration_since(self.at).as_millis() as u64;
        let left = |milli: u64| decayed(milli, age, OUTCOME_HALF_LIFE_MS) as u32;
        (left(self.failures_milli), left(self.successes_milli))
    }

    /// Returns own outcomes together with those told, which weigh half: they were seen on
    /// another path. Of three who tell, or more, nobody's failures and nobody's successes weigh
    /// more than the middle one's; and what is told never makes failures rarer than this
    /// node saw them itself.
    pub fn outcomes(&self, now: Instant, told: &[Told]) -> Outcomes {
        let (own_failures, own_successes) = self.own(now);
        let half = |milli: u32, at: Instant| {
            let age = now.saturating_duration_since(at).as_millis() as u64;
            decayed(u64::from(milli), age, OUTCOME_HALF_LIFE_MS) / 2
        };
        let bad = told.iter().map(|it| half(it.observation.failures_milli, it.at));
        let good = told.iter().map(|it| half(it.observation.successes_milli, it.at));
        let failures = u64::from(own_failures).saturating_add(sum_of_counts(bad.clone()));
        let successes = u64::from(own_successes)
            .saturating_add(sum_of_counts(good))
            .min(praise_max(failures, own_failures.into(), own_successes.into()));
        let mut worst: Option<(u64, NodeId)> = None;
        for (bad, it) in bad.zip(told) {
            if worst.is_none_or(|(most, _node)| bad > most) {
                worst = Some((bad, it.node));
            }
        }
        let told_by = worst.filter(|(bad, _)| *bad > u64::from(own_failures).max(NOTABLE_MILLI));
        Outcomes {
            failures_milli: u32::try_from(failures).unwrap_or(u32::MAX),
            successes_milli: u32::try_from(successes).unwrap_or(u32::MAX),
            at: now.into(),
            told_by: told_by.map(|(_bad, node)| node),
        }
    }
}

/// Returns how many successes may stand beside so many failures without making them rarer than
/// this node saw them itself; whoever saw none here, or hardly anything, has to believe.
fn praise_max(failures: u64, own_failures: u64, own_successes: u64) -> u64 {
    if own_failures < SEEN_MILLI {
        return u64::MAX;
    }
    let allowed = u128::from(failures) * u128::from(own_successes) / u128::from(own_failures);
    u64::try_from(allowed).unwrap_or(u64::MAX)
}

/// What a peer takes to pass a request on, measured between two cores at 0.1 ms and more under
/// load.
const FORWARDING: Micros = Micros(500);
/// Round trips remembered.
const SAMPLES: usize = 8;
/// and for how long.
const SAMPLES_FOR: Duration = Duration::from_secs(600);
/// Below this distance the fixed part of a round trip outweighs the rest.
const REACH_FROM_M: u32 = 300_000;
/// A fourfold difference from what distance lets one expect is as far as a factor goes.
const REACH_MAX: i64 = 2 * 1024;
/// Half of the arrivals seen are forgotten in this time.
const ARRIVALS_HALF_LIFE_MS: u64 = 5_000;
/// A failure of this node's own, hardly decayed, in thousandths of an event.
const SEEN_MILLI: u64 = 800;
/// Told failures below a quarter of an event are not worth a mention.
const NOTABLE_MILLI: u64 = 250;
