//! The HTTP side: reservations, control and calls.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;
use axum::routing::post;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use serde_json::json;

use crate::clock;
use crate::devorch::Shared;
use crate::devorch::app;
use crate::devorch::app::App;
use crate::devorch::body::Busy;
use crate::devorch::body::lock;
use crate::devorch::list;
use crate::devorch::pay::Unpaid;
use crate::devorch::seen::Seen;
use crate::devorch::serve::Wire;
use crate::devorch::session::Refused;
use crate::devorch::switches;
use crate::livepeer::bind;
use crate::livepeer::error;
use crate::livepeer::runner::Mode;
use crate::livepeer::runner::ReserveAnswer;

/// Returns every route of the HTTP side.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/discovery", get(list::discovery))
        .route("/apps/{runner}/session", post(reserve))
        .route("/apps/{runner}/session/{id}/stop", post(stop))
        .route("/apps/{runner}/session/{id}/payment", post(payment))
        .route("/apps/{runner}/session/{id}/app", any(call_session_root))
        .route("/apps/{runner}/session/{id}/app/{*rest}", any(call_session))
        .route("/apps/{runner}/app", any(call_once_root))
        .route("/apps/{runner}/app/{*rest}", any(call_once))
        .route("/refresh-payment", post(refresh))
        .merge(switches::router())
        .with_state(shared)
}

/// A refusal in plain text with a trailing newline, as orchestrators write it.
pub(crate) fn text(status: StatusCode, message: &str) -> Response {
    refuse(status, message).into_response()
}

/// A request turned away.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, self.kind)], self.body).into_response()
    }
}

fn refuse(status: StatusCode, message: &str) -> Refusal {
    Refusal { status, kind: "text/plain; charset=utf-8", body: format!("{message}\n") }
}

/// A 402, which is always JSON.
fn demand(body: String) -> Refusal {
    Refusal { status: StatusCode::PAYMENT_REQUIRED, kind: "application/json", body }
}

/// Finds a runner of the right mode.
fn runner(slug: &str, mode: Mode) -> Result<App, Refusal> {
    let app =
        App::by_slug(slug).ok_or_else(|| refuse(StatusCode::NOT_FOUND, "runner not found"))?;
    if app.mode() != mode {
        return Err(refuse(StatusCode::BAD_REQUEST, "runner mode does not allow this call"));
    }
    Ok(app)
}

async fn reserve(
    State(shared): State<Arc<Shared>>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Response {
    match take_slot(&shared, &slug, Mode::Persistent, &headers) {
        Ok((app, session_id)) => {
            Seen::count(&shared.seen.reserved);
            let control_url =
                format!("{}/apps/{}/session/{session_id}", shared.service, app.slug());
            let app_url = format!("{control_url}/app");
            axum::Json(ReserveAnswer { session_id, app_url, control_url }).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

/// Takes a slot for a new session, paid for if work is not free.
fn take_slot(
    shared: &Shared,
    slug: &str,
    mode: Mode,
    headers: &HeaderMap,
) -> Result<(App, String), Refusal> {
    let app = runner(slug, mode)?;
    let wall = clock::wall();
    let mut sessions = lock(&shared.sessions);
    sessions.sweep(clock::now());
    let fresh = format!("{:08x}", rand::random::<u32>());
    let id = match shared.issuer.asking {
        None => fresh,
        Some(_) if sessions.used(app) >= sessions.capacity() => fresh,
        Some(_) => match shared.issuer.paid(headers, wall) {
            Ok(id) => id,
            Err(Unpaid::Missing) if !headers.contains_key("livepeer-payer-address") => {
                return Err(demand(error::body("missing Livepeer-Payer-Address")));
            }
            Err(Unpaid::Missing) => {
                Seen::count(&shared.seen.challenges);
                let challenge = shared.issuer.challenge(app.slug(), &fresh, wall);
                return Err(demand(json!(challenge).to_string()));
            }
            Err(why) => return Err(unpaid(&why)),
        },
    };
    match sessions.reserve(clock::now(), app, &id) {
        Ok(()) => Ok((app, id)),
        Err(Refused::Exists) => Err(refuse(StatusCode::CONFLICT, "session already exists")),
        Err(Refused::Full) => {
            Seen::count(&shared.seen.full);
            Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "no capacity available for runner"))
        }
    }
}

fn unpaid(why: &Unpaid) -> Refusal {
    let status = match why {
        Unpaid::Missing | Unpaid::Unreadable(_) | Unpaid::Recipient => StatusCode::PAYMENT_REQUIRED,
        Unpaid::Token | Unpaid::Expired => StatusCode::FORBIDDEN,
    };
    refuse(status, &why.to_string())
}

async fn stop(
    State(shared): State<Arc<Shared>>,
    Path((slug, id)): Path<(String, String)>,
) -> Response {
    let app = match runner(&slug, Mode::Persistent) {
        Ok(app) => app,
        Err(refused) => return refused.into_response(),
    };
    if !lock(&shared.sessions).end(app, &id) {
        return text(StatusCode::NOT_FOUND, "session not found");
    }
    Seen::count(&shared.seen.stopped);
    StatusCode::NO_CONTENT.into_response()
}

async fn payment(
    State(shared): State<Arc<Shared>>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let there = App::by_slug(&slug).is_some_and(|app| {
        let (now, mut sessions) = (clock::now(), lock(&shared.sessions));
        let there = sessions.enter(now, app, &id);
        sessions.leave(now, app, &id);
        there
    });
    if !there {
        return text(StatusCode::NOT_FOUND, "session not found");
    }
    if shared.issuer.asking.is_some_and(|it| it.fixed) {
        return text(StatusCode::CONFLICT, "a fixed price takes no further payment");
    }
    match shared.issuer.paid(&headers, clock::wall()) {
        Ok(paid) if paid == id => StatusCode::OK.into_response(),
        Ok(_) => text(StatusCode::FORBIDDEN, "manifest id does not match the session"),
        Err(why) => unpaid(&why).into_response(),
    }
}

/// Fresh payment parameters for a session, as a challenge that comes as a success.
async fn refresh(State(shared): State<Arc<Shared>>, body: axum::Json<Refresh>) -> Response {
    if body.sender.is_empty() {
        return text(StatusCode::BAD_REQUEST, "bad sender");
    }
    if shared.issuer.asking.is_none_or(|it| it.fixed) {
        let said = error::body("fixed price not found for session");
        return (StatusCode::CONFLICT, said).into_response();
    }
    Seen::count(&shared.seen.challenges);
    let challenge = shared.issuer.challenge(App::Echo.slug(), &body.manifest_id, clock::wall());
    axum::Json(challenge).into_response()
}

#[derive(serde::Deserialize)]
struct Refresh {
    sender: String,
    manifest_id: String,
}

async fn call_session_root(
    State(shared): State<Arc<Shared>>,
    Path((slug, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    in_session(shared, &slug, id, "", request).await
}

async fn call_session(
    State(shared): State<Arc<Shared>>,
    Path((slug, id, rest)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    in_session(shared, &slug, id, &rest, request).await
}

async fn in_session(
    shared: Arc<Shared>,
    slug: &str,
    id: String,
    path: &str,
    request: Request,
) -> Response {
    let app = match runner(slug, Mode::Persistent) {
        Ok(app) => app,
        Err(refused) => return refused.into_response(),
    };
    if !lock(&shared.sessions).enter(clock::now(), app, &id) {
        return text(StatusCode::NOT_FOUND, "session not found");
    }
    let held = Arc::clone(&shared);
    let session = id.clone();
    let busy = Busy::new(move || lock(&held.sessions).leave(clock::now(), app, &session));
    call(&shared, app, &id, path, request, busy).await
}

async fn call_once_root(
    State(shared): State<Arc<Shared>>,
    Path(slug): Path<String>,
    request: Request,
) -> Response {
    once(shared, &slug, "", request).await
}

async fn call_once(
    State(shared): State<Arc<Shared>>,
    Path((slug, rest)): Path<(String, String)>,
    request: Request,
) -> Response {
    once(shared, &slug, &rest, request).await
}

async fn once(shared: Arc<Shared>, slug: &str, path: &str, request: Request) -> Response {
    let (app, id) = match take_slot(&shared, slug, Mode::SingleShot, request.headers()) {
        Ok(taken) => taken,
        Err(refused) => return refused.into_response(),
    };
    lock(&shared.sessions).enter(clock::now(), app, &id);
    let (held, session) = (Arc::clone(&shared), id.clone());
    let busy = Busy::new(move || {
        lock(&held.sessions).end(app, &session);
    });
    call(&shared, app, &id, path, request, busy).await
}

/// Hands a request to its application with the headers an orchestrator puts on, and without
/// those a client must not forge.
async fn call(
    shared: &Shared,
    app: App,
    id: &str,
    path: &str,
    mut request: Request<Body>,
    busy: Busy,
) -> Response {
    let headers = request.headers_mut();
    for name in [bind::SEGMENT, bind::PAYMENT] {
        headers.remove(name);
    }
    let control = format!("{}/apps/{}/session/{id}", shared.service, app.slug());
    let injected = [
        ("livepeer-runner-route", app.slug()),
        ("livepeer-session-id", id),
        ("livepeer-session-token", "development"),
        ("livepeer-session-control", &control),
    ];
    for (name, value) in injected {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    let wire = request.extensions().get::<Wire>().cloned().unwrap_or_default();
    let context = app::Context { busy, work: shared.work, fault: wire.fault, fate: wire.fate };
    let mut answer = app::answer(app, path, request, context).await;
    let region = shared.region.map(|it| it.to_string()).unwrap_or_default();
    for (name, value) in [("x-orchestrator", shared.service.as_str()), ("x-region", &region)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
