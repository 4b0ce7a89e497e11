//! What this node learned of the ways to its clients, and what it asks them to measure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};

use crate::address::Prefix;
use crate::edge::locate::Located;
use crate::edge::visit::Visit;
use crate::edge::{Gateway, Params};
use crate::id::NodeId;
use crate::legs::{Learned, Legs, Refused, Target, Way};
use crate::mesh::{PeerRow, Standing};
use crate::net::rtt::Seen;
use crate::policy::course::{Entry, Leg, floor, legs};
use crate::policy::entrance::surveyed;
use crate::policy::placing::disproves;
use crate::unit::Micros;
use crate::view::View;
use crate::wire::MAX_WAYS;

/// The table behind its lock, which is held for a look and never across a wait.
#[derive(Debug, Default)]
pub struct Ways(Mutex<Legs>);

/// What a client is asked to measure, and how it may tell.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Survey {
    /// Goes with the report.
    pub ticket: String,
    /// For so many seconds.
    pub expires_s: u64,
    /// Where reports go, and what to measure: a GET of each answers at once, with nothing.
    pub nodes: BTreeMap<NodeId, String>,
}

impl Ways {
    /// Returns what is known of a group.
    pub(crate) fn learned(&self, now: Instant, group: Prefix) -> Learned {
        self.lock().learned(now, group)
    }

    fn lock(&self) -> MutexGuard<'_, Legs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Takes round trips of connections as the kernel saw them. Of a proxy it is the proxy's
    /// and says nothing of the client behind it.
    pub fn note_ways(&self, now: Instant, seen: &[Seen]) {
        let params = self.params.load();
        let is_client =
            |it: &&Seen| !params.proxies.trusts(it.peer) && !self.may_name_clients(it.peer);
        let named: Vec<(Prefix, u64, Micros)> = (seen.iter().filter(is_client))
            .map(|it| (Prefix::of(it.peer), self.key.client(it.peer), it.rtt))
            .collect();
        let mut table = self.ways.lock();
        for (group, client, rtt) in named {
            table.handle_own(now, group, client, rtt);
        }
        gauge!("portolan_client_groups").set(table.len() as f64);
    }

    /// Takes what a peer says its clients' ways are.
    pub fn note_told(&self, now: Instant, peer: NodeId, ways: &[Way]) {
        let view = self.shared.view.load();
        let floor = |way: &Way| self.floor(&view, way.to, self.ways.learned(now, way.group).own);
        let floors: Vec<Micros> = ways.iter().map(floor).collect();
        let mut table = self.ways.lock();
        let take = |(way, floor): (&Way, &Micros)| table.handle_told(now, peer, way, *floor);
        let n_taken = ways.iter().zip(&floors).map(take).filter(|taken| *taken).count();
        drop(table);
        counter!("portolan_ways_told_total", "result" => "taken").increment(n_taken as u64);
        let n_refused = (ways.len() - n_taken) as u64;
        counter!("portolan_ways_told_total", "result" => "refused").increment(n_refused);
    }

    /// Returns what peers should know of groups that are not where the address database says,
    /// at most [`MAX_WAYS`] ways.
    pub fn fresh_ways(&self, now: Instant) -> Vec<Way> {
        let view = self.shared.view.load();
        let news = self.ways.lock().take_fresh(now, FRESH_GROUPS);
        let moved = news.into_iter().filter(|it| {
            let place = self.shared.geo.lookup(it.group.network()).place;
            let point = |way: Way| Some((self.point_of(&view, way.to)?, way.rtt));
            let anchors: Vec<_> = it.ways(self.identity.node).filter_map(point).collect();
            // Where nothing is known of a place, the ways are all there is.
            place.is_none_or(|place| disproves(&place, &anchors, &view.atlas.points))
        });
        let ways = moved.flat_map(|it| it.ways(self.identity.node).collect::<Vec<_>>());
        ways.take(MAX_WAYS).collect()
    }

    /// Takes what one client saw, and says of each what became of it.
    pub(crate) fn note_reports(
        &self,
        now: Instant,
        ip: IpAddr,
        seen: &[(Target, Micros)],
    ) -> Vec<Result<(), Refused>> {
        let (view, group, client) = (self.shared.view.load(), Prefix::of(ip), self.key.client(ip));
        let own = self.ways.learned(now, group).own;
        let floors: Vec<Micros> =
            seen.iter().map(|(target, _rtt)| self.floor(&view, *target, own)).collect();
        let mut table = self.ways.lock();
        let take = |(seen, floor): (&(Target, Micros), &Micros)| {
            table.handle_report(now, group, client, *seen, *floor)
        };
        let taken: Vec<Result<(), Refused>> = seen.iter().zip(&floors).map(take).collect();
        for taken in &taken {
            let result = match taken {
                Ok(()) => "taken",
                Err(Refused::Implausible) => "implausible",
                Err(Refused::TooFast) => "too-fast",
                Err(Refused::TooMany) => "too-many",
                Err(Refused::TooManyTargets) => "too-many-targets",
            };
            counter!("portolan_observations_total", "result" => result).increment(1);
        }
        taken
    }

    /// Returns what a client's word on the way to `target` is held against: the least round trip
    /// it can have, or none where too little is known.
    fn floor(&self, view: &View, target: Target, own: Option<Micros>) -> Micros {
        let known = self.point_of(view, target).zip(own);
        known.map_or(Micros::ZERO, |(to, own)| floor(&self.identity.point, &to, own))
    }

    /// Returns the ways of a caller to `nodes`; whoever is placed nowhere is left out.
    pub(crate) fn legs_of(
        &self,
        now: Instant,
        located: &Located,
        view: &View,
        nodes: &[NodeId],
    ) -> Vec<Leg> {
        let learned = self.ways.learned(now, located.group);
        let here = self.identity.node;
        let entry = |node: &NodeId| {
            let point = self.point_of(view, Target::Node(*node))?;
            Some(Entry { node: *node, point, measured: learned.best(*node, here) })
        };
        let entries: Vec<Entry> = nodes.iter().filter_map(entry).collect();
        legs(&located.caller.place.point, &entries)
    }

    /// Returns what to ask a caller to measure: this node and those of its peers that have a
    /// URL, as [`surveyed`] takes them.
    pub(crate) fn survey(&self, visit: &Visit) -> Survey {
        let (base, rows) = (visit.base(), self.shared.peers.load());
        let named = visit.params.peer_urls.iter().map(|(node, base)| (*node, base.as_str()));
        let learned = rows.rows.iter().filter(|it| it.standing == Standing::Up);
        let learned = learned.filter_map(|it| Some((it.node, url_of(&visit.params, it)?)));
        let own = std::iter::once((self.identity.node, base.as_str()));
        let nodes = surveyed(own.chain(named).chain(learned)).into_iter();
        let nodes = nodes.map(|(node, base)| (node, format!("{base}/v1/probe"))).collect();
        let expires = Self::wall_s() + TICKET_FOR.as_secs();
        let ticket = self.key.seal_probe(visit.located.group, expires);
        Survey { ticket, expires_s: TICKET_FOR.as_secs(), nodes }
    }
}

/// Returns how clients reach a peer: as the configuration says, or else as it says itself.
pub(crate) fn url_of<'a>(params: &'a Params, peer: &'a PeerRow) -> Option<&'a str> {
    let named = params.peer_urls.get(&peer.node).map(String::as_str);
    named.or_else(|| peer.about.as_ref()?.url.as_deref())
}

/// How long a client may report after it was asked to.
const TICKET_FOR: Duration = Duration::from_secs(300);
/// Groups looked at in one go, each with a few ways.
const FRESH_GROUPS: usize = 64;
