//! An app's name as one segment of a path, readable where it can be.

/// What a segment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug {
    /// The app.
    pub app: String,
    /// Fingerprint of price and graphics card; 0 for neither.
    pub variant: u32,
}

impl Slug {
    /// Returns the segment: letters, digits, `-`, `_` and `.` stand for themselves, any
    /// other byte is `~` and two hexadecimal digits; a variant follows an `@`.
    pub fn write(app: &str, variant: u32) -> String {
        let mut text = String::with_capacity(app.len() + 12);
        for byte in app.bytes() {
            match byte {
                b'-' | b'_' | b'.' => text.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
                _ => text.push_str(&format!("~{byte:02x}")),
            }
        }
        match variant {
            0 => text,
            _ => format!("{text}@{variant:08x}"),
        }
    }

    /// Reads a segment back; `None` when it is not of that form.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let parts = memchr::memchr(b'@', text.as_bytes()).map(|at| (&text[..at], &text[at + 1..]));
        let (name, variant) = match parts {
            Some((name, digits)) if digits.len() == 8 => {
                (name, u32::from_str_radix(digits, 16).ok()?)
            }
            Some(_) => return None,
            None => (text, 0),
        };
        let mut app = Vec::with_capacity(name.len());
        let mut bytes = name.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'~' => {
                    let mut digit = || char::from(bytes.next()?).to_digit(16);
                    app.push((digit()? << 4 | digit()?) as u8);
                }
                b'-' | b'_' | b'.' => app.push(byte),
                _ if byte.is_ascii_alphanumeric() => app.push(byte),
                _ => return None,
            }
        }
        Some(Self { app: String::from_utf8(app).ok()?, variant })
    }
}

/// An app's name has at most 128 bytes, each three characters here.
const LONGEST: usize = 128 * 3 + 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_name_stays_readable() {
        assert_eq!(Slug::write("demo/echo", 0), "demo~2fecho");
        assert_eq!(Slug::write("a b", 0xab), "a~20b@000000ab");
    }

    #[test]
    fn what_was_not_written_here_is_not_read() {
        for bad in ["a/b", "a~2", "a~zz", "a@1", "a@zzzzzzzz", "~ff", &"x".repeat(400)] {
            assert_eq!(Slug::read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_reads_back(app in ".{1,40}", variant in any::<u32>()) {
            let text = Slug::write(&app, variant);
            prop_assert!(text.bytes().all(|it| it.is_ascii_graphic() && it != b'/'));
            prop_assert_eq!(Slug::read(&text), Some(Slug { app, variant }));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            Slug::read(&text);
        }
    }
}
