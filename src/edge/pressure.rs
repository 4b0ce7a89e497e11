//! How much memory is left, and who is sent away first when it runs out.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use metrics::gauge;

use crate::clock;
use crate::clock::pulse::Pulse;

/// How hard memory presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is served.
    Calm,
    /// New work that nobody paid for is refused.
    Tight,
    /// All new work is refused; sessions go on.
    Short,
    /// No connection is accepted either.
    Full,
}

/// The level of the moment. Health and the admin door are never shed.
#[derive(Debug)]
pub struct Pressure(AtomicU8);

impl Level {
    /// Returns the level at `used` of `limit` bytes. The steps are those at which edges are
    /// advised to shrink and to stop accepting (95 and 98 %), with one before them.
    pub fn at(used: u64, limit: u64) -> Self {
        match u128::from(used) * 1000 / u128::from(limit.max(1)) {
            0..900 => Self::Calm,
            900..950 => Self::Tight,
            950..980 => Self::Short,
            _ => Self::Full,
        }
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self(AtomicU8::new(Level::Calm as u8))
    }
}

impl Pressure {
    /// Returns the level.
    pub fn level(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            0 => Level::Calm,
            1 => Level::Tight,
            2 => Level::Short,
            _ => Level::Full,
        }
    }

    /// Sets the level.
    pub fn set(&self, level: Level) {
        let before = self.0.swap(level as u8, Ordering::Relaxed);
        if before != level as u8 {
            tracing::warn!(?level, "memory presses otherwise than before");
        }
        gauge!("portolan_memory_pressure").set(f64::from(level as u8));
    }

    /// Tells whether new work is taken: paid, or not.
    pub fn takes_work(&self, is_paid: bool) -> bool {
        self.level() < if is_paid { Level::Short } else { Level::Tight }
    }

    /// Tells whether connections are accepted.
    pub fn takes_connections(&self) -> bool {
        self.level() < Level::Full
    }
}

/// Keeps `pressure` true to what the process holds of `limit` bytes, or of what the system
/// gives it; for as long as it is polled.
pub async fn watch(pressure: &Pressure, limit: Option<u64>, pulse: &Pulse) {
    let limit = match limit {
        Some(limit) => limit,
        None => given().await.unwrap_or(u64::MAX),
    };
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        pulse.beat(clock::now());
        // Where the system does not tell, nothing is known and nobody refused.
        let Some(used) = resident().await else { continue };
        gauge!("process_resident_memory_bytes").set(used as f64);
        pressure.set(Level::at(used, limit));
    }
}

/// Returns the memory the system gives this process: that of its control group, or all.
async fn given() -> Option<u64> {
    let groups = tokio::fs::read_to_string("/proc/self/cgroup").await.unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let path = format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/'));
    let bounded = tokio::fs::read_to_string(path).await.unwrap_or_default();
    // "max" where it is not bounded.
    if let Ok(bytes) = bounded.trim().parse() {
        return Some(bytes);
    }
    kib(&tokio::fs::read_to_string("/proc/meminfo").await.ok()?, "MemTotal:")
}

/// Returns the memory this process holds, as Linux tells it.
async fn resident() -> Option<u64> {
    kib(&tokio::fs::read_to_string("/proc/self/status").await.ok()?, "VmRSS:")
}

/// Returns the bytes a line of the system's tables names in kibibytes.
fn kib(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Often enough for a flood, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_pay_is_sent_away_first_and_sessions_never() {
        let pressure = Pressure::default();
        let at = |used| {
            pressure.set(Level::at(used, 1000));
            (pressure.takes_work(false), pressure.takes_work(true), pressure.takes_connections())
        };
        assert_eq!(at(899), (true, true, true));
        assert_eq!(at(900), (false, true, true));
        assert_eq!(at(950), (false, false, true));
        assert_eq!(at(980), (false, false, false));
        assert_eq!(at(0), (true, true, true));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_process_knows_what_it_holds() {
        let (held, given) = (resident().await.unwrap(), given().await.unwrap());
        assert!(held > 1024 * 1024 && held < given, "{held} of {given}");
    }
}
