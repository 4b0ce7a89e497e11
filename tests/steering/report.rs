//! Every policy over every way of locating, and the targets they are held against.

use portolan::policy::PathKind;
use serde::Serialize;

use super::location::Location;
use super::replay::{Policy, Regret, Trial};
use super::world::World;

/// One line of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) path: PathKind,
    pub(crate) policy: String,
    /// How many were measured for each choice.
    pub(crate) candidates: usize,
    /// How clients were located.
    pub(crate) location: &'static str,
    pub(crate) mean_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) clients: usize,
    pub(crate) seeds: u64,
}

/// Replays every policy; `seeds` worlds are drawn for each way of locating.
pub(crate) fn lines(
    world: &World,
    locations: &[Location],
    seeds: u64,
) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for location in locations {
        let trials = (1..=seeds).map(|seed| Trial::new(world, location, seed));
        let trials = trials.collect::<anyhow::Result<Vec<_>>>()?;
        let relayed =
            if location.name == "exact" { relayed(world.sites.len() - 1) } else { vec![] };
        let direct = direct().into_iter().map(|it| (PathKind::Direct, it));
        let relayed = relayed.into_iter().map(|it| (PathKind::Relayed, it));
        for (path, policy) in direct.chain(relayed) {
            let regrets = trials.iter().map(|trial| trial.regret(path, &policy));
            let regret = Regret::mean_of(&regrets.collect::<anyhow::Result<Vec<_>>>()?);
            let sites = world.sites.len() - usize::from(path == PathKind::Relayed);
            lines.push(Line {
                path,
                policy: policy.name(),
                candidates: policy.candidates(sites),
                location: location.name,
                mean_ms: hundredths(regret.mean),
                p95_ms: hundredths(regret.p95),
                p99_ms: hundredths(regret.p99),
                clients: world.clients.len(),
                seeds,
            });
        }
    }
    Ok(lines)
}

/// The rounds in which three and five are measured.
pub(crate) const THREE: [usize; 2] = [1, 2];
/// See [`THREE`].
pub(crate) const FIVE: [usize; 2] = [2, 3];

fn direct() -> Vec<Policy> {
    let rounds = [vec![], THREE.to_vec(), FIVE.to_vec()];
    let mut policies: Vec<Policy> = rounds.iter().cloned().map(Policy::Portolan).collect();
    policies.extend(rounds.into_iter().map(Policy::PortolanAlone));
    policies.extend([Policy::Nearest, Policy::TopK(3), Policy::TopK(5), Policy::Catalyst]);
    policies.extend([Policy::GoLivepeer, Policy::GoLivepeerLive]);
    policies
}

fn relayed(others: usize) -> Vec<Policy> {
    let portolan = [vec![], vec![others]].map(Policy::Portolan);
    let rest = [Policy::Nearest, Policy::Catalyst, Policy::GoLivepeer, Policy::GoLivepeerLive];
    portolan.into_iter().chain(rest).collect()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns which targets are missed, on exact places: those of the leaderboard's cities in
/// figures, and on any data to be better than the nearest.
pub(crate) fn missed(world: &World, lines: &[Line]) -> Vec<String> {
    let find = |policy: &str, candidates: usize| {
        lines.iter().find(|it| {
            it.path == PathKind::Direct
                && it.location == "exact"
                && it.policy == policy
                && it.candidates == candidates
        })
    };
    let mut missed = Vec::new();
    let mut at_most = |what: String, found: f64, most: f64| {
        if found > most {
            missed.push(format!("{what} is {found:.2} ms, at most {most:.2} ms is the target"));
        }
    };
    let Some(nearest) = find("nearest", 0) else { return vec!["nearest was not run".to_owned()] };
    for (candidates, mean_ms, p95_ms) in [(0, 8.5, 42.5), (3, 1.3, 8.5), (5, 0.6, 4.0)] {
        let Some(line) = find("portolan", candidates) else { continue };
        let what = |figure: &str| format!("{figure} of portolan with {candidates} measured");
        let limit = |known: f64, figure: f64| match world.is_leaderboard && candidates > 0 {
            true => known,
            false => figure,
        };
        at_most(what("mean"), line.mean_ms, limit(mean_ms, nearest.mean_ms));
        at_most(what("p95"), line.p95_ms, limit(p95_ms, nearest.p95_ms));
        at_most(what("p99"), line.p99_ms, nearest.p99_ms);
    }
    missed
}
