//! Groups of neighbours: the prefix clients of one access network share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::canonical;

/// The /24 of an IPv4 address, or the /48 of an IPv6 one: the finest place of a client that
/// is kept. It has no text, so that it reaches neither a log nor a metric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(u64);

impl Prefix {
    /// Returns the prefix of `ip`, seen through [`canonical`].
    pub fn of(ip: IpAddr) -> Self {
        match canonical(ip) {
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => Self(V6 | (u128::from(ip) >> 80) as u64),
        }
    }

    /// Returns the first address of it, which is nobody's.
    pub fn network(self) -> IpAddr {
        match self.0 & V6 {
            0 => IpAddr::V4(Ipv4Addr::from_bits((self.0 << 8) as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.0 & !V6) << 80)),
        }
    }

    /// Returns it as a number, for tables, seals and the mesh.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prefix(..)")
    }
}

/// Tells the two kinds apart: a /48 has 48 bits.
const V6: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_prefix_and_strangers_do_not() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(prefix("198.51.100.1"), prefix("198.51.100.254"));
        assert_eq!(prefix("198.51.100.1"), prefix("::ffff:198.51.100.7"));
        assert_ne!(prefix("198.51.100.1"), prefix("198.51.101.1"));
        assert_eq!(prefix("2a00:1450:4001:1::1"), prefix("2a00:1450:4001:ffff::2"));
        assert_ne!(prefix("2a00:1450:4001::1"), prefix("2a00:1450:4002::1"));
        assert_ne!(prefix("0.0.1.0"), prefix("::1:0:0:0:0:0"));
        for text in ["198.51.100.1", "2a00:1450:4001::1"] {
            assert_eq!(Prefix::of(prefix(text).network()), prefix(text));
        }
        assert_eq!(format!("{:?}", prefix("198.51.100.1")), "Prefix(..)");
    }
}
