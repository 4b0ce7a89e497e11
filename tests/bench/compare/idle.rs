//! Connections that were used once and then stay.

use std::io::Read;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Holds `connections` to `to` until standard input ends.
pub(crate) async fn hold(to: SocketAddr, path: &str, connections: usize) {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut tcp = TcpStream::connect(to).await.unwrap();
        call(&mut tcp, path).await.unwrap();
        held.push(tcp);
    }
    crate::say("ready");
    drop(std::io::stdin().read(&mut [0]));
}

/// Makes one small request and reads its answer, which is 1 KiB long.
pub(crate) async fn call(
    io: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    path: &str,
) -> std::io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let (mut buffer, mut length) = ([0; 4096], 0);
    loop {
        let n = io.read(&mut buffer[length..]).await?;
        length += n;
        let head = buffer[..length].windows(4).position(|it| it == b"\r\n\r\n");
        match head {
            Some(_) if !buffer.starts_with(b"HTTP/1.1 200") => {
                let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                return Err(std::io::Error::other(said));
            }
            Some(head) if length >= head + 4 + 1024 => return Ok(()),
            _ if n == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
