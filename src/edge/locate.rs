//! Where a request comes from, and what round trips say of that.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

use crate::address::{Prefix, parse};
use crate::clock;
use crate::edge::Gateway;
use crate::forwarded::client_address;
use crate::geo::{Confidence, Place, Point};
use crate::id::{NodeId, RegionId};
use crate::legs::{Learned, Target};
use crate::listen::connection::Connection;
use crate::policy::placing::{Anchor, placed};
use crate::policy::{Caller, Observed};
use crate::view::View;

/// One connection of a client, or of a proxy before it, with what was found of an address:
/// that is kept for as long as the connection lives, and nowhere else.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub connection: Arc<Connection>,
    known: Mutex<Option<(IpAddr, Instant, Arc<Located>)>>,
}

/// A caller with its home.
#[derive(Debug)]
pub struct Located {
    /// As decisions see it.
    pub caller: Caller,
    /// The region nearest by geography, or by round trips where they disprove it.
    pub home: RegionId,
    /// Its group.
    pub group: Prefix,
}

impl Arrival {
    /// Begins with nothing found.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, known: Mutex::default() }
    }
}

impl Located {
    /// Returns it with less confidence where only a wide network is known.
    #[must_use]
    pub(crate) fn widened(mut self, is_wide: bool) -> Self {
        let place = &mut self.caller.place;
        if is_wide && place.confidence == Confidence::City {
            place.confidence = Confidence::Country;
        }
        self
    }
}

impl Gateway {
    /// Returns the caller of a request that was read at `now`.
    pub fn locate(&self, arrival: &Arrival, headers: &HeaderMap, now: Instant) -> Arc<Located> {
        let ip = self.client_ip(arrival, headers);
        let mut known = arrival.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, at, located)) = known.as_ref()
            && *held == ip
            && now.saturating_duration_since(*at) < LOCATED_FOR
        {
            return Arc::clone(located);
        }
        let located = Arc::new(self.locate_ip(ip));
        *known = Some((ip, now, Arc::clone(&located)));
        located
    }

    /// Returns the address of a client, proxies considered. It is not to be kept.
    pub(crate) fn client_ip(&self, arrival: &Arrival, headers: &HeaderMap) -> IpAddr {
        let peer = arrival.connection.peer();
        let named = headers.get(NAMED).filter(|_| self.may_name_clients(peer));
        let named = named.and_then(|value| parse(value.to_str().ok()?));
        named.unwrap_or_else(|| client_address(peer, headers, &self.params.load().proxies).ip)
    }

    /// Returns the caller at an address; this node's own region where nothing is known.
    pub fn locate_ip(&self, ip: IpAddr) -> Located {
        let here =
            Place { point: self.identity.point, country: None, confidence: Confidence::Unknown };
        let place = self.shared.geo.lookup(ip).place.unwrap_or(here);
        let (view, group) = (self.shared.view.load(), Prefix::of(ip));
        let learned = self.ways.learned(clock::now(), group);
        let place = placed(place, &self.anchors(&view, &learned), &view.atlas.points);
        // What its own clients saw. What a peer tells moves the place, and is no measurement.
        let observed = learned.reported.iter().filter_map(|(target, rtt)| match target {
            Target::Orchestrator(id) => Some(Observed { orchestrator: *id, rtt: *rtt }),
            Target::Node(_) => None,
        });
        let cell = view.atlas.cell(&place);
        let home = view.atlas.name(cell.region());
        let caller = Caller { place, cell, observed: observed.collect() };
        Located { caller, home, group }
    }

    /// Returns the round trips of a group to points that are known.
    fn anchors(&self, view: &View, learned: &Learned) -> Vec<Anchor> {
        let own = learned.own.map(|rtt| (self.identity.point, rtt));
        let here = Target::Node(self.identity.node);
        let others = learned.others().filter(|(target, _rtt)| own.is_none() || *target != here);
        let others = others.filter_map(|(target, rtt)| Some((self.point_of(view, target)?, rtt)));
        // This node knows its own way best.
        own.into_iter().chain(others).collect()
    }

    /// Returns where one end of a way is, where that is known.
    pub(crate) fn point_of(&self, view: &View, target: Target) -> Option<Point> {
        match target {
            Target::Node(node) if node == self.identity.node => Some(self.identity.point),
            Target::Node(node) => self.point_of_peer(view, node),
            Target::Orchestrator(id) => view.orchestrator(id)?.1.point,
        }
    }

    fn point_of_peer(&self, view: &View, node: NodeId) -> Option<Point> {
        let peers = self.shared.peers.load();
        let region = peers.rows.iter().find(|it| it.node == node)?.region?;
        let number = view.atlas.names.iter().position(|it| *it == region)?;
        Some(view.atlas.points[number])
    }
}

/// How long a connection's place is taken as found: what its group reports meanwhile counts
/// from then on.
const LOCATED_FOR: Duration = Duration::from_secs(10);
/// The header with which a caller the configuration allows names a client's address.
pub const NAMED: HeaderName = HeaderName::from_static("portolan-client-ip");
