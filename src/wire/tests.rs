use proptest::prelude::*;

use super::v1::{GroupV1, LoadRowV1, PlaceV1, RecordV1, WantRowV1, WayV1};
use super::*;

fn hello() -> Message {
    Message::Hello(HelloV1 {
        min: 1,
        max: 1,
        node: "fra-1".to_owned(),
        region: "FRA".to_owned(),
        epoch: 7,
        features: 0,
    })
}

fn record(after_first: u32) -> RecordV1 {
    RecordV1 {
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
    }
}

fn largest_record() -> RecordV1 {
    RecordV1 {
        after_first: u32::MAX,
        age_ms: u32::MAX,
        orchestrator: u64::MAX,
        rtt_us: Some(u64::MAX),
        failures_milli: u32::MAX,
        successes_milli: u32::MAX,
        in_flight: u32::MAX,
        arrivals_milli: u32::MAX,
        service_us: Some(u64::MAX),
        capacity_milli: Some(u32::MAX),
    }
}

fn delta(records: Vec<RecordV1>) -> Message {
    Message::Delta(DeltaV1 { epoch: 7, first_version: 41, records })
}

fn way(group: GroupV1, to: PlaceV1, rtt_us: u32) -> WayV1 {
    WayV1 { group, to, rtt_us }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn read(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut reader = FrameReader::new();
    reader.push(bytes);
    reader.poll()
}

fn check_golden(message: Message, golden: &str) {
    let bytes = encode(&message).unwrap();
    assert_eq!(hex(&bytes), golden, "{message:?}");
    assert_eq!(read(&bytes), Ok(Some(Frame { message, size: bytes.len() })));
}

#[test]
fn version_1_keeps_its_bytes() {
    check_golden(hello(), "00000012000100010101056672612d31034652410700");
    let ack = HelloAckV1 {
        version: 1,
        node: "lon-1".to_owned(),
        region: "LON".to_owned(),
        epoch: 300,
        features: 1,
    };
    check_golden(Message::HelloAck(ack), "000000130002000101056c6f6e2d31034c4f4efb2c0101");
    check_golden(
        delta(vec![record(0), record(2)]),
        "00000043000300010729020078fdefcdab896745\
         230101fbcc5bfafc905f010003fbdc050001fb401f0278fdefcdab896745230101fbcc\
         5bfafc905f010003fbdc050001fb401f",
    );
    check_golden(Message::Ping(PingV1 { nonce: 258 }), "0000000700040001fb0201");
    check_golden(Message::Pong(PongV1 { nonce: 9 }), "000000050005000109");
    check_golden(Message::Draining, "0000000400060001");
    check_golden(Message::Goodbye(GoodbyeV1 { reason: 0 }), "000000050007000100");
    let digest = DigestV1 { epoch: 7, n_records: 300, sum: 0x0123_4567_89ab_cdef };
    check_golden(Message::Digest(digest), "000000110008000107fb2c01fdefcdab8967452301");
    check_golden(Message::Pull(PullV1 { epoch: 7 }), "000000050009000107");
    let row = |orchestrator, in_flight| LoadRowV1 { orchestrator, in_flight };
    let load = LoadV1 { age_ms: 25, rows: vec![row(0x0123_4567_89ab_cdef, 3), row(9, 300)] };
    check_golden(Message::Load(load), "00000014000c00011902fdefcdab89674523010309fb2c01");
    let v4 = way(GroupV1::V4([192, 0, 2]), PlaceV1::Node("sin-1".to_owned()), 12_500);
    let v6 = way(GroupV1::V6([0x20, 1, 0xd, 0xb8, 0, 7]), PlaceV1::Orchestrator(300), 9);
    check_golden(
        Message::Ways(WaysV1 { rows: vec![v4, v6] }),
        "0000001f000d00010200c00002000573696e2d31fbd4300120010db8000701fb2c0109",
    );
    let url = Some("https://fra.example".to_owned());
    let about = AboutV1 { url, version: "0.1.0".to_owned() };
    check_golden(
        Message::About(about),
        "0000001f000e0001011368747470733a2f2f6672612e6578616d706c6505302e312e30",
    );
    let command = CommandV1 { signed: vec![1, 2, 255] };
    check_golden(Message::Command(command), "00000008000a0001030102ff");
    let unsaid = AboutV1 { url: None, version: String::new() };
    check_golden(Message::About(unsaid), "00000006000e00010000");
    let row = |orchestrator, waiting| WantRowV1 { orchestrator, waiting, places: 10 };
    let want = WantV1 { rows: vec![row(0x0123_4567_89ab_cdef, 4), row(9, 512)] };
    check_golden(Message::Want(want), "00000015000f000102fdefcdab8967452301040a09fb00020a");
}

#[test]
fn the_largest_delta_decodes_and_one_record_more_is_refused() {
    let largest = delta(vec![largest_record(); MAX_RECORDS]);
    let bytes = encode(&largest).unwrap();
    assert_eq!(read(&bytes).unwrap().unwrap().message, largest);

    let records = vec![record(0); MAX_RECORDS + 1];
    let body = bytes_of(&DeltaV1 { epoch: 1, first_version: 1, records }).unwrap();
    let refused = Err(WireError::TooManyRecords(MAX_RECORDS + 1));
    assert_eq!(decode(kind::DELTA, &body), refused);
    let records = vec![record(0); MAX_RECORDS + 1];
    assert_eq!(encode(&delta(records)).map(drop), Err(WireError::TooManyRecords(MAX_RECORDS + 1)));
}

#[test]
fn no_more_ways_than_fit_are_sent_or_taken() {
    let longest = || way(GroupV1::V6([9; 6]), PlaceV1::Node("n".repeat(64)), u32::MAX);
    let most = Message::Ways(WaysV1 { rows: vec![longest(); MAX_WAYS] });
    assert_eq!(read(&encode(&most).unwrap()).unwrap().unwrap().message, most);
    let more = WaysV1 { rows: vec![longest(); MAX_WAYS + 1] };
    let body = bytes_of(&more).unwrap();
    assert_eq!(decode(kind::WAYS, &body), Err(WireError::TooManyWays(MAX_WAYS + 1)));
    let refused = encode(&Message::Ways(more)).map(drop);
    assert_eq!(refused, Err(WireError::TooManyWays(MAX_WAYS + 1)));
}

#[test]
fn no_more_rows_of_load_than_fit_are_sent_or_taken() {
    let rows = |n| vec![LoadRowV1 { orchestrator: u64::MAX, in_flight: u32::MAX }; n];
    let most = Message::Load(LoadV1 { age_ms: u32::MAX, rows: rows(MAX_LOADS) });
    assert_eq!(read(&encode(&most).unwrap()).unwrap().unwrap().message, most);
    let more = LoadV1 { age_ms: 0, rows: rows(MAX_LOADS + 1) };
    let body = bytes_of(&more).unwrap();
    assert_eq!(decode(kind::LOAD, &body), Err(WireError::TooManyLoads(MAX_LOADS + 1)));
    let refused = encode(&Message::Load(more)).map(drop);
    assert_eq!(refused, Err(WireError::TooManyLoads(MAX_LOADS + 1)));
    let more =
        WantV1 { rows: vec![WantRowV1 { orchestrator: 1, waiting: 1, places: 1 }; MAX_LOADS + 1] };
    assert_eq!(
        decode(kind::WANT, &bytes_of(&more).unwrap()),
        Err(WireError::TooManyLoads(MAX_LOADS + 1))
    );
    let refused = encode(&Message::Want(more)).map(drop);
    assert_eq!(refused, Err(WireError::TooManyLoads(MAX_LOADS + 1)));
}

#[test]
fn a_length_is_refused_before_its_body_is_read() {
    let head = |length: u32, kind: u16| {
        let mut head = length.to_be_bytes().to_vec();
        head.extend(kind.to_be_bytes());
        head.extend(VERSION.to_be_bytes());
        head
    };
    for (kind, limit) in [(kind::PING, MAX_CONTROL_FRAME), (kind::DELTA, MAX_DELTA_FRAME)] {
        assert_eq!(read(&head(limit as u32, kind)), Ok(None));
        let length = limit + 1;
        assert_eq!(
            read(&head(length as u32, kind)),
            Err(WireError::TooLong { kind, length, limit })
        );
    }
    assert_eq!(read(&head(3, kind::PING)), Err(WireError::TooShort(3)));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    // 2^28 records in a handful of bytes: the limit answers before any allocation.
    let mut body = vec![7, 41];
    body.extend([252, 0, 0, 0, 16]);
    assert_eq!(decode(kind::DELTA, &body), Err(WireError::BadBody(kind::DELTA)));
}

#[test]
fn bytes_after_the_struct_are_refused() {
    let mut bytes = encode(&Message::Ping(PingV1 { nonce: 1 })).unwrap().to_vec();
    bytes.push(0);
    bytes[3] += 1;
    assert_eq!(read(&bytes), Err(WireError::Trailing { kind: kind::PING, extra: 1 }));
}

#[test]
fn an_unknown_frame_is_skipped_by_its_length_without_being_held() {
    let mut bytes = 50_004u32.to_be_bytes().to_vec();
    bytes.extend(900u16.to_be_bytes());
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(vec![0xff; 50_000]);
    bytes.extend(encode(&hello()).unwrap());
    let mut reader = FrameReader::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(1000) {
        reader.push(piece);
        while let Some(frame) = reader.poll().unwrap() {
            seen.push(frame.message);
        }
        assert!(reader.n_held() < 1000);
    }
    assert_eq!(seen, [Message::Unknown { kind: 900, version: VERSION }, hello()]);
}

#[test]
fn an_error_is_repeated_and_nothing_more_is_held() {
    let mut reader = FrameReader::new();
    reader.push(&[0; 16]);
    assert_eq!(reader.poll(), Err(WireError::TooShort(0)));
    reader.push(&[0; 1000]);
    assert_eq!(reader.poll(), Err(WireError::TooShort(0)));
    assert_eq!(reader.n_held(), 0);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = FrameReader::new();
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.poll() {}
        prop_assert!(reader.n_held() <= bytes.len());
    }

    #[test]
    fn arbitrary_bodies_never_panic_nor_pass_the_record_limit(
        kind in kind::HELLO..=kind::GOODBYE,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(Message::Delta(delta)) = decode(kind, &body) {
            prop_assert!(delta.records.len() <= body.len());
        }
    }

    #[test]
    fn frames_survive_any_cut(cut in 1usize..40, n_records in 0u32..20) {
        let messages = [hello(), delta((0..n_records).map(record).collect()), Message::Draining];
        let bytes: Vec<u8> =
            messages.iter().flat_map(|it| encode(it).unwrap().to_vec()).collect();
        let mut reader = FrameReader::new();
        let mut seen = Vec::new();
        for piece in bytes.chunks(cut) {
            reader.push(piece);
            while let Some(frame) = reader.poll().unwrap() {
                seen.push(frame.message);
            }
        }
        prop_assert_eq!(&seen[..], &messages[..]);
    }
}
