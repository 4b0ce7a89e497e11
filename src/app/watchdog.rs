//! Says so when a loop of this node does not go round any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::edge::Gateway;
use crate::listen::lanes::Lanes;

/// Looks at every loop, until the gateway is dropped.
pub(super) async fn watch(gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalled: BTreeSet<&'static str> = BTreeSet::new();
    loop {
        ticks.tick().await;
        for it in gateway.shared.pulses.read(clock::now()) {
            let loops = gauge!("portolan_loop_stalled", "loop" => it.name);
            loops.set(f64::from(u8::from(it.is_stalled)));
            let (name, silent) = (it.name, it.silent);
            match it.is_stalled {
                true if stalled.insert(name) => {
                    let remedy = "requests go on; hand over to a new process if it stays so";
                    tracing::error!(name, ?silent, remedy, "a loop of this node does not go on");
                }
                false if stalled.remove(name) => {
                    tracing::info!(name, "the loop goes on again");
                }
                true | false => {}
            }
        }
    }
}

/// Visits the lanes of clients, until it is dropped: one that is stuck serves nobody on it.
pub(super) async fn visit(gateway: Arc<Gateway>, lanes: Arc<Lanes>) {
    let pulse = gateway.shared.pulses.of(clock::now(), "lanes", EVERY * 10);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if lanes.answer().await {
            pulse.beat(clock::now());
        }
        for (lane, connections) in lanes.connections().enumerate() {
            gauge!("portolan_lane_connections", "lane" => lane.to_string()).set(connections as f64);
        }
    }
}

/// Loops have seconds to beat in.
const EVERY: Duration = Duration::from_secs(1);
