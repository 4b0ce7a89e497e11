//! What a peer may send in a while, and what it did wrong when it is put aside.

use std::time::{Duration, Instant};

use crate::wire::WireError;

/// What one peer may send, per second; a burst of [`BURST`] seconds of it is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Frames of any type.
    pub frames_per_second: u32,
    /// Bytes of frames.
    pub bytes_per_second: u32,
    /// Health records.
    pub records_per_second: u32,
    /// Datagrams.
    pub datagrams_per_second: u32,
    /// Bytes of datagrams.
    pub datagram_bytes_per_second: u32,
}

/// Why a peer is put aside for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It sent more frames than [`Params::frames_per_second`].
    #[error("too many frames")]
    Frames,
    /// It sent more bytes than [`Params::bytes_per_second`].
    #[error("too many bytes")]
    Bytes,
    /// It sent more records than [`Params::records_per_second`].
    #[error("too many records")]
    Records,
    /// It sent more datagrams than [`Params::datagrams_per_second`].
    #[error("too many datagrams")]
    Datagrams,
    /// It sent more bytes than [`Params::datagram_bytes_per_second`].
    #[error("too many bytes in datagrams")]
    DatagramBytes,
    /// A record holds a value out of its range.
    #[error("a value out of its range")]
    Value,
    /// The versions of a delta do not rise from one.
    #[error("versions that do not rise")]
    Versions,
    /// A delta counts under another epoch than the link's greeting.
    #[error("a delta of another epoch than its greeting")]
    Epoch,
    /// A greeting came after the greeting.
    #[error("a greeting out of place")]
    OutOfPlace,
    /// Its bytes are no frames.
    #[error("bytes that are no frame: {0}")]
    Garbage(WireError),
}

/// The meters of one peer.
#[derive(Debug)]
pub(super) struct Meters {
    frames: Meter,
    bytes: Meter,
    records: Meter,
    datagrams: Meter,
    datagram_bytes: Meter,
}

impl Meters {
    pub(super) fn new(now: Instant, params: Params) -> Self {
        Self {
            frames: Meter::new(now, params.frames_per_second),
            bytes: Meter::new(now, params.bytes_per_second),
            records: Meter::new(now, params.records_per_second),
            datagrams: Meter::new(now, params.datagrams_per_second),
            datagram_bytes: Meter::new(now, params.datagram_bytes_per_second),
        }
    }

    /// Counts one frame.
    pub(super) fn take(
        &mut self,
        now: Instant,
        n_bytes: usize,
        n_records: usize,
    ) -> Result<(), Fault> {
        self.frames.take(now, 1).then_some(()).ok_or(Fault::Frames)?;
        self.bytes.take(now, n_bytes as u64).then_some(()).ok_or(Fault::Bytes)?;
        self.records.take(now, n_records as u64).then_some(()).ok_or(Fault::Records)?;
        Ok(())
    }

    /// Counts one datagram.
    pub(super) fn take_datagram(&mut self, now: Instant, n_bytes: usize) -> Result<(), Fault> {
        self.datagrams.take(now, 1).then_some(()).ok_or(Fault::Datagrams)?;
        self.datagram_bytes.take(now, n_bytes as u64).then_some(()).ok_or(Fault::DatagramBytes)
    }
}

/// A token bucket in whole millionths of a token.
#[derive(Debug)]
struct Meter {
    per_second: u64,
    left_millionths: u64,
    filled_at: Instant,
}

impl Meter {
    fn new(now: Instant, per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, left_millionths: per_second * FULL, filled_at: now }
    }

    fn take(&mut self, now: Instant, n: u64) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at).min(BURST).as_micros() as u64;
        self.filled_at = now;
        let full = self.per_second * FULL;
        self.left_millionths = full.min(self.left_millionths + elapsed * self.per_second);
        let cost = n.saturating_mul(1_000_000);
        match self.left_millionths.checked_sub(cost) {
            Some(left) => {
                self.left_millionths = left;
                true
            }
            None => false,
        }
    }
}

/// The depth of every meter: a link that stalled for its longest silence of three seconds
/// delivers all it held at once.
pub const BURST: Duration = Duration::from_secs(4);

const FULL: u64 = BURST.as_micros() as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_passes_and_the_next_token_comes_in_its_time() {
        let now = clock::now();
        let mut meter = Meter::new(now, 10);
        assert!(meter.take(now, 40));
        assert!(!meter.take(now, 1));
        let later = now + Duration::from_millis(100);
        assert!(meter.take(later, 1));
        assert!(!meter.take(later, 1));
        assert!(!meter.take(later + Duration::from_secs(3600), 41));
    }

    #[test]
    fn each_meter_names_its_fault() {
        let now = clock::now();
        let params = Params {
            frames_per_second: 1,
            bytes_per_second: 100,
            records_per_second: 10,
            datagrams_per_second: 1,
            datagram_bytes_per_second: 100,
        };
        let mut meters = Meters::new(now, params);
        assert_eq!(meters.take(now, 401, 0), Err(Fault::Bytes));
        assert_eq!(meters.take(now, 1, 41), Err(Fault::Records));
        assert_eq!(meters.take(now, 1, 1), Ok(()));
        assert_eq!(meters.take(now, 1, 1), Ok(()));
        assert_eq!(meters.take(now, 1, 1), Err(Fault::Frames));
        assert_eq!(meters.take_datagram(now, 401), Err(Fault::DatagramBytes));
        assert_eq!(meters.take_datagram(now, 200), Ok(()));
        assert_eq!(meters.take_datagram(now, 1), Ok(()));
        assert_eq!(meters.take_datagram(now, 1), Ok(()));
        assert_eq!(meters.take_datagram(now, 1), Err(Fault::Datagrams));
    }
}
