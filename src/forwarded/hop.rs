//! One hop of a forwarding header.

use std::net::IpAddr;

use crate::address;

/// What one element of the list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// An empty element, which HTTP lists may have.
    Nothing,
    /// The address the proxy saw.
    Address(IpAddr),
    /// The proxy does not tell.
    Hidden,
    /// Not an address.
    Malformed,
}

/// Reads one element of one of the two headers.
pub(super) type Split = fn(&[u8]) -> Hop;

/// Splits a header line before its last element: what is left of the comma, and the element.
///
/// Quotes are matched from the right, where the trusted proxy wrote. Matched from the left,
/// a client could open a quote and swallow what the proxy appended.
pub(super) fn last(line: &[u8]) -> (&[u8], &[u8]) {
    match split_before_last(line, b',') {
        Some((before, element)) => (before, element),
        None => (&[], line),
    }
}

/// Reads an element of `X-Forwarded-For`: an address, with or without a port.
pub(super) fn plain(element: &[u8]) -> Hop {
    let Some(text) = text(element) else { return Hop::Malformed };
    if text.is_empty() { Hop::Nothing } else { node(unquoted(text)) }
}

/// Reads an element of `Forwarded`: the value of its `for` parameter.
pub(super) fn rfc7239(element: &[u8]) -> Hop {
    let Some(text) = text(element) else { return Hop::Malformed };
    if text.is_empty() {
        return Hop::Nothing;
    }
    let mut found = None;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (before, pair) = split_before_last(rest, b';').unwrap_or((&[], rest));
        rest = before;
        let pair = self::text(pair).unwrap_or_default();
        let Some((name, value)) = pair.split_once('=') else {
            if pair.is_empty() {
                continue;
            }
            return Hop::Malformed;
        };
        // Twice is against RFC 7239, and each reader could take another one.
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return Hop::Malformed;
        }
    }
    found.map_or(Hop::Hidden, |value| node(unquoted(value)))
}

/// Reads `address`, `v4:port`, `[v6]`, `[v6]:port`, `unknown` or `_name`.
fn node(text: &str) -> Hop {
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Hop::Hidden;
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else { return Hop::Malformed };
        if !host.contains(':') {
            return Hop::Malformed;
        }
        match (rest, rest.strip_prefix(':')) {
            ("", _) => (host, None),
            (_, Some(port)) => (host, Some(port)),
            (_, None) => return Hop::Malformed,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) | None => (text, None),
        }
    };
    if !port.is_none_or(is_port) {
        return Hop::Malformed;
    }
    address::parse(host).map_or(Hop::Malformed, Hop::Address)
}

/// A port is up to five digits, or hidden as `_name` (RFC 7239, section 6).
fn is_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    digits || (text.len() > 1 && text.starts_with('_'))
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inner.map_or(text, |it| it.trim_matches([' ', '\t']))
}

fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.trim_matches([' ', '\t']))
}

/// Splits at the last `mark` outside of quotes.
fn split_before_last(bytes: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let mut quoted = false;
    for (at, byte) in bytes.iter().enumerate().rev() {
        if *byte == b'"' {
            quoted = !quoted;
        } else if *byte == mark && !quoted {
            return Some((&bytes[..at], &bytes[at + 1..]));
        }
    }
    None
}
