//! What the operator's orders mean for a request, and for who may enter here.

use std::borrow::Cow;

use crate::address::Prefix;
use crate::edge::Gateway;
use crate::edge::locate::Located;
use crate::id::{NodeId, RegionId};
use crate::orders::Drained;
use crate::policy::{Rules, Shut};
use crate::view::View;

impl Gateway {
    /// Returns `rules` with what the orders in force leave out for a client.
    pub(crate) fn under_orders<'a>(
        &self,
        rules: &'a Rules,
        view: &View,
        located: &Located,
    ) -> Cow<'a, Rules> {
        let in_force = self.shared.orders.load();
        let orders = &in_force.orders;
        if orders.is_empty() {
            return Cow::Borrowed(rules);
        }
        let mut shut = Shut::default();
        for (number, region) in (0..).zip(&view.atlas.names) {
            if orders.drains_region(*region) {
                shut.drained |= Shut::bit(number);
            }
            if !orders.lets_in(*region, located.group) {
                shut.dialed |= Shut::bit(number);
            }
        }
        let single = orders.drains.iter().filter_map(|it| match it.what {
            Drained::Orchestrator(id) => Some(id),
            Drained::Node(_) | Drained::Region(_) => None,
        });
        shut.orchestrators = single.collect();
        Cow::Owned(Rules { shut: Some(Box::new(shut)), ..rules.clone() })
    }

    /// Tells whether orders drain this node.
    pub(crate) fn is_ordered_out(&self) -> bool {
        let in_force = self.shared.orders.load();
        in_force.orders.drains_node(self.identity.node, self.identity.region)
    }

    /// Tells whether orders let a node take a client of `group`: whether it takes any, and
    /// whether this one is among its region's share.
    pub(crate) fn may_enter(&self, node: NodeId, region: RegionId, group: Prefix) -> Entering {
        let in_force = self.shared.orders.load();
        match () {
            () if in_force.orders.drains_node(node, region) => Entering::Never,
            () if !in_force.orders.lets_in(region, group) => Entering::Elsewhere,
            () => Entering::Here,
        }
    }
}

/// What orders say of a client and a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entering {
    /// It may enter there.
    Here,
    /// It is to enter elsewhere, if there is anywhere.
    Elsewhere,
    /// The node takes nobody.
    Never,
}
