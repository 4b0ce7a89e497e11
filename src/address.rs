//! IP addresses: what kind one is, and blocks of them.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;

mod prefix;
mod table;

pub use prefix::Prefix;

/// What kind of address one is. Only the last three kinds are worth a look in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// `0.0.0.0` or `::`.
    Unspecified,
    /// This machine: `127/8`, `::1`.
    Loopback,
    /// RFC 1918, and the site-local addresses IPv6 once had.
    Private,
    /// RFC 6598: behind a carrier's translator, `100.64/10`.
    Cgnat,
    /// `169.254/16`, `fe80::/10`.
    LinkLocal,
    /// RFC 4193: `fc00::/7`.
    Ula,
    /// For examples in texts: RFC 5737, RFC 3849 and RFC 9637.
    Documentation,
    /// For measuring devices: `198.18/15`, `2001:2::/48`.
    Benchmark,
    /// Not assigned to hosts of the public Internet.
    Reserved,
    /// `255.255.255.255`.
    Broadcast,
    /// `224/4`, `ff00::/8`.
    Multicast,
    /// RFC 6666: `100::/64`.
    Discard,
    /// RFC 4380: the client is in it, obfuscated; where it is cannot be known.
    Teredo,
    /// One address in many places: public resolvers and front ends. Nearness says nothing.
    Anycast,
    /// A satellite network, whose exit may stand in another country than its user.
    Satellite,
    /// Any other address of the public Internet.
    Public,
}

impl Class {
    /// Tells whether a database may know where such an address is.
    pub fn is_located(self) -> bool {
        matches!(self, Self::Anycast | Self::Satellite | Self::Public)
    }
}

/// Returns what kind of address `ip` is, seen through [`canonical`].
pub fn classify(ip: IpAddr) -> Class {
    let found = match canonical(ip) {
        IpAddr::V4(ip) => table::find(table::V4, u32::from(ip)),
        IpAddr::V6(ip) => {
            // Outside 2000::/3 nothing is assigned to hosts of the public Internet.
            let default = if ip.segments()[0] >> 13 == 1 { Class::Public } else { Class::Reserved };
            return table::find(table::V6, u128::from(ip)).unwrap_or(default);
        }
    };
    found.unwrap_or(Class::Public)
}

/// Returns the IPv4 address inside an IPv4-mapped (`::ffff:0:0/96`), 6to4 (`2002::/16`) or
/// NAT64 (`64:ff9b::/96`) one, and any other address as it is.
///
/// Use it to find out where a client is, not who it is: any holder of a 6to4 router can
/// write any IPv4 address there.
pub fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [first, second, third, .., high, low] = v6.segments();
    let embedded = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    if first == 0x2002 {
        return embedded(second, third);
    }
    if v6.to_bits() >> 32 == NAT64 >> 32 {
        return embedded(high, low);
    }
    ip.to_canonical()
}

/// Reads one address: no port, no brackets, no octal or integer forms. A zone id
/// (`fe80::1%eth0`) is dropped, since it means something on one machine only.
pub fn parse(text: &str) -> Option<IpAddr> {
    if text.len() > TEXT_MAX {
        return None;
    }
    match text.split_once('%') {
        None => text.parse().ok(),
        Some((address, zone)) if !zone.is_empty() => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        Some(_) => None,
    }
}

/// A block of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is not a [`Cidr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCidr {
    /// Neither an address nor a block.
    #[error("not an address or a block such as 10.0.0.0/8 or fd00::/8")]
    Malformed,
    /// The prefix is longer than the address.
    #[error("the prefix is longer than the address: at most /32 for IPv4, /128 for IPv6")]
    Prefix,
    /// Bits are set behind the prefix: one of the two is a slip.
    #[error("bits are set behind the prefix; the block that holds this address is {0}")]
    HostBits(Cidr),
}

impl Cidr {
    /// Tells whether `ip` is in the block; an IPv4-mapped address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        masked(ip.to_canonical(), self.prefix) == self.base
    }

    /// Returns the first address of the block.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Returns how many leading bits all addresses of the block share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        if text.len() > TEXT_MAX || address.contains('%') {
            return Err(BadCidr::Malformed);
        }
        let given: IpAddr = address.parse().map_err(|_not_an_ip| BadCidr::Malformed)?;
        let bits = if given.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            // `parse` alone would take `+8` and `008`.
            Some(digits) => Some(digits)
                .filter(|it| (1..=3).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_digit()))
                .filter(|it| it.len() == 1 || !it.starts_with('0'))
                .and_then(|it| it.parse::<u16>().ok())
                .ok_or(BadCidr::Malformed)?,
        };
        if prefix > bits {
            return Err(BadCidr::Prefix);
        }
        // A block of mapped addresses is the IPv4 block it stands for.
        let base = given.to_canonical();
        let (base, prefix) = match (given.is_ipv6() && base.is_ipv4(), prefix) {
            (true, 96..) => (base, prefix as u8 - 96),
            (true, _) => (given, prefix as u8),
            (false, _) => (base, prefix as u8),
        };
        let first = masked(base, prefix);
        let block = Self { base: first, prefix };
        if first == base { Ok(block) } else { Err(BadCidr::HostBits(block)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Clears all bits behind the prefix.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match ip {
        IpAddr::V4(ip) => {
            let behind = u32::MAX.checked_shr(prefix).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & !behind).into()
        }
        IpAddr::V6(ip) => {
            let behind = u128::MAX.checked_shr(prefix).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & !behind).into()
        }
    }
}

/// The longest address is 45 characters; a zone id is an interface name of at most 15.
const TEXT_MAX: usize = 64;
/// `64:ff9b::/96`, RFC 6052.
const NAT64: u128 = 0x0064_ff9b << 96;

#[cfg(test)]
mod tests;
