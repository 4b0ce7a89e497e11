//! What is given: where gateways, orchestrators and clients are, and who asks when.

use std::sync::Arc;
use std::time::Duration;

use portolan::geo::{Point, expected_rtt, fibre_floor};
use portolan::id::RegionId;
use portolan::region::RegionMap;
use portolan::view::Atlas;

use super::draws::{self, Draws};
use super::scenario::Scenario;

/// One seed's world; every algorithm meets the same.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) atlas: Arc<Atlas>,
    pub(crate) gateways: Vec<Site>,
    pub(crate) servers: Vec<Spec>,
    /// Round trips at rest in microseconds, by gateway, then orchestrator.
    pub(crate) rtt: Vec<Vec<u64>>,
    /// Who asks, by rising time.
    pub(crate) requests: Vec<Request>,
}

/// A place with a name.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) region: RegionId,
    /// The region's number in the atlas.
    pub(crate) number: u8,
    pub(crate) point: Point,
}

/// One orchestrator, as it is at rest.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) site: Site,
    /// The gateway of its part of the world.
    pub(crate) part: usize,
    /// What it works on at once.
    pub(crate) slots: usize,
    /// What may wait there; some let nobody wait.
    pub(crate) queue: usize,
    /// How long its work takes, where 1 is usual.
    pub(crate) slowness: f64,
    /// What is bonded to it.
    pub(crate) stake: f64,
}

/// One piece of work somebody wants done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// When it is asked for, in microseconds.
    pub(crate) at: u64,
    /// Where.
    pub(crate) gateway: usize,
    /// How much work it is, where 1 is usual.
    pub(crate) work: f64,
    /// Where its client is, when it asks for a list and goes straight to orchestrators.
    pub(crate) direct: Option<Point>,
}

impl World {
    /// Draws the world of `seed` and everything that is asked for in `scenario`.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let map = RegionMap::embedded().unwrap();
        let names = PARTS.iter().flat_map(|(gateway, servers)| [&[*gateway][..], servers].concat());
        let mut regions: Vec<RegionId> = names.map(|name| name.parse().unwrap()).collect();
        regions.sort_unstable();
        regions.dedup();
        let atlas = Atlas {
            points: regions.iter().map(|it| map.get(*it).unwrap().point).collect(),
            names: regions,
            home: 0,
        };
        let site = |name: &str| {
            let region: RegionId = name.parse().unwrap();
            let number = atlas.names.iter().position(|it| *it == region).unwrap();
            Site { region, number: number as u8, point: atlas.points[number] }
        };
        let mut draws = Draws::new(seed, 1);
        let mut servers = Vec::new();
        for (part, (_gateway, names)) in PARTS.iter().enumerate() {
            for name in *names {
                let slots = 3 + draws.below(6);
                servers.push(Spec {
                    site: site(name),
                    part,
                    slots,
                    queue: [0, slots / 2, slots][draws.below(3)],
                    slowness: (0.2 * draws.normal()).exp(),
                    // A few hold most of it, as on the network.
                    stake: 1.0 / (1.0 + draws.below(100) as f64),
                });
            }
        }
        let gateways: Vec<Site> = PARTS.iter().map(|(name, _)| site(name)).collect();
        let mut course = |from: &Site, to: &Spec| {
            let metres = from.point.distance_m(&to.site.point);
            let usual = expected_rtt(metres).0 as f64;
            ((usual * (0.25 * draws.normal()).exp()) as u64).max(fibre_floor(metres).0)
        };
        let rtt = gateways.iter().map(|from| servers.iter().map(|to| course(from, to)).collect());
        let rtt = rtt.collect();
        let mut world =
            Self { seed, atlas: Arc::new(atlas), gateways, servers, rtt, requests: Vec::new() };
        world.requests = world.ask(scenario);
        world
    }

    /// Draws Poisson arrivals at every gateway, and the herd where there is one.
    fn ask(&self, scenario: &Scenario) -> Vec<Request> {
        let mut draws = Draws::new(self.seed, 2);
        let slots = |part: Option<usize>| -> f64 {
            let of_part = self.servers.iter().filter(|it| part.is_none_or(|part| it.part == part));
            of_part.map(|it| it.slots as f64 / it.slowness).sum()
        };
        // No part of the world asks for just what it has.
        let parts = 0..self.gateways.len();
        let wants: Vec<f64> =
            parts.map(|part| slots(Some(part)) * draws.between(0.6, 1.4)).collect();
        let all = wants.iter().sum::<f64>();
        let per_second = scenario.load * slots(None) / USUAL_WORK.as_secs_f64();
        let mut requests = Vec::new();
        for (gateway, wants) in wants.iter().enumerate() {
            let (mut at, rate) = (0.0, per_second * wants / all);
            loop {
                at += draws.exponential() / rate;
                if at >= scenario.length.as_secs_f64() {
                    break;
                }
                let at = (at * 1e6) as u64;
                requests.push(Request { at, gateway, work: work(&mut draws), direct: None });
            }
        }
        if let Some(herd) = &scenario.herd {
            for _ in 0..herd.clients {
                let gateway = draws.below(self.gateways.len());
                let around = &self.gateways[gateway].point;
                let mut near = |degrees: f64| degrees + draws.between(-5.0, 5.0);
                let point = Point::new(near(around.lat()), near(around.lon())).unwrap();
                let after = herd.within.as_secs_f64() * draws.unit();
                let at = ((scenario.fault_at().as_secs_f64() + after) * 1e6) as u64;
                let work = work(&mut draws);
                requests.push(Request { at, gateway, work, direct: Some(point) });
            }
        }
        requests.sort_by_key(|it| (it.at, it.gateway));
        requests
    }

    /// Returns the round trip at rest from whoever sends `request` to a server.
    pub(crate) fn course(&self, number: usize, server: usize) -> u64 {
        let request = &self.requests[number];
        let Some(point) = request.direct else { return self.rtt[request.gateway][server] };
        let metres = point.distance_m(&self.servers[server].site.point);
        let noise = draws::unit(draws::word(&[self.seed, 3, number as u64, server as u64]));
        let usual = expected_rtt(metres).0 as f64 * (0.8 + 0.5 * noise);
        (usual as u64).max(fibre_floor(metres).0)
    }

    /// Returns the time `number` keeps a slot of `server`.
    pub(crate) fn work_us(&self, number: usize, server: usize) -> u64 {
        let work = self.requests[number].work * self.servers[server].slowness;
        (work * USUAL_WORK.as_micros() as f64) as u64
    }
}

/// Half of the time a usual piece takes is certain, and half of it anybody's guess.
fn work(draws: &mut Draws) -> f64 {
    (draws.exponential() + draws.exponential()) / 4.0 + 0.5
}

/// The parts of the world: a gateway, and where the orchestrators around it are.
const PARTS: &[(&str, &[&str])] = &[
    ("FRA", &["FRA", "FRA", "LON", "AMS", "WAW", "MAD"]),
    ("NYC", &["NYC", "NYC", "ASH", "MIA", "YUL"]),
    ("LAX", &["LAX", "LAX", "SEA", "DFW"]),
    ("SIN", &["SIN", "SIN", "HND"]),
    ("SAO", &["SAO", "SCL"]),
];
/// What a usual piece of work takes at a usual orchestrator.
const USUAL_WORK: Duration = Duration::from_millis(400);
