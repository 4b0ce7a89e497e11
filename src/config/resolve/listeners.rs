//! Addresses and listeners.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::Reader;
use crate::config::file::{self, File};
use crate::config::{Listening, defaults};
use crate::listen::tls::{Certificate, Source};

impl Reader {
    /// The plain one of `[listen]`, unless there are others and it is not asked for.
    pub(super) fn listeners(&mut self, file: &File, beside: &Path) -> Vec<Listening> {
        let implied = file.listeners.is_empty().then_some(defaults::PUBLIC);
        let key = "listen.public";
        let plain = file.listen.public.as_deref().or(implied);
        let plain = plain.and_then(|it| self.address(key, it, defaults::PUBLIC));
        let plain = plain.map(|address| Listening {
            key: key.to_owned(),
            address,
            tls: None,
            proxied: false,
            names: Vec::new(),
        });
        let mut all: Vec<Listening> = plain.into_iter().collect();
        for (at, it) in file.listeners.iter().enumerate() {
            let key = |name: &str| format!("listener[{at}].{name}");
            let address = self.address(&key("address"), &it.address, "0.0.0.0:443");
            let Some(tls) = self.certificate(key, it, beside) else { continue };
            all.extend(address.map(|address| Listening {
                key: key("address"),
                address,
                tls: tls.map(|it| named(it, address)),
                proxied: it.proxy_protocol,
                names: it.names.clone(),
            }));
        }
        all
    }

    /// Returns where a listener's certificate comes from, if it has one, or `None` for one that
    /// cannot be used.
    fn certificate(
        &mut self,
        key: impl Fn(&str) -> String,
        it: &file::Listener,
        beside: &Path,
    ) -> Option<Option<Source>> {
        let (cert, secret) = match (&it.cert, &it.key, it.self_signed) {
            (None, None, false) => return Some(None),
            (None, None, true) => return Some(Some(Source::SelfSigned(it.names.clone()))),
            (Some(cert), Some(secret), false) => (beside.join(cert), beside.join(secret)),
            (Some(_), None, _) | (None, Some(_), _) => {
                let problem = "a certificate and its key come together";
                self.complain(&key("cert"), &it.address, problem, "name both cert and key");
                return None;
            }
            (Some(_), Some(_), true) => {
                let problem = "there is a certificate by file as well";
                self.complain(&key("self_signed"), "true", problem, "keep one of the two");
                return None;
            }
        };
        let shown = cert.display().to_string();
        let source = Source::Files { cert, key: secret };
        if let Err(error) = Certificate::load(&source) {
            let remedy = "give PEM files that belong together";
            self.complain(&key("cert"), &shown, error, remedy);
            return None;
        }
        Some(Some(source))
    }

    /// Reads an IP address with a port; one such as `like` is the remedy.
    pub(super) fn address(&mut self, key: &str, text: &str, like: &str) -> Option<SocketAddr> {
        let read = text.parse();
        if read.is_err() {
            let (problem, example) = misread(text, like);
            self.complain(key, text, problem, &format!("such as \"{example}\""));
        }
        read.ok()
    }
}

/// One that is made at start is for these hosts, or for where it is used.
fn named(source: Source, at: SocketAddr) -> Source {
    match source {
        Source::SelfSigned(names) if names.is_empty() => {
            Source::SelfSigned(vec!["localhost".to_owned(), at.ip().to_string()])
        }
        source @ (Source::Files { .. } | Source::SelfSigned(_)) => source,
    }
}

/// Says what is missing in an address, and how one could be written that is like it.
fn misread(text: &str, like: &str) -> (&'static str, String) {
    let (ip, port) = like.rsplit_once(':').unwrap_or((like, "80"));
    if let Ok(ip) = text.parse::<IpAddr>() {
        let port = port.parse().unwrap_or_default();
        return ("it has no port", SocketAddr::new(ip, port).to_string());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let is_port = port.parse::<u16>().is_ok();
    match host {
        "" if is_port => ("it has no address", format!("{ip}:{port}")),
        "*" if is_port => ("it has no address", format!("0.0.0.0:{port}")),
        "localhost" if is_port => ("names are not looked up", format!("127.0.0.1:{port}")),
        host if is_port && host.parse::<IpAddr>().is_err() => {
            ("names are not looked up; write the IP address", like.to_owned())
        }
        host if host.parse::<IpAddr>().is_ok() => ("its port is none", like.to_owned()),
        _ => ("it is no IP address with a port", like.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_lacks_is_said_with_one_like_it() {
        for (text, problem, example) in [
            ("0.0.0.0", "no port", "0.0.0.0:7936"),
            ("::1", "no port", "[::1]:7936"),
            (":443", "no address", "127.0.0.1:443"),
            ("443", "no address", "127.0.0.1:443"),
            ("*:443", "no address", "0.0.0.0:443"),
            ("localhost:7936", "not looked up", "127.0.0.1:7936"),
            ("fra.example:7936", "not looked up", "127.0.0.1:7936"),
            ("127.0.0.1:77777", "its port is none", "127.0.0.1:7936"),
            ("", "no IP address", "127.0.0.1:7936"),
            ("http://x/y", "no IP address", "127.0.0.1:7936"),
        ] {
            let (said, like) = misread(text, "127.0.0.1:7936");
            assert!(said.contains(problem), "{text}: {said}");
            assert_eq!(like, example, "{text}");
            assert!(like.parse::<SocketAddr>().is_ok());
        }
    }
}
