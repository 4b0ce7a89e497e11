//! What happens to nine nodes in ten minutes on a rough sea, and how soon each of them knows.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portolan::mesh::{LinkEnd, Membership, Standing};

use super::player::Way;
use super::sea::{Sea, Waters, ms};

/// What was found in one seed or in several. Times are in milliseconds, one of every node that
/// had to notice; [`NEVER`] for one that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Until one that refuses connections is avoided,
    pub(crate) refused: Vec<u64>,
    /// one that breaks requests off while it answers checks,
    pub(crate) reset: Vec<u64>,
    /// and one of which nothing is heard any more.
    pub(crate) silent: Vec<u64>,
    /// Until a peer that froze counts as down.
    pub(crate) frozen: Vec<u64>,
    /// Until a mesh that fell in two is whole.
    pub(crate) healed: Vec<u64>,
    /// Nodes that avoided an orchestrator which was well for them.
    pub(crate) n_persuaded: u64,
    /// Links lost and members held for down that were neither frozen nor cut off.
    pub(crate) n_false_downs: u64,
    /// Virtual seconds played.
    pub(crate) seconds: u64,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.reset.extend(other.reset);
        self.silent.extend(other.silent);
        self.frozen.extend(other.frozen);
        self.healed.extend(other.healed);
        self.n_persuaded += other.n_persuaded;
        self.n_false_downs += other.n_false_downs;
        self.seconds += other.seconds;
    }
}

/// Plays every seed twice, without and with faults, on all cores; returns what was found in
/// each, by seed, and in all of them.
pub(crate) fn play_all(
    seeds: Range<u64>,
    minutes: u64,
    loss_permille: u64,
) -> (Vec<(u64, Found)>, Found) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let mut of_seed = calm(seed, minutes, loss_permille);
            of_seed.add(rough(seed, minutes, loss_permille));
            found.lock().unwrap_or_else(PoisonError::into_inner).push((seed, of_seed));
        }
    };
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..n_cores {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(seed, _)| *seed);
    let mut all = Found::default();
    found.iter().for_each(|(_, it)| all.add(it.clone()));
    (found, all)
}

fn whole(seed: u64, n_orchestrators: usize, loss_permille: u64) -> Sea {
    let mut sea = Sea::new(Waters { n_nodes: N_NODES, n_orchestrators, loss_permille, seed });
    assert!(sea.until_whole(ms(60_000)).is_some(), "seed {seed}: the nodes did not find another");
    sea.run(ms(6_000));
    sea.nodes.iter_mut().for_each(|node| node.lost.clear());
    sea
}

/// Nothing happens but loss.
pub(crate) fn calm(seed: u64, minutes: u64, loss_permille: u64) -> Found {
    let mut sea = whole(seed, 1, loss_permille);
    let mut found = Found::default();
    for _ in 0..minutes * 60 {
        pass(&mut sea, &mut found, ms(1_000), 0, |_, _| false);
    }
    found
}

/// Faults of every kind one after the other, each time of other orchestrators and nodes.
pub(crate) fn rough(seed: u64, minutes: u64, loss_permille: u64) -> Found {
    let n_rounds = (minutes * 60 / ROUND_S).max(1);
    let mut sea = whole(seed, n_rounds as usize * FAULTY + 1, loss_permille);
    let mut found = Found::default();
    for round in 0..n_rounds {
        let first = round as usize * FAULTY;
        let refused = fail(&mut sea, &mut found, first, Way::Refused);
        let reset = fail(&mut sea, &mut found, first + 1, Way::Reset);
        let silent = fail(&mut sea, &mut found, first + 2, Way::Silent);
        found.refused.extend(refused);
        found.reset.extend(reset);
        found.silent.extend(silent);
        break_one_link(&mut sea, &mut found, first + 3, (seed + round) as usize % N_NODES);
        let frozen = (seed + round * 2) as usize % N_NODES;
        freeze(&mut sea, &mut found, first + FAULTY, frozen);
        part(&mut sea, &mut found, first + FAULTY);
    }
    found
}

/// Lets time pass, in which only the first `n_faulty` orchestrators may be avoided, being
/// broken or lately broken, and only some nodes be lost to each other.
fn pass(
    sea: &mut Sea,
    found: &mut Found,
    duration: Duration,
    n_faulty: usize,
    apart: impl Fn(usize, usize) -> bool,
) {
    sea.run(duration);
    found.seconds += duration.as_secs();
    let n_nodes = sea.nodes.len();
    for at in 0..n_nodes {
        let node = &mut sea.nodes[at];
        let lost = node.lost.drain(..);
        let lost = lost.filter(|(by, _, end)| !apart(at, *by) && *end != LinkEnd::Closed).count();
        let rows = node.mesh.peers().rows;
        let held = |it: usize| rows.iter().find(|row| row.node == super::sea::name(it));
        let down = |it: usize| held(it).and_then(|it| it.membership) == Some(Membership::Down);
        let down = (0..n_nodes).filter(|&it| it != at && !apart(at, it) && down(it)).count();
        found.n_false_downs += (lost + down) as u64;
        let wrong = node.player.held.iter_mut().skip(n_faulty);
        found.n_persuaded += wrong.filter_map(|it| it.first_avoided_at.take()).count() as u64;
    }
}

/// Breaks one orchestrator for everybody for a while; returns how soon each node avoided it.
fn fail(sea: &mut Sea, found: &mut Found, which: usize, way: Way) -> Vec<u64> {
    let from = sea.instant();
    sea.nodes.iter_mut().for_each(|it| it.player.held[which].way = way);
    pass(sea, found, FAULT, which + 1, |_, _| false);
    let avoided = sea.nodes.iter_mut().map(|it| it.player.held[which].first_avoided_at.take());
    let took = |at: std::time::Instant| at.saturating_duration_since(from).as_millis() as u64;
    let times = avoided.map(|it| it.map_or(NEVER, took)).collect();
    sea.nodes.iter_mut().for_each(|it| it.player.held[which].way = Way::Well);
    recover(sea, found, which);
    times
}

fn recover(sea: &mut Sea, found: &mut Found, which: usize) {
    pass(sea, found, RECOVERY, which + 1, |_, _| false);
    sea.nodes.iter_mut().for_each(|it| it.player.held[which].first_avoided_at = None);
}

/// Breaks the way of one node to one orchestrator: nobody else may avoid it.
fn break_one_link(sea: &mut Sea, found: &mut Found, which: usize, node: usize) {
    sea.nodes[node].player.held[which].way = Way::Refused;
    pass(sea, found, ms(1_000), which + 1, |_, _| false);
    for _ in 0..FAULT.as_secs() {
        pass(sea, found, ms(1_000), which + 1, |_, _| false);
        let others = sea.nodes.iter_mut().enumerate().filter(|(at, _)| *at != node);
        let avoided = others.filter_map(|(_, it)| it.player.held[which].first_avoided_at.take());
        found.n_persuaded += avoided.count() as u64;
    }
    sea.nodes[node].player.held[which].way = Way::Well;
    recover(sea, found, which);
}

/// Freezes a node for a while and notes when each other holds it for down.
fn freeze(sea: &mut Sea, found: &mut Found, n_faulty: usize, which: usize) {
    let of_it = |a: usize, b: usize| a == which || b == which;
    let name = sea.nodes[which].name;
    let mut took: Vec<Option<u64>> = vec![None; sea.nodes.len()];
    sea.freeze(which);
    for step in 1..=FROZEN_FOR.as_millis() as u64 / LOOK_MS {
        pass(sea, found, ms(LOOK_MS), n_faulty, of_it);
        for (at, node) in sea.nodes.iter().enumerate() {
            let row = node.mesh.peers().row(name).cloned();
            if row.is_some_and(|it| it.standing == Standing::Down) {
                took[at].get_or_insert(step * LOOK_MS);
            }
        }
    }
    let others = took.into_iter().enumerate().filter(|(at, _)| *at != which);
    found.frozen.extend(others.map(|(_, it)| it.unwrap_or(NEVER)));
    found.seconds += FROZEN_FOR.as_secs();
    sea.thaw(which);
    for _ in 0..RECOVERY.as_secs() {
        pass(sea, found, ms(1_000), n_faulty, of_it);
    }
}

/// Cuts the mesh in two for a minute and notes when it is whole again.
fn part(sea: &mut Sea, found: &mut Found, n_faulty: usize) {
    let apart = |a: usize, b: usize| (a < N_FIRST) != (b < N_FIRST);
    sea.part(N_FIRST);
    pass(sea, found, ms(60_000), n_faulty, apart);
    sea.part(0);
    let from = sea.now;
    let whole_at = loop {
        let waited = (sea.now - from) / 1_000;
        if sea.is_whole() || waited >= HEAL_WITHIN_MS * 2 {
            break if sea.is_whole() { waited } else { NEVER };
        }
        pass(sea, found, ms(100), n_faulty, apart);
    };
    found.healed.push(whole_at);
    pass(sea, found, ms(5_000), n_faulty, apart);
}

/// What took longer than it was looked at.
pub(crate) const NEVER: u64 = u64::MAX;
/// Within this a mesh that fell in two is whole again.
pub(crate) const HEAL_WITHIN_MS: u64 = 30_000;
const N_NODES: usize = 9;
/// How many of them a cut leaves on one side.
const N_FIRST: usize = 4;
/// Orchestrators that fail in one round.
const FAULTY: usize = 4;
/// How long one does,
const FAULT: Duration = Duration::from_secs(20);
/// and how long it takes until it is forgotten.
const RECOVERY: Duration = Duration::from_secs(20);
/// How long a node stays frozen,
const FROZEN_FOR: Duration = Duration::from_secs(12);
/// and how often the others are looked at meanwhile.
const LOOK_MS: u64 = 50;
/// About how long a round takes: four faults with their recoveries, a frozen node, a cut.
const ROUND_S: u64 = 290;
