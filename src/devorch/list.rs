//! The discovery list of one orchestrator: itself, with its runners and their true load.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::json;

use crate::clock;
use crate::devorch::Shared;
use crate::devorch::app::App;
use crate::devorch::body::lock;
use crate::devorch::seen::Seen;
use crate::livepeer::runner::Gpu;
use crate::livepeer::runner::Mode;
use crate::livepeer::runner::OrchestratorEntry;
use crate::livepeer::runner::Runner;

/// Answers `/discovery`.
pub(crate) async fn discovery(State(shared): State<Arc<Shared>>) -> Response {
    Seen::count(&shared.seen.discovery);
    let runners = App::ALL.iter().map(|app| listed(&shared, *app)).collect();
    let address = shared.service.clone();
    let entry = OrchestratorEntry { address, score: None, capabilities: Vec::new(), runners };
    axum::Json([entry]).into_response()
}

/// Returns the row of one runner with its true load.
fn listed(shared: &Shared, app: App) -> Runner {
    let (capacity, used) = {
        let mut sessions = lock(&shared.sessions);
        sessions.sweep(clock::now());
        (sessions.capacity(), sessions.used(app))
    };
    let end = match app.mode() {
        Mode::Persistent => "session",
        Mode::SingleShot => "app",
    };
    let price = shared.issuer.asking.and_then(|it| {
        let price = json!({ "price": it.wei, "currency": "wei", "unit": it.unit() });
        serde_json::value::to_raw_value(&price).ok()
    });
    Runner {
        url: format!("{}/apps/{}/{end}", shared.service, app.slug()),
        app: format!("demo/{}", app.slug()),
        version: Some("1.0".to_owned()),
        metadata: shared.region.map(|it| json!({ "region": it.as_str() }).to_string()),
        mode: app.mode(),
        gpu: shared.gpu.clone().map(|name| Gpu { id: "0".to_owned(), name, vram_mb: 0 }),
        capacity,
        capacity_used: used,
        capacity_available: capacity.saturating_sub(used),
        price_info: price,
    }
}
