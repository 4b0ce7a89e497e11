//! Portolan: a geo-distributed gateway mesh for the Livepeer network.

use clap::Parser;
use portolan::devorch;
use portolan::devorch::OrchestratorArgs;

#[derive(Parser)]
enum Cli {
    /// A development orchestrator: speaks the real wire, needs no GPU.
    Orchestrator(OrchestratorArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli::Orchestrator(args) = Cli::parse();
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    devorch::run(args.try_into()?, interrupted).await?;
    Ok(())
}
