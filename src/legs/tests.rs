use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::clock;

fn group(number: u32) -> Prefix {
    Prefix::of(IpAddr::V4(Ipv4Addr::from_bits(number << 8)))
}

fn node() -> Target {
    Target::Node("sin-1".parse().unwrap())
}

fn report(legs: &mut Legs, client: u64, ms: u64) -> Result<(), Refused> {
    let seen = (node(), Micros::from_ms(ms));
    legs.handle_report(clock::now(), group(1), client, seen, Micros::from_ms(5))
}

#[test]
fn three_clients_are_believed_and_two_are_not() {
    let mut legs = Legs::default();
    report(&mut legs, 1, 30).unwrap();
    report(&mut legs, 2, 32).unwrap();
    assert_eq!(legs.learned(clock::now(), group(1)).of(node()), None);
    report(&mut legs, 3, 900).unwrap();
    let learned = legs.learned(clock::now(), group(1));
    assert_eq!(learned.of(node()), Some(Micros::from_ms(32)));
    assert_eq!(legs.learned(clock::now(), group(2)), Learned::default());
}

#[test]
fn a_measurement_of_our_own_is_believed_at_once() {
    let mut legs = Legs::default();
    legs.handle_own(clock::now(), group(1), 1, Micros::from_ms(12));
    legs.handle_own(clock::now(), group(1), 1, Micros::ZERO);
    assert_eq!(legs.learned(clock::now(), group(1)).own, Some(Micros::from_ms(12)));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut legs = Legs::default();
    assert_eq!(report(&mut legs, 1, 0), Err(Refused::Implausible));
    assert_eq!(report(&mut legs, 1, MAX_MS + 1), Err(Refused::Implausible));
    assert_eq!(report(&mut legs, 1, 4), Err(Refused::TooFast));
    assert!(legs.is_empty());
}

#[test]
fn a_group_has_so_many_reports_a_minute_and_so_many_ways() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let way = |at: u64| (Target::Orchestrator(OrchestratorId(at)), Micros::from_ms(9));
    let mut take = |now, at| legs.handle_report(now, group(1), 1, way(at), Micros::ZERO);
    for at in 0..TARGETS_MAX as u64 {
        take(now, at).unwrap();
    }
    assert_eq!(take(now, 99), Err(Refused::TooManyTargets));
    while take(now, 0).is_ok() {}
    assert_eq!(take(now, 0), Err(Refused::TooMany));
    assert_eq!(take(now + MINUTE, 0), Ok(()));
}

#[test]
fn the_table_forgets_whom_it_did_not_see_for_long() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let own = |legs: &mut Legs, at| legs.handle_own(now, group(at), 1, Micros::from_ms(9));
    own(&mut legs, 0);
    for at in 1..=ROWS_MAX as u32 {
        own(&mut legs, at);
        if at % 1000 == 0 {
            own(&mut legs, 1);
        }
        assert!(legs.len() <= ROWS_MAX);
    }
    assert!(legs.learned(now, group(1)).own.is_some(), "seen all the time");
    assert!(legs.learned(now, group(0)).own.is_none());
}

#[test]
fn the_table_has_so_many_ways_however_they_come() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let groups = || (0..ROWS_MAX as u32 / 4).map(group);
    let n_ways = |half: &HashMap<Prefix, Row>| -> usize {
        groups().filter_map(|it| half.get(&it)).map(|it| it.reported.len()).sum()
    };
    // Few ways of each at first; then all of them grow.
    let mut most = 0;
    for to in 0..TARGETS_MAX as u64 {
        let seen = (Target::Orchestrator(OrchestratorId(to)), Micros::from_ms(9));
        for group in groups() {
            legs.handle_report(now, group, 1, seen, Micros::ZERO).unwrap();
        }
        assert_eq!(legs.n_ways, n_ways(&legs.young));
        most = most.max(legs.n_ways + n_ways(&legs.old));
    }
    assert!(most > WAYS_MAX / 2 && most <= WAYS_MAX, "{most}");
}

fn way(number: u32, to: Target, ms: u64) -> Way {
    Way { group: group(number), to, rtt: Micros::from_ms(ms) }
}

#[test]
fn what_peers_tell_comes_after_what_clients_told_here() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let [a, b]: [NodeId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
    assert!(!legs.handle_told(now, a, &way(1, node(), 4), Micros::from_ms(5)), "too fast");
    assert!(!legs.handle_told(now, a, &way(1, node(), MAX_MS + 1), Micros::ZERO));
    assert!(legs.is_empty());
    for (by, ms) in [(a, 70), (a, 80), (b, 90)] {
        assert!(legs.handle_told(now, by, &way(1, node(), ms), Micros::ZERO));
    }
    let learned = legs.learned(now, group(1));
    assert_eq!((learned.of(node()), learned.told_of(node())), (None, Some(Micros::from_ms(80))));
    for client in 0..3 {
        report(&mut legs, client, 30).unwrap();
    }
    let learned = legs.learned(now, group(1));
    assert_eq!(learned.others().collect::<Vec<_>>(), [(node(), Micros::from_ms(30))]);
    let sin_1 = "sin-1".parse().unwrap();
    assert_eq!(learned.best(sin_1, a), Some((Micros::from_ms(30), Evidence::Cell)));
    let told = Learned { reported: Vec::new(), ..learned.clone() };
    assert_eq!(told.best(sin_1, a), Some((Micros::from_ms(80), Evidence::Peer)));
    let own = Learned { own: Some(Micros::from_ms(9)), ..learned };
    assert_eq!(own.best(sin_1, sin_1), Some((Micros::from_ms(9), Evidence::Own)));
    assert_eq!(own.best(a, sin_1), None);
    let later = now + KEPT_FOR + MINUTE;
    assert_eq!(legs.learned(later, group(1)), Learned::default());
}

#[test]
fn peers_are_told_what_three_clients_agree_on_once_a_minute() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let here: NodeId = "fra-1".parse().unwrap();
    let own = |legs: &mut Legs, now, client| {
        legs.handle_own(now, group(1), client, Micros::from_ms(9));
    };
    own(&mut legs, now, 1);
    assert_eq!(legs.take_fresh(now, 9), [], "one client is no group");
    (2..=3).for_each(|client| own(&mut legs, now, client));
    assert_eq!(legs.take_fresh(now, 9), [], "not again within a minute");
    let later = now + told::AGAIN;
    own(&mut legs, later, 1);
    let news = legs.take_fresh(later, 9);
    let ways: Vec<Way> = news.iter().flat_map(|it| it.ways(here)).collect();
    assert_eq!(ways, [way(1, Target::Node(here), 9)]);
    assert_eq!(legs.take_fresh(later, 9), []);
}

#[test]
fn what_peers_tell_is_bounded_and_pushes_out_nobody_elses_word() {
    let (mut legs, now) = (Legs::default(), clock::now());
    let [by, liar]: [NodeId; 2] = ["a".parse().unwrap(), "liar".parse().unwrap()];
    let to = |n| Target::Orchestrator(OrchestratorId(n));
    legs.handle_told(now, by, &way(1, to(7), 9), Micros::ZERO);
    let taken = (0..100_000)
        .filter(|n| legs.handle_told(now, liar, &way(1, to(100 + n % 1000), 1), Micros::ZERO));
    assert_eq!(taken.count(), told::TOLD_A_MINUTE as usize);
    let told = legs.learned(now, group(1)).told;
    assert_eq!(told.len(), 1 + told::TOLD_BY_ONE);
    assert_eq!(told[0], (to(7), Micros::from_ms(9)));
    for minute in 1..=20_u32 {
        for n in 0..told::TOLD_A_MINUTE {
            let number = minute * told::TOLD_A_MINUTE + n;
            let later = now + told::AGAIN * minute;
            assert!(legs.handle_told(later, liar, &way(number, to(1), 9), Micros::ZERO));
        }
    }
    assert!(legs.is_empty(), "none of it takes a row from what clients told here");
    for at in 0..2 * told::FRESH_MAX as u32 {
        legs.handle_own(now, group(at), 1, Micros::from_ms(9));
    }
    assert_eq!(legs.fresh.len(), told::FRESH_MAX);
    assert_eq!(legs.take_fresh(now, 7), []);
    assert_eq!(legs.fresh.len(), told::FRESH_MAX - 7);
}

proptest! {
    #[test]
    fn two_liars_among_five_change_nothing_much(lies in proptest::array::uniform2(1_u64..9_000)) {
        let mut legs = Legs::default();
        for (client, ms) in [30, 31, 32].into_iter().enumerate() {
            report(&mut legs, client as u64, ms).unwrap();
        }
        for (client, ms) in lies.into_iter().enumerate() {
            let taken = report(&mut legs, 10 + client as u64, ms);
            prop_assert_eq!(taken.is_ok(), ms >= 5);
        }
        let learned = legs.learned(clock::now(), group(1)).of(node()).unwrap();
        prop_assert!((Micros::from_ms(30)..=Micros::from_ms(32)).contains(&learned));
    }
}
