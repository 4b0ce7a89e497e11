//! Live runners as JSON: discovery lists, reservations and payment challenges.
//!
//! A list comes from many operators at once, so one bad row costs that row, never the list.

use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::uri::ServiceUri;

mod price;

pub use price::Price;
pub use price::PriceUnit;

/// One orchestrator of a discovery list.
#[derive(Clone, Debug, Serialize)]
pub struct OrchestratorEntry {
    /// Its service URI.
    pub address: ServiceUri,
    /// 1 for a trusted orchestrator, 0 for any other; absent where a list has no scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// `pipeline/model` keys and runner apps, where a list names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Its live runners that are ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runners: Vec<Runner>,
}

/// One live runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runner {
    /// Where to reserve it (persistent) or call it (single-shot).
    pub url: String,
    /// The application it runs, such as `demo/echo`.
    pub app: String,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Free text of its operator, at most [`MAX_METADATA`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// How it is used.
    pub mode: Mode,
    /// The GPU it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// How many sessions it can hold.
    #[serde(default)]
    pub capacity: u32,
    /// How many it holds.
    #[serde(default)]
    pub capacity_used: u32,
    /// How many more it would take.
    #[serde(default)]
    pub capacity_available: u32,
    /// Its price as it stands in the list, to be passed on unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_info: Option<Box<RawValue>>,
}

impl Runner {
    /// Reads the price; `None` for a free runner and for a price that cannot be read, which
    /// `price_info` still shows.
    pub fn price(&self) -> Option<Price> {
        self.price_info.as_deref().and_then(Price::read)
    }

    /// Returns the region its operator declares in the metadata: the text under `region` of
    /// a JSON object.
    pub fn region(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Metadata {
            region: String,
        }
        serde_json::from_str::<Metadata>(self.metadata.as_deref()?).ok().map(|it| it.region)
    }

    fn is_bounded(&self) -> bool {
        let clean = |text: &str, max: usize| text.len() <= max && !text.contains(char::is_control);
        let absolute = self.url.starts_with("http://") || self.url.starts_with("https://");
        absolute
            && clean(&self.url, MAX_URL)
            && !self.app.is_empty()
            && clean(&self.app, MAX_TEXT)
            && self.version.as_deref().is_none_or(|it| clean(it, MAX_TEXT))
            && self.metadata.as_deref().is_none_or(|it| it.len() <= MAX_METADATA)
            && self.price_info.as_deref().is_none_or(|it| it.get().len() <= MAX_TEXT)
            && self
                .gpu
                .as_ref()
                .is_none_or(|it| clean(&it.id, MAX_TEXT) && clean(&it.name, MAX_TEXT))
    }
}

/// How a runner is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Reserve a session, then talk to it for as long as it lasts.
    Persistent,
    /// Every call is a session of its own.
    SingleShot,
}

/// The GPU of a runner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Its number or unique id.
    pub id: String,
    /// Name of the product.
    pub name: String,
    /// Memory in megabytes.
    pub vram_mb: u64,
}

/// A discovery list, and how much of it was unusable.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The usable entries, in the order of the list.
    pub entries: Vec<OrchestratorEntry>,
    /// How many entries were dropped: malformed, or beyond [`MAX_ENTRIES`].
    pub dropped_entries: usize,
    /// How many runners of usable entries were dropped: malformed, or beyond [`MAX_RUNNERS`].
    pub dropped_runners: usize,
}

/// Why a discovery list is of no use at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDiscovery {
    /// The body is longer than [`MAX_BODY`] bytes.
    #[error("the discovery list is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The body is not a JSON list.
    #[error("the discovery answer is not a JSON list")]
    NotAList,
}

/// Reads the answer of `/discovery` or `/discover-orchestrators`.
pub fn parse_discovery(body: &[u8]) -> Result<Discovery, BadDiscovery> {
    let rows = rows(body)?;
    let mut found = Discovery::default();
    for row in rows {
        let entry = serde_json::from_str::<RawEntry<'_>>(row.get()).ok();
        let entry = entry.filter(|_| found.entries.len() < MAX_ENTRIES);
        match entry.map(|it| it.read(&mut found.dropped_runners)) {
            Some(entry) => found.entries.push(entry),
            None => found.dropped_entries += 1,
        }
    }
    Ok(found)
}

/// Reads the answer of an `-orchWebhookUrl`: addresses with a score, nothing else.
pub fn parse_webhook(body: &[u8]) -> Result<Discovery, BadDiscovery> {
    let mut found = parse_discovery(body)?;
    for entry in &mut found.entries {
        entry.capabilities.clear();
        entry.runners.clear();
    }
    Ok(found)
}

/// The answer to a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveAnswer {
    /// The session.
    pub session_id: String,
    /// Base of everything the application answers.
    pub app_url: String,
    /// Base of `stop` and `payment`.
    pub control_url: String,
}

/// The body of a 402: what to pay, to whom, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The orchestrator's answer for the signer: base64 of an `OrchestratorInfo`.
    pub payment_params: String,
    /// Its service URI.
    pub orchestrator: String,
    /// The session that will be paid for.
    pub manifest_id: String,
    /// Where later payments go.
    pub payment_url: String,
}

/// Reads a small JSON answer ([`ReserveAnswer`], [`Challenge`]) of at most [`MAX_ANSWER`]
/// bytes; `None` if it is not one.
pub fn parse_answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// The longest discovery body, in bytes: 10,000 orchestrators of 1.6 KB.
pub const MAX_BODY: usize = 16 << 20;
/// The most orchestrators taken from one list; a hundred times the network of 2026.
pub const MAX_ENTRIES: usize = 10_000;
/// The most runners taken from one orchestrator.
pub const MAX_RUNNERS: usize = 256;
/// The most capability keys taken from one entry.
pub const MAX_CAPABILITIES: usize = 256;
/// The longest runner URL, in bytes.
pub const MAX_URL: usize = 1024;
/// The longest name, version or price, in bytes.
pub const MAX_TEXT: usize = 128;
/// The longest metadata, in bytes: the limit orchestrators keep themselves.
pub const MAX_METADATA: usize = 1024;
/// The longest reservation answer or challenge, in bytes: payment parameters take about 1 KB,
/// and up to 64 KB with many models.
pub const MAX_ANSWER: usize = 128 * 1024;

/// Splits a list into rows; Go writes an empty list as `null`.
fn rows(body: &[u8]) -> Result<Vec<&RawValue>, BadDiscovery> {
    if body.len() > MAX_BODY {
        return Err(BadDiscovery::TooLong);
    }
    let rows = serde_json::from_slice::<Option<Vec<&RawValue>>>(body);
    Ok(rows.map_err(|_bad| BadDiscovery::NotAList)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    address: ServiceUri,
    #[serde(default)]
    score: Option<f32>,
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(borrow, default)]
    runners: Option<Vec<&'a RawValue>>,
}

impl RawEntry<'_> {
    fn read(self, dropped: &mut usize) -> OrchestratorEntry {
        let mut capabilities = self.capabilities.unwrap_or_default();
        capabilities.retain(|it| it.len() <= MAX_TEXT && !it.contains(char::is_control));
        capabilities.truncate(MAX_CAPABILITIES);
        let score = self.score.filter(|it| it.is_finite());
        let mut runners = Vec::new();
        for row in self.runners.unwrap_or_default() {
            let runner = serde_json::from_str::<Runner>(row.get()).ok();
            let runner = runner.filter(|it| it.is_bounded() && runners.len() < MAX_RUNNERS);
            match runner {
                Some(runner) => runners.push(runner),
                None => *dropped += 1,
            }
        }
        OrchestratorEntry { address: self.address, score, capabilities, runners }
    }
}

#[cfg(test)]
mod tests;
