//! The apps door: the node poses as an orchestrator.
//!
//! `GET /discovery` lists every app once for each price and graphics card it is offered at;
//! its URL leads to whoever serves it best at that moment. What a reservation answers leads
//! back through this mesh, to the one orchestrator that gave it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};

use crate::clock;
use crate::edge::fields::Fields;
use crate::edge::job::{Job, JobBody, Work};
use crate::edge::open::unknown;
use crate::edge::refusal::{ServeError, json};
use crate::edge::resolve::Wanted;
use crate::edge::slug::Slug;
use crate::edge::visit::Visit;
use crate::edge::wishes::Wishes;
use crate::edge::{Gateway, discover};
use crate::id::{BadSessionId, OrchestratorId, SessionId};
use crate::livepeer::bind::{self, Binding};
use crate::session::State;
use crate::upstream::Body;
use crate::view::row::{Mode, Row, Runner, Standing};

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
    let _permit = gateway.permit()?;
    let (view, base) = (gateway.view(), visit.base());
    let mut listed: BTreeMap<(Arc<str>, Mode, u32), Listed> = BTreeMap::new();
    let rules = gateway.under_orders(&visit.params.rules, &view, &visit.located);
    let is_shut =
        |row: &Row| rules.shut.as_ref().is_some_and(|it| it.leaves_out(row.id, row.region));
    let open = |row: &Row| row.standing == Standing::Ready && !is_shut(row);
    for (_slot, row) in view.rows().filter(|(_slot, row)| open(row)) {
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
        .filter_map(|((app, mode, variant), it)| it.entry(&base, &app, mode, variant))
        .collect();
    let entry = serde_json::json!([{ "address": base, "runners": runners }]);
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

/// Reads what a request of this door is. Of its body nothing is read, but for a request for
/// payment parameters, which says in it whom it is for.
pub(crate) async fn job(
    gateway: &Gateway,
    visit: Visit,
    mut request: Request<Incoming>,
) -> Result<Box<Job>, ServeError> {
    if request.uri().path() == "/refresh-payment" {
        return Box::pin(refresh(gateway, visit, request)).await;
    }
    let fields = visit.fields;
    // Hardly anybody wishes anything.
    let wishes = match fields.has(Fields::WISHES) {
        true => Wishes::read(request.headers(), visit.params.clients_may)?,
        false => Wishes::default(),
    };
    let binding = match fields.has(Fields::PAYMENT) {
        true => bind::read(request.headers())?,
        false => Binding::default(),
    };
    let bound = binding.session.and_then(|session| gateway.bindings.find(clock::now(), &session));
    let work = work(gateway, &request, bound)?;
    let wants_upgrade = fields.has(Fields::UPGRADE);
    let upgrade = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let length = body.size_hint().exact();
    let body = JobBody::Unread(body, length);
    let mut job = Box::new(Job::new(visit, work, wishes, parts.headers, body));
    job.upgrade = upgrade;
    let max = job.bounds().max;
    if length.is_some_and(|length| length > max) {
        return Err(ServeError::TooLarge(max));
    }
    Ok(job)
}

/// Reads a request for fresh payment parameters, as SDKs send it:
/// `{"sender":"0x…","manifest_id":"…"}`.
async fn refresh(
    gateway: &Gateway,
    visit: Visit,
    request: Request<Incoming>,
) -> Result<Box<Job>, ServeError> {
    #[derive(serde::Deserialize)]
    struct Refresh {
        manifest_id: String,
    }
    if request.method() != Method::POST {
        return Err(ServeError::Method("POST"));
    }
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(REFRESH_WITHIN, Limited::new(body, REFRESH_MAX).collect());
    let body = body.await.map_err(|_elapsed| ServeError::Body("too slow".to_owned()))?;
    let body = body.map_err(|broken| ServeError::Body(broken.to_string()))?.to_bytes();
    let refresh: Refresh = serde_json::from_slice(&body).map_err(|bad| {
        ServeError::BadRequest(format!("send sender and manifest_id as JSON: {bad}"))
    })?;
    let manifest: SessionId = refresh
        .manifest_id
        .parse()
        .map_err(|bad: BadSessionId| ServeError::BadRequest(format!("manifest_id: {bad}")))?;
    let sessions = &gateway.shared.sessions;
    let bound = gateway.bindings.find(clock::now(), &manifest);
    let bound = bound.or_else(|| Some(sessions.find_by_id(manifest.as_str())?.orchestrator));
    let unknown = || ServeError::SessionOver("its payments are not known here".to_owned());
    let work = Work::Refresh { bound: bound.ok_or_else(unknown)? };
    let held = gateway.replays.reserve(body.len(), visit.params.replay_all_max);
    let held = JobBody::Held(body, held.ok_or(ServeError::Memory)?);
    Ok(Box::new(Job::new(visit, work, Wishes::default(), parts.headers, held)))
}

fn work(
    gateway: &Gateway,
    request: &Request<Incoming>,
    bound: Option<OrchestratorId>,
) -> Result<Work, ServeError> {
    let path = request.uri().path();
    let query = request.uri().query().map_or_else(String::new, |it| format!("?{it}"));
    if let Some(rest) = path.strip_prefix("/run/") {
        return within(gateway, request.method(), rest, &query, bound);
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

/// Returns what a request for new work wants; `None` for any other, and for what [`job`] will
/// refuse.
pub(crate) fn wanted(gateway: &Gateway, request: &Request<Incoming>) -> Option<Wanted<'static>> {
    match work(gateway, request, None).ok()? {
        Work::New { capability, variant, mode, .. } => Some(Wanted {
            capabilities: vec![capability],
            mode: Some(mode),
            variant: Some(variant),
            gpus: &[],
        }),
        Work::Within { .. } | Work::Refresh { .. } => None,
    }
}

/// Reads a request within a session.
fn within(
    gateway: &Gateway,
    method: &Method,
    rest: &str,
    query: &str,
    bound: Option<OrchestratorId>,
) -> Result<Work, ServeError> {
    let (sealed, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let ticket = gateway.key.open(sealed, Gateway::wall_s())?;
    if leaves(rest) {
        return Err(ServeError::BadRequest("dots are not allowed in this path".to_owned()));
    }
    if bound.is_some_and(|bound| bound != ticket.orchestrator) {
        let said = "its payment belongs to another orchestrator".to_owned();
        return Err(ServeError::SessionOver(said));
    }
    let entry = gateway.shared.sessions.find(&(ticket.orchestrator, ticket.session.clone()));
    // The app may have a path of that name; the session's own is below its control URL.
    let is_control = match entry.as_ref().filter(|it| !it.control.is_empty()) {
        Some(entry) => entry.control == ticket.path,
        None => !ticket.path.ends_with("/app"),
    };
    let stop = is_control && rest == "/stop" && *method == Method::POST;
    match entry.map(|it| it.state()) {
        Some(State::Ended) => return Err(ServeError::SessionOver("it was ended".to_owned())),
        Some(State::Draining) if !is_control => {
            return Err(ServeError::SessionOver("it is being drained".to_owned()));
        }
        Some(State::Reserved | State::Active | State::Draining) | None => {}
    }
    let path = format!("{}{rest}{query}", ticket.path);
    Ok(Work::Within { ticket, path, stop })
}

/// Tells whether a path could lead out of the one it is appended to.
fn leaves(rest: &str) -> bool {
    let plain = rest.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    plain.replace("%5c", "\\").split(['/', '\\']).any(|part| matches!(part, "." | ".."))
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

/// A request for payment parameters is a line of JSON.
const REFRESH_MAX: usize = 4 * 1024;
const REFRESH_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_dots_leaves_the_path_that_was_sealed() {
        for out in ["/..", "/a/../b", "/%2e%2e/x", "/.%2E/x", "/..%2fx", "/a/.", "/..%5Cx"] {
            assert!(leaves(out), "{out}");
        }
        for within in ["", "/", "/a..b/...", "/%2eenv", "/a.b"] {
            assert!(!leaves(within), "{within}");
        }
    }
}
