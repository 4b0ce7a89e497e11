//! `portolan drain`, `dial` and `orders`: what the operator orders for a whole mesh, signed here.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::Value;

use super::{Admin, ask, send};
use crate::cli::show;
use crate::clock;
use crate::id::RegionId;
use crate::net::tls;
use crate::operator::{Command, OperatorKey};
use crate::orders::{Drain, Drained, Orders};

/// By whose word, and at which node.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct By {
    #[command(flatten)]
    node: Admin,
    /// The operator's private key, as `portolan ca init` made it.
    #[arg(long, default_value = "operator.key", value_name = "FILE")]
    key: PathBuf,
}

/// Let somebody take nothing new.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// Of which kind.
    #[arg(value_enum)]
    kind: Kind,
    /// The node, the region, or the orchestrator's id.
    name: String,
    /// End what sessions are left after so many seconds; without it they go on.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u32>,
    /// Let it take work again.
    #[arg(long, conflicts_with = "within")]
    undo: bool,
    #[command(flatten)]
    by: By,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Node,
    Region,
    Orchestrator,
}

/// Give a region a share of its clients and of its work.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DialArgs {
    /// Which region.
    region: RegionId,
    /// How many in a hundred.
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: u8,
    #[command(flatten)]
    by: By,
}

/// Show what is ordered, or put what was before in force again.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OrdersArgs {
    /// Order again what was in force before.
    #[arg(long)]
    roll_back: bool,
    #[command(flatten)]
    by: By,
}

pub(super) async fn drain(args: DrainArgs) -> Result<()> {
    let name = &args.name;
    let what = match args.kind {
        Kind::Node => Drained::Node(name.parse().context("a node's name")?),
        Kind::Region => Drained::Region(name.parse().context("a region's code")?),
        Kind::Orchestrator => {
            let remedy = "an orchestrator's id, as `portolan orchestrators` lists it";
            Drained::Orchestrator(name.parse().context(remedy)?)
        }
    };
    let drain = (!args.undo).then_some(Drain { what, within_s: args.within });
    change(&args.by, |orders, _before| orders.set_drain(what, drain)).await
}

pub(super) async fn dial(args: DialArgs) -> Result<()> {
    change(&args.by, |orders, _before| orders.set_dial(args.region, args.percent)).await
}

pub(super) async fn orders(args: OrdersArgs) -> Result<()> {
    if args.roll_back {
        return change(&args.by, |orders, before| *orders = before).await;
    }
    shown(&args.by.node).await
}

/// Makes other orders of those in force, signs them, and has the node obey.
async fn change(by: &By, make: impl FnOnce(&mut Orders, Orders)) -> Result<()> {
    let key = OperatorKey::from_pem(&tls::read(&by.key)?)
        .with_context(|| format!("{}", by.key.display()))?;
    let now = ask(&by.node, Method::GET, "/v1/orders").await?;
    let mesh =
        now["mesh"].as_str().context("this node is in no mesh, so there is nobody to order")?;
    let number = now["number"].as_u64().unwrap_or_default();
    let mut orders: Orders = serde_json::from_value(now["orders"].clone())?;
    let before: Orders = serde_json::from_value(now["before"].clone())?;
    make(&mut orders, before);
    orders.previous = number;
    let body = orders.write();
    // What the nodes would refuse is refused here.
    Orders::read(&body)?;
    let wall = clock::wall();
    let sequence = u64::try_from(wall.as_millis())?.max(number + 1);
    let not_after = (wall + GOOD_FOR).as_secs();
    let command = Command { mesh: mesh.to_owned(), sequence, not_after, body };
    send(&by.node, "/v1/orders", command.sign(&key)?).await?;
    shown(&by.node).await
}

async fn shown(node: &Admin) -> Result<()> {
    let found = ask(node, Method::GET, "/v1/orders").await?;
    if node.json {
        return show::line(&serde_json::to_string_pretty(&found)?);
    }
    let number = found["number"].as_u64().unwrap_or_default();
    let orders: Orders = serde_json::from_value(found["orders"].clone())?;
    let mut out = String::new();
    match orders.is_empty() {
        true => writeln!(out, "orders {number}: nothing is ordered")?,
        false => writeln!(out, "orders {number}:")?,
    }
    for it in &orders.drains {
        let what = match it.what {
            Drained::Node(node) => format!("node {node}"),
            Drained::Region(region) => format!("region {region}"),
            Drained::Orchestrator(id) => format!("orchestrator {id}"),
        };
        let within = it.within_s.map_or_else(
            || "sessions go on".to_owned(),
            |it| format!("sessions end within {it} s"),
        );
        writeln!(out, "  drain {what}: {within}")?;
    }
    for (region, percent) in &orders.dials {
        writeln!(out, "  dial {region}: {percent} %")?;
    }
    let drained = found["node_drained"] == Value::Bool(true);
    let sessions = &found["sessions"];
    write!(
        out,
        "this node {}; {sessions} sessions",
        if drained { "is drained" } else { "takes work" }
    )?;
    show::line(&out)
}

/// How long a command may take to reach its first node.
const GOOD_FOR: Duration = Duration::from_secs(300);
