//! One link: frames in and out over the control stream of one QUIC connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use quinn::ConnectionError;
use quinn::RecvStream;
use quinn::SendStream;
use quinn::VarInt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::id::NodeId;
use crate::mesh::Fault;
use crate::mesh::Greeting;
use crate::mesh::LinkEnd;
use crate::mesh::LinkId;
use crate::mesh::election::Dialer;
use crate::unit::Micros;
use crate::wire;
use crate::wire::Frame;
use crate::wire::FrameReader;
use crate::wire::Message;
use crate::wire::WireError;

/// A link whose two ends have greeted each other.
#[derive(Debug)]
pub struct Established {
    /// The handle to send by.
    pub link: Link,
    /// What the peer sends.
    pub frames: Frames,
    /// What the peer said of itself; its node is the one its certificate names.
    pub greeting: Greeting,
    /// Who dialed.
    pub dialer: Dialer,
}

/// Why this node closes a link; the number travels in the QUIC close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The node stops, or drops the link.
    Done = 0,
    /// Another link to the same peer stays.
    Duplicate = 1,
    /// The peer is not spoken to, for now or at all.
    Refused = 2,
    /// The peer sent what is no frame.
    Garbage = 3,
    /// The peer said nothing for too long.
    Silent = 4,
    /// The link lived its time; another is welcome.
    Aged = 5,
    /// The peer's certificate is revoked.
    Revoked = 6,
}

/// A handle to one link; when the last is dropped the link closes.
#[derive(Clone, Debug)]
pub struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: LinkId,
    peer: NodeId,
    connection: Connection,
    outbound: mpsc::Sender<Message>,
    broken: Arc<OnceLock<WireError>>,
    /// The reader and the writer; they end with the link.
    _tasks: JoinSet<()>,
}

/// The frames of one link, in order; at most [`MAX_UNREAD`] wait here, the rest at the peer.
#[derive(Debug)]
pub struct Frames {
    frames: mpsc::Receiver<Frame>,
}

/// The control stream after the greetings; `reader` may hold bytes that followed them.
pub(super) struct Control {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) reader: FrameReader,
}

impl Link {
    pub(super) fn start(
        id: LinkId,
        peer: NodeId,
        control: Control,
        outbound_max: usize,
    ) -> (Self, Frames) {
        let Control { connection, send, recv, reader } = control;
        let (outbound, messages) = mpsc::channel(outbound_max);
        let (inbound, frames) = mpsc::channel(MAX_UNREAD);
        let broken = Arc::new(OnceLock::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(write(messages, send));
        tasks.spawn(read(connection.clone(), recv, reader, inbound, Arc::clone(&broken)));
        let inner = Inner { id, peer, connection, outbound, broken, _tasks: tasks };
        (Self { inner: Arc::new(inner) }, Frames { frames })
    }

    /// Returns the link's number in this process.
    pub fn id(&self) -> LinkId {
        self.inner.id
    }

    /// Returns the node at the other end.
    pub fn peer(&self) -> NodeId {
        self.inner.peer
    }

    /// Queues a message; gives it back at once when the queue is full or the link closed.
    pub fn try_send(&self, message: Message) -> Result<(), Message> {
        self.inner.outbound.try_send(message).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(it) | mpsc::error::TrySendError::Closed(it) => it,
        })
    }

    /// Sends a datagram, or loses it: one that is too long for the path, that the peer does not
    /// take, or for which older ones leave no room, is gone.
    pub fn send_datagram(&self, bytes: Bytes) {
        let fits = |max| bytes.len() <= max;
        if self.inner.connection.max_datagram_size().is_some_and(fits) {
            // A link that ended says so elsewhere.
            drop(self.inner.connection.send_datagram(bytes));
        }
    }

    /// Waits for the next datagram; `None` when the link has ended.
    pub async fn next_datagram(&self) -> Option<Bytes> {
        self.inner.connection.read_datagram().await.ok()
    }

    /// Returns where the peer's packets come from.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.connection.remote_address()
    }

    /// Waits for the end of the link.
    pub async fn closed(&self) -> LinkEnd {
        let error = self.inner.connection.closed().await;
        if let Some(&broken) = self.inner.broken.get() {
            return LinkEnd::Broken(Fault::Garbage(broken));
        }
        match error {
            ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => {
                LinkEnd::Closed
            }
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::CidsExhausted => LinkEnd::Lost,
        }
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// Returns QUIC's smoothed round trip; `None` where it is below the clock's grain.
    pub fn rtt(&self) -> Option<Micros> {
        let rtt = self.inner.connection.rtt();
        (rtt > Duration::ZERO).then(|| Micros::from(rtt))
    }

    /// Closes the link; what is queued is lost.
    pub fn close(&self, reason: CloseReason) {
        close(&self.inner.connection, reason);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        close(&self.connection, CloseReason::Done);
    }
}

impl Frames {
    /// Waits for the next frame; `None` when the link has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }
}

pub(super) fn close(connection: &Connection, reason: CloseReason) {
    connection.close(VarInt::from_u32(reason as u32), b"");
}

async fn write(mut messages: mpsc::Receiver<Message>, mut send: SendStream) {
    while let Some(message) = messages.recv().await {
        let frame = match wire::encode(&message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "a message of our own is no frame and is dropped");
                continue;
            }
        };
        if send.write_all(&frame).await.is_err() {
            // The connection is gone; `closed` says why.
            return;
        }
    }
}

async fn read(
    connection: Connection,
    mut recv: RecvStream,
    mut reader: FrameReader,
    inbound: mpsc::Sender<Frame>,
    broken: Arc<OnceLock<WireError>>,
) {
    loop {
        match next_frame(&mut recv, &mut reader).await {
            Ok(Some(frame)) => {
                if inbound.send(frame).await.is_err() {
                    return;
                }
            }
            // A link without its control stream is of no use.
            Ok(None) => return close(&connection, CloseReason::Done),
            Err(error) => {
                broken.get_or_init(|| error);
                return close(&connection, CloseReason::Garbage);
            }
        }
    }
}

/// Reads the next frame; `None` when the stream has ended.
pub(super) async fn next_frame(
    recv: &mut RecvStream,
    reader: &mut FrameReader,
) -> Result<Option<Frame>, WireError> {
    loop {
        if let Some(frame) = reader.poll()? {
            return Ok(Some(frame));
        }
        match recv.read_chunk(MAX_PIECE, true).await {
            Ok(Some(chunk)) => reader.push(&chunk.bytes),
            Ok(None) | Err(_) => return Ok(None),
        }
    }
}

/// The most frames read and not yet taken; more wait in QUIC's window, then at the peer.
pub const MAX_UNREAD: usize = 16;

/// The most bytes taken from the stream at once.
const MAX_PIECE: usize = 64 * 1024;
