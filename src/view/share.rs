//! Whose the places of an orchestrator are, when more than one node wants them.
//!
//! Every node divides them by the same rule over the same figures, so that within its share a
//! node asks nobody, and two nodes do not run for the same place. What one wants less of goes
//! to those who want more; what nobody wants is lent, so that nobody who comes anew has to ask
//! first. What some know a moment later than others is paid for by a refusal, never by a place
//! that stays unused.

use crate::id::{NodeId, OrchestratorId};

/// What one node uses of an orchestrator and wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The node.
    pub node: NodeId,
    /// What it has in flight there.
    pub in_flight: u32,
    /// Requests that wait for a place there.
    pub waiting: u32,
    /// Whether it is in the orchestrator's own region.
    pub is_home: bool,
}

impl Need {
    /// Returns what it would use if it could.
    pub(crate) fn wants(&self) -> u64 {
        u64::from(self.in_flight) + u64::from(self.waiting)
    }
}

/// Divides `places` among `needs`; returns the share of each, in their order. The shares are
/// never more than `places` together.
///
/// While a node of the orchestrator's own region uses it, those of other regions have at most
/// `foreign_permille` of it together. Places that do not divide evenly go around with `turn`,
/// so that nobody goes without for ever.
pub fn deal(
    orchestrator: OrchestratorId,
    places: u32,
    foreign_permille: u32,
    turn: u64,
    needs: &[Need],
) -> Vec<u32> {
    let is_used_at_home = needs.iter().any(|it| it.is_home && it.wants() > 0);
    let all = Deal { orchestrator, turn, needs };
    let everybody: Vec<usize> = (0..needs.len()).collect();
    let mut shares = all.among(&everybody, places.into());
    let foreign: Vec<usize> = everybody.iter().copied().filter(|at| !needs[*at].is_home).collect();
    let limit = u64::from(places) * u64::from(foreign_permille) / 1000;
    let theirs: u64 = foreign.iter().map(|at| shares[*at]).sum();
    if is_used_at_home && theirs > limit {
        let home: Vec<usize> = everybody.into_iter().filter(|at| needs[*at].is_home).collect();
        let of_home = all.among(&home, u64::from(places) - limit);
        let of_others = all.among(&foreign, limit);
        for at in 0..needs.len() {
            shares[at] = of_home[at] + of_others[at];
        }
    }
    shares.into_iter().map(|it| u32::try_from(it).unwrap_or(u32::MAX)).collect()
}

struct Deal<'a> {
    orchestrator: OrchestratorId,
    turn: u64,
    needs: &'a [Need],
}

impl Deal<'_> {
    /// Divides `places` among those at the positions in `who`; the others have none.
    fn among(&self, who: &[usize], places: u64) -> Vec<u64> {
        let mut shares = vec![0; self.needs.len()];
        let mut by_want = who.to_vec();
        by_want.sort_by_key(|at| (self.needs[*at].wants(), self.needs[*at].node));
        let mut left = places;
        let mut greedy = by_want.as_slice();
        while let Some((&least, rest)) = greedy.split_first() {
            let wants = self.needs[least].wants();
            if wants > left / greedy.len() as u64 {
                break;
            }
            shares[least] = wants;
            left -= wants;
            greedy = rest;
        }
        // Whoever wants more than an even part has that; what nobody wants is lent to all.
        let takers = if greedy.is_empty() { who.to_vec() } else { greedy.to_vec() };
        if takers.is_empty() {
            return shares;
        }
        let even = left / takers.len() as u64;
        takers.iter().for_each(|at| shares[*at] += even);
        let mut odd = takers;
        odd.sort_by_key(|at| self.rank(self.needs[*at].node));
        let n_odd = odd.len() as u64;
        let first = self.turn % n_odd;
        for step in 0..left % n_odd {
            shares[odd[((first + step) % n_odd) as usize]] += 1;
        }
        shares
    }

    /// A number of the pair as good as drawn, and the name where two are equal.
    fn rank(&self, node: NodeId) -> (u64, NodeId) {
        let mut word = self.orchestrator.0;
        for chunk in node.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word = mixed(word ^ u64::from_le_bytes(bytes));
        }
        (word, node)
    }
}

/// Spreads every bit over all of them (the finaliser of SplitMix64).
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: OrchestratorId = OrchestratorId(7);

    fn need(at: usize, in_flight: u32, waiting: u32, is_home: bool) -> Need {
        Need { node: format!("node-{at}").parse().unwrap(), in_flight, waiting, is_home }
    }

    fn needs(of: &[(u32, u32, bool)]) -> Vec<Need> {
        let one = |(at, (in_flight, waiting, is_home)): (usize, &(u32, u32, bool))| {
            need(at, *in_flight, *waiting, *is_home)
        };
        of.iter().enumerate().map(one).collect()
    }

    #[test]
    fn who_wants_less_than_an_even_part_has_it_and_the_others_share_the_rest() {
        let three = needs(&[(1, 0, true), (3, 9, true), (4, 20, true)]);
        let mut shares = deal(ID, 10, 1000, 0, &three);
        assert_eq!(shares[0], 1);
        shares.sort_unstable();
        assert_eq!(shares, [1, 4, 5]);
        let idle = needs(&[(0, 0, true), (2, 0, true)]);
        assert_eq!(deal(ID, 10, 1000, 0, &idle), [4, 6], "what nobody wants is lent");
        assert!(deal(ID, 10, 1000, 0, &[]).is_empty());
    }

    #[test]
    fn other_regions_leave_a_part_to_the_own_while_it_is_there() {
        let mixed = needs(&[(1, 0, true), (5, 30, false), (4, 30, false)]);
        let shares = deal(ID, 10, 500, 0, &mixed);
        assert_eq!((shares[0], shares[1] + shares[2]), (5, 5));
        let away = needs(&[(0, 0, true), (5, 30, false), (4, 30, false)]);
        assert_eq!(deal(ID, 10, 500, 0, &away), [0, 5, 5]);
    }

    #[test]
    fn a_place_that_does_not_divide_goes_around() {
        let many = needs(&[(0, 5, true); 7]);
        let mut had = vec![0; 7];
        for turn in 0..7 {
            let shares = deal(ID, 2, 1000, turn, &many);
            assert_eq!(shares.iter().sum::<u32>(), 2);
            had.iter_mut().zip(shares).for_each(|(had, share)| *had += share);
        }
        assert_eq!(had, [2; 7], "each has as many turns");
    }

    proptest! {
        #[test]
        fn shares_are_all_places_and_no_more(
            places in 0_u32..5_000,
            permille in 0_u32..=1000,
            turn in any::<u64>(),
            of in prop::collection::vec((0_u32..300, 0_u32..300, any::<bool>()), 1..40),
        ) {
            let needs = needs(&of);
            let shares = deal(ID, places, permille, turn, &needs);
            let sum: u64 = shares.iter().map(|it| u64::from(*it)).sum();
            prop_assert!(sum <= u64::from(places));
            let is_home = |at: usize| needs[at].is_home;
            let foreign: u64 = (0..needs.len()).filter(|at| !is_home(*at))
                .map(|at| u64::from(shares[at])).sum();
            let used = needs.iter().any(|it| it.is_home && it.wants() > 0);
            let limit = u64::from(places) * u64::from(permille) / 1000;
            prop_assert!(!used || foreign <= limit);
            // Nothing is kept from everybody: the quota alone may leave places unused.
            let all_home = needs.iter().all(|it| it.is_home);
            prop_assert!(sum == u64::from(places) || !all_home && used);
        }

        #[test]
        fn nobody_has_less_than_an_even_part_unless_it_wants_less(
            places in 0_u32..500,
            turn in any::<u64>(),
            of in prop::collection::vec((0_u32..50, 0_u32..50), 1..20),
        ) {
            let of: Vec<_> = of.into_iter().map(|(a, b)| (a, b, true)).collect();
            let needs = needs(&of);
            let shares = deal(ID, places, 1000, turn, &needs);
            let even = u64::from(places) / needs.len() as u64;
            for (need, share) in needs.iter().zip(shares) {
                prop_assert!(u64::from(share) >= need.wants().min(even));
            }
        }

        #[test]
        fn the_order_in_which_they_are_known_does_not_matter(
            places in 0_u32..50,
            turn in 0_u64..9,
            of in prop::collection::vec((0_u32..20, 0_u32..20, any::<bool>()), 1..9),
        ) {
            let there = needs(&of);
            let back: Vec<Need> = there.iter().rev().copied().collect();
            let mut shares = deal(ID, places, 500, turn, &back);
            shares.reverse();
            prop_assert_eq!(deal(ID, places, 500, turn, &there), shares);
        }
    }
}
