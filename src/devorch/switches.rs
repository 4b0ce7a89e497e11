//! The switches of a development orchestrator under `/dev`, which real ones do not have: what
//! it has seen, what goes wrong, how far it is, how much it takes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use http::StatusCode;

use crate::devorch::Shared;
use crate::devorch::apps::text;
use crate::devorch::body::lock;

/// Returns the routes of the switches.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/dev/seen", get(seen))
        .route("/dev/fail", post(fail))
        .route("/dev/delay", post(delay))
        .route("/dev/capacity", post(capacity))
}

async fn seen(State(shared): State<Arc<Shared>>) -> Response {
    axum::Json(&shared.seen).into_response()
}

async fn fail(State(shared): State<Arc<Shared>>, order: String) -> Response {
    set(order.parse(), |faults| *shared.faults() = faults)
}

async fn delay(State(shared): State<Arc<Shared>>, order: String) -> Response {
    set(order.parse(), |delays| shared.delays.store(Arc::new(delays)))
}

async fn capacity(State(shared): State<Arc<Shared>>, order: String) -> Response {
    set(order.trim().parse(), |capacity| lock(&shared.sessions).set_capacity(capacity))
}

fn set<T, E: std::fmt::Display>(read: Result<T, E>, apply: impl FnOnce(T)) -> Response {
    match read {
        Ok(value) => {
            apply(value);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(why) => text(StatusCode::BAD_REQUEST, &why.to_string()),
    }
}
