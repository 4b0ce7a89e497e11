//! What every answer tells its client: who decided, who served, and what it took.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::edge::Gateway;
use crate::edge::explain;
use crate::edge::fields::Fields;
use crate::edge::job::Job;
use crate::edge::route::{Exchange, Route};
use crate::text::{Hex, push_ms};
use crate::view::View;

/// The marks of one answer, begun with what its request took.
#[derive(Debug)]
pub(crate) struct Marks {
    /// The values of all fields; each takes its part of one piece of memory.
    values: BytesMut,
}

impl Marks {
    /// Notes what a request took so far, in milliseconds.
    pub(crate) fn of(job: &Job, exchange: &Exchange) -> Self {
        let mut values = BytesMut::with_capacity(TYPICAL);
        let mut put = |name: &[u8], took: Duration, n_digits| {
            values.extend_from_slice(name);
            push_ms(&mut values, took.as_micros() as u64, n_digits);
        };
        put(b"sel;dur=", job.choosing, 3);
        put(b", conn;dur=", exchange.connecting, 1);
        put(b", ttfb;dur=", exchange.waiting, 1);
        values.extend_from_slice(b", retry;desc=\"");
        values.extend_from_slice(itoa::Buffer::new().format(job.tried.len()).as_bytes());
        values.extend_from_slice(b"\"");
        Self { values }
    }

    /// Adds them to an answer's fields, with what was decided.
    pub(crate) fn put(
        self,
        gateway: &Gateway,
        view: &View,
        job: &Job,
        route: &Route,
        headers: &mut HeaderMap,
    ) {
        headers.reserve(NUMBER);
        headers.insert(NODE, gateway.name.clone());
        let mut values = self.values;
        let mut put = |name: HeaderName, text: &[u8]| {
            values.extend_from_slice(text);
            if let Ok(value) = HeaderValue::from_maybe_shared(values.split().freeze()) {
                headers.insert(name, value);
            }
        };
        put(SERVER_TIMING, b"");
        put(ORCHESTRATOR, Hex::of(route.row.id.0).as_bytes());
        put(REGION, view.atlas.name(route.row.region).as_bytes());
        if let Some(via) = job.via {
            put(VIA, via.as_bytes());
        }
        let wants_explained = job.visit.fields.has(Fields::EXPLAIN);
        if let Some(decision) = job.decision {
            put(DECISION, Hex::of(decision.0).as_bytes());
            let record = wants_explained.then(|| gateway.decisions.find(decision)).flatten();
            if let Some(record) = record {
                put(EXPLAIN, explain::short(view, &record).as_bytes());
            }
        }
    }
}

/// Five fields, one where the answer came through a peer, and one on demand.
const NUMBER: usize = 7;
/// What to reserve for the values of five, in bytes.
const TYPICAL: usize = 192;
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const NODE: HeaderName = HeaderName::from_static("portolan-node");
const ORCHESTRATOR: HeaderName = HeaderName::from_static("portolan-orchestrator");
const VIA: HeaderName = HeaderName::from_static("portolan-via");
const REGION: HeaderName = HeaderName::from_static("portolan-region");
const DECISION: HeaderName = HeaderName::from_static("portolan-decision");
const EXPLAIN: HeaderName = HeaderName::from_static("portolan-explain");
