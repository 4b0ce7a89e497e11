//! What the operator's orders mean for a request and for this node.

use std::borrow::Cow;

use crate::edge::Gateway;
use crate::edge::locate::Located;
use crate::policy::Rules;
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
        match in_force.orders.shut(&view.atlas.names, located.group) {
            None => Cow::Borrowed(rules),
            Some(shut) => Cow::Owned(Rules { shut: Some(Box::new(shut)), ..rules.clone() }),
        }
    }

    /// Tells whether orders drain this node.
    pub(crate) fn is_ordered_out(&self) -> bool {
        let in_force = self.shared.orders.load();
        in_force.orders.drains_node(self.identity.node, self.identity.region)
    }
}
