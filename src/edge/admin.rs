//! The admin door: health, metrics, and what the operator asks and commands.
//!
//! Bound to loopback by default; nothing here is for clients.

mod orders;

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::actors::{directory, sessions};
use crate::address::parse;
use crate::clock;
use crate::clock::pulse::Reading;
use crate::edge::resolve::Wanted;
use crate::edge::ways::url_of;
use crate::edge::{Gateway, explain};
use crate::id::{DecisionId, OrchestratorId};
use crate::livepeer::error;
use crate::policy::PathKind;
use crate::session::Entry;
use crate::view::row::Standing;

/// What the admin door needs.
#[derive(Clone)]
pub struct Admin {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// Takes wishes to hand over to a new process; closed in a node that cannot.
    pub handover: mpsc::Sender<HandOver>,
}

/// A wish to hand over to a new process. It is answered with that one's id, or with why this
/// process goes on.
pub type HandOver = oneshot::Sender<Result<u32, String>>;

/// Who can read the configuration again.
pub trait Reload: Send + Sync {
    /// Reads it; with `dry_run`, says only what would change.
    fn reload(&self, dry_run: bool) -> Reloaded;

    /// Returns version and hash of the one in use.
    fn current(&self) -> Value;
}

/// Version, hash and changes; or what is wrong, and that nothing changed.
pub type Reloaded = Result<Value, Value>;

/// Returns the routes.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/node", get(node))
        .route("/v1/reload", post(reload))
        .route("/v1/handover", post(hand_over))
        .route("/v1/peers", get(peers))
        .route("/v1/orders", get(orders::shown).post(orders::given))
        .route("/v1/orchestrators", get(orchestrators))
        .route("/v1/orchestrators/{id}/drain", post(drain_orchestrator).delete(resume_orchestrator))
        .route("/v1/sessions", get(list_sessions))
        .route("/v1/sessions/{id}", delete(end_session))
        .route("/v1/sessions/{id}/drain", post(drain_session))
        .route("/v1/explain", get(explain_one))
        .route("/v1/decisions", get(decisions))
        .route("/v1/locate", get(locate))
        .fallback(async || refuse(StatusCode::NOT_FOUND, NO_DOOR))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see Allow")
        })
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let view = admin.gateway.shared.view.load();
    let well = view.rows().filter(|(_slot, row)| row.standing == Standing::Ready).count();
    let all = view.rows().count();
    let (status, said) = match () {
        () if admin.gateway.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        () if well == 0 => (StatusCode::SERVICE_UNAVAILABLE, "no orchestrator is ready"),
        () => (StatusCode::OK, "ready"),
    };
    let body = json!({ "status": said, "orchestrators_ready": well, "orchestrators": all });
    (status, axum::Json(body)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, admin.metrics.render()).into_response()
}

async fn node(State(admin): State<Admin>) -> axum::Json<Value> {
    let gateway = &admin.gateway;
    let view = gateway.shared.view.load();
    let geo = gateway.shared.geo.current();
    let editions: Vec<Value> =
        geo.editions().map(|it| json!({ "source": it.source, "kind": it.kind })).collect();
    axum::Json(json!({
        "node": gateway.identity.node,
        "region": gateway.identity.region,
        "loops": loops(gateway),
        "draining": gateway.is_draining(),
        "view": view.version,
        "view_age_ms": clock::now().saturating_duration_since(view.published_at).as_millis() as u64,
        "geoip": editions,
        "geoip_age_s": geo.age(clock::wall()).map(|it| it.as_secs()),
        "config": admin.reload.current(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

#[derive(Deserialize)]
struct HowToReload {
    #[serde(default)]
    dry_run: bool,
}

async fn reload(
    State(admin): State<Admin>,
    Asked(Query(how)): Asked<Query<HowToReload>>,
) -> Response {
    // It reads files.
    let done = tokio::task::spawn_blocking(move || admin.reload.reload(how.dry_run)).await;
    match done {
        Ok(Ok(told)) => axum::Json(told).into_response(),
        Ok(Err(told)) => {
            let said = told["error"].as_str().unwrap_or_default().to_owned();
            refuse(StatusCode::CONFLICT, &said)
        }
        Err(died) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &died.to_string()),
    }
}

async fn hand_over(State(admin): State<Admin>) -> Response {
    let (told, done) = oneshot::channel();
    if admin.handover.try_send(told).is_err() {
        return refuse(StatusCode::CONFLICT, NO_HANDOVER);
    }
    match done.await {
        Ok(Ok(process)) => axum::Json(json!({ "process": process })).into_response(),
        Ok(Err(why)) => refuse(StatusCode::CONFLICT, &why),
        Err(_stopped) => refuse(StatusCode::SERVICE_UNAVAILABLE, "this node is being stopped"),
    }
}

/// Returns how long ago each loop of this node last turned, and whether that is too long.
fn loops(gateway: &Gateway) -> Value {
    let row = |it: Reading| {
        let silent_ms = it.silent.as_millis() as u64;
        (it.name.to_owned(), json!({ "silent_ms": silent_ms, "stalled": it.is_stalled }))
    };
    gateway.shared.pulses.read(clock::now()).into_iter().map(row).collect()
}

async fn peers(State(admin): State<Admin>) -> axum::Json<Value> {
    let now = clock::now();
    let (peers, params) = (admin.gateway.shared.peers.load(), admin.gateway.params.load());
    let rows = peers.rows.iter().map(|row| {
        json!({
            "node": row.node,
            "region": row.region,
            "epoch": row.epoch,
            "url": url_of(&params, row),
            "version": row.about.as_ref().map(|it| &*it.version),
            "standing": format!("{:?}", row.standing).to_lowercase(),
            "membership": row.membership.map(|it| format!("{it:?}").to_lowercase()),
            "seed": row.seed,
            "address": row.at,
            "draining": row.draining,
            "rtt_ms": row.rtt.map(|it| it.as_ms()),
            "heard_ago_ms": row.heard_at.map(|at| now.saturating_duration_since(at).as_millis() as u64),
            "records": row.n_records,
            "frames": row.counts.n_frames,
            "datagrams": row.counts.n_datagrams,
            "datagrams_dropped": row.counts.n_dropped + row.counts.n_forged,
            "quarantines": row.counts.n_quarantines,
            "pulls": row.counts.n_pulls,
            "orders_not_obeyed": row.counts.n_disobeyed,
            "fault": row.fault.map(|it| it.to_string()),
        })
    });
    axum::Json(json!({
        "peers": rows.collect::<Vec<_>>(),
        "restarts": peers.n_restarts,
        "sent_bytes": peers.n_sent_bytes,
    }))
}

async fn orchestrators(State(admin): State<Admin>) -> axum::Json<Value> {
    let (view, now) = (admin.gateway.shared.view.load(), clock::now());
    let rows = view.rows().take(ROWS_MAX).map(|(_slot, row)| {
        let offers: Vec<Value> = row
            .offers
            .iter()
            .map(|offer| {
                json!({
                    "capability": view.capabilities.name(offer.capability),
                    "mode": offer.runner.as_ref().map(|it| it.mode),
                    "capacity": f64::from(offer.capacity_milli) / 1000.0,
                    "others": f64::from(offer.others_milli) / 1000.0,
                    "service_ms": offer.service.map(|it| it.as_ms()),
                    "price_wei": offer.price_wei.map(|it| it.to_string()),
                })
            })
            .collect();
        let mut found = explain::about(&view, row, now);
        if let Value::Object(fields) = &mut found {
            fields.insert("id".to_owned(), json!(row.id));
            fields.insert("offers".to_owned(), offers.into());
        }
        found
    });
    axum::Json(json!({ "view": view.version, "orchestrators": rows.collect::<Vec<_>>() }))
}

async fn drain_orchestrator(
    State(admin): State<Admin>,
    Asked(Path(id)): Asked<Path<String>>,
) -> Response {
    set_draining(&admin, &id, true)
}

async fn resume_orchestrator(
    State(admin): State<Admin>,
    Asked(Path(id)): Asked<Path<String>>,
) -> Response {
    set_draining(&admin, &id, false)
}

fn set_draining(admin: &Admin, id: &str, draining: bool) -> Response {
    let Ok(id) = id.parse::<OrchestratorId>() else {
        return refuse(StatusCode::BAD_REQUEST, "id: 16 hexadecimal digits, as listed");
    };
    let view = admin.gateway.shared.view.load();
    if view.orchestrator(id).is_none() {
        return refuse(StatusCode::NOT_FOUND, "no orchestrator has this id");
    }
    let directory = admin.gateway.shared.refs.directory.load();
    let told = directory.as_ref().map(|it| it.cast(directory::Msg::SetDraining(id, draining)));
    match told {
        Some(Ok(())) => StatusCode::ACCEPTED.into_response(),
        Some(Err(_)) | None => refuse(StatusCode::SERVICE_UNAVAILABLE, RESTARTING),
    }
}

async fn list_sessions(State(admin): State<Admin>) -> axum::Json<Value> {
    let now = clock::now();
    let all = admin.gateway.shared.sessions.all();
    let rows: Vec<Value> = all.iter().take(ROWS_MAX).map(|entry| session(entry, now)).collect();
    axum::Json(json!({ "sessions": rows }))
}

fn session(entry: &Entry, now: std::time::Instant) -> Value {
    let (counted, (up, down)) = (entry.counted(), entry.bytes());
    json!({
        "session": entry.session,
        "orchestrator": entry.orchestrator,
        "app": entry.app,
        "state": entry.state(),
        "home": entry.home,
        "country": entry.caller.country,
        "decision": entry.decision,
        "open": counted.open,
        "requests": counted.requests,
        "bytes_up": up,
        "bytes_down": down,
        "age_s": now.saturating_duration_since(entry.opened_at).as_secs(),
    })
}

async fn end_session(State(admin): State<Admin>, Asked(Path(id)): Asked<Path<String>>) -> Response {
    tell_session(&admin, &id, sessions::Msg::End)
}

async fn drain_session(
    State(admin): State<Admin>,
    Asked(Path(id)): Asked<Path<String>>,
    Asked(Query(within)): Asked<Query<Within>>,
) -> Response {
    let deadline = clock::now() + Duration::from_secs(within.seconds.min(3600));
    tell_session(&admin, &id, |key| sessions::Msg::Drain(Some(key), deadline))
}

/// How long a drain may take.
#[derive(Debug, Deserialize)]
struct Within {
    #[serde(default = "half_a_minute")]
    seconds: u64,
}

fn half_a_minute() -> u64 {
    30
}

fn tell_session(
    admin: &Admin,
    id: &str,
    msg: impl FnOnce(crate::session::Key) -> sessions::Msg,
) -> Response {
    let Some(entry) = admin.gateway.shared.sessions.find_by_id(id) else {
        return refuse(StatusCode::NOT_FOUND, "no session has this id here; see /v1/sessions");
    };
    let sessions = admin.gateway.shared.refs.sessions.load();
    match sessions.as_ref().map(|it| it.cast(msg(entry.key()))) {
        Some(Ok(())) => StatusCode::ACCEPTED.into_response(),
        Some(Err(_)) | None => refuse(StatusCode::SERVICE_UNAVAILABLE, RESTARTING),
    }
}

/// Which decision, or for whom and what.
#[derive(Debug, Deserialize)]
struct Which {
    decision: Option<String>,
    ip: Option<String>,
    capability: Option<String>,
    path: Option<String>,
}

async fn explain_one(
    State(admin): State<Admin>,
    Asked(Query(which)): Asked<Query<Which>>,
) -> Response {
    let gateway = &admin.gateway;
    if let Some(id) = &which.decision {
        let Ok(id) = id.parse::<DecisionId>() else {
            return refuse(StatusCode::BAD_REQUEST, "decision: 16 hexadecimal digits");
        };
        let view = gateway.shared.view.load();
        return match gateway.decisions.find(id) {
            Some(record) => axum::Json(explain::taken(&view, &record)).into_response(),
            None => refuse(
                StatusCode::NOT_FOUND,
                "no such decision among the last 10,000 of this node; it may be another node's",
            ),
        };
    }
    let (Some(ip), Some(capability)) = (&which.ip, &which.capability) else {
        return refuse(StatusCode::BAD_REQUEST, "give decision=ID, or ip=ADDRESS&capability=NAME");
    };
    let Some(ip) = parse(ip) else { return refuse(StatusCode::BAD_REQUEST, NO_IP) };
    let path = match which.path.as_deref() {
        None | Some("relayed") => PathKind::Relayed,
        Some("direct") => PathKind::Direct,
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "path: direct or relayed"),
    };
    match explain::hypothetical(gateway, ip, capability, path) {
        Some(found) => axum::Json(found).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "nobody offers this capability"),
    }
}

async fn decisions(State(admin): State<Admin>) -> axum::Json<Value> {
    let view = admin.gateway.shared.view.load();
    let latest = admin.gateway.decisions.latest(100);
    let rows = latest.iter().map(|record| {
        let chosen = record.decision.chosen().orchestrator;
        let region = view.orchestrator(chosen).map(|(_slot, row)| view.atlas.name(row.region));
        json!({
            "decision": record.id,
            "at_ms": record.at_ms,
            "capability": record.capability,
            "path": record.path,
            "home": record.home,
            "country": record.place.country,
            "chosen": chosen,
            "region": region,
        })
    });
    axum::Json(json!({ "decisions": rows.collect::<Vec<_>>() }))
}

/// Whom to locate.
#[derive(Debug, Deserialize)]
struct Whom {
    ip: String,
}

async fn locate(State(admin): State<Admin>, Asked(Query(whom)): Asked<Query<Whom>>) -> Response {
    let Some(ip) = parse(&whom.ip) else {
        return refuse(StatusCode::BAD_REQUEST, NO_IP);
    };
    axum::Json(located(&admin.gateway, ip)).into_response()
}

fn located(gateway: &Gateway, ip: IpAddr) -> Value {
    let located = gateway.locate_ip(ip);
    let place = located.caller.place;
    let base = gateway.params.load().public_url.clone().unwrap_or_default();
    json!({
        "class": format!("{:?}", gateway.shared.geo.lookup(ip).class).to_lowercase(),
        "point": place.point,
        "country": place.country,
        "confidence": place.confidence,
        "home": located.home,
        "nodes": gateway.entrances(clock::now(), &located, base, &Wanted::default()),
    })
}

/// A part of a request, or a refusal in the words of every other one.
struct Asked<E>(E);

impl<S: Send + Sync, E: FromRequestParts<S>> FromRequestParts<S> for Asked<E>
where
    E::Rejection: Display,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let asked = E::from_request_parts(parts, state).await;
        asked.map(Self).map_err(|bad| refuse(StatusCode::BAD_REQUEST, &bad.to_string()))
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, error::body(message)).into_response()
}

/// Rows one answer lists.
const ROWS_MAX: usize = 10_000;
const NO_HANDOVER: &str = "a hand-over is under way, or this node ends with its parent";
const NO_IP: &str = "ip: write an IPv4 or IPv6 address, such as 8.8.8.8";
const NO_DOOR: &str = "no such path at this door; /readyz, /metrics and /v1/node are among those";
const RESTARTING: &str = "the actor in charge is being restarted; try again in a second";
