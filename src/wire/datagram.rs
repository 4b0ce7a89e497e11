//! Datagrams of membership: `u16 type | u16 version | packet`, the two big endian.
//!
//! A packet is one [`GossipV1`], then, where it carries news of members, a big-endian `u16`
//! of how many and that many [`MemberV1`]. Datagrams are lost and reordered; nothing here
//! needs another one to be read.

use bincode::config::standard;
use bytes::{BufMut, Bytes, BytesMut};

use super::v1::{GossipV1, MemberV1};
use super::{VERSION, WireError, bytes_of};

/// Puts type and version before a packet.
pub fn wrap(packet: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(PREFIX + packet.len());
    datagram.put_u16(MEMBERSHIP);
    datagram.put_u16(VERSION);
    datagram.put_slice(packet);
    datagram.freeze()
}

/// Returns the packet of a datagram; `None` for a type or version unknown here.
pub fn unwrap(datagram: &[u8]) -> Result<Option<&[u8]>, WireError> {
    if datagram.len() > MAX_DATAGRAM {
        let (length, limit) = (datagram.len(), MAX_DATAGRAM);
        return Err(WireError::TooLong { kind: MEMBERSHIP, length, limit });
    }
    let Some((head, packet)) = datagram.split_at_checked(PREFIX) else {
        return Err(WireError::TooShort(datagram.len()));
    };
    let known = head[..2] == MEMBERSHIP.to_be_bytes() && head[2..] == VERSION.to_be_bytes();
    Ok(known.then_some(packet))
}

/// Reads a whole packet, for what it claims to be looked at before it is believed.
pub fn read(packet: &[u8]) -> Result<(GossipV1, Vec<MemberV1>), WireError> {
    let (gossip, consumed) = gossip(packet)?;
    let mut rest = &packet[consumed..];
    let Some((count, after)) = rest.split_at_checked(2) else {
        return match rest.len() {
            0 => Ok((gossip, Vec::new())),
            extra => Err(WireError::Trailing { kind: MEMBERSHIP, extra }),
        };
    };
    let count = u16::from_be_bytes([count[0], count[1]]);
    rest = after;
    let mut members = Vec::new();
    for _ in 0..count {
        let (one, consumed) = member(rest)?;
        members.push(one);
        rest = &rest[consumed..];
    }
    match rest.len() {
        0 => Ok((gossip, members)),
        extra => Err(WireError::Trailing { kind: MEMBERSHIP, extra }),
    }
}

/// Encodes the beginning of a packet.
pub fn gossip_bytes(gossip: &GossipV1) -> Result<Vec<u8>, WireError> {
    bytes_of(gossip).map_err(|_encoder| WireError::BadBody(MEMBERSHIP))
}

/// Encodes what is said of one member.
pub fn member_bytes(member: &MemberV1) -> Result<Vec<u8>, WireError> {
    bytes_of(member).map_err(|_encoder| WireError::BadBody(MEMBERSHIP))
}

/// Decodes the beginning of a packet; returns it and how many bytes it took.
pub fn gossip(bytes: &[u8]) -> Result<(GossipV1, usize), WireError> {
    part(bytes)
}

/// Decodes what is said of one member; returns it and how many bytes it took.
pub fn member(bytes: &[u8]) -> Result<(MemberV1, usize), WireError> {
    part(bytes)
}

fn part<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    bincode::decode_from_slice(bytes, standard().with_limit::<MAX_PACKET>())
        .map_err(|_decoder| WireError::BadBody(MEMBERSHIP))
}

/// The type of datagrams that carry membership; types of datagrams are numbered apart.
pub(super) const MEMBERSHIP: u16 = 1;

const PREFIX: usize = 4;

/// The longest packet. QUIC begins with UDP payloads of 1,200 bytes, of which it takes at
/// most 38 itself.
pub const MAX_PACKET: usize = 1150;

/// The longest datagram.
pub const MAX_DATAGRAM: usize = PREFIX + MAX_PACKET;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::v1::{AddressV1, AskV1, MemberIdV1, StateV1};

    fn id(node: &str, at: Option<AddressV1>) -> MemberIdV1 {
        MemberIdV1 { node: node.to_owned(), at, epoch: 7, renewals: 1 }
    }

    fn packet() -> (GossipV1, MemberV1, Vec<u8>) {
        let source = id("fra-1", Some(AddressV1::V4([10, 0, 0, 1], 7935)));
        let target = id("nyc-1", Some(AddressV1::V6([0x20; 16], 7935)));
        let ask = AskV1::PingFor(id("x", None), 9);
        let gossip = GossipV1 { source: source.clone(), incarnation: 2, target, ask };
        let member = MemberV1 { id: source, incarnation: 300, state: StateV1::Suspect };
        let mut bytes = gossip_bytes(&gossip).unwrap();
        bytes.extend(1u16.to_be_bytes());
        bytes.extend(member_bytes(&member).unwrap());
        (gossip, member, bytes)
    }

    #[test]
    fn a_datagram_is_these_bytes() {
        let (gossip, member, bytes) = packet();
        let datagram = wrap(&bytes);
        let hex: String = datagram.iter().map(|it| format!("{it:02x}")).collect();
        let expected = concat!(
            "00010001",
            "056672612d3101000a000001fbff1e070102056e79632d310101",
            "20202020202020202020202020202020fbff1e0701",
            "0201780007010900",
            "01056672612d3101000a000001fbff1e0701fb2c0101",
        );
        assert_eq!(hex, expected);
        let packet = unwrap(&datagram).unwrap().unwrap();
        assert_eq!(read(packet), Ok((gossip, vec![member])));
    }

    #[test]
    fn what_is_no_packet_is_refused_and_what_is_newer_is_skipped() {
        let (_, _, mut bytes) = packet();
        assert_eq!(unwrap(&[0, 1, 0]), Err(WireError::TooShort(3)));
        assert_eq!(unwrap(&[0, 1, 0, 2, 5]), Ok(None));
        assert_eq!(unwrap(&[0, 2, 0, 1, 5]), Ok(None));
        assert!(matches!(unwrap(&[0; MAX_DATAGRAM + 1]), Err(WireError::TooLong { .. })));
        assert_eq!(read(&bytes[..5]), Err(WireError::BadBody(MEMBERSHIP)));
        bytes.push(0);
        assert_eq!(read(&bytes), Err(WireError::Trailing { kind: MEMBERSHIP, extra: 1 }));
        // A name of 2^28 bytes in a handful: the limit answers before any allocation.
        assert_eq!(read(&[252, 0, 0, 0, 16]), Err(WireError::BadBody(MEMBERSHIP)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            if let Ok(Some(packet)) = unwrap(&bytes) {
                drop(read(packet));
            }
            drop(read(&bytes));
        }
    }
}
