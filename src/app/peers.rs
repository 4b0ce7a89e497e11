//! The part of a node that faces its peers: who it is to them, and where it listens.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;

use crate::actors::{Shared, mesh};
use crate::clock;
use crate::config::{Config, MeshConfig};
use crate::mesh::{Greeting, backoff};
use crate::net::tls::{Identity, Trust};
use crate::net::{self, Endpoint};

pub(super) fn identity(mesh: &MeshConfig) -> Result<(Identity, Trust)> {
    let trust = Trust::load(&mesh.trust_domain, &mesh.ca)?;
    Ok((Identity::load(&mesh.cert, &mesh.key)?, trust))
}

fn greeting(config: &Config) -> Greeting {
    Greeting { node: config.node, region: config.region, epoch: 0, features: 0 }
}

pub(super) fn endpoint(
    config: &Config,
    mesh: &MeshConfig,
    identity: Identity,
    trust: Trust,
) -> Result<Endpoint> {
    let params = net::Params {
        listen: mesh.listen,
        identity,
        trust,
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(1),
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
        at: mesh.advertised,
        addresses: mesh.addresses.clone(),
        backoff: backoff::Params {
            first: Duration::from_millis(250),
            max: Duration::from_secs(10),
        },
        peers: Arc::clone(&shared.peers),
        news,
    }
}
