//! The apps door: the node poses as an orchestrator.
//!
//! `GET /discovery` lists every app once for each price and graphics card it is offered at;
//! its URL leads to whoever serves it best at that moment. What a reservation answers leads
//! back through this mesh, to the one orchestrator that gave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};

use crate::clock;
use crate::edge::job::{Job, JobBody, Work};
use crate::edge::open::unknown;
use crate::edge::refusal::{ServeError, json};
use crate::edge::relay::clean;
use crate::edge::slug::Slug;
use crate::edge::visit::Visit;
use crate::edge::{Gateway, discover};
use crate::id::OrchestratorId;
use crate::livepeer::bind;
use crate::session::State;
use crate::session::table::Opening;
use crate::trace::passable_state;
use crate::upstream::Body;
use crate::view::row::{Mode, Runner, Standing};

/// Answers `GET /discovery`.
pub(crate) fn list(
    gateway: &Gateway,
    visit: &Visit,
    request: &Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ServeError::Method("GET"));
    }
    let wanted = discover::Filters::read(request.uri().query())?;
    let view = gateway.view();
    let mut listed: BTreeMap<(Arc<str>, Mode, u32), Listed> = BTreeMap::new();
    for (_slot, row) in view.rows().filter(|(_slot, row)| row.standing == Standing::Ready) {
        for offer in row.offers.iter() {
            let name = view.capabilities.name(offer.capability);
            let Some(runner) = offer.runner.as_ref().filter(|it| it.path.is_some()) else {
                continue;
            };
            if !wanted.takes_app(name) || !wanted.takes_gpu(runner.gpu.as_deref()) {
                continue;
            }
            let key = (Arc::clone(name), runner.mode, runner.variant);
            listed.entry(key).or_default().add(runner);
        }
    }
    let runners: Vec<serde_json::Value> = listed
        .into_iter()
        .filter_map(|((app, mode, variant), it)| it.entry(&visit.base, &app, mode, variant))
        .collect();
    let entry = serde_json::json!([{ "address": visit.base, "runners": runners }]);
    Ok(json(StatusCode::OK, entry.to_string()))
}

/// One app at one price on one kind of card, over all who offer it.
#[derive(Default)]
struct Listed {
    advert: Option<Arc<str>>,
    capacity: u64,
    used: u64,
}

impl Listed {
    fn add(&mut self, runner: &Runner) {
        self.advert.get_or_insert_with(|| Arc::clone(&runner.advert));
        self.capacity += u64::from(runner.capacity);
        self.used += u64::from(runner.capacity_used.min(runner.capacity));
    }

    /// The first advert with this mesh's URL and everybody's places.
    fn entry(self, base: &str, app: &str, mode: Mode, variant: u32) -> Option<serde_json::Value> {
        let mut entry: serde_json::Value = serde_json::from_str(&self.advert?).ok()?;
        let last = match mode {
            Mode::Persistent => "session",
            Mode::SingleShot => "app",
        };
        let fields = entry.as_object_mut()?;
        fields.remove("metadata");
        let url = format!("{base}/apps/{}/{last}", Slug::write(app, variant));
        fields.insert("url".to_owned(), url.into());
        fields.insert("capacity".to_owned(), self.capacity.into());
        fields.insert("capacity_used".to_owned(), self.used.into());
        fields.insert("capacity_available".to_owned(), (self.capacity - self.used).into());
        Some(entry)
    }
}

/// Reads what a request of this door is.
pub(crate) fn job(
    gateway: &Gateway,
    visit: Visit,
    mut request: Request<Incoming>,
) -> Result<Job, ServeError> {
    let bound = bound(gateway, request.headers())?;
    let work = work(gateway, &visit, &request, bound)?;
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    let upgrade = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let length = body.size_hint().exact();
    let mut headers = parts.headers;
    let protocol = headers.get(header::UPGRADE).cloned();
    scrub(&mut headers);
    if let (Work::New { bound: None, .. }, true) = (&work, bound.is_none()) {
        // A payment whose orchestrator is not known goes nowhere: the unpaid request draws
        // a fresh challenge, with which the client starts anew.
        headers.remove(bind::SEGMENT);
        headers.remove(bind::PAYMENT);
    }
    if let Some(protocol) = protocol.filter(|_| matches!(work, Work::Within { .. })) {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    if let Ok(value) = visit.trace.to_string().parse() {
        headers.insert("traceparent", value);
    }
    let state = headers.get("tracestate").map(|it| passable_state(it.as_bytes()).is_some());
    if state == Some(false) {
        headers.remove("tracestate");
    }
    let body = JobBody::Unread(body, length);
    let mut job = Job::new(visit, work, headers, body);
    job.upgrade = upgrade;
    Ok(job)
}

fn work(
    gateway: &Gateway,
    visit: &Visit,
    request: &Request<Incoming>,
    bound: Option<OrchestratorId>,
) -> Result<Work, ServeError> {
    let path = request.uri().path();
    let query = request.uri().query().map_or_else(String::new, |it| format!("?{it}"));
    if path == "/refresh-payment" {
        let said = "the session of this payment is not known here".to_owned();
        return bound.map(|bound| Work::Refresh { bound }).ok_or(ServeError::SessionOver(said));
    }
    if let Some(rest) = path.strip_prefix("/run/") {
        return within(gateway, visit, rest, &query);
    }
    let rest = path.strip_prefix("/apps/").ok_or(ServeError::NoDoor)?;
    let (slug, last) = rest.split_once('/').ok_or(ServeError::NoDoor)?;
    let slug = Slug::read(slug).ok_or(ServeError::NoDoor)?;
    let mode = match last {
        "session" if request.method() != Method::POST => return Err(ServeError::Method("POST")),
        "session" => Mode::Persistent,
        "app" => Mode::SingleShot,
        _ => return Err(ServeError::NoDoor),
    };
    if mode == Mode::Persistent && !gateway.shared.sessions.has_room() {
        return Err(ServeError::SessionsFull);
    }
    let view = gateway.view();
    let capability =
        view.capabilities.number(&slug.app).ok_or_else(|| unknown(&view, &slug.app))?;
    let app = Arc::clone(view.capabilities.name(capability));
    Ok(Work::New { app, capability, variant: slug.variant, mode, query, bound })
}

/// Reads a request within a session. One that this node has not seen yet, since another
/// node reserved it or this one was restarted, is taken in.
fn within(gateway: &Gateway, visit: &Visit, rest: &str, query: &str) -> Result<Work, ServeError> {
    let (sealed, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let ticket = gateway.key.open(sealed, Gateway::wall_s())?;
    // No way out of the path that was sealed.
    if rest.split('/').any(|part| matches!(part, "." | "..") || part.eq_ignore_ascii_case("%2e%2e"))
    {
        return Err(ServeError::BadRequest("dots are not allowed in this path".to_owned()));
    }
    let key = (ticket.orchestrator, ticket.session.clone());
    let stop = rest == "/stop";
    match gateway.shared.sessions.find(&key) {
        Some(entry) if entry.state() == State::Ended => {
            return Err(ServeError::SessionOver("it was ended".to_owned()));
        }
        Some(entry) if entry.state() == State::Draining && !stop => {
            return Err(ServeError::SessionOver("it is being drained".to_owned()));
        }
        Some(_live) => {}
        None => adopt(gateway, visit, &ticket, stop),
    }
    let path = format!("{}{rest}{query}", ticket.path);
    Ok(Work::Within { ticket, path, stop })
}

fn adopt(gateway: &Gateway, visit: &Visit, ticket: &crate::ticket::Ticket, stop: bool) {
    let view = gateway.view();
    let Some((_slot, row)) = view.orchestrator(ticket.orchestrator) else { return };
    if !gateway.shared.sessions.has_room() {
        return;
    }
    gateway.shared.sessions.open(
        clock::now(),
        Opening {
            orchestrator: row.id,
            session: ticket.session.clone(),
            uri: row.uri.clone(),
            app: "".into(),
            // The path sealed with a stop is the control path.
            control: if stop { ticket.path.clone() } else { String::new() },
            home: visit.located.home,
            caller: visit.located.caller.place,
            decision: None,
            gauge: Arc::clone(&row.gauge),
        },
    );
}

/// Returns the orchestrator a request's payment belongs to, where it brings one.
fn bound(gateway: &Gateway, headers: &HeaderMap) -> Result<Option<OrchestratorId>, ServeError> {
    let binding = bind::read(headers)?;
    let session = binding.session;
    Ok(session.and_then(|session| gateway.bindings.find(clock::now(), &session)))
}

/// Removes what concerns one connection, what names the client, and what only an
/// orchestrator may say to its runner.
fn scrub(headers: &mut HeaderMap) {
    clean(headers);
    for name in NOT_PASSED {
        headers.remove(name);
    }
}

impl Work {
    /// Returns its path as a template, for logs.
    pub fn template(&self) -> &'static str {
        match self {
            Self::New { mode: Mode::Persistent, .. } => "/apps/{app}/session",
            Self::New { mode: Mode::SingleShot, .. } => "/apps/{app}/app",
            Self::Within { stop: true, .. } => "/run/{ticket}/stop",
            Self::Within { .. } => "/run/{ticket}/{rest}",
            Self::Refresh { .. } => "/refresh-payment",
        }
    }
}

const NOT_PASSED: [&str; 16] = [
    "host",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
    "portolan-client-ip",
    "portolan-explain",
    "livepeer-runner-route",
    "livepeer-session-id",
    "livepeer-session-token",
    "livepeer-session-control",
    "http2-settings",
];
