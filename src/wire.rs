//! The wire between nodes: frames, limits and codec; the only module naming bincode.
//!
//! A frame is `u32 length | u16 type | u16 version | body`, those three big endian. `length`
//! counts what follows it: type, version and body. The body is one frozen struct of [`v1`] in
//! bincode 2 (standard configuration: little endian, variable-length integers). Nothing here is a domain
//! type: a published struct is never edited, a new meaning gets a new type or version.
//! A type or version this node does not know is skipped by its length and reported as
//! [`Message::Unknown`], so that a newer peer may speak to an older one.

pub mod datagram;
pub mod forward;
mod reader;
pub mod v1;

use bincode::config::{Configuration, Limit, standard};
use bytes::{BufMut, Bytes, BytesMut};

pub use self::reader::{Frame, FrameReader};
use self::v1::{
    AboutV1, CommandV1, DeltaV1, DigestV1, GoodbyeV1, HelloAckV1, HelloV1, LoadV1, PingV1, PongV1,
    PullV1, WantV1, WaysV1,
};

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The dialer's first frame: who it is and which versions it speaks.
    Hello(HelloV1),
    /// The acceptor's first frame: who it is and the version both will speak.
    HelloAck(HelloAckV1),
    /// Health records of the sender, newer than those it sent before.
    Delta(DeltaV1),
    /// A question for a [`Message::Pong`] with the same nonce.
    Ping(PingV1),
    /// The answer to a [`Message::Ping`].
    Pong(PongV1),
    /// The sender takes no new work and will leave.
    Draining,
    /// The sender closes the link by intent.
    Goodbye(GoodbyeV1),
    /// What the receiver should hold of the sender's records.
    Digest(DigestV1),
    /// It does not: send them again.
    Pull(PullV1),
    /// What the sender has in flight where few places are left.
    Load(LoadV1),
    /// Ways to groups of clients that are not where they are thought to be.
    Ways(WaysV1),
    /// What the sender says of itself.
    About(AboutV1),
    /// The latest command of the operator.
    Command(CommandV1),
    /// What waits for places at the sender.
    Want(WantV1),
    /// A frame of a type or version unknown here; its body was skipped.
    Unknown {
        /// The frame's type.
        kind: u16,
        /// The frame's version.
        version: u16,
    },
}

impl Message {
    /// Returns how many rows it holds: records, orchestrators of a load, or ways.
    pub fn n_rows(&self) -> usize {
        if let Self::Delta(delta) = self {
            delta.records.len()
        } else if let Self::Load(load) = self {
            load.rows.len()
        } else if let Self::Ways(ways) = self {
            ways.rows.len()
        } else if let Self::Want(want) = self {
            want.rows.len()
        } else {
            0
        }
    }
}

/// Why bytes are not a frame, or a message is not sent as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The announced length cannot hold a type and a version; nothing of the body was read.
    #[error("a frame announces {0} bytes, which cannot hold its type and version")]
    TooShort(usize),
    /// The announced length passes the limit of its type; nothing of the body was read.
    #[error("a frame of type {kind} announces {length} bytes; its limit is {limit}")]
    TooLong {
        /// The frame's type.
        kind: u16,
        /// The announced length, in bytes.
        length: usize,
        /// The limit of that type, in bytes.
        limit: usize,
    },
    /// The body is not the struct its type and version name.
    #[error("the body of a frame of type {0} cannot be decoded")]
    BadBody(u16),
    /// The body is longer than the struct it holds.
    #[error("the body of a frame of type {kind} has {extra} bytes too many")]
    Trailing {
        /// The frame's type.
        kind: u16,
        /// Bytes left after the struct.
        extra: usize,
    },
    /// A delta holds more than [`MAX_RECORDS`] records.
    #[error("a delta holds {0} records; the limit is {MAX_RECORDS}")]
    TooManyRecords(usize),
    /// A message of load holds more than [`MAX_LOADS`] rows.
    #[error("a message of load holds {0} rows; the limit is {MAX_LOADS}")]
    TooManyLoads(usize),
    /// A message of ways holds more than [`MAX_WAYS`] rows.
    #[error("a message of ways holds {0} rows; the limit is {MAX_WAYS}")]
    TooManyWays(usize),
    /// [`Message::Unknown`] has no bytes to send.
    #[error("a message of an unknown type cannot be sent")]
    Unsendable,
}

/// Encodes `message` as one frame.
pub fn encode(message: &Message) -> Result<Bytes, WireError> {
    if let Message::Delta(delta) = message
        && delta.records.len() > MAX_RECORDS
    {
        return Err(WireError::TooManyRecords(delta.records.len()));
    }
    if matches!(message, Message::Load(_) | Message::Want(_)) && message.n_rows() > MAX_LOADS {
        return Err(WireError::TooManyLoads(message.n_rows()));
    }
    if let Message::Ways(ways) = message
        && ways.rows.len() > MAX_WAYS
    {
        return Err(WireError::TooManyWays(ways.rows.len()));
    }
    let (kind, body) = match message {
        Message::Hello(it) => (kind::HELLO, bytes_of(it)),
        Message::HelloAck(it) => (kind::HELLO_ACK, bytes_of(it)),
        Message::Delta(it) => (kind::DELTA, bytes_of(it)),
        Message::Ping(it) => (kind::PING, bytes_of(it)),
        Message::Pong(it) => (kind::PONG, bytes_of(it)),
        Message::Draining => (kind::DRAINING, Ok(Vec::new())),
        Message::Goodbye(it) => (kind::GOODBYE, bytes_of(it)),
        Message::Digest(it) => (kind::DIGEST, bytes_of(it)),
        Message::Pull(it) => (kind::PULL, bytes_of(it)),
        Message::Load(it) => (kind::LOAD, bytes_of(it)),
        Message::Ways(it) => (kind::WAYS, bytes_of(it)),
        Message::About(it) => (kind::ABOUT, bytes_of(it)),
        Message::Command(it) => (kind::COMMAND, bytes_of(it)),
        Message::Want(it) => (kind::WANT, bytes_of(it)),
        Message::Unknown { .. } => return Err(WireError::Unsendable),
    };
    let body = body.map_err(|_encoder| WireError::BadBody(kind))?;
    let length = TYPE_AND_VERSION + body.len();
    let limit = limit_of(kind);
    if length > limit {
        return Err(WireError::TooLong { kind, length, limit });
    }
    let mut frame = BytesMut::with_capacity(LENGTH + length);
    frame.put_u32(length as u32);
    frame.put_u16(kind);
    frame.put_u16(VERSION);
    frame.put_slice(&body);
    Ok(frame.freeze())
}

/// Decodes the body of a frame whose type and version [`is_known`].
fn decode(kind: u16, body: &[u8]) -> Result<Message, WireError> {
    let message = match kind {
        kind::HELLO => Message::Hello(control(kind, body)?),
        kind::HELLO_ACK => Message::HelloAck(control(kind, body)?),
        kind::DELTA => Message::Delta(delta(body)?),
        kind::PING => Message::Ping(control(kind, body)?),
        kind::PONG => Message::Pong(control(kind, body)?),
        kind::DRAINING if body.is_empty() => Message::Draining,
        kind::DRAINING => return Err(WireError::Trailing { kind, extra: body.len() }),
        kind::GOODBYE => Message::Goodbye(control(kind, body)?),
        kind::DIGEST => Message::Digest(control(kind, body)?),
        kind::PULL => Message::Pull(control(kind, body)?),
        kind::LOAD => Message::Load(load(body)?),
        kind::WAYS => Message::Ways(ways(body)?),
        kind::ABOUT => Message::About(control(kind, body)?),
        kind::COMMAND => Message::Command(control(kind, body)?),
        kind::WANT => Message::Want(want(body)?),
        _ => Message::Unknown { kind, version: VERSION },
    };
    Ok(message)
}

fn is_known(kind: u16, version: u16) -> bool {
    version == VERSION && (is_control(kind) || kind == kind::DELTA)
}

fn is_control(kind: u16) -> bool {
    (kind::HELLO..=kind::PULL).contains(&kind) && kind != kind::DELTA
        || matches!(kind, kind::COMMAND | kind::LOAD | kind::WANT | kind::WAYS | kind::ABOUT)
}

/// The greatest length a frame of `kind` may announce. A type from the future may be as long
/// as the longest of today: it is skipped as it comes and never held.
fn limit_of(kind: u16) -> usize {
    if is_control(kind) { MAX_CONTROL_FRAME } else { MAX_DELTA_FRAME }
}

fn bytes_of<T: bincode::Encode>(body: &T) -> Result<Vec<u8>, bincode::error::EncodeError> {
    bincode::encode_to_vec(body, standard())
}

fn control<T: bincode::Decode<()>>(kind: u16, body: &[u8]) -> Result<T, WireError> {
    decoded(kind, body, standard().with_limit::<MAX_CONTROL_FRAME>())
}

fn delta(body: &[u8]) -> Result<DeltaV1, WireError> {
    let delta: DeltaV1 = decoded(kind::DELTA, body, standard().with_limit::<MAX_DELTA_FRAME>())?;
    if delta.records.len() > MAX_RECORDS {
        return Err(WireError::TooManyRecords(delta.records.len()));
    }
    Ok(delta)
}

fn load(body: &[u8]) -> Result<LoadV1, WireError> {
    let load: LoadV1 = control(kind::LOAD, body)?;
    match load.rows.len() {
        n if n > MAX_LOADS => Err(WireError::TooManyLoads(n)),
        _ => Ok(load),
    }
}

fn want(body: &[u8]) -> Result<WantV1, WireError> {
    let want: WantV1 = control(kind::WANT, body)?;
    match want.rows.len() {
        n if n > MAX_LOADS => Err(WireError::TooManyLoads(n)),
        _ => Ok(want),
    }
}

fn ways(body: &[u8]) -> Result<WaysV1, WireError> {
    let ways: WaysV1 = control(kind::WAYS, body)?;
    match ways.rows.len() {
        n if n > MAX_WAYS => Err(WireError::TooManyWays(n)),
        _ => Ok(ways),
    }
}

/// Decodes one struct and checks that it fills the body: bincode itself ignores what is left,
/// and a struct that grew would be read as another.
fn decoded<T: bincode::Decode<()>, const N: usize>(
    kind: u16,
    body: &[u8],
    config: Limited<N>,
) -> Result<T, WireError> {
    let (value, consumed) =
        bincode::decode_from_slice(body, config).map_err(|_decoder| WireError::BadBody(kind))?;
    if consumed != body.len() {
        return Err(WireError::Trailing { kind, extra: body.len() - consumed });
    }
    Ok(value)
}

type Limited<const N: usize> =
    Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<N>>;

/// The types of frame. Numbers are never used twice.
mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const HELLO_ACK: u16 = 2;
    pub(super) const DELTA: u16 = 3;
    pub(super) const PING: u16 = 4;
    pub(super) const PONG: u16 = 5;
    pub(super) const DRAINING: u16 = 6;
    pub(super) const GOODBYE: u16 = 7;
    pub(super) const DIGEST: u16 = 8;
    pub(super) const PULL: u16 = 9;
    pub(super) const COMMAND: u16 = 10;
    pub(super) const LOAD: u16 = 12;
    pub(super) const WAYS: u16 = 13;
    pub(super) const ABOUT: u16 = 14;
    pub(super) const WANT: u16 = 15;
}

/// The version of every frame this node sends, and the only one it reads.
pub const VERSION: u16 = 1;

/// The longest control frame, in bytes of `length`: a hundred times the longest Hello.
pub const MAX_CONTROL_FRAME: usize = 64 * 1024;

/// The longest delta, in bytes of `length`, and the most memory decoding one may claim.
/// bincode counts containers by their size in memory: 1,024 records of 96 bytes are 96 KiB.
pub const MAX_DELTA_FRAME: usize = 256 * 1024;

/// The most records of one delta.
pub const MAX_RECORDS: usize = 1024;

/// The most rows of one message of load or of want: more orchestrators than one node fills at once.
pub const MAX_LOADS: usize = 256;

/// The most rows of one message of ways: what is learned in a few seconds.
pub const MAX_WAYS: usize = 128;

/// The most bytes a [`FrameReader`] has in hand after its caller polled it dry: one frame of
/// the longest type with its length, less one byte.
pub const MAX_HELD: usize = LENGTH + MAX_DELTA_FRAME;

const LENGTH: usize = 4;
const TYPE_AND_VERSION: usize = 4;

#[cfg(test)]
mod tests;
