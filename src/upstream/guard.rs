//! Which addresses this node connects to when somebody else names them.
//!
//! An orchestrator, a list or a reservation may name any host. What the operator wrote down
//! is trusted; everything else must lie on the public Internet, or in a block the operator
//! lists, so that nobody makes this node knock at its neighbours.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::address::{Cidr, classify};
use crate::uri::ServiceUri;

/// What may be connected to.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Blocks of addresses allowed although they are not public.
    pub blocks: Vec<Cidr>,
    /// Ports allowed.
    pub ports: Vec<Ports>,
    /// Authorities the operator wrote down: allowed wherever they resolve to.
    pub trusted: BTreeSet<String>,
}

/// Some ports in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not an address of the public Internet.
    #[error("its address is not public; list its block in upstream.allow_addresses if it may be")]
    Address,
    /// Not a port for this.
    #[error("port {0} is not among upstream.allow_ports")]
    Port(u16),
}

/// A text that names no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a port nor a range such as 1024-65535")]
pub struct BadPorts;

impl Guard {
    /// Lets everything through.
    pub fn open() -> Self {
        let blocks = ["0.0.0.0/0", "::/0"].iter().filter_map(|it| it.parse().ok()).collect();
        Self { blocks, ports: vec![Ports(0..=u16::MAX)], trusted: BTreeSet::new() }
    }

    /// Tells whether `uri` may be reached at `address`, which is then connected to and no
    /// other: a name that resolves otherwise a moment later gains nothing.
    pub fn admit(&self, uri: &ServiceUri, address: SocketAddr) -> Result<(), Denied> {
        if self.trusted.contains(uri.authority()) {
            return Ok(());
        }
        if !self.ports.iter().any(|ports| ports.0.contains(&address.port())) {
            return Err(Denied::Port(address.port()));
        }
        let is_listed = self.blocks.iter().any(|block| block.contains(address.ip()));
        // Seen through embeddings of IPv4, so that ::ffff:127.0.0.1 is no way in.
        if is_listed || classify(address.ip()).is_located() {
            return Ok(());
        }
        Err(Denied::Address)
    }
}

impl Default for Guard {
    /// The web's ports and those anybody may listen on; public addresses only.
    fn default() -> Self {
        let ports = [80..=80, 443..=443, 1024..=u16::MAX].map(Ports).to_vec();
        Self { blocks: Vec::new(), ports, trusted: BTreeSet::new() }
    }
}

impl FromStr for Ports {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_no_port| BadPorts);
        let range = port(first)?..=port(last)?;
        if range.is_empty() || *range.start() == 0 { Err(BadPorts) } else { Ok(Self(range)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(guard: &Guard, address: &str, expected: Result<(), Denied>) {
        let uri = "https://anything.example:8935".parse().unwrap();
        assert_eq!(guard.admit(&uri, address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn neighbours_and_clouds_that_tell_secrets_are_out_of_reach() {
        let guard = Guard::default();
        for hidden in [
            "127.0.0.1:8935",
            "10.1.2.3:8935",
            "172.16.0.1:8935",
            "192.168.1.1:8935",
            "100.64.0.1:8935",
            "169.254.169.254:80",
            "0.0.0.0:8935",
            "224.0.0.1:8935",
            "[::1]:8935",
            "[fe80::1]:8935",
            "[fd00:ec2::254]:80",
            "[::ffff:10.0.0.1]:8935",
            "[64:ff9b::a00:1]:8935",
            "[2002:a00:1::]:8935",
            "[::]:8935",
        ] {
            check(&guard, hidden, Err(Denied::Address));
        }
        check(&guard, "84.200.0.1:8935", Ok(()));
        check(&guard, "[2a00:1450::1]:443", Ok(()));
        check(&guard, "84.200.0.1:22", Err(Denied::Port(22)));
    }

    #[test]
    fn what_the_operator_lists_is_reached() {
        let blocks = vec!["10.0.0.0/8".parse().unwrap()];
        let mut guard = Guard { blocks, ..Guard::default() };
        check(&guard, "10.1.2.3:8935", Ok(()));
        check(&guard, "[::ffff:10.1.2.3]:8935", Ok(()));
        check(&guard, "10.1.2.3:22", Err(Denied::Port(22)));
        guard.trusted.insert("anything.example:8935".to_owned());
        check(&guard, "127.0.0.1:8935", Ok(()));
        let other = "https://other.example:8935".parse().unwrap();
        assert!(guard.admit(&other, "127.0.0.1:8935".parse().unwrap()).is_err());
    }

    #[test]
    fn an_open_one_lets_everything_through() {
        for anywhere in ["127.0.0.1:1", "[::1]:1", "84.200.0.1:22"] {
            check(&Guard::open(), anywhere, Ok(()));
        }
    }

    #[test]
    fn ports_are_single_or_in_a_row() {
        assert!("443".parse::<Ports>().is_ok() && "1024-2048".parse::<Ports>().is_ok());
        for bad in ["", "0", "x", "5-4", "70000", "1-"] {
            assert_eq!(bad.parse::<Ports>(), Err(BadPorts), "{bad}");
        }
    }
}
