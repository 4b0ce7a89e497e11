//! The steering report on the data that ship with the tree: see `tests/data/steering`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use portolan::geo::Confidence;
use portolan::geoip::GeoIp;
use portolan::policy::PathKind;

#[path = "../steering/draws.rs"]
mod draws;
#[path = "../steering/fleet.rs"]
mod fleet;
#[path = "../steering/location.rs"]
mod location;
#[path = "../steering/replay.rs"]
mod replay;
#[path = "../steering/report.rs"]
mod report;
#[path = "../steering/world.rs"]
mod world;

use location::Location;
use world::World;

const SEEDS: u64 = 8;

fn lines(location: Location) -> (World, Vec<report::Line>) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/steering");
    let world = World::read(&data).unwrap();
    assert!(!world.is_leaderboard && world.sites.len() == 15 && world.clients.len() == 14);
    let lines = report::lines(&world, &[location], SEEDS).unwrap();
    (world, lines)
}

/// The mean and the 95th percentile of a policy on the direct path, in hundredths of a ms.
fn regret(lines: &[report::Line], policy: &str, candidates: usize) -> (u64, u64) {
    let mut direct = lines.iter().filter(|it| it.path == PathKind::Direct);
    let line = direct.find(|it| it.policy == policy && it.candidates == candidates).unwrap();
    assert_eq!((line.clients, line.seeds), (14, SEEDS));
    let whole = |ms: f64| (ms * 100.0).round() as u64;
    assert!(line.p95_ms <= line.p99_ms);
    (whole(line.mean_ms), whole(line.p95_ms))
}

#[track_caller]
fn check_better_than_nearest(location: Location) {
    let (_, lines) = lines(location);
    let nearest = regret(&lines, "nearest", 0);
    for candidates in [3, 5] {
        let (mean, p95) = regret(&lines, "portolan", candidates);
        assert!(mean < nearest.0 && p95 < nearest.1, "{candidates}: {mean} {p95} {nearest:?}");
    }
}

#[test]
fn steering_on_exact_places_meets_its_targets() {
    let (world, lines) = lines(Location::exact());
    assert_eq!(report::missed(&world, &lines), [""; 0]);
}

#[test]
fn three_measurements_beat_the_nearest_however_clients_are_located() {
    check_better_than_nearest(Location::exact());
    check_better_than_nearest(Location::documented_city());
    let truth = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo/aws-mlab.csv");
    let database = GeoIp::embedded().unwrap();
    let country = Location::measured("country", Confidence::Country, &database, &truth);
    check_better_than_nearest(country.unwrap());
}

#[test]
fn a_node_nobody_tells_anything_is_as_good_as_the_nearest() {
    let (_, lines) = lines(Location::exact());
    assert_eq!(regret(&lines, "portolan-alone", 0), regret(&lines, "nearest", 0));
}

/// The same seeds give the same report.
#[test]
fn a_replay_repeats_itself() {
    let text = || serde_json::to_string(&lines(Location::documented_city()).1).unwrap();
    assert_eq!(text(), text());
}
