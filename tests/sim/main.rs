//! How long work takes and how often it fails, by way of choosing, when things go wrong: a
//! simulation. Run by `scripts/sim-report`.
#![expect(clippy::print_stdout, reason = "a report is printed")]
#![expect(clippy::unwrap_used, reason = "a simulation that panics has found something")]

mod algorithm;
mod baseline;
mod draws;
mod gateway;
mod node;
mod report;
mod run;
mod scenario;
mod server;
mod stats;
mod world;

use clap::Parser;

use algorithm::Algorithm;
use scenario::Scenario;

/// Plays every scenario with every algorithm.
#[derive(Debug, Parser)]
struct Arguments {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Worlds drawn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    seeds: u64,
    /// The first of them: 1 to 20 were tuned on, 101 and on are held out and only judge
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How long each story goes on; a quarter of it does not count
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(16..=3_600))]
    seconds: u64,
    /// Only stories whose name holds this
    #[arg(long)]
    only: Option<String>,
    /// Fail when a bar is missed
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seeds: Vec<u64> = (arguments.first..arguments.first + arguments.seeds).collect();
    let wanted = |it: &Scenario| arguments.only.as_ref().is_none_or(|only| it.name.contains(only));
    let length = std::time::Duration::from_secs(arguments.seconds);
    let scenarios = Scenario::all().into_iter().filter(wanted).map(|it| it.shortened(length));
    let lines: Vec<report::Line> =
        scenarios.flat_map(|it| report::play(&it, &seeds, &Algorithm::ALL)).collect();
    if arguments.json {
        for line in &lines {
            println!("{}", serde_json::to_string(line)?);
        }
    } else {
        print!("{}", report::table(&lines));
        println!("\n{NOTES}");
    }
    let missed = report::missed(&lines);
    if !arguments.json {
        missed.iter().for_each(|it| println!("missed: {it}"));
    }
    anyhow::ensure!(!arguments.check || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

const NOTES: &str = "\
Five gateways, twenty orchestrators, 80 s of which the last 60 count unless --seconds says
otherwise; all but the choice is the same for everyone. Times are of those served. Beside each:
Portolan's figure less this one's, mean over the seeds, and by a paired bootstrap the interval
it lies in with 95 %.
nearest: by distance, and the next nearest when refused.
go-livepeer: stake 0.7 and random 0.3, sessions used again; live: the least initial latency.
p2c peak-ewma: the better of two drawn; biased: failures and refusals count as five seconds.
All get four attempts, connections that stay open, and checks every five seconds; Portolan opens
some ahead. A herd walks its list.
Bars: mean and p99 below all others' with the whole interval; failures not above theirs, that is,
the interval not wholly above zero and the mean no more than 0.01 % (one request in ten thousand)
above it.
Seeds 1 to 20 were looked at while the program was changed; 101 and on are held out.";
