//! The part of a node that faces its peers: who it is to them, and where it listens.

use std::fs;
use std::io;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use crate::actors::{Shared, mesh};
use crate::app::naming::Naming;
use crate::clock;
use crate::config::{Config, MeshConfig};
use crate::mesh::{About, Greeting, Operator, Params, backoff};
use crate::net::{self, Endpoint};

fn greeting(config: &Config) -> Greeting {
    Greeting { node: config.node, region: config.region, epoch: 0, features: 0 }
}

/// Whose commands this node obeys.
pub(super) fn operator(mesh: &MeshConfig) -> Operator {
    Operator { mesh: mesh.trust_domain.clone(), key: mesh.operator }
}

/// What this node says of itself.
fn about(config: &Config) -> About {
    let url = config.public_url.as_deref().map(Arc::from);
    About { url, version: env!("CARGO_PKG_VERSION").into() }
}

/// Answers and dials peers on `socket`, which is at the mesh's address.
pub(super) fn endpoint(
    config: &Config,
    mesh: &MeshConfig,
    naming: Naming,
    socket: UdpSocket,
) -> Result<Endpoint> {
    let Naming { identity, trust, revoked } = naming;
    let params = net::Params {
        listen: mesh.listen,
        identity,
        trust,
        revoked,
        handshake_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(1),
        age_max: Duration::from_secs(24 * 3600),
        outbound_max: 64,
    };
    Ok(Endpoint::on(params, greeting(config), socket)?)
}

pub(super) fn mesh_args(
    config: &Config,
    mesh: &MeshConfig,
    endpoint: Endpoint,
    shared: &Shared,
    news: mpsc::Sender<mesh::PeerNews>,
) -> Result<mesh::Args> {
    Ok(mesh::Args {
        params: Params { about: about(config), operator: operator(mesh), ..mesh.params.clone() },
        greeting: greeting(config),
        epochs: Arc::new(AtomicU64::new(boot_epoch(mesh.data.as_deref())?)),
        endpoint,
        at: mesh.advertised,
        addresses: mesh.addresses.clone(),
        backoff: backoff::Params {
            first: Duration::from_millis(250),
            max: Duration::from_secs(10),
        },
        peers: Arc::clone(&shared.peers),
        board: Arc::clone(&shared.board),
        news,
        ways: shared.ways.clone(),
        pulse: shared.pulses.of(clock::now(), "mesh", mesh::SILENT_MAX),
        orders: Arc::clone(&shared.orders),
        ordered: Arc::clone(&shared.ordered),
    })
}

/// Returns a boot epoch greater than that of any earlier life of this node: the wall clock's
/// milliseconds, or, where a data directory remembers a later one, that and some more. Without
/// the directory a clock set back makes the others ignore this node until it has caught up.
fn boot_epoch(data: Option<&Path>) -> Result<u64> {
    let wall = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
    let Some(data) = data else { return Ok(wall) };
    let path = data.join(EPOCH_FILE);
    let unusable = || {
        format!("mesh.data: cannot keep {}; give a directory this user may write", path.display())
    };
    let last = last_epoch(data)?;
    let epoch = wall.max(last.saturating_add(EPOCHS_OF_ONE_LIFE));
    // A crash leaves the old file or the new one, never half of one.
    let fresh = path.with_extension("new");
    let written = || {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(epoch.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        fs::File::open(data)?.sync_all()
    };
    written().with_context(unusable)?;
    Ok(epoch)
}

/// Returns the boot epoch a data directory remembers; 0 for none.
pub(super) fn last_epoch(data: &Path) -> Result<u64> {
    let path = data.join(EPOCH_FILE);
    let no_epoch = || format!("{} holds no boot epoch; remove it", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(no_epoch),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Where the last boot epoch is kept, in the data directory.
const EPOCH_FILE: &str = "epoch";

/// The mesh takes an epoch whenever its actor is restarted, far fewer times than this before
/// the process gives up.
const EPOCHS_OF_ONE_LIFE: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_epoch_rises_also_when_the_clock_was_set_back() {
        let data = tempfile::tempdir().unwrap();
        let first = boot_epoch(Some(data.path())).unwrap();
        assert!(boot_epoch(Some(data.path())).unwrap() >= first + EPOCHS_OF_ONE_LIFE);
        let later = first + 1_000_000_000_000;
        fs::write(data.path().join(EPOCH_FILE), later.to_string()).unwrap();
        assert_eq!(boot_epoch(Some(data.path())).unwrap(), later + EPOCHS_OF_ONE_LIFE);
        fs::write(data.path().join(EPOCH_FILE), "x").unwrap();
        assert!(boot_epoch(Some(data.path())).is_err());
        assert!(boot_epoch(Some(Path::new("/nowhere"))).is_err());
        assert!(boot_epoch(None).unwrap() >= first);
    }
}
