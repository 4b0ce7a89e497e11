//! The discover door: a fresh list in steering order.
//!
//! For SDKs, which walk it from the top, and for `-orchWebhookUrl` of a stock gateway. What
//! it orders is the direct path, from the client to the orchestrator.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::clock;
use crate::edge::Gateway;
use crate::edge::locate::Located;
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::id::NodeId;
use crate::policy::{Ask, PathKind, Seen, in_order, rank};
use crate::unit::log2_q10;
use crate::upstream::Body;
use crate::view::row::{Row, Standing};
use crate::view::{CapabilityId, View};

/// What a client asks for: any of each kind, and all kinds at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    caps: Vec<String>,
    apps: Vec<String>,
    gpus: Vec<String>,
}

impl Filters {
    /// Reads a query string; unknown parameters are ignored, as stock services do.
    pub fn read(query: Option<&str>) -> Result<Self, ServeError> {
        let mut filters = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|it| !it.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let list = match name {
                "caps" => &mut filters.caps,
                "app" => &mut filters.apps,
                "gpu" => &mut filters.gpus,
                _ => continue,
            };
            let value = decode(value).ok_or_else(|| {
                ServeError::BadRequest(format!("{name}: percent-encode it as UTF-8"))
            })?;
            if list.len() == FILTERS_MAX {
                return Err(ServeError::BadRequest(format!(
                    "{name}: at most {FILTERS_MAX} values; ask again with fewer"
                )));
            }
            if !value.is_empty() {
                list.push(value);
            }
        }
        Ok(filters)
    }

    /// Tells whether an app is asked for.
    pub fn takes_app(&self, app: &str) -> bool {
        self.apps.is_empty() || self.apps.iter().any(|it| it == app)
    }

    /// Tells whether a graphics card is asked for.
    pub fn takes_gpu(&self, gpu: Option<&str>) -> bool {
        self.gpus.is_empty() || self.gpus.iter().any(|it| Some(it.as_str()) == gpu)
    }

    /// Returns the capabilities asked for that anybody ever offered; all where none is named.
    pub(crate) fn capabilities(&self, view: &View) -> impl Iterator<Item = CapabilityId> {
        let wanted = |name: &str| {
            let by_caps = self.caps.is_empty() || self.caps.iter().any(|it| it == name);
            by_caps && self.takes_app(name)
        };
        view.capabilities.iter().filter(move |(_, name)| wanted(name)).map(|(id, _)| id)
    }

    /// Tells whether capabilities are named.
    pub(crate) fn names_some(&self) -> bool {
        !self.caps.is_empty() || !self.apps.is_empty()
    }

    /// Returns the graphics cards asked for; empty takes all.
    pub(crate) fn gpus(&self) -> &[String] {
        &self.gpus
    }

    fn is_empty(&self) -> bool {
        self.caps.is_empty() && self.apps.is_empty() && self.gpus.is_empty()
    }
}

/// Answers `GET /discover-orchestrators`.
pub(crate) fn answer(
    gateway: &Gateway,
    visit: &Visit,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ServeError::Method("GET"));
    }
    let filters = Filters::read(request.uri().query())?;
    let _permit = gateway.permit()?;
    let view = gateway.view();
    let order = if filters.is_empty() {
        everyone(gateway, &view, &visit.located)
    } else {
        matching(gateway, &view, &visit.located, &filters)
    };
    let list: Vec<serde_json::Value> =
        order.iter().take(LIST_MAX).map(|row| entry(&view, row, &filters)).collect();
    let mut response = json(StatusCode::OK, serde_json::Value::from(list).to_string());
    // The body is a stock one: what clients may measure and tell stands beside it.
    let survey = gateway.survey(visit);
    for (name, text) in [(TICKET, survey.ticket), (PROBES, urls(&survey.nodes))] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Returns names and URLs as one header holds them: `fra-1=https://…, was-1=https://…`.
fn urls(nodes: &BTreeMap<NodeId, String>) -> String {
    nodes.iter().map(|(node, url)| format!("{node}={url}")).collect::<Vec<_>>().join(", ")
}

/// Everyone who is well, by the way to them. Nothing is promised: who asks for nothing in
/// particular makes a choice of its own.
fn everyone(gateway: &Gateway, view: &View, located: &Located) -> Vec<Arc<Row>> {
    let (params, caller) = (gateway.params.load(), &located.caller);
    let rules = gateway.under_orders(&params.rules, view, located);
    let is_shut =
        |row: &Row| rules.shut.as_ref().is_some_and(|it| it.leaves_out(row.id, row.region));
    let ready = view.rows().map(|(_slot, row)| row);
    let ready = ready.filter(|row| row.standing == Standing::Ready && !is_shut(row));
    let mut order: Vec<&Arc<Row>> = ready.collect();
    order.sort_by_cached_key(|row| {
        let way = row.expected_from(&caller.place.point).0;
        (log2_q10(way.0) / 72, row.id)
    });
    order.into_iter().map(Arc::clone).collect()
}

/// Everyone who offers one of the capabilities asked for, by the least cost of any; those
/// on top are promised to the caller.
fn matching(gateway: &Gateway, view: &View, located: &Located, filters: &Filters) -> Vec<Arc<Row>> {
    let (params, caller) = (gateway.params.load(), &located.caller);
    let now = clock::now();
    let rules = gateway.under_orders(&params.rules, view, located);
    let mut seen: Vec<Seen> = Vec::new();
    for capability in filters.capabilities(view) {
        let ask =
            Ask { gpus: &filters.gpus, ..Ask::new(caller, capability, PathKind::Direct, &rules) };
        seen.extend(rank(view, |gauge| gauge.into(), &ask, now, LIST_MAX));
    }
    let order = in_order(seen, LIST_MAX, gateway.draw());
    view.promise(now, order.iter().map(|it| it.member));
    order.iter().filter_map(|it| view.row(it.member.slot).map(Arc::clone)).collect()
}

fn entry(view: &View, row: &Row, filters: &Filters) -> serde_json::Value {
    let names = row.offers.iter().map(|offer| view.capabilities.name(offer.capability));
    let mut capabilities: Vec<&str> = names.map(AsRef::as_ref).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let runners: Vec<serde_json::Value> = row
        .offers
        .iter()
        .filter(|offer| filters.takes_app(view.capabilities.name(offer.capability)))
        .filter_map(|offer| offer.runner.as_ref())
        .filter(|runner| filters.takes_gpu(runner.gpu.as_deref()))
        .filter_map(|runner| serde_json::from_str(&runner.advert).ok())
        .collect();
    let mut entry = serde_json::json!({
        "address": row.uri.as_str(),
        "score": 1,
        "capabilities": capabilities,
    });
    if let (Some(fields), false) = (entry.as_object_mut(), runners.is_empty()) {
        fields.insert("runners".to_owned(), runners.into());
    }
    entry
}

/// Decodes percent-encoding and `+`; `None` for what is no UTF-8 text or has control
/// characters.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|it| !it.contains(char::is_control))
}

const TICKET: HeaderName = HeaderName::from_static("portolan-probe-ticket");
const PROBES: HeaderName = HeaderName::from_static("portolan-probes");
/// Values of one kind a client may ask for.
const FILTERS_MAX: usize = 64;
/// Orchestrators in one list: more than any client walks.
const LIST_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_read_as_the_sdk_writes_them() {
        let read = Filters::read(Some("app=demo/echo&gpu=H100&gpu=L40%20S&caps=a/b&x=1")).unwrap();
        assert_eq!(read.apps, ["demo/echo"]);
        assert_eq!(read.gpus, ["H100", "L40 S"]);
        assert_eq!(read.caps, ["a/b"]);
        assert!(read.takes_app("demo/echo") && !read.takes_app("demo/once"));
        assert!(read.takes_gpu(Some("H100")) && !read.takes_gpu(None));
    }

    #[test]
    fn too_many_or_unreadable_filters_are_refused_with_a_remedy() {
        let many = vec!["app=x"; FILTERS_MAX + 1].join("&");
        let error = Filters::read(Some(&many)).unwrap_err();
        assert!(error.to_string().contains("ask again with fewer"), "{error}");
        assert!(Filters::read(Some("app=%ff")).is_err());
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in ".{0,200}") {
            drop(Filters::read(Some(&query)));
        }
    }
}
