//! One record as one line: the CRC-32 (IEEE 802.3) of its JSON in eight hexadecimal digits, a space, the
//! JSON, a newline.

use std::borrow::Cow;
use std::fmt;

use crate::journal::UsageRecord;
use crate::text::{Hex, Object};

/// The longest line, newline included, in bytes: three clipped texts of which each byte is
/// escaped as six, and the fields of bounded length.
pub const LINE_MAX: usize = 8 * 1024;

/// A record as text, written once: the journal keeps all of it, the access log what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// One JSON object.
    json: String,
    /// How much of it is shown: all fields but the session, without the closing brace.
    shown: usize,
}

impl Entry {
    /// Writes a record as its `Serialize` does, at a third of the cost.
    pub fn of(record: &UsageRecord) -> Self {
        let mut json = String::with_capacity(TYPICAL);
        let mut object = Object::begin(&mut json);
        object.number("at_ms", record.at_ms);
        object.hex("decision", record.decision.map(|it| it.0));
        object.name("trace", std::str::from_utf8(&record.trace.hex()).unwrap_or_default());
        object.name("node", record.node.as_str());
        object.name("door", record.door);
        // Of our own texts it is known that nothing needs an escape.
        match &record.method {
            Cow::Borrowed(ours) => object.name("method", ours),
            Cow::Owned(theirs) => object.text("method", clipped(theirs)),
        }
        match &record.route {
            Cow::Borrowed(ours) => object.name("route", ours),
            Cow::Owned(theirs) => object.text("route", clipped(theirs)),
        }
        object.number("status", record.status.into());
        match &record.capability {
            Some(capability) => object.text("capability", clipped(capability)),
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
        let shown = object.len();
        match &record.session {
            Some(session) => object.text("session", session.as_str()),
            None => object.json("session", "null"),
        }
        object.end();
        Self { json, shown }
    }

    /// Appends its line to `out`.
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        let json = self.json.as_bytes();
        // The last eight digits of sixteen: a sum has 32 bits.
        out.extend_from_slice(&Hex::of(crc32fast::hash(json).into()).as_bytes()[8..]);
        out.push(b' ');
        out.extend_from_slice(json);
        out.push(b'\n');
    }
}

/// Shows the fields of a record but for its session, which is nobody's affair but its owner's.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json[..self.shown])?;
        f.write_str("}")
    }
}

/// Returns what is kept of a text from outside, so that nobody escapes being metered by sending
/// one too long for a line.
fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(UsageRecord::TEXT_MAX)]
}

/// Returns whether `line`, without its newline, is one that [`Entry::push`] could have written.
pub(crate) fn is_sound(line: &[u8]) -> bool {
    let Some((head, json)) = line.split_at_checked(JSON_AT) else { return false };
    head == format!("{:08x} ", crc32fast::hash(json)).as_bytes()
        && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}

/// What to reserve for a record, in bytes.
const TYPICAL: usize = 512;
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
    fn a_line_is_the_record_as_it_serialises() {
        let full = UsageRecord {
            at_ms: 1_798_761_599_123,
            decision: Some(DecisionId(0xfeed)),
            trace: TraceId([0x4b; 16]),
            node: "fra-1".parse().unwrap(),
            door: "apps",
            method: "POST".into(),
            route: "/apps/{app}/\"\\\n".to_owned().into(),
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
            let (entry, mut out) = (Entry::of(&record), Vec::new());
            entry.push(&mut out);
            let json = serde_json::to_string(&record).unwrap();
            let shown: serde_json::Value = serde_json::from_str(&entry.to_string()).unwrap();
            assert_eq!((shown.get("session"), &shown["end"]), (None, &"whole".into()));
            assert_eq!(
                out,
                format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).as_bytes()
            );
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
