//! One ordered stream of a QUIC connection on a sea that loses packets.

/// When what is sent on one stream arrives. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    /// When the last message arrives that was sent: none overtakes it.
    last_at: u64,
}

/// The way of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// From one end to the other.
    pub(crate) delay: u64,
    /// How much later a packet may be.
    pub(crate) jitter: u64,
    /// Of a thousand packets so many are lost.
    pub(crate) loss_permille: u64,
}

impl Stream {
    /// Sends `n_bytes` at `now`; returns when they are there as a whole. `draw` returns a
    /// number below its argument.
    pub(crate) fn send(
        &mut self,
        now: u64,
        n_bytes: usize,
        course: Course,
        mut draw: impl FnMut(u64) -> u64,
    ) -> u64 {
        for _ in 0..n_bytes.div_ceil(PACKET).max(1) {
            let mut at = now + course.delay + draw(course.jitter);
            let mut wait = course.patience();
            let mut lost = draw(1000) < course.loss_permille;
            while lost {
                // Sent again, twice, when no acknowledgement came, and ever more patiently.
                at += wait;
                wait *= 2;
                lost = (0..2).all(|_| draw(1000) < course.loss_permille);
            }
            self.last_at = self.last_at.max(at) + 1;
        }
        self.last_at
    }
}

impl Course {
    /// How long a sender waits for an acknowledgement: a round trip, what it varies by, and
    /// what the other end may hold the acknowledgement back for. A later packet that is
    /// acknowledged tells of the loss hardly sooner, after 9/8 of a round trip.
    fn patience(self) -> u64 {
        let round_trip = self.delay * 2;
        round_trip + (round_trip / 8).max(self.jitter * 4) + ACK_HELD_BACK
    }
}

/// What fits into one packet.
pub(crate) const PACKET: usize = 1_200;
/// How long QUIC holds an acknowledgement back at most.
pub(crate) const ACK_HELD_BACK: u64 = 25_000;
