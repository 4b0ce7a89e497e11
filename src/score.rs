//! The cost of one candidate for one request, in microseconds; lower is better.
//!
//! The expected time to completion, plus the expected cost of failing, plus the price turned
//! into the time the operator would wait to save it, plus the cost of leaving a running
//! session. Everything is integer arithmetic over [`Inputs`], which a decision record keeps,
//! so that a cost can be computed again, bit for bit, long after the request.

use crate::unit::{Decay, Micros, Ppm};

/// What is known of one candidate at the moment of a choice: raw, before any arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inputs {
    /// Round trip on the path of this request.
    pub rtt_us: u32,
    /// Where [`Inputs::rtt_us`] comes from.
    pub evidence: Evidence,
    /// Age of that evidence; `u32::MAX` where it has none (geography does not age).
    pub evidence_age_ms: u32,
    /// Round trips until the first byte: 1 on a warm connection, 3 on a cold one.
    pub round_trips: u8,
    /// Expected time from the last byte sent to the first byte answered, at rest.
    pub service_us: u32,
    /// How long one unit of work keeps its slot: the service time of a request, the life
    /// of a session.
    pub holding_us: u32,
    /// Requests of this node in flight there: exact, read at the choice.
    pub in_flight: u32,
    /// Places promised to clients that were shown it and are not seen yet, in thousandths.
    pub promised_milli: u32,
    /// Places peers said they use within the last moments, in thousandths.
    pub claimed_milli: u32,
    /// Others' sessions as last told, in thousandths.
    pub others_milli: u32,
    /// Others' arrivals, in thousandths per second, as last told.
    pub arrivals_milli: u32,
    /// Age of what was told of others.
    pub load_age_ms: u32,
    /// How much it takes at once: the lower of advertised and learned, in thousandths.
    pub capacity_milli: u32,
    /// How many were tried before for the same request.
    pub tried: u8,
    /// Failures seen, in thousandths of an event, as of [`Inputs::outcome_age_ms`].
    pub failures_milli: u32,
    /// Successes seen, answered checks among them, in thousandths of an event.
    pub successes_milli: u32,
    /// Age of the two counts above.
    pub outcome_age_ms: u32,
    /// The failure rate of the whole fleet, the prior of this candidate's.
    pub fleet: Ppm,
    /// The price of one unit, as the time the operator would wait to save it.
    pub price_us: u32,
    /// What its weight costs: stake or performance, as the operator has it weighed.
    pub weight_us: u32,
    /// The time lost by moving a running session here; zero for the one it runs on.
    pub switch_us: u32,
}

/// Where a round trip comes from, best first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Measured on this very path.
    Own,
    /// Seen by clients of the same prefix row or cell.
    Cell,
    /// Measured by a peer, or bounded by what peers measured.
    Peer,
    /// Distance, corrected by what nodes measured between the two regions.
    RegionPair,
    /// Distance alone.
    Distance,
    /// Nothing known: the default of the class.
    Default,
}

/// The parts of a cost. Their sum is the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Terms {
    /// Round trips on the path.
    pub path_us: u64,
    /// Waiting for a free slot.
    pub queue_us: u64,
    /// The work itself.
    pub service_us: u64,
    /// Probability of failing times what a failure costs.
    pub failing_us: u64,
    /// The price, as time.
    pub price_us: u64,
    /// What somebody outside makes of it, as time.
    pub weight_us: u64,
    /// Leaving the orchestrator a session runs on.
    pub switch_us: u64,
}

impl Terms {
    /// Returns the cost.
    pub fn total(&self) -> Micros {
        let parts = [self.path_us, self.queue_us, self.service_us, self.failing_us];
        Micros(parts.into_iter().fold(0, u64::saturating_add))
            + Micros(self.price_us)
            + Micros(self.weight_us)
            + Micros(self.switch_us)
    }
}

impl Inputs {
    /// Returns the others' sessions expected now, in thousandths.
    ///
    /// What was told is forgotten at the rate sessions end, and what has arrived since is
    /// added: `n·e^(-age/S) + rate·S·(1 - e^(-age/S))`. A raw count 5 s old at 85 % load is
    /// worse than no count at all.
    pub fn others_now_milli(&self) -> u64 {
        if self.others_milli == 0 && self.arrivals_milli == 0 {
            return 0;
        }
        let half_ms = (u64::from(self.holding_us) * LN_2_PER_MILLION / 1_000_000_000).max(1);
        let decay = Decay::after(u64::from(self.load_age_ms), half_ms);
        let (kept, share_kept) = (decay.of(self.others_milli.into()), decay.of(1_000_000));
        let steady = u64::from(self.arrivals_milli) * u64::from(self.holding_us) / 1_000_000;
        kept + steady * (1_000_000 - share_kept) / 1_000_000
    }

    /// Returns everything in flight there now, in thousandths. What peers claim is among what
    /// others use, so the greater of the two counts.
    pub fn load_milli(&self) -> u64 {
        let others = self.others_now_milli().max(u64::from(self.claimed_milli));
        others + u64::from(self.in_flight) * 1000 + u64::from(self.promised_milli)
    }

    /// Returns the free slots, in thousandths.
    pub fn free_milli(&self) -> u64 {
        u64::from(self.capacity_milli).saturating_sub(self.load_milli())
    }

    /// Returns the share of capacity in use, in thousandths; above 1,000 there is a queue.
    pub fn utilisation_permille(&self) -> u64 {
        self.load_milli() * 1000 / u64::from(self.capacity_milli.max(1))
    }

    /// Returns the probability of failing.
    ///
    /// The mean of a Beta posterior whose prior weighs ten events at the fleet's own rate;
    /// counts are forgotten with a half-life of 30 s.
    pub fn failing(&self) -> Ppm {
        let decay = Decay::after(u64::from(self.outcome_age_ms), OUTCOME_HALF_LIFE_MS);
        let (bad, good) =
            (decay.of(self.failures_milli.into()), decay.of(self.successes_milli.into()));
        let prior = u64::from(self.fleet.0) * PRIOR_EVENTS;
        Ppm(((prior + bad * 1000) * 1000 / (PRIOR_EVENTS * 1000 + bad + good)) as u32)
    }

    /// Returns the expected time to completion, were it not to fail.
    pub fn expected(&self) -> Micros {
        self.expected_under(self.load_milli())
    }

    /// Returns [`Inputs::expected`]; `load_milli` is [`Inputs::load_milli`], which is dear
    /// enough to be worked out once.
    pub(crate) fn expected_under(&self, load_milli: u64) -> Micros {
        let (path, queue, service) = self.times(load_milli);
        Micros(path) + Micros(queue) + Micros(service)
    }

    /// Returns the total of [`Inputs::terms`]; `expected` is [`Inputs::expected`].
    #[inline]
    pub(crate) fn cost(&self, expected: Micros, alternative: Micros) -> Micros {
        let certain = [self.price_us, self.weight_us, self.switch_us].map(u64::from);
        expected + self.failing_costs(alternative) + Micros(certain.iter().sum())
    }

    fn failing_costs(&self, alternative: Micros) -> Micros {
        (alternative + self.loss()).times_ppm(self.failing())
    }

    /// Returns the parts of the cost; `alternative` is the expected time of the best other
    /// candidate, which a failure would have to turn to.
    ///
    /// `(1-p)·T + p·(T + alternative + loss)`: the time to notice a failure is taken as the
    /// time the answer would have needed.
    pub fn terms(&self, alternative: Micros) -> Terms {
        let (path_us, queue_us, service_us) = self.times(self.load_milli());
        Terms {
            path_us,
            queue_us,
            service_us,
            failing_us: self.failing_costs(alternative).0,
            price_us: u64::from(self.price_us),
            weight_us: u64::from(self.weight_us),
            switch_us: u64::from(self.switch_us),
        }
    }

    /// Returns what failing costs besides the time of trying again. It is twice as much
    /// for each who was tried in vain: the fewer attempts are left, the more certain the next
    /// is to be, and whoever is idle because it fails is no way out.
    fn loss(&self) -> Micros {
        Micros(LOSS_BY_FAILURE.0 << self.tried.min(TRIED_MAX))
    }

    /// Returns how much is to be free there for nobody to wait: a place, and two more for
    /// each who was tried in vain. They were believed to have room too, so what is believed
    /// is behind the times, and the next attempt goes where there is some to spare.
    fn wanted_milli(&self) -> u64 {
        1000 + u64::from(self.tried) * SPARE_MILLI
    }

    /// Returns what no total of [`Self::terms`] is below: all but waiting and failing, which
    /// take most of the arithmetic.
    pub(crate) fn at_least(&self) -> Micros {
        let path = u64::from(self.rtt_us) * u64::from(self.round_trips);
        let rest = [self.service_us, self.price_us, self.weight_us, self.switch_us];
        Micros(path + rest.into_iter().map(u64::from).sum::<u64>())
    }

    fn times(&self, load_milli: u64) -> (u64, u64, u64) {
        let path = u64::from(self.rtt_us) * u64::from(self.round_trips);
        let service = u64::from(self.service_us);
        let capacity = u64::from(self.capacity_milli.max(1));
        let over = (load_milli + self.wanted_milli()).saturating_sub(capacity);
        let queue = match over {
            0 => 0,
            over => {
                let wait = u64::from(self.holding_us).saturating_mul(over) / capacity;
                wait.saturating_mul(1 + u64::from(self.tried))
            }
        };
        (path, queue, service)
    }
}

/// What a failed attempt costs beyond the time of trying again: the client's patience.
pub const LOSS_BY_FAILURE: Micros = Micros::from_ms(2_000);
/// Half of what was seen of outcomes is forgotten in this time.
pub const OUTCOME_HALF_LIFE_MS: u64 = 30_000;
/// More attempts in vain do not raise the stakes further.
const TRIED_MAX: u8 = 3;
/// What is to be free besides, by those tried in vain before.
const SPARE_MILLI: u64 = 2_000;
/// Weight of the prior, in events.
const PRIOR_EVENTS: u64 = 10;
/// The fleet's failure rate counts as at most 0.5 %: a bad day of many must not make an
/// idle near orchestrator lose to a busy one 10 ms farther.
pub const FLEET_FAILING_MAX: Ppm = Ppm(5_000);
/// ln 2, in millionths: turns a mean life into a half-life.
const LN_2_PER_MILLION: u64 = 693_147;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn idle(rtt_us: u32) -> Inputs {
        Inputs {
            rtt_us,
            evidence: Evidence::Own,
            evidence_age_ms: 0,
            round_trips: 1,
            service_us: 100_000,
            holding_us: 100_000,
            in_flight: 0,
            promised_milli: 0,
            claimed_milli: 0,
            others_milli: 0,
            arrivals_milli: 0,
            load_age_ms: 0,
            capacity_milli: 4_000,
            tried: 0,
            failures_milli: 0,
            successes_milli: 0,
            outcome_age_ms: 0,
            fleet: FLEET_FAILING_MAX,
            price_us: 0,
            weight_us: 0,
            switch_us: 0,
        }
    }

    fn cost(inputs: &Inputs) -> Micros {
        inputs.terms(Micros::from_ms(150)).total()
    }

    #[test]
    fn an_idle_near_candidate_beats_a_proven_one_ten_milliseconds_farther() {
        let near = Inputs { successes_milli: 2_000, ..idle(20_000) };
        let far = Inputs { successes_milli: 500_000, in_flight: 2, ..idle(30_100) };
        assert!(cost(&near) < cost(&far));
    }

    #[test]
    fn a_queue_costs_what_waiting_takes_and_a_free_slot_nothing() {
        let full = Inputs { in_flight: 4, ..idle(20_000) };
        assert_eq!(full.terms(Micros::ZERO).queue_us, 25_000);
        assert_eq!(Inputs { in_flight: 3, ..full }.terms(Micros::ZERO).queue_us, 0);
    }

    #[test]
    fn the_next_attempt_goes_where_there_is_room_to_spare_and_no_risk() {
        let again = |inputs: Inputs| Inputs { tried: 2, ..inputs };
        let (near, roomy) = (Inputs { in_flight: 2, ..idle(20_000) }, idle(120_000));
        let roomy = Inputs { capacity_milli: 8_000, ..roomy };
        assert!(cost(&near) < cost(&roomy) && cost(&again(near)) > cost(&again(roomy)));
        let shaky = Inputs { failures_milli: 300, successes_milli: 5_000, ..idle(20_000) };
        let proven = Inputs { successes_milli: 50_000, ..idle(120_000) };
        assert!(cost(&shaky) < cost(&proven) && cost(&again(shaky)) > cost(&again(proven)));
    }

    #[test]
    fn told_load_is_corrected_for_its_age() {
        let told = Inputs { others_milli: 4_000, load_age_ms: 5_000, ..idle(1) };
        assert_eq!(told.others_now_milli(), 0);
        let busy = Inputs { arrivals_milli: 30_000, ..told };
        assert_eq!(busy.others_now_milli(), 3_000);
    }

    #[test]
    fn a_failure_never_lowers_a_cost() {
        let well = Inputs { successes_milli: 10_000, ..idle(20_000) };
        let costs: Vec<Micros> = (0..50)
            .map(|failures| cost(&Inputs { failures_milli: failures * 1_000, ..well }))
            .collect();
        assert!(costs.is_sorted());
        assert!(costs[5] > costs[0] + Micros::from_ms(300));
    }

    #[test]
    fn nothing_overflows() {
        let worst = Inputs {
            rtt_us: u32::MAX,
            round_trips: u8::MAX,
            service_us: u32::MAX,
            holding_us: u32::MAX,
            in_flight: u32::MAX,
            promised_milli: u32::MAX,
            tried: u8::MAX,
            others_milli: u32::MAX,
            arrivals_milli: u32::MAX,
            load_age_ms: u32::MAX,
            capacity_milli: 0,
            failures_milli: u32::MAX,
            successes_milli: u32::MAX,
            fleet: Ppm::ALL,
            price_us: u32::MAX,
            weight_us: u32::MAX,
            switch_us: u32::MAX,
            ..idle(0)
        };
        assert!(worst.failing() <= Ppm::ALL);
        assert!(worst.terms(Micros(u64::MAX)).total() <= Micros(u64::MAX));
    }
}
