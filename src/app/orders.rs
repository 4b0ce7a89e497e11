//! The operator's orders on this node: kept over restarts, and carried out on sessions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::actors::{Shared, sessions};
use crate::app::peers;
use crate::clock;
use crate::config::MeshConfig;
use crate::edge::Gateway;
use crate::orders::{Drains, Held, InForce, Orders, Over};

/// Begins with the orders an earlier process obeyed; returns their number.
pub(super) fn recall(mesh: &MeshConfig, data: &Path, shared: &Shared) -> Result<u64> {
    let Some(command) = read(&data.join(COMMAND_FILE))? else { return Ok(0) };
    let before = match read(&data.join(BEFORE_FILE))? {
        Some(before) => Orders::read(&before)?,
        None => Orders::default(),
    };
    let in_force = InForce::kept(&peers::operator(mesh), &command, before)?;
    let number = in_force.number;
    shared.orders.store(Arc::new(in_force));
    Ok(number)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Carries out orders, until the gateway is dropped: keeps those that come, and ends sessions
/// whose time is over, also those that began or came here since.
pub(super) async fn carry_out(gateway: Arc<Gateway>, data: Option<PathBuf>) {
    let mut drains = Drains::default();
    loop {
        // Sessions end within a second of their time.
        let told = gateway.shared.ordered.notified();
        let told = tokio::time::timeout(LOOK_EVERY, told).await.is_ok();
        let in_force = gateway.shared.orders.load_full();
        end_sessions(&gateway, &drains.take(clock::now(), &in_force.orders));
        let Some(data) = data.clone().filter(|_| told) else { continue };
        let written = tokio::task::spawn_blocking(move || write(&data, &in_force)).await;
        if let Err(error) = written.map_err(anyhow::Error::from).flatten() {
            let error = format!("{error:#}");
            tracing::warn!(%error, "the operator's orders are not kept over a restart");
        }
    }
}

fn write(data: &Path, in_force: &InForce) -> Result<()> {
    // A crash between the two loses what a roll-back would go back to, and no order.
    for (file, bytes) in
        [(BEFORE_FILE, &in_force.before.write()), (COMMAND_FILE, &in_force.command)]
    {
        let fresh = data.join(format!("{file}.new"));
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, data.join(file))?;
    }
    Ok(())
}

/// Ends the sessions of those who are drained and whose time is over.
fn end_sessions(gateway: &Gateway, over: &Over) {
    if over.is_empty() {
        return;
    }
    let (own, shared) = (gateway.identity, &gateway.shared);
    let (view, now) = (shared.view.load(), clock::now());
    for entry in shared.sessions.all() {
        let works_in = view.orchestrator(entry.orchestrator).map(|(_slot, row)| row.region);
        let held = Held {
            node: own.node,
            region: own.region,
            orchestrator: entry.orchestrator,
            works_in: works_in.map(|it| view.atlas.name(it)),
        };
        if !over.ends(&held) {
            continue;
        }
        // Noted first: a session that was just reserved has no actor yet, and reads it then.
        entry.note_drain(now);
        if let Some(sessions) = shared.refs.sessions.load().as_ref() {
            drop(sessions.cast(sessions::Msg::Drain(Some(entry.key()), now)));
        }
    }
}

/// How often sessions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const COMMAND_FILE: &str = "orders";
const BEFORE_FILE: &str = "orders.before";
