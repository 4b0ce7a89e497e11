//! What is written of one request.

use std::borrow::Cow;
use std::sync::Arc;

use crate::id::{DecisionId, NodeId, OrchestratorId, RegionId, SessionId};
use crate::trace::TraceId;
use crate::unit::Country;

/// The use of one request, from its head to the last byte of its answer. It holds no address
/// of a client, only the region and country it was taken to be in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct UsageRecord {
    /// When the request began, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The decision that chose its orchestrator, where one was made.
    pub decision: Option<DecisionId>,
    /// The trace it belongs to.
    pub trace: TraceId,
    /// The node that served it.
    pub node: NodeId,
    /// The door it came in by.
    pub door: &'static str,
    /// Its method; of another than the usual ones the writer keeps [`UsageRecord::TEXT_MAX`] bytes.
    pub method: Cow<'static, str>,
    /// The template of its path, such as `/apps/{*rest}`; of one that is not our own the
    /// writer keeps [`UsageRecord::TEXT_MAX`] bytes.
    pub route: Cow<'static, str>,
    /// The status it was answered with.
    pub status: u16,
    /// What it asked for; the writer keeps [`UsageRecord::TEXT_MAX`] bytes.
    pub capability: Option<Arc<str>>,
    /// The orchestrator that served it.
    pub orchestrator: Option<OrchestratorId>,
    /// The region of that orchestrator.
    pub region: Option<RegionId>,
    /// The region its caller is nearest to.
    pub home: RegionId,
    /// The country of its caller, where one is known.
    pub country: Option<Country>,
    /// Orchestrators tried, the last one included.
    pub attempts: u32,
    /// Bytes of body from the client.
    pub bytes_up: u64,
    /// Bytes of body to the client.
    pub bytes_down: u64,
    /// From the head of the request to the head of the answer, in microseconds.
    pub ttfb_us: u64,
    /// From the head of the request to the last byte of the answer, in microseconds.
    pub duration_us: u64,
    /// How it ended: `whole`, `cut` by the orchestrator, `abandoned` by the client, or
    /// `refused` before an orchestrator answered.
    pub end: &'static str,
    /// The session it belonged to.
    pub session: Option<SessionId>,
}

impl UsageRecord {
    /// The most that is kept of a text from outside, in bytes: far above any real method,
    /// route or capability, and small enough that a line stays below
    /// [`LINE_MAX`](crate::journal::LINE_MAX) however it is escaped.
    pub const TEXT_MAX: usize = 256;
}
