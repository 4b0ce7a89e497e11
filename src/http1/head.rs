//! One request's head: where it ends, and how it delimits the body after it.

use memchr::memchr_iter;

use crate::http1::{Framing, Length, Limits};

/// Why a request cannot be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line ends in a bare line feed or carriage return.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// The first line is not a method, a target and a version with one space between.
    #[error("the request line is not of the form \"METHOD target HTTP/1.1\"")]
    RequestLine,
    /// Another version than 1.0 or 1.1.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// The request line is too long.
    #[error("the request line is longer than 8 KiB; shorten the URL")]
    LineTooLong,
    /// The head, or the fields after a body, are too long or too many.
    #[error("the header fields are too long or too many; send fewer")]
    HeadTooLong,
    /// A field continues on a second line.
    #[error("a header field is folded over two lines; write it in one")]
    Folded,
    /// A field has no name, or one with characters that do not belong there.
    #[error("a header field's name is not a token, or has an underscore")]
    Name,
    /// A field's value has a control character.
    #[error("a header field's value has a control character")]
    Value,
    /// `Host` is missing, or there more than once, or not one host.
    #[error("HTTP/1.1 asks for exactly one Host field with one host in it")]
    Host,
    /// The target names another host than `Host`.
    #[error("the request line and the Host field name different hosts")]
    HostDiffers,
    /// The body's length is given twice, in two ways, or not in digits.
    #[error("Content-Length is not one number, or stands beside Transfer-Encoding")]
    Length,
    /// The body is coded otherwise than chunked, or twice, or in HTTP/1.0.
    #[error("Transfer-Encoding is not exactly \"chunked\", or stands in an HTTP/1.0 request")]
    Coding,
    /// A chunk is malformed.
    #[error("a chunk of the body cannot be read: {0}")]
    Chunk(&'static str),
    /// Something else than `100-continue` is expected.
    #[error("only \"Expect: 100-continue\" is understood")]
    Expect,
    /// A tunnel was asked for.
    #[error("this is no forward proxy; CONNECT is not served")]
    Connect,
}

impl Fault {
    /// Returns the status that tells of it (RFC 9110, section 15.5; RFC 6585).
    pub fn status(self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::HeadTooLong => 431,
            Self::Expect => 417,
            Self::Connect => 405,
            Self::Version => 505,
            Self::LineEnd
            | Self::RequestLine
            | Self::Folded
            | Self::Name
            | Self::Value
            | Self::Host
            | Self::HostDiffers
            | Self::Length
            | Self::Coding
            | Self::Chunk(_) => 400,
        }
    }
}

/// Returns where the head that begins `bytes` ends, its empty line included; `None` while it
/// does not. `searched` bytes of it were searched before.
pub(crate) fn end(bytes: &[u8], searched: usize, max: usize) -> Result<Option<usize>, Fault> {
    // An empty line before a request is skipped, as RFC 9112, section 2.2, asks for.
    let begin = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let from = searched.saturating_sub(3).max(begin);
    for at in memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()).map(|at| at + from) {
        if at == begin || bytes[at - 1] != b'\r' {
            return Err(Fault::LineEnd);
        }
        // A second empty line is no request.
        if at == begin + 1 {
            return Err(Fault::RequestLine);
        }
        if bytes[..at].ends_with(b"\r\n\r") {
            return if at < max { Ok(Some(at + 1)) } else { Err(Fault::HeadTooLong) };
        }
    }
    if bytes.len() >= max { Err(Fault::HeadTooLong) } else { Ok(None) }
}

/// Reads the head that begins `bytes`, and returns where it ends; `None` while it does not.
pub(crate) fn whole(
    bytes: &[u8],
    searched: usize,
    limits: &Limits,
) -> Result<Option<(usize, Framing)>, Fault> {
    // Most heads come whole and sound. Of others it is told below what is missing or wrong,
    // and of one that comes byte by byte no byte is read at every turn.
    if searched == 0
        && let Ok((end, framing)) = read(bytes, limits)
        && end <= limits.head_max
    {
        return Ok(Some((end, framing)));
    }
    // A target without an end is told as such, not as a head that is too long.
    let line_max = limits.line_max + 2 * b"\r\n".len();
    if searched <= line_max
        && bytes.len() > line_max
        && memchr::memchr(b'\n', &bytes[2..line_max]).is_none()
    {
        return Err(Fault::LineTooLong);
    }
    let Some(end) = end(bytes, searched, limits.head_max)? else { return Ok(None) };
    Ok(Some(read(&bytes[..end], limits)?))
}

/// Reads a head up to its empty line; returns its length, and what follows it.
fn read(bytes: &[u8], limits: &Limits) -> Result<(usize, Framing), Fault> {
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line_end = memchr::memchr(b'\n', head).ok_or(Fault::RequestLine)?;
    let (line, mut rest) = head.split_at(line_end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(Fault::LineEnd)?;
    if line.len() > limits.line_max {
        return Err(Fault::LineTooLong);
    }
    let (target, is_old) = request_line(line)?;
    let mut found = Found::default();
    while !rest.starts_with(b"\r\n") {
        if found.fields == limits.fields_max {
            return Err(Fault::HeadTooLong);
        }
        let field = Field::first(rest)?;
        found.note(field.name, field.value, is_old)?;
        rest = field.rest;
    }
    if found.host.is_none() && !is_old {
        return Err(Fault::Host);
    }
    if let (Some(named), Some(host)) = (authority(target), found.host)
        && !named.eq_ignore_ascii_case(host)
    {
        return Err(Fault::HostDiffers);
    }
    let body = match (found.length, found.chunked) {
        (Some(_), true) => return Err(Fault::Length),
        (None, true) => Length::Chunked,
        (length, false) => Length::Known(length.unwrap_or(0)),
    };
    let end = bytes.len() - rest.len() + b"\r\n".len();
    Ok((end, Framing { body, upgrade: found.upgrade && !is_old }))
}

/// Reads the fields after a chunked body; none of them may say anything of its framing.
pub(crate) fn read_trailers(bytes: &[u8]) -> Result<(), Fault> {
    let mut rest = bytes;
    while rest != b"\r\n" {
        let field = Field::first(rest)?;
        if NEVER_LATE.iter().any(|it| field.name.eq_ignore_ascii_case(it)) {
            return Err(Fault::Chunk("a field after it may stand in the head only"));
        }
        rest = field.rest;
    }
    Ok(())
}

/// What a head's fields say of framing.
#[derive(Default)]
struct Found<'a> {
    fields: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Found<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8], is_old: bool) -> Result<(), Fault> {
        self.fields += 1;
        // The lengths alone leave most fields out.
        match name.len() {
            4 if is_named(name, b"host") => {
                if self.host.is_some() || !is_host(value) {
                    return Err(Fault::Host);
                }
                self.host = Some(value);
            }
            6 if is_named(name, b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Fault::Expect);
            }
            7 if is_named(name, b"upgrade") => self.upgrade = true,
            14 if is_named(name, b"content-length") => {
                if self.length.is_some() {
                    return Err(Fault::Length);
                }
                self.length = Some(digits(value).ok_or(Fault::Length)?);
            }
            17 if is_named(name, b"transfer-encoding") => {
                if self.chunked || is_old || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the target, and whether the version is 1.0.
fn request_line(line: &[u8]) -> Result<(&[u8], bool), Fault> {
    // What belongs nowhere in it is told as a broken line where it breaks one.
    let bad = || match memchr::memchr(b'\r', line) {
        Some(_) => Fault::LineEnd,
        None => Fault::RequestLine,
    };
    let (method, rest) = word(line, &TOKEN).ok_or_else(bad)?;
    if method == b"CONNECT" {
        return Err(Fault::Connect);
    }
    let (target, version) = word(rest, &VISIBLE).ok_or_else(bad)?;
    let has_form = target.starts_with(b"/")
        || authority(target).is_some_and(is_host)
        || (target == b"*" && method == b"OPTIONS");
    // Some take a backslash in a path for a slash.
    let path_end = memchr::memchr2(b'?', b'\\', target);
    let is_slashed_back = path_end.is_some_and(|at| target[at] == b'\\');
    if !has_form || is_slashed_back {
        return Err(bad());
    }
    match version {
        b"HTTP/1.1" => Ok((target, false)),
        b"HTTP/1.0" => Ok((target, true)),
        _ if version.starts_with(b"HTTP/") && span(version, &VISIBLE) == version.len() => {
            Err(Fault::Version)
        }
        _ => Err(bad()),
    }
}

/// Splits off what stands before the first space: one byte of `allowed` or more, and nothing
/// else.
fn word<'a>(bytes: &'a [u8], allowed: &Class) -> Option<(&'a [u8], &'a [u8])> {
    let end = span(bytes, allowed);
    (end > 0 && bytes.get(end) == Some(&b' ')).then(|| (&bytes[..end], &bytes[end + 1..]))
}

/// Returns how many bytes of `allowed` stand first.
fn span(bytes: &[u8], allowed: &Class) -> usize {
    // Four at a time, without a look at each whether it is the last.
    let all = |four: &&[u8; 4]| four.iter().fold(true, |all, byte| all & is(allowed, *byte));
    let at = 4 * bytes.as_chunks().0.iter().take_while(all).count();
    at + bytes[at..].iter().take_while(|byte| is(allowed, **byte)).count()
}

/// Tells whether a field's name is `lower`, which is letters and hyphens, in whatever case: of
/// what names are made of, only the other case of a letter differs from these in that one bit.
fn is_named<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let differs = |name: &[u8; N]| {
        name.iter().zip(lower).fold(0, |differs, (byte, lower)| differs | ((byte | 0x20) ^ lower))
    };
    name.try_into().is_ok_and(|name| differs(name) == 0)
}

/// Returns the authority of a target in absolute form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = |prefix: &[u8]| {
        let begin = target.get(..prefix.len())?;
        begin.eq_ignore_ascii_case(prefix).then(|| &target[prefix.len()..])
    };
    let rest = scheme(b"http://").or_else(|| scheme(b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// One field of a head, and what stands after its line.
struct Field<'a> {
    name: &'a [u8],
    /// Without the white space around it.
    value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Field<'a> {
    /// Reads the field that begins `bytes`, in which every line feed follows a carriage return.
    fn first(bytes: &'a [u8]) -> Result<Self, Fault> {
        if matches!(bytes.first(), Some(b' ' | b'\t')) {
            return Err(Fault::Folded);
        }
        let colon = span(bytes, &NAME);
        if colon == 0 || bytes.get(colon) != Some(&b':') {
            return Err(Fault::Name);
        }
        let after = &bytes[colon + 1..];
        let end = control(after);
        if !after[end..].starts_with(b"\r\n") {
            let line = memchr::memchr(b'\n', after).map_or(after, |at| &after[..at]);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let is_broken = memchr::memchr(b'\r', line).is_some();
            return Err(if is_broken { Fault::LineEnd } else { Fault::Value });
        }
        let (value, rest) = (after[..end].trim_ascii(), &after[end + 2..]);
        Ok(Self { name: &bytes[..colon], value, rest })
    }
}

/// Returns how many bytes come before the first control character, a tab not being one.
fn control(bytes: &[u8]) -> usize {
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        if let Some(first) = first_low(u64::from_le_bytes(*word)) {
            let found = match word[first] {
                b'\t' => word.iter().position(is_control),
                _ => Some(first),
            };
            if let Some(found) = found {
                return at + found;
            }
        }
        at += 8;
    }
    at + rest.iter().position(is_control).unwrap_or(rest.len())
}

/// Returns where, counted from the lowest, the first of eight bytes is that is below 0x20, or
/// 0x7f.
fn first_low(word: u64) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let deleted = word ^ (0x7f * ONES);
    // A byte takes from those above it only, so that the lowest mark is never a wrong one.
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word;
    let marks = (below(word, 0x20) | below(deleted, 1)) & (0x80 * ONES);
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

/// Tells whether a byte belongs to a class.
#[inline]
fn is(class: &Class, byte: u8) -> bool {
    class[usize::from(byte)]
}

/// A host with an optional port, and nothing that any reader takes for a separator.
fn is_host(value: &[u8]) -> bool {
    if value.len() > HOST_MAX {
        return false;
    }
    let (name, port) = match memchr::memrchr(b':', value) {
        Some(at) if !value.ends_with(b"]") => (&value[..at], Some(&value[at + 1..])),
        Some(_) | None => (value, None),
    };
    let is_named = match name.strip_prefix(b"[") {
        Some(rest) => rest.strip_suffix(b"]").is_some_and(|address| {
            let fits = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            !address.is_empty() && address.iter().all(fits)
        }),
        None => !name.is_empty() && span(name, &HOST) == name.len(),
    };
    is_named && port.is_none_or(is_port)
}

/// Digits of a number that a port can be, or none at all (RFC 3986, section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0_u16, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    number.is_some()
}

/// A number as everybody writes it: a leading zero makes it octal for some.
fn digits(value: &[u8]) -> Option<u64> {
    let is_padded = value.len() > 1 && value.starts_with(b"0");
    if value.is_empty() || value.len() > 18 || is_padded || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// For each byte, whether it belongs.
type Class = [bool; 256];

/// Letters, digits and `others`.
const fn letters_and(others: &[u8]) -> Class {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// RFC 9110, section 5.6.2.
const TOKEN: Class = letters_and(b"!#$%&'*+-.^_`|~");
/// What a field's name is made of: a token, but for the underscore, which some servers take for
/// a hyphen.
const NAME: Class = {
    let mut table = TOKEN;
    table[b'_' as usize] = false;
    table
};
/// What a target is made of; no fragment goes over the wire.
const VISIBLE: Class = letters_and(b"!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
/// What a host's name is made of.
const HOST: Class = letters_and(b".-_");
/// The longest name of the DNS, with a port.
const HOST_MAX: usize = 253 + 6;
/// Fields that mean something before the body only (RFC 9110, section 6.5.1), and those that
/// concern a connection or are told of a client by a proxy.
const NEVER_LATE: [&[u8]; 23] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"trailer",
    b"te",
    b"authorization",
    b"proxy-authorization",
    b"content-type",
    b"content-encoding",
    b"content-range",
    b"connection",
    b"keep-alive",
    b"upgrade",
    b"expect",
    b"cache-control",
    b"max-forwards",
    b"range",
    b"cookie",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_looked_at_together_are_seen_as_one_by_one(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\t'), 0..=0x21_u8, 0x7e..=0x81_u8, any::<u8>(), Just(b'a')], 0..40,
            ),
            name in "[-A-Za-z0-9.!^`|~]{0,3}(?i:content-length|-host)?",
        ) {
            let one_by_one = |wanted: &dyn Fn(&u8) -> bool| {
                bytes.iter().position(wanted).unwrap_or(bytes.len())
            };
            let is_control = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
            prop_assert_eq!(control(&bytes), one_by_one(&is_control));
            prop_assert_eq!(span(&bytes, &NAME), one_by_one(&|byte| !is(&NAME, *byte)));
            let (name, lower) = (name.as_bytes(), b"content-length");
            prop_assert_eq!(is_named(name, lower), name.eq_ignore_ascii_case(lower));
        }
    }
}
