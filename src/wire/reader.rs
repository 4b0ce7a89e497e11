//! Cuts a stream of bytes into frames, holding no more of it than has arrived.

use bytes::{Buf, BytesMut};

use super::{LENGTH, Message, TYPE_AND_VERSION, WireError, decode, is_known, limit_of};

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub message: Message,
    /// How many bytes it took on the wire.
    pub size: usize,
}

/// Reads frames out of bytes pushed in pieces of any size.
///
/// After an error the stream has no meaning any more: every later poll repeats the error.
#[derive(Debug, Default)]
pub struct FrameReader {
    held: BytesMut,
    skip: usize,
    failed: Option<WireError>,
}

impl FrameReader {
    /// Returns a reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. Poll until `None` before pushing more: then at
    /// most [`super::MAX_HELD`] bytes and the last piece are held.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.held.extend_from_slice(&bytes[skipped..]);
    }

    /// Returns the next frame; `None` until more bytes are pushed.
    pub fn poll(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let polled = self.next_frame();
        if let Err(error) = polled {
            self.failed = Some(error);
            self.held = BytesMut::new();
        }
        polled
    }

    /// Returns how many bytes wait for the rest of their frame.
    pub fn n_held(&self) -> usize {
        self.held.len()
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((head, rest)) = self.held.split_at_checked(LENGTH + TYPE_AND_VERSION) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_be_bytes([head[4], head[5]]);
        let version = u16::from_be_bytes([head[6], head[7]]);
        let limit = limit_of(kind);
        if length < TYPE_AND_VERSION {
            return Err(WireError::TooShort(length));
        }
        if length > limit {
            return Err(WireError::TooLong { kind, length, limit });
        }
        let body = length - TYPE_AND_VERSION;
        let size = LENGTH + length;
        if !is_known(kind, version) {
            let here = body.min(rest.len());
            self.skip = body - here;
            self.held.advance(LENGTH + TYPE_AND_VERSION + here);
            return Ok(Some(Frame { message: Message::Unknown { kind, version }, size }));
        }
        let Some(body) = rest.get(..body) else { return Ok(None) };
        let message = decode(kind, body)?;
        self.held.advance(size);
        Ok(Some(Frame { message, size }))
    }
}
