//! The operator's orders at the admin door: those in force, and others in their place.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Admin, RESTARTING, refuse};
use crate::actors::mesh::obey;
use crate::mesh::NotObeyed;
use crate::operator::MAX_COMMAND;

/// Returns what is in force, what was before, and what is left to end here.
pub(super) async fn shown(State(admin): State<Admin>) -> axum::Json<Value> {
    let shared = &admin.gateway.shared;
    let in_force = shared.orders.load();
    axum::Json(json!({
        "mesh": admin.gateway.carrier.get().map(|it| it.trust_domain()),
        "number": in_force.number,
        "orders": in_force.orders,
        "before": in_force.before,
        "node_drained": admin.gateway.is_ordered_out(),
        "sessions": shared.sessions.all().len(),
    }))
}

/// Has a signed command obeyed; answers once it is in force here. Peers hear of it at once.
pub(super) async fn given(State(admin): State<Admin>, body: Bytes) -> Response {
    if body.len() > MAX_COMMAND {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "no command is that long");
    }
    let mesh = admin.gateway.shared.refs.mesh.load_full();
    let Some(mesh) = mesh else {
        return refuse(StatusCode::CONFLICT, "this node is in no mesh, or its mesh restarts");
    };
    match obey(&mesh, body.to_vec(), ORDER_WITHIN).await {
        Some(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Some(Err(error @ NotObeyed::Overtaken { .. })) => {
            refuse(StatusCode::CONFLICT, &error.to_string())
        }
        Some(Err(error)) => refuse(StatusCode::FORBIDDEN, &error.to_string()),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, RESTARTING),
    }
}

/// A mailbox that is slower has other troubles.
const ORDER_WITHIN: Duration = Duration::from_secs(5);
