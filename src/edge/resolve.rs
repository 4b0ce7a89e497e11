//! The resolve door: which node a client should enter by.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::edge::Gateway;
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::geo::{Point, expected_rtt};
use crate::id::{NodeId, RegionId};
use crate::mesh::Standing;
use crate::unit::Micros;
use crate::upstream::Body;

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
}

/// Answers `GET /v1/resolve`: JSON, or a 307 for a client that asks with `redirect=1`.
pub(crate) fn answer(
    gateway: &Gateway,
    visit: &Visit,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ServeError::Method("GET"));
    }
    let ranked = entrances(gateway, &visit.base(), &visit.located.caller.place.point);
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
    });
    let mut response = json(StatusCode::OK, body.to_string());
    if let Some(url) = target.and_then(|url| HeaderValue::from_str(&url).ok()) {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(header::LOCATION, url);
    }
    Ok(response)
}

/// Returns the nodes that take clients, nearest first; ties by name.
pub(crate) fn entrances(gateway: &Gateway, base: &str, from: &Point) -> Vec<Entrance> {
    let (view, params) = (gateway.view(), gateway.params.load());
    let way = |region: RegionId| {
        let number = view.atlas.names.iter().position(|it| *it == region)?;
        Some(expected_rtt(from.distance_m(&view.atlas.points[number])))
    };
    let mut found: Vec<(Micros, Entrance)> = Vec::new();
    let mut add = |node: NodeId, region: RegionId, url: Option<String>| {
        let rtt = way(region).unwrap_or(crate::view::row::PLACELESS_RTT);
        found.push((rtt, Entrance { node, region, url, expected_ms: rtt.as_ms() }));
    };
    if !gateway.is_draining() {
        add(gateway.identity.node, gateway.identity.region, Some(base.to_owned()));
    }
    for peer in &gateway.shared.peers.load().rows {
        let open = peer.standing == Standing::Up && !peer.draining;
        if let Some(region) = peer.region.filter(|_| open) {
            add(peer.node, region, params.peer_urls.get(&peer.node).cloned());
        }
    }
    found.sort_by_key(|(rtt, entrance)| (*rtt, entrance.node));
    found.into_iter().map(|(_rtt, entrance)| entrance).collect()
}
