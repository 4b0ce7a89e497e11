//! The Views of a replay: one orchestrator a site, known as the product would know it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use portolan::health::Observation;
use portolan::id::OrchestratorId;
use portolan::orchestrator::evidence::{Reading, RoundTrips, Told};
use portolan::region::RegionMap;
use portolan::unit::Micros;
use portolan::uri::ServiceUri;
use portolan::view::row::Outcomes;
use portolan::view::{Atlas, Capabilities, CapabilityId, Offer, Row, Standing, View};

use super::draws::{Course, Draws};
use super::world::World;

/// The one capability everybody offers.
pub(crate) const CAPABILITY: CapabilityId = CapabilityId(0);

/// What the nodes of all sites measured of the orchestrators of all sites.
#[derive(Debug)]
pub(crate) struct Mesh {
    now: Instant,
    atlas: Arc<Atlas>,
    /// By node, then orchestrator; a node does not measure the one of its own city.
    measured: Vec<Vec<RoundTrips>>,
}

/// What a node has to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing but declared places.
    Places,
    /// What the other nodes measured.
    Told,
    /// That, and what it measured itself.
    ToldAndOwn,
}

impl Mesh {
    /// Lets every node measure every orchestrator but that of its own city.
    pub(crate) fn measure(world: &World, now: Instant, draws: &mut Draws) -> anyhow::Result<Self> {
        let map = RegionMap::embedded()?;
        let atlas = Arc::new(Atlas {
            names: map.iter().map(|it| it.id).collect(),
            points: map.iter().map(|it| it.point).collect(),
            home: 0,
        });
        let mut round_trips = |course: &Option<Course>| {
            let mut kept = RoundTrips::default();
            for course in std::iter::repeat_n(course, PINGS).flatten() {
                kept.add(now, course.ping(draws));
            }
            kept
        };
        let between = world.between.iter();
        let measured = between.map(|from| from.iter().map(&mut round_trips).collect()).collect();
        Ok(Self { now, atlas, measured })
    }

    /// Returns the least round trip `node` measured to the orchestrator of `site`.
    pub(crate) fn measured(&self, node: usize, site: usize) -> Option<Micros> {
        Some(self.measured[node][site].own(self.now)?.0)
    }

    /// Returns the View of the node at site `home`. The orchestrator of its own city is in
    /// it when `with_own_city`.
    pub(crate) fn view(
        &self,
        world: &World,
        home: usize,
        known: Known,
        with_own_city: bool,
    ) -> anyhow::Result<View> {
        let mut names = Capabilities::default();
        names.intern("demo/echo").context("an empty table has room")?;
        let mut rows = Vec::new();
        for site in (0..world.sites.len()).filter(|site| with_own_city || *site != home) {
            let row = self.row(world, home, site, known)?;
            rows.push((row.id, Some(Arc::new(row))));
        }
        Ok(View::empty(self.now, Arc::clone(&self.atlas)).next(self.now, Arc::new(names), rows))
    }

    fn row(&self, world: &World, home: usize, site: usize, known: Known) -> anyhow::Result<Row> {
        let (uri, point) = (uri(site)?, world.sites[site].point);
        let Reading { link, point: placed, reach } = self.reading(world, home, site, known)?;
        let offer = Offer {
            capability: CAPABILITY,
            runner: None,
            service: Some(world.service),
            holding: world.service,
            capacity_milli: 8_000,
            others_milli: 0,
            arrivals_milli: 0,
            load_at: self.now.into(),
            price_wei: None,
            price: Micros::ZERO,
        };
        let (failures_milli, successes_milli) = (0, 0);
        Ok(Row {
            id: OrchestratorId::of(&uri),
            operator: uri.as_str().into(),
            uri,
            point: placed,
            region: self.atlas.nearest(&point),
            country: None,
            version: "".into(),
            link,
            told: Arc::default(),
            reach,
            outcomes: Outcomes {
                failures_milli,
                successes_milli,
                at: self.now.into(),
                told_by: None,
            },
            standing: Standing::Ready,
            checked_at: Some(self.now),
            last_failure: None,
            weight: Micros::ZERO,
            offers: [offer].into(),
            refused_ever: 0,
            gauge: Arc::default(),
        })
    }

    fn reading(
        &self,
        world: &World,
        home: usize,
        site: usize,
        known: Known,
    ) -> anyhow::Result<Reading> {
        let mut told = Vec::new();
        for peer in (0..world.sites.len()).filter(|peer| known != Known::Places && *peer != home) {
            let Some(rtt) = self.measured(peer, site) else { continue };
            told.push(Told {
                node: format!("node-{peer}").parse()?,
                observation: observation(OrchestratorId::of(&uri(site)?), rtt),
                at: self.now,
                peer_rtt: self.measured(home, peer),
                peer_point: Some(world.sites[peer].point),
            });
        }
        let nothing = RoundTrips::default();
        let own = if known == Known::ToldAndOwn { &self.measured[home][site] } else { &nothing };
        let declared = Some(world.sites[site].point);
        Ok(own.read(self.now, &world.sites[home].point, declared, &told, false))
    }
}

/// Returns the address of the orchestrator of `site`.
pub(crate) fn uri(site: usize) -> anyhow::Result<ServiceUri> {
    Ok(format!("https://site-{site}.example:8935").parse()?)
}

fn observation(orchestrator: OrchestratorId, rtt: Micros) -> Observation {
    Observation {
        orchestrator,
        rtt: Some(rtt),
        failures_milli: 0,
        successes_milli: 0,
        in_flight: 0,
        arrivals_milli: 0,
        service: None,
        capacity_milli: None,
    }
}

/// The pings a node's measurement is made of; as many as it keeps.
const PINGS: usize = 8;
