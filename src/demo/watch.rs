//! What each node thinks of each orchestrator, and when it learned of a death, and how.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Request;
use serde_json::Value;

use crate::demo::plan::Plan;
use crate::upstream::fetch::exchange;
use crate::upstream::{Body, Dialer};
use crate::uri::ServiceUri;

/// Watches every node of a demo.
#[derive(Debug)]
pub(super) struct Watcher {
    /// By node, then by orchestrator, in the order of the plan.
    pub(super) seen: Vec<Vec<Seen>>,
    /// Which nodes did not answer when they were last asked.
    pub(super) silent: Vec<bool>,
    told: BTreeSet<(usize, usize)>,
}

/// What one node thinks of one orchestrator.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its standing.
    pub(super) standing: String,
    /// Its round trip.
    pub(super) rtt_ms: f64,
    /// The peer whose word on its failures weighs most.
    pub(super) told_by: Option<String>,
}

/// Waits until every node knows every orchestrator, so that the first table says something;
/// not for ever.
pub(super) async fn ready(plan: &Plan, dialer: &Dialer) {
    let all = async {
        for node in &plan.nodes {
            while known(&node.admin, dialer).await < plan.orchestrators.len() as u64 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    drop(tokio::time::timeout(START, all).await);
}

async fn known(admin: &ServiceUri, dialer: &Dialer) -> u64 {
    let Ok(request) = Request::get("/readyz").body(Body::Empty) else { return 0 };
    let answer = exchange(dialer, admin, request, Duration::from_secs(2)).await;
    let found: Option<Value> = answer.ok().and_then(|it| serde_json::from_slice(it.body()).ok());
    found.and_then(|it| it["orchestrators_ready"].as_u64()).unwrap_or(0)
}

/// What the first checks may take.
const START: Duration = Duration::from_secs(5);

impl Watcher {
    /// Starts with nothing seen.
    pub(super) fn new(plan: &Plan) -> Self {
        let none = vec![Seen::default(); plan.orchestrators.len()];
        let n = plan.nodes.len();
        Self { seen: vec![none; n], silent: vec![false; n], told: BTreeSet::new() }
    }

    /// Asks every node; returns what is new in words.
    pub(super) async fn look(&mut self, plan: &Plan, dialer: &Dialer) -> Vec<String> {
        let mut news = Vec::new();
        for (at, node) in plan.nodes.iter().enumerate() {
            let Ok(request) = Request::get("/v1/orchestrators").body(Body::Empty) else { continue };
            let answer = exchange(dialer, &node.admin, request, Duration::from_secs(2)).await;
            let list: Option<Value> =
                answer.ok().and_then(|it| serde_json::from_slice(it.body()).ok());
            let silent = list.is_none();
            if std::mem::replace(&mut self.silent[at], silent) != silent {
                let does = if silent { "does not answer any more" } else { "answers again" };
                news.push(format!("the node {} {does}", node.name));
            }
            let Some(list) = list else { continue };
            for row in list["orchestrators"].as_array().into_iter().flatten() {
                let uri = row["uri"].as_str().unwrap_or_default();
                let Some(number) = plan.orchestrators.iter().position(|it| it.uri.as_str() == uri)
                else {
                    continue;
                };
                let told_by = row["failures_told_by"].as_str().map(ToOwned::to_owned);
                news.extend(self.compare(plan, at, number, row, told_by.as_deref()));
                self.seen[at][number] = Seen {
                    standing: row["standing"].as_str().unwrap_or("-").to_owned(),
                    rtt_ms: row["rtt_ms"].as_f64().unwrap_or_default(),
                    told_by,
                };
            }
        }
        news
    }

    fn compare(
        &mut self,
        plan: &Plan,
        node: usize,
        number: usize,
        row: &Value,
        told_by: Option<&str>,
    ) -> Vec<String> {
        let (name, orchestrator) = (&plan.nodes[node].name, &plan.orchestrators[number].name);
        let mut news = Vec::new();
        if let Some(peer) = told_by
            && self.told.insert((node, number))
        {
            let ago = row["checked_ago_ms"].as_u64().unwrap_or_default();
            news.push(format!(
                "{name} learned from {peer} that {orchestrator} fails; \
                 its own last good check was {ago} ms ago"
            ));
        }
        let (was, is) =
            (&self.seen[node][number].standing, row["standing"].as_str().unwrap_or("-"));
        if !was.is_empty() && was != is {
            news.push(format!("{name} sees {orchestrator} go from {was} to {is}"));
            if is == "ready" {
                self.told.remove(&(node, number));
            }
        }
        news
    }
}
