//! Which nodes tell the others of an orchestrator.
//!
//! Everybody telling of everything does not scale with the square of nodes and orchestrators.
//! A pure function of names and distances, so that all nodes that know the same members agree
//! unasked, and those that do not yet agree tell too much or too little for a moment only.

use std::cmp::Reverse;

use crate::id::NodeId;
use crate::id::OrchestratorId;

/// A node that might observe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// How far it is from the orchestrator, in metres; `None` where that is not known.
    pub distance_m: Option<u32>,
}

/// Whether `local`, one of `nodes`, tells the others of `orchestrator`: the nearest half of
/// [`OBSERVERS`] do, and as many of the rest by rendezvous, so that one region's bad day is seen
/// from elsewhere. With no more nodes than that all of them do.
pub fn observes(local: NodeId, orchestrator: OrchestratorId, nodes: &[Candidate]) -> bool {
    if nodes.len() <= OBSERVERS {
        return true;
    }
    let ring = |it: &Candidate| it.distance_m.map_or(u32::MAX, |it| it / RING_M);
    let nearness = |it: &Candidate| (ring(it), Reverse(weight(it.node, orchestrator)), it.node);
    let Some(own) = nodes.iter().find(|it| it.node == local) else { return true };
    let n_nearer = nodes.iter().filter(|it| nearness(it) < nearness(own)).count();
    if n_nearer < NEAREST {
        return true;
    }
    let mut near: Vec<_> = nodes.iter().map(nearness).collect();
    let (_, &mut last_near, _) = near.select_nth_unstable(NEAREST - 1);
    let chosen = |it: &Candidate| (Reverse(weight(it.node, orchestrator)), it.node);
    let rest = nodes.iter().filter(|it| nearness(it) > last_near);
    rest.filter(|it| chosen(it) < chosen(own)).count() < OBSERVERS - NEAREST
}

/// A number of the pair as good as drawn: the greatest of an orchestrator's observe it.
fn weight(node: NodeId, orchestrator: OrchestratorId) -> u64 {
    let mut word = orchestrator.0;
    for chunk in node.as_bytes().chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word = mixed(word ^ u64::from_le_bytes(bytes));
    }
    mixed(word)
}

/// Spreads every bit over all of them (the finaliser of SplitMix64).
pub(super) fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// How many nodes tell of one orchestrator: three that lie or are cut off are outvoted.
pub const OBSERVERS: usize = 8;

/// How many of them are the nearest.
const NEAREST: usize = 4;

/// Distances within the same ring of this width count as one: nearer by less is no better view.
const RING_M: u32 = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(n: usize) -> Vec<Candidate> {
        let at =
            |it: usize| Candidate { node: format!("n{it}").parse().unwrap(), distance_m: None };
        (0..n).map(at).collect()
    }

    /// The nodes on a ring of 40,000 km, seen from a place on it that the orchestrator names.
    fn placed(n: usize, orchestrator: u64) -> Vec<Candidate> {
        let place = mixed(orchestrator) % 40_000;
        let mut nodes = nodes(n);
        for (at, node) in nodes.iter_mut().enumerate() {
            let apart = (at as u64 * 40_000 / n as u64).abs_diff(place);
            node.distance_m = Some(apart.min(40_000 - apart) as u32 * 1000);
        }
        nodes
    }

    fn observers(orchestrator: u64, nodes: &[Candidate]) -> Vec<NodeId> {
        let orchestrator = OrchestratorId(orchestrator);
        let all = nodes.iter().map(|it| it.node);
        all.filter(|&it| observes(it, orchestrator, nodes)).collect()
    }

    #[test]
    fn each_has_eight_and_no_node_has_much_more_than_its_share() {
        for placed_at_all in [false, true] {
            let mut shares = vec![0; 30];
            for orchestrator in 0..3000 {
                let nodes = if placed_at_all { placed(30, orchestrator) } else { nodes(30) };
                let chosen = observers(orchestrator, &nodes);
                assert_eq!(chosen.len(), OBSERVERS);
                for node in chosen {
                    shares[nodes.iter().position(|it| it.node == node).unwrap()] += 1;
                }
            }
            let mean = 3000 * OBSERVERS / 30;
            assert!(shares.iter().all(|&it| it > mean * 3 / 4 && it < mean * 5 / 4), "{shares:?}");
        }
    }

    #[test]
    fn a_node_that_leaves_moves_only_what_it_observed() {
        let mut moved = 0;
        for orchestrator in 0..300 {
            let all = placed(30, orchestrator);
            let left: Vec<_> = all.iter().copied().filter(|it| it.node != all[7].node).collect();
            let (before, after) = (observers(orchestrator, &all), observers(orchestrator, &left));
            let stayed = before.iter().filter(|it| after.contains(it)).count();
            let was_one = before.contains(&all[7].node);
            // One that leaves draws in one; a nearest one that moves up leaves its other place.
            assert!(stayed >= OBSERVERS - 1 - usize::from(was_one), "{before:?} {after:?}");
            moved += OBSERVERS - stayed;
        }
        assert!(moved < 300, "{moved}");
    }

    #[test]
    fn a_small_mesh_and_a_node_that_is_not_listed_tell_of_all() {
        assert_eq!(observers(5, &nodes(8)).len(), 8);
        let stranger = "stranger".parse().unwrap();
        assert!(observes(stranger, OrchestratorId(5), &nodes(30)));
    }

    #[test]
    fn the_nearest_are_among_them() {
        let mut nodes = nodes(30);
        for node in &mut nodes[10..14] {
            node.distance_m = Some(1_000_000);
        }
        for orchestrator in 0..50 {
            let chosen = observers(orchestrator, &nodes);
            assert!(nodes[10..14].iter().all(|it| chosen.contains(&it.node)));
        }
    }
}
