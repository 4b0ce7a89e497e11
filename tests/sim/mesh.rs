//! Meshes of nine nodes on a rough sea: who finds whom, who is noticed, who is believed.

mod fleet;
mod liars;
mod player;
mod report;
pub(crate) mod sea;
mod story;
mod stream;

use std::time::Duration;

use portolan::mesh::{Membership, Standing};

use crate::for_seeds;
use player::Way;
use sea::{Sea, Waters, ms};

fn whole(seed: u64, loss_permille: u64) -> Sea {
    let mut sea = Sea::new(Waters { n_nodes: 9, n_orchestrators: 2, loss_permille, seed });
    let took = sea.until_whole(Duration::from_secs(30));
    assert!(took.is_some(), "the nodes did not find each other through the first");
    sea.run(Duration::from_secs(6));
    sea
}

#[test]
fn an_orchestrator_that_refuses_is_avoided_by_all_within_a_second() {
    for_seeds(|seed| {
        let mut sea = whole(seed, 1);
        let from = sea.instant();
        for node in &mut sea.nodes {
            assert_eq!(node.player.held[0].avoided_at, None);
            node.player.held[0].way = Way::Refused;
        }
        sea.run(ms(1_000));
        for node in &sea.nodes {
            let at = node.player.held[0].avoided_at;
            assert!(at.is_some(), "{} goes on", node.name);
            assert!(at >= Some(from));
            assert_eq!(node.player.held[1].avoided_at, None);
        }
    });
}

#[test]
fn a_node_behind_one_broken_link_keeps_that_view_to_itself() {
    for_seeds(|seed| {
        let mut sea = whole(seed, 1);
        sea.nodes[3].player.held[0].way = Way::Refused;
        for _ in 0..300 {
            sea.run(ms(100));
            for (at, node) in sea.nodes.iter().enumerate().filter(|(at, _)| *at != 3) {
                assert_eq!(node.player.held[0].avoided_at, None, "node {at} was persuaded");
            }
        }
    });
}

#[test]
fn a_frozen_peer_is_noticed_within_three_seconds() {
    for_seeds(|seed| {
        let mut sea = whole(seed, 1);
        sea.freeze(4);
        sea.run(ms(3_000));
        let frozen = sea.nodes[4].name;
        for node in sea.nodes.iter().filter(|it| it.name != frozen) {
            let row = node.mesh.peers().row(frozen).unwrap().clone();
            assert_eq!(row.standing, Standing::Down, "{} did not notice", node.name);
        }
        sea.run(ms(12_000));
        let row = sea.nodes[0].mesh.peers().row(frozen).unwrap().clone();
        assert_eq!(row.membership, Some(Membership::Down));
    });
}

#[test]
fn a_mesh_that_fell_in_two_is_whole_again_within_half_a_minute() {
    for_seeds(|seed| {
        let mut sea = whole(seed, 10);
        sea.part(4);
        sea.run(Duration::from_secs(60));
        assert_eq!(
            sea.nodes[0].mesh.peers().row(sea.nodes[8].name).unwrap().standing,
            Standing::Down
        );
        sea.cut.clear();
        let took = sea.until_whole(Duration::from_secs(30));
        assert!(took.is_some(), "still in two");
    });
}

#[test]
fn a_way_cut_in_one_direction_is_no_link_and_no_death() {
    for_seeds(|seed| {
        let mut sea = whole(seed, 1);
        sea.cut.insert((2, 6));
        sea.run(Duration::from_secs(20));
        let (two, six) = (sea.nodes[2].name, sea.nodes[6].name);
        for (at, other) in [(2, six), (6, two)] {
            let row = sea.nodes[at].mesh.peers().row(other).unwrap().clone();
            // The others reach both, so neither is dead.
            assert_eq!((row.standing, row.membership), (Standing::Down, Some(Membership::Alive)));
        }
        sea.cut.clear();
        assert!(sea.until_whole(Duration::from_secs(10)).is_some());
    });
}

#[test]
fn nobody_is_held_for_down_at_five_percent_loss() {
    let minutes = std::env::var("SIM_MINUTES").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    for_seeds(|seed| {
        let mut sea = whole(seed, 50);
        for node in &mut sea.nodes {
            node.lost.clear();
        }
        for _ in 0..minutes * 60 {
            sea.run(ms(1_000));
            for node in &sea.nodes {
                assert!(node.lost.is_empty(), "{}: {:?}", node.name, node.lost);
                let rows = node.mesh.peers().rows;
                let down = rows.iter().find(|it| it.membership == Some(Membership::Down));
                assert!(down.is_none(), "{} holds {down:?}", node.name);
            }
        }
    });
}
