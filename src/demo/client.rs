//! The clients of the demo: each finds its node, then asks it for a piece of work.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::clock;
use crate::demo::plan::{CLIENTS, Client, Plan};
use crate::edge::locate::NAMED;
use crate::edge::slug::Slug;
use crate::upstream::fetch::exchange;
use crate::upstream::{Body, Dialer};
use crate::uri::ServiceUri;

/// One client's turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Visit {
    /// Where the client is.
    pub(super) place: &'static str,
    /// Its country and home region, as the node sees them.
    pub(super) home: String,
    /// The node it was sent to.
    pub(super) node: String,
    /// The orchestrator that served it.
    pub(super) orchestrator: String,
    /// The orchestrator's region.
    pub(super) region: String,
    /// How long it took.
    pub(super) took_ms: u64,
    /// What decided, or what went wrong.
    pub(super) why: String,
}

/// Lets every client have its turn, all at once.
pub(super) async fn visit_all(plan: &Plan, dialer: &Dialer) -> Vec<Visit> {
    let mut turns = JoinSet::new();
    for (at, client) in CLIENTS.iter().copied().enumerate() {
        let entrances: Vec<ServiceUri> = (0..plan.nodes.len())
            .map(|it| plan.nodes[(at + it) % plan.nodes.len()].public.clone())
            .collect();
        let names: Vec<(String, String)> =
            plan.orchestrators.iter().map(|it| (it.uri.to_string(), it.name.clone())).collect();
        let admins: Vec<(String, ServiceUri)> =
            plan.nodes.iter().map(|it| (it.name.clone(), it.admin.clone())).collect();
        let dialer = dialer.clone();
        turns.spawn(async move {
            let visited = visit(client, &entrances, &names, &admins, &dialer).await;
            let failed = |error: anyhow::Error| Visit {
                place: client.place,
                why: format!("failed: {error:#}"),
                ..Visit::default()
            };
            (at, visited.unwrap_or_else(failed))
        });
    }
    let mut visits: Vec<(usize, Visit)> = Vec::new();
    while let Some(turn) = turns.join_next().await {
        visits.extend(turn.ok());
    }
    visits.sort_by_key(|(at, _visit)| *at);
    visits.into_iter().map(|(_at, visit)| visit).collect()
}

async fn visit(
    client: Client,
    entrances: &[ServiceUri],
    names: &[(String, String)],
    admins: &[(String, ServiceUri)],
    dialer: &Dialer,
) -> Result<Visit> {
    let resolved = resolve(entrances, dialer, client).await?;
    let started = clock::now();
    let (node, answer) = enter(&resolved, dialer, client).await?;
    let took_ms = clock::now().saturating_duration_since(started).as_millis() as u64;
    let header = |name: &str| answer.headers().get(name).and_then(|it| it.to_str().ok());
    let region = header("portolan-region").unwrap_or("-").to_owned();
    let decision = header("portolan-decision").map(ToOwned::to_owned);
    let mut found = Visit {
        place: client.place,
        home: format!(
            "{} {}",
            resolved["caller"]["country"].as_str().unwrap_or("--"),
            resolved["caller"]["home"].as_str().unwrap_or("-")
        ),
        node: node.clone(),
        orchestrator: "-".to_owned(),
        region,
        took_ms,
        why: String::new(),
    };
    if !answer.status().is_success() {
        let said = crate::livepeer::error::message(answer.body());
        found.why = format!("{}: {said}", answer.status());
        return Ok(found);
    }
    let admin = admins.iter().find(|(name, _)| *name == node).map(|(_, admin)| admin);
    if let (Some(admin), Some(decision)) = (admin, decision) {
        let path = format!("/v1/explain?decision={decision}");
        let explained = get(dialer, admin, &path, client).await?;
        tell(&mut found, &serde_json::from_slice(&explained)?, names);
    }
    Ok(found)
}

/// Asks which node to enter by; any of them tells.
async fn resolve(entrances: &[ServiceUri], dialer: &Dialer, client: Client) -> Result<Value> {
    let mut last = anyhow::anyhow!("no node");
    for entrance in entrances {
        match get(dialer, entrance, "/v1/resolve", client).await {
            Ok(resolved) => return Ok(serde_json::from_slice(&resolved)?),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has a piece of work done by the first node that takes it, in the order they were named.
async fn enter(
    resolved: &Value,
    dialer: &Dialer,
    client: Client,
) -> Result<(String, Response<Bytes>)> {
    let fallbacks = resolved["fallbacks"].as_array().into_iter().flatten();
    let mut last = anyhow::anyhow!("no node to enter by");
    for entry in [&resolved["primary"]].into_iter().chain(fallbacks) {
        let (Some(node), Some(url)) = (entry["node"].as_str(), entry["url"].as_str()) else {
            continue;
        };
        let path = format!("/apps/{}/app", Slug::write("demo/once", 0));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(NAMED, client.ip)
            .header("content-type", "application/json")
            .header("content-length", 2)
            .body(Body::whole("{}"))?;
        match exchange(dialer, &url.parse()?, request, TURN).await {
            Ok(answer) => return Ok((node.to_owned(), answer)),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Puts a decision into a few words: who, at what cost, against whom.
fn tell(visit: &mut Visit, explained: &Value, names: &[(String, String)]) {
    let name = |candidate: &Value| {
        let uri = candidate["uri"].as_str().unwrap_or_default();
        names.iter().find(|(known, _)| known == uri).map_or("?", |(_, name)| name).to_owned()
    };
    let cost = |candidate: &Value| candidate["cost_ms"].as_f64().unwrap_or_default();
    let all = explained["candidates"].as_array().cloned().unwrap_or_default();
    let Some(chosen) = all.iter().find(|it| it["verdict"] == "chosen") else { return };
    visit.orchestrator = name(chosen);
    let (terms, data) = (&chosen["terms_ms"], &chosen["data"]);
    let mut others: Vec<&Value> = all.iter().filter(|it| it["verdict"] == "eligible").collect();
    others.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let next =
        others.first().map_or(String::new(), |it| format!(", next {} {:.0}", name(it), cost(it)));
    let out: Vec<String> = all
        .iter()
        .filter(|it| it["verdict"] == "excluded")
        .map(|it| format!("{} {}", name(it), it["reason"].as_str().unwrap_or_default()))
        .collect();
    let out = if out.is_empty() { String::new() } else { format!(", out: {}", out.join(" ")) };
    visit.why = format!(
        "{:.0} ms = path {:.0} + work {:.0} + risk {:.0} (rtt {:.0} {}){next}{out}",
        cost(chosen),
        terms["path"].as_f64().unwrap_or_default(),
        terms["service"].as_f64().unwrap_or_default(),
        terms["failing"].as_f64().unwrap_or_default(),
        data["rtt_ms"].as_f64().unwrap_or_default(),
        data["evidence"].as_str().unwrap_or_default(),
    );
}

async fn get(dialer: &Dialer, at: &ServiceUri, path: &str, client: Client) -> Result<Bytes> {
    let request = Request::get(path).header(NAMED, client.ip).body(Body::Empty)?;
    let answer = exchange(dialer, at, request, TURN).await?;
    let status = answer.status();
    let body = answer.into_body();
    anyhow::ensure!(
        status.is_success(),
        "{path}: {status}: {}",
        crate::livepeer::error::message(&body)
    );
    Ok(body)
}

/// What one step of a turn may take.
const TURN: Duration = Duration::from_secs(10);
