//! Three regional nodes and nine orchestrators on one machine: steer, fail over, see why.
//!
//! Nodes and orchestrators are child processes of this very binary. Distances are real
//! delays at the orchestrators' sockets: each node dials from a loopback address of its own,
//! by which an orchestrator knows how far away it is.

mod children;
mod client;
mod names;
mod plan;
mod screen;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::app::stop;
use crate::clock;
use crate::upstream::Dialer;

use children::Children;
use names::Names;
use plan::Plan;
use screen::Screen;
use watch::Watcher;

/// The flags of `portolan demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Stop after so many seconds instead of at Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Between two tables.
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    every_ms: u64,
    /// Print one table after the other instead of drawing over the last one.
    #[arg(long)]
    plain: bool,
}

/// Runs the demo until Ctrl-C, SIGTERM, or the given time.
pub async fn run(args: Args) -> Result<()> {
    let (plan, ca) = Plan::make().await.context("the demo needs free ports on 127.0.0.1")?;
    let _names = Names::give(&plan, ca).await.context("the demo's CA named nobody")?;
    let mut children = Children::start(&plan).await?;
    let mut screen = Screen::new(args.plain);
    let told = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let interrupted = stop::signalled();
    let shown = show(&plan, &children, &mut screen, Duration::from_millis(args.every_ms));
    let ended = tokio::select! {
        ended = shown => ended,
        () = told => Ok(()),
        () = interrupted => Ok(()),
    };
    let said = screen.say("draining: nodes end what runs, then everything stops");
    children.stop().await;
    plan.clean();
    match ended.and(said) {
        // Whoever read along has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        ended => ended,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Sends a little traffic, looks at every node, draws the table, again and again.
async fn show(
    plan: &Plan,
    children: &Children,
    screen: &mut Screen,
    every: Duration,
) -> Result<()> {
    screen.introduce(plan, children)?;
    let dialer = Dialer::anywhere(Duration::from_secs(3));
    watch::ready(plan, &dialer).await;
    let mut watcher = Watcher::new(plan);
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    let started = clock::now();
    loop {
        ticks.tick().await;
        let rows = client::visit_all(plan, &dialer).await;
        let news = watcher.look(plan, &dialer).await;
        let seconds = clock::now().saturating_duration_since(started).as_secs();
        screen.draw(plan, children, seconds, &rows, &watcher, &news)?;
    }
}
