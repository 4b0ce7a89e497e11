//! Every algorithm in every scenario over paired seeds, and the bars that are held.

use std::collections::BTreeMap;

use serde::Serialize;

use super::algorithm::Algorithm;
use super::run::Run;
use super::scenario::Scenario;
use super::stats::{Figures, Interval};
use super::world::World;

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) scenario: &'static str,
    pub(crate) algorithm: &'static str,
    pub(crate) mean_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) failed_percent: f64,
    /// Portolan's figures less these, with the 95 % interval; nothing beside its own.
    pub(crate) against: Option<Against>,
}

/// How Portolan compares with one algorithm: below zero it is better.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Against {
    pub(crate) mean_ms: [f64; 3],
    pub(crate) p99_ms: [f64; 3],
    pub(crate) failed_percent: [f64; 3],
}

/// Plays one scenario over `seeds`.
pub(crate) fn play(scenario: &Scenario, seeds: &[u64], algorithms: &[Algorithm]) -> Vec<Line> {
    let mut figures: BTreeMap<usize, Vec<Figures>> = BTreeMap::new();
    for seed in seeds {
        let world = World::new(scenario, *seed);
        for (at, algorithm) in algorithms.iter().enumerate() {
            let outcome = Run::play(&world, scenario, *algorithm);
            figures.entry(at).or_default().push(outcome.figures);
        }
    }
    let mean = |all: &[Figures], pick: fn(&Figures) -> f64| {
        all.iter().map(pick).sum::<f64>() / all.len() as f64
    };
    let own = &figures[&0];
    let line = |at: usize| {
        let all = &figures[&at];
        Line {
            scenario: scenario.name,
            algorithm: algorithms[at].name(),
            mean_ms: mean(all, |it| it.mean_ms),
            p99_ms: mean(all, |it| it.p99_ms),
            failed_percent: mean(all, |it| it.failed),
            against: (at > 0).then(|| Against {
                mean_ms: difference(own, all, |it| it.mean_ms),
                p99_ms: difference(own, all, |it| it.p99_ms),
                failed_percent: difference(own, all, |it| it.failed),
            }),
        }
    };
    (0..algorithms.len()).map(line).collect()
}

fn difference(own: &[Figures], other: &[Figures], pick: fn(&Figures) -> f64) -> [f64; 3] {
    let differences: Vec<f64> =
        own.iter().zip(other).map(|(own, other)| pick(own) - pick(other)).collect();
    let Interval { mean, low, high } = Interval::of(&differences);
    [mean, low, high]
}

/// Returns the bars that `lines` miss: mean and p99 clearly below every other's; failures
/// neither clearly above nor by more than one in ten thousand.
pub(crate) fn missed(lines: &[Line]) -> Vec<String> {
    let mut missed = Vec::new();
    for line in lines {
        let Some(against) = &line.against else { continue };
        let mut bar = |what: &str, [mean, low, high]: [f64; 3], holds: bool| {
            if !holds {
                let (scenario, other) = (line.scenario, line.algorithm);
                missed.push(format!(
                    "{scenario}: {what} against {other}: {mean:+.2} ({low:+.2}..{high:+.2})"
                ));
            }
        };
        bar("mean ms", against.mean_ms, against.mean_ms[2] < 0.0);
        bar("p99 ms", against.p99_ms, against.p99_ms[2] < 0.0);
        bar("failed %", against.failed_percent, not_above(against.failed_percent));
    }
    missed
}

/// An interval alone would let much pass where little is certain, a mean alone little where
/// much is.
fn not_above([mean, low, _high]: [f64; 3]) -> bool {
    low <= 0.0 && mean <= FAILED_ABOVE_MAX
}

/// Returns the lines as a table.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:24} {:21} {:>8} {:>8} {:>8}   portolan less this, with its 95 % interval\n",
        "scenario", "algorithm", "mean ms", "p99 ms", "failed %"
    );
    for line in lines {
        let shown = |[mean, low, high]: [f64; 3], digits: usize| {
            format!("{mean:+.digits$} ({low:+.digits$}..{high:+.digits$})")
        };
        let against = line.against.as_ref().map_or_else(String::new, |it| {
            format!(
                "{:24} {:26} {}",
                shown(it.mean_ms, 0),
                shown(it.p99_ms, 0),
                shown(it.failed_percent, 2)
            )
        });
        text += &format!(
            "{:24} {:21} {:>8.0} {:>8.0} {:>8.2}   {}\n",
            line.scenario, line.algorithm, line.mean_ms, line.p99_ms, line.failed_percent, against
        );
    }
    text
}

/// One request in ten thousand, in percent.
const FAILED_ABOVE_MAX: f64 = 0.01;
