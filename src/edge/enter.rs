//! Which door a request takes, and what is counted of its answer.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use hyper::body::Incoming;
use metrics::{Counter, Histogram, counter, histogram};
use rand::RngExt;
use tracing::Instrument;

use crate::clock;
use crate::edge::apps;
use crate::edge::discover;
use crate::edge::fields::Fields;
use crate::edge::grpc;
use crate::edge::locate::Arrival;
use crate::edge::observe;
use crate::edge::refusal::ServeError;
use crate::edge::resolve;
use crate::edge::visit::Visit;
use crate::edge::{Gateway, serve, steer};
use crate::http1::Fault;
use crate::listen::connection::Connection;
use crate::listen::names::host_of;
use crate::listen::pace::Busy;
use crate::listen::screened::REFUSED;
use crate::trace::TraceContext;
use crate::upstream::Body;

/// Answers one request; never fails, since every failure is an answer.
pub async fn answer(
    gateway: Arc<Gateway>,
    arrival: Arc<Arrival>,
    request: Box<Request<Incoming>>,
) -> Result<Response<Body>, Infallible> {
    let started = clock::now();
    let method = request.method().clone();
    let fields = Fields::of(request.headers());
    let is_grpc = fields.has(Fields::CONTENT_TYPE) && grpc::is_grpc(request.headers());
    let (door, result) = match screen(&arrival.connection, &request) {
        Ok(()) => dispatch(&gateway, &arrival, request, fields, started).await,
        Err(error) => ("none", Err(error)),
    };
    let mut response = match result {
        Ok(response) => response,
        Err(error) => {
            let response = refuse(door, &method, started, error);
            if is_grpc { grpc::refusal(&response) } else { response }
        }
    };
    if arrival.connection.secured.is_some() {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, A_YEAR);
    }
    let status = response.status();
    if door != "apps" && status.is_success() {
        tracing::info!(target: "access", door, %method, status = status.as_u16(), "answered");
    }
    let took = clock::now().saturating_duration_since(started).as_secs_f64();
    count(door, code(status), took);
    Ok(response)
}

/// Counts an answer. The one kind most are of has its counters looked up once.
fn count(door: &'static str, code: &'static str, took_s: f64) {
    static USUAL: OnceLock<(Counter, Histogram)> = OnceLock::new();
    let find = || {
        let requests = counter!("portolan_requests_total", "door" => door, "code" => code);
        (requests, histogram!("http_server_request_duration_seconds", "door" => door))
    };
    let found;
    let (requests, durations) = if (door, code) == ("apps", "200") {
        USUAL.get_or_init(find)
    } else {
        found = find();
        &found
    };
    requests.increment(1);
    durations.record(took_s);
}

/// Refuses what only looks like a request, or belongs elsewhere.
fn screen(connection: &Connection, request: &Request<Incoming>) -> Result<(), ServeError> {
    let (uri, headers) = (request.uri(), request.headers());
    if let Some(fault) = connection.fault().filter(|_| request.method().as_str() == REFUSED) {
        return Err(fault.into());
    }
    let named = headers.get(header::HOST).and_then(|it| it.to_str().ok());
    let asked = uri.authority().map(http::uri::Authority::as_str);
    if request.version() == Version::HTTP_2 {
        // What HTTP/1.1 is screened for before it is parsed, as far as HTTP/2 can carry it.
        if named.zip(asked).is_some_and(|(named, asked)| !named.eq_ignore_ascii_case(asked)) {
            return Err(Fault::HostDiffers.into());
        }
        if asked.is_some_and(|asked| asked.contains('@')) {
            return Err(Fault::Host.into());
        }
        if headers.keys().any(|name| name.as_str().contains('_')) {
            return Err(Fault::Name.into());
        }
        if request.method() == Method::CONNECT {
            return Err(Fault::Connect.into());
        }
    }
    let host = asked.or(named).map(host_of);
    match host {
        Some(host) if connection.misdirects(host) => Err(ServeError::Misdirected),
        Some(_) | None => Ok(()),
    }
}

async fn dispatch(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    request: Box<Request<Incoming>>,
    fields: Fields,
    started: Instant,
) -> (&'static str, Result<Response<Body>, ServeError>) {
    let door = door(request.uri().path());
    let params = gateway.params.load_full();
    let visit = Visit {
        started,
        trace: trace(&request, fields),
        located: gateway.locate(arrival, request.headers(), started),
        tls: gateway.is_tls(&arrival.connection, request.headers()),
        authority: if params.public_url.is_none() { authority(&request) } else { None },
        fields,
        method: request.method().clone(),
        params,
        busy: Some(Arc::new(Busy::begin(&arrival.connection))),
        door,
    };
    let span = tracing::debug_span!("request", door, trace = %visit.trace);
    // Boxed, since what holds it is moved on its way.
    let entered = Box::pin(enter(gateway, arrival, visit, request));
    // A span nobody looks at would still be entered and left at every step.
    let result = if span.is_disabled() { entered.await } else { entered.instrument(span).await };
    (door, result)
}

/// Takes the request through its door.
async fn enter(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    visit: Visit,
    request: Box<Request<Incoming>>,
) -> Result<Response<Body>, ServeError> {
    match visit.door {
        "discover" => discover::answer(gateway, &visit, &request),
        "resolve" => resolve::answer(gateway, &visit, &request),
        "discovery" => apps::list(gateway, &visit, &request),
        "apps" => {
            // Nothing of it is kept while the request is served.
            if visit.fields.has(Fields::STEER)
                && let Some(elsewhere) = gateway.steered(&visit, &request)?
            {
                return Ok(elsewhere);
            }
            match apps::job(gateway, visit, *request).await {
                Ok(job) => serve(gateway, job).await,
                Err(error) => Err(error),
            }
        }
        "steered" => Box::pin(steer::arrived(gateway, visit, *request)).await,
        "probe" => observe::probe(&request),
        "observe" => Box::pin(observe::answer(gateway, arrival, visit, *request)).await,
        "grpc" => Box::pin(grpc::answer(*request)).await,
        _ => Err(ServeError::NoDoor),
    }
}

fn door(path: &str) -> &'static str {
    match path {
        "/discover-orchestrators" => "discover",
        "/v1/resolve" => "resolve",
        "/discovery" => "discovery",
        "/v1/probe" | "/v1/probe.js" => "probe",
        "/v1/observations" => "observe",
        "/refresh-payment" => "apps",
        _ if path.starts_with("/net.Orchestrator/") => "grpc",
        _ if path.starts_with("/apps/") || path.starts_with("/run/") => "apps",
        _ if path.starts_with(steer::PREFIX) => "steered",
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
fn trace(request: &Request<Incoming>, fields: Fields) -> TraceContext {
    let mut rng = rand::rng();
    let named = fields.has(Fields::TRACEPARENT).then(|| request.headers().get(TRACEPARENT));
    let parent = named.flatten().and_then(|it| it.to_str().ok());
    match parent.and_then(|it| it.parse::<TraceContext>().ok()) {
        Some(parent) => parent.child(rng.random()),
        None => TraceContext::new([rng.random(), rng.random()], rng.random()),
    }
}

/// Returns the authority a client named: in HTTP/2 with the target, in HTTP/1.1 as `Host`.
fn authority(request: &Request<Incoming>) -> Option<HeaderValue> {
    match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

impl Gateway {
    /// Tells whether a client came by TLS, by the word of a trusted proxy where there is one.
    fn is_tls(&self, connection: &Connection, headers: &HeaderMap) -> bool {
        let trusted = || self.params.load().proxies.trusts(connection.peer());
        let told = || headers.get(FORWARDED_PROTO).is_some_and(|it| it == "https");
        connection.secured.is_some() || (trusted() && told())
    }
}

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Whoever came by TLS once is to come by it always.
const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

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
        413 => "413",
        421 => "421",
        429 => "429",
        401..=499 => "4xx",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}
