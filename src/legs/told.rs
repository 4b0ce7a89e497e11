//! What nodes tell each other of ways to groups of clients, and when.

use std::collections::{BTreeMap, HashMap};
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

/// What peers said of the ways of groups. No peer can push out what others said of a group, nor
/// fill the table faster than honest ones do; rows not heard of for as long as it takes to fill
/// half of it are forgotten.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    young: HashMap<Prefix, Told>,
    old: HashMap<Prefix, Told>,
    /// What each peer said since its minute began; at most as many as there are peers.
    rates: BTreeMap<NodeId, (Instant, u32)>,
}

/// What peers said of one group's ways, each peer of each place once; at most [`TOLD_MAX`].
#[derive(Clone, Debug, Default)]
struct Told(Vec<Said>);

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

impl Hearsay {
    fn take(&mut self, now: Instant, by: NodeId, way: &Way) -> bool {
        if !self.is_in_time(now, by) {
            return false;
        }
        if !self.young.contains_key(&way.group) {
            if self.young.len() >= TOLD_ROWS_MAX / 2 {
                self.old = std::mem::take(&mut self.young);
            }
            let told = self.old.remove(&way.group).unwrap_or_default();
            self.young.insert(way.group, told);
        }
        self.young.entry(way.group).or_default().take(now, by, way.to, way.rtt)
    }

    /// Whether a peer says no more than an honest one does.
    fn is_in_time(&mut self, now: Instant, by: NodeId) -> bool {
        if !self.rates.contains_key(&by) && self.rates.len() >= PEERS_MAX {
            self.rates.clear();
        }
        let (since, n) = self.rates.entry(by).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= AGAIN {
            (*since, *n) = (now, 0);
        }
        *n += 1;
        *n <= TOLD_A_MINUTE
    }

    pub(super) fn medians(&self, now: Instant, group: Prefix) -> Vec<(Target, Micros)> {
        let told = self.young.get(&group).or_else(|| self.old.get(&group));
        told.map_or_else(Vec::new, |it| it.medians(now))
    }
}

impl Told {
    /// Takes what `by` says: in place of what it said before, or of its own oldest word when
    /// it has said enough; never of another's.
    fn take(&mut self, now: Instant, by: NodeId, to: Target, rtt: Micros) -> bool {
        self.0.retain(|it| (it.to, it.by) != (to, by));
        let n_own = self.0.iter().filter(|it| it.by == by).count();
        if n_own >= TOLD_BY_ONE
            && let Some(at) = self.0.iter().position(|it| it.by == by)
        {
            self.0.remove(at);
        }
        if self.0.len() >= TOLD_MAX {
            return false;
        }
        self.0.push(Said { to, by, rtt, at: now });
        true
    }

    /// Returns the median for each place, in order.
    fn medians(&self, now: Instant) -> Vec<(Target, Micros)> {
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
        self.told.take(now, by, way)
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

/// What peers said of one group: eight of them of eight places each.
pub const TOLD_MAX: usize = 64;
/// What one peer said of one group.
pub const TOLD_BY_ONE: usize = 8;
/// What one peer may say in a minute: twice what a node says at most.
pub const TOLD_A_MINUTE: u32 = 2 * 12 * 128;
/// The most groups that peers told of, the rarest half of which is forgotten when it is full.
pub const TOLD_ROWS_MAX: usize = 32_768;
/// More peers than the largest mesh has; with one more all are counted anew.
const PEERS_MAX: usize = 1024;
/// Peers are told of a group at most this often.
pub const AGAIN: Duration = Duration::from_secs(60);
/// The most groups that wait to be told of.
pub const FRESH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::clock;

    fn peer(number: usize) -> NodeId {
        format!("n-{number}").parse().unwrap()
    }

    fn group(number: usize) -> Prefix {
        Prefix::of(IpAddr::V4(Ipv4Addr::from_bits((number as u32) << 8)))
    }

    fn way(number: usize) -> Way {
        Way { group: group(number), to: Target::Node(peer(0)), rtt: Micros::from_ms(9) }
    }

    #[test]
    fn what_is_told_of_so_many_groups_is_kept_and_the_rarest_half_forgotten() {
        let (mut hearsay, now) = (Hearsay::default(), clock::now());
        let tell = |hearsay: &mut Hearsay, number: usize| {
            // Each peer says what one may in a minute.
            let by = peer(number / TOLD_A_MINUTE as usize);
            assert!(hearsay.take(now, by, &way(number)));
        };
        let is_told = |hearsay: &Hearsay, number| !hearsay.medians(now, group(number)).is_empty();
        (0..TOLD_ROWS_MAX).for_each(|number| tell(&mut hearsay, number));
        assert!((0..TOLD_ROWS_MAX).all(|number| is_told(&hearsay, number)));
        tell(&mut hearsay, TOLD_ROWS_MAX);
        let half = TOLD_ROWS_MAX / 2;
        assert_eq!(hearsay.young.len() + hearsay.old.len(), half + 1);
        assert!((0..half).all(|number| !is_told(&hearsay, number)), "not heard of for longest");
        assert!((half..=TOLD_ROWS_MAX).all(|number| is_told(&hearsay, number)));
    }

    #[test]
    fn so_many_peers_are_counted_and_with_one_more_all_anew() {
        let (mut hearsay, now) = (Hearsay::default(), clock::now());
        while hearsay.is_in_time(now, peer(0)) {}
        for number in 1..PEERS_MAX {
            assert!(hearsay.is_in_time(now, peer(number)));
        }
        assert!(!hearsay.is_in_time(now, peer(0)), "it has said enough for now");
        assert_eq!(hearsay.rates.len(), PEERS_MAX);
        assert!(hearsay.is_in_time(now, peer(PEERS_MAX)));
        assert_eq!(hearsay.rates.len(), 1);
    }
}
