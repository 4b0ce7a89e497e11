//! The nodes a client could enter by: in which order, and when another is worth the way.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::{NodeId, RegionId};
use crate::policy::course::{Course, Leg, courses, is_worth_moving};
use crate::score::Evidence;
use crate::unit::Micros;
use crate::view::row::PLACELESS_RTT;

/// A node that takes clients, where it runs, and how they reach it.
pub type Open = (NodeId, RegionId, Option<String>);

/// A node a client could enter by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entrance {
    /// Which node.
    pub node: NodeId,
    /// Where it runs.
    pub region: RegionId,
    /// How clients reach it; absent when neither this configuration nor the node itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The round trip to expect.
    #[serde(rename = "expected_ms", serialize_with = "as_ms")]
    pub rtt: Micros,
    /// Where that comes from.
    pub evidence: Evidence,
    /// What the work asked for is expected to cost from there on, in time; absent when nothing
    /// was asked for or nobody may serve it.
    #[serde(
        rename = "beyond_ms",
        serialize_with = "as_ms_if",
        skip_serializing_if = "Option::is_none"
    )]
    pub beyond: Option<Micros>,
}

fn as_ms<S: serde::Serializer>(rtt: &Micros, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(rtt.as_ms())
}

fn as_ms_if<S: serde::Serializer>(cost: &Option<Micros>, to: S) -> Result<S::Ok, S::Error> {
    cost.map(Micros::as_ms).serialize(to)
}

impl Entrance {
    /// Returns the cost of the course, or of the way alone where no more is known.
    pub fn total(&self) -> Micros {
        self.rtt + self.beyond.unwrap_or_default()
    }
}

/// Returns the nodes as a client should try them, the shortest course first; ties by name.
///
/// `legs` are the ways to those that are placed. `beyond` is the least cost from a node on,
/// `None` where nobody serves through it; it is asked of the nearest [`WEIGHED_MAX`] only. Where
/// some can have the work served, those that cannot come last.
pub fn entrances(
    nodes: Vec<Open>,
    legs: &[Leg],
    beyond: impl Fn(NodeId) -> Option<Micros>,
) -> Vec<Entrance> {
    // What lies beyond the nearest few is all that can matter.
    let mut near = legs.to_vec();
    near.sort_unstable_by_key(|it| (it.rtt, it.node));
    near.truncate(WEIGHED_MAX);
    let known: BTreeMap<NodeId, Course> =
        courses(&near, beyond).into_iter().map(|it| (it.leg.node, it)).collect();
    let entrance = |(node, region, url): Open| {
        let leg = legs.iter().find(|it| it.node == node);
        let (rtt, evidence) =
            leg.map_or((PLACELESS_RTT, Evidence::Default), |it| (it.rtt, it.evidence));
        let beyond = known.get(&node).map(|it| it.beyond);
        Entrance { node, region, url, rtt, evidence, beyond }
    };
    let mut found: Vec<Entrance> = nodes.into_iter().map(entrance).collect();
    found.sort_by_key(|it| (it.beyond.is_none(), it.total(), it.node));
    found
}

/// Returns the URL a client that came to `here` is sent on to: that of the best of `ranked` that
/// has one, if it is another node and worth the way. Whoever is not itself among `ranked` takes
/// nothing new and sends everybody on.
pub fn better(here: NodeId, ranked: &[Entrance]) -> Option<&str> {
    let best = ranked.iter().find(|it| it.url.is_some())?;
    let own = ranked.iter().find(|it| it.node == here);
    let worth = own.is_none_or(|own| {
        own.beyond.is_none() && best.beyond.is_some() || is_worth_moving(own.total(), best.total())
    });
    best.url.as_deref().filter(|_| best.node != here && worth)
}

/// Returns the nodes a client is asked to measure and how it reaches them: those that `known`
/// names first, each as it first does, at most [`SURVEYED_MAX`].
pub fn surveyed<'a>(
    known: impl IntoIterator<Item = (NodeId, &'a str)>,
) -> BTreeMap<NodeId, &'a str> {
    let mut nodes = BTreeMap::new();
    for (node, url) in known {
        if nodes.len() < SURVEYED_MAX {
            nodes.entry(node).or_insert(url);
        }
    }
    nodes
}

/// Nodes weighed in one question, the nearest to the client.
pub const WEIGHED_MAX: usize = 16;
/// Nodes a client is asked to measure: a second's work for a browser.
pub const SURVEYED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn open(name: &str) -> Open {
        (node(name), "FRA".parse().unwrap(), Some(format!("https://{name}")))
    }

    fn leg(name: &str, ms: u64) -> Leg {
        Leg { node: node(name), rtt: Micros::from_ms(ms), evidence: Evidence::Own }
    }

    fn names(ranked: &[Entrance]) -> Vec<&str> {
        ranked.iter().map(|it| it.node.as_str()).collect()
    }

    /// `a` and `b`, this far away, with so much beyond them.
    fn two(a: (u64, Option<u64>), b: (u64, Option<u64>)) -> Vec<Entrance> {
        let beyond = |it: NodeId| if it == node("a") { a.1 } else { b.1 }.map(Micros::from_ms);
        entrances(vec![open("a"), open("b")], &[leg("a", a.0), leg("b", b.0)], beyond)
    }

    #[test]
    fn the_shortest_course_is_first_and_who_cannot_serve_last() {
        assert_eq!(names(&two((10, Some(90)), (60, Some(1)))), ["b", "a"]);
        assert_eq!(names(&two((10, None), (60, Some(500)))), ["b", "a"]);
        assert_eq!(names(&two((10, None), (60, None))), ["a", "b"], "the way alone");
        let tied = entrances(vec![open("b"), open("a")], &[leg("a", 5), leg("b", 5)], |_node| None);
        assert_eq!(names(&tied), ["a", "b"]);
        let placeless = entrances(vec![open("a"), open("b")], &[leg("b", 30)], |_node| None);
        assert_eq!(names(&placeless), ["b", "a"]);
        assert_eq!((placeless[1].rtt, placeless[1].evidence), (PLACELESS_RTT, Evidence::Default));
    }

    #[test]
    fn what_lies_beyond_is_asked_of_the_nearest_few_only() {
        let all: Vec<String> = (0..=WEIGHED_MAX).map(|it| format!("n-{it:02}")).collect();
        // The farthest stands first: it is the way that counts.
        let legs = all.iter().enumerate().map(|(at, it)| leg(it, 1 + at as u64));
        let legs: Vec<Leg> = legs.rev().collect();
        let asked = RefCell::new(Vec::new());
        let beyond = |node: NodeId| {
            asked.borrow_mut().push(node);
            Some(Micros::from_ms(1))
        };
        let ranked = entrances(all.iter().map(|it| open(it)).collect(), &legs, beyond);
        assert_eq!(asked.borrow().len(), WEIGHED_MAX);
        assert_eq!(ranked.len(), WEIGHED_MAX + 1, "the last is still one to enter by");
        let last = ranked.last().unwrap();
        assert_eq!((last.node.as_str(), last.beyond), (all[WEIGHED_MAX].as_str(), None));
    }

    #[test]
    fn a_client_measures_those_named_first_and_no_more_than_it_can() {
        let all: Vec<String> = (0..=SURVEYED_MAX).rev().map(|it| format!("n-{it:02}")).collect();
        let known = all.iter().map(|it| (node(it), it.as_str()));
        let again = (node(&all[0]), "another");
        let asked =
            surveyed([known.clone().next(), Some(again)].into_iter().flatten().chain(known));
        assert_eq!(asked.len(), SURVEYED_MAX);
        assert_eq!(asked[&node(&all[0])], all[0], "as it was first named");
        assert!(!asked.contains_key(&node(&all[SURVEYED_MAX])), "the one named last");
    }

    #[test]
    fn a_client_is_sent_on_for_a_clear_gain_or_where_it_cannot_be_served() {
        let to = |here, ranked: &[Entrance]| better(node(here), ranked).map(str::to_owned);
        let b = Some("https://b".to_owned());
        assert_eq!(to("a", &two((60, Some(10)), (20, Some(10)))), b);
        assert_eq!(to("a", &two((24, Some(10)), (20, Some(10)))), None, "not for 4 ms");
        assert_eq!(to("b", &two((60, Some(10)), (20, Some(10)))), None, "it is here already");
        assert_eq!(to("a", &two((10, None), (200, Some(10)))), b, "nobody serves it here");
        let mut ranked = two((60, Some(10)), (20, Some(10)));
        assert_eq!(to("c", &ranked), b, "this node takes nothing new");
        ranked[0].url = None;
        assert_eq!(to("a", &ranked), None, "nobody knows how to reach it");
        assert_eq!(to("a", &[]), None);
    }
}
