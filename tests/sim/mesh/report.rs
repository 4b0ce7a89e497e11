//! What the mesh claims, measured over many seeds, beside the bar of each figure. Run by
//! `scripts/mesh-report`.

use super::fleet::{self, Size};
use super::story::{self, HEAL_WITHIN_MS, NEVER};

/// One line of the table.
struct Line {
    what: String,
    figures: String,
    bar: String,
    met: bool,
}

impl Line {
    /// Times in milliseconds, the `permille` smallest of which lie within `bar`.
    fn times(what: &str, all: &[u64], permille: usize, bar: u64) -> Self {
        let [p50, p99, most] = [500, 990, 1000].map(|it| quantile(all, it));
        let shown = |it: u64| if it == NEVER { "never".to_owned() } else { it.to_string() };
        let of = if permille == 1000 { "max" } else { "p99" };
        Self {
            what: format!("{what} (n = {})", all.len()),
            figures: format!("p50 {}, p99 {}, max {} ms", shown(p50), shown(p99), shown(most)),
            bar: if bar == NEVER { "none".to_owned() } else { format!("{of} {bar} ms") },
            met: !all.is_empty() && quantile(all, permille) <= bar,
        }
    }

    fn count(what: String, n: u64) -> Self {
        Self { what, figures: n.to_string(), bar: "none".to_owned(), met: n == 0 }
    }
}

fn print(lines: &[Line]) {
    for Line { what, figures, bar, met } in lines {
        eprintln!("{} {what:<62} {figures:<40} {bar}", if *met { "  " } else { "! " });
    }
}

/// With `MESH_CHECK` in the environment a bar that is missed fails.
fn conclude(lines: &[Line]) {
    let missed: Vec<&str> = lines.iter().filter(|it| !it.met).map(|it| &*it.what).collect();
    let checks = std::env::var_os("MESH_CHECK").is_some();
    assert!(!checks || missed.is_empty(), "missed: {}", missed.join("; "));
}

fn quantile(all: &[u64], permille: usize) -> u64 {
    let mut all = all.to_vec();
    all.sort_unstable();
    let at = (all.len() * permille / 1000).min(all.len().saturating_sub(1));
    all.get(at).copied().unwrap_or(0)
}

fn lines(found: &story::Found, permille: usize) -> Vec<Line> {
    vec![
        Line::times("one that refuses is avoided by each node", &found.refused, permille, 1_000),
        Line::times("one that resets requests is", &found.reset, permille, 1_000),
        Line::times("a silent one is", &found.silent, 1000, SILENT_WITHIN_MS),
        Line::times("a frozen peer is noticed", &found.frozen, 1000, 3_000),
        Line::times("a mesh in two is whole again", &found.healed, 1000, HEAL_WITHIN_MS),
        Line::count("nodes persuaded by one broken link".to_owned(), found.n_persuaded),
        Line::count(format!("false downs in {} s", found.seconds), found.n_false_downs),
    ]
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

#[test]
#[ignore = "minutes long: run by scripts/mesh-report"]
fn faults() {
    let first = number("SIM_SEED", 1);
    let seeds = first..first + number("SIM_SEEDS", 20);
    let minutes = number("SIM_MINUTES", 10);
    eprintln!("nine nodes up to 150 ms apart, 5 % loss, {minutes} minutes without and with faults");
    let (by_seed, all) = story::play_all(seeds, minutes, 50);
    for (seed, found) in &by_seed {
        for it in lines(found, 1000).iter().filter(|it| !it.met) {
            eprintln!("seed {seed}: {}: {} ({})", it.what, it.figures, it.bar);
        }
    }
    let lines = lines(&all, 990);
    print(&lines);
    conclude(&lines);
}

#[test]
#[ignore = "minutes long: run by scripts/mesh-report"]
fn bytes() {
    let quick = std::env::var_os("MESH_QUICK").is_some();
    let mut lines = Vec::new();
    for (n_nodes, loss_permille, bytes_max, in_use_max, others_every_ms) in [
        (30, 1, 100_000, 500, ALL_CHECKED_MS),
        (30, 20, 100_000, 1_500, ALL_CHECKED_MS),
        // As often as 200 checks a second go: more to tell than there are bytes.
        (30, 1, 100_000, 500, ALL_CHECKED_MS / 6),
        // Other regions are told once a second there.
        (300, 1, 200_000, NEVER, ALL_CHECKED_MS),
        (300, 20, 200_000, NEVER, ALL_CHECKED_MS),
    ] {
        let only = std::env::var("MESH_ONLY").is_ok_and(|it| it != n_nodes.to_string());
        if only || quick && n_nodes > 30 {
            continue;
        }
        let keeps_one_of = if n_nodes > 30 { 30 } else { 5 };
        // At first all is told of all, which takes its time within the budget.
        let (settle_s, count_s) = if n_nodes > 30 { (40, 10) } else { (60, 30) };
        let n_orchestrators = 10_000;
        let size = Size {
            n_nodes,
            n_regions: if n_nodes > 30 { 10 } else { 1 },
            n_orchestrators,
            settle_s,
            count_s,
            loss_permille,
            in_use_every_ms: 5_000,
            others_every_ms,
            keeps_one_of,
        };
        let found = fleet::play(size, 1);
        let busy = others_every_ms < ALL_CHECKED_MS;
        let rush = if busy { ", six times as much news" } else { "" };
        let others_max = if busy { NEVER } else { 10_000 };
        let (percent, tenths) = (loss_permille / 10, loss_permille % 10);
        let what = format!("{n_nodes} x 10,000 at {percent}.{tenths} %{rush}");
        eprintln!("{what}: {:?}, own account {}", found.bytes, found.charged_most);
        lines.push(Line {
            what: format!("{what}: bytes a second of a node"),
            figures: format!("mean {}, max {}", found.bytes.sum(), found.bytes_most),
            bar: format!("max {bytes_max}"),
            met: found.bytes_most <= bytes_max,
        });
        let in_use = format!("{what}: rows in use arrive");
        lines.push(Line::times(&in_use, &found.in_use, 990, in_use_max));
        lines.push(Line::times(&format!("{what}: other rows"), &found.others, 990, others_max));
        lines.push(Line::count(format!("{what}: records asked for again"), found.n_pulls));
        print(&lines[lines.len() - 4..]);
    }
    conclude(&lines);
}

#[test]
fn a_small_mesh_keeps_to_its_budget_and_tells_in_time() {
    let (n_nodes, n_orchestrators) = (9, 300);
    let small = Size {
        n_nodes,
        n_regions: 1,
        n_orchestrators,
        settle_s: 8,
        count_s: 8,
        loss_permille: 0,
        in_use_every_ms: 5_000,
        others_every_ms: 50_000,
        keeps_one_of: 1,
    };
    let found = fleet::play(small, 1);
    assert!(found.bytes_most < 100_000 && found.charged_most < 100_000, "{found:?}");
    assert!(!found.in_use.is_empty());
    assert!(quantile(&found.in_use, 990) <= 500, "{:?}", found.in_use);
    assert!(found.n_pulls == 0, "nothing was lost, so nothing is asked for again");
}

/// Every orchestrator is checked at least this often.
const ALL_CHECKED_MS: u64 = 300_000;
/// Two intervals between checks and a second.
const SILENT_WITHIN_MS: u64 = 2 * super::player::CHECK_EVERY.as_millis() as u64 + 1_000;
