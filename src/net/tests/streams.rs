//! Streams for what peers forward: how many there are at once.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn a_peer_has_so_many_streams_at_once_and_more_when_some_end() {
    let authority = authority();
    let a = endpoint(&authority, "a");
    let identity = authority.issue(node("b")).unwrap();
    let handshake_timeout = Duration::from_secs(2);
    let hasty = Params { handshake_timeout, ..params(&authority, identity) };
    let b = Endpoint::bind(hasty, greeting("b")).unwrap();
    let _dialed = b.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
    let _accepted = a.accept().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..bulk::STREAMS_MAX {
        let mut stream = b.bulk(node("a")).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        streams.push(stream);
    }
    let beyond = b.bulk(node("a")).await;
    assert!(matches!(beyond, Err(NetError::Timeout)), "{beyond:?}");
    // A peer is told of room once an eighth of it is there.
    for ended in streams.drain(..=bulk::STREAMS_MAX as usize / 8) {
        drop(ended);
        drop(a.carried().await.unwrap());
    }
    b.bulk(node("a")).await.unwrap();
}
