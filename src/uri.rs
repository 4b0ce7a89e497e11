//! The service URI of an orchestrator, in one canonical form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};

/// Where an orchestrator answers: `http` or `https`, host, port and an optional base path.
///
/// Canonical: a missing scheme means `https` (as go-livepeer reads it), the port is always
/// written, the host is lower case, no trailing slash, no query. Two spellings of one
/// service compare equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceUri(Arc<Parts>);

/// The text comes first, and decides: of two that are equal the rest is, too.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    text: String,
    tls: bool,
    host_at: u16,
    port_at: u16,
    path_at: u16,
    port: u16,
    host_field: HeaderValue,
}

/// Why a text is not a [`ServiceUri`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// Longer than [`ServiceUri::MAX`] bytes.
    #[error("longer than {} bytes", ServiceUri::MAX)]
    TooLong,
    /// Not a URI, or without a host.
    #[error("not an absolute URI such as https://host:8935")]
    Malformed,
    /// A scheme other than `http` or `https`.
    #[error("scheme is neither http nor https")]
    Scheme,
    /// User name, password, query or fragment.
    #[error("user names, queries and fragments do not belong in a service URI")]
    Extra,
}

impl ServiceUri {
    /// The longest URI accepted, in bytes.
    pub const MAX: usize = 512;

    /// Returns the whole URI, canonical, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Tells whether the service speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.0.tls
    }

    /// Returns the host; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host = &self.0.text[usize::from(self.0.host_at)..usize::from(self.0.port_at) - 1];
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns `host:port`.
    pub fn authority(&self) -> &str {
        &self.0.text[usize::from(self.0.host_at)..usize::from(self.0.path_at)]
    }

    /// Returns the same as the value of a `Host` field: made once, since every request needs it.
    pub fn host_field(&self) -> &HeaderValue {
        &self.0.host_field
    }

    /// Returns the base path: empty, or `/…` without a trailing slash.
    pub fn base_path(&self) -> &str {
        &self.0.text[usize::from(self.0.path_at)..]
    }
}

impl FromStr for ServiceUri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        let text = text.trim();
        if text.len() > Self::MAX {
            return Err(BadUri::TooLong);
        }
        if text.contains('#') {
            return Err(BadUri::Extra);
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = full.parse().map_err(|_not_a_uri| BadUri::Malformed)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return Err(BadUri::Scheme),
        };
        let authority: &Authority = uri.authority().ok_or(BadUri::Malformed)?;
        if authority.host().is_empty() {
            return Err(BadUri::Malformed);
        }
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(BadUri::Extra);
        }
        // `host:` with an empty or oversized port parses as no port at all.
        let bare = authority.as_str().len() == authority.host().len();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if bare => {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(BadUri::Malformed),
        };
        let scheme = if tls { "https" } else { "http" };
        let host = authority.host().to_ascii_lowercase();
        let path = uri.path().trim_end_matches('/');
        let host_at = scheme.len() + 3;
        let port_at = host_at + host.len() + 1;
        let text = format!("{scheme}://{host}:{port}{path}");
        let path_at = text.len() - path.len();
        let host_field = HeaderValue::from_str(&text[host_at..path_at]);
        Ok(Self(Arc::new(Parts {
            text,
            tls,
            host_at: host_at as u16,
            port_at: port_at as u16,
            path_at: path_at as u16,
            port,
            host_field: host_field.map_err(|_no_text| BadUri::Malformed)?,
        })))
    }
}

impl fmt::Display for ServiceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.text)
    }
}

impl fmt::Debug for ServiceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.text, f)
    }
}

impl serde::Serialize for ServiceUri {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.text)
    }
}

impl<'de> serde::Deserialize<'de> for ServiceUri {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, BadUri>) {
        let parsed = text.parse::<ServiceUri>();
        assert_eq!(parsed.as_ref().map(ServiceUri::as_str).map_err(|it| *it), expected, "{text}");
    }

    #[test]
    fn spellings_of_one_service_are_one_uri() {
        check("https://127.0.0.1:8935", Ok("https://127.0.0.1:8935"));
        check("127.0.0.1:8935/", Ok("https://127.0.0.1:8935"));
        check("HTTP://Orch.Example/base/", Ok("http://orch.example:80/base"));
        check("https://[::1]:9/x", Ok("https://[::1]:9/x"));
    }

    #[test]
    fn what_is_not_a_service_is_refused() {
        check("ftp://x:1", Err(BadUri::Scheme));
        check("https://", Err(BadUri::Malformed));
        check("https://u:p@x:1", Err(BadUri::Extra));
        check("https://x:1/?q", Err(BadUri::Extra));
        check("https://x:1/#f", Err(BadUri::Extra));
        check("https://x:99999", Err(BadUri::Malformed));
        check(&"x".repeat(600), Err(BadUri::TooLong));
    }

    #[test]
    fn the_parts_are_read_without_another_parse() {
        let uri: ServiceUri = "https://[::1]:9/x".parse().unwrap();
        assert_eq!((uri.host(), uri.port(), uri.authority()), ("::1", 9, "[::1]:9"));
        assert_eq!((uri.base_path(), uri.is_tls()), ("/x", true));
        assert_eq!(uri.host_field(), uri.authority());
    }
}
