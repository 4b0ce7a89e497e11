//! The whole course of relayed work: which of five nodes a client enters by, and on to which
//! orchestrator.
//!
//! The oracle knows the mean of every course and takes the least sum of client to node and
//! node to orchestrator. A node knows what it measured beyond itself, and of a client's ways
//! to the nodes none, the one to the node it landed on, or two or three.

use anyhow::Context;
use portolan::geo::Point;
use portolan::id::NodeId;
use portolan::policy::course::{Entry, courses, legs};
use portolan::score::Evidence;
use portolan::unit::Micros;

use super::draws::Draws;
use super::fleet::Mesh;
use super::location::Location;
use super::replay::Regret;
use super::world::World;

/// The cities of the nodes.
pub(crate) const NODES: [&str; 5] = ["Washington", "Frankfurt", "Singapore", "Sao Paulo", "Sydney"];

/// How the course is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Portolan, with so many of the client's ways measured, the nearest nodes' first.
    Measured(usize),
    /// The node nearest to the client, and the orchestrator nearest to the client.
    Nearest,
}

/// One seed's measurements.
pub(crate) struct Sea<'a> {
    world: &'a World,
    mesh: Mesh,
    /// Positions of the nodes among the sites.
    nodes: Vec<usize>,
    places: Vec<Point>,
    pings: Vec<Vec<Micros>>,
}

impl<'a> Sea<'a> {
    /// Draws what was measured; `None` where the data lack one of the cities.
    pub(crate) fn new(
        world: &'a World,
        location: &Location,
        seed: u64,
    ) -> anyhow::Result<Option<Self>> {
        let site = |name: &&str| world.sites.iter().position(|it| it.name == *name);
        let Some(nodes) = NODES.iter().map(site).collect::<Option<Vec<usize>>>() else {
            return Ok(None);
        };
        let mesh = Mesh::measure(world, portolan::clock::now(), &mut Draws::new(seed, 1))?;
        let mut draws = Draws::new(seed, 2);
        let places = world.clients.iter().map(|it| location.of(&it.point, &mut draws));
        let places = places.collect::<anyhow::Result<Vec<Point>>>()?;
        let mut draws = Draws::new(seed, 3);
        let mut ping = |client: usize| {
            nodes.iter().map(|it| world.to_site[client][*it].ping(&mut draws)).collect()
        };
        let pings = (0..world.clients.len()).map(&mut ping).collect();
        Ok(Some(Self { world, mesh, nodes, places, pings }))
    }

    /// Lets every client be steered; returns the regret of each.
    pub(crate) fn regrets(&self, way: Way) -> anyhow::Result<Vec<f64>> {
        (0..self.places.len()).map(|client| self.regret(client, way)).collect()
    }

    fn regret(&self, client: usize, way: Way) -> anyhow::Result<f64> {
        let place = &self.places[client];
        let (node, site) = match way {
            Way::Nearest => {
                let metres = |site: usize| self.world.sites[site].point.distance_m(place);
                let node = (0..self.nodes.len()).min_by_key(|it| metres(self.nodes[*it]));
                let site = (0..self.world.sites.len()).min_by_key(|it| metres(*it));
                (node.context("a node")?, site.context("a site")?)
            }
            Way::Measured(count) => self.steered(client, count)?,
        };
        let took = |node: usize, site: usize| {
            let leg = self.world.to_site[client][self.nodes[node]].mean;
            Some(leg + self.beyond_mean(node, site)?)
        };
        let all = (0..self.nodes.len())
            .flat_map(|node| (0..self.world.sites.len()).filter_map(move |it| took(node, it)));
        Ok(took(node, site).context("it leads there")? - all.fold(f64::INFINITY, f64::min))
    }

    /// Chooses by the real decision code.
    fn steered(&self, client: usize, count: usize) -> anyhow::Result<(usize, usize)> {
        let place = &self.places[client];
        let mut by_distance: Vec<usize> = (0..self.nodes.len()).collect();
        let point = |node: usize| self.world.sites[self.nodes[node]].point;
        by_distance.sort_by_key(|it| point(*it).distance_m(place));
        let entry = |(rank, node): (usize, &usize)| {
            let measured = (rank < count).then(|| (self.pings[client][*node], Evidence::Own));
            anyhow::Ok(Entry { node: name(*node)?, point: point(*node), measured })
        };
        let entries =
            by_distance.iter().enumerate().map(entry).collect::<anyhow::Result<Vec<_>>>()?;
        let best = courses(&legs(place, &entries), |it| {
            let node = by_distance.iter().find(|node| name(**node).ok() == Some(it))?;
            self.onward(*node).map(|(rtt, _site)| rtt)
        });
        let node = best.first().context("there are nodes")?.leg.node;
        let node = (0..self.nodes.len()).find(|it| name(*it).ok() == Some(node));
        let node = node.context("only nodes are chosen")?;
        Ok((node, self.onward(node).context("it leads somewhere")?.1))
    }

    /// Returns the least that `node` measured, and to which site.
    fn onward(&self, node: usize) -> Option<(Micros, usize)> {
        let home = self.nodes[node];
        let measured = |site: usize| match site == home {
            true => Some(SAME_CITY),
            false => self.mesh.measured(home, site),
        };
        (0..self.world.sites.len()).filter_map(|site| Some((measured(site)?, site))).min()
    }

    fn beyond_mean(&self, node: usize, site: usize) -> Option<f64> {
        match site == self.nodes[node] {
            true => Some(SAME_CITY.as_ms()),
            false => Some(self.world.between[self.nodes[node]][site]?.mean),
        }
    }
}

/// Returns the regret of one way over all seas, the figures of each averaged.
pub(crate) fn regret(seas: &[Sea<'_>], way: Way) -> anyhow::Result<Regret> {
    let each = seas.iter().map(|it| Ok(Regret::of(it.regrets(way)?)));
    Ok(Regret::mean_of(&each.collect::<anyhow::Result<Vec<_>>>()?))
}

/// Returns the mean regret of each client over all seas, in their order.
pub(crate) fn by_city(seas: &[Sea<'_>], way: Way) -> anyhow::Result<Vec<f64>> {
    let each = seas.iter().map(|it| it.regrets(way)).collect::<anyhow::Result<Vec<_>>>()?;
    let mean = |client: usize| each.iter().map(|it| it[client]).sum::<f64>() / each.len() as f64;
    Ok((0..each.first().map_or(0, Vec::len)).map(mean).collect())
}

fn name(node: usize) -> anyhow::Result<NodeId> {
    Ok(format!("node-{node}").parse()?)
}

/// The round trip within a city, which the data do not have.
const SAME_CITY: Micros = Micros(500);
