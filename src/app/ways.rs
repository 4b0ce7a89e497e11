//! Looks again and again how long the ways to connected clients are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::actors::mesh;
use crate::clock;
use crate::edge::Gateway;
use crate::listen::Listener;
use crate::net::rtt;

/// Returns the ports whose connections come from clients: behind a balancer that speaks the
/// PROXY protocol they come from the balancer.
pub(super) fn ports(listeners: &[Listener]) -> Vec<u16> {
    let direct = listeners.iter().filter(|it| !it.speech.proxied);
    direct.filter_map(|it| it.tcp.local_addr().ok()).map(|it: SocketAddr| it.port()).collect()
}

/// Hands what peers tell to the gateway, until it is dropped.
pub(super) async fn hear(gateway: Arc<Gateway>) {
    let mut told = gateway.shared.ways_told.lock().await;
    while let Some((peer, ways)) = told.recv().await {
        gateway.note_told(clock::now(), peer, &ways);
    }
}

/// Has the peers told what was learned of groups that are not where they are thought to be.
fn tell(gateway: &Gateway) {
    let ways = gateway.fresh_ways(clock::now());
    if let Some(mesh) = gateway.shared.refs.mesh.load().as_ref().filter(|_| !ways.is_empty()) {
        // While it is restarted nobody hears it; it is told again.
        drop(mesh.cast(mesh::Msg::Ways(ways)));
    }
}

/// Hands round trips of the connections at `ports` to the gateway, until it is dropped.
pub(super) async fn watch(gateway: Arc<Gateway>, ports: Vec<u16>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ports: Arc<[u16]> = ports.into();
    let mut told = false;
    let pulse = gateway.shared.pulses.of(clock::now(), "ways", EVERY * 6);
    loop {
        ticks.tick().await;
        pulse.beat(clock::now());
        let asked = Arc::clone(&ports);
        let seen = tokio::task::spawn_blocking(move || rtt::established(&asked)).await;
        match seen.map_err(std::io::Error::other).flatten() {
            Ok(seen) => gateway.note_ways(clock::now(), &seen),
            // A sandbox may forbid it; what clients report is left then.
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the kernel does not tell round trips of clients");
            }
            Err(_again) => {}
        }
        tell(&gateway);
    }
}

/// Most connections of clients that matter last longer; looking takes a microsecond a socket.
const EVERY: Duration = Duration::from_secs(5);
