//! What nodes tell each other of ways to groups of clients, and when.

use std::time::{Duration, Instant};

use super::{AGREE, KEPT_FOR, Legs, MAX_MS, Target};
use crate::address::Prefix;
use crate::id::NodeId;
use crate::unit::Micros;

/// The way between one group of clients and one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The group.
    pub group: Prefix,
    /// The place.
    pub to: Target,
    /// The round trip.
    pub rtt: Micros,
}

/// What this node itself learned of one group, as far as three of its clients agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The group.
    pub group: Prefix,
    /// The round trip to this node, as it measured it.
    pub own: Option<Micros>,
    /// What its clients saw of other places.
    pub reported: Vec<(Target, Micros)>,
}

/// What peers said of one group's ways, each peer of each place once; at most [`TOLD_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Vec<Said>);

#[derive(Clone, Copy, Debug)]
struct Said {
    to: Target,
    by: NodeId,
    rtt: Micros,
    at: Instant,
}

impl Way {
    /// Whether a round trip is one of any network: above 0 and at most [`MAX_MS`].
    pub fn is_plausible(rtt: Micros) -> bool {
        rtt > Micros::ZERO && rtt <= Micros::from_ms(MAX_MS)
    }
}

impl Told {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes what `by` says; the oldest makes room.
    fn take(&mut self, now: Instant, by: NodeId, to: Target, rtt: Micros) {
        self.0.retain(|it| (it.to, it.by) != (to, by));
        if self.0.len() == TOLD_MAX {
            self.0.remove(0);
        }
        self.0.push(Said { to, by, rtt, at: now });
    }

    /// Returns the median for each place, in order.
    pub(super) fn medians(&self, now: Instant) -> Vec<(Target, Micros)> {
        let fresh = |it: &&Said| now.saturating_duration_since(it.at) <= KEPT_FOR;
        let mut said: Vec<(Target, Micros)> =
            self.0.iter().filter(fresh).map(|it| (it.to, it.rtt)).collect();
        said.sort_unstable();
        // As among reports: of an even number the lower one.
        let middle = |of: &[(Target, Micros)]| of[(of.len() - 1) / 2];
        said.chunk_by(|a, b| a.0 == b.0).map(middle).collect()
    }
}

impl Legs {
    /// Takes what a peer tells; `floor` is the least physics allows. Returns whether it was
    /// taken.
    pub fn handle_told(&mut self, now: Instant, by: NodeId, way: &Way, floor: Micros) -> bool {
        if !Way::is_plausible(way.rtt) || way.rtt < floor {
            return false;
        }
        let row = self.row(way.group);
        let before = row.told.len();
        row.told.take(now, by, way.to, way.rtt);
        self.n_ways += self.row(way.group).told.len() - before;
        true
    }

    /// Has peers told of a group, unless they were within [`AGAIN`]. When more groups wait
    /// than [`FRESH_MAX`], this one waits for its next report.
    pub(super) fn note_fresh(&mut self, now: Instant, group: Prefix) {
        let has_room = self.fresh.len() < FRESH_MAX;
        let row = self.row(group);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= AGAIN;
        if has_room && row.fresh_at.is_none_or(is_due) {
            row.fresh_at = Some(now);
            self.fresh.push_back(group);
        }
    }

    /// Returns what was learned of at most `n_groups` groups since it was last asked of them,
    /// those that wait longest first.
    pub fn take_fresh(&mut self, now: Instant, n_groups: usize) -> Vec<News> {
        let n = self.fresh.len().min(n_groups);
        let groups: Vec<Prefix> = self.fresh.drain(..n).collect();
        let news = |group: Prefix| {
            let row = self.young.get(&group).or_else(|| self.old.get(&group))?;
            let median = |(target, reports): &(Target, super::Reports)| {
                Some((*target, reports.median(now, KEPT_FOR, AGREE)?))
            };
            let own = row.own.median(now, KEPT_FOR, AGREE);
            let reported: Vec<_> = row.reported.iter().filter_map(median).collect();
            (own.is_some() || !reported.is_empty()).then_some(News { group, own, reported })
        };
        groups.into_iter().filter_map(news).collect()
    }
}

impl News {
    /// Returns it as ways, this node's own first.
    pub fn ways(&self, here: NodeId) -> impl Iterator<Item = Way> {
        let own = self.own.map(|rtt| (Target::Node(here), rtt));
        let all = own.into_iter().chain(self.reported.iter().copied());
        all.map(|(to, rtt)| Way { group: self.group, to, rtt })
    }
}

/// What peers said of one group: four of them of eight places each.
pub const TOLD_MAX: usize = 32;
/// Peers are told of a group at most this often.
pub const AGAIN: Duration = Duration::from_secs(60);
/// The most groups that wait to be told of.
pub const FRESH_MAX: usize = 4096;
