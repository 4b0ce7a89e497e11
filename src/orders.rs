//! What the operator has ordered for a whole mesh: who takes nothing new, and what share of its
//! work a region gets.
//!
//! Pure. Orders stand until others take their place, whole: the latest number of
//! [`crate::operator`]'s commands wins everywhere, so nodes that were apart agree as soon as
//! they meet, and putting the orders before in force again is one command like any other.

mod drains;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::address::Prefix;
use crate::id::{NodeId, OrchestratorId, RegionId};
use crate::policy::Shut;

pub use drains::{Drains, Held, Over};

/// Orders, as a command's body holds them: JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The number of the orders these were made from; 0 for none. Orders made from others than
    /// those in force are refused where they are given.
    pub previous: u64,
    /// Who takes nothing new; at most [`DRAINS_MAX`].
    #[serde(default)]
    pub drains: Vec<Drain>,
    /// How many in a hundred of a region's clients and of its work it gets, 0 to 100; what is
    /// not named gets all. At most [`DIALS_MAX`].
    #[serde(default)]
    pub dials: BTreeMap<RegionId, u8>,
}

/// Somebody who takes nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who.
    pub what: Drained,
    /// How long its sessions may go on after a node heard of it, in seconds; for ever where it
    /// is not said. At most [`WITHIN_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_s: Option<u32>,
}

/// Who is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drained {
    /// A node takes no new work and no new clients.
    Node(NodeId),
    /// Nor do the nodes of a region, and its orchestrators get none.
    Region(RegionId),
    /// An orchestrator gets no new work.
    Orchestrator(OrchestratorId),
}

/// Why orders are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOrders {
    /// No orders.
    #[error("the command's body holds no orders: {0}")]
    Form(String),
    /// More than fit.
    #[error("orders hold at most {DRAINS_MAX} drains and {DIALS_MAX} dials")]
    Many,
    /// A share above a hundred, or a time that is too long.
    #[error("a dial is 0 to 100 percent, and a drain lasts at most a day")]
    Range,
}

impl Orders {
    /// Reads a command's body.
    pub fn read(body: &[u8]) -> Result<Self, BadOrders> {
        let orders: Self =
            serde_json::from_slice(body).map_err(|bad| BadOrders::Form(bad.to_string()))?;
        if orders.drains.len() > DRAINS_MAX || orders.dials.len() > DIALS_MAX {
            return Err(BadOrders::Many);
        }
        let long = |it: &Drain| it.within_s.is_some_and(|it| it > WITHIN_MAX);
        if orders.dials.values().any(|it| *it > 100) || orders.drains.iter().any(long) {
            return Err(BadOrders::Range);
        }
        Ok(orders)
    }

    /// Returns them as a command's body.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether nothing is ordered.
    pub fn is_empty(&self) -> bool {
        self.drains.is_empty() && self.dials.is_empty()
    }

    /// Adds a drain, in place of an earlier one of the same; or takes it back.
    pub fn set_drain(&mut self, what: Drained, drain: Option<Drain>) {
        self.drains.retain(|it| it.what != what);
        self.drains.extend(drain);
    }

    /// Sets a region's share; all of it is nothing to order.
    pub fn set_dial(&mut self, region: RegionId, percent: u8) {
        match percent {
            100.. => drop(self.dials.remove(&region)),
            _ => drop(self.dials.insert(region, percent)),
        }
    }

    /// Whether a node of a region takes nothing new.
    pub fn drains_node(&self, node: NodeId, region: RegionId) -> bool {
        let is = |it: &Drain| it.what == Drained::Node(node) || it.what == Drained::Region(region);
        self.drains.iter().any(is)
    }

    /// Leaves out of `nodes` those a client of a group may not enter by: who is drained, and who
    /// is turned down for it while there are others.
    pub fn retain_open<T>(
        &self,
        nodes: &mut Vec<T>,
        of: impl Fn(&T) -> (NodeId, RegionId),
        group: Prefix,
    ) {
        nodes.retain(|it| {
            let (node, region) = of(it);
            !self.drains_node(node, region)
        });
        let is_let_in = |it: &T| self.lets_in(of(it).1, group);
        if nodes.iter().any(is_let_in) {
            nodes.retain(is_let_in);
        }
    }

    /// Returns which of `regions`, by number, and which orchestrators get no work of a client
    /// of a group; `None` where nothing is ordered.
    pub fn shut(&self, regions: &[RegionId], group: Prefix) -> Option<Shut> {
        if self.is_empty() {
            return None;
        }
        let mut shut = Shut::default();
        for (number, region) in (0..).zip(regions) {
            if self.drains.iter().any(|it| it.what == Drained::Region(*region)) {
                shut.drained |= Shut::bit(number);
            }
            if !self.lets_in(*region, group) {
                shut.dialed |= Shut::bit(number);
            }
        }
        let single = self.drains.iter().filter_map(|it| match it.what {
            Drained::Orchestrator(id) => Some(id),
            Drained::Node(_) | Drained::Region(_) => None,
        });
        shut.orchestrators = single.collect();
        Some(shut)
    }

    /// Whether clients of a group are among those a region gets. Which groups these are
    /// depends on nothing but the two, and a higher share gets all of a lower one.
    pub fn lets_in(&self, region: RegionId, group: Prefix) -> bool {
        let Some(percent) = self.dials.get(&region) else { return true };
        // FNV-1a: the same on every node of every version.
        let bytes = region.as_str().bytes().chain(group.bits().to_be_bytes());
        let hash =
            bytes.fold(FNV_START, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        (hash ^ hash >> 32) % 100 < u64::from(*percent)
    }
}

/// Orders in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The number of the command that gave them; 0 before the first.
    pub number: u64,
    /// What is ordered.
    pub orders: Orders,
    /// The command, for nodes that did not hear of it; empty before the first.
    pub command: Vec<u8>,
    /// What was in force before.
    pub before: Orders,
}

/// More than one mends at a time.
pub const DRAINS_MAX: usize = 64;
/// As many as a map of regions has.
pub const DIALS_MAX: usize = 85;
/// A day, in seconds.
pub const WITHIN_MAX: u32 = 86_400;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn region(code: &str) -> RegionId {
        code.parse().unwrap()
    }

    fn groups() -> impl Iterator<Item = Prefix> {
        (0..10_000_u32).map(|it| Prefix::of(IpAddr::V4(Ipv4Addr::from_bits(it << 8))))
    }

    #[test]
    fn orders_survive_a_command_and_what_is_none_is_refused() {
        let mut orders = Orders { previous: 7, ..Orders::default() };
        let node = Drained::Node("fra-1".parse().unwrap());
        orders.set_drain(node, Some(Drain { what: node, within_s: Some(30) }));
        orders.set_drain(node, Some(Drain { what: node, within_s: Some(60) }));
        orders.set_dial(region("SIN"), 25);
        orders.set_dial(region("FRA"), 100);
        assert_eq!(Orders::read(&orders.write()), Ok(orders.clone()));
        assert_eq!((orders.drains.len(), orders.dials.len()), (1, 1));
        assert!(orders.drains_node("fra-1".parse().unwrap(), region("FRA")));
        assert!(!orders.drains_node("fra-2".parse().unwrap(), region("FRA")));
        assert_eq!(orders.drains[0].within_s, Some(60));
        orders.set_drain(node, None);
        assert!(!orders.is_empty() && orders.drains.is_empty());
        assert!(matches!(Orders::read(b"drain fra-1"), Err(BadOrders::Form(_))));
        let over = br#"{"previous":0,"dials":{"SIN":101}}"#;
        assert_eq!(Orders::read(over), Err(BadOrders::Range));
        let drains = vec![Drain { what: node, within_s: None }; DRAINS_MAX + 1];
        assert_eq!(Orders::read(&Orders { drains, ..orders }.write()), Err(BadOrders::Many));
    }

    #[test]
    fn a_dial_lets_in_its_share_and_more_of_the_same_when_turned_up() {
        let share = |percent| {
            let mut orders = Orders::default();
            orders.set_dial(region("SIN"), percent);
            groups().filter(|it| orders.lets_in(region("SIN"), *it)).collect::<Vec<_>>()
        };
        assert_eq!(share(0), []);
        assert_eq!(share(100).len(), 10_000);
        let (some, more) = (share(10), share(30));
        assert!((800..=1200).contains(&some.len()), "{}", some.len());
        assert!((2700..=3300).contains(&more.len()), "{}", more.len());
        assert!(some.iter().all(|it| more.contains(it)), "nobody leaves as it is turned up");
    }

    fn ordered(drains: &[Drained], dials: &[(&str, u8)]) -> Orders {
        let mut orders = Orders::default();
        for what in drains {
            orders.set_drain(*what, Some(Drain { what: *what, within_s: None }));
        }
        for (code, percent) in dials {
            orders.set_dial(region(code), *percent);
        }
        orders
    }

    #[test]
    fn who_is_drained_takes_nobody_and_who_is_turned_down_only_while_there_is_nobody_else() {
        let group = groups().next().unwrap();
        let open = |orders: &Orders| {
            let mut nodes = vec![("fra-1", "FRA"), ("fra-2", "FRA"), ("sin-1", "SIN")];
            let of = |it: &(&str, &str)| (it.0.parse().unwrap(), region(it.1));
            orders.retain_open(&mut nodes, of, group);
            nodes.into_iter().map(|it| it.0).collect::<Vec<_>>()
        };
        let node = |name: &str| Drained::Node(name.parse().unwrap());
        assert_eq!(open(&Orders::default()), ["fra-1", "fra-2", "sin-1"]);
        assert_eq!(open(&ordered(&[node("fra-1")], &[])), ["fra-2", "sin-1"]);
        assert_eq!(open(&ordered(&[Drained::Region(region("FRA"))], &[])), ["sin-1"]);
        assert_eq!(open(&ordered(&[], &[("FRA", 0)])), ["sin-1"]);
        // The only one that is left gets everybody; a drained one nobody even then.
        assert_eq!(open(&ordered(&[node("sin-1")], &[("FRA", 0)])), ["fra-1", "fra-2"]);
        assert_eq!(open(&ordered(&[Drained::Region(region("FRA")), node("sin-1")], &[])), [""; 0]);
    }

    #[test]
    fn what_orders_leave_out_is_by_number_and_by_name() {
        let (group, regions) = (groups().next().unwrap(), ["FRA", "SIN", "NYC"].map(region));
        assert_eq!(Orders::default().shut(&regions, group), None);
        let one = Drained::Orchestrator(OrchestratorId(7));
        let node = Drained::Node("fra-1".parse().unwrap());
        let orders = ordered(&[Drained::Region(region("SIN")), one, node], &[("NYC", 0)]);
        let shut = orders.shut(&regions, group).unwrap();
        assert_eq!((shut.drained, shut.dialed), (0b010, 0b100));
        assert_eq!(shut.orchestrators, [OrchestratorId(7)].into());
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_as_orders_out_of_range(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(orders) = Orders::read(&bytes) {
                prop_assert!(orders.dials.values().all(|it| *it <= 100));
            }
        }
    }
}
