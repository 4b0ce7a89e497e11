//! The child processes: started, waited for, stopped; none outlives its parent.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::demo::plan::Plan;
use crate::upstream::fetch::exchange;
use crate::upstream::{Body, Dialer};
use crate::uri::ServiceUri;

/// Every child of one demo.
#[derive(Debug)]
pub(super) struct Children {
    orchestrators: Vec<Child>,
    nodes: Vec<Child>,
}

impl Children {
    /// Starts the orchestrators, then the nodes, and waits until each listens.
    pub(super) async fn start(plan: &Plan) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut orchestrators = Vec::new();
        for it in &plan.orchestrators {
            let mut command = Command::new(&program);
            command.args(["orchestrator", "--with-parent", "--region", &it.region]);
            command.args(["--listen", &it.listen.to_string(), "--delay", &it.delays]);
            command.args(["--work", "5ms"]);
            orchestrators.push(spawn(command, plan.folder(), &it.name)?);
        }
        let mut nodes = Vec::new();
        for it in &plan.nodes {
            let mut command = Command::new(&program);
            command.args(["run", "--with-parent", "--config"]).arg(&it.config);
            nodes.push(spawn(command, plan.folder(), &it.name)?);
        }
        for (child, name) in orchestrators
            .iter_mut()
            .zip(plan.orchestrators.iter().map(|it| &it.name))
            .chain(nodes.iter_mut().zip(plan.nodes.iter().map(|it| &it.name)))
        {
            let log = plan.folder().join(format!("{name}.log"));
            let said = || format!("{name} did not start; see {}", log.display());
            ready(child).await.with_context(said)?;
        }
        Ok(Self { orchestrators, nodes })
    }

    /// Waits until every node has heard of every orchestrator, or a while.
    pub(super) async fn settled(&self, plan: &Plan) {
        let dialer = Dialer::new(Duration::from_secs(1));
        let all = async {
            for node in &plan.nodes {
                while !knows_all(plan, &node.admin, &dialer).await {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        // Who is still silent after that is shown as it is.
        drop(tokio::time::timeout(START, all).await);
    }

    /// Returns the process id of an orchestrator, by its place in the plan.
    pub(super) fn orchestrator(&self, at: usize) -> Option<u32> {
        self.orchestrators.get(at)?.id()
    }

    /// Returns the process id of a node, by its place in the plan.
    pub(super) fn node(&self, at: usize) -> Option<u32> {
        self.nodes.get(at)?.id()
    }

    /// Tells the nodes, then the orchestrators, to stop, and waits for them a while.
    pub(super) async fn stop(&mut self) {
        for group in [&mut self.nodes, &mut self.orchestrators] {
            for child in group.iter_mut() {
                // The end of its standard input is what tells it.
                drop(child.stdin.take());
            }
            for child in group {
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    // It had its time.
                    drop(child.kill().await);
                }
            }
        }
    }
}

async fn knows_all(plan: &Plan, admin: &ServiceUri, dialer: &Dialer) -> bool {
    let Ok(request) = Request::get("/readyz").body(Body::Empty) else { return false };
    let answer = exchange(dialer, admin, request, Duration::from_secs(2)).await;
    let answer: Option<Value> = answer.ok().and_then(|it| serde_json::from_slice(it.body()).ok());
    let ready = answer.and_then(|it| it["orchestrators_ready"].as_u64());
    ready == Some(plan.orchestrators.len() as u64)
}

fn spawn(mut command: Command, folder: &Path, name: &str) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {name}"))
}

/// Waits for the line that says a child listens.
async fn ready(child: &mut Child) -> Result<()> {
    let stdout = child.stdout.as_mut().context("no output")?;
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    tokio::time::timeout(START, stdout.read_line(&mut line)).await??;
    anyhow::ensure!(!line.is_empty(), "it ended at once");
    Ok(())
}

/// What starting may take on a loaded machine.
const START: Duration = Duration::from_secs(20);
/// What stopping may take.
const GRACE: Duration = Duration::from_secs(5);
