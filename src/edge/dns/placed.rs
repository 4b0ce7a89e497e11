//! The nodes behind the mesh's name, and the order in which to try them.

use std::net::IpAddr;

use crate::geo::Point;
use crate::id::NodeId;

/// A node that clients reach by the mesh's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub node: NodeId,
    /// Where it stands.
    pub point: Point,
    /// Where clients connect; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
}

/// Returns those of `nodes` that take clients, in the order of `open`.
pub(super) fn open<'a>(nodes: &'a [Placed], open: &[NodeId]) -> Vec<&'a Placed> {
    let listed = |node: &NodeId| nodes.iter().find(|it| it.node == *node);
    open.iter().filter_map(listed).collect()
}

/// Returns all of `nodes`, the nearest to `from` first; ties by name. For when none of them takes
/// clients: an address that may be back in a moment is better than none.
pub(super) fn nearest<'a>(nodes: &'a [Placed], from: &Point) -> Vec<&'a Placed> {
    let mut by_map: Vec<&Placed> = nodes.iter().collect();
    by_map.sort_by_key(|it| (it.point.distance_m(from), it.node));
    by_map
}

/// Addresses of one node.
pub const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, lat: f64, lon: f64) -> Placed {
        let point = Point::new(lat, lon).unwrap();
        Placed { node: name.parse().unwrap(), point, addresses: Vec::new() }
    }

    #[test]
    fn nodes_are_tried_as_they_are_open_and_else_by_the_map() {
        let mut nodes = [
            placed("fra-1", 50.11, 8.68),
            placed("fra-2", 50.11, 8.68),
            placed("sin-1", 1.35, 103.82),
            placed("was-1", 38.91, -77.04),
        ];
        fn names<'a>(found: &[&'a Placed]) -> Vec<&'a str> {
            found.iter().map(|it| it.node.as_str()).collect()
        }
        let madrid = Point::new(40.42, -3.70).unwrap();
        // However the configuration lists them.
        for _ in 0..2 {
            // One that is not behind the name is not told.
            let up = ["was-1", "nyc-1", "fra-2"].map(|it| it.parse().unwrap());
            assert_eq!(names(&open(&nodes, &up)), ["was-1", "fra-2"]);
            assert_eq!(names(&nearest(&nodes, &madrid)), ["fra-1", "fra-2", "was-1", "sin-1"]);
            nodes.reverse();
        }
        assert_eq!(names(&open(&nodes, &[])), [""; 0]);
    }
}
