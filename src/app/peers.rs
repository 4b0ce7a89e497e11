//! The part of a node that faces its peers: who it is to them, and where it listens.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;

use crate::actors::{Shared, mesh};
use crate::app::naming::Naming;
use crate::clock;
use crate::config::{Config, MeshConfig};
use crate::mesh::{Greeting, backoff};
use crate::net::{self, Endpoint};

fn greeting(config: &Config) -> Greeting {
    Greeting { node: config.node, region: config.region, epoch: 0, features: 0 }
}

pub(super) fn endpoint(config: &Config, mesh: &MeshConfig, naming: Naming) -> Result<Endpoint> {
    let Naming { identity, trust, revoked } = naming;
    let params = net::Params {
        listen: mesh.listen,
        identity,
        trust,
        revoked,
        peers: mesh.params.peers.iter().copied().collect(),
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(1),
        age_max: Duration::from_secs(24 * 3600),
        outbound_max: 64,
    };
    Ok(Endpoint::bind(params, greeting(config))?)
}

pub(super) fn mesh_args(
    config: &Config,
    mesh: &MeshConfig,
    endpoint: Endpoint,
    shared: &Shared,
    news: mpsc::Sender<mesh::PeerNews>,
) -> mesh::Args {
    // A boot epoch greater than that of any earlier life of this node.
    let epoch = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
    mesh::Args {
        params: mesh.params.clone(),
        greeting: greeting(config),
        epochs: Arc::new(AtomicU64::new(epoch)),
        endpoint,
        addresses: mesh.addresses.clone(),
        backoff: backoff::Params {
            first: Duration::from_millis(250),
            max: Duration::from_secs(10),
        },
        peers: Arc::clone(&shared.peers),
        news,
    }
}
