//! Identities that change while links live: certificates, CAs, revocations, age.

use super::*;
use crate::ca::name;
use crate::net::tests::sea::Sea;
use crate::net::tls::Facts;

fn serial(identity: &Identity) -> Serial {
    identity.facts().unwrap().serial
}

/// What both nodes believe while a CA is put in another's place.
fn both(first: &Authority, second: &Authority) -> Trust {
    let ca_pem = format!("{}{}", first.trust().ca_pem, second.trust().ca_pem);
    Trust { ca_pem, ..first.trust().clone() }
}

fn swap(endpoint: &Endpoint, identity: &Identity, trust: &Trust) {
    endpoint.swap(identity, trust, Revoked::default()).unwrap();
}

/// The number of the certificate a peer showed on this link.
fn shown(established: &Established) -> Serial {
    let chain = established.link.connection().peer_identity().unwrap();
    let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    Facts::of(&chain[0]).unwrap().serial
}

fn list(authority: &Authority, number: u64, serials: &[Serial]) -> Revoked {
    let pem = authority.revocation_list(number, serials.iter().map(|it| (it, 1))).unwrap();
    Revoked::read(&pem, &authority.trust().certificates().unwrap()).unwrap()
}

async fn alive(from: &Established, to: &mut Established) {
    from.link.try_send(Message::Ping(PingV1 { nonce: 1 })).unwrap();
    let heard = timeout(Duration::from_secs(5), to.frames.next()).await;
    assert!(heard.is_ok_and(|it| it.is_some()), "the link is dead");
}

#[tokio::test]
async fn a_ca_is_replaced_step_by_step_while_a_link_lives() {
    let [old, new] = [authority(), authority()];
    let [a_old, b_old] = ["a", "b"].map(|it| old.issue(node(it)).unwrap());
    let [a_new, b_new] = ["a", "b"].map(|it| new.issue(node(it)).unwrap());
    let a = Endpoint::bind(params(&old, a_old.clone()), greeting("a")).unwrap();
    let b = Endpoint::bind(params(&old, b_old.clone()), greeting("b")).unwrap();
    let at = a.local_addr().unwrap();
    let first = b.dial(node("a"), at).await.unwrap();
    let mut first_back = a.accept().await.unwrap();

    // Trusted beside the old one; then one node after the other has a certificate of it.
    let beside = both(&old, &new);
    swap(&a, &a_old, &beside);
    swap(&b, &b_old, &beside);
    swap(&a, &a_new, &beside);
    let mixed = b.dial(node("a"), at).await.unwrap();
    assert_eq!(shown(&mixed), serial(&a_new), "new links show the new certificate");
    let mixed_back = a.accept().await.unwrap();
    assert_eq!(shown(&mixed_back), serial(&b_old));
    swap(&b, &b_new, &beside);
    alive(&first, &mut first_back).await;

    // The old one is dropped: who has nothing better is refused, links of before live on.
    swap(&a, &a_new, new.trust());
    swap(&b, &b_new, new.trust());
    let again = b.dial(node("a"), at).await.unwrap();
    assert_eq!(shown(&again), serial(&a_new));
    let again_back = a.accept().await.unwrap();
    assert_eq!(shown(&again_back), serial(&b_new));
    let mut late = params(&old, b_old);
    late.trust = beside;
    let late = Endpoint::bind(late, greeting("b")).unwrap();
    let refused = late.dial(node("a"), at).await.unwrap_err();
    assert!(matches!(refused, NetError::Connection(_)), "{refused:?}");
    alive(&first, &mut first_back).await;
}

#[tokio::test]
async fn a_revoked_node_loses_its_links_within_a_second_and_gets_no_new_ones() {
    let authority = authority();
    let [a, b, c] = ["a", "b", "c"].map(|it| authority.issue(node(it)).unwrap());
    let bind = |identity: &Identity, name| {
        Endpoint::bind(params(&authority, identity.clone()), greeting(name)).unwrap()
    };
    let (here, bad, good) = (bind(&a, "a"), bind(&b, "b"), bind(&c, "c"));
    let at = here.local_addr().unwrap();
    let gone = bad.dial(node("a"), at).await.unwrap();
    let gone_back = here.accept().await.unwrap();
    let stays = good.dial(node("a"), at).await.unwrap();
    let mut stays_back = here.accept().await.unwrap();

    let revoked = list(&authority, 2, &[serial(&b)]);
    assert_eq!(here.swap(&a, authority.trust(), revoked.clone()).unwrap(), 1);
    let ended = async { (gone.link.closed().await, gone_back.link.closed().await) };
    let ended = timeout(Duration::from_secs(1), ended).await;
    assert_eq!(ended.unwrap(), (LinkEnd::Closed, LinkEnd::Closed));
    alive(&stays, &mut stays_back).await;

    // By its own dial, and when it is dialed.
    let refused = bad.dial(node("a"), at).await;
    while here.n_refused() == 0 {
        tokio::task::yield_now().await;
    }
    if let Ok(it) = refused {
        it.link.closed().await;
    }
    let refused = here.dial(node("b"), bad.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(&refused, NetError::Revoked(it) if *it == serial(&b)), "{refused:?}");

    // A list of before does not bring it back.
    here.swap(&a, authority.trust(), list(&authority, 1, &[])).unwrap();
    let refused = here.dial(node("b"), bad.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(refused, NetError::Revoked(_)), "{refused:?}");
}

#[tokio::test]
async fn what_does_not_fit_together_is_not_taken() {
    let [ours, theirs] = [authority(), authority()];
    let (a, b, _dialed, _accepted) = linked(&ours).await;
    let mine = ours.issue(node("a")).unwrap();
    let stranger = theirs.issue(node("a")).unwrap();
    let refused = a.swap(&stranger, ours.trust(), Revoked::default()).unwrap_err();
    assert!(matches!(refused, NetError::Tls(_)), "{refused:?}");
    let halves = Identity { key_pem: stranger.key_pem, cert_pem: mine.cert_pem.clone() };
    let refused = a.swap(&halves, ours.trust(), Revoked::default()).unwrap_err();
    assert!(matches!(refused, NetError::Tls(_)), "{refused:?}");
    let other = Trust { trust_domain: "other".to_owned(), ..ours.trust().clone() };
    let refused = a.swap(&mine, &other, Revoked::default()).unwrap_err();
    assert!(matches!(refused, NetError::OtherDomain), "{refused:?}");
    b.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_said_before_the_handshake_is_over_also_the_second_time() {
    let authority = authority();
    let a = endpoint(&authority, "a");
    let identity = authority.issue(node("b")).unwrap();
    let client = tls::client(authority.trust(), &identity, tls::ALPN).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(client));
    let dialer = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let name = name::server_name(node("a"));
    for _ in 0..2 {
        let at = a.local_addr().unwrap();
        let connecting = dialer.connect_with(config.clone(), at, &name).unwrap();
        let connection = connecting.into_0rtt().err().expect("0-RTT is off").await.unwrap();
        sleep(Duration::from_millis(50)).await;
        connection.close(VarInt::from_u32(0), b"");
    }
}

/// In virtual time, over a network in memory.
#[tokio::test(start_paused = true)]
async fn a_link_ends_at_its_age_and_another_may_follow() {
    let authority = authority();
    let sea = Sea::new(3, Duration::from_millis(20), 0);
    let over = |name: &str, at: [u8; 4]| {
        let identity = authority.issue(node(name)).unwrap();
        let age_max = Duration::from_secs(100);
        let params = Params { age_max, ..params(&authority, identity) };
        let port = sea.port((at, 1).into());
        Endpoint::over(params, greeting(name), EndpointConfig::default(), port).unwrap()
    };
    let (a, b) = (over("a", [10, 0, 0, 1]), over("b", [10, 0, 0, 2]));
    let began = clock::now();
    let dialed = b.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
    let accepted = a.accept().await.unwrap();
    assert_eq!(dialed.link.closed().await, LinkEnd::Closed);
    assert_eq!(accepted.link.closed().await, LinkEnd::Closed);
    let lived = (clock::now() - began).as_secs();
    assert!((90..=111).contains(&lived), "{lived}");
    b.dial(node("a"), a.local_addr().unwrap()).await.unwrap();
}
