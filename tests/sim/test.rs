//! The simulation as a test: a few seeds of every story, in short, and what must hold in each.
//! `SIM_SEED` names the first seed and `SIM_SEEDS` how many; a failure names its own.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod algorithm;
mod baseline;
mod draws;
mod gateway;
mod mesh;
mod node;
#[expect(dead_code, reason = "shared with the report, which prints more of it")]
mod report;
mod run;
mod scenario;
mod server;
mod sharing;
mod stats;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use algorithm::{Algorithm, Answered, End};
use gateway::Gateway;
use node::Node;
use run::{Outcome, Run};
use scenario::{FLAP, Scenario};
use stats::Figures;
use world::{Request, World};

/// Calls `check` with every seed asked for and says how to repeat the one that fails.
fn for_seeds(check: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let first = number("SIM_SEED").unwrap_or(1);
    for seed in first..first + number("SIM_SEEDS").unwrap_or(2) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            eprintln!("to repeat: SIM_SEED={seed} SIM_SEEDS=1 cargo test --test sim");
            resume_unwind(panic);
        }
    }
}

fn story(name: &str) -> Scenario {
    let named = Scenario::all().into_iter().find(|it| it.name == name);
    named.unwrap().shortened(LENGTH)
}

#[test]
fn the_same_seed_gives_the_same_result() {
    for_seeds(|seed| {
        for scenario in [story("flapping"), story("herd of 1,000")] {
            let scenario = scenario.shortened(LENGTH / 2);
            let play = || {
                let world = World::new(&scenario, seed);
                Run::play(&world, &scenario, Algorithm::Portolan)
            };
            assert!(play() == play(), "{}", scenario.name);
        }
    });
}

/// Every request that counts ends once, nobody is tried twice for it, and Portolan is not
/// beaten by anybody: not in the mean, where who failed counts as having waited in vain, and
/// by no more than chance in failures.
#[track_caller]
fn better_than_every_other(name: &str) {
    let scenario = story(name);
    for_seeds(|seed| {
        let world = World::new(&scenario, seed);
        let play = |algorithm| {
            let outcome = Run::play(&world, &scenario, algorithm);
            hold_invariants(&world, &scenario, &outcome);
            outcome.figures
        };
        let own = play(Algorithm::Portolan);
        for other in Algorithm::ALL.into_iter().skip(1) {
            let (other, figures) = (other.name(), play(other));
            let what = format!("{name}, {other}: {figures:?}, portolan: {own:?}");
            assert!(waited_ms(&own) < waited_ms(&figures), "{what}");
            assert!(own.failed <= figures.failed + FAILED_BY_CHANCE, "{what}");
        }
    });
}

/// Who turns away the slowest has it easy with the rest: the mean of those served alone would
/// be in its favour.
fn waited_ms(figures: &Figures) -> f64 {
    let failed = figures.failed / 100.0;
    figures.mean_ms * (1.0 - failed) + IN_VAIN_MS * failed
}

#[test]
fn better_at_low_load() {
    better_than_every_other("load 30 %");
}

#[test]
fn better_at_high_load_with_old_news() {
    better_than_every_other("load 85 %, news 5 s old");
}

#[test]
fn better_with_one_that_never_answers() {
    better_than_every_other("black hole, silent");
}

#[test]
fn better_with_one_that_fails_at_once() {
    better_than_every_other("black hole, failing");
}

#[test]
fn better_with_a_region_at_a_quarter() {
    better_than_every_other("region at a quarter");
}

#[test]
fn better_with_one_flapping() {
    better_than_every_other("flapping");
}

#[test]
fn better_with_a_herd() {
    better_than_every_other("herd of 1,000");
}

#[test]
fn better_with_a_link_cut() {
    better_than_every_other("link cut");
}

#[track_caller]
fn hold_invariants(world: &World, scenario: &Scenario, outcome: &Outcome) {
    let from = scenario.counts_from().as_micros() as u64;
    let counting = world.requests.iter().filter(|it| it.at >= from).count();
    assert_eq!(outcome.counted, counting, "every request ends once");
    let mut tried: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    for it in &outcome.moves {
        let of_request = tried.entry(it.request).or_default();
        assert!(of_request.insert(it.server), "nobody is tried twice for one request");
        let direct = world.requests[it.request as usize].direct.is_some();
        assert!(direct || of_request.len() <= 4, "four attempts at most");
    }
}

#[test]
fn an_idle_near_orchestrator_beats_a_busy_one_ten_milliseconds_farther() {
    let mut world = World::new(&story("load 30 %"), 1);
    world.servers.truncate(2);
    world.servers.iter_mut().for_each(|it| it.slots = 8);
    let mut node = Node::new(&world, 0);
    let (near, far) = ((20_000, 0), (30_000, 3));
    for second in 0..20 {
        let now = second * 1_000_000;
        node.checked(now, 0, Some(near));
        node.checked(now, 1, Some(far));
        // The far one has served all there was, and is at work.
        for _ in 0..20 {
            assert!(node.begin(now, 1));
            let (end, took) = (End::Served, 430_000);
            node.end(now, 1, Answered { end, took, waited: took });
        }
        node.tick(now);
        node.tick(now + 100_000);
    }
    (0..3).for_each(|_| assert!(node.begin(20_000_000, 1)));
    for number in 0..500 {
        assert_eq!(node.choose(20_200_000, &[], draws::word(&[number])), Some(0));
    }
}

#[test]
fn a_full_home_region_spills_no_more_than_it_must() {
    for_seeds(|seed| {
        let scenario = story("load 30 %");
        let mut world = World::new(&scenario, seed);
        let home = |server: u16| world.servers[usize::from(server)].part == 0;
        let share = |outcome: &Outcome| {
            let at_home = outcome.moves.iter().filter(|it| home(it.server)).count();
            at_home as f64 / outcome.moves.len() as f64
        };
        let all: Vec<Request> = world.requests.clone();
        let capacity: f64 =
            world.servers.iter().filter(|it| it.part == 0).map(|it| it.slots as f64).sum();
        // As many a second as the region can do, and a third more.
        let asked = capacity * 4.0 / 3.0 / 0.4 * LENGTH.as_secs_f64();
        let factor = (asked / all.len() as f64).min(1.0);
        let kept = |it: &(usize, Request)| draws::unit(draws::word(&[seed, it.0 as u64])) < factor;
        let at_home = |(_, it): (usize, Request)| Request { gateway: 0, ..it };
        world.requests = all.into_iter().enumerate().filter(kept).map(at_home).collect();
        let outcome = Run::play(&world, &scenario, Algorithm::Portolan);
        assert!(outcome.figures.failed < 1.0, "{:?}", outcome.figures);
        let share = share(&outcome);
        assert!((0.5..0.98).contains(&share), "{share:.2} of all attempts were made at home");
    });
}

/// Each time it goes down, a gateway finds out by itself or is told; each time it comes up
/// again it is tried with care.
#[test]
fn flapping_costs_few_attempts_in_vain() {
    for_seeds(|seed| {
        let scenario = story("flapping").shortened(LENGTH * 2);
        let world = World::new(&scenario, seed);
        let changes = scenario.changes(&world);
        let outcome = Run::play(&world, &scenario, Algorithm::Portolan);
        for (at, change) in changes {
            let scenario::Change::Turn(server, server::State::Down) = change else { continue };
            let down = at.as_micros() as u64..(at + FLAP).as_micros() as u64;
            let vain = outcome
                .moves
                .iter()
                .filter(|it| usize::from(it.server) == server && down.contains(&it.at));
            let vain = vain.count();
            assert!(vain <= IN_VAIN_MAX, "{vain} attempts while it was down from {at:?}");
        }
    });
}

/// A story in short.
const LENGTH: Duration = Duration::from_secs(16);
/// As long as an answer may take.
const IN_VAIN_MS: f64 = 4_000.0;
/// Of a few thousand requests one or two fail by chance, in percent.
const FAILED_BY_CHANCE: f64 = 0.2;
/// Attempts of five gateways together at one that is down, each time it goes down.
const IN_VAIN_MAX: usize = 40;
