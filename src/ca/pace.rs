//! How often one address may come to the enrolment service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Counts connections by address, IPv6 by its first 64 bits.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// When each would be back to having come never.
    even_at: BTreeMap<[u8; 8], Instant>,
}

impl Pace {
    /// Takes one connection of `ip`; `false` when it comes too often, or too many others do.
    pub fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        let key = key(ip);
        if self.even_at.len() >= MAX_ADDRESSES && !self.even_at.contains_key(&key) {
            self.even_at.retain(|_, at| *at > now);
            if self.even_at.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let even_at = self.even_at.entry(key).or_insert(now);
        let next = (*even_at).max(now) + EACH;
        if next > now + EACH * BURST {
            return false;
        }
        *even_at = next;
        true
    }
}

fn key(ip: IpAddr) -> [u8; 8] {
    let mut key = [0; 8];
    match ip.to_canonical() {
        IpAddr::V4(ip) => key[4..].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key.copy_from_slice(&ip.octets()[..8]),
    }
    key
}

/// One connection a fifth of a second: fifty nodes behind one translator that ask every ten
/// seconds.
const EACH: Duration = Duration::from_millis(200);

/// That many at once: nodes of one site that were started together.
const BURST: u32 = 50;

/// The most addresses remembered; each is forgotten within [`EACH`] times [`BURST`].
const MAX_ADDRESSES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_passes_then_one_at_a_time_and_others_are_not_held_up() {
        let (mut pace, now) = (Pace::default(), clock::now());
        let [here, there] = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap());
        assert_eq!((0..100).filter(|_| pace.take(now, here)).count(), BURST as usize);
        assert!(pace.take(now, there));
        assert!(!pace.take(now + EACH / 2, here));
        assert!(pace.take(now + EACH, here));
        assert!(!pace.take(now + EACH, here));
    }

    #[test]
    fn one_network_of_ipv6_is_one_address_and_ipv4_within_it_is_ipv4() {
        let key = |it: &str| key(it.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }

    #[test]
    fn a_full_table_refuses_and_empties_itself() {
        let (mut pace, now) = (Pace::default(), clock::now());
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!((0..MAX_ADDRESSES as u32).all(|n| pace.take(now, ip(n))));
        assert!(!pace.take(now, ip(u32::MAX)));
        assert!(pace.take(now + EACH, ip(u32::MAX)));
        assert_eq!(pace.even_at.len(), 1);
    }

    proptest! {
        #[test]
        fn nobody_passes_more_often_than_allowed(waits in prop::collection::vec(0..400u64, 1..300)) {
            let (mut pace, start) = (Pace::default(), clock::now());
            let (mut now, mut n) = (start, 0);
            for wait in waits {
                now += Duration::from_millis(wait);
                n += u32::from(pace.take(now, IpAddr::from([1, 1, 1, 1])));
                prop_assert!(EACH * n <= (now - start) + EACH * BURST);
            }
        }
    }
}
