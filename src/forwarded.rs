//! The client's address: the socket's peer, or what trusted proxies wrote about it.
//!
//! A proxy appends what it saw to the right of what it was sent, so the list is walked from
//! the right, past hops that are trusted, to the first that is not: that is the client.
//! What stands left of it was written by the client and is never looked at.
//!
//! One header is believed, the one the operator's proxies write. A proxy that writes the
//! one passes the other on as the client sent it, so with both believed a client could
//! choose its address.

use std::net::IpAddr;

use http::HeaderMap;

use crate::address;
use crate::address::Cidr;

mod hop;

use self::hop::Hop;

/// Which header the operator's proxies write.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Written {
    /// `X-Forwarded-For`, as nearly all do.
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

/// Who may say what address a client has.
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    blocks: Vec<Cidr>,
    written: Written,
}

/// More blocks than [`TrustedProxies::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} trusted blocks, at most {max} are allowed; merge some", max = TrustedProxies::MAX)]
pub struct TooManyBlocks(pub usize);

impl TrustedProxies {
    /// The most blocks: a large content network publishes fewer than 200, and each costs
    /// every request a comparison per hop.
    pub const MAX: usize = 512;
    /// The most hops walked: more is a loop between proxies.
    pub const HOPS_MAX: usize = 32;
    /// The most bytes walked, from the right: 32 hops with room for RFC 7239 parameters.
    pub const BYTES_MAX: usize = 4096;

    /// Believes what proxies that connect from `blocks` wrote into one header.
    pub fn new(blocks: Vec<Cidr>, written: Written) -> Result<Self, TooManyBlocks> {
        if blocks.len() > Self::MAX {
            return Err(TooManyBlocks(blocks.len()));
        }
        Ok(Self { blocks, written })
    }

    /// Believes nobody: the client is the socket's peer.
    pub fn none() -> Self {
        Self { blocks: Vec::new(), written: Written::default() }
    }

    /// Tells whether `ip` is a trusted proxy.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.blocks.iter().any(|it| it.contains(ip))
    }
}

/// Where a client's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Derivation {
    /// The socket.
    Peer,
    /// The header `X-Forwarded-For`.
    XForwardedFor,
    /// The header `Forwarded`.
    Forwarded,
}

/// Why a header that was there did not count; the client is the socket's peer then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Ignored {
    /// The peer is not a trusted proxy.
    #[error("the peer is not among the trusted proxies")]
    Untrusted,
    /// A hop on the way to the client is not an address.
    #[error("a trusted proxy wrote something that is not an address")]
    Malformed,
    /// A hop on the way to the client hides its address (`unknown`, `_name`, no `for`).
    #[error("a trusted proxy hides the address it saw")]
    Hidden,
    /// The client is farther than [`TrustedProxies::HOPS_MAX`] or
    /// [`TrustedProxies::BYTES_MAX`] allow.
    #[error("too many trusted hops")]
    TooLong,
}

/// The client of one request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// Its address, IPv4 where it was IPv4-mapped.
    pub ip: IpAddr,
    /// Who says so.
    pub derived: Derivation,
    /// Why a header was not believed, if one was there and was not.
    pub ignored: Option<Ignored>,
}

impl std::fmt::Debug for ClientAddress {
    /// Shows the kind of the address only: client addresses do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientAddress")
            .field("class", &address::classify(self.ip))
            .field("derived", &self.derived)
            .field("ignored", &self.ignored)
            .finish()
    }
}

/// Finds the client of a request that came from `peer` with `headers`.
pub fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> ClientAddress {
    let peer = peer.to_canonical();
    let (name, split, derived): (_, hop::Split, _) = match trusted.written {
        Written::XForwardedFor => (X_FORWARDED_FOR, hop::plain, Derivation::XForwardedFor),
        Written::Forwarded => {
            (http::header::FORWARDED.as_str(), hop::rfc7239, Derivation::Forwarded)
        }
    };
    let is_there = headers.contains_key(name);
    let from_peer = |ignored| ClientAddress { ip: peer, derived: Derivation::Peer, ignored };
    if !trusted.trusts(peer) {
        return from_peer(is_there.then_some(Ignored::Untrusted));
    }

    // Of a chain of trusted hops only, the one farthest from us is the client.
    let mut farthest = None;
    let mut bytes_left = TrustedProxies::BYTES_MAX;
    let mut hops_left = TrustedProxies::HOPS_MAX;
    for line in headers.get_all(name).iter().rev() {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (before, hop) = hop::last(rest);
            let walked = rest.len() - before.len();
            if walked > bytes_left || hops_left == 0 {
                return from_peer(Some(Ignored::TooLong));
            }
            (bytes_left, rest) = (bytes_left - walked, before);
            let ip = match split(hop) {
                Hop::Nothing => continue,
                Hop::Address(ip) => ip.to_canonical(),
                Hop::Hidden => return from_peer(Some(Ignored::Hidden)),
                Hop::Malformed => return from_peer(Some(Ignored::Malformed)),
            };
            hops_left -= 1;
            farthest = Some(ip);
            if !trusted.trusts(ip) {
                return ClientAddress { ip, derived, ignored: None };
            }
        }
    }
    farthest.map_or(from_peer(None), |ip| ClientAddress { ip, derived, ignored: None })
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests;
