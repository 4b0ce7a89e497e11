//! One record as one line: the CRC-32 of its JSON in eight hexadecimal digits, a space, the
//! JSON, a newline.

use crate::journal::UsageRecord;
use crate::text::{Hex, Object};

/// The longest line, newline included, in bytes: three clipped texts of which each byte is
/// escaped as six, and the fields of bounded length.
pub const LINE_MAX: usize = 8 * 1024;

/// Appends the line of `record` to `out`; `json` is room to work in.
pub(crate) fn push(out: &mut Vec<u8>, json: &mut Vec<u8>, record: &UsageRecord) {
    json.clear();
    write(json, record);
    // The last eight digits of sixteen: a sum has 32 bits.
    out.extend_from_slice(&Hex::of(crc32(json).into()).as_bytes()[8..]);
    out.push(b' ');
    out.extend_from_slice(json);
    out.push(b'\n');
}

/// Writes a record as its `Serialize` does, at a third of the cost.
fn write(json: &mut Vec<u8>, record: &UsageRecord) {
    let mut object = Object::begin(json);
    object.number("at_ms", record.at_ms);
    object.hex("decision", record.decision.map(|it| it.0));
    object.digits("trace", &record.trace.hex());
    object.name("node", record.node.as_str());
    object.name("door", record.door);
    object.text("method", &record.method);
    object.text("route", &record.route);
    object.number("status", record.status.into());
    match &record.capability {
        Some(capability) => object.text("capability", capability),
        None => object.json("capability", "null"),
    }
    object.hex("orchestrator", record.orchestrator.map(|it| it.0));
    match &record.region {
        Some(region) => object.name("region", region.as_str()),
        None => object.json("region", "null"),
    }
    object.name("home", record.home.as_str());
    match &record.country {
        Some(country) => object.name("country", country.as_str()),
        None => object.json("country", "null"),
    }
    object.number("attempts", record.attempts.into());
    object.number("bytes_up", record.bytes_up);
    object.number("bytes_down", record.bytes_down);
    object.number("ttfb_us", record.ttfb_us);
    object.number("duration_us", record.duration_us);
    object.name("end", record.end);
    match &record.session {
        Some(session) => object.text("session", session.as_str()),
        None => object.json("session", "null"),
    }
    object.end();
}

/// Returns whether `line`, without its newline, is one that [`push`] could have written.
pub(crate) fn is_sound(line: &[u8]) -> bool {
    let Some((head, json)) = line.split_at_checked(JSON_AT) else { return false };
    head == format!("{:08x} ", crc32(json)).as_bytes()
        && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}

/// CRC-32 as in IEEE 802.3: reflected, polynomial 0x04c11db7, all ones before and after.
/// Eight bytes a step, each through the table of its place.
fn crc32(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(!0, |crc: u32, word| {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        let place = |at: usize| TABLES[7 - at][(word >> (8 * at)) as usize & 0xff];
        (0..8).fold(0, |sum, at| sum ^ place(at))
    });
    !rest.iter().fold(sum, |crc, byte| TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// What a byte adds to the sum once as many bytes as the table's number follow it.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut at = 1;
    while at < 8 {
        let mut i = 0;
        while i < 256 {
            let before: u32 = tables[at - 1][i];
            tables[at][i] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            i += 1;
        }
        at += 1;
    }
    tables
};

/// Where the JSON of a line begins.
const JSON_AT: usize = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DecisionId, OrchestratorId};
    use crate::trace::TraceId;
    use crate::unit::Country;

    #[test]
    fn the_sum_is_the_one_of_ieee() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        // Known of the same sum: 32 zeros, and bytes over several words and a rest.
        assert_eq!(crc32(&[0; 32]), 0x190a_55ad);
        assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }

    #[test]
    fn a_line_is_the_record_as_it_serialises() {
        let full = UsageRecord {
            at_ms: 1_798_761_599_123,
            decision: Some(DecisionId(0xfeed)),
            trace: TraceId([0x4b; 16]),
            node: "fra-1".parse().unwrap(),
            door: "apps",
            method: "POST".into(),
            route: "/apps/{app}/\"\\\n".into(),
            status: 200,
            capability: Some("demo/\u{1}ä".into()),
            orchestrator: Some(OrchestratorId(7)),
            region: Some("FRA".parse().unwrap()),
            home: "FRA".parse().unwrap(),
            country: Country::parse("DE"),
            attempts: 1,
            bytes_up: 1024,
            bytes_down: u64::MAX,
            ttfb_us: 0,
            duration_us: 12,
            end: "whole",
            session: Some("s1".parse().unwrap()),
        };
        let bare = UsageRecord {
            decision: None,
            capability: None,
            orchestrator: None,
            region: None,
            country: None,
            session: None,
            ..full.clone()
        };
        for record in [full, bare] {
            let (mut out, mut json) = (Vec::new(), Vec::new());
            push(&mut out, &mut json, &record);
            let json = String::from_utf8(json).unwrap();
            assert_eq!(json, serde_json::to_string(&record).unwrap());
            assert_eq!(out, format!("{:08x} {json}\n", crc32(json.as_bytes())).as_bytes());
            assert!(is_sound(out.trim_ascii_end()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!is_sound(&line));
        }
    }
}
