//! What reports of clients make of wrong places: direct work, ten sessions of each network,
//! every tenth of which a database puts somewhere else.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use portolan::address::Prefix;
use portolan::clock;
use portolan::geo::{Confidence, Place, Point};
use portolan::id::OrchestratorId;
use portolan::legs::{Learned, Legs, Target};
use portolan::policy::choose::Live;
use portolan::policy::placing::placed;
use portolan::policy::{Caller, Observed, PathKind, Rules, choose, to_measure};
use portolan::unit::Micros;
use portolan::view::View;
use portolan::view::outcome::Gauge;

use super::courses::NODES;
use super::draws::Draws;
use super::fleet::{Known, Mesh, uri};
use super::replay::ask;
use super::world::World;

/// How many sessions end in their best region.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Sessions looked at.
    pub(crate) sessions: usize,
    /// Those whose orchestrator is the best, or as good: within 3 ms or 5 % of it.
    pub(crate) best: usize,
}

impl Found {
    /// Returns the share, in percent.
    pub(crate) fn percent(self) -> f64 {
        self.best as f64 * 100.0 / self.sessions.max(1) as f64
    }
}

/// What one seed draws.
struct Port<'a> {
    world: &'a World,
    view: View,
    ids: Vec<OrchestratorId>,
    nodes: Vec<(Target, usize)>,
}

/// Runs `before` sessions of each network, in which clients report what they are asked to
/// measure, and then looks at ten more. With `reports` off nobody reports anything.
pub(crate) fn run(
    world: &World,
    seeds: u64,
    before: usize,
    reports: bool,
) -> anyhow::Result<(Found, Found)> {
    let (mut right, mut wrong) = (Found::default(), Found::default());
    for seed in 1..=seeds {
        let now = clock::now();
        let mesh = Mesh::measure(world, now, &mut Draws::new(seed, 1))?;
        let ids = (0..world.sites.len()).map(|site| Ok(OrchestratorId::of(&uri(site)?)));
        let site = |name: &&str| world.sites.iter().position(|it| it.name == *name);
        let node = |(at, name): (usize, &&str)| {
            let target = Target::Node(format!("node-{at}").parse().ok()?);
            Some((target, site(name)?))
        };
        let port = Port {
            world,
            view: mesh.view(world, 0, Known::ToldAndOwn, true)?,
            ids: ids.collect::<anyhow::Result<_>>()?,
            nodes: NODES.iter().enumerate().filter_map(node).collect(),
        };
        let mut draws = Draws::new(seed, 5);
        for client in 0..world.clients.len() {
            let is_wrong = draws.unit() <= WRONG_SHARE;
            let place = port.place(client, is_wrong, &mut draws)?;
            let found = if is_wrong { &mut wrong } else { &mut right };
            port.sessions(client, place, before, reports, found, &mut draws)?;
        }
    }
    Ok((right, wrong))
}

impl Port<'_> {
    /// Where a database puts a client: where it is, or another client's city far away.
    fn place(&self, client: usize, wrong: bool, draws: &mut Draws) -> anyhow::Result<Place> {
        let truth = self.world.clients[client].point;
        let point = if wrong {
            let far: Vec<Point> = self.world.clients.iter().map(|it| it.point).collect();
            let far: Vec<&Point> = far.iter().filter(|it| it.distance_m(&truth) > FAR_M).collect();
            *far[draws.below(far.len())]
        } else {
            truth
        };
        Ok(Place { point, country: None, confidence: Confidence::City })
    }

    fn sessions(
        &self,
        client: usize,
        place: Place,
        before: usize,
        reports: bool,
        found: &mut Found,
        draws: &mut Draws,
    ) -> anyhow::Result<()> {
        let mut legs = Legs::default();
        let group = Prefix::of(IpAddr::V4(Ipv4Addr::new(198, 18, client as u8, 1)));
        let regions = &self.view.atlas.points;
        for session in 0..before + LOOKED_AT {
            // A minute lies between two sessions of a network.
            let now = clock::now() + std::time::Duration::from_secs(60 * session as u64);
            let learned = legs.learned(now, group);
            let place = placed(place, &self.anchors(&learned), regions);
            let cell = self.view.atlas.cell(&place);
            let caller = Caller { place, cell, observed: self.observed(&learned) };
            let rules = Rules::default();
            let ask = ask(&caller, &rules, PathKind::Direct);
            let live = |gauge: &Gauge| Live::from(gauge);
            let decision = choose(&self.view, live, &ask, now, draws.word())?;
            let chosen = self.site(decision.chosen().orchestrator)?;
            if session >= before {
                found.sessions += 1;
                found.best += usize::from(self.is_best(client, chosen));
            }
            if !reports {
                continue;
            }
            // Each session is another of ten clients.
            let reporter = session as u64 % 10;
            let next = to_measure(&self.view, live, &ask, now, &caller.observed, MEASURED);
            let mut seen: Vec<(Target, usize)> = self.nodes.clone();
            seen.push((Target::Orchestrator(self.ids[chosen]), chosen));
            for id in next {
                seen.push((Target::Orchestrator(id), self.site(id)?));
            }
            for (target, site) in seen {
                let rtt = self.world.to_site[client][site].ping(draws);
                legs.handle_report(now, group, reporter, (target, rtt), Micros::ZERO)?;
            }
        }
        Ok(())
    }

    fn site(&self, id: OrchestratorId) -> anyhow::Result<usize> {
        self.ids.iter().position(|it| *it == id).context("only sites are named")
    }

    fn anchors(&self, learned: &Learned) -> Vec<(Point, Micros)> {
        let point = |target: &Target| match target {
            Target::Node(_) => self.nodes.iter().find(|it| it.0 == *target).map(|it| it.1),
            Target::Orchestrator(id) => self.site(*id).ok(),
        };
        let anchor =
            |(target, rtt): &(Target, Micros)| Some((self.world.sites[point(target)?].point, *rtt));
        learned.reported.iter().filter_map(anchor).collect()
    }

    fn observed(&self, learned: &Learned) -> Vec<Observed> {
        let observed = |(target, rtt): &(Target, Micros)| match target {
            Target::Orchestrator(id) => Some(Observed { orchestrator: *id, rtt: *rtt }),
            Target::Node(_) => None,
        };
        learned.reported.iter().filter_map(observed).collect()
    }

    fn is_best(&self, client: usize, chosen: usize) -> bool {
        let means = self.world.to_site[client].iter().map(|it| it.mean);
        let least = means.fold(f64::INFINITY, f64::min);
        self.world.to_site[client][chosen].mean <= least + f64::max(3.0, least * 0.05)
    }
}

/// The share of networks a database puts elsewhere,
const WRONG_SHARE: f64 = 0.1;
/// at least this far away.
const FAR_M: u32 = 2_000_000;
/// Sessions looked at after those before.
const LOOKED_AT: usize = 10;
/// Orchestrators a client is asked to measure beside the one it uses.
const MEASURED: usize = 3;
