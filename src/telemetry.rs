//! Logs and metrics: set up once, before anything else runs.

mod filter;
mod line;
mod out;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use line::Line;
use out::{Out, Writers};

pub use filter::{BadFilter, filter};

/// How lines are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Sends logs to standard error. `PORTOLAN_LOG` filters them, such as
/// `info,portolan::mesh=debug`; one that cannot be read is an error. A second call changes
/// nothing.
pub fn logs(format: LogFormat) -> Result<(), BadFilter> {
    let filter = filter()?;
    let mut first = None;
    let out = OUT.get_or_init(|| {
        let (out, urgency) = Out::start();
        first = Some(urgency);
        out
    });
    // A test process sets them once for all its nodes.
    let Some(urgency) = first else { return Ok(()) };
    let registry = tracing_subscriber::registry().with(filter);
    let writers = Writers { out: out.clone(), urgency };
    let layer = tracing_subscriber::fmt::layer().with_writer(writers);
    let set = match format {
        LogFormat::Json => registry.with(layer.json().event_format(Line::new())).try_init(),
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
    };
    // Somebody else's logs stay theirs.
    drop(set);
    Ok(())
}

/// Writes what is still to be written of the logs; for the end of the process.
pub fn flush() {
    if let Some(out) = OUT.get() {
        out.flush();
    }
}

static OUT: OnceLock<Out> = OnceLock::new();

/// Collects metrics; nodes of one process share them.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let duration = Matcher::Full("http_server_request_duration_seconds".to_owned());
        let built = PrometheusBuilder::new().set_buckets_for_metric(duration, &SECONDS);
        let recorder =
            built.unwrap_or_else(|_no_buckets| PrometheusBuilder::new()).build_recorder();
        let handle = recorder.handle();
        // Set by somebody else before: then theirs collects, and ours stays empty.
        drop(metrics::set_global_recorder(recorder));
        describe();
        handle
    };
    HANDLE.get_or_init(install).clone()
}

/// Every metric with its unit and meaning.
fn describe() {
    use metrics::{
        describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram,
    };
    counter!("portolan_requests_total", "Requests answered, by door and status.");
    counter!("portolan_refusals_total", "Requests this node refused, by reason.");
    counter!("portolan_attempts_total", "Attempts at orchestrators that were refused, by outcome.");
    counter!("portolan_choice_scans_total", "Choices for which the short list was not enough.");
    counter!("portolan_preconnects_total", "Connections opened ahead of requests, by result.");
    counter!("portolan_streams_cut_total", "Answers that broke off at their orchestrator.");
    counter!("portolan_answers_odd_total", "Successes that were empty or of another kind.");
    counter!("portolan_policies_applied_total", "Choices a policy had a part in, by policy.");
    counter!("portolan_retries_total", "Retries taken out of their budget, or refused by it.");
    counter!("portolan_replays_refused_total", "Bodies not held for want of room for all of them.");
    counter!("portolan_addresses_denied_total", "Names that led to addresses not to be reached.");
    counter!("portolan_connections_refused_total", "Client connections refused, by reason.");
    counter!("portolan_connections_expired_total", "Client connections ended for taking too long.");
    counter!(
        "portolan_config_reloads_total",
        "Times the configuration was read again, by outcome."
    );
    gauge!("portolan_config_version", "Counts up by one with each configuration in use.");
    gauge!("portolan_config_info", "1 for the hash of the configuration in use.");
    gauge!("portolan_config_loaded_timestamp_seconds", "When the configuration was read.");
    gauge!("portolan_panics", "Capabilities of which too little is left, as last chosen for.");
    gauge!("portolan_memory_pressure", "0 calm, 1 tight, 2 short, 3 full.");
    gauge!("portolan_replay_bytes", "Bytes of bodies held for repetition.");
    gauge!("process_resident_memory_bytes", "Memory this process holds, where it is bounded.");
    counter!("portolan_views_total", "Views published.");
    counter!("portolan_actor_restarts_total", "Actors started again after they died, by kind.");
    counter!("portolan_geoip_reloads_total", "Reloads of the address database, by outcome.");
    counter!("livepeer_discovery_errors_total", "Lists of orchestrators that were not read.");
    counter!("livepeer_orchestrator_swaps", "Requests that went on to another orchestrator.");
    counter!("portolan_log_lines_lost_total", "Log lines for which standard error was too slow.");
    counter!("portolan_journal_errors_total", "Disk errors of the usage journal, by step.");
    counter!("portolan_journal_lost_total", "Usage records lost to disk errors.");
    counter!("portolan_journal_torn_total", "Unfinished lines cut off the journal at start.");
    gauge!("portolan_orchestrators", "Orchestrators known, by standing.");
    gauge!("portolan_orchestrators_left_out", "Orchestrators named but not taken: table full.");
    gauge!("livepeer_ai_orchestrators_available_total", "Orchestrators that may be chosen.");
    gauge!("livepeer_current_sessions_total", "Sessions that live.");
    gauge!("portolan_peers", "Peers, by standing of their link.");
    gauge!("portolan_mesh_certificate_expiry_timestamp_seconds", "When the node's own ends.");
    gauge!("portolan_mesh_revoked_certificates", "Certificates on the revocation list in use.");
    counter!("portolan_mesh_identity_reloads_total", "Changes of the node's files, by outcome.");
    counter!("portolan_mesh_renewals_total", "Renewals of the node's certificate, by outcome.");
    counter!("portolan_mesh_links_closed_total", "Links ended for age or revocation, by reason.");
    gauge!("portolan_connections", "Connections open, by listener.");
    gauge!("portolan_lane_connections", "Connections of clients, by the thread that serves them.");
    gauge!("portolan_geoip_age_seconds", "Age of the address database.");
    histogram!("http_server_request_duration_seconds", "From a request's head to its answer's.");
}

/// OpenTelemetry's buckets for durations of HTTP servers, in seconds.
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
