//! Who a member is, and the codec of what members tell each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use crate::id::NodeId;
use crate::wire::WireError;
use crate::wire::datagram;
use crate::wire::v1::{AddressV1, AskV1, GossipV1, MemberIdV1, MemberV1, StateV1};

/// One life of a member, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its node name, by which lives of one member are told apart from other members.
    pub node: NodeId,
    /// Where it may be dialed. From a third node this is a hint: TLS proves who answers.
    pub at: Option<SocketAddr>,
    /// Its boot epoch: greater after every restart.
    pub epoch: u64,
    /// How often it came back within that life after it was declared down.
    pub renewals: u16,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewals: self.renewals.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.epoch, self.renewals) > (adversary.epoch, adversary.renewals)
    }
}

impl Identity {
    fn wired(&self) -> MemberIdV1 {
        let at = self.at.map(|at| match at.ip() {
            IpAddr::V4(ip) => AddressV1::V4(ip.octets(), at.port()),
            IpAddr::V6(ip) => AddressV1::V6(ip.octets(), at.port()),
        });
        let &Self { node, epoch, renewals, .. } = self;
        MemberIdV1 { node: node.to_string(), at, epoch, renewals }
    }

    pub(super) fn read(id: &MemberIdV1) -> Result<Self, BadMember> {
        let at = id.at.as_ref().map(|at| match *at {
            AddressV1::V4(ip, port) => SocketAddr::from((Ipv4Addr::from(ip), port)),
            AddressV1::V6(ip, port) => SocketAddr::from((Ipv6Addr::from(ip), port)),
        });
        let node = id.node.parse().map_err(|_rules| BadMember::Name)?;
        Ok(Self { node, at, epoch: id.epoch, renewals: id.renewals })
    }
}

/// Why a member cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMember {
    /// The bytes are none of the wire's.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The name breaks the rules of names.
    #[error("a member's name is none")]
    Name,
    /// No room is left in the packet; what it holds already is sent.
    #[error("the packet is full")]
    Full,
}

/// Between members and the frozen structs of the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec;

impl foca::Codec<Identity> for Codec {
    type Error = BadMember;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), BadMember> {
        put(&datagram::gossip_bytes(&gossip_of(header))?, buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, BadMember> {
        let (gossip, consumed) = datagram::gossip(buf.chunk())?;
        buf.advance(consumed);
        header_of(&gossip)
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), BadMember> {
        let state = match member.state() {
            State::Alive => StateV1::Alive,
            State::Suspect => StateV1::Suspect,
            State::Down => StateV1::Down,
        };
        let id = member.id().wired();
        let incarnation = member.incarnation();
        put(&datagram::member_bytes(&MemberV1 { id, incarnation, state })?, buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, BadMember> {
        let (member, consumed) = datagram::member(buf.chunk())?;
        buf.advance(consumed);
        let state = match member.state {
            StateV1::Alive => State::Alive,
            StateV1::Suspect => State::Suspect,
            StateV1::Down => State::Down,
        };
        Ok(Member::new(Identity::read(&member.id)?, member.incarnation, state))
    }
}

/// Returns a packet that tells `member` how it stands. Its sender's incarnation is left at the
/// first, which never counts against a later one.
pub(super) fn warning(from: &Identity, member: &Member<Identity>) -> Result<Vec<u8>, BadMember> {
    let (src, dst) = (*from, *member.id());
    let header = Header { src, src_incarnation: 0, dst, message: Message::Gossip };
    let mut packet = Vec::new();
    foca::Codec::encode_header(&mut Codec, &header, &mut packet)?;
    packet.put_u16(1);
    foca::Codec::encode_member(&mut Codec, member, &mut packet)?;
    Ok(packet)
}

fn put(bytes: &[u8], mut buf: impl BufMut) -> Result<(), BadMember> {
    if buf.remaining_mut() < bytes.len() {
        return Err(BadMember::Full);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn gossip_of(header: &Header<Identity>) -> GossipV1 {
    let ask = match &header.message {
        Message::Ping(number) => AskV1::Ping(*number),
        Message::Ack(number) => AskV1::Ack(*number),
        Message::PingReq { target, probe_number } => AskV1::PingFor(target.wired(), *probe_number),
        Message::IndirectPing { origin, probe_number } => {
            AskV1::PingFrom(origin.wired(), *probe_number)
        }
        Message::IndirectAck { target, probe_number } => {
            AskV1::AckFor(target.wired(), *probe_number)
        }
        Message::ForwardedAck { origin, probe_number } => {
            AskV1::AckFrom(origin.wired(), *probe_number)
        }
        Message::Announce => AskV1::Announce,
        Message::Feed => AskV1::Feed,
        Message::Gossip => AskV1::Gossip,
        Message::Broadcast => AskV1::Broadcast,
        Message::TurnUndead => AskV1::TurnUndead,
    };
    let (source, target) = (header.src.wired(), header.dst.wired());
    GossipV1 { source, incarnation: header.src_incarnation, target, ask }
}

fn header_of(gossip: &GossipV1) -> Result<Header<Identity>, BadMember> {
    let message = match &gossip.ask {
        AskV1::Ping(number) => Message::Ping(*number),
        AskV1::Ack(number) => Message::Ack(*number),
        AskV1::PingFor(id, probe_number) => {
            Message::PingReq { target: Identity::read(id)?, probe_number: *probe_number }
        }
        AskV1::PingFrom(id, probe_number) => {
            Message::IndirectPing { origin: Identity::read(id)?, probe_number: *probe_number }
        }
        AskV1::AckFor(id, probe_number) => {
            Message::IndirectAck { target: Identity::read(id)?, probe_number: *probe_number }
        }
        AskV1::AckFrom(id, probe_number) => {
            Message::ForwardedAck { origin: Identity::read(id)?, probe_number: *probe_number }
        }
        AskV1::Announce => Message::Announce,
        AskV1::Feed => Message::Feed,
        AskV1::Gossip => Message::Gossip,
        AskV1::Broadcast => Message::Broadcast,
        AskV1::TurnUndead => Message::TurnUndead,
    };
    let (src, dst) = (Identity::read(&gossip.source)?, Identity::read(&gossip.target)?);
    Ok(Header { src, src_incarnation: gossip.incarnation, dst, message })
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use foca::Identity as _;

    use super::*;

    fn identity(epoch: u64, renewals: u16) -> Identity {
        let at = Some(([10, 0, 0, 1], 7935).into());
        Identity { node: "fra-1".parse().unwrap(), at, epoch, renewals }
    }

    #[test]
    fn every_question_survives_the_wire() {
        let (other, probe_number) = (identity(1, 2), 3);
        for message in [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: other, probe_number },
            Message::IndirectPing { origin: other, probe_number },
            Message::IndirectAck { target: other, probe_number },
            Message::ForwardedAck { origin: other, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ] {
            let (src, dst) = (identity(5, 0), identity(6, 1));
            let header = Header { src, src_incarnation: 4, dst, message };
            let mut bytes = Vec::new();
            Codec.encode_header(&header, &mut bytes).unwrap();
            assert_eq!(Codec.decode_header(&bytes[..]), Ok(header));
        }
        for state in [State::Alive, State::Suspect, State::Down] {
            let member = Member::new(identity(5, 6), 7, state);
            let mut bytes = Vec::new();
            Codec.encode_member(&member, &mut bytes).unwrap();
            assert_eq!(Codec.decode_member(&bytes[..]), Ok(member.clone()));
            assert_eq!(Codec.encode_member(&member, (&mut bytes).limit(5)), Err(BadMember::Full));
        }
    }

    #[test]
    fn the_later_life_wins_and_the_renewed_one_within_it() {
        let born = identity(5, 3);
        assert!(born.renew().unwrap().win_addr_conflict(&born));
        assert!(identity(6, 0).win_addr_conflict(&born.renew().unwrap()));
        assert!(!born.win_addr_conflict(&born));
        assert_eq!(identity(5, u16::MAX).renew(), None);
    }
}
