//! Distance on a socket: bytes wait half a round trip each way, in order, in a bounded queue.
//!
//! Whoever serves the connection holds one end of an in-memory pipe; [`carry`] moves bytes
//! between the other end and the TCP stream. It is one future, polled by the task that
//! serves, so that a connection stays one task.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::clock;

/// What shall become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It lives.
    Open,
    /// It is reset after what was already sent.
    Reset,
    /// It is closed after bytes of no protocol.
    Garbage,
}

/// Makes the pipe between the serving side (first) and [`carry`] (second).
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(PIPE)
}

/// Moves bytes between `tcp` and `far` until the serving side closes its end or `fate` ends
/// the connection. `round_trip` is asked for every piece, so that distances may change. One
/// more round trip passes before the first byte is read, in place of the handshake of TCP,
/// which the loopback interface does not delay.
pub(crate) async fn carry(
    tcp: TcpStream,
    far: DuplexStream,
    round_trip: impl Fn() -> Duration,
    fate: watch::Receiver<Fate>,
) {
    let (mut tcp_read, mut tcp_write) = tcp.into_split();
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let half = || round_trip() / 2;
    let no_fate = watch::channel(Fate::Open).1;

    let end = {
        let inbound = async {
            wait(round_trip()).await;
            pump(&mut tcp_read, &mut far_write, &half, no_fate).await;
            drop(far_write.shutdown().await); // Fails only when the serving side is gone.
        };
        let outbound = pump(&mut far_read, &mut tcp_write, &half, fate);
        tokio::pin!(inbound, outbound);
        let mut reading = true;
        loop {
            tokio::select! {
                () = &mut inbound, if reading => reading = false,
                end = &mut outbound => break end,
            }
        }
    };
    // The caller may be gone already; either way nothing is left to say.
    match end {
        Fate::Open => drop(tcp_write.shutdown().await),
        Fate::Garbage => {
            drop(tcp_write.write_all(GARBAGE).await);
            drop(tcp_write.shutdown().await);
        }
        Fate::Reset => {
            drop(tcp_write.as_ref().set_zero_linger());
            tcp_write.forget();
        }
    }
}

/// Moves bytes from `from` to `to`, each piece `half()` after it came, and tells what ended
/// it: the end of the stream, an error (both [`Fate::Open`]), or `fate`.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    half: &impl Fn() -> Duration,
    mut fate: watch::Receiver<Fate>,
) -> Fate {
    let mut queue: VecDeque<(Instant, Piece)> = VecDeque::new();
    let mut queued = 0;
    let mut open = true;
    let mut fated = fate.has_changed().is_ok();
    let mut space = BytesMut::new();
    loop {
        space.reserve(PIECE);
        let due = queue.front().map(|(at, _)| *at);
        let piece = tokio::select! {
            biased;
            () = until(due), if due.is_some() => {
                match queue.pop_front() {
                    Some((_, Piece::Bytes(bytes))) => {
                        queued -= bytes.len();
                        if to.write_all(&bytes).await.is_err() {
                            return Fate::Open;
                        }
                    }
                    Some((_, Piece::End(end))) => return end,
                    None => {}
                }
                continue;
            }
            change = fate.changed(), if open && fated => match change {
                Ok(()) => Piece::End(*fate.borrow_and_update()),
                // Nobody is left who could decide.
                Err(_closed) => { fated = false; continue }
            },
            read = from.read_buf(&mut space), if open && queued < QUEUE => match read {
                Ok(0) | Err(_) => Piece::End(Fate::Open),
                Ok(_) => Piece::Bytes(space.split().freeze()),
            },
        };
        match &piece {
            Piece::Bytes(bytes) => queued += bytes.len(),
            Piece::End(_) => open = false,
        }
        // Order is kept when the distance shrinks: nothing overtakes the last piece.
        let at = clock::now() + half();
        let at = queue.back().map_or(at, |(last, _)| at.max(*last));
        queue.push_back((at, piece));
    }
}

enum Piece {
    Bytes(Bytes),
    End(Fate),
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due.filter(|it| *it > clock::now()) {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Sleeps, unless there is nothing to wait for: the shortest sleep takes a millisecond.
pub(crate) async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// Bytes in the pipe to the serving side.
const PIPE: usize = 64 * 1024;
/// The most bytes read at a time.
const PIECE: usize = 16 * 1024;
/// Bytes under way in one direction: 4 MiB keep 1 Gbit/s busy over a one-way delay of 32 ms,
/// and 160 Mbit/s over 200 ms.
const QUEUE: usize = 4 << 20;
/// Neither a TLS record nor an HTTP answer.
const GARBAGE: &[u8] = b"\x00\xff\x07 this is not a protocol \x00\xff\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `n` bytes through a pump under a paused clock; returns what came and how long
    /// it took.
    async fn sent(n: usize, half_ms: u64) -> (usize, Duration) {
        let start = clock::now();
        let (mut source, mut from) = tokio::io::duplex(PIPE);
        let (mut to, mut sink) = tokio::io::duplex(PIPE);
        let half = move || Duration::from_millis(half_ms);
        let keep = watch::channel(Fate::Open);
        let write = async {
            source.write_all(&vec![7; n]).await.unwrap();
            drop(source);
        };
        let moved = async {
            assert_eq!(pump(&mut from, &mut to, &half, keep.1).await, Fate::Open);
            drop(to);
        };
        let mut all = Vec::new();
        let (_, _, read) = tokio::join!(write, moved, sink.read_to_end(&mut all));
        (read.unwrap(), clock::now() - start)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_whole_and_late_by_the_delay_alone() {
        assert_eq!(sent(10, 0).await, (10, Duration::ZERO));
        let (n, took) = sent(1 << 20, 40).await;
        assert_eq!(n, 1 << 20);
        assert!((40..45).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_holds_the_sender_back() {
        let (n, took) = sent(2 * QUEUE, 40).await;
        assert_eq!(n, 2 * QUEUE);
        assert!((80..130).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fate_comes_after_the_bytes_before_it() {
        let (mut source, mut from) = tokio::io::duplex(PIPE);
        let (mut to, mut sink) = tokio::io::duplex(PIPE);
        let (decide, fate) = watch::channel(Fate::Open);
        let half = || Duration::from_millis(10);
        source.write_all(b"before").await.unwrap();
        let late = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            decide.send_replace(Fate::Reset);
        };
        let (end, ()) = tokio::join!(pump(&mut from, &mut to, &half, fate), late);
        assert_eq!(end, Fate::Reset);
        drop(to);
        let mut all = Vec::new();
        sink.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"before");
    }
}
