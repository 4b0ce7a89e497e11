//! How much slower than the best the chosen course is, on measured round trips: Portolan
//! beside what others do. Run by `scripts/steering-report`.
#![expect(clippy::print_stdout, reason = "a report is printed")]

mod courses;
mod draws;
mod fleet;
mod learning;
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

use courses::{Sea, Way};
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
    /// Print the regret of every city, with one leg measured
    #[arg(long)]
    cities: bool,
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
    let mut missed = report::missed(&world, &lines);
    missed.extend(whole(&arguments, &world)?);
    anyhow::ensure!(!arguments.check || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// Prints what is chosen over whole courses, and what reports make of wrong places; returns
/// which targets are missed.
fn whole(arguments: &Arguments, world: &World) -> anyhow::Result<Vec<String>> {
    let (exact, city) = (Location::exact(), Location::documented_city());
    let mut missed = Vec::new();
    for location in [&exact, &city] {
        let seas = (1..=arguments.seeds).map(|seed| Sea::new(world, location, seed));
        let seas = seas.collect::<anyhow::Result<Option<Vec<Sea<'_>>>>>()?;
        let Some(seas) = seas else { return Ok(missed) };
        let ways = [Way::Nearest].into_iter().chain((0..=3).map(Way::Measured));
        for way in ways {
            let regret = courses::regret(&seas, way)?;
            say(arguments.json, "course", location.name, &format!("{way:?}"), regret.mean);
            let Way::Measured(count) = way else { continue };
            let most = [f64::INFINITY, 5.0, 2.5, 0.8][count];
            if location.name == exact.name && regret.mean > most {
                missed.push(format!("a course with {count} legs measured: {:.2} ms", regret.mean));
            }
        }
        if arguments.cities && location.name == exact.name {
            let by_city = courses::by_city(&seas, Way::Measured(1))?;
            for (city, regret) in world.clients.iter().zip(by_city) {
                say(arguments.json, "course", location.name, &city.name, regret);
            }
        }
    }
    for (before, reports) in [(0, false), (3, true), (10, true)] {
        let (right, wrong) = learning::run(world, arguments.seeds.min(5), before, reports)?;
        let both = learning::Found {
            sessions: right.sessions + wrong.sessions,
            best: right.best + wrong.best,
        };
        for (what, found) in [("all", both), ("put right", right), ("put wrong", wrong)] {
            let name = format!("after {before}: {what}");
            say(arguments.json, "best region, %", "1 in 10 wrong", &name, found.percent());
        }
        if before == 10 && both.percent() < 98.0 {
            missed.push(format!("in their best region: {:.1} % of 98 %", both.percent()));
        }
    }
    Ok(missed)
}

fn say(json: bool, what: &str, location: &str, name: &str, value: f64) {
    let value = (value * 100.0).round() / 100.0;
    match json {
        true => {
            let row = serde_json::json!({
                "what": what, "location": location, "policy": name, "value": value,
            });
            println!("{row}");
        }
        false => println!("{what:14} {location:13} {name:24} {value:>8.2}"),
    }
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
