//! Replays every client through the real decision code and through what others do.

use std::time::Instant;

use anyhow::Context;
use portolan::clock;
use portolan::geo::{Place, Point};
use portolan::id::OrchestratorId;
use portolan::policy::choose::Live;
use portolan::policy::{Ask, Caller, Observed, PathKind, Rules, choose, to_measure};
use portolan::unit::Micros;
use portolan::view::View;
use portolan::view::outcome::Gauge;

use super::draws::{Course, Draws};
use super::fleet::{CAPABILITY, Known, Mesh, uri};
use super::location::Location;
use super::world::World;

/// A way to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The real `policy::choose`, with what the nodes of all sites measured, after the
    /// client measured as many as each round says.
    Portolan(Vec<usize>),
    /// The same at a node nobody tells anything and that measured nothing.
    PortolanAlone(Vec<usize>),
    /// The nearest by distance.
    Nearest,
    /// The fastest of that many nearest, each pinged once.
    TopK(usize),
    /// Any within the nearest and 1,500 km more, as catalyst-api's first tier.
    Catalyst,
    /// go-livepeer's weights, stake 0.7 and random 0.3 and price 0: with equal stakes, any.
    GoLivepeer,
    /// go-livepeer's live choice: the least single ping of all.
    GoLivepeerLive,
}

/// Regret in milliseconds: the mean round trip of the chosen course over that of the best.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regret {
    pub(crate) mean: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

/// One seed's world: what was measured and where clients are thought to be.
pub(crate) struct Trial<'a> {
    world: &'a World,
    now: Instant,
    seed: u64,
    mesh: Mesh,
    places: Vec<Place>,
    /// One ping of each client to each site.
    pings: Vec<Vec<Micros>>,
    ids: Vec<OrchestratorId>,
    told: View,
    alone: View,
    /// By entry node: what it tells of its own courses, and what it would guess.
    relaying: Vec<(View, View)>,
}

/// What there is to choose from, whatever the policy.
struct Choice {
    path: PathKind,
    /// The node in whose city a relayed client enters.
    entry: usize,
    place: Place,
    /// Site, distance in metres, ping, mean in milliseconds.
    options: Vec<(usize, u32, Micros, f64)>,
}

impl<'a> Trial<'a> {
    /// Draws everything a seed decides, the same for every policy.
    pub(crate) fn new(world: &'a World, location: &Location, seed: u64) -> anyhow::Result<Self> {
        let now = clock::now();
        let mesh = Mesh::measure(world, now, &mut Draws::new(seed, 1))?;
        let mut draws = Draws::new(seed, 2);
        let mut place = |true_point: &Point| {
            let point = location.of(true_point, &mut draws)?;
            anyhow::Ok(Place { point, country: None, confidence: location.confidence })
        };
        let places = world.clients.iter().map(|it| place(&it.point)).collect::<Result<_, _>>()?;
        let mut draws = Draws::new(seed, 3);
        let mut ping_all =
            |courses: &Vec<Course>| courses.iter().map(|it| it.ping(&mut draws)).collect();
        let pings = world.to_site.iter().map(&mut ping_all).collect();
        let ids = (0..world.sites.len()).map(|site| Ok(OrchestratorId::of(&uri(site)?)));
        let relaying = (0..world.sites.len()).map(|home| {
            let view = |known| mesh.view(world, home, known, false);
            Ok((view(Known::ToldAndOwn)?, view(Known::Told)?))
        });
        Ok(Self {
            world,
            now,
            seed,
            places,
            pings,
            ids: ids.collect::<anyhow::Result<_>>()?,
            told: mesh.view(world, 0, Known::ToldAndOwn, true)?,
            alone: mesh.view(world, 0, Known::Places, true)?,
            relaying: relaying.collect::<anyhow::Result<_>>()?,
            mesh,
        })
    }

    /// Lets every client choose by `policy`.
    pub(crate) fn regret(&self, path: PathKind, policy: &Policy) -> anyhow::Result<Regret> {
        let mut draws = Draws::new(self.seed, 4);
        let mut regrets = Vec::with_capacity(self.places.len());
        for client in 0..self.places.len() {
            let choice = match path {
                PathKind::Direct => self.direct(client),
                PathKind::Relayed => self.relayed(client)?,
            };
            let chosen = self.choose(policy, &choice, &mut draws)?;
            let chosen = choice.options.iter().find(|it| it.0 == chosen);
            let least = choice.options.iter().map(|it| it.3).fold(f64::INFINITY, f64::min);
            regrets.push(chosen.context("only what was offered is chosen")?.3 - least);
        }
        Ok(Regret::of(regrets))
    }

    fn direct(&self, client: usize) -> Choice {
        let place = self.places[client];
        let sites = self.world.sites.iter().enumerate();
        let options = sites.map(|(at, site)| {
            let metres = site.point.distance_m(&place.point);
            (at, metres, self.pings[client][at], self.world.to_site[client][at].mean)
        });
        Choice { path: PathKind::Direct, entry: 0, place, options: options.collect() }
    }

    /// A client relayed by the node nearest to where it is thought to be. The orchestrator
    /// in that node's own city is left out: with it there would be nothing to choose.
    fn relayed(&self, client: usize) -> anyhow::Result<Choice> {
        let place = self.places[client];
        let metres = |site: usize| self.world.sites[site].point.distance_m(&place.point);
        let sites = 0..self.world.sites.len();
        let entry = sites.clone().min_by_key(|site| metres(*site)).context("there are sites")?;
        let options = sites.filter_map(|at| {
            let course = self.world.between[entry][at]?;
            Some((at, metres(at), self.mesh.measured(entry, at)?, course.mean))
        });
        Ok(Choice { path: PathKind::Relayed, entry, place, options: options.collect() })
    }

    fn choose(&self, policy: &Policy, choice: &Choice, draws: &mut Draws) -> anyhow::Result<usize> {
        let mut nearest = choice.options.clone();
        nearest.sort_by_key(|it| it.1);
        let least_ping =
            |count: usize| nearest.iter().take(count).min_by_key(|it| it.2).map(|it| it.0);
        let chosen = match policy {
            Policy::Portolan(rounds) => {
                let (measured, guessed) = &self.relaying[choice.entry];
                let view = match choice.path {
                    PathKind::Direct => &self.told,
                    PathKind::Relayed if rounds.is_empty() => guessed,
                    PathKind::Relayed => measured,
                };
                return self.portolan(view, rounds, choice, draws);
            }
            Policy::PortolanAlone(rounds) => {
                return self.portolan(&self.alone, rounds, choice, draws);
            }
            Policy::Nearest => nearest.first().map(|it| it.0),
            Policy::TopK(count) => least_ping(*count),
            Policy::GoLivepeerLive => least_ping(nearest.len()),
            Policy::Catalyst => {
                let within = |it: &&(usize, u32, _, _)| it.1 <= nearest[0].1 + CATALYST_M;
                let good = nearest.iter().filter(within).count();
                nearest.get(draws.below(good)).map(|it| it.0)
            }
            Policy::GoLivepeer => nearest.get(draws.below(nearest.len())).map(|it| it.0),
        };
        chosen.context("there is something to choose from")
    }

    fn portolan(
        &self,
        view: &View,
        rounds: &[usize],
        choice: &Choice,
        draws: &mut Draws,
    ) -> anyhow::Result<usize> {
        let cell = view.atlas.cell(&choice.place);
        let mut caller = Caller { place: choice.place, cell, observed: Vec::new() };
        let rules = Rules::default();
        let live = |gauge: &Gauge| Live::from(gauge);
        let site_of = |id: OrchestratorId| self.ids.iter().position(|it| *it == id);
        for count in rounds {
            let already = caller.observed.clone();
            let ask = ask(&caller, &rules, choice.path);
            for id in to_measure(view, live, &ask, self.now, &already, *count) {
                let option = choice.options.iter().find(|it| Some(it.0) == site_of(id));
                let rtt = option.context("only sites are named")?.2;
                caller.observed.push(Observed { orchestrator: id, rtt });
            }
        }
        let ask = ask(&caller, &rules, choice.path);
        let decision = choose(view, live, &ask, self.now, draws.word())?;
        site_of(decision.chosen().orchestrator).context("only sites are chosen")
    }
}

impl Policy {
    /// Returns the name others know it by.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Portolan(_) => "portolan".to_owned(),
            Self::PortolanAlone(_) => "portolan-alone".to_owned(),
            Self::Nearest => "nearest".to_owned(),
            Self::TopK(_) => "top-k".to_owned(),
            Self::Catalyst => "catalyst".to_owned(),
            Self::GoLivepeer => "go-livepeer".to_owned(),
            Self::GoLivepeerLive => "go-livepeer-live".to_owned(),
        }
    }

    /// Returns how many of `sites` it measures for a choice.
    pub(crate) fn candidates(&self, sites: usize) -> usize {
        match self {
            Self::Portolan(rounds) | Self::PortolanAlone(rounds) => rounds.iter().sum(),
            Self::TopK(count) => *count,
            Self::GoLivepeerLive => sites,
            Self::Nearest | Self::Catalyst | Self::GoLivepeer => 0,
        }
    }
}

impl Regret {
    pub(crate) fn of(mut regrets: Vec<f64>) -> Self {
        regrets.sort_by(f64::total_cmp);
        let mean = regrets.iter().sum::<f64>() / regrets.len() as f64;
        // Straight between the two nearest ranks.
        let percentile = |share: f64| {
            let rank = share * (regrets.len() - 1) as f64;
            let (low, high) = (regrets[rank.floor() as usize], regrets[rank.ceil() as usize]);
            low + (high - low) * rank.fract()
        };
        Self { mean, p95: percentile(0.95), p99: percentile(0.99) }
    }

    /// Returns the mean of each figure over several seeds.
    pub(crate) fn mean_of(all: &[Self]) -> Self {
        let mean =
            |figure: fn(&Self) -> f64| all.iter().map(figure).sum::<f64>() / all.len() as f64;
        Self { mean: mean(|it| it.mean), p95: mean(|it| it.p95), p99: mean(|it| it.p99) }
    }
}

pub(crate) fn ask<'a>(caller: &'a Caller, rules: &'a Rules, path: PathKind) -> Ask<'a> {
    Ask { cold_round_trips: 1, ..Ask::new(caller, CAPABILITY, path, rules) }
}

/// The width of catalyst-api's first tier.
const CATALYST_M: u32 = 1_500_000;
