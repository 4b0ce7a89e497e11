//! Which door a request takes, and what is counted of its answer.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use metrics::{counter, histogram};
use rand::RngExt;
use tracing::Instrument;

use crate::clock;
use crate::edge::apps;
use crate::edge::discover;
use crate::edge::locate::Connection;
use crate::edge::refusal::ServeError;
use crate::edge::resolve;
use crate::edge::visit::Visit;
use crate::edge::{Gateway, serve};
use crate::trace::TraceContext;
use crate::upstream::Body;

/// Answers one request; never fails, since every failure is an answer.
pub async fn answer(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = clock::now();
    let method = request.method().clone();
    let (door, result) = dispatch(&gateway, &connection, request, started).await;
    let response = result.unwrap_or_else(|error| refuse(door, &method, started, error));
    let status = response.status();
    if door != "apps" && status.is_success() {
        tracing::info!(target: "access", door, %method, status = status.as_u16(), "answered");
    }
    counter!("portolan_requests_total", "door" => door, "code" => code(status)).increment(1);
    let took = clock::now().saturating_duration_since(started).as_secs_f64();
    histogram!("http_server_request_duration_seconds", "door" => door).record(took);
    response
}

async fn dispatch(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    request: Request<Incoming>,
    started: Instant,
) -> (&'static str, Result<Response<Body>, ServeError>) {
    let door = door(request.uri().path());
    let visit = Visit {
        started,
        trace: trace(&request),
        located: gateway.locate(connection, request.headers()),
        base: gateway.base(&request, connection),
        explain: request.headers().contains_key("portolan-explain"),
        method: request.method().clone(),
        door,
    };
    let span = tracing::debug_span!("request", door, trace = %visit.trace);
    let result = enter(gateway, visit, request).instrument(span).await;
    (door, result)
}

/// Takes the request through its door.
async fn enter(
    gateway: &Arc<Gateway>,
    visit: Visit,
    request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    match visit.door {
        "discover" => discover::answer(gateway, &visit, &request),
        "resolve" => resolve::answer(gateway, &visit, &request),
        "discovery" => apps::list(gateway, &visit, &request),
        "apps" => match apps::job(gateway, visit, request).await {
            Ok(job) => serve(gateway, job).await,
            Err(error) => Err(error),
        },
        _ => Err(ServeError::NoDoor),
    }
}

fn door(path: &str) -> &'static str {
    match path {
        "/discover-orchestrators" => "discover",
        "/v1/resolve" => "resolve",
        "/discovery" => "discovery",
        "/refresh-payment" => "apps",
        _ if path.starts_with("/apps/") || path.starts_with("/run/") => "apps",
        _ => "none",
    }
}

fn refuse(
    door: &'static str,
    method: &Method,
    started: Instant,
    error: ServeError,
) -> Response<Body> {
    let took = clock::now().saturating_duration_since(started);
    tracing::info!(
        target: "access",
        door,
        %method,
        status = error.status().as_u16(),
        duration_us = took.as_micros() as u64,
        %error,
        "refused"
    );
    error.into_response()
}

/// Continues the client's trace, or begins one.
fn trace(request: &Request<Incoming>) -> TraceContext {
    let mut rng = rand::rng();
    let parent = request.headers().get("traceparent").and_then(|it| it.to_str().ok());
    match parent.and_then(|it| it.parse::<TraceContext>().ok()) {
        Some(parent) => parent.child(rng.random()),
        None => TraceContext::new([rng.random(), rng.random()], rng.random()),
    }
}

impl Gateway {
    /// Returns how the client reached this node, for URLs it is given.
    fn base(&self, request: &Request<Incoming>, connection: &Connection) -> String {
        if let Some(url) = &self.params.public_url {
            return url.clone();
        }
        let text = |name: &str| request.headers().get(name)?.to_str().ok();
        let tls = self.params.proxies.trusts(connection.peer())
            && text("x-forwarded-proto").is_some_and(|it| it == "https");
        let scheme = if tls { "https" } else { "http" };
        let host = text("host").filter(|it| it.parse::<http::uri::Authority>().is_ok());
        format!("{scheme}://{}", host.unwrap_or("localhost"))
    }
}

/// Returns a status as a label; there are only so many.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        101 => "101",
        200 => "200",
        201..=299 => "2xx",
        307 => "307",
        300..=399 => "3xx",
        400 => "400",
        402 => "402",
        404 => "404",
        429 => "429",
        401..=499 => "4xx",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}
