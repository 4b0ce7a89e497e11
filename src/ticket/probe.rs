//! The right to report round trips: given with an answer, good for the network it was given to.
//!
//! What a ticket holds is its expiry alone. Whom it was given to goes into the seal and comes
//! from the connection again when it is used, so the ticket tells nobody an address.

use std::net::IpAddr;

use hmac::Mac;

use super::{BadTicket, Key};
use crate::address::{Prefix, canonical};

impl Key {
    /// Returns a ticket with which the clients of `group` may report until `expires`, in
    /// seconds since the Unix epoch.
    pub fn seal_probe(&self, group: Prefix, expires: u64) -> String {
        self.seal_short(KIND, &group.bits().to_be_bytes(), expires)
    }

    /// Says why `text` does not let a client of `group` report at `now`.
    pub fn open_probe(&self, text: &str, group: Prefix, now: u64) -> Result<(), BadTicket> {
        self.open_short(KIND, &group.bits().to_be_bytes(), text, now)
    }

    /// Returns one client as a number that only this mesh can make again: its address under
    /// the key; of IPv6 the /64, which one host has to itself.
    pub fn client(&self, ip: IpAddr) -> u64 {
        let mut body = b"client".to_vec();
        match canonical(ip) {
            IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()[..8]),
        }
        let tag = self.mac(&body).finalize().into_bytes();
        tag.first_chunk().map_or(0, |it| u64::from_be_bytes(*it))
    }
}

/// No other ticket begins with it.
const KIND: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(text: &str) -> Prefix {
        Prefix::of(text.parse().unwrap())
    }

    #[test]
    fn a_ticket_is_good_in_its_network_for_its_time() {
        let (key, here) = (Key::new([1; 32]), group("198.51.100.1"));
        let text = key.seal_probe(here, 1000);
        assert_eq!(key.open_probe(&text, group("198.51.100.9"), 999), Ok(()));
        assert_eq!(key.open_probe(&text, here, 1000), Err(BadTicket::Expired));
        let forged = Err(BadTicket::Forged);
        assert_eq!(key.open_probe(&text, group("198.51.101.1"), 999), forged);
        assert_eq!(Key::new([2; 32]).open_probe(&text, here, 999), forged);
    }

    #[test]
    fn a_client_is_a_number_that_needs_the_key() {
        let client = |key: u8, text: &str| Key::new([key; 32]).client(text.parse().unwrap());
        assert_eq!(client(1, "198.51.100.1"), client(1, "::ffff:198.51.100.1"));
        assert_ne!(client(1, "198.51.100.1"), client(1, "198.51.100.2"));
        assert_ne!(client(1, "198.51.100.1"), client(2, "198.51.100.1"));
        assert_eq!(client(1, "2a00::1"), client(1, "2a00::2"), "one host's /64");
    }

    proptest! {
        #[test]
        fn no_text_but_a_sealed_one_opens(text in "[A-Za-z0-9_-]{0,60}") {
            let opened = Key::new([1; 32]).open_probe(&text, group("198.51.100.1"), 0);
            prop_assert_eq!(opened, Err(BadTicket::Forged));
        }
    }
}
