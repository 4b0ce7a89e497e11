//! Lists of orchestrators fetched from elsewhere, off the request path.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use ractor::ActorRef;

use crate::actors::directory::Msg;
use crate::actors::shared::Shared;
use crate::directory::{Named, Source};
use crate::id::OrchestratorId;
use crate::livepeer::runner::{Discovery, parse_discovery, parse_webhook};
use crate::upstream::fetch::{FetchError, fetch};
use crate::upstream::{ConnectError, Dialer};
use crate::uri::ServiceUri;

/// One list to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Where.
    pub url: ServiceUri,
    /// Its query, without the `?`; may hold a secret and is never logged.
    pub query: Option<String>,
    /// What it answers.
    pub kind: Kind,
    /// How often it is read.
    pub every: Duration,
}

/// What a list looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[{"address","score"}]`, as for `-orchWebhookUrl`.
    Webhook,
    /// `/discover-orchestrators` of a node or a signer.
    Discovery,
}

/// Reads a list again and again; a list that cannot be read leaves the last one standing.
///
/// A list's certificate is trusted on first use and, since those of public authorities are
/// renewed every few weeks, whenever it changes, with a warning. So whoever sits on the path
/// can name orchestrators of its own: where that matters, the list belongs on a private
/// network.
pub(crate) async fn poll(fetch: Fetch, shared: Arc<Shared>, directory: ActorRef<Msg>) {
    let mut ticks = tokio::time::interval(fetch.every);
    // Pins of its own: an orchestrator at the same URL keeps the stricter rule.
    let dialer = Dialer { pins: Arc::default(), ..shared.upstream.dialer().clone() };
    loop {
        ticks.tick().await;
        let mut listed = read(&fetch, &dialer).await;
        if matches!(listed, Err(FetchError::Connect(ConnectError::Pin))) {
            tracing::warn!(source = %fetch.url, "the certificate of a list changed; it is taken");
            dialer.pins.forget(OrchestratorId::of(&fetch.url));
            listed = read(&fetch, &dialer).await;
        }
        let named = match listed {
            Ok(named) => named,
            Err(error) => {
                counter!("livepeer_discovery_errors_total").increment(1);
                tracing::warn!(source = %fetch.url, %error, "a list of orchestrators was not read");
                continue;
            }
        };
        if directory.cast(Msg::Source(Source::Fetched(fetch.url.clone()), named)).is_err() {
            return;
        }
    }
}

async fn read(from: &Fetch, dialer: &Dialer) -> Result<Vec<Named>, FetchError> {
    let body = fetch(dialer, &from.url, from.query.as_deref(), TIMEOUT).await?;
    let list: Discovery = match from.kind {
        Kind::Webhook => parse_webhook(&body),
        Kind::Discovery => parse_discovery(&body),
    }
    .map_err(|bad| FetchError::Body(bad.to_string()))?;
    if list.dropped_entries > 0 {
        tracing::warn!(source = %from.url, n_dropped = list.dropped_entries, "entries left out");
    }
    let weight = |score: f32| (score.clamp(0.0, 1.0) * 1000.0) as u16;
    let named = |uri: ServiceUri, region: Option<String>, score: Option<f32>| Named {
        uri,
        region: region.and_then(|it| it.parse().ok()),
        point: None,
        country: None,
        operator: None,
        weight_permille: score.map(weight),
    };
    let region =
        |runners: &[crate::livepeer::runner::Runner]| runners.iter().find_map(|it| it.region());
    Ok(list
        .entries
        .into_iter()
        .map(|it| named(it.address, region(&it.runners), it.score))
        .collect())
}

/// What stock gateways give a webhook.
const TIMEOUT: Duration = Duration::from_secs(3);
