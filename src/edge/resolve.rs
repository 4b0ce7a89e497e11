//! The resolve door: which node a client should enter by.
//!
//! Nodes are ordered by the way to them: as it was measured, by this node, by clients of the
//! same network, or else as distance lets one expect.

use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::edge::Gateway;
use crate::edge::locate::Located;
use crate::edge::observe::{allowed, open};
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::id::{NodeId, RegionId};
use crate::mesh::{PeerRow, Standing};
use crate::score::Evidence;
use crate::unit::Micros;
use crate::upstream::Body;
use crate::view::row::PLACELESS_RTT;

/// A node a client could enter by.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Entrance {
    /// Which node.
    pub node: NodeId,
    /// Where it runs.
    pub region: RegionId,
    /// How clients reach it; absent when it was not configured here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The round trip to expect.
    pub expected_ms: f64,
    /// Where that comes from.
    pub evidence: Evidence,
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
    let ranked = gateway.entrances(visit.started, &visit.located, visit.base());
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
    /// Returns the nodes that take clients, the shortest way first; ties by name.
    pub(crate) fn entrances(&self, now: Instant, located: &Located, base: String) -> Vec<Entrance> {
        let (view, peers) = (self.view(), self.shared.peers.load());
        let params = self.params.load();
        let own = (self.identity.node, self.identity.region, Some(base));
        let open = |it: &&PeerRow| it.standing == Standing::Up && !it.draining;
        let others =
            peers.rows.iter().filter(open).filter_map(|it| {
                Some((it.node, it.region?, params.peer_urls.get(&it.node).cloned()))
            });
        let nodes: Vec<(NodeId, RegionId, Option<String>)> =
            Some(own).filter(|_| !self.is_draining()).into_iter().chain(others).collect();
        let names: Vec<NodeId> = nodes.iter().map(|it| it.0).collect();
        let legs = self.legs_of(now, located, &view, &names);
        let mut found: Vec<(Micros, Entrance)> = nodes
            .into_iter()
            .map(|(node, region, url)| {
                let leg = legs.iter().find(|it| it.node == node);
                let (rtt, evidence) =
                    leg.map_or((PLACELESS_RTT, Evidence::Default), |it| (it.rtt, it.evidence));
                (rtt, Entrance { node, region, url, expected_ms: rtt.as_ms(), evidence })
            })
            .collect();
        found.sort_by_key(|(rtt, entrance)| (*rtt, entrance.node));
        found.into_iter().map(|(_rtt, entrance)| entrance).collect()
    }
}
