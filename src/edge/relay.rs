//! Bytes both ways until one side ends, and what is noted when they have.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use metrics::counter;
use tokio::task::JoinSet;

use crate::clock;
use crate::edge::job::{Job, Work};
use crate::edge::listen::pace::Busy;
use crate::edge::refusal::ServeError;
use crate::edge::rewrite::Rewriter;
use crate::edge::route::{AnswerBody, Attempt, Exchange, Opened, Route};
use crate::edge::upload::Upload;
use crate::edge::{Gateway, Place, explain};
use crate::journal::UsageRecord;
use crate::session::Entry;
use crate::session::Reason;
use crate::session::table::{Opening, Using};
use crate::text::Hex;
use crate::ticket::Ticket;
use crate::upstream::body::{End, Watch};
use crate::upstream::{Body, Lease};
use crate::view::outcome::Outcome;
use crate::view::row::Mode;

/// Passes an answer on. From here on nothing is retried.
pub(crate) async fn relay(
    gateway: &Arc<Gateway>,
    place: Option<Place>,
    mut job: Job,
    route: Route,
    opened: Opened,
) -> Result<Response<Body>, ServeError> {
    let Opened { exchange, attempt } = opened;
    let status = exchange.status();
    let timing = timing(&job, &exchange);
    let session = within(gateway, &job, &route, status);
    let note = Note(Some(Noted {
        place,
        attempt,
        session,
        usage: usage(gateway, &job, Some(&route), status),
        started: job.visit.started,
        upload: exchange.upload.clone(),
        lease: None,
        busy: job.visit.busy.clone(),
    }));
    let fresh = matches!(job.work, Work::New { mode: Mode::Persistent, .. }) && status.is_success();
    let mut response = match status {
        StatusCode::SWITCHING_PROTOCOLS => switch(gateway, &mut job, exchange, note)?,
        StatusCode::PAYMENT_REQUIRED => challenge(gateway, &job, &route, exchange, note).await?,
        // Fresh payment parameters are a challenge that comes as a success.
        StatusCode::OK if matches!(job.work, Work::Refresh { .. }) => {
            challenge(gateway, &job, &route, exchange, note).await?
        }
        _ if fresh => reserved(gateway, &job, &route, exchange, note).await?,
        _ => stream(exchange, note),
    };
    mark(gateway, &job, &route, timing, response.headers_mut());
    Ok(response)
}

/// Streams an answer through, watched.
fn stream(exchange: Exchange, mut note: Note) -> Response<Body> {
    let Exchange { head: mut parts, body, lease, .. } = exchange;
    clean(&mut parts.headers);
    match body {
        AnswerBody::Stream(body) => {
            note.with(|it| it.lease = Some(lease));
            Response::from_parts(parts, Body::watched(body, Box::new(note)))
        }
        AnswerBody::Whole(body) => {
            lease.put_back(clock::now());
            respond(parts, body, note)
        }
    }
}

/// Reads a reservation, opens its session, and hands out URLs of this mesh.
async fn reserved(
    gateway: &Gateway,
    job: &Job,
    route: &Route,
    exchange: Exchange,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let (parts, body) = whole(exchange, &mut note).await?;
    let Ok(found) = rewriter(gateway, job, route).reserved(&body) else {
        // Whatever this is, it is no session: a broken orchestrator, not a broken client.
        note.with(|it| it.usage.status = StatusCode::BAD_GATEWAY.as_u16());
        note.end(End::Cut);
        let said = "the orchestrator's answer is not a reserved session".to_owned();
        return Err(ServeError::Failed(said));
    };
    let app = match &job.work {
        Work::New { app, .. } => Arc::clone(app),
        Work::Within { .. } | Work::Refresh { .. } => "".into(),
    };
    let session = found.session.clone();
    note.with(|it| it.usage.session = Some(session));
    gateway.shared.sessions.open(
        clock::now(),
        Opening {
            orchestrator: route.row.id,
            session: found.session,
            uri: route.row.uri.clone(),
            app,
            control: found.control,
            home: job.visit.located.home,
            caller: job.visit.located.caller.place,
            decision: job.decision,
            gauge: Arc::clone(&route.row.gauge),
        },
    );
    Ok(respond(parts, found.body, note))
}

/// Binds a payment challenge to its orchestrator and passes it on.
async fn challenge(
    gateway: &Gateway,
    job: &Job,
    route: &Route,
    exchange: Exchange,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let (parts, body) = whole(exchange, &mut note).await?;
    match rewriter(gateway, job, route).challenged(&body) {
        Ok(found) => {
            gateway.bindings.bind(clock::now(), found.manifest, route.row.id);
            Ok(respond(parts, found.body, note))
        }
        // Some 402 carry a message only; it passes as it came.
        Err(_message) => Ok(respond(parts, body, note)),
    }
}

/// Joins the two sides after both agreed to speak something else than HTTP.
fn switch(
    gateway: &Gateway,
    job: &mut Job,
    exchange: Exchange,
    mut note: Note,
) -> Result<Response<Body>, ServeError> {
    let refused = || ServeError::BadRequest("this request did not ask for an upgrade".to_owned());
    let client = job.upgrade.take().ok_or_else(refused)?;
    let Exchange { head, lease, .. } = exchange;
    let mut passed = Response::new(Body::Empty);
    *passed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *passed.headers_mut() = head.headers.clone();
    let upstream = hyper::upgrade::on(Response::from_parts(head, ()));
    gateway.upgrades.run(async move {
        // The connection is the stream's now; its place stays taken until the end.
        let _lease = lease;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            return note.end(End::Cut);
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let copied = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        // Which of the two sides vanished is not told; nobody is blamed for it.
        let end = if copied.is_ok() { End::Whole } else { End::Abandoned };
        let (up, down) = copied.unwrap_or_default();
        note.with(|it| it.usage.bytes_up += up);
        note.passed(down as usize);
        note.end(end);
    });
    Ok(passed)
}

/// Reads a short answer whole; its connection is then free.
async fn whole(
    mut exchange: Exchange,
    note: &mut Note,
) -> Result<(http::response::Parts, Bytes), ServeError> {
    if let Err(said) = exchange.read_whole().await {
        note.end(End::Cut);
        return Err(ServeError::Failed(said));
    }
    let Exchange { head: mut parts, body, lease, .. } = exchange;
    let AnswerBody::Whole(body) = body else {
        note.end(End::Cut);
        return Err(ServeError::Failed("its answer was not read".to_owned()));
    };
    lease.put_back(clock::now());
    clean(&mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok((parts, body))
}

fn respond(parts: http::response::Parts, body: impl Into<Bytes>, mut note: Note) -> Response<Body> {
    let body = body.into();
    note.passed(body.len());
    note.end(End::Whole);
    Response::from_parts(parts, Body::whole(body))
}

/// Finds the session a request belongs to, or takes it in when this node has not seen it
/// yet, since another node reserved it or this one was restarted; and notes what the answer
/// says of its end.
fn within(gateway: &Gateway, job: &Job, route: &Route, status: StatusCode) -> Option<Using> {
    let Work::Within { ticket, stop, .. } = &job.work else { return None };
    let gone = status == StatusCode::NOT_FOUND;
    let key = (ticket.orchestrator, ticket.session.clone());
    let entry = match gateway.shared.sessions.find(&key) {
        Some(entry) => entry,
        // A session its orchestrator does not know is none.
        None if gone || !gateway.shared.sessions.has_room() => return None,
        None => adopt(gateway, job, route, ticket),
    };
    if *stop && (status.is_success() || gone) {
        entry.note_end(Reason::Stopped);
    } else if gone && route.path == format!("{}/payment", entry.control) {
        // Only the orchestrator's own paths tell that the session is gone; an app may answer
        // 404 for reasons of its own.
        entry.note_end(Reason::Lost);
    }
    entry.begin(clock::now())
}

fn adopt(gateway: &Gateway, job: &Job, route: &Route, ticket: &Ticket) -> Arc<Entry> {
    let control = ticket.path.strip_suffix("/app").unwrap_or(&ticket.path);
    gateway.shared.sessions.open(
        clock::now(),
        Opening {
            orchestrator: route.row.id,
            session: ticket.session.clone(),
            uri: route.row.uri.clone(),
            app: "".into(),
            control: control.to_owned(),
            home: job.visit.located.home,
            caller: job.visit.located.caller.place,
            decision: None,
            gauge: Arc::clone(&route.row.gauge),
        },
    )
}

pub(crate) fn rewriter<'a>(gateway: &'a Gateway, job: &'a Job, route: &'a Route) -> Rewriter<'a> {
    Rewriter {
        key: &gateway.key,
        base: &job.visit.base,
        orchestrator: route.row.id,
        uri: &route.row.uri,
        expires: Gateway::wall_s() + job.visit.params.ticket_for.as_secs(),
    }
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1).
pub(crate) fn clean(headers: &mut HeaderMap) {
    let named: Vec<Vec<u8>> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    remove(headers, |name| match name {
        "connection" | "keep-alive" | "proxy-authenticate" | "proxy-authorization" => true,
        "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => true,
        // A peer cannot have these removed by naming them.
        "content-length" | "host" | "content-type" | "authorization" => false,
        name => named.iter().any(|it| it == name.as_bytes()),
    });
}

/// Removes the fields whose names are `unwanted`: of the few there are each is asked once,
/// rather than each of the many unwanted ones looked for.
pub(crate) fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| unwanted(name.as_str()));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
}

fn timing(job: &Job, exchange: &Exchange) -> String {
    // Milliseconds with three digits and with one, in integers.
    let (choosing, tenths) = (job.choosing.as_micros(), |it: Duration| it.as_micros() / 100);
    let (connecting, waiting) = (tenths(exchange.connecting), tenths(exchange.waiting));
    format!(
        "sel;dur={}.{:03}, conn;dur={}.{}, ttfb;dur={}.{}, retry;desc=\"{}\"",
        choosing / 1000,
        choosing % 1000,
        connecting / 10,
        connecting % 10,
        waiting / 10,
        waiting % 10,
        job.tried.len()
    )
}

/// Tells the client what was decided and what it took.
fn mark(gateway: &Gateway, job: &Job, route: &Route, timing: String, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(timing)) {
        headers.insert(SERVER_TIMING, value);
    }
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put(NODE, gateway.identity.node.as_str());
    put(ORCHESTRATOR, &Hex::of(route.row.id.0));
    let view = gateway.view();
    put(REGION, view.atlas.name(route.row.region).as_str());
    if let Some(decision) = job.decision {
        put(DECISION, &Hex::of(decision.0));
        if let Some(record) = job.visit.explain.then(|| gateway.decisions.find(decision)).flatten()
        {
            put(EXPLAIN, &explain::short(&view, &record));
        }
    }
}

/// Returns the line of the journal as far as it is known.
pub(crate) fn usage(
    gateway: &Gateway,
    job: &Job,
    route: Option<&Route>,
    status: StatusCode,
) -> UsageRecord {
    let located = &job.visit.located;
    let (capability, session) = match &job.work {
        Work::New { app, .. } => (Some(Arc::clone(app)), None),
        Work::Within { ticket, .. } => (None, Some(ticket.session.clone())),
        Work::Refresh { .. } => (None, None),
    };
    let up = job.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    UsageRecord {
        at_ms: clock::wall().as_millis() as u64,
        decision: job.decision,
        trace: job.visit.trace.trace_hex(),
        node: gateway.identity.node,
        door: job.visit.door,
        method: method(&job.visit.method),
        route: job.work.template().into(),
        status: status.as_u16(),
        capability,
        orchestrator: route.map(|it| it.row.id),
        region: route.map(|it| gateway.view().atlas.name(it.row.region)),
        home: located.home,
        country: located.caller.place.country,
        attempts: job.tried.len() as u32 + 1,
        bytes_up: up.unwrap_or(0),
        bytes_down: 0,
        ttfb_us: job.age(clock::now()).as_micros() as u64,
        duration_us: 0,
        end: "whole",
        session,
    }
}

/// Returns a method as text; the usual ones are at hand.
fn method(method: &Method) -> Cow<'static, str> {
    let usual = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    match usual.into_iter().find(|it| method == it) {
        Some(usual) => usual.into(),
        None => method.to_string().into(),
    }
}

/// What is written when the last byte has passed, or failed to. Dropped before that, it
/// says so itself: no way out leaves a request unwritten.
struct Note(Option<Noted>);

struct Noted {
    place: Option<Place>,
    attempt: Attempt,
    session: Option<Using>,
    usage: UsageRecord,
    started: Instant,
    upload: Upload,
    lease: Option<Lease>,
    busy: Option<Arc<Busy>>,
}

impl Note {
    fn with(&mut self, change: impl FnOnce(&mut Noted)) {
        if let Some(noted) = &mut self.0 {
            change(noted);
        }
    }

    fn passed(&mut self, n: usize) {
        self.with(|it| it.usage.bytes_down += n as u64);
    }

    fn end(&mut self, end: End) {
        if let Some(noted) = self.0.take() {
            noted.end(end);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.end(End::Abandoned);
    }
}

impl Watch for Note {
    fn passes(&mut self, n: usize) -> bool {
        self.passed(n);
        true
    }

    fn ended(mut self: Box<Self>, end: End) {
        self.end(end);
    }
}

impl Noted {
    fn end(self, end: End) {
        let Self { place, mut attempt, session, mut usage, started, upload, lease, busy } = self;
        // An answer that breaks because its question did is nobody's failure but the client's.
        let end = if end == End::Cut && upload.is_broken() { End::Abandoned } else { end };
        let now = clock::now();
        match end {
            End::Whole => {
                if let Some(lease) = lease {
                    lease.put_back(now);
                }
            }
            End::Cut => {
                attempt.will_end(Outcome::Failed);
                usage.end = "cut";
                counter!("portolan_streams_cut_total").increment(1);
            }
            End::Abandoned => {
                attempt.will_end(Outcome::Neutral);
                usage.end = "abandoned";
            }
        }
        drop((attempt, busy));
        usage.duration_us = now.saturating_duration_since(started).as_micros() as u64;
        if let Some(using) = session {
            using.session().count(usage.bytes_up, usage.bytes_down);
            using.end(now);
        }
        log(&usage);
        if let Some(place) = place {
            place.slot.write(usage);
        }
    }
}

/// One line of the access log; it names no address.
fn log(usage: &UsageRecord) {
    tracing::info!(
        target: "access",
        door = usage.door,
        method = %usage.method,
        route = %usage.route,
        status = usage.status,
        decision = usage.decision.map(|it| Hex::of(it.0)).as_deref(),
        trace = %usage.trace,
        orchestrator = usage.orchestrator.map(|it| Hex::of(it.0)).as_deref(),
        home = %usage.home,
        attempts = usage.attempts,
        bytes_up = usage.bytes_up,
        bytes_down = usage.bytes_down,
        ttfb_us = usage.ttfb_us,
        duration_us = usage.duration_us,
        end = usage.end,
        "served"
    );
}

/// The tasks that carry switched protocols.
#[derive(Debug, Default)]
pub struct Upgrades(Mutex<JoinSet<()>>);

impl Upgrades {
    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends what still runs.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const NODE: HeaderName = HeaderName::from_static("portolan-node");
const ORCHESTRATOR: HeaderName = HeaderName::from_static("portolan-orchestrator");
const REGION: HeaderName = HeaderName::from_static("portolan-region");
const DECISION: HeaderName = HeaderName::from_static("portolan-decision");
const EXPLAIN: HeaderName = HeaderName::from_static("portolan-explain");
