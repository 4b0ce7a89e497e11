//! Who connected, as a proxy says in front of a connection's first byte (PROXY protocol v2).
//!
//! A listener either speaks it or does not: on one that does, a connection without it is
//! refused, so that nobody can choose an address by being the first to write one.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Addresses, Command, Header};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Reads the header and returns the client's address; that of the proxy itself when it
/// speaks for itself, as for its health checks.
pub(crate) async fn client(tcp: &mut TcpStream, proxy: SocketAddr) -> io::Result<IpAddr> {
    let mut bytes = vec![0; FIXED];
    tcp.read_exact(&mut bytes).await?;
    if !bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(bad("the connection does not begin with a PROXY v2 header"));
    }
    let length = usize::from(u16::from_be_bytes([bytes[FIXED - 2], bytes[FIXED - 1]]));
    if length > LENGTH_MAX {
        return Err(bad("the PROXY header is longer than 2 KiB"));
    }
    bytes.resize(FIXED + length, 0);
    tcp.read_exact(&mut bytes[FIXED..]).await?;
    read(&bytes).map(|named| named.unwrap_or(proxy.ip()))
}

/// Returns the address a whole header names.
fn read(bytes: &[u8]) -> io::Result<Option<IpAddr>> {
    let header = Header::try_from(bytes).map_err(|error| bad(&error.to_string()))?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(None),
        (Command::Proxy, Addresses::IPv4(it)) => Ok(Some(it.source_address.into())),
        (Command::Proxy, Addresses::IPv6(it)) => Ok(Some(it.source_address.into())),
        (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => {
            Err(bad("the PROXY header names no IP address"))
        }
    }
}

fn bad(said: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, said)
}

/// Prefix, version and command, family and protocol, length.
const FIXED: usize = 16;
/// Addresses are 36 bytes; the rest are further facts, such as of the proxy's own TLS.
const LENGTH_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of `command` with an IPv4 address of the client.
    fn header(command: u8) -> Vec<u8> {
        let mut bytes = ppp::v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([0x20 | command, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187]);
        bytes
    }

    #[test]
    fn the_address_is_the_one_the_proxy_saw() {
        assert_eq!(read(&header(1)).unwrap(), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(read(&header(0)).unwrap(), None, "the proxy speaks for itself");
        assert!(read(&header(2)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(read(&tail));
            drop(read(&[ppp::v2::PROTOCOL_PREFIX, &tail[..]].concat()));
        }
    }
}
