//! What comes first on a stream that carries a forwarded request: one frame like any other, of
//! a type that links do not know. The request follows as HTTP/1.1.

use bytes::{BufMut, Bytes, BytesMut};

use super::v1::ForwardV1;
use super::{LENGTH, TYPE_AND_VERSION, VERSION, WireError, bytes_of, decoded};
use bincode::config::standard;

/// Encodes the frame.
pub fn encode(forward: &ForwardV1) -> Result<Bytes, WireError> {
    let body = bytes_of(forward).map_err(|_encoder| WireError::BadBody(FORWARD))?;
    let length = TYPE_AND_VERSION + body.len();
    if length > MAX_FORWARD_FRAME {
        return Err(WireError::TooLong { kind: FORWARD, length, limit: MAX_FORWARD_FRAME });
    }
    let mut frame = BytesMut::with_capacity(LENGTH + length);
    frame.put_u32(length as u32);
    frame.put_u16(FORWARD);
    frame.put_u16(VERSION);
    frame.put_slice(&body);
    Ok(frame.freeze())
}

/// Returns how many bytes follow the first four of a frame.
pub fn length(first: [u8; LENGTH]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(first) as usize;
    if length < TYPE_AND_VERSION {
        return Err(WireError::TooShort(length));
    }
    if length > MAX_FORWARD_FRAME {
        return Err(WireError::TooLong { kind: FORWARD, length, limit: MAX_FORWARD_FRAME });
    }
    Ok(length)
}

/// Decodes what follows them; `None` for a type or version unknown here.
pub fn decode(rest: &[u8]) -> Result<Option<ForwardV1>, WireError> {
    let Some((head, body)) = rest.split_first_chunk::<TYPE_AND_VERSION>() else {
        return Err(WireError::TooShort(rest.len()));
    };
    let known = head[..2] == FORWARD.to_be_bytes() && head[2..] == VERSION.to_be_bytes();
    if !known {
        return Ok(None);
    }
    decoded(FORWARD, body, standard().with_limit::<MAX_FORWARD_FRAME>()).map(Some)
}

const FORWARD: u16 = 32;

/// The longest of these frames, in bytes of `length`: ten times one with two hops.
pub const MAX_FORWARD_FRAME: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forward() -> ForwardV1 {
        ForwardV1 {
            hops: vec!["fra-1".into()],
            orchestrator: 7,
            deadline_ms: 1500,
            trace: [1; 16],
            expires: 1_798_761_659,
            seal: [2; 16],
        }
    }

    #[test]
    fn a_frame_is_the_one_that_was_frozen() {
        let bytes = encode(&forward()).unwrap();
        let hex: String = bytes.iter().map(|it| format!("{it:02x}")).collect();
        let golden = concat!(
            "0000003400200001",
            "0105",
            "6672612d31",
            "07",
            "fbdc05",
            "01010101010101010101010101010101",
            "fcbbec366b",
            "02020202020202020202020202020202",
        );
        assert_eq!(hex, golden);
        assert_eq!(length(*bytes.first_chunk().unwrap()), Ok(bytes.len() - LENGTH));
        assert_eq!(decode(&bytes[LENGTH..]), Ok(Some(forward())));
    }

    #[test]
    fn other_types_and_versions_are_told_apart_and_lengths_are_bounded() {
        let mut bytes = encode(&forward()).unwrap().to_vec();
        bytes[7] = 2;
        assert_eq!(decode(&bytes[LENGTH..]), Ok(None));
        assert!(length([0, 0, 0, 3]).is_err() && length([0xff; 4]).is_err());
        let long = ForwardV1 { hops: vec!["x".repeat(64); 100], ..forward() };
        assert!(encode(&long).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
            let known = [&[0, 32, 0, 1][..], &bytes].concat();
            drop(decode(&known));
        }
    }
}
