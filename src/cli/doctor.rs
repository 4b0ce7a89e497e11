//! `portolan doctor`: looks at everything a node needs, beside the node or before it runs.

mod finding;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::Value;

use self::finding::{Finding, Holds, Level, Port};
use super::{Admin, ask, show};
use crate::app::ground;
use crate::clock;
use crate::config::{Config, MeshConfig};
use crate::listen::tls::{Certificate, Source};
use crate::net::tls::Facts;
use crate::upstream::Dialer;
use crate::upstream::check::check;

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The node's TOML file.
    #[arg(long, default_value = "node.toml", value_name = "FILE")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the running node says of itself; nothing when it does not run.
struct Running {
    is_up: bool,
    peers: Vec<Value>,
    /// Loops that do not go on.
    stalled: Vec<String>,
}

/// Prints every finding; returns whether nothing is bad.
pub(super) async fn run(args: DoctorArgs) -> Result<bool> {
    // A file that cannot be used says by itself what is wrong with it.
    let config = Config::load(&args.config)?;
    let findings = look(&config).await;
    let is_well = findings.iter().all(|it| it.level < Level::Bad);
    if args.json {
        show::line(&serde_json::to_string_pretty(&findings)?)?;
        return Ok(is_well);
    }
    for it in &findings {
        let level = match it.level {
            Level::Well => "well",
            Level::Soon => "soon",
            Level::Bad => "BAD",
        };
        let remedy = it.remedy.as_ref().map_or(String::new(), |it| format!("\n      {it}"));
        show::line(&format!("{level:<5} {:<12} {}{remedy}", it.check, it.found))?;
    }
    Ok(is_well)
}

async fn look(config: &Config) -> Vec<Finding> {
    let now = clock::wall().as_secs() as i64;
    let running = running(config).await;
    let mut passed: Vec<(String, i64)> = running.peers.iter().filter_map(start_of).collect();
    let mut doubts = ground::survey(config);
    let (geo, doubt) = ground::database(config.geoip.clone());
    doubts.extend(doubt);
    let mut findings = Vec::new();
    for listening in &config.listeners {
        if let Some(source) = &listening.tls {
            findings.extend(certificate(now, listening.address, source, &listening.names));
        }
    }
    if let Some(mesh) = &config.mesh {
        // Why there are none is among the doubts.
        let facts = ground::naming(config, mesh).ok();
        findings.extend(facts.map(|it| naming(mesh, now, &it, &mut passed)));
    }
    findings.insert(0, finding::clock(now, &passed));
    findings.extend(ports(config, &running));
    let set = geo.current();
    findings.push(finding::database(set.age(clock::wall()), Holds::of(&set)));
    findings.extend(doubts.iter().map(Finding::of));
    if !doubts.iter().any(|it| it.topic == ground::TICKET_KEY) {
        findings.push(Finding::well(ground::TICKET_KEY, "it is read from its file".to_owned()));
    }
    if let Some(journal) = &config.journal {
        findings.push(finding::disk(journal, free(journal)));
    }
    let text = |row: &Value, key: &str| row[key].as_str().map(ToOwned::to_owned);
    findings.extend(running.peers.iter().filter_map(|row| {
        let (node, standing) = (text(row, "node")?, text(row, "standing")?);
        Some(finding::peer(&node, &standing, text(row, "fault").as_deref()))
    }));
    findings.extend(finding::loops(running.is_up, &running.stalled));
    findings.extend(orchestrators(config).await);
    findings
}

/// Asks the node at the admin address, if it is this one.
async fn running(config: &Config) -> Running {
    let gone = Running { is_up: false, peers: Vec::new(), stalled: Vec::new() };
    let Ok(admin) = format!("http://{}", config.admin).parse() else { return gone };
    let admin = Admin { admin, json: true };
    let Ok(node) = ask(&admin, Method::GET, "/v1/node").await else { return gone };
    if node["node"].as_str() != Some(&config.node.to_string()) {
        return gone;
    }
    let peers = ask(&admin, Method::GET, "/v1/peers").await.unwrap_or_default();
    let loops = node["loops"].as_object().into_iter().flatten();
    let stalled = loops.filter(|(_name, it)| it["stalled"] == Value::Bool(true));
    let stalled = stalled.map(|(name, _it)| name.clone()).collect();
    let peers = peers["peers"].as_array().cloned().unwrap_or_default();
    Running { is_up: true, peers, stalled }
}

/// Returns when a peer started by its own clock, in seconds since 1970.
fn start_of(row: &Value) -> Option<(String, i64)> {
    let ms = row["epoch"].as_u64()?;
    Some((format!("the start of {}", row["node"].as_str()?), i64::try_from(ms / 1000).ok()?))
}

fn certificate(now: i64, at: SocketAddr, source: &Source, names: &[String]) -> Vec<Finding> {
    let Source::Files { cert, .. } = source else { return Vec::new() };
    let remedy = "renew it where it was ordered, then portolan reload";
    match Certificate::load(source) {
        Err(error) => vec![Finding::bad("certificate", error.to_string(), remedy)],
        Ok(certificate) => {
            let name = cert.display().to_string();
            let ends = certificate.not_after;
            let soon = (LISTENER_SOON, remedy);
            let missing = names.iter().filter(|it| !certificate.names.has(it));
            let missing: Vec<&str> = missing.map(String::as_str).collect();
            let ends = finding::expiry("certificate", &name, now, ends, soon);
            [ends].into_iter().chain(finding::names(at, &missing)).collect()
        }
    }
}

/// Judges how long the node's name in the mesh is good.
fn naming(mesh: &MeshConfig, now: i64, facts: &Facts, passed: &mut Vec<(String, i64)>) -> Finding {
    passed.push(("the signing of this node's certificate".into(), facts.not_before));
    let remedy = "is the CA served? else enrol the node again with portolan node enroll";
    let soon = ((facts.not_after - facts.not_before) / 4, remedy);
    finding::expiry(ground::NAME, &mesh.cert.display().to_string(), now, facts.not_after, soon)
}

fn ports(config: &Config, running: &Running) -> Vec<Finding> {
    let tcp = |at: SocketAddr| TcpListener::bind(at).map(drop);
    let udp = |at: SocketAddr| UdpSocket::bind(at).map(drop);
    let mut bound: Vec<(&str, SocketAddr, io::Result<()>)> =
        config.listeners.iter().map(|it| ("clients", it.address, tcp(it.address))).collect();
    bound.push(("admin", config.admin, tcp(config.admin)));
    if let Some(dns) = &config.dns {
        bound.push(("DNS", dns.listen, udp(dns.listen)));
        bound.push(("DNS over TCP", dns.listen, tcp(dns.listen)));
    }
    if let Some(mesh) = &config.mesh {
        bound.push(("mesh", mesh.listen, udp(mesh.listen)));
    }
    let judged = bound.into_iter().map(|(what, at, bound)| {
        let port = match bound {
            Ok(()) => Port::Free,
            Err(error) if running.is_up && error.kind() == io::ErrorKind::AddrInUse => Port::Held,
            Err(error) => Port::Refused(error.to_string()),
        };
        finding::port(what, at, &port)
    });
    judged.collect()
}

/// Returns the bytes free where a file is or would be.
fn free(path: &Path) -> Result<u64, String> {
    let there = path.ancestors().skip(1).find(|it| it.is_dir()).unwrap_or(Path::new("."));
    let told = rustix::fs::statvfs(there).map_err(|error| error.to_string())?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

async fn orchestrators(config: &Config) -> Vec<Finding> {
    let dialer = Dialer { from: config.from, ..Dialer::new(config.connect_timeout) };
    dialer.guard.store(std::sync::Arc::new(config.guard.clone()));
    let mut findings = Vec::new();
    for named in config.orchestrators.iter().take(ORCHESTRATORS_MAX) {
        let within = config.check_timeout.min(CHECK_MAX);
        let checked = check(&dialer, &named.uri, false, within).await;
        let checked = checked.map(|it| it.rtt.map(|it| it.as_ms())).map_err(|it| it.to_string());
        findings.push(finding::orchestrator(&named.uri.to_string(), checked));
    }
    findings
}

/// Before its end a listener's certificate is renewed by any robot that works, in seconds.
const LISTENER_SOON: i64 = 14 * 86_400;
/// Orchestrators that are asked, one after another.
const ORCHESTRATORS_MAX: usize = 64;
/// How long one of them may take.
const CHECK_MAX: Duration = Duration::from_secs(3);
