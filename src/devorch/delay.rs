//! Distances: how long a round trip to this orchestrator takes, by the caller's address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// Round trips by source network; the first network that holds the caller counts.
///
/// As text: durations and `network=duration`, separated by commas, such as
/// `5ms,127.1.0.0/16=80ms`. An empty text means no delay at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    otherwise: Duration,
    by_source: Vec<(Network, Duration)>,
}

/// Why a text does not describe [`Delays`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDelay {
    /// Not a duration with a unit, or above 10 s.
    #[error("{0:?} is not a duration of at most 10s such as 250ms")]
    Duration(String),
    /// Not a network.
    #[error("{0:?} is not a network such as 127.1.0.0/16")]
    Network(String),
    /// More than 64 networks.
    #[error("more than {MAX_SOURCES} networks")]
    TooMany,
}

impl Delays {
    /// Returns the round trip for a caller at `source`.
    pub fn of(&self, source: IpAddr) -> Duration {
        let source = source.to_canonical();
        let found = self.by_source.iter().find(|(network, _)| network.holds(source));
        found.map_or(self.otherwise, |(_, delay)| *delay)
    }
}

impl FromStr for Delays {
    type Err = BadDelay;

    fn from_str(text: &str) -> Result<Self, BadDelay> {
        let mut delays = Self::default();
        for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (network, delay) = match part.split_once('=') {
                Some((network, delay)) => (Some(network.trim()), delay.trim()),
                None => (None, part),
            };
            let delay = duration(delay).filter(|it| *it <= MAX_DELAY);
            let delay = delay.ok_or_else(|| BadDelay::Duration(part.to_owned()))?;
            match network {
                Some(network) => {
                    let bad = || BadDelay::Network(network.to_owned());
                    delays.by_source.push((Network::parse(network).ok_or_else(bad)?, delay));
                }
                None => delays.otherwise = delay,
            }
        }
        if delays.by_source.len() > MAX_SOURCES {
            return Err(BadDelay::TooMany);
        }
        Ok(delays)
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.otherwise.as_micros())?;
        for (network, delay) in &self.by_source {
            write!(f, ",{}/{}={}us", network.base, network.bits, delay.as_micros())?;
        }
        Ok(())
    }
}

/// Reads a whole number with a unit: `us`, `ms`, `s`, `m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|it: char| !it.is_ascii_digit())?;
    let count: u64 = text[..unit_at].parse().ok()?;
    let micros = match &text[unit_at..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        _ => return None,
    };
    count.checked_mul(micros).map(Duration::from_micros)
}

/// The longest round trip, beyond any on Earth (a geostationary hop takes 0.6 s).
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(10);
/// The most networks told apart.
pub(crate) const MAX_SOURCES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse().ok()?, bits.parse().ok()?),
            None => {
                let base: IpAddr = text.parse().ok()?;
                (base, if base.is_ipv4() { 32 } else { 128 })
            }
        };
        let network = Self { base, bits };
        (bits <= network.width()).then_some(network)
    }

    fn width(&self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let differ = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(it)) => u128::from(base.to_bits() ^ it.to_bits()),
            (IpAddr::V6(base), IpAddr::V6(it)) => base.to_bits() ^ it.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let host_bits = u32::from(self.width() - self.bits);
        differ.checked_shr(host_bits).unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, source: &str, ms: u64) {
        let delays: Delays = text.parse().unwrap();
        assert_eq!(
            delays.of(source.parse().unwrap()),
            Duration::from_millis(ms),
            "{text} {source}"
        );
        assert_eq!(delays.to_string().parse(), Ok(delays));
    }

    #[test]
    fn callers_are_as_far_as_their_network_says() {
        check("", "127.0.0.1", 0);
        check("5ms", "127.0.0.1", 5);
        check("5ms,127.1.0.0/16=80ms", "127.1.9.9", 80);
        check("5ms,127.1.0.0/16=80ms", "::ffff:127.1.9.9", 80);
        check("5ms,127.1.0.0/16=80ms", "127.2.0.1", 5);
        check("127.1.2.3=7ms, 127.1.0.0/16=80ms", "127.1.2.3", 7);
        check("0.0.0.0/0=1s", "10.0.0.1", 1000);
        check("::/0=1s", "10.0.0.1", 0);
        check("::/0=1s", "2001:db8::1", 1000);
    }

    #[test]
    fn what_is_no_distance_is_named() {
        let read = |text: &str| text.parse::<Delays>();
        for bad in ["5", "ms", "5 ms", "-5ms", "11s", "99999999999999999999ms"] {
            assert_eq!(read(bad), Err(BadDelay::Duration(bad.to_owned())));
        }
        assert_eq!(read("127.0.0.1/33=1ms"), Err(BadDelay::Network("127.0.0.1/33".to_owned())));
        let many = vec!["127.0.0.1=1ms"; MAX_SOURCES];
        assert!(read(&many.join(",")).is_ok());
        assert_eq!(read(&format!("{},::1=1ms", many.join(","))), Err(BadDelay::TooMany));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            drop(text.parse::<Delays>());
        }
    }
}
