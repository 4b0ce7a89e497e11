//! The resolve door: which node a client should enter by.
//!
//! Nodes are ordered by the whole course: the way to them, as it was measured by this node, by
//! clients of the same network or by peers, or else as distance lets one expect; and, when a
//! client says what for (`?app=`, `?caps=`), the best that lies beyond each.

use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::edge::Gateway;
use crate::edge::discover::Filters;
use crate::edge::locate::Located;
use crate::edge::observe::{allowed, open};
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::edge::ways::url_of;
use crate::id::NodeId;
use crate::legs::Target;
use crate::mesh::{PeerRow, Standing};
use crate::policy::beyond::{Relay, beyond};
use crate::policy::entrance::{Entrance, Open, entrances};
use crate::policy::{Ask, PathKind, Rules};
use crate::unit::Micros;
use crate::upstream::Body;
use crate::view::row::Mode;
use crate::view::{CapabilityId, View};

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
    let wanted = Wanted::of(&filters, &view);
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
    /// Returns the nodes that take this client, as [`entrances`] ranks them. Without anything
    /// asked for, or where nobody offers it, the way to the node is all of it.
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
        let mut nodes: Vec<Open> =
            Some(own).filter(|_| !is_out).into_iter().chain(others).collect();
        let in_force = self.shared.orders.load();
        in_force.orders.retain_open(&mut nodes, |it| (it.0, it.1), located.group);
        let names: Vec<NodeId> = nodes.iter().map(|it| it.0).collect();
        let legs = self.legs_of(now, located, &view, &names);
        let rules = self.under_orders(&params.rules, &view, located);
        let beyond = self.beyond(now, located, &view, &rules, wanted);
        entrances(nodes, &legs, beyond)
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
                    mode: wanted.mode,
                    variant: wanted.variant,
                    gpus: wanted.gpus,
                    // Once a session runs both parts of the course are passed alike.
                    cold_round_trips: 1,
                    ..Ask::new(&located.caller, *capability, PathKind::Relayed, rules)
                };
                beyond(view, |gauge| gauge.into(), &ask, &relay, now)
            };
            wanted.capabilities.iter().filter_map(of).min()
        }
    }
}

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

impl<'a> Wanted<'a> {
    /// Reads what a client named; where it named no capability, nothing in particular.
    fn of(filters: &'a Filters, view: &View) -> Self {
        let named = filters.capabilities(view).filter(|_| filters.names_some());
        let capabilities = named.take(WANTED_MAX).collect();
        Self { capabilities, gpus: filters.gpus(), ..Self::default() }
    }
}

/// Capabilities weighed in one question; further ones are not looked at.
const WANTED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{atlas, view};

    #[test]
    fn so_many_capabilities_are_weighed_and_none_where_none_is_named() {
        let view = view(&atlas(1), 1, WANTED_MAX + 2);
        let n_wanted = |n: usize| {
            let query: Vec<String> = (0..n).map(|it| format!("app=app/{it}")).collect();
            let filters = Filters::read(Some(&query.join("&"))).unwrap();
            Wanted::of(&filters, &view).capabilities.len()
        };
        assert_eq!(
            [0, 1, WANTED_MAX, WANTED_MAX + 1].map(n_wanted),
            [0, 1, WANTED_MAX, WANTED_MAX]
        );
    }
}
