//! What both sides' connections ask of TCP: bytes at once, and an end when the other is gone.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sets a fresh connection up; `unacknowledged` bounds how long bytes may wait for the other
/// side to take them, on Linux.
pub fn tune(tcp: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    // A request's head and each frame of a stream go out at once.
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive =
        TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    // Keepalive asks only while nothing is on its way; this covers what is. Elsewhere the
    // system gives up after its own retries, a quarter of an hour or so.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    #[cfg(not(target_os = "linux"))]
    let _: Duration = unacknowledged;
    Ok(())
}

/// How long bytes to a client may wait: one that vanished, or has not read for this long with
/// its buffers full, holds a stream, and an orchestrator, for nobody. The same time as
/// all probes of a quiet connection take, since Linux measures those by it as well.
pub const CLIENT_UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long bytes to an orchestrator may wait, and so, on Linux, how long it takes to miss one
/// that vanished. Twice a client's: a body larger than the buffers on its way stays unread,
/// with the window shut, while a runner is started for it.
pub const ORCHESTRATOR_UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// A quiet connection is asked after this long: below the idle limits of address translators
/// and firewalls, the shortest of which are 30 s, so that a quiet stream also stays open.
const IDLE: Duration = Duration::from_secs(15);
/// Between two unanswered questions: more than any round trip around the globe.
const INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered questions before the other side is gone: one or two are lost on a bad line.
const PROBES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_asked_whether_it_lives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&tcp, CLIENT_UNACKNOWLEDGED).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(tcp.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), IDLE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(CLIENT_UNACKNOWLEDGED));
        }
    }

    #[test]
    fn quiet_and_busy_connections_to_the_vanished_end_at_the_same_time() {
        assert_eq!(IDLE + INTERVAL * PROBES, CLIENT_UNACKNOWLEDGED);
    }
}
