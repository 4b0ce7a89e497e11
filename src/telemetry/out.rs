//! Standard error, to which a thread of its own writes: a log that is slow slows no request.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where log lines go. What needs looking at is written at once; everything else within
/// [`GATHER`], many lines with one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Out(Arc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// Held while writing, so that lines keep their order; what was written last gives its
    /// room to what waits next.
    writing: Mutex<Vec<u8>>,
    waiting: Mutex<Waiting>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines there was no room for.
    lost: u64,
}

impl Out {
    /// Starts the thread; without one, each line is written by whoever says it.
    pub(super) fn start() -> (Self, Urgency) {
        let out = Self::default();
        let writer = out.clone();
        let started = std::thread::Builder::new().name("log".into()).spawn(move || writer.run());
        (out, if started.is_ok() { Urgency::Warnings } else { Urgency::Everything })
    }

    fn run(&self) {
        loop {
            let mut waiting = lock(&self.0.waiting);
            while waiting.bytes.is_empty() {
                waiting = self.0.some.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            drop(waiting);
            // More come meanwhile, and need wake nobody.
            std::thread::sleep(GATHER);
            self.flush();
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&self) {
        let mut writing = lock(&self.0.writing);
        writing.clear();
        writing.shrink_to(ROOM_KEPT);
        let mut waiting = lock(&self.0.waiting);
        std::mem::swap(&mut *writing, &mut waiting.bytes);
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        // There is nowhere to say that standard error is gone.
        drop(io::stderr().write_all(&writing));
        if lost > 0 {
            counter!("portolan_log_lines_lost_total").increment(lost);
        }
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = lock(&self.0.waiting);
        if waiting.bytes.len() + line.len() > WAITING_MAX {
            waiting.lost += 1;
            return;
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        if first {
            self.0.some.notify_one();
        }
    }
}

/// Which lines are not kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Warnings and errors.
    Warnings,
    /// All.
    Everything,
}

/// Makes a [`LineWriter`] for each event.
#[derive(Debug)]
pub(super) struct Writers {
    pub(super) out: Out,
    pub(super) urgency: Urgency,
}

/// Takes one event's line.
#[derive(Debug)]
pub(super) struct LineWriter<'a> {
    out: &'a Out,
    urgent: bool,
}

impl<'a> MakeWriter<'a> for Writers {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { out: &self.out, urgent: self.urgency == Urgency::Everything }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> LineWriter<'a> {
        let urgent = self.urgency == Urgency::Everything || *event.level() <= Level::WARN;
        LineWriter { out: &self.out, urgent }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.out.push(line);
        if self.urgent {
            self.out.flush();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a line may wait: nobody reads faster, and a call for a hundred lines costs hardly
/// more than a call for one.
const GATHER: Duration = Duration::from_millis(10);
/// Room for what waits is kept from one writing to the next up to so much, in bytes: what a
/// node with 30,000 requests a second says meanwhile.
const ROOM_KEPT: usize = 128 << 10;
/// Bytes that wait at most, a tenth of a second of a busy node; what comes then is counted
/// and lost, for the client's request is worth more than its line.
const WAITING_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let out = Out::default();
        let line = [b'x'; 1024];
        for _ in 0..WAITING_MAX / line.len() + 3 {
            out.push(&line);
        }
        let waiting = lock(&out.0.waiting);
        assert_eq!((waiting.bytes.len(), waiting.lost), (WAITING_MAX, 3));
    }
}
