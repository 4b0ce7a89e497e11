//! How late the events of a stream arrive.

use std::net::SocketAddr;

use portolan::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::FRAMES;

/// Reads `streams` streams, one after the other, and prints the microseconds from each
/// request to its first event, and from the sending of each further event to its arrival.
pub(crate) async fn measure(to: SocketAddr, path: &str, streams: usize) {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..streams {
        let mut tcp = TcpStream::connect(to).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        // The first request of a connection also opens ways behind the relay.
        for warm in [false, true] {
            let began = clock::wall();
            let request =
                format!("POST {path} HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\n\r\n{{}}");
            tcp.write_all(request.as_bytes()).await.unwrap();
            let arrived = read(&mut tcp).await;
            if warm {
                first.push(micros(arrived[0].1, began.as_nanos()));
                later.extend(arrived[1..].iter().map(|(sent, at)| micros(*at, *sent)));
            }
        }
    }
    crate::say(&serde_json::json!({ "first_us": first, "later_us": later }).to_string());
}

/// Reads one answer; returns when each event was sent and when it was here.
async fn read(tcp: &mut TcpStream) -> Vec<(u128, u128)> {
    let (mut text, mut arrived) = (String::new(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let n = tcp.read(&mut buffer).await.unwrap();
        let now = clock::wall().as_nanos();
        assert!(n > 0, "the stream broke off: {text}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        while let Some(start) = text.find("data: ") {
            let Some(end) = text[start..].find('\n') else { break };
            let stamp = &text[start + "data: ".len()..start + end];
            arrived.push((stamp.parse().unwrap(), now));
            text.drain(..start + end);
        }
        if arrived.len() == FRAMES as usize && text.ends_with("0\r\n\r\n") {
            return arrived;
        }
    }
}

fn micros(until: u128, from: u128) -> u64 {
    until.saturating_sub(from) as u64 / 1000
}
