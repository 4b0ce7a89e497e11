//! Text written by hand where there is much of it: flat JSON objects, hexadecimal digits,
//! milliseconds.

use std::fmt::{self, Write};

use bytes::BufMut;

/// One flat JSON object, appended to a text field by field. Keys are plain names, which need
/// no escape.
#[derive(Debug)]
pub struct Object<'a> {
    text: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Begins an object at the end of `text`.
    pub fn begin(text: &'a mut String) -> Self {
        text.push('{');
        Self { text, empty: true }
    }

    /// Appends a field whose value is already JSON.
    #[inline(always)]
    pub fn json(&mut self, key: &str, value: &str) {
        self.key(key, "\":");
        self.text.push_str(value);
    }

    /// Appends the fields of an object that was written before, begun with its brace and left
    /// open.
    pub fn fields(&mut self, open: &str) {
        let fields = open.strip_prefix('{').unwrap_or(open);
        if !self.empty && !fields.is_empty() {
            self.text.push(',');
        }
        self.empty &= fields.is_empty();
        self.text.push_str(fields);
    }

    /// Appends a text.
    #[inline]
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, "\":\"");
        escape(self.text, value);
        self.text.push('"');
    }

    /// Appends a text of which it is known that nothing in it needs an escape.
    #[inline(always)]
    pub fn name(&mut self, key: &str, value: &str) {
        self.key(key, "\":\"");
        self.text.push_str(value);
        self.text.push('"');
    }

    /// Appends what `value` looks like, as a text.
    pub fn shown(&mut self, key: &str, value: fmt::Arguments<'_>) {
        self.key(key, "\":\"");
        // Writing to a text does not fail; whoever shows itself badly is cut there.
        let _cut: fmt::Result = Escaped(self.text).write_fmt(value);
        self.text.push('"');
    }

    /// Appends a number.
    #[inline(always)]
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key, "\":");
        self.text.push_str(itoa::Buffer::new().format(value));
    }

    /// Appends a number as a text of 16 hexadecimal digits; `null` when there is none.
    #[inline]
    pub fn hex(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.name(key, &Hex::of(value)),
            None => self.json(key, "null"),
        }
    }

    /// Returns how long the text is by now.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Ends the object.
    pub fn end(self) {
        self.text.push('}');
    }

    /// Appends a key and what stands between it and its value. Within its callers both are
    /// constants, and so a store or two.
    #[inline(always)]
    fn key(&mut self, key: &str, between: &str) {
        self.text.push_str(if self.empty { "\"" } else { ",\"" });
        self.empty = false;
        self.text.push_str(key);
        self.text.push_str(between);
    }
}

/// Sixteen hexadecimal digits, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex([u8; 16]);

impl Hex {
    /// Returns the digits of `value`.
    pub fn of(value: u64) -> Self {
        let mut digits = [0; 16];
        digits[..8].copy_from_slice(&eight((value >> 32) as u32));
        digits[8..].copy_from_slice(&eight(value as u32));
        Self(digits)
    }

    /// Returns the digits in ASCII.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Appends microseconds as milliseconds with `n_digits` behind the point, at most three.
pub fn push_ms(text: &mut impl BufMut, micros: u64, n_digits: u32) {
    let unit = 10_u64.pow(n_digits.min(3));
    let parts = micros / (1000 / unit);
    text.put_slice(itoa::Buffer::new().format(parts / unit).as_bytes());
    text.put_u8(b'.');
    // A one before the digits keeps their zeros.
    text.put_slice(&itoa::Buffer::new().format(unit + parts % unit).as_bytes()[1..]);
}

impl std::ops::Deref for Hex {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Returns eight digits, all worked out at once: one to a byte of a word.
fn eight(value: u32) -> [u8; 8] {
    let word = u64::from(value);
    let word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    let word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((word + 6 * ONES) >> 4) & ONES;
    let ascii = word + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10);
    ascii.to_be_bytes()
}

fn escape(text: &mut String, value: &str) {
    let (words, rest) = value.as_bytes().as_chunks::<8>();
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if words.iter().all(|it| is_plain(u64::from_le_bytes(*it))) && rest.iter().all(plain) {
        text.push_str(value);
    } else if let Ok(quoted) = serde_json::to_string(value) {
        text.push_str(&quoted[1..quoted.len() - 1]);
    }
}

/// Tells whether none of eight bytes is a control character, a quote or a backslash.
fn is_plain(word: u64) -> bool {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(0x20 * ONES) & !word;
    let quote = zero(word ^ (u64::from(b'"') * ONES));
    let backslash = zero(word ^ (u64::from(b'\\') * ONES));
    (control | quote | backslash) & (0x80 * ONES) == 0
}

/// Takes what is formatted into a JSON text.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_object_reads_back_as_what_was_written(
            text in "\\PC{0,20}", control in "[\\x00-\\x20\"\\\\{}]{0,19}", number: u64, some: bool,
        ) {
            let mut line = "before ".to_owned();
            let mut object = Object::begin(&mut line);
            object.text("text", &text);
            object.text("control", &control);
            object.shown("shown", format_args!("{control}{text}"));
            object.number("number", number);
            object.hex("hex", some.then_some(number));
            object.name("name", "plain");
            object.fields("{\"more\":1");
            object.json("json", "true");
            object.end();
            let value: serde_json::Value = serde_json::from_str(&line["before ".len()..]).unwrap();
            let expected = serde_json::json!({
                "text": text, "control": control, "shown": format!("{control}{text}"),
                "number": number, "hex": some.then(|| format!("{number:016x}")),
                "name": "plain", "more": 1, "json": true,
            });
            prop_assert_eq!(value, expected);
        }
    }
    #[test]
    fn milliseconds_keep_their_zeros() {
        for (micros, n_digits, expected) in [
            (0, 3, "0.000"),
            (7, 3, "0.007"),
            (1_234_567, 3, "1234.567"),
            (1_234_067, 1, "1234.0"),
            (999, 1, "0.9"),
        ] {
            let mut text = Vec::new();
            push_ms(&mut text, micros, n_digits);
            assert_eq!(std::str::from_utf8(&text), Ok(expected));
        }
    }
}
