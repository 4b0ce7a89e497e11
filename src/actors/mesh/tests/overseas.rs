//! Three nodes 150 ms apart that lose 2 % of their datagrams, in virtual time.

use quinn::EndpointConfig;

use super::*;
use crate::net::tests::sea::Sea;

fn address(at: u8) -> SocketAddr {
    ([10, 0, 0, at], 4433).into()
}

async fn mesh_over(sea: &Arc<Sea>, authority: &Authority, seed: u8) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let addresses = ["a", "b", "c"].into_iter().enumerate().filter(|&(it, _)| it != at);
        let addresses = addresses.map(|(it, name)| (node(name), address(it as u8))).collect();
        nodes.push(launch(sea, authority, seed, (at as u8, name), addresses).await);
    }
    nodes
}

async fn launch(
    sea: &Arc<Sea>,
    authority: &Authority,
    seed: u8,
    (at, name): (u8, &str),
    addresses: BTreeMap<NodeId, SocketAddr>,
) -> Node {
    let identity = authority.issue(node(name)).unwrap();
    let params = crate::net::tests::params(authority, identity);
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed + at; 32]));
    let endpoint = Endpoint::over(params, greeting(name), config, sea.port(address(at))).unwrap();
    start(name, endpoint, addresses, Arc::default()).await
}

async fn check(seed: u8) {
    let sea = Sea::new(u64::from(seed) * 0x9e37_79b9, ms(75), 2);
    let authority = Authority::generate("mesh.example").unwrap();
    let mut nodes = mesh_over(&sea, &authority, seed).await;
    nodes[0].until_up(&["b", "c"]).await;
    nodes[1].until_up(&["a", "c"]).await;
    nodes[2].until_up(&["a", "b"]).await;
    // The least of a few pings is the distance, give or take the grain of the timers.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let rtt = nodes[0].peers.load().row(node("c")).unwrap().rtt.unwrap();
    assert!((Micros::from_ms(150)..Micros::from_ms(160)).contains(&rtt), "{rtt}");

    // A minute of records, each told within its push, one way and a few losses.
    for round in 0..60 {
        nodes[2].actor.cast(Msg::Observed(vec![seen(round)])).unwrap();
        let told_at = clock::now();
        nodes[0].news_of(round, 1).await;
        nodes[1].news_of(round, 1).await;
        let took = clock::now() - told_at;
        assert!(took < Duration::from_secs(2), "seed {seed}: {took:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    // An island: the others see it within the silence, and it is back by itself.
    sea.cut(address(2));
    let cut_at = clock::now();
    nodes[0].until("c", |it| it.standing == Standing::Down).await;
    nodes[1].until("c", |it| it.standing == Standing::Down).await;
    let took = clock::now() - cut_at;
    assert!(took < ms(3500), "seed {seed}: {took:?}");
    assert_eq!(nodes[0].news_of(59, 0).await, []);
    nodes[0].until_up(&["b"]).await;
    sea.heal(address(2));
    nodes[0].until_up(&["b", "c"]).await;
    nodes[2].until_up(&["a", "b"]).await;
    nodes[2].actor.cast(Msg::Observed(vec![seen(99)])).unwrap();
    nodes[0].news_of(99, 1).await;
    let (n_sent, n_lost) = sea.counts();
    assert!(n_lost * 100 > n_sent, "seed {seed}: {n_lost} of {n_sent} lost");
}

#[tokio::test(start_paused = true)]
async fn records_cross_a_lossy_sea_and_an_island_comes_back() {
    for seed in [1, 11, 21] {
        check(seed).await;
    }
}

async fn check_seed(seed: u8) {
    let sea = Sea::new(u64::from(seed) * 0x9e37_79b9, ms(75), 2);
    let authority = Authority::generate("mesh.example").unwrap();
    let through_a = BTreeMap::from([(node("a"), address(0))]);
    let a = launch(&sea, &authority, seed, (0, "a"), BTreeMap::new()).await;
    // Nobody's configuration names these two.
    let d = launch(&sea, &authority, seed, (1, "d"), through_a.clone()).await;
    let e = launch(&sea, &authority, seed, (2, "e"), through_a).await;
    let well =
        |it: &PeerRow| it.standing == Standing::Up && it.membership == Some(Membership::Alive);
    d.until("e", well).await;
    e.until("d", well).await;
    a.until("d", well).await;
    a.until("e", well).await;
    assert_eq!(d.peers.load().row(node("e")).unwrap().at, Some(address(2)));

    sea.cut(address(2));
    let cut_at = clock::now();
    d.until("e", |it| it.standing == Standing::Down).await;
    let took = clock::now() - cut_at;
    assert!(took < ms(3500), "seed {seed}: {took:?}");
    d.until("e", |it| it.membership == Some(Membership::Down)).await;
    sea.heal(address(2));
    let healed_at = clock::now();
    d.until("e", well).await;
    e.until("d", well).await;
    a.until("e", well).await;
    let took = clock::now() - healed_at;
    assert!(took < Duration::from_secs(10), "seed {seed}: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_know_one_seed_find_each_other_and_again_after_a_cut() {
    for seed in [1, 11, 21] {
        check_seed(seed).await;
    }
}
