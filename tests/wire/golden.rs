//! One sound example of every kind of frame and datagram.

use portolan::wire::datagram;
use portolan::wire::v1::{
    AboutV1, AddressV1, AskV1, CommandV1, DeltaV1, DigestV1, GoodbyeV1, GossipV1, GroupV1,
    HelloAckV1, HelloV1, LoadRowV1, LoadV1, MemberIdV1, MemberV1, PingV1, PlaceV1, PongV1, PullV1,
    RecordV1, StateV1, WantRowV1, WantV1, WayV1, WaysV1,
};
use portolan::wire::{Message, encode};

/// Returns an example of every kind of frame, by name.
pub(super) fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let (node, region) = ("fra-1".to_owned(), "FRA".to_owned());
    let record = |after_first| RecordV1 {
        after_first,
        age_ms: 120,
        orchestrator: 0x0123_4567_89ab_cdef,
        rtt_us: Some(23_500),
        failures_milli: 250,
        successes_milli: 90_000,
        in_flight: 3,
        arrivals_milli: 1_500,
        service_us: None,
        capacity_milli: Some(8_000),
    };
    let way = |group, to| WayV1 { group, to, rtt_us: 12_500 };
    let row = |orchestrator| LoadRowV1 { orchestrator, in_flight: 300 };
    let waits = |orchestrator| WantRowV1 { orchestrator, waiting: 512, places: 10 };
    let messages = [
        (
            "hello",
            Message::Hello(HelloV1 {
                min: 1,
                max: 1,
                node: node.clone(),
                region: region.clone(),
                epoch: 7,
                features: 0,
            }),
        ),
        (
            "hello-ack",
            Message::HelloAck(HelloAckV1 { version: 1, node, region, epoch: 300, features: 1 }),
        ),
        (
            "delta",
            Message::Delta(DeltaV1 {
                epoch: 7,
                first_version: 41,
                records: (0..4).map(record).collect(),
            }),
        ),
        ("ping", Message::Ping(PingV1 { nonce: 258 })),
        ("pong", Message::Pong(PongV1 { nonce: 9 })),
        ("draining", Message::Draining),
        ("goodbye", Message::Goodbye(GoodbyeV1 { reason: 0 })),
        ("digest", Message::Digest(DigestV1 { epoch: 7, n_records: 300, sum: u64::MAX })),
        ("command", Message::Command(CommandV1 { signed: vec![7; 300] })),
        ("pull", Message::Pull(PullV1 { epoch: 7 })),
        ("load", Message::Load(LoadV1 { age_ms: 25, rows: vec![row(u64::MAX), row(9)] })),
        (
            "ways",
            Message::Ways(WaysV1 {
                rows: vec![
                    way(GroupV1::V4([192, 0, 2]), PlaceV1::Node("sin-1".to_owned())),
                    way(GroupV1::V6([1, 2, 3, 4, 5, 6]), PlaceV1::Orchestrator(u64::MAX)),
                ],
            }),
        ),
        (
            "about",
            Message::About(AboutV1 {
                url: Some("https://fra.example".to_owned()),
                version: "0.1.0".to_owned(),
            }),
        ),
        ("want", Message::Want(WantV1 { rows: vec![waits(u64::MAX), waits(9)] })),
    ];
    let sound = |(name, message)| (name, encode(&message).unwrap().to_vec());
    messages.into_iter().map(sound).collect()
}

/// Returns an example of every kind of datagram: one for each thing it may want.
pub(super) fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let id = |node: &str, at| MemberIdV1 { node: node.to_owned(), at, epoch: 7, renewals: 1 };
    let source = id("fra-1", Some(AddressV1::V4([10, 0, 0, 1], 7935)));
    let target = id("nyc-1", Some(AddressV1::V6([0x20; 16], 7935)));
    let member = |state| MemberV1 { id: source.clone(), incarnation: 300, state };
    let other = || id("x", None);
    let asks = [
        ("ping", AskV1::Ping(1)),
        ("ack", AskV1::Ack(2)),
        ("ping-for", AskV1::PingFor(other(), 9)),
        ("ping-from", AskV1::PingFrom(other(), 9)),
        ("ack-for", AskV1::AckFor(other(), 9)),
        ("ack-from", AskV1::AckFrom(other(), 9)),
        ("announce", AskV1::Announce),
        ("feed", AskV1::Feed),
        ("gossip", AskV1::Gossip),
        ("broadcast", AskV1::Broadcast),
        ("undead", AskV1::TurnUndead),
    ];
    let sound = |(name, ask)| {
        let (source, target) = (source.clone(), target.clone());
        let gossip = GossipV1 { source, incarnation: 2, target, ask };
        let mut packet = datagram::gossip_bytes(&gossip).unwrap();
        packet.extend(3_u16.to_be_bytes());
        for state in [StateV1::Alive, StateV1::Suspect, StateV1::Down] {
            packet.extend(datagram::member_bytes(&member(state)).unwrap());
        }
        (name, datagram::wrap(&packet).to_vec())
    };
    asks.into_iter().map(sound).collect()
}
