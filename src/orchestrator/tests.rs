use super::*;
use crate::clock;
use crate::geo::expected_rtt;
use crate::id::NodeId;
use crate::score::Evidence;
use crate::view;
use crate::view::Capabilities;
use crate::view::outcome::Refused;

fn params() -> Params {
    Params {
        forward: false,
        suspension: suspension::Params {
            consecutive: 5,
            share_permille: 500,
            requests_min: 20,
            checks: 2,
            first: Duration::from_secs(5),
            longest: Duration::from_secs(300),
        },
        slow_start: Duration::from_secs(30),
        weight_wait: Duration::ZERO,
        offers: offer::Params {
            capacity: 8,
            session: Duration::from_secs(60),
            wait_per_cent: Duration::from_millis(200),
            ether_cents: 300_000,
        },
    }
}

fn point(lon: f64) -> Point {
    Point::new(0.0, lon).unwrap()
}

fn fresh() -> (Instant, Orchestrator) {
    let now = clock::now();
    let declared = Declared {
        uri: "https://o:1".parse().unwrap(),
        operator: "o".into(),
        point: Some(point(10.0)),
        region: 0,
        country: None,
        weight_permille: 1000,
    };
    (now, Orchestrator::new(now, params(), declared, point(0.0), Arc::default(), 7))
}

fn advert(json: &str) -> runner::Runner {
    serde_json::from_str(json).unwrap()
}

fn echo(capacity: u32, used: u32) -> runner::Runner {
    advert(&format!(
        r#"{{"url":"https://o:1/apps/echo/session","app":"demo/echo","mode":"persistent",
            "capacity":{capacity},"capacity_used":{used},
            "price_info":{{"price":1000000000000,"currency":"wei","unit":"fixed"}}}}"#
    ))
}

fn answer(rtt_ms: u64, runners: Vec<runner::Runner>) -> Result<Answer, CheckFailure> {
    Ok(Answer { rtt: Some(Micros::from_ms(rtt_ms)), runners: Some(runners), info: None })
}

fn row(it: &mut Orchestrator, now: Instant) -> Row {
    let mut names = Capabilities::default();
    it.row(now, |name| names.intern(name))
}

fn told(node: &str, now: Instant, rtt_ms: u64, failures: u32) -> Told {
    let observation = Observation {
        orchestrator: OrchestratorId(1),
        rtt: Some(Micros::from_ms(rtt_ms)),
        failures_milli: failures * 1000,
        successes_milli: 0,
        in_flight: 2,
        arrivals_milli: 0,
        service: None,
        capacity_milli: None,
    };
    let node: NodeId = node.parse().unwrap();
    Told { node, observation, at: now, peer_rtt: None, peer_point: Some(point(11.0)) }
}

#[test]
fn nothing_is_offered_before_the_first_answer() {
    let (now, mut it) = fresh();
    assert_eq!(
        (row(&mut it, now).standing, row(&mut it, now).offers.len()),
        (Standing::Unknown, 0)
    );
    it.handle_check(now, answer(40, vec![echo(4, 1)]));
    let row = row(&mut it, now);
    assert_eq!((row.standing, row.offers.len()), (Standing::Ready, 1));
    assert_eq!((row.offers[0].capacity_milli, row.offers[0].others_milli), (4_000, 1_000));
    assert_eq!(row.link.evidence, Evidence::Own);
}

#[test]
fn a_price_becomes_the_time_one_would_wait_for_it() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(4, 0)]));
    // 10^12 wei at 3,000 USD an ether are 0.3 cents; 200 ms a cent makes 60 ms.
    assert_eq!(row(&mut it, now).offers[0].price, Micros::from_ms(60));
}

#[test]
fn a_capacity_refusal_lowers_capacity_and_never_health() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(10, 0)]));
    let before = row(&mut it, now);
    it.handle_outcomes(now, &Drained { started: 3, refusals: 3, ..Drained::default() });
    let after = row(&mut it, now);
    assert!(after.offers[0].capacity_milli < before.offers[0].capacity_milli);
    assert_eq!(after.outcomes, before.outcomes);
    assert_eq!(after.standing, Standing::Ready);
}

/// Served and refused again and again by one that fits two and says ten: what is thought to
/// fit comes down within a few refusals, whatever was served before, and goes up only while
/// all of it is used.
#[test]
fn capacity_is_learned_from_what_was_there_when_it_was_full() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(10, 0)]));
    row(&mut it, now);
    let served = |count: usize| Drained {
        successes: count as u32,
        times: vec![(0, Micros::from_ms(400)); count],
        ..Drained::default()
    };
    let capacity = |it: &mut Orchestrator| row(it, now).offers[0].capacity_milli;
    (0..50).for_each(|_| it.handle_outcomes(now, &served(10)));
    assert_eq!(capacity(&mut it), 10_000);
    let refused = Refused { ever: 1, full_at: 2 };
    for _ in 0..4 {
        it.handle_outcomes(now, &Drained { refusals: 1, refused, ..Drained::default() });
    }
    let full = capacity(&mut it);
    assert!((2_000..=3_000).contains(&full), "{full}");
    it.handle_outcomes(now, &served(10));
    assert_eq!(capacity(&mut it), full, "with nothing there, a place more says nothing");
    for _ in 0..2 {
        it.gauge().begin();
    }
    it.handle_outcomes(now, &served(10));
    assert!(capacity(&mut it) > full);
}

#[test]
fn what_was_learned_survives_the_next_advert() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(10, 0)]));
    assert_eq!(row(&mut it, now).offers[0].service, None);
    let times = vec![(0, Micros::from_ms(900))];
    it.handle_outcomes(now, &Drained { started: 1, successes: 1, times, ..Drained::default() });
    it.handle_check(now, answer(40, vec![echo(10, 5)]));
    assert_eq!(row(&mut it, now).offers[0].service, Some(Micros::from_ms(900)));
}

#[test]
fn failed_checks_suspend_and_an_answer_after_the_wait_ramps_it_up() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(10, 0)]));
    for _ in 0..2 {
        it.handle_check(now, Err(CheckFailure::Connect("refused".into())));
    }
    assert_eq!(row(&mut it, now).standing, Standing::Suspended);
    let later = it.next_timeout(now).unwrap();
    it.handle_timeout(later);
    assert_eq!(row(&mut it, later).standing, Standing::Probation);
    it.handle_check(later, answer(40, vec![echo(10, 0)]));
    assert_eq!(row(&mut it, later).standing, Standing::Ready);
    assert_eq!(row(&mut it, later).offers[0].capacity_milli, 1_000);
    let ramped = later + Duration::from_secs(15);
    assert_eq!(row(&mut it, ramped).offers[0].capacity_milli, 5_000);
}

#[test]
fn a_sample_faster_than_light_keeps_the_sample_and_drops_the_place() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(3, vec![]));
    let row = row(&mut it, now);
    assert_eq!((row.point, row.link.rtt), (None, Micros::from_ms(3)));
}

#[test]
fn a_peers_round_trip_and_load_enter_the_row() {
    let (now, mut it) = fresh();
    it.handle_check(now, Ok(Answer { runners: Some(vec![echo(4, 0)]), ..Answer::default() }));
    assert_eq!(row(&mut it, now).link.evidence, Evidence::Distance);
    let prior = expected_rtt(point(0.0).distance_m(&point(10.0)));
    let near = Told { peer_rtt: Some(Micros::from_ms(5)), ..told("b", now, 10, 0) };
    it.handle_told(now, vec![near]);
    let row = row(&mut it, now);
    assert!(prior > Micros::from_ms(15));
    assert_eq!((row.link.rtt, row.link.evidence), (Micros::from_ms(15), Evidence::Peer));
    assert_eq!(row.offers[0].others_milli, 2_000);
    assert_eq!(row.reach, 0, "next door says nothing of far paths");
}

#[test]
fn what_peers_measure_from_afar_shifts_what_is_expected() {
    let (now, mut it) = fresh();
    it.handle_check(now, Ok(Answer { runners: Some(vec![echo(4, 0)]), ..Answer::default() }));
    let before = row(&mut it, now).expected_from(&point(90.0)).0;
    let far = Told { peer_point: Some(point(60.0)), ..told("b", now, 60, 0) };
    it.handle_told(now, vec![far]);
    assert!(row(&mut it, now).reach < 0);
    assert!(row(&mut it, now).expected_from(&point(90.0)).0 < before);
}

#[test]
fn a_death_seen_by_a_peer_is_noted_as_its_word_and_brings_a_look() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(40, vec![echo(4, 0)]));
    while it.poll_output().is_some() {}
    it.handle_told(now, vec![told("b", now, 40, 5)]);
    let outputs: Vec<Output> = std::iter::from_fn(|| it.poll_output()).collect();
    assert_eq!(outputs, [Output::Changed, Output::Doubt]);
    let row = row(&mut it, now);
    assert_eq!(row.outcomes.told_by.map(|it| it.to_string()), Some("b".to_owned()));
    assert_eq!(row.outcomes.failures_milli, 2_500);
    assert_eq!(row.standing, Standing::Ready, "evidence, never a verdict");
}

#[test]
fn who_told_first_is_named_until_the_orchestrator_answers_again() {
    let (now, mut it) = fresh();
    let told_by = |it: &mut Orchestrator| row(it, now).outcomes.told_by.map(|it| it.to_string());
    it.handle_check(now, answer(40, vec![echo(4, 0)]));
    it.handle_told(now, vec![told("b", now, 40, 1)]);
    for _ in 0..3 {
        it.handle_check(now, Err(CheckFailure::Connect("refused".to_owned())));
    }
    assert_eq!(told_by(&mut it), Some("b".to_owned()), "own failures outweigh b's word by now");
    it.handle_told(now, vec![told("c", now, 40, 2)]);
    assert_eq!(told_by(&mut it), Some("b".to_owned()), "c tells nothing new");
    it.handle_told(now, Vec::new());
    it.handle_check(now, answer(40, vec![echo(4, 0)]));
    assert_eq!(told_by(&mut it), None);
}

#[test]
fn arrivals_are_a_rate() {
    let (now, mut it) = fresh();
    for tick in 0..300 {
        let at = now + Duration::from_millis(tick * 100);
        it.handle_outcomes(at, &Drained { started: 2, ..Drained::default() });
    }
    let rate = it.observation(now + Duration::from_millis(29_900)).arrivals_milli;
    assert!((18_000..22_000).contains(&rate), "{rate} instead of 20,000");
}

#[test]
fn a_runner_at_another_origin_is_not_relayed_to() {
    let (now, mut it) = fresh();
    let elsewhere = r#"{"url":"https://x:1/run","app":"a","mode":"single-shot"}"#;
    it.handle_check(now, answer(40, vec![advert(elsewhere)]));
    assert_eq!(row(&mut it, now).offers[0].runner.as_ref().unwrap().path, None);
}

#[test]
fn a_runner_without_a_path_that_can_be_asked_for_is_not_relayed_to() {
    let path = |url: &str| {
        let (now, mut it) = fresh();
        let runner = format!(r#"{{"url":"{url}","app":"a","mode":"single-shot"}}"#);
        it.handle_check(now, answer(40, vec![advert(&runner)]));
        let path = row(&mut it, now).offers[0].runner.as_ref().unwrap().path.clone();
        path.map(|it| it.to_string())
    };
    assert_eq!(path("https://o:1/run?a=b").as_deref(), Some("/run?a=b"));
    for bad in ["https://o:1/a b", "https://o:1/a\\\\b\\u0001", "https://o:1"] {
        assert_eq!(path(bad), None, "{bad}");
    }
}

#[test]
fn most_of_its_observers_keep_this_node_away_until_it_sees_for_itself() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(10, vec![echo(4, 0)]));
    let at = |ms| now + Duration::from_millis(ms);
    let reports = |ms, failures: [u32; 3]| -> Vec<Told> {
        ["b", "c", "d"].iter().zip(failures).map(|(node, it)| told(node, at(ms), 20, it)).collect()
    };
    it.handle_told(at(1), reports(1, [0, 0, 0]));
    // One node's broken link persuades nobody.
    it.handle_told(at(100), reports(100, [9, 0, 0]));
    assert_eq!(row(&mut it, at(100)).standing, Standing::Ready);
    it.handle_told(at(200), reports(200, [9, 1, 0]));
    assert_eq!(row(&mut it, at(200)).standing, Standing::Suspended);
    // What it tells itself stays its own evidence.
    assert_eq!(it.observation(at(200)).failures_milli, 0);
    it.handle_check(at(300), answer(10, vec![echo(4, 0)]));
    assert_eq!(row(&mut it, at(300)).standing, Standing::Ready);
}

#[test]
fn a_report_nobody_repeats_is_forgotten_by_itself() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(10, vec![echo(4, 0)]));
    let at = |ms| now + Duration::from_millis(ms);
    for (ms, failures) in [(1, 0), (100, 2)] {
        it.handle_told(at(ms), ["b", "c"].map(|node| told(node, at(ms), 20, failures)).into());
    }
    assert_eq!(row(&mut it, at(100)).standing, Standing::Suspended);
    let over = it.next_timeout(at(100)).unwrap();
    assert!(over > at(9_000) && over < at(11_000));
    it.handle_timeout(over);
    assert_eq!(row(&mut it, over).standing, Standing::Ready);
}

/// Eight who tell, the first three of whom lie as `lie` has it.
fn eight(now: Instant, rtt_ms: u64, lie: impl Fn(&mut Told)) -> Vec<Told> {
    let told = |at: usize| {
        let near = Some(Micros::from_ms(5));
        let mut it = Told { peer_rtt: near, ..told(&format!("n{at}"), now, rtt_ms, 0) };
        it.observation.successes_milli = 10_000;
        if at < 3 {
            lie(&mut it);
        }
        it
    };
    (0..8).map(told).collect()
}

#[test]
fn three_of_eight_make_no_way_shorter_or_longer() {
    for lie in [Micros(1), Observation::MAX_RTT] {
        let (now, mut it) = fresh();
        it.handle_check(now, Ok(Answer { runners: Some(vec![echo(4, 0)]), ..Answer::default() }));
        it.handle_told(now, eight(now, 30, |told| told.observation.rtt = Some(lie)));
        let row = row(&mut it, now);
        assert!(row.point.is_some(), "three of eight disprove no place");
        assert_eq!(row.link.evidence, Evidence::Peer);
        let honest = Micros::from_ms(25)..=Micros::from_ms(35);
        assert!(honest.contains(&row.link.rtt), "{:?}", row.link);
        assert!(row.reach.abs() < 1024, "{}", row.reach);
    }
}

#[test]
fn most_of_three_disprove_a_place_and_one_does_not() {
    for (n_too_fast, disproved) in [(1, false), (2, true)] {
        let (now, mut it) = fresh();
        let told = |at: usize| {
            let rtt_ms = if at < n_too_fast { 1 } else { 60 };
            Told { peer_point: Some(point(60.0)), ..told(&format!("n{at}"), now, rtt_ms, 0) }
        };
        it.handle_told(now, (0..3).map(told).collect());
        assert_eq!(row(&mut it, now).point.is_none(), disproved);
    }
}

#[test]
fn praise_makes_failures_no_rarer_than_this_node_saw_them() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(10, vec![echo(4, 0)]));
    it.handle_outcomes(now, &Drained { failures: 2, successes: 2, ..Drained::default() });
    let own = row(&mut it, now).outcomes;
    let most = Observation::MAX_MILLI;
    for n in [1, 3, 8] {
        let mut told = eight(now, 10, |told| told.observation.successes_milli = most);
        told.truncate(n);
        it.handle_told(now, told);
        let with = row(&mut it, now).outcomes;
        let share = |it: view::row::Outcomes| {
            u64::from(it.failures_milli) * 1000
                / (u64::from(it.failures_milli) + u64::from(it.successes_milli))
        };
        assert!(share(with) >= share(own), "{n}: {with:?} beside {own:?}");
    }
}

#[test]
fn slander_by_three_of_eight_weighs_nothing_and_fills_it_and_no_more() {
    let (now, mut it) = fresh();
    it.handle_check(now, answer(10, vec![echo(4, 0)]));
    let told = eight(now, 10, |told| {
        told.observation.failures_milli = Observation::MAX_MILLI;
        told.observation.in_flight = Observation::MAX_IN_FLIGHT;
        told.observation.arrivals_milli = Observation::MAX_MILLI;
    });
    it.handle_told(now, told);
    let row = row(&mut it, now);
    assert_eq!(row.outcomes.failures_milli, 0);
    assert_eq!(row.offers[0].others_milli, 4_000);
    // A session keeps its place for a minute.
    assert_eq!(row.offers[0].arrivals_milli, 4_000 / 60);
}
