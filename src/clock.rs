//! The one clock. Everything below the actors is handed `now`.

pub mod pulse;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns the current instant; under a paused tokio clock, the paused one.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the wall time as a duration since the Unix epoch; zero before it.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
