//! Ways to groups of clients, as this node and its peers tell each other of them.
//!
//! The machine keeps none of them: it passes on what its node learned, and hands over what
//! peers say. Who said it is the node of the link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::Fault;
use super::Mesh;
use super::Output;
use crate::address::Prefix;
use crate::id::{NodeId, OrchestratorId};
use crate::legs::{Target, Way};
use crate::unit::Micros;
use crate::wire::v1::{GroupV1, PlaceV1, WayV1, WaysV1};
use crate::wire::{MAX_WAYS, Message};

impl Mesh {
    /// Tells the peers of ways this node learned. It changes decisions least, so it goes only
    /// as far as the budget has some left, and another time begins with other peers; returns
    /// how many peers were told all of it.
    pub fn handle_ways(&mut self, ways: &[Way]) -> usize {
        let mut up: Vec<NodeId> = self.links().collect();
        let first = self.ways_from % up.len().max(1);
        up.rotate_left(first);
        let frames: Vec<WaysV1> = ways
            .chunks(MAX_WAYS)
            .map(|ways| WaysV1 { rows: ways.iter().map(written).collect() })
            .collect();
        for (n_told, &peer) in up.iter().enumerate() {
            for frame in &frames {
                if !self.budget.has_left() {
                    self.ways_from = first + n_told;
                    return n_told;
                }
                let before = self.budget.n_spent();
                self.send(peer, Message::Ways(frame.clone()));
                self.budget.spend_kept(self.budget.n_spent() - before);
            }
        }
        up.len()
    }

    /// Takes what a peer says of ways. Round trips that cannot be are no mistake of honest
    /// nodes, which refuse them themselves.
    pub(super) fn take_ways(&mut self, now: Instant, node: NodeId, said: &WaysV1) {
        match said.rows.iter().map(read).collect::<Option<Vec<Way>>>() {
            Some(ways) => self.outputs.push_back(Output::Ways { peer: node, ways }),
            None => self.quarantine(now, node, Fault::Value),
        }
    }
}

fn written(way: &Way) -> WayV1 {
    let group = match way.group.network() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            GroupV1::V4([a, b, c])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, ..] = ip.octets();
            GroupV1::V6([a, b, c, d, e, f])
        }
    };
    let to = match way.to {
        Target::Node(node) => PlaceV1::Node(node.to_string()),
        Target::Orchestrator(id) => PlaceV1::Orchestrator(id.0),
    };
    WayV1 { group, to, rtt_us: u32::try_from(way.rtt.0).unwrap_or(u32::MAX) }
}

fn read(way: &WayV1) -> Option<Way> {
    let network = match way.group {
        GroupV1::V4([a, b, c]) => IpAddr::V4(Ipv4Addr::new(a, b, c, 0)),
        GroupV1::V6(bits) => {
            let mut octets = [0; 16];
            octets[..6].copy_from_slice(&bits);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    let to = match &way.to {
        PlaceV1::Node(name) => Target::Node(name.parse().ok()?),
        PlaceV1::Orchestrator(id) => Target::Orchestrator(OrchestratorId(*id)),
    };
    let rtt = Micros(way.rtt_us.into());
    Way::is_plausible(rtt).then(|| Way { group: Prefix::of(network), to, rtt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_survives_the_wire_and_one_that_cannot_be_does_not() {
        let rtt = Micros::from_ms(12);
        for ip in ["198.51.100.7", "2a00:1450:4001::1"] {
            let group = Prefix::of(ip.parse().unwrap());
            for to in
                [Target::Node("sin-1".parse().unwrap()), Target::Orchestrator(OrchestratorId(9))]
            {
                let way = Way { group, to, rtt };
                assert_eq!(read(&written(&way)), Some(way));
                assert_eq!(read(&WayV1 { rtt_us: 0, ..written(&way) }), None);
                assert_eq!(read(&WayV1 { rtt_us: u32::MAX, ..written(&way) }), None);
            }
        }
        let nameless = PlaceV1::Node("a b".to_owned());
        let group = GroupV1::V4([1, 2, 3]);
        assert_eq!(read(&WayV1 { group, to: nameless, rtt_us: 9 }), None);
    }
}
