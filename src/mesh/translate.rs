//! Between the records of the wire and those of the domain.

use std::time::Duration;

use super::Fault;
use crate::health::Observation;
use crate::health::Versioned;
use crate::id::OrchestratorId;
use crate::unit::Micros;
use crate::wire::v1::DeltaV1;
use crate::wire::v1::RecordV1;

/// Returns `records`, by rising version, as a delta of `epoch`. The last ones are left out when
/// their versions are more than a `u32` from the first, for the next delta to start with.
pub(super) fn delta_of(epoch: u64, records: &[Versioned]) -> DeltaV1 {
    let first_version = records.first().map_or(0, |it| it.version);
    let record = |it: &Versioned| {
        let seen = it.observation;
        Some(RecordV1 {
            after_first: u32::try_from(it.version - first_version).ok()?,
            age_ms: u32::try_from(it.age.as_millis()).unwrap_or(u32::MAX),
            orchestrator: seen.orchestrator.0,
            rtt_us: seen.rtt.map(|it| it.0),
            failures_milli: seen.failures_milli,
            successes_milli: seen.successes_milli,
            in_flight: seen.in_flight,
            arrivals_milli: seen.arrivals_milli,
            service_us: seen.service.map(|it| it.0),
            capacity_milli: seen.capacity_milli,
        })
    };
    DeltaV1 { epoch, first_version, records: records.iter().map_while(record).collect() }
}

/// Reads the records of a delta; one bad record condemns them all.
pub(super) fn records_of(delta: &DeltaV1) -> Result<Vec<Versioned>, Fault> {
    let mut records = Vec::with_capacity(delta.records.len());
    let mut before = 0;
    for record in &delta.records {
        let version = delta
            .first_version
            .checked_add(u64::from(record.after_first))
            .filter(|&it| it > before)
            .ok_or(Fault::Versions)?;
        before = version;
        let observation = Observation {
            orchestrator: OrchestratorId(record.orchestrator),
            rtt: record.rtt_us.map(Micros),
            failures_milli: record.failures_milli,
            successes_milli: record.successes_milli,
            in_flight: record.in_flight,
            arrivals_milli: record.arrivals_milli,
            service: record.service_us.map(Micros),
            capacity_milli: record.capacity_milli,
        };
        if !observation.is_plausible() {
            return Err(Fault::Value);
        }
        let age = Duration::from_millis(u64::from(record.age_ms));
        records.push(Versioned { version, age, observation });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: u64) -> Versioned {
        let observation = Observation {
            orchestrator: OrchestratorId(version * 7),
            rtt: Some(Micros(1500)),
            failures_milli: 1,
            successes_milli: 2,
            in_flight: 3,
            arrivals_milli: 4,
            service: Some(Micros(5)),
            capacity_milli: Some(6),
        };
        Versioned { version, age: Duration::from_millis(12), observation }
    }

    #[test]
    fn records_survive_the_wire() {
        let records = [seen(4), seen(9), seen(10)];
        assert_eq!(records_of(&delta_of(1, &records)), Ok(records.to_vec()));
    }

    #[test]
    fn versions_too_far_apart_wait_for_the_next_delta() {
        let records = [seen(1), seen(2), seen(2 + (1 << 32))];
        assert_eq!(delta_of(1, &records).records.len(), 2);
    }

    #[test]
    fn one_bad_record_condemns_the_delta() {
        let sound = delta_of(1, &[seen(4), seen(5)]);
        let mut twice = sound.clone();
        twice.records[1].after_first = 0;
        assert_eq!(records_of(&twice), Err(Fault::Versions));
        let mut past = sound.clone();
        past.first_version = u64::MAX;
        assert_eq!(records_of(&past), Err(Fault::Versions));
        let mut odd = sound;
        odd.records[1].rtt_us = Some(0);
        assert_eq!(records_of(&odd), Err(Fault::Value));
    }
}
