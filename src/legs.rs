//! What is learned of the way to groups of clients: what this node measures of their
//! connections, and what they report of other ways.
//!
//! A group is a [`Prefix`]; addresses are not kept. A report is believed when three clients
//! of a group agree, this node's own measurement at once; what peers tell, by [`told`], comes
//! after both. Everything is bounded: rows, ways of a row, voices of a way, reports of a group
//! in a minute.

mod reports;
pub mod told;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::address::Prefix;
use crate::id::{NodeId, OrchestratorId};
use crate::score::Evidence;
use crate::unit::Micros;
use reports::Reports;
use told::Hearsay;
pub use told::{News, Way};

/// One end of a way whose other end is a group of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A node of the mesh.
    Node(NodeId),
    /// An orchestrator.
    Orchestrator(OrchestratorId),
}

/// Why a report is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No round trip of any network.
    #[error("a round trip is above 0 and at most {MAX_MS} ms")]
    Implausible,
    /// Faster than light in fibre.
    #[error("this is faster than light in fibre from where this network is")]
    TooFast,
    /// The group reported enough for now.
    #[error("this network has reported enough for now; try again in a minute")]
    TooMany,
    /// The row has no room for another way.
    #[error("too many different nodes and orchestrators were reported by this network")]
    TooManyTargets,
}

/// What is known of one group's ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The round trip to this node, as it measured it.
    pub own: Option<Micros>,
    /// The median of what at least [`AGREE`] of its clients saw, in order of the target.
    pub reported: Vec<(Target, Micros)>,
    /// The median of what peers tell, in order of the target.
    pub told: Vec<(Target, Micros)>,
}

/// The table. Rows nothing was learned of for as long as it takes to fill half of it, with rows
/// or with ways, are forgotten.
#[derive(Debug, Default)]
pub struct Legs {
    young: HashMap<Prefix, Row>,
    old: HashMap<Prefix, Row>,
    n_ways: usize,
    /// What peers tell, apart: they can fill nothing but this.
    told: Hearsay,
    /// Groups of which something was learned since peers were last told of them.
    fresh: VecDeque<Prefix>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    own: Reports,
    reported: Vec<(Target, Reports)>,
    /// When it last became fresh.
    fresh_at: Option<Instant>,
    /// Reports taken since the minute began.
    taken: u32,
    minute: Option<Instant>,
}

impl Legs {
    /// Takes this node's own measurement of the way to one client of a group.
    pub fn handle_own(&mut self, now: Instant, group: Prefix, client: u64, rtt: Micros) {
        if Way::is_plausible(rtt) {
            self.row(group).own.take(now, client, rtt);
            self.note_fresh(now, group);
        }
    }

    /// Takes the round trip one client saw; `floor` is the least physics allows.
    pub fn handle_report(
        &mut self,
        now: Instant,
        group: Prefix,
        client: u64,
        (target, rtt): (Target, Micros),
        floor: Micros,
    ) -> Result<(), Refused> {
        if !Way::is_plausible(rtt) {
            return Err(Refused::Implausible);
        }
        if rtt < floor {
            return Err(Refused::TooFast);
        }
        let row = self.row(group);
        if row.minute.is_none_or(|it| now.saturating_duration_since(it) >= MINUTE) {
            (row.minute, row.taken) = (Some(now), 0);
        }
        if row.taken >= REPORTS_A_MINUTE {
            return Err(Refused::TooMany);
        }
        row.taken += 1;
        match row.reported.binary_search_by_key(&target, |it| it.0) {
            Ok(at) => row.reported[at].1.take(now, client, rtt),
            Err(_) if row.reported.len() >= TARGETS_MAX => return Err(Refused::TooManyTargets),
            Err(at) => {
                let mut reports = Reports::default();
                reports.take(now, client, rtt);
                row.reported.insert(at, (target, reports));
                self.n_ways += 1;
            }
        }
        self.note_fresh(now, group);
        Ok(())
    }

    /// Returns what is known of a group.
    pub fn learned(&self, now: Instant, group: Prefix) -> Learned {
        let told = self.told.medians(now, group);
        let Some(row) = self.young.get(&group).or_else(|| self.old.get(&group)) else {
            return Learned { told, ..Learned::default() };
        };
        let median = |(target, reports): &(Target, Reports)| {
            Some((*target, reports.median(now, KEPT_FOR, AGREE)?))
        };
        Learned {
            own: row.own.median(now, KEPT_FOR, 1),
            reported: row.reported.iter().filter_map(median).collect(),
            told,
        }
    }

    /// Returns how many groups are known.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Tells whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Returns the row of a group, among the young ones and with room for one way more.
    fn row(&mut self, group: Prefix) -> &mut Row {
        let is_young = self.young.contains_key(&group);
        let is_full = !is_young && self.young.len() >= ROWS_MAX / 2;
        // A row comes over with all its ways, and is given none beyond its own limit.
        if is_full || self.n_ways + TARGETS_MAX > WAYS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.n_ways = 0;
        }
        if !self.young.contains_key(&group) {
            let row = self.old.remove(&group).unwrap_or_default();
            self.n_ways += row.reported.len();
            self.young.insert(group, row);
        }
        self.young.entry(group).or_default()
    }
}

impl Learned {
    /// Returns what the group's clients saw of `target`.
    pub fn of(&self, target: Target) -> Option<Micros> {
        among(&self.reported, target)
    }

    /// Returns what peers tell of `target`.
    pub fn told_of(&self, target: Target) -> Option<Micros> {
        among(&self.told, target)
    }

    /// Returns the way to a node by the best evidence there is, and whose that is; `here` is
    /// this node, whose own measurement comes first.
    pub fn best(&self, node: NodeId, here: NodeId) -> Option<(Micros, Evidence)> {
        let (target, own) = (Target::Node(node), self.own.filter(|_| node == here));
        own.map(|rtt| (rtt, Evidence::Own))
            .or_else(|| Some((self.of(target)?, Evidence::Cell)))
            .or_else(|| Some((self.told_of(target)?, Evidence::Peer)))
    }

    /// Returns all ways but this node's own, each by the best evidence there is.
    pub fn others(&self) -> impl Iterator<Item = (Target, Micros)> {
        let told = self.told.iter().filter(|it| self.of(it.0).is_none());
        self.reported.iter().chain(told).copied()
    }
}

fn among(ways: &[(Target, Micros)], target: Target) -> Option<Micros> {
    let at = ways.binary_search_by_key(&target, |it| it.0).ok()?;
    Some(ways[at].1)
}

/// Clients of one group that have to have seen a way before it is believed: one liar among
/// three moves a median no farther than to another's word.
pub const AGREE: usize = 3;
/// The most groups; with the ways below about 60 MB when every group reports.
pub const ROWS_MAX: usize = 65_536;
/// The most ways of all groups together.
pub const WAYS_MAX: usize = 262_144;
/// The most ways of one group: more than any client is asked to measure.
pub const TARGETS_MAX: usize = 32;
/// Reports of one group taken in a minute: ten clients with six each.
pub const REPORTS_A_MINUTE: u32 = 64;
/// The longest round trip believed, in milliseconds.
pub const MAX_MS: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);
/// Ways change by the hour rather than by the minute, and not by the day.
const KEPT_FOR: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests;
