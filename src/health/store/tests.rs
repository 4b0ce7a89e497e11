use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::health::Observation;
use crate::unit::Micros;

fn params() -> Params {
    Params {
        ttl: Duration::from_secs(90),
        refresh: Duration::from_secs(30),
        max_records: 3,
        max_origins: 2,
        max_version_jump: 1000,
        max_epoch_jump: 1000,
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn seen(version: u64, orchestrator: u64) -> Versioned {
    let observation = Observation {
        orchestrator: OrchestratorId(orchestrator),
        rtt: Some(Micros(version)),
        failures_milli: 0,
        successes_milli: 0,
        in_flight: 0,
        arrivals_milli: 0,
        service: None,
        capacity_milli: None,
    };
    Versioned { version, age: Duration::ZERO, observation }
}

fn aged(version: u64, orchestrator: u64, secs: u64) -> Versioned {
    Versioned { age: Duration::from_secs(secs), ..seen(version, orchestrator) }
}

#[test]
fn an_older_epoch_or_version_is_ignored_and_counted() {
    let (now, a) = (clock::now(), node("a"));
    let mut store = MemoryStore::new(params());
    assert_eq!(store.apply(now, a, 5, &[seen(7, 1)]).changed, [OrchestratorId(1)]);
    for (epoch, version) in [(5, 7), (5, 6), (4, 900)] {
        let applied = store.apply(now, a, epoch, &[seen(version, 1)]);
        assert_eq!(applied, Applied { n_older: 1, ..Applied::default() });
    }
    let sighting = store.observations(now, OrchestratorId(1))[0];
    assert_eq!(sighting.observation.rtt, Some(Micros(7)));
}

#[test]
fn a_restart_forgets_what_the_earlier_life_said() {
    let (now, a) = (clock::now(), node("a"));
    let mut store = MemoryStore::new(params());
    store.apply(now, a, 5, &[seen(7, 1), seen(8, 2)]);
    let applied = store.apply(now, a, 6, &[seen(1, 2)]);
    assert_eq!(applied.changed, [OrchestratorId(1), OrchestratorId(2)]);
    assert!(store.observations(now, OrchestratorId(1)).is_empty());
    assert_eq!(store.n_records(a), 1);
}

#[test]
fn every_bound_refuses_and_counts() {
    let (now, a) = (clock::now(), node("a"));
    let mut store = MemoryStore::new(params());
    let full = [seen(1, 1), seen(2, 2), seen(3, 3), seen(4, 4)];
    assert_eq!(store.apply(now, a, 5, &full).n_refused, 1);
    assert_eq!(store.n_records(a), 3);
    assert_eq!(store.apply(now, a, 5, &[seen(1004, 1)]).n_refused, 1);
    assert_eq!(store.apply(now, a, 5, &[seen(1003, 1)]).n_refused, 0);
    assert_eq!(store.apply(now, a, 1006, &[seen(1, 1)]).n_refused, 1);
    store.apply(now, node("b"), 1, &[seen(1, 1)]);
    assert_eq!(store.apply(now, node("c"), 1, &[seen(1, 1)]).n_refused, 1);
}

#[test]
fn a_record_decays_to_unknown_by_its_whole_age() {
    let (now, a) = (clock::now(), node("a"));
    let mut store = MemoryStore::new(params());
    store.apply(now, a, 1, &[aged(1, 1, 60), seen(2, 2)]);
    let later = now + Duration::from_secs(29);
    assert_eq!(store.expire(later), []);
    assert_eq!(store.observations(later, OrchestratorId(1))[0].age, Duration::from_secs(89));
    let later = now + Duration::from_secs(30);
    assert_eq!(store.next_expiry(), Some(later));
    assert_eq!(store.expire(later), [OrchestratorId(1)]);
    assert_eq!(store.expire(now + Duration::from_secs(90)), [OrchestratorId(2)]);
    // With the last record goes the epoch: a clock set back is a loss of one time to live.
    assert_eq!(store.apply(now, a, 0, &[seen(1, 1)]).changed, [OrchestratorId(1)]);
}

#[test]
fn a_record_past_its_life_on_arrival_replaces_the_older_by_nothing() {
    let (now, a) = (clock::now(), node("a"));
    let mut store = MemoryStore::new(params());
    store.apply(now, a, 1, &[seen(1, 1)]);
    let applied = store.apply(now, a, 1, &[aged(2, 1, 90)]);
    assert_eq!((applied.n_expired, applied.changed), (1, vec![OrchestratorId(1)]));
    assert_eq!((store.n_records(a), store.next_expiry()), (0, None));
}

/// One writer's life: per epoch, the orchestrators it saw in order of version.
fn lives() -> impl Strategy<Value = Vec<Vec<u64>>> {
    prop::collection::vec(prop::collection::vec(0u64..3, 1..12), 1..4)
}

proptest! {
    #[test]
    fn any_order_with_copies_and_losses_converges_to_each_writers_latest(
        writers in prop::collection::vec(lives(), 2),
        picks in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..200),
    ) {
        let now = clock::now();
        let mut store = MemoryStore::new(params());
        let mut sent = Vec::new();
        for (writer, epochs) in writers.iter().enumerate() {
            for (epoch, seen_by_version) in epochs.iter().enumerate() {
                for (version, &orchestrator) in seen_by_version.iter().enumerate() {
                    let record = seen(version as u64 + 1, orchestrator);
                    sent.push((node(&format!("n{writer}")), epoch as u64, record));
                }
            }
        }
        // Copies, losses and disorder first; the model keeps what did arrive.
        let mut order: Vec<_> = picks.iter().map(|(it, _)| it.get(&sent)).copied().collect();
        for (_, at) in &picks {
            let at = at.index(order.len());
            order.swap(0, at);
        }
        let mut model: BTreeMap<NodeId, (u64, BTreeMap<u64, u64>)> = BTreeMap::new();
        for (origin, epoch, record) in order {
            store.apply(now, origin, epoch, &[record]);
            let (known, latest) = model.entry(origin).or_default();
            if epoch > *known {
                (*known, *latest) = (epoch, BTreeMap::new());
            }
            if epoch == *known {
                let held = latest.entry(record.observation.orchestrator.0).or_default();
                *held = record.version.max(*held);
            }
        }
        for orchestrator in 0..3 {
            let found: Vec<_> = store
                .observations(now, OrchestratorId(orchestrator))
                .iter()
                .map(|it| (it.node, it.observation.rtt))
                .collect();
            let expected: Vec<_> = model
                .iter()
                .filter_map(|(node, (_, latest))| Some((*node, latest.get(&orchestrator)?)))
                .map(|(node, &version)| (node, Some(Micros(version))))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
