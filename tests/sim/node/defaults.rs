//! What a node is given where its operator says nothing, and what orchestrators tell it.

use std::time::Duration;

use portolan::livepeer::runner::{Mode, Runner};
use portolan::uri::ServiceUri;
use portolan::{directory, health, orchestrator, suspension};

/// Returns what the orchestrator advertises.
pub(super) fn advert(uri: &ServiceUri, slots: usize, used: usize) -> Runner {
    Runner {
        url: format!("{}/work", uri.as_str()),
        app: APP.into(),
        version: None,
        metadata: None,
        mode: Mode::SingleShot,
        gpu: None,
        capacity: slots as u32,
        capacity_used: used as u32,
        capacity_available: slots.saturating_sub(used) as u32,
        price_info: None,
    }
}

pub(super) const APP: &str = "sim/work";
/// The defaults of a node.
pub(super) const PARAMS: orchestrator::Params = orchestrator::Params {
    forward: false,
    suspension: suspension::Params {
        consecutive: 5,
        share_permille: 500,
        requests_min: 20,
        checks: 2,
        first: Duration::from_secs(5),
        longest: Duration::from_secs(300),
    },
    slow_start: Duration::from_secs(30),
    weight_wait: Duration::ZERO,
    offers: orchestrator::offer::Params {
        capacity: 10,
        session: Duration::from_secs(60),
        wait_per_cent: Duration::from_millis(200),
        ether_cents: 300_000,
    },
};
pub(super) const DIRECTORY: directory::Params = directory::Params {
    orchestrators_max: 20_000,
    checks_per_second: 200,
    checks_at_once: 600,
    interval_busy: Duration::from_secs(5),
    interval_idle: Duration::from_secs(30),
    interval_longest: Duration::from_secs(300),
};
pub(super) const HEALTH: health::Params = health::Params {
    ttl: Duration::from_secs(90),
    refresh: Duration::from_secs(30),
    max_records: 20_000,
    max_origins: 64,
    max_version_jump: 1 << 32,
    max_epoch_jump: 1 << 42,
};
