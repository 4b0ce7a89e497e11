//! `portolan probe`: measures the ways from here to the nodes and orchestrators of a mesh, and
//! tells the mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::show;
use crate::clock;
use crate::id::OrchestratorId;
use crate::upstream::fetch::{Kept, exchange};
use crate::upstream::{Body, Dialer};
use crate::uri::ServiceUri;

/// What to measure, and whom to tell.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// A node of the mesh, as clients reach it.
    #[arg(long, value_name = "URL")]
    node: ServiceUri,
    /// How many of the orchestrators it lists first are measured too.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(..=32))]
    orchestrators: u8,
    /// Tell nobody.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Measures, prints and reports.
pub(super) async fn run(args: Args) -> Result<()> {
    let dialer = Dialer::anywhere(PATIENCE);
    let answer = get(&dialer, &args.node, "/v1/resolve").await?;
    let survey = &answer["survey"];
    let ticket = survey["ticket"].as_str().context("this node asks for no measurements")?;
    let nodes: BTreeMap<String, String> = serde_json::from_value(survey["nodes"].clone())
        .context("this node's survey is not of a form known here")?;
    let mut seen = Vec::new();
    for (node, url) in nodes {
        match node_rtt(&dialer, &url).await {
            Ok(rtt) => seen.push(json!({ "node": node, "rtt_ms": ms(rtt) })),
            Err(error) => say(&args, &format!("{node}: {error:#}"))?,
        }
    }
    let listed = get(&dialer, &args.node, "/discover-orchestrators").await?;
    let listed = listed.as_array().cloned().unwrap_or_default();
    for entry in listed.iter().take(args.orchestrators.into()) {
        let Some(uri) = entry["address"].as_str().and_then(|it| it.parse().ok()) else { continue };
        match connect_rtt(&uri).await {
            Ok(rtt) => {
                let id = OrchestratorId::of(&uri).to_string();
                seen.push(json!({ "orchestrator": id, "rtt_ms": ms(rtt) }));
            }
            Err(error) => say(&args, &format!("{uri}: {error:#}"))?,
        }
    }
    for it in &seen {
        let name = it["node"].as_str().or(it["orchestrator"].as_str()).unwrap_or_default();
        say(&args, &format!("{name:24} {:>9.3} ms", it["rtt_ms"].as_f64().unwrap_or_default()))?;
    }
    let told = match args.dry_run || seen.is_empty() {
        true => Value::Null,
        false => report(&dialer, &args.node, ticket, &seen).await?,
    };
    if args.json {
        return show::line(&json!({ "observations": seen, "told": told }).to_string());
    }
    match told.is_null() {
        true => say(&args, "told nobody"),
        false => {
            let refused = count(&told["refused"]);
            say(&args, &format!("{} accepted, {refused} refused", told["accepted"]))
        }
    }
}

/// Says something to a person.
fn say(args: &Args, text: &str) -> Result<()> {
    if args.json { Ok(()) } else { show::line(text) }
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn ms(rtt: Duration) -> f64 {
    rtt.as_micros() as f64 / 1000.0
}

async fn get(dialer: &Dialer, node: &ServiceUri, path: &str) -> Result<Value> {
    let request = Request::get(path).body(Body::Empty)?;
    let answer = exchange(dialer, node, request, PATIENCE).await?;
    ensure!(answer.status() == StatusCode::OK, "{node}{path} answered {}", answer.status());
    Ok(serde_json::from_slice(answer.body())?)
}

async fn report(dialer: &Dialer, node: &ServiceUri, ticket: &str, seen: &[Value]) -> Result<Value> {
    let body = json!({ "ticket": ticket, "observations": seen }).to_string();
    let request = Request::builder().method(Method::POST).uri("/v1/observations");
    let request = request.header("content-type", "application/json");
    let answer = exchange(dialer, node, request.body(Body::whole(body))?, PATIENCE).await?;
    let said = String::from_utf8_lossy(answer.body()).into_owned();
    ensure!(answer.status() == StatusCode::ACCEPTED, "{}: {said}", answer.status());
    Ok(serde_json::from_str(&said)?)
}

/// Returns the least of some exchanges over one connection.
async fn node_rtt(dialer: &Dialer, url: &str) -> Result<Duration> {
    let uri: ServiceUri = url.parse()?;
    let mut kept = Kept::open(dialer, &uri, PATIENCE).await?;
    let mut least = Duration::MAX;
    for sample in 0..=SAMPLES {
        let begun = clock::now();
        let request = Request::get(uri.base_path()).body(Body::Empty)?;
        kept.exchange(request, PATIENCE).await?;
        // The first one may wait for the connection's own beginnings.
        if sample > 0 {
            least = least.min(clock::now().saturating_duration_since(begun));
        }
    }
    Ok(least)
}

/// Returns the least of some TCP handshakes: an orchestrator is not bothered with more.
async fn connect_rtt(uri: &ServiceUri) -> Result<Duration> {
    let mut least = Duration::MAX;
    let found = timeout(PATIENCE, tokio::net::lookup_host((uri.host(), uri.port()))).await;
    let address = found.context("its name did not resolve in time")??.next();
    let address = address.context("its name has no address")?;
    for _ in 0..SAMPLES {
        let begun = clock::now();
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        drop(connected.context("it did not answer in time")??);
        least = least.min(clock::now().saturating_duration_since(begun));
    }
    Ok(least)
}

/// Round trips taken of each way; the least is told, since the others waited for something.
const SAMPLES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(5);
