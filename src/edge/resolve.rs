//! The resolve door: which node a client should enter by.
//!
//! Nodes are ordered by the whole course: the way to them, as it was measured by this node, by
//! clients of the same network or by peers, or else as distance lets one expect; and, when a
//! client says what for (`?app=`, `?caps=`), the best that lies beyond each.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use crate::edge::Gateway;
use crate::edge::discover::Filters;
use crate::edge::locate::Located;
use crate::edge::observe::{allowed, open};
use crate::edge::orders::Entering;
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::edge::ways::url_of;
use crate::id::{NodeId, RegionId};
use crate::legs::Target;
use crate::mesh::{PeerRow, Standing};
use crate::policy::beyond::{Relay, beyond};
use crate::policy::course::{Course, courses};
use crate::policy::{Ask, PathKind, Rules};
use crate::score::Evidence;
use crate::unit::Micros;
use crate::upstream::Body;
use crate::view::row::{Mode, PLACELESS_RTT};
use crate::view::{CapabilityId, View};

/// A node a client could enter by.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
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

/// Answers `GET /v1/resolve`: JSON, or a 307 for a client that asks with `redirect=1`.
pub(crate) fn answer(
    gateway: &Gateway,
    visit: &Visit,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return Ok(allowed()),
        _ => return Err(ServeError::Method("GET, OPTIONS")),
    }
    let filters = Filters::read(request.uri().query())?;
    let _permit = gateway.permit()?;
    let view = gateway.view();
    let capabilities = filters.capabilities(&view).filter(|_| filters.names_some());
    let capabilities = capabilities.take(WANTED_MAX).collect();
    let wanted = Wanted { capabilities, gpus: filters.gpus(), ..Wanted::default() };
    let ranked = gateway.entrances(visit.started, &visit.located, visit.base(), &wanted);
    let redirect =
        request.uri().query().is_some_and(|it| it.split('&').any(|it| it == "redirect=1"));
    let target = ranked.first().and_then(|it| it.url.clone()).filter(|_| redirect);
    let (primary, fallbacks) = match ranked.split_first() {
        Some((primary, fallbacks)) => (Some(primary), fallbacks),
        None => (None, &ranked[..]),
    };
    let place = &visit.located.caller.place;
    let body = serde_json::json!({
        "caller": {
            "country": place.country,
            "confidence": place.confidence,
            "home": visit.located.home,
        },
        "primary": primary,
        "fallbacks": fallbacks,
        "survey": gateway.survey(visit),
    });
    let mut response = json(StatusCode::OK, body.to_string());
    open(response.headers_mut());
    if let Some(url) = target.and_then(|url| HeaderValue::from_str(&url).ok()) {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(header::LOCATION, url);
    }
    Ok(response)
}

impl Gateway {
    /// Returns the nodes that take clients, the shortest course first; ties by name. Without
    /// anything asked for, or where nobody offers it, the way to the node is all of it.
    pub(crate) fn entrances(
        &self,
        now: Instant,
        located: &Located,
        base: String,
        wanted: &Wanted<'_>,
    ) -> Vec<Entrance> {
        let (view, peers) = (self.view(), self.shared.peers.load());
        let params = self.params.load();
        let own = (self.identity.node, self.identity.region, Some(base));
        let open = |it: &&PeerRow| it.standing == Standing::Up && !it.draining;
        let is_out = self.draining.load(Ordering::Acquire);
        let others =
            peers.rows.iter().filter(open).filter_map(|it| {
                Some((it.node, it.region?, url_of(&params, it).map(str::to_owned)))
            });
        let nodes: Vec<Node> = Some(own).filter(|_| !is_out).into_iter().chain(others).collect();
        let nodes = self.ordered(nodes, located);
        let names: Vec<NodeId> = nodes.iter().map(|it| it.0).collect();
        let legs = self.legs_of(now, located, &view, &names);
        let rules = self.under_orders(&params.rules, &view, located);
        let beyond = self.beyond(now, located, &view, &rules, wanted);
        // What lies beyond the nearest few is all that can matter.
        let mut near = legs.clone();
        near.sort_unstable_by_key(|it| (it.rtt, it.node));
        near.truncate(WEIGHED_MAX);
        let known: BTreeMap<NodeId, Course> =
            courses(&near, beyond).into_iter().map(|it| (it.leg.node, it)).collect();
        let entrance = |(node, region, url): Node| {
            let leg = legs.iter().find(|it| it.node == node);
            let (rtt, evidence) =
                leg.map_or((PLACELESS_RTT, Evidence::Default), |it| (it.rtt, it.evidence));
            let beyond = known.get(&node).map(|it| it.beyond);
            Entrance { node, region, url, rtt, evidence, beyond }
        };
        let mut found: Vec<Entrance> = nodes.into_iter().map(entrance).collect();
        // Where some can have it served, those that cannot come last.
        found.sort_by_key(|it| (it.beyond.is_none(), it.total(), it.node));
        found
    }

    /// Leaves out nodes that orders drain, and those that are turned down for this client while
    /// there are others.
    fn ordered(&self, nodes: Vec<Node>, located: &Located) -> Vec<Node> {
        let of = |it: &Node| self.may_enter(it.0, it.1, located.group);
        let takes_some = |it: &Node| of(it) != Entering::Never;
        let nodes: Vec<Node> = nodes.into_iter().filter(takes_some).collect();
        let has_other = nodes.iter().any(|it| of(it) == Entering::Here);
        nodes.into_iter().filter(|it| !has_other || of(it) == Entering::Here).collect()
    }

    /// Returns the least cost from each node on, of any of what is wanted.
    fn beyond(
        &self,
        now: Instant,
        located: &Located,
        view: &View,
        rules: &Rules,
        wanted: &Wanted<'_>,
    ) -> impl Fn(NodeId) -> Option<Micros> {
        move |node: NodeId| {
            let point = self.point_of(view, Target::Node(node))?;
            let relay = Relay { node, point, is_own: node == self.identity.node };
            let of = |capability: &CapabilityId| {
                let ask = Ask {
                    caller: &located.caller,
                    capability: *capability,
                    path: PathKind::Relayed,
                    mode: wanted.mode,
                    variant: wanted.variant,
                    gpus: wanted.gpus,
                    rules,
                    overlook: false,
                    kept: None,
                    tried: &[],
                    running: None,
                    deadline: None,
                    // Once a session runs both parts of the course are passed alike.
                    cold_round_trips: 1,
                };
                beyond(view, |gauge| gauge.into(), &ask, &relay, now)
            };
            wanted.capabilities.iter().filter_map(of).min()
        }
    }
}

/// A node, where it runs, and how clients reach it.
type Node = (NodeId, RegionId, Option<String>);

/// What somebody wants to enter for; nothing in particular by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Any of these, at most [`WANTED_MAX`].
    pub(crate) capabilities: Vec<CapabilityId>,
    /// How work will be given; `None` either way.
    pub(crate) mode: Option<Mode>,
    /// Only at this price and on this graphics card.
    pub(crate) variant: Option<u32>,
    /// Only on one of these graphics cards; empty takes all.
    pub(crate) gpus: &'a [String],
}

impl Entrance {
    /// Returns the cost of the course, or of the way alone where no more is known.
    pub(crate) fn total(&self) -> Micros {
        self.rtt + self.beyond.unwrap_or_default()
    }
}

/// Nodes weighed in one question, the nearest to the client.
const WEIGHED_MAX: usize = 16;
/// Capabilities weighed in one question; further ones are not looked at.
const WANTED_MAX: usize = 8;
