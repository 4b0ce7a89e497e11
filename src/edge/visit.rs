//! What is known of a request before anything is decided.

use std::sync::Arc;
use std::time::Instant;

use http::Method;

use crate::edge::Params;
use crate::edge::locate::Located;
use crate::listen::pace::Busy;
use crate::trace::TraceContext;

/// What is known of a request before anything is decided.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When its head was read.
    pub started: Instant,
    /// Its trace.
    pub trace: TraceContext,
    /// Who asks.
    pub located: Arc<Located>,
    /// How the client reached this node: scheme and authority.
    pub base: String,
    /// Whether the client wants the decision explained in a header.
    pub explain: bool,
    /// The knobs it began with.
    pub params: Arc<Params>,
    /// The method, for the log.
    pub method: Method,
    /// Keeps its connection from being taken for idle.
    pub busy: Option<Arc<Busy>>,
    /// The door, for the log.
    pub door: &'static str,
}
