//! Which hosts a listener answers for.

/// Host names, of which some may begin with `*.` for any one label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<Box<str>>);

impl Names {
    /// Takes names as they are written in certificates and configurations.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        Self(names.map(|name| name.to_ascii_lowercase().into()).collect())
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether `host`, without its port, is one of them.
    pub fn has(&self, host: &str) -> bool {
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => {
                host.split_once('.').is_some_and(|(_label, rest)| rest.eq_ignore_ascii_case(parent))
            }
            None => host.eq_ignore_ascii_case(name),
        })
    }
}

/// Returns the host of an authority: without its port, and without brackets.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Tells whether a request for `host` came to the wrong listener: `names` are the hosts it
/// is restricted to, none for any; `sni` is what the client asked for by TLS, and
/// `certified` what the certificate shown to it is for.
///
/// A client may use one connection for every host of its certificate (RFC 9113, section
/// 9.1.1); what it may not is name one host to get in and another one inside.
pub fn is_misdirected(host: &str, sni: Option<&str>, names: &Names, certified: &Names) -> bool {
    let unserved = !names.is_empty() && !names.has(host);
    let unasked = sni.is_some_and(|sni| !host.eq_ignore_ascii_case(sni) && !certified.has(host));
    unserved || unasked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        Names::new(list.iter().map(|it| (*it).to_owned()))
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let names = names(&["fra.example.org", "*.Example.net"]);
        assert!(names.has("FRA.example.org") && names.has("a.example.net"));
        assert!(!names.has("a.b.example.net") && !names.has("example.net") && !names.has("x.org"));
    }

    #[test]
    fn the_host_of_an_authority_has_no_port() {
        for (authority, host) in [
            ("a:1", "a"),
            ("a", "a"),
            ("[::1]:9", "::1"),
            ("[::1]", "::1"),
            ("1.2.3.4:5", "1.2.3.4"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn nobody_enters_under_one_name_and_asks_for_another() {
        let (any, certified) = (Names::default(), names(&["a.org", "b.org"]));
        assert!(!is_misdirected("a.org", Some("a.org"), &any, &certified));
        assert!(!is_misdirected("b.org", Some("a.org"), &any, &certified));
        assert!(is_misdirected("c.org", Some("a.org"), &any, &certified));
        assert!(!is_misdirected("c.org", None, &any, &certified));
        assert!(is_misdirected("c.org", None, &certified, &certified));
    }
}
