//! How much slower than the best the chosen course is, on measured round trips: Portolan
//! beside what others do. Run by `scripts/steering-report`.
#![expect(clippy::print_stdout, reason = "a report is printed")]

mod draws;
mod fleet;
mod location;
mod replay;
mod report;
mod world;

use std::path::{Path, PathBuf};

use clap::Parser;
use portolan::clock;
use portolan::geo::Confidence;
use portolan::geoip::GeoIp;
use portolan::policy::PathKind;
use portolan::unit::Micros;

use location::Location;
use report::Line;
use world::World;

/// Measures steering on recorded round trips.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory with rtt.csv and, if there is one, ip_truth.csv
    #[arg(long)]
    data: PathBuf,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// Worlds drawn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// Time the work takes at every orchestrator: the wider it is, the wider near-equals are
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    service_ms: u64,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
    /// City database to take errors of places from, in place of documented ones
    #[arg(long, num_args = 1..)]
    city_db: Vec<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut world = World::read(&arguments.data)?;
    world.service = Micros::from_ms(arguments.service_ms);
    let truth = arguments.data.join("ip_truth.csv");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo/aws-mlab.csv");
    let truth = if truth.exists() { truth } else { shipped };
    let measured =
        |name, confidence, set: &GeoIp| Location::measured(name, confidence, set, &truth);
    let city = match arguments.city_db.is_empty() {
        true => Location::documented_city(),
        false => {
            let set = GeoIp::open(&arguments.city_db, clock::wall())?;
            measured("city", Confidence::City, &set)?
        }
    };
    let country = measured("country", Confidence::Country, &GeoIp::embedded()?)?;
    let lines = report::lines(&world, &[Location::exact(), city, country], arguments.seeds)?;
    if arguments.json {
        for line in &lines {
            println!("{}", serde_json::to_string(line)?);
        }
    } else {
        print!("{}", table(&lines));
        let names: Vec<_> = world.sites.iter().map(|it| it.name.as_str()).collect();
        let (clients, sites) = (world.clients.len(), names.len());
        println!("\n{clients} clients, {} seeds; {sites} orchestrators:", arguments.seeds);
        println!("{}", names.join(", "));
        println!("{}", NOTES);
    }
    let missed = report::missed(&world, &lines);
    anyhow::ensure!(!arguments.check || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// Returns the lines as a table.
fn table(lines: &[Line]) -> String {
    let head = format!(
        "{:8} {:9} {:17} {:>8} {:>8} {:>8} {:>8}\n",
        "path", "location", "policy", "measured", "mean ms", "p95 ms", "p99 ms"
    );
    let row = |line: &Line| {
        format!(
            "{:8} {:9} {:17} {:>8} {:>8.2} {:>8.2} {:>8.2}\n",
            if line.path == PathKind::Direct { "direct" } else { "relayed" },
            line.location,
            line.policy,
            line.candidates,
            line.mean_ms,
            line.p95_ms,
            line.p99_ms,
        )
    };
    head + &lines.iter().map(row).collect::<String>()
}

const NOTES: &str = "
Regret: the mean round trip of the chosen course over that of the best one there is.
measured: how many the client (relayed: the node) pinged once before the choice.
portolan: nodes at all sites told each other what they measured; -alone: nobody told.
top-k: the fastest of the k nearest; catalyst: any within the nearest and 1,500 km more.
go-livepeer: stake 0.7 and random 0.3 and price 0, with equal stakes: any at all.
go-livepeer-live: the least of one ping to every orchestrator, at every discovery.
relayed: from the node nearest to the client; none has an orchestrator in its own city.
city: documented errors unless --city-db names files; country: measured errors of the
embedded database. Each client is given the error of an address drawn at random.";
