pub(crate) mod sea;
mod streams;
mod swap;

use std::net::Ipv4Addr;

use bytes::Bytes;
use rcgen::SanType;

use super::tls::Authority;
use super::*;
use crate::ca::name;
use crate::mesh::Fault;
use crate::mesh::LinkEnd;
use crate::wire;
use crate::wire::Message;
use crate::wire::v1::PingV1;

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub(crate) fn greeting(name: &str) -> Greeting {
    Greeting { node: node(name), region: "FRA".parse().unwrap(), epoch: 1, features: 0 }
}

pub(crate) fn params(authority: &Authority, identity: Identity) -> Params {
    Params {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        identity,
        trust: authority.trust().clone(),
        revoked: Revoked::default(),
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(1),
        age_max: Duration::from_secs(24 * 3600),
        outbound_max: 8,
    }
}

pub(crate) fn endpoint(authority: &Authority, name: &str) -> Endpoint {
    let identity = authority.issue(node(name)).unwrap();
    Endpoint::bind(params(authority, identity), greeting(name)).unwrap()
}

/// A peer that holds a good certificate and nothing else: it writes what it likes.
pub(crate) struct Rogue {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    _recv: quinn::RecvStream,
}

impl Rogue {
    /// Dials as `name` and greets like anyone.
    pub(crate) async fn greet(authority: &Authority, name: &str, at: SocketAddr) -> Self {
        let identity = authority.issue(node(name)).unwrap();
        let client = tls::client(authority.trust(), &identity, tls::ALPN).unwrap();
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(client));
        let server = name::server_name(node("a"));
        let connection = endpoint.connect_with(config, at, &server).unwrap().await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let hello = wire::encode(&Message::Hello(greeting(name).hello())).unwrap();
        send.write_all(&hello).await.unwrap();
        // The answer, unless the other side has thought better of it by now.
        drop(recv.read_chunk(1000, true).await);
        Self { _endpoint: endpoint, connection, send, _recv: recv }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn closed(&self) {
        self.connection.closed().await;
    }
}

fn authority() -> Authority {
    Authority::generate("mesh.example").unwrap()
}

async fn linked(authority: &Authority) -> (Endpoint, Endpoint, Established, Established) {
    let [a, b] = ["a", "b"].map(|it| endpoint(authority, it));
    let dialed = b.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
    let accepted = a.accept().await.unwrap();
    (a, b, dialed, accepted)
}

#[tokio::test]
async fn two_nodes_greet_and_frames_pass_both_ways() {
    let (_a, _b, mut dialed, mut accepted) = linked(&authority()).await;
    assert_eq!((dialed.greeting, accepted.greeting), (greeting("a"), greeting("b")));
    assert_eq!((dialed.link.peer(), accepted.link.peer()), (node("a"), node("b")));
    dialed.link.try_send(Message::Ping(PingV1 { nonce: 4 })).unwrap();
    let frame = accepted.frames.next().await.unwrap();
    assert_eq!(frame.message, Message::Ping(PingV1 { nonce: 4 }));
    accepted.link.try_send(Message::Draining).unwrap();
    assert_eq!(dialed.frames.next().await.unwrap().message, Message::Draining);
    accepted.link.close(CloseReason::Duplicate);
    assert_eq!(dialed.link.closed().await, LinkEnd::Closed);
    assert_eq!(dialed.frames.next().await, None);
}

#[tokio::test]
async fn a_socket_is_left_to_another_and_taken_again() {
    let authority = authority();
    let [b, c] = ["b", "c"].map(|it| endpoint(&authority, it));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (at, kept) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
    let identity = authority.issue(node("a")).unwrap();
    let named = params(&authority, identity);
    let old = Endpoint::on(named.clone(), greeting("a"), socket).unwrap();
    b.dial(node("a"), at).await.unwrap();
    old.leave().unwrap();
    assert_ne!(old.local_addr().unwrap(), at);
    let later = Greeting { epoch: 2, ..greeting("a") };
    let new = Endpoint::on(named, later, kept.try_clone().unwrap()).unwrap();
    for other in [&b, &c] {
        assert_eq!(other.dial(node("a"), at).await.unwrap().greeting, later);
    }
    new.leave().unwrap();
    old.return_to(kept).unwrap();
    assert_eq!(c.dial(node("a"), at).await.unwrap().greeting, greeting("a"));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_gives_the_message_back() {
    let (_a, _b, dialed, _accepted) = linked(&authority()).await;
    // Nothing is awaited between these, so the writer takes none of them.
    for nonce in 0..8 {
        dialed.link.try_send(Message::Ping(PingV1 { nonce })).unwrap();
    }
    let last = Message::Ping(PingV1 { nonce: 8 });
    assert_eq!(dialed.link.try_send(last.clone()), Err(last));
}

#[tokio::test]
async fn a_dropped_link_ends_at_the_other_side() {
    let (_a, _b, dialed, accepted) = linked(&authority()).await;
    drop(dialed);
    assert_eq!(accepted.link.closed().await, LinkEnd::Closed);
}

/// Dials node a with another node's parameters; both sides have to refuse.
async fn check_refused(authority: &Authority, params: Params, name: &str) -> NetError {
    let a = endpoint(authority, "a");
    let dialer = Endpoint::bind(params, greeting(name)).unwrap();
    let refused = dialer.dial(node("a"), a.local_addr().unwrap()).await.unwrap_err();
    while a.n_refused() == 0 {
        tokio::task::yield_now().await;
    }
    refused
}

#[tokio::test]
async fn a_node_of_another_ca_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let identity = theirs.issue(node("b")).unwrap();
    // It knows our CA, so that only its own certificate is at fault.
    let refused = check_refused(&ours, params(&ours, identity.clone()), "b").await;
    assert!(matches!(refused, NetError::Connection(_)), "{refused:?}");
    // And one that trusts only its own CA refuses us.
    let refused = check_refused(&ours, params(&theirs, identity), "b").await;
    assert!(matches!(refused, NetError::Connection(_)), "{refused:?}");
}

#[tokio::test]
async fn a_node_under_another_name_than_dialed_is_refused() {
    let authority = authority();
    let [a, b] = ["a", "b"].map(|it| endpoint(&authority, it));
    let refused = b.dial(node("c"), a.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(refused, NetError::Connection(_)), "{refused:?}");
}

#[tokio::test]
async fn a_node_that_greets_under_anothers_name_is_refused() {
    let authority = authority();
    let identity = authority.issue(node("b")).unwrap();
    let a = endpoint(&authority, "a");
    let liar = Endpoint::bind(params(&authority, identity), greeting("c")).unwrap();
    let answered = liar.dial(node("a"), a.local_addr().unwrap()).await;
    while a.n_refused() == 0 {
        tokio::task::yield_now().await;
    }
    if let Ok(it) = answered {
        it.link.closed().await;
    }
}

#[tokio::test]
async fn a_certificate_without_a_spiffe_name_is_refused() {
    let authority = authority();
    let dns = SanType::DnsName("b.mesh.internal".to_owned().try_into().unwrap());
    let identity = authority.issue_for(node("b"), vec![dns]).unwrap();
    let refused = check_refused(&authority, params(&authority, identity), "b").await;
    assert!(matches!(refused, NetError::Connection(_)), "{refused:?}");
}

#[tokio::test]
async fn a_node_of_the_mesh_that_nobody_configured_is_greeted() {
    let authority = authority();
    let [a, newcomer] = ["a", "newcomer"].map(|it| endpoint(&authority, it));
    let dialed = newcomer.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
    assert_eq!(dialed.link.remote_address(), a.local_addr().unwrap());
    assert_eq!(a.accept().await.unwrap().greeting, greeting("newcomer"));
}

#[tokio::test]
async fn datagrams_pass_both_ways_and_one_that_is_too_long_is_lost() {
    let (_a, _b, dialed, accepted) = linked(&authority()).await;
    let longest = Bytes::from(vec![7; wire::datagram::MAX_DATAGRAM]);
    dialed.link.send_datagram(Bytes::from(vec![1; 60_000]));
    dialed.link.send_datagram(longest.clone());
    assert_eq!(accepted.link.next_datagram().await, Some(longest.clone()));
    accepted.link.send_datagram(longest.clone());
    assert_eq!(dialed.link.next_datagram().await, Some(longest));
    accepted.link.close(CloseReason::Done);
    assert_eq!(dialed.link.next_datagram().await, None);
}

#[tokio::test]
async fn a_link_that_carries_garbage_ends_broken() {
    let authority = authority();
    let a = endpoint(&authority, "a");
    let mut rogue = Rogue::greet(&authority, "b", a.local_addr().unwrap()).await;
    let mut accepted = a.accept().await.unwrap();
    rogue.write(&[0xff; 64]).await;
    assert_eq!(accepted.frames.next().await, None);
    let length = 0xffff_ffff;
    let limit = wire::MAX_DELTA_FRAME;
    let error = WireError::TooLong { kind: 0xffff, length, limit };
    assert_eq!(accepted.link.closed().await, LinkEnd::Broken(Fault::Garbage(error)));
    rogue.closed().await;
}
