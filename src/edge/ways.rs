//! What this node learned of the ways to its clients, and what it asks them to measure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};

use crate::address::Prefix;
use crate::edge::Gateway;
use crate::edge::locate::Located;
use crate::edge::visit::Visit;
use crate::geo::fibre_floor;
use crate::id::NodeId;
use crate::legs::{Learned, Legs, Refused, Target};
use crate::net::rtt::Seen;
use crate::policy::course::{Entry, Leg, legs};
use crate::score::Evidence;
use crate::unit::Micros;
use crate::view::View;

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

    /// Returns the least round trip a client can have to `target`: light needs so long from
    /// this node, and the client is no farther from here than its round trip says. Where the
    /// client is thought to be does not come into it, since that may be wrong.
    fn floor(&self, view: &View, target: Target, own: Option<Micros>) -> Micros {
        let Some((point, own)) = self.point_of(view, target).zip(own) else { return Micros::ZERO };
        let light = fibre_floor(self.identity.point.distance_m(&point));
        Micros(light.0.saturating_sub(own.0))
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
        let entry = |node: &NodeId| {
            let own = learned.own.filter(|_| *node == self.identity.node);
            Some(Entry {
                node: *node,
                point: self.point_of(view, Target::Node(*node))?,
                measured: own
                    .map(|rtt| (rtt, Evidence::Own))
                    .or_else(|| Some((learned.of(Target::Node(*node))?, Evidence::Cell))),
            })
        };
        let entries: Vec<Entry> = nodes.iter().filter_map(entry).collect();
        legs(&located.caller.place.point, &entries)
    }

    /// Returns what to ask a caller to measure: this node and those of its peers that have a
    /// URL, at most [`SURVEYED_MAX`].
    pub(crate) fn survey(&self, visit: &Visit) -> Survey {
        let params = &visit.params;
        let url = |base: &str| format!("{base}/v1/probe");
        let mut nodes = BTreeMap::from([(self.identity.node, url(&visit.base()))]);
        let peers = params.peer_urls.iter().take(SURVEYED_MAX - 1);
        nodes.extend(peers.map(|(node, base)| (*node, url(base))));
        let expires = Self::wall_s() + TICKET_FOR.as_secs();
        let ticket = self.key.seal_probe(visit.located.group, expires);
        Survey { ticket, expires_s: TICKET_FOR.as_secs(), nodes }
    }
}

/// How long a client may report after it was asked to.
const TICKET_FOR: Duration = Duration::from_secs(300);
/// Nodes a client is asked to measure: a second's work for a browser.
const SURVEYED_MAX: usize = 16;
