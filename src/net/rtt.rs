//! Round trips of established TCP connections, as the kernel knows them.
//!
//! Linux tells them of every socket at once, through netlink (`sock_diag`), without a call
//! on any of the sockets and without any right. Elsewhere nothing is told.

use std::io;
use std::net::IpAddr;

use crate::unit::Micros;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The port on this side.
    pub port: u16,
    /// The other side.
    pub peer: IpAddr,
    /// The least round trip of the last minutes.
    pub rtt: Micros,
}

/// Returns the established connections whose port on this side is among `ports`, at most
/// [`SEEN_MAX`]. Blocks for as long as the kernel takes to list its sockets: about a
/// microsecond each.
#[cfg(target_os = "linux")]
pub fn established(ports: &[u16]) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for v6 in [false, true] {
        linux::dump(v6, |it| take(&mut seen, ports, it))?;
    }
    Ok(seen)
}

/// Takes a connection if its port is among `ports` and there is room for it.
#[cfg(target_os = "linux")]
fn take(seen: &mut Vec<Seen>, ports: &[u16], it: Seen) {
    if ports.contains(&it.port) && seen.len() < SEEN_MAX {
        seen.push(it);
    }
}

/// Returns nothing: this system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn established(_ports: &[u16]) -> io::Result<Vec<Seen>> {
    Ok(Vec::new())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader};
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::SockDiagMessage;
    use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
    use netlink_packet_sock_diag::inet::nlas::Nla;
    use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse};
    use netlink_packet_sock_diag::inet::{SocketId, StateFlags};
    use netlink_sys::protocols::NETLINK_SOCK_DIAG;
    use netlink_sys::{Socket, SocketAddr};

    use super::Seen;
    use crate::unit::Micros;

    /// Hands every established TCP connection of one family to `take`.
    pub(super) fn dump(v6: bool, mut take: impl FnMut(Seen)) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&request(v6), 0)?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        for _ in 0..DATAGRAMS_MAX {
            let n = socket.recv(&mut &mut buffer[..], 0)?;
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest);
                let message = message.map_err(io::Error::other)?;
                let length = message.header.length as usize;
                let payload = message.payload;
                if let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(it)) = payload {
                    seen(&it).into_iter().for_each(&mut take);
                } else if let NetlinkPayload::Error(error) = payload {
                    return Err(error.to_io());
                } else if let NetlinkPayload::Done(_) = payload {
                    return Ok(());
                }
                // Messages are padded to four bytes.
                rest = rest.get(length.max(1).next_multiple_of(4)..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn request(v6: bool) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = InetRequest {
            family: if v6 { AF_INET6 } else { AF_INET },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::ESTABLISHED,
            socket_id: if v6 { SocketId::new_v6() } else { SocketId::new_v4() },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn seen<'a>(response: &'a InetResponse) -> Option<Seen> {
        let id = &response.header.socket_id;
        let info = |it: &'a Nla| if let Nla::TcpInfo(info) = it { Some(info) } else { None };
        let info = response.nlas.iter().find_map(info)?;
        // Old kernels know no least one; all ones and zero stand for none.
        let least = Some(info.min_rtt).filter(|it| *it > 0 && *it < u32::MAX);
        let rtt = least.unwrap_or(info.rtt);
        let peer = id.destination_address.to_canonical();
        (rtt > 0).then_some(Seen { port: id.source_port, peer, rtt: Micros(rtt.into()) })
    }

    /// The kernel fills at most half of it.
    const DATAGRAM_MAX: usize = 64 * 1024;
    /// A million sockets take less.
    const DATAGRAMS_MAX: usize = 65_536;
}

/// The most connections returned: all a node's table of groups has room for.
pub const SEEN_MAX: usize = 65_536;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn as_many_are_taken_as_there_is_room_for_and_none_of_another_port() {
        let of = |port, n: usize| Seen { port, peer: [10, 0, 0, 1].into(), rtt: Micros(n as u64) };
        let mut seen = Vec::new();
        for n in 0..=SEEN_MAX {
            take(&mut seen, &[443], of(80, n));
            take(&mut seen, &[443], of(443, n));
        }
        assert_eq!(seen.len(), SEEN_MAX);
        assert_eq!(seen.last(), Some(&of(443, SEEN_MAX - 1)), "those that came first");
    }

    #[test]
    fn a_connection_of_our_own_is_seen_with_its_round_trip() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let at = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(at).unwrap();
            let (mut accepted, _peer) = listener.accept().unwrap();
            accepted.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            let seen = established(&[at.port()]).unwrap();
            let own: Vec<&Seen> = seen.iter().filter(|it| it.peer == at.ip()).collect();
            assert_eq!(own.len(), 1, "{seen:?}");
            assert!(own[0].rtt < Micros::from_ms(1000), "{seen:?}");
            assert_eq!(established(&[]).unwrap(), []);
        }
    }
}
