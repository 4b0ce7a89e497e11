//! For whom a question is asked: the resolver itself, or the network it tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Cidr;

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whom {
    /// An address of it: the resolver's, or the first of the network it told.
    pub ip: IpAddr,
    /// Whether the network is wider than the /24 or /48 a database is asked for: then it is
    /// anywhere in a country.
    pub is_wide: bool,
    /// Whether a resolver told it and was believed.
    pub was_told: bool,
    /// How many leading bits of the network the answer is good for.
    pub scope: u8,
}

impl Whom {
    /// Reads a client subnet (RFC 7871): believed of a resolver among `trusted`, and of
    /// nobody else. A prefix of no bits says that the client does not want to be placed; the
    /// resolver stands in.
    pub fn of(resolver: IpAddr, told: Option<(IpAddr, u8)>, trusted: &[Cidr]) -> Self {
        let resolver = resolver.to_canonical();
        let alone = Self { ip: resolver, is_wide: false, was_told: false, scope: 0 };
        let is_trusted = || trusted.iter().any(|it| it.contains(resolver));
        let Some((address, bits)) = told.filter(|(_, bits)| *bits > 0 && is_trusted()) else {
            return alone;
        };
        let fine = if address.is_ipv4() { 24 } else { 48 };
        let scope = bits.min(fine);
        Self { ip: first(address, scope), is_wide: bits < fine, was_told: true, scope }
    }
}

/// Returns the first address of the network of `bits` bits that holds `ip`.
fn first(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whom(resolver: &str, told: Option<(&str, u8)>) -> Whom {
        let told = told.map(|(ip, bits)| (ip.parse().unwrap(), bits));
        Whom::of(resolver.parse().unwrap(), told, &["9.9.9.0/24".parse().unwrap()])
    }

    #[test]
    fn a_trusted_resolver_speaks_for_its_client_and_no_other_does() {
        let told = whom("9.9.9.9", Some(("198.51.100.77", 24)));
        assert_eq!(told.ip.to_string(), "198.51.100.0");
        assert!(told.was_told && !told.is_wide && told.scope == 24);
        let stranger = whom("8.8.4.4", Some(("198.51.100.77", 24)));
        assert_eq!((stranger.ip.to_string(), stranger.scope), ("8.8.4.4".into(), 0));
        assert!(!stranger.was_told);
        let mapped = whom("::ffff:9.9.9.9", Some(("198.51.100.77", 32)));
        assert_eq!((mapped.ip.to_string(), mapped.scope), ("198.51.100.0".into(), 24));
    }

    /// Row p33 of the edge cases: a /32 of IPv6 is looked up by its network address, with
    /// less confidence.
    #[test]
    fn a_wide_prefix_is_placed_by_its_network_with_less_confidence() {
        let wide = whom("9.9.9.9", Some(("2001:4860:1:2::3", 32)));
        assert_eq!(wide.ip.to_string(), "2001:4860::");
        assert!(wide.is_wide && wide.scope == 32);
        let odd = whom("9.9.9.9", Some(("10.255.255.255", 12)));
        assert_eq!(odd.ip.to_string(), "10.240.0.0");
    }

    /// Row p34 of the edge cases: /0 opts out, and the resolver's address is used.
    #[test]
    fn a_prefix_of_no_bits_opts_out() {
        let out = whom("9.9.9.9", Some(("0.0.0.0", 0)));
        assert_eq!((out.ip.to_string(), out.scope, out.was_told), ("9.9.9.9".into(), 0, false));
        assert_eq!(whom("9.9.9.9", None), out);
    }
}
