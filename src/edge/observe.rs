//! What clients measure, and tell: `/v1/probe`, `/v1/probe.js` and `POST /v1/observations`.
//!
//! A browser on anybody's page may do all three: what it says counts only for its own network,
//! and only when others there say the same.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::address::Prefix;
use crate::edge::Gateway;
use crate::edge::locate::Arrival;
use crate::edge::refusal::{ServeError, json};
use crate::edge::visit::Visit;
use crate::id::{NodeId, OrchestratorId};
use crate::legs::Target;
use crate::unit::Micros;
use crate::upstream::Body;

/// One report.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    ticket: String,
    observations: Vec<Observation>,
}

/// One round trip, to a node or to an orchestrator.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Observation {
    node: Option<NodeId>,
    orchestrator: Option<String>,
    rtt_ms: f64,
}

/// Answers `GET /v1/probe` with nothing, at once, and `GET /v1/probe.js` with the module that
/// browsers measure with.
pub(crate) fn probe(request: &Request<Incoming>) -> Result<Response<Body>, ServeError> {
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return Ok(allowed()),
        _ => return Err(ServeError::Method("GET, OPTIONS")),
    }
    let mut response = if request.uri().path() == "/v1/probe.js" {
        let mut response = Response::new(Body::whole(MODULE));
        let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    } else {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        response
    };
    open(response.headers_mut());
    Ok(response)
}

/// Answers `POST /v1/observations`.
pub(crate) async fn answer(
    gateway: &Gateway,
    arrival: &Arrival,
    visit: Visit,
    request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    match *request.method() {
        Method::POST => {}
        Method::OPTIONS => return Ok(allowed()),
        _ => return Err(ServeError::Method("POST, OPTIONS")),
    }
    let _permit = gateway.permit()?;
    let ip = gateway.client_ip(arrival, request.headers());
    let body = Limited::new(request.into_body(), REPORT_MAX).collect();
    let body = tokio::time::timeout(REPORT_WITHIN, body).await;
    let body = body.map_err(|_elapsed| ServeError::Body("too slow".to_owned()))?;
    let body = body.map_err(|broken| ServeError::Body(broken.to_string()))?.to_bytes();
    let report: Report = serde_json::from_slice(&body).map_err(|bad| {
        let form = r#"{"ticket":"…","observations":[{"node":"fra-1","rtt_ms":12.5}]}"#;
        ServeError::BadRequest(format!("send {form}: {bad}"))
    })?;
    if report.observations.len() > OBSERVATIONS_MAX {
        let said = format!("at most {OBSERVATIONS_MAX} observations in one report; send fewer");
        return Err(ServeError::BadRequest(said));
    }
    gateway
        .key
        .open_probe(&report.ticket, Prefix::of(ip), Gateway::wall_s())
        .map_err(ServeError::Survey)?;
    let targets: Vec<Result<(Target, Micros), &str>> =
        report.observations.iter().map(|it| it.read(gateway)).collect();
    let seen: Vec<(Target, Micros)> = targets.iter().filter_map(|it| it.ok()).collect();
    let mut taken = gateway.note_reports(visit.started, ip, &seen).into_iter();
    let said = targets.iter().enumerate().filter_map(|(at, target)| {
        let why = match target {
            Ok(_) => taken.next()?.err()?.to_string(),
            Err(why) => (*why).to_owned(),
        };
        Some(serde_json::json!({ "at": at, "why": why }))
    });
    let refused: Vec<serde_json::Value> = said.collect();
    let accepted = targets.len() - refused.len();
    let told = serde_json::json!({ "accepted": accepted, "refused": refused });
    let mut response = json(StatusCode::ACCEPTED, told.to_string());
    open(response.headers_mut());
    Ok(response)
}

impl Observation {
    /// Returns what it is about, if that is known here: a table full of made-up names would
    /// have no room for real ones.
    fn read(&self, gateway: &Gateway) -> Result<(Target, Micros), &'static str> {
        let (view, peers) = (gateway.shared.view.load(), gateway.shared.peers.load());
        let target = match (self.node, self.orchestrator.as_deref()) {
            (Some(node), None) => {
                let is_peer = || peers.rows.iter().any(|it| it.node == node);
                let known = node == gateway.identity.node || is_peer();
                known.then_some(Target::Node(node)).ok_or("no such node is known here")?
            }
            (None, Some(id)) => {
                let id: Option<OrchestratorId> = id.parse().ok();
                let known = id.filter(|id| view.orchestrator(*id).is_some());
                known.map(Target::Orchestrator).ok_or("no such orchestrator is known here")?
            }
            _ => return Err("name either a node or an orchestrator"),
        };
        // What is no number of microseconds is refused by its range.
        Ok((target, Micros((self.rtt_ms * 1000.0) as u64)))
    }
}

/// Lets pages of other origins read the answer, and its times.
pub(crate) fn open(headers: &mut HeaderMap) {
    let anybody = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anybody.clone());
    headers.insert(TIMING_ALLOW_ORIGIN, anybody);
}

/// Answers a browser that asks whether it may.
pub(crate) fn allowed() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    open(headers);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, OPTIONS"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

const MODULE: &str = include_str!("probe.js");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// A report of [`OBSERVATIONS_MAX`] takes half of it.
const REPORT_MAX: usize = 16 * 1024;
const REPORT_WITHIN: Duration = Duration::from_secs(5);
/// More than a client is asked to measure.
pub const OBSERVATIONS_MAX: usize = 64;
