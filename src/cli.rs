//! The commands.

mod ca;
mod doctor;
mod node;
mod orders;
mod probe;
mod show;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::{Parser, Subcommand};
use http::{Method, Request};
use serde_json::Value;

use crate::address;
use crate::app;
use crate::app::ground;
use crate::app::handover::{Inherited, Program};
use crate::app::stop;
use crate::clock;
use crate::config::Config;
use crate::demo;
use crate::devorch::{self, OrchestratorArgs};
use crate::geoip::GeoStore;
use crate::region::RegionMap;
use crate::telemetry::{self, LogFormat};
use crate::upstream::fetch::exchange;
use crate::upstream::{Body, Dialer};
use crate::uri::ServiceUri;

pub use show::complain;

/// A geo-distributed gateway mesh for the Livepeer network.
#[derive(Debug, Parser)]
#[command(name = "portolan", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Run {
        /// The node's TOML file.
        #[arg(long)]
        config: PathBuf,
        /// Stop when standard input closes, for a parent that may die.
        #[arg(long, hide = true)]
        with_parent: bool,
        /// Take the place of the process that started this one.
        #[arg(long, hide = true, conflicts_with = "with_parent")]
        take_over: bool,
    },
    /// Have a node hand over to a new process of its program, without a refused connection.
    Handover(Admin),
    /// Read a node's TOML file and every file it names, and print what would run, or why it
    /// would not; binds nothing and changes nothing.
    Check {
        /// The node's TOML file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Look at everything a node needs, and say what is wrong and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Run three regional nodes and nine orchestrators on this machine, and watch them.
    Demo(demo::Args),
    /// Tell where an address is thought to be.
    Locate {
        /// An IPv4 or IPv6 address.
        #[arg(value_parser = ip)]
        ip: IpAddr,
        /// Use the databases of this node's TOML file instead of the embedded one.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Measure the ways from here to a mesh's nodes and orchestrators, and tell the mesh.
    Probe(probe::Args),
    /// Explain a decision, or what would be decided.
    Explain {
        #[command(flatten)]
        node: Admin,
        /// A decision's id, from the answer's Portolan-Decision header.
        #[arg(long, conflicts_with_all = ["ip", "capability"])]
        decision: Option<String>,
        /// The caller's address.
        #[arg(long, requires = "capability", value_parser = ip)]
        ip: Option<IpAddr>,
        /// What it asks for, such as demo/echo.
        #[arg(long)]
        capability: Option<String>,
        /// Which way the bytes would go.
        #[arg(long, default_value = "relayed", value_parser = ["relayed", "direct"])]
        path: String,
    },
    /// Have a node read its TOML file again; what takes a restart is refused as a whole.
    Reload {
        #[command(flatten)]
        node: Admin,
        /// Say what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the orchestrators a node knows.
    Orchestrators {
        #[command(flatten)]
        node: Admin,
        /// Give no new work to this one.
        #[arg(long, value_name = "ID")]
        drain: Option<String>,
        /// Give work to this one again.
        #[arg(long, value_name = "ID", conflicts_with = "drain")]
        resume: Option<String>,
    },
    /// List the nodes of the mesh as one of them sees them.
    Members(Admin),
    /// Let a node, a region or an orchestrator take nothing new, in the whole mesh.
    Drain(orders::DrainArgs),
    /// Give a region a share of its clients and of its work, in the whole mesh.
    Dial(orders::DialArgs),
    /// Show what is ordered for the whole mesh, or roll it back.
    Orders(orders::OrdersArgs),
    /// List the sessions of a node.
    Sessions {
        #[command(flatten)]
        node: Admin,
        /// End this one now.
        #[arg(long, value_name = "ID")]
        end: Option<String>,
        /// Let this one take nothing new.
        #[arg(long, value_name = "ID", conflicts_with = "end")]
        drain: Option<String>,
    },
    /// The mesh's certificate authority: names nodes, revokes, rotates.
    Ca(ca::CaArgs),
    /// Make a node's key, and have the CA name the node.
    Node(node::NodeArgs),
    /// Run a development orchestrator: speaks the real wire, needs no GPU.
    Orchestrator {
        #[command(flatten)]
        args: Box<OrchestratorArgs>,
        /// Stop when standard input closes, for a parent that may die.
        #[arg(long, hide = true)]
        with_parent: bool,
    },
}

/// Which node to ask.
#[derive(Clone, Debug, clap::Args)]
struct Admin {
    /// The node's admin door.
    #[arg(long, default_value = "http://127.0.0.1:7936", value_name = "URL")]
    admin: ServiceUri,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs one command to its end; returns whether what it looked at is well.
pub fn run(cli: Cli) -> Result<bool> {
    if let Command::Check { config } = &cli.command {
        return check(config).map(|()| true);
    }
    if let Command::Locate { ip, config } = &cli.command {
        return locate(*ip, config.as_deref()).map(|()| true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Command::Doctor(args) = cli.command {
        return runtime.block_on(doctor::run(args));
    }
    runtime.block_on(run_async(cli.command)).map(|()| true)
}

async fn run_async(command: Command) -> Result<()> {
    match command {
        Command::Run { config, with_parent, take_over } => {
            run_node(&config, with_parent, take_over).await
        }
        Command::Handover(node) => {
            let within = app::handover::ANSWER_MAX;
            let told = ask_for(&node, Method::POST, "/v1/handover", within).await?;
            show::handed_over(&told, node.json)
        }
        Command::Demo(args) => demo::run(args).await,
        Command::Probe(args) => probe::run(args).await,
        Command::Ca(args) => ca::run(args).await,
        Command::Node(args) => node::run(args).await,
        Command::Explain { node, decision, ip, capability, path } => {
            let query = match (decision, ip, capability) {
                (Some(id), ..) => format!("decision={id}"),
                (None, Some(ip), Some(capability)) => {
                    format!("ip={ip}&capability={capability}&path={path}")
                }
                _ => bail!("give --decision ID, or --ip ADDRESS and --capability NAME"),
            };
            let found = ask(&node, Method::GET, &format!("/v1/explain?{query}")).await?;
            show::explain(&found, node.json)
        }
        Command::Members(node) => {
            let own = ask(&node, Method::GET, "/v1/node").await?;
            let found = ask(&node, Method::GET, "/v1/peers").await?;
            show::members(&own, &found, node.json)
        }
        Command::Drain(args) => orders::drain(args).await,
        Command::Dial(args) => orders::dial(args).await,
        Command::Orders(args) => orders::orders(args).await,
        Command::Reload { node, dry_run } => {
            let path = format!("/v1/reload?dry_run={dry_run}");
            let told = ask(&node, Method::POST, &path).await?;
            show::reloaded(&told, dry_run, node.json)
        }
        Command::Orchestrators { node, drain, resume } => {
            if let Some(id) = drain {
                ask(&node, Method::POST, &format!("/v1/orchestrators/{id}/drain")).await?;
            }
            if let Some(id) = resume {
                ask(&node, Method::DELETE, &format!("/v1/orchestrators/{id}/drain")).await?;
            }
            let found = ask(&node, Method::GET, "/v1/orchestrators").await?;
            show::orchestrators(&found, node.json)
        }
        Command::Sessions { node, end, drain } => {
            if let Some(id) = end {
                ask(&node, Method::DELETE, &format!("/v1/sessions/{id}")).await?;
            }
            if let Some(id) = drain {
                ask(&node, Method::POST, &format!("/v1/sessions/{id}/drain")).await?;
            }
            let found = ask(&node, Method::GET, "/v1/sessions").await?;
            show::sessions(&found, node.json)
        }
        Command::Orchestrator { args, with_parent } => {
            telemetry::logs(LogFormat::Text)?;
            let params: devorch::Params = (*args).try_into()?;
            let bound = devorch::bind(params).await?;
            show::line(&format!("orchestrator {} listening on {}", bound.service(), bound.addr()))?;
            bound.serve(stop::told(with_parent)).await;
            Ok(())
        }
        Command::Check { .. } | Command::Locate { .. } | Command::Doctor(_) => Ok(()),
    }
}

async fn run_node(path: &Path, with_parent: bool, take_over: bool) -> Result<()> {
    // Another program may lie at this path by the time it is needed.
    let program = Program::current()?;
    let before = take_over.then(Inherited::receive).transpose()?;
    // Everything wrong with the file is said before anything is bound.
    let config = Config::load(path)?;
    telemetry::logs(config.log)?;
    telemetry::metrics();
    let mut app = app::start_after(config, before).await?;
    app.reload_on_hangup();
    if !with_parent {
        app.hand_over_to(program);
    }
    show::line(&format!(
        "portolan {} serving clients on {}, operators on {}",
        app.gateway.identity.node, app.public, app.admin
    ))?;
    app.run(stop::told(with_parent)).await
}

fn check(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    telemetry::filter()?;
    let mut doubts = ground::survey(&config);
    doubts.extend(ground::database(config.geoip.clone()).1);
    ground::refuse(&doubts)?;
    show::config(&config, &doubts)
}

fn locate(ip: IpAddr, config: Option<&Path>) -> Result<()> {
    let files = config.map(Config::load).transpose()?.map_or_else(Vec::new, |it| it.geoip);
    let (geo, trouble) = GeoStore::open(files, clock::wall());
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let answer = geo.lookup(ip);
    let regions = RegionMap::embedded()?;
    show::place(ip, &answer, &regions)
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let said = "it is no address; write IPv4 or IPv6, such as 8.8.8.8";
    address::parse(text).ok_or_else(|| said.to_owned())
}

async fn ask(node: &Admin, method: Method, path: &str) -> Result<Value> {
    ask_for(node, method, path, Duration::from_secs(5)).await
}

async fn ask_for(node: &Admin, method: Method, path: &str, within: Duration) -> Result<Value> {
    let request = Request::builder().method(method).uri(path).body(Body::Empty)?;
    exchanged(node, request, within).await
}

/// Posts bytes to a node.
async fn send(node: &Admin, path: &str, bytes: Vec<u8>) -> Result<Value> {
    let request = Request::post(path).header("content-length", bytes.len());
    let request = request.header("content-type", "application/octet-stream");
    exchanged(node, request.body(Body::whole(bytes))?, Duration::from_secs(10)).await
}

async fn exchanged(node: &Admin, request: Request<Body>, within: Duration) -> Result<Value> {
    let dialer = Dialer::anywhere(Duration::from_secs(3));
    let answer = exchange(&dialer, &node.admin, request, within).await;
    let answer = answer.map_err(|error| {
        anyhow!(
            "no node answers at {}: {error}; start one with portolan run --config FILE, or give \
             the listen.admin of another with --admin",
            node.admin
        )
    })?;
    let status = answer.status();
    let body = answer.into_body();
    if !status.is_success() {
        bail!("{status}: {}", show::refusal(&body));
    }
    if body.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    /// Every command of the README's blocks is one, with all its flags.
    #[test]
    fn the_readme_shows_commands_that_are() {
        let readme = include_str!("../README.md");
        let blocks = readme.split("\n```").skip(1).step_by(2);
        let lines = blocks.flat_map(str::lines).filter(|it| it.starts_with("portolan "));
        let mut n_commands = 0;
        for line in lines {
            let words = line.split('#').next().unwrap().split_whitespace();
            let parsed = Cli::try_parse_from(words.filter(|it| *it != "&"));
            // Secrets are left out, which makes values that are none.
            let bad =
                parsed.err().map(|it| it.kind()).filter(|it| *it != ErrorKind::ValueValidation);
            assert_eq!(bad, None, "{line}");
            n_commands += 1;
        }
        assert!(n_commands >= 8, "{n_commands} commands");
    }
}
