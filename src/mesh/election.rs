//! Which of two links to one peer stays: both sides have to answer alike, unasked.

use crate::id::NodeId;

/// Who dialed a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialer {
    /// This node.
    Here,
    /// The peer.
    There,
}

/// One of two links to the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Who dialed it.
    pub dialer: Dialer,
    /// The peer's boot epoch, as its greeting said.
    pub epoch: u64,
}

/// Whether the `fresh` link replaces the `current` one.
///
/// The link to the peer's later life stays: the other leads nowhere. Within one life the link
/// dialed by the node of the lower name stays, so that both sides keep the same one when they
/// dial at once. Of two by the same dialer the fresh one stays: its dialer had given up the
/// other.
pub fn replaces(local: NodeId, peer: NodeId, current: Contender, fresh: Contender) -> bool {
    if fresh.epoch != current.epoch {
        return fresh.epoch > current.epoch;
    }
    let lower = if local < peer { Dialer::Here } else { Dialer::There };
    fresh.dialer == current.dialer || fresh.dialer == lower
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(local: &str, current: (Dialer, u64), fresh: (Dialer, u64)) -> bool {
        let contender = |(dialer, epoch)| Contender { dialer, epoch };
        let (local, peer) = match local {
            "a" => ("a", "b"),
            other => (other, "a"),
        };
        let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
        replaces(local, peer, contender(current), contender(fresh))
    }

    #[test]
    fn both_sides_keep_the_link_the_lower_name_dialed_in_any_order() {
        use Dialer::{Here, There};
        // a's own dial is There for b; each side may learn of the two links in either order.
        assert!(!check("a", (Here, 1), (There, 1)));
        assert!(check("a", (There, 1), (Here, 1)));
        assert!(check("b", (Here, 1), (There, 1)));
        assert!(!check("b", (There, 1), (Here, 1)));
    }

    #[test]
    fn a_second_dial_of_one_side_replaces_its_first() {
        for local in ["a", "b"] {
            assert!(check(local, (Dialer::Here, 1), (Dialer::Here, 1)));
            assert!(check(local, (Dialer::There, 1), (Dialer::There, 1)));
        }
    }

    #[test]
    fn a_link_to_the_later_life_stays_whoever_dialed_it() {
        assert!(check("a", (Dialer::Here, 1), (Dialer::There, 2)));
        assert!(!check("a", (Dialer::There, 2), (Dialer::Here, 1)));
    }
}
