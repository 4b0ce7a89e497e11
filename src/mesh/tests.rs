mod command;
mod levels;
mod push;

use super::*;
use crate::clock;
use crate::unit::Micros;
use crate::wire;
use crate::wire::v1::GoodbyeV1;
use crate::wire::v1::PingV1;
use crate::wire::v1::RecordV1;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn params() -> Params {
    Params {
        peers: ["a", "b", "c"].map(node).to_vec(),
        push_interval: ms(250),
        frames_per_push: 2,
        ping_interval: ms(1000),
        silence: ms(3000),
        bytes_per_second: 50_000_000,
        digest_interval: ms(7000),
        quarantine: ms(60_000),
        news_interval: ms(100),
        levels_from: 300,
        share_load: true,
        about: About::default(),
        operator: Operator::default(),
        limits: limits::Params {
            frames_per_second: 100,
            bytes_per_second: 4_000_000,
            records_per_second: 20_000,
            datagrams_per_second: 100,
            datagram_bytes_per_second: 10_000,
        },
        health: health::Params {
            ttl: ms(90_000),
            refresh: ms(30_000),
            max_records: 20_000,
            max_origins: 64,
            max_version_jump: 1 << 32,
            max_epoch_jump: 1 << 42,
        },
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn greeting(name: &str) -> Greeting {
    Greeting { node: node(name), region: "FRA".parse().unwrap(), epoch: 1, features: 0 }
}

fn seen(orchestrator: u64) -> Observation {
    Observation {
        orchestrator: OrchestratorId(orchestrator),
        rtt: Some(Micros(1000)),
        failures_milli: 0,
        successes_milli: 1000,
        in_flight: 0,
        arrivals_milli: 0,
        service: None,
        capacity_milli: None,
    }
}

fn mesh(name: &str) -> Mesh {
    Mesh::new(clock::now(), params(), greeting(name), None, 7)
}

fn framed(message: Message) -> Frame {
    let size = wire::encode(&message).unwrap().len();
    Frame { message, size }
}

/// What the mesh asks for, but for datagrams.
fn outputs(mesh: &mut Mesh) -> Vec<Output> {
    let all = std::iter::from_fn(|| mesh.poll_output());
    all.filter(|it| !matches!(it, Output::Datagram { .. })).collect()
}

fn datagrams(mesh: &mut Mesh) -> Vec<(NodeId, Bytes)> {
    let mut found = Vec::new();
    while let Some(output) = mesh.poll_output() {
        if let Output::Datagram { peer, bytes } = output {
            found.push((peer, bytes));
        }
    }
    found
}

/// Links `a` to `b` and takes what that causes off its hands.
fn linked(now: Instant) -> Mesh {
    let mut mesh = mesh("a");
    mesh.handle_link_up(now, LinkId(1), &greeting("b"));
    mesh.handle_timeout(now);
    outputs(&mut mesh);
    mesh
}

fn hear(mesh: &mut Mesh, now: Instant, message: Message) -> Vec<Output> {
    mesh.handle_frame(now, node("b"), LinkId(1), framed(message));
    outputs(mesh)
}

fn deltas(outputs: &[Output]) -> Vec<&DeltaV1> {
    let mut deltas = Vec::new();
    for output in outputs {
        if let Output::Send { message: Message::Delta(delta), .. } = output {
            deltas.push(delta);
        }
    }
    deltas
}

fn record(orchestrator: u64) -> RecordV1 {
    translate::delta_of(
        1,
        &[health::Versioned { version: 1, age: ms(5), observation: seen(orchestrator) }],
    )
    .records[0]
        .clone()
}

fn delta(first_version: u64, orchestrators: std::ops::Range<u64>) -> Message {
    let records = orchestrators
        .enumerate()
        .map(|(at, it)| RecordV1 { after_first: at as u32, ..record(it) })
        .collect();
    Message::Delta(DeltaV1 { epoch: 1, first_version, records })
}

#[test]
fn an_observation_at_one_is_news_at_the_other_with_its_age() {
    let now = clock::now();
    let mut a = linked(now);
    let mut b = mesh("b");
    b.handle_link_up(now, LinkId(9), &greeting("a"));
    a.handle_observation(now, seen(5));
    let later = now + ms(40);
    a.handle_timeout(later);
    for output in outputs(&mut a) {
        if let Output::Send { message, .. } = output {
            b.handle_frame(later, node("a"), LinkId(9), framed(message));
        }
    }
    b.handle_timeout(later);
    assert_eq!(outputs(&mut b)[0], Output::PeerUp(node("a")));
    let later = later + ms(100);
    b.handle_timeout(later);
    assert!(outputs(&mut b).contains(&Output::Changed(vec![OrchestratorId(5)])));
    let sighting = b.observations(later, OrchestratorId(5))[0];
    assert_eq!((sighting.node, sighting.age), (node("a"), ms(140)));
    assert_eq!(b.peers().row(node("a")).unwrap().n_records, 1);
}

#[test]
fn only_what_changed_is_pushed_and_not_more_often_than_the_interval() {
    let now = clock::now();
    let mut mesh = linked(now);
    mesh.handle_observation(now, seen(5));
    mesh.handle_timeout(now);
    assert_eq!(deltas(&outputs(&mut mesh)).len(), 1);
    mesh.handle_observation(now, seen(6));
    mesh.handle_timeout(now + ms(249));
    assert!(deltas(&outputs(&mut mesh)).is_empty());
    assert_eq!(mesh.next_timeout(), Some(now + ms(250)));
    mesh.handle_timeout(now + ms(250));
    let pushed = outputs(&mut mesh);
    let records = &deltas(&pushed)[0].records;
    assert_eq!(records.iter().map(|it| it.orchestrator).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_new_link_is_sent_everything_in_frames_of_the_limit_and_in_turns() {
    let now = clock::now();
    let mut mesh = mesh("a");
    for orchestrator in 0..2500 {
        mesh.handle_observation(now, seen(orchestrator));
    }
    for (link, from) in [(1, now), (2, now + ms(10))] {
        mesh.handle_link_up(from, LinkId(link), &greeting("b"));
        mesh.handle_timeout(from);
        let first: Vec<_> = deltas(&outputs(&mut mesh)).iter().map(|it| it.records.len()).collect();
        mesh.handle_timeout(from + ms(250));
        let rest: Vec<_> = deltas(&outputs(&mut mesh)).iter().map(|it| it.records.len()).collect();
        assert_eq!((first, rest), (vec![1024, 1024], vec![452]));
    }
}

#[test]
fn what_the_link_had_no_room_for_is_sent_again() {
    let now = clock::now();
    let mut mesh = linked(now);
    mesh.handle_observation(now, seen(5));
    mesh.handle_timeout(now);
    let sent = outputs(&mut mesh);
    mesh.handle_unsent(node("b"), &Message::Delta(deltas(&sent)[0].clone()));
    mesh.handle_timeout(now + ms(250));
    assert_eq!(deltas(&outputs(&mut mesh)).len(), 1);
}

#[test]
fn the_round_trip_is_the_least_of_the_window() {
    let now = clock::now();
    let mut mesh = linked(now);
    let rtt = |mesh: &Mesh| mesh.peers().row(node("b")).unwrap().rtt;
    assert_eq!(rtt(&mesh), None);
    hear(&mut mesh, now + ms(80), Message::Pong(PongV1 { nonce: 1 }));
    assert_eq!(rtt(&mesh), Some(Micros(80_000)));
    let second = now + ms(1000);
    mesh.handle_timeout(second);
    hear(&mut mesh, second + ms(70), Message::Pong(PongV1 { nonce: 2 }));
    assert_eq!(rtt(&mesh), Some(Micros(70_000)));
    hear(&mut mesh, second + ms(71), Message::Pong(PongV1 { nonce: 77 }));
    assert_eq!(rtt(&mesh), Some(Micros(70_000)));
    let answer = hear(&mut mesh, second, Message::Ping(PingV1 { nonce: 3 }));
    let message = Message::Pong(PongV1 { nonce: 3 });
    assert_eq!(answer, [Output::Send { peer: node("b"), message }]);
}

#[test]
fn a_silent_peer_is_down_and_what_it_saw_decays() {
    let now = clock::now();
    let mut mesh = linked(now);
    hear(&mut mesh, now, delta(1, 5..6));
    mesh.handle_timeout(now + ms(2999));
    assert!(mesh.peers().row(node("b")).unwrap().standing == Standing::Up);
    outputs(&mut mesh);
    mesh.handle_timeout(now + ms(3000));
    let down = Output::PeerDown { peer: node("b"), end: LinkEnd::Lost };
    assert_eq!(outputs(&mut mesh), [Output::Close(node("b")), down]);
    let expiry = now + ms(90_000) - ms(5);
    assert_eq!(mesh.next_timeout(), Some(expiry));
    mesh.handle_timeout(expiry);
    mesh.handle_timeout(expiry + ms(100));
    assert_eq!(outputs(&mut mesh), [Output::Changed(vec![OrchestratorId(5)])]);
    assert!(mesh.observations(expiry, OrchestratorId(5)).is_empty());
}

fn check_fault(messages: impl IntoIterator<Item = Message>, fault: Fault) {
    let now = clock::now();
    let mut mesh = linked(now);
    let mut caused = Vec::new();
    for message in messages {
        caused.extend(hear(&mut mesh, now, message));
    }
    let duration = ms(60_000);
    let expected = Output::Quarantine { peer: node("b"), fault, duration };
    assert!(caused.contains(&expected), "{fault}: {caused:?}");
    let row = mesh.peers().row(node("b")).unwrap().clone();
    assert_eq!((row.standing, row.counts.n_quarantines), (Standing::Quarantined, 1));
    assert!(!mesh.admits(now, node("b")));
    mesh.handle_link_up(now, LinkId(2), &greeting("b"));
    assert_eq!(outputs(&mut mesh), [Output::Close(node("b"))]);
    mesh.handle_timeout(now + duration);
    assert!(mesh.admits(now + duration, node("b")));
    assert_eq!(mesh.peers().row(node("b")).unwrap().standing, Standing::Down);
}

#[test]
fn a_peer_that_breaks_a_limit_is_put_aside_for_a_while() {
    let draining = std::iter::repeat_n(Message::Draining, 401);
    check_fault(draining, Fault::Frames);
    let crowds = (0..79).map(|it| delta(1 + it * 1024, 0..1024));
    check_fault(crowds, Fault::Records);
    check_fault([Message::Hello(greeting("b").hello())], Fault::OutOfPlace);
    let later = DeltaV1 { epoch: 2, first_version: 1, records: vec![record(1)] };
    check_fault([Message::Delta(later)], Fault::Epoch);
    let odd = RecordV1 { rtt_us: Some(0), ..record(1) };
    let odd = DeltaV1 { epoch: 1, first_version: 1, records: vec![odd] };
    check_fault([Message::Delta(odd)], Fault::Value);
    check_fault([delta(0, 1..2)], Fault::Versions);
}

#[test]
fn a_peer_that_floods_with_datagrams_is_put_aside() {
    for (n, size, fault) in [(401, 0, Fault::Datagrams), (40, 1100, Fault::DatagramBytes)] {
        let now = clock::now();
        let mut mesh = linked(now);
        for _ in 0..n {
            mesh.handle_datagram(now, node("b"), LinkId(1), &Bytes::from(vec![0; size]));
        }
        let row = mesh.peers().row(node("b")).unwrap().clone();
        assert_eq!((row.standing, row.fault), (Standing::Quarantined, Some(fault)));
        assert!(row.counts.n_dropped >= n - 4);
    }
}

#[test]
fn garbage_on_a_link_puts_its_peer_aside() {
    let now = clock::now();
    let mut mesh = linked(now);
    let end = LinkEnd::Broken(Fault::Garbage(wire::WireError::TooShort(0)));
    mesh.handle_link_down(now, node("b"), LinkId(1), end);
    assert!(!mesh.admits(now, node("b")));
    assert!(mesh.admits(now, node("c")));
}

#[test]
fn a_node_nobody_configured_is_admitted_while_there_is_room() {
    let now = clock::now();
    let mut params = params();
    params.health.max_origins = 3;
    let mut mesh = Mesh::new(now, params, greeting("a"), None, 7);
    assert!(mesh.admits(now, node("x")) && !mesh.admits(now, node("a")));
    mesh.handle_link_up(now, LinkId(1), &greeting("x"));
    assert_eq!(outputs(&mut mesh), [Output::PeerUp(node("x"))]);
    let row = mesh.peers().row(node("x")).unwrap().clone();
    assert_eq!((row.standing, row.seed, row.membership), (Standing::Up, false, None));
    assert!(!mesh.admits(now, node("y")) && mesh.admits(now, node("b")));
    mesh.handle_link_up(now, LinkId(2), &greeting("y"));
    assert_eq!(outputs(&mut mesh), [Output::Close(node("y"))]);
}

/// Carries datagrams between two meshes until neither has any.
fn converse(now: Instant, a: &mut Mesh, b: &mut Mesh) {
    loop {
        let (from_a, from_b) = (datagrams(a), datagrams(b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (_, bytes) in from_a {
            b.handle_datagram(now, a.local.node, LinkId(1), &bytes);
        }
        for (_, bytes) in from_b {
            a.handle_datagram(now, b.local.node, LinkId(1), &bytes);
        }
    }
}

#[test]
fn a_member_is_learned_through_a_seed_and_may_make_room_when_it_is_gone() {
    let now = clock::now();
    let at: SocketAddr = ([10, 0, 0, 9], 7935).into();
    let mut params = params();
    params.peers = vec![node("a")];
    let mut x = Mesh::new(now, params.clone(), greeting("x"), Some(at), 7);
    let mut a = mesh("a");
    a.handle_link_up(now, LinkId(1), &greeting("x"));
    x.handle_link_up(now, LinkId(1), &greeting("a"));
    converse(now, &mut a, &mut x);
    let row = a.peers().row(node("x")).unwrap().clone();
    assert_eq!((row.membership, row.at), (Some(Membership::Alive), Some(at)));
    // A newcomer that knows only a hears of x from it.
    let mut z = Mesh::new(now, params, greeting("z"), None, 7);
    z.handle_link_up(now, LinkId(1), &greeting("a"));
    a.handle_link_up(now, LinkId(1), &greeting("z"));
    loop {
        let mut caused = Vec::new();
        for (_, bytes) in datagrams(&mut a).into_iter().filter(|(to, _)| *to == node("z")) {
            z.handle_datagram(now, node("a"), LinkId(1), &bytes);
        }
        while let Some(output) = z.poll_output() {
            if let Output::Datagram { bytes, .. } = &output {
                a.handle_datagram(now, node("z"), LinkId(1), bytes);
            }
            caused.push(output);
        }
        if caused.contains(&Output::Learned { peer: node("x"), at: Some(at) }) {
            break;
        }
        assert_ne!(z.peers().row(node("a")).unwrap().counts.n_datagrams, 9, "{caused:?}");
    }
    assert_eq!(z.peers().row(node("x")).unwrap().standing, Standing::Down);
}

#[test]
fn a_datagram_under_anothers_name_is_dropped_and_counted() {
    let now = clock::now();
    let mut x = mesh("x");
    x.handle_link_up(now, LinkId(1), &greeting("a"));
    let said = datagrams(&mut x)[0].1.clone();
    let mut a = linked(now);
    a.handle_datagram(now, node("b"), LinkId(1), &said);
    a.handle_datagram(now, node("b"), LinkId(2), &said);
    a.handle_datagram(now, node("c"), LinkId(1), &said);
    let row = a.peers().row(node("b")).unwrap().clone();
    assert_eq!((row.counts.n_forged, row.standing), (1, Standing::Up));
    assert!(a.peers().row(node("x")).is_none());
}

#[test]
fn what_comes_late_from_a_replaced_link_is_nothing() {
    let now = clock::now();
    let mut mesh = linked(now);
    let next_life = Greeting { epoch: 2, ..greeting("b") };
    mesh.handle_link_up(now, LinkId(2), &next_life);
    assert_eq!(hear(&mut mesh, now, delta(1, 5..6)), []);
    mesh.handle_link_down(now, node("b"), LinkId(1), LinkEnd::Lost);
    assert_eq!(outputs(&mut mesh), []);
    assert_eq!(mesh.peers().row(node("b")).unwrap().standing, Standing::Up);
}

#[test]
fn a_draining_node_says_so_to_every_peer_also_to_one_that_comes_later() {
    let now = clock::now();
    let mut mesh = linked(now);
    mesh.handle_drain();
    let told = |peer| Output::Send { peer: node(peer), message: Message::Draining };
    assert_eq!(outputs(&mut mesh), [told("b")]);
    mesh.handle_link_up(now, LinkId(2), &greeting("c"));
    assert_eq!(outputs(&mut mesh), [Output::PeerUp(node("c")), told("c")]);
}

#[test]
fn a_leaving_peer_is_shown_draining_and_then_down() {
    let now = clock::now();
    let mut mesh = linked(now);
    hear(&mut mesh, now, Message::Draining);
    assert!(mesh.peers().row(node("b")).unwrap().draining);
    let caused = hear(&mut mesh, now, Message::Goodbye(GoodbyeV1 { reason: 0 }));
    let down = Output::PeerDown { peer: node("b"), end: LinkEnd::Closed };
    assert_eq!(caused, [Output::Close(node("b")), down]);
}

#[test]
fn news_no_reader_had_room_for_is_told_again() {
    let now = clock::now();
    let mut mesh = mesh("a");
    mesh.handle_unread(now, vec![OrchestratorId(5)]);
    mesh.handle_timeout(now + ms(99));
    assert_eq!(outputs(&mut mesh), []);
    mesh.handle_timeout(now + ms(100));
    assert_eq!(outputs(&mut mesh), [Output::Changed(vec![OrchestratorId(5)])]);
    assert_eq!(mesh.next_timeout(), None);
}
