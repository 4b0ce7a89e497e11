//! The right to be served where one was sent: a node that finds it sends its bearer nowhere
//! else. It stands in the URL in place of any credential.

use super::{BadTicket, Key};

/// How long who is sent elsewhere has to arrive there, in seconds.
pub const STEER_FOR_S: u64 = 60;

impl Key {
    /// Returns the right, good until `expires`, in seconds since the Unix epoch.
    pub fn seal_steer(&self, expires: u64) -> String {
        self.seal_short(KIND, b"", expires)
    }

    /// Says why `text` is no such right at `now`.
    pub fn open_steer(&self, text: &str, now: u64) -> Result<(), BadTicket> {
        self.open_short(KIND, b"", text, now)
    }
}

/// No other ticket begins with it.
const KIND: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_good_for_its_time_and_nothing_else_is() {
        let key = Key::new([1; 32]);
        let text = key.seal_steer(1000);
        assert_eq!(key.open_steer(&text, 999), Ok(()));
        assert_eq!(key.open_steer(&text, 1000), Err(BadTicket::Expired));
        assert_eq!(Key::new([2; 32]).open_steer(&text, 999), Err(BadTicket::Forged));
        let group = crate::address::Prefix::of("198.51.100.1".parse().unwrap());
        assert_eq!(key.open_steer(&key.seal_probe(group, 1000), 999), Err(BadTicket::Forged));
    }
}
