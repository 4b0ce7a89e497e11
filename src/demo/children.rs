//! The child processes: started, waited for, stopped; none outlives its parent.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::demo::plan::Plan;

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
