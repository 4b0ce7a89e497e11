//! The links of an endpoint, found again when a certificate is revoked, and ended in time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use metrics::counter;
use quinn::Connection;

use super::link;
use super::link::CloseReason;
use crate::ca::Revoked;
use crate::ca::Serial;

/// The connections that greeted and have not ended; their number is bounded by what the
/// mesh links to.
#[derive(Debug, Default)]
pub(super) struct Live {
    links: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    serial: Serial,
    until: Instant,
}

impl Live {
    /// Takes in a connection whose peer showed the certificate `serial`; it ends at `until`.
    pub(super) fn add(&self, connection: &Connection, serial: Serial, until: Instant) {
        let entry = Entry { connection: connection.clone(), serial, until };
        self.with(|links| links.push(entry));
    }

    /// Closes those whose peer is revoked; returns how many.
    pub(super) fn close_revoked(&self, revoked: &Revoked) -> usize {
        self.close(CloseReason::Revoked, |it| revoked.contains(&it.serial))
    }

    /// Closes those whose time is over, and lets go of those that ended.
    pub(super) fn close_aged(&self, now: Instant) {
        self.close(CloseReason::Aged, |it| it.until <= now);
    }

    fn close(&self, reason: CloseReason, which: impl Fn(&Entry) -> bool) -> usize {
        self.with(|links| {
            links.retain(|it| it.connection.close_reason().is_none());
            let mut n_closed = 0;
            for entry in links.iter().filter(|it| which(it)) {
                link::close(&entry.connection, reason);
                n_closed += 1;
            }
            let label = if reason == CloseReason::Aged { "aged" } else { "revoked" };
            counter!("portolan_mesh_links_closed_total", "reason" => label)
                .increment(n_closed as u64);
            n_closed
        })
    }

    fn with<T>(&self, used: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        used(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns how long a link may live whose peer's certificate is good for `left` more: `age`,
/// less up to a tenth by the random word `draw`, so that links made together do not end
/// together, and never longer than the certificate.
pub(super) fn life(age: Duration, left: Duration, draw: u32) -> Duration {
    let less = age.as_millis() * u128::from(draw) / 10 / u128::from(u32::MAX);
    (age - Duration::from_millis(less as u64)).min(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_link_lives_its_age_less_a_tenth_or_its_certificates_rest(
            age in 1..100_000u64,
            left in 0..100_000u64,
            draw in any::<u32>(),
        ) {
            let [age, left] = [age, left].map(Duration::from_secs);
            let life = life(age, left, draw);
            prop_assert!(life <= age && life <= left);
            prop_assert!(life == left || life >= age * 9 / 10);
        }
    }
}
