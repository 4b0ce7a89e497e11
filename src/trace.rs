//! Trace context as of the W3C: which trace a request belongs to, carried in `traceparent`.
//!
//! Pure: the random words of new ids are arguments. A header that breaks a rule is not
//! repaired; the request then starts a trace of its own, as the recommendation asks.

use std::fmt;
use std::str::FromStr;

use crate::text::Hex;

/// One span of one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span within it; never all zero.
    pub span_id: [u8; 8],
    /// Whether the caller records this trace.
    pub sampled: bool,
}

/// Which trace; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Why a text is not a [`TraceContext`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent reads 00-<32 hex>-<16 hex>-<2 hex>, in lower case, no id all zero")]
pub struct BadTraceparent;

impl TraceContext {
    /// Starts a trace of which nobody told us, from three random words; not sampled, for
    /// whoever records traces decides that before us.
    pub fn new(trace: [u64; 2], span: u64) -> Self {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&trace[0].to_be_bytes());
        // One word in 2^64 is zero, and an id must not be.
        trace_id[8..].copy_from_slice(&trace[1].max(1).to_be_bytes());
        Self { trace_id: TraceId(trace_id), span_id: span.max(1).to_be_bytes(), sampled: false }
    }

    /// Returns the next span of the same trace, named by a random word.
    #[must_use]
    pub fn child(&self, span: u64) -> Self {
        Self { span_id: span.max(1).to_be_bytes(), ..*self }
    }

    /// Returns the value of a `traceparent` header.
    pub fn header(&self) -> [u8; LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id.hex());
        text[36..52].copy_from_slice(Hex::of(u64::from_be_bytes(self.span_id)).as_bytes());
        text[54] = b'0' + u8::from(self.sampled);
        text
    }
}

impl TraceId {
    /// Returns its 32 hexadecimal digits, as logs and the journal show it.
    pub fn hex(&self) -> [u8; 32] {
        let id = u128::from_be_bytes(self.0);
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(Hex::of((id >> 64) as u64).as_bytes());
        digits[16..].copy_from_slice(Hex::of(id as u64).as_bytes());
        digits
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl serde::Serialize for TraceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceparent;

    fn from_str(text: &str) -> Result<Self, BadTraceparent> {
        let bytes = text.as_bytes();
        if bytes.len() != LEN || !text.starts_with("00-") || bytes[35] != b'-' || bytes[52] != b'-'
        {
            return Err(BadTraceparent);
        }
        let trace_id = number(&bytes[3..35]).ok_or(BadTraceparent)?;
        let span_id = number(&bytes[36..52]).ok_or(BadTraceparent)?;
        let flags = number(&bytes[53..]).ok_or(BadTraceparent)?;
        if trace_id == 0 || span_id == 0 {
            return Err(BadTraceparent);
        }
        Ok(Self {
            trace_id: TraceId(trace_id.to_be_bytes()),
            span_id: (span_id as u64).to_be_bytes(),
            sampled: flags & SAMPLED == SAMPLED,
        })
    }
}

/// The value of a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.header()).unwrap_or_default())
    }
}

/// Returns `value` when a `tracestate` header of it may be passed on: printable ASCII, 1 to
/// [`STATE_MAX`] bytes. It is carried, never read; without a valid `traceparent` beside it
/// the caller drops it.
pub fn passable_state(value: &[u8]) -> Option<&str> {
    let printable = value.iter().all(|it| matches!(it, b' '..=b'~' | b'\t'));
    if value.is_empty() || value.len() > STATE_MAX || !printable {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// The longest `tracestate` passed on, in bytes: what the recommendation asks every vendor
/// to carry at least.
pub const STATE_MAX: usize = 512;

/// Reads at most 32 lower-case hexadecimal digits; upper case is against the rules.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// Version, trace id, span id and flags with three dashes between.
const LEN: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
const SAMPLED: u128 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_reads_and_prints_back() {
        let trace: TraceContext = GOOD.parse().unwrap();
        assert!(trace.sampled);
        assert_eq!(trace.to_string(), GOOD);
        assert_eq!(trace.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let child = trace.child(7);
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (from, to) in [
            ("00-", "01-"),
            ("00-", "ff-"),
            ("00-", "0-0"),
            ("4bf9", "4BF9"),
            ("4bf9", "+bf9"),
            ("36-", "36_"),
            ("b7-", "b7_"),
            ("-01", "-0g"),
            ("-01", "-1"),
            ("-01", "-01-"),
            ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            ("00f067aa0ba902b7", "0000000000000000"),
            ("a902b7", "ä02b7"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_eq!(bad.parse::<TraceContext>(), Err(BadTraceparent), "{bad}");
        }
        assert_eq!("".parse::<TraceContext>(), Err(BadTraceparent));
    }

    #[test]
    fn flags_of_tomorrow_are_read_for_the_one_we_know() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(text.parse::<TraceContext>().unwrap().sampled, sampled);
        }
    }

    #[test]
    fn zero_words_still_make_valid_ids() {
        let trace = TraceContext::new([0, 0], 0);
        assert_eq!(trace.to_string().parse(), Ok(trace));
        assert_eq!(trace.child(0).to_string().parse(), Ok(trace));
    }

    #[test]
    fn a_state_is_passed_on_up_to_its_limit() {
        let at_limit = "x".repeat(STATE_MAX);
        assert_eq!(passable_state(at_limit.as_bytes()), Some(at_limit.as_str()));
        assert_eq!(passable_state("x".repeat(STATE_MAX + 1).as_bytes()), None);
        assert_eq!(passable_state(b"rojo=1,\tcongo=t61 x"), Some("rojo=1,\tcongo=t61 x"));
        for bad in [&b""[..], b"a\n", b"a\x7f", "ä".as_bytes()] {
            assert_eq!(passable_state(bad), None);
        }
    }

    proptest! {
        #[test]
        fn every_context_reads_back(words: [u64; 2], span: u64, child: u64, sampled: bool) {
            let trace = TraceContext { sampled, ..TraceContext::new(words, span) };
            prop_assert_eq!(trace.to_string().parse(), Ok(trace));
            let child = trace.child(child);
            prop_assert_eq!(child.trace_id, trace.trace_id);
            prop_assert_eq!(child.to_string().parse(), Ok(child));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            prop_assert_eq!(text.parse::<TraceContext>(), Err(BadTraceparent));
        }

        #[test]
        fn only_what_prints_the_same_is_read(
            text in "(00|01)-[0-9a-fA-F]{31,32}-[0-9a-f]{16}-0[01]",
        ) {
            if let Ok(trace) = text.parse::<TraceContext>() {
                prop_assert_eq!(trace.to_string(), text);
            }
        }

        #[test]
        fn a_state_is_passed_on_unchanged(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(text) = passable_state(&value) {
                prop_assert_eq!(text.as_bytes(), &value[..]);
            }
        }
    }
}
