//! What stands around a relay while it is measured: an origin, a bare relay to compare with,
//! and the loads that no common tool makes.
#![allow(clippy::unwrap_used, reason = "an instrument may panic")]

mod idle;
mod origin;
mod peers;
mod relay;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The same allocator as the program's, so that a ratio compares relays.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
enum Command {
    /// Answer as an orchestrator and as a plain origin, on several ports from one on.
    Origin { first: SocketAddr, ports: u16 },
    /// Relay to such origins, and do nothing else.
    Relay { listen: SocketAddr, first: SocketAddr, ports: u16 },
    /// Open connections, use each once, and hold them until standard input ends.
    Idle { to: SocketAddr, path: String, connections: usize },
    /// Read a stream of events, each of which says when it was sent; prints the delays.
    Stream { to: SocketAddr, path: String, streams: usize },
    /// Be the peers of the node `bench` that answers dials there, as many as standard input says.
    Peers { folder: PathBuf, at: SocketAddr },
    /// Connect anew for each request, under TLS 1.3; prints how many were answered.
    Handshakes { to: SocketAddr, path: String, at_once: usize, seconds: f64 },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match Command::parse() {
        Command::Origin { first, ports } => origin::serve(&ports_from(first, ports)).await,
        Command::Relay { listen, first, ports } => {
            relay::serve(listen, ports_from(first, ports)).await;
        }
        Command::Idle { to, path, connections } => idle::hold(to, &path, connections).await,
        Command::Stream { to, path, streams } => stream::measure(to, &path, streams).await,
        Command::Peers { folder, at } => peers::hold(&folder, at).await,
        Command::Handshakes { to, path, at_once, seconds } => {
            tls::handshakes(to, &path, at_once, seconds).await;
        }
    }
}

fn ports_from(first: SocketAddr, ports: u16) -> Vec<SocketAddr> {
    (0..ports).map(|at| SocketAddr::new(first.ip(), first.port() + at)).collect()
}

/// Says one line to whoever started this.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}
