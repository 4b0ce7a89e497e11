//! Meshes of nodes in this process, which joined by a CA of their own.

use std::sync::Arc;

use portolan::mesh::Standing;

use crate::enroll::Joined;
use crate::node::{Node, Orch};

/// Starts a node of the mesh under this name; `more` goes on after `[mesh]`.
pub(crate) async fn member(
    joined: &Joined,
    name: &'static str,
    more: &str,
    orchs: &[Orch],
) -> Arc<Node> {
    Arc::new(joined.setup(name, more).start(orchs).await)
}

/// What a node that is to find this peer is told of it.
pub(crate) fn peer(name: &str, node: &Node) -> String {
    format!("[[peer]]\nnode = \"{name}\"\naddress = \"{}\"\n", node.app.mesh.unwrap())
}

pub(crate) fn n_links(node: &Node) -> usize {
    let peers = node.app.gateway.shared.peers.load();
    peers.rows.iter().filter(|it| it.standing == Standing::Up).count()
}
