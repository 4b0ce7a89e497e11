//! How many connections one client address holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections by address; holds no more entries than there are connections.
#[derive(Debug, Default)]
pub struct Places {
    held: Mutex<BTreeMap<IpAddr, u32>>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Places {
    /// Takes a place for `ip`; `None` when it holds `max` already. An IPv6 client counts by
    /// its /64, which is what one subscriber is given.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr, max: u32) -> Option<Place> {
        let of = block(ip);
        let mut held = self.lock();
        let n = held.entry(of).or_default();
        if *n >= max {
            return None;
        }
        *n += 1;
        drop(held);
        Some(Place { places: Arc::clone(self), of })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if let Some(n) = held.get_mut(&self.of) {
            *n -= 1;
            if *n == 0 {
                held.remove(&self.of);
            }
        }
    }
}

fn block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_holds_so_many_places_and_gives_them_back() {
        let places = Arc::new(Places::default());
        let one = places.take(ip("192.0.2.1"), 2).unwrap();
        let _two = places.take(ip("::ffff:192.0.2.1"), 2).unwrap();
        assert!(places.take(ip("192.0.2.1"), 2).is_none());
        let other = places.take(ip("192.0.2.2"), 2).unwrap();
        drop(one);
        assert!(places.take(ip("192.0.2.1"), 2).is_some());
        drop(other);
        assert_eq!(places.lock().len(), 1, "nobody else is remembered");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_client() {
        let places = Arc::new(Places::default());
        let _one = places.take(ip("2001:db8::1"), 1).unwrap();
        assert!(places.take(ip("2001:db8::2"), 1).is_none());
        assert!(places.take(ip("2001:db8:0:1::1"), 1).is_some());
    }
}
