//! One log event as one line of JSON, written by hand: there is one for every request.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;
use crate::text::Object;

/// Writes events as the library's flattened JSON, field for field.
#[derive(Debug)]
pub(super) struct Line {
    /// The library's own, for events within a span, which only debugging has.
    within_spans: Format<Json>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { within_spans: tracing_subscriber::fmt::format().json().flatten_event(true) }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if context.lookup_current().is_some() {
            return self.within_spans.format_event(context, writer, event);
        }
        let mut line = String::with_capacity(TYPICAL);
        let mut object = Object::begin(&mut line);
        let stamp = stamp(clock::wall());
        object.name("timestamp", std::str::from_utf8(&stamp).unwrap_or_default());
        object.name("level", event.metadata().level().as_str());
        event.record(&mut Fields(&mut object));
        object.text("target", event.metadata().target());
        object.end();
        line.push('\n');
        writer.write_str(&line)
    }
}

/// Appends fields to an object.
struct Fields<'a, 'b>(&'a mut Object<'b>);

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.json(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.json(field.name(), if value { "true" } else { "false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.json(field.name(), &serde_json::json!(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == FIELDS {
            // What it shows is known; writing to a text does not fail.
            let _cut: fmt::Result = write!(Inner(self.0), "{value:?}");
            return;
        }
        self.0.shown(field.name(), format_args!("{value:?}"));
    }
}

/// Takes the text of an object, and appends its fields to another.
struct Inner<'a, 'b>(&'a mut Object<'b>);

impl Write for Inner<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text != "}" {
            self.0.fields(text);
        }
        Ok(())
    }
}

/// Returns a time since the Unix epoch as RFC 3339 has it, in UTC to the microsecond.
fn stamp(time: Duration) -> [u8; STAMP.len()] {
    thread_local! {
        /// The second of the last line: most differ from the one before behind the point only.
        static LAST: Cell<(u64, [u8; STAMP.len()])> = const { Cell::new((u64::MAX, *STAMP)) };
    }
    let (last, mut text) = LAST.get();
    if last != time.as_secs() {
        text = second(time.as_secs());
        LAST.set((time.as_secs(), text));
    }
    put(&mut text[20..26], time.subsec_micros().into());
    text
}

/// Returns a second since the Unix epoch in that form, without what comes behind the point.
fn second(second: u64) -> [u8; STAMP.len()] {
    let (days, second) = (second / 86_400, second % 86_400);
    // Years that begin in March end with their leap day; eras of 400 of them are alike.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let mut text = *STAMP;
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..19], second % 60);
    text
}

/// Writes the last digits of a number, as many as there is room for.
fn put(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The field whose value is the text of an object, written before, with its closing brace
/// apart: its fields stand in the line as if each had been given.
const FIELDS: &str = "usage";
const STAMP: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
/// The access log's lines are some 400 bytes long.
const TYPICAL: usize = 512;

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    struct Parts<'a>((&'a str, &'a str));

    impl fmt::Display for Parts<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0.0)?;
            f.write_str(self.0.1)
        }
    }

    /// What one of everything looks like, without its time.
    fn written(log: impl Fn(), by_hand: bool) -> Vec<String> {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
        let layer = layer.with_writer(kept.clone());
        let registry = tracing_subscriber::registry();
        if by_hand {
            let registry = registry.with(layer.event_format(Line::new()));
            tracing::subscriber::with_default(registry, log);
        } else {
            tracing::subscriber::with_default(registry.with(layer), log);
        }
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let untimed = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["timestamp"].as_str().unwrap().len(), STAMP.len());
            line.split_once(',').unwrap().1.to_owned()
        };
        text.lines().map(untimed).collect()
    }

    #[test]
    fn a_line_is_the_one_the_library_would_have_written() {
        let log = || {
            let (none, some) = (None::<u64>, Some("x"));
            tracing::info!(target: "access", door = "apps", n = 7_u64, below = -7, "served");
            tracing::warn!(share = 0.5, whole = 1.0, odd = f64::NAN, is = true, none, some, "said");
            tracing::error!(said = "\"quoted\"\n\tä\u{1}\\", shown = %"\"\\\u{7f}\r", debug = ?"a\"b");
            tracing::info!(http.status = 200_u16, text = "", big = u128::MAX);
            let _span = tracing::info_span!("request", door = "apps").entered();
            tracing::info!(within = true, "said");
        };
        let lines = written(log, true);
        assert_eq!(lines, written(log, false));
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_fields_of_a_record_stand_in_the_line_itself() {
        let log = || {
            let record = Parts((r#"{"status":200,"end":"whole""#, "}"));
            tracing::info!(target: "access", usage = %record, "served");
        };
        let expected =
            r#""level":"INFO","message":"served","status":200,"end":"whole","target":"access"}"#;
        assert_eq!(written(log, true), [expected]);
    }

    #[test]
    fn a_stamp_is_the_civil_time() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            let stamp = stamp(Duration::new(seconds, 7_999));
            assert_eq!(std::str::from_utf8(&stamp), Ok(expected));
        }
    }
}
