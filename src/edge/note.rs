//! What is written down of a request: its line in the journal and in the access log, and how
//! its orchestrator is judged by it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use metrics::counter;

use crate::clock;
use crate::edge::job::{Job, Work};
use crate::edge::route::{Attempt, Route};
use crate::edge::upload::Upload;
use crate::edge::{Gateway, Line};
use crate::journal::{Entry, UsageRecord};
use crate::listen::pace::Busy;
use crate::session::table::Using;
use crate::upstream::Lease;
use crate::upstream::body::{End, Watch};
use crate::view::View;
use crate::view::outcome::Outcome;

/// Returns the line of the journal as far as it is known when a request is let in.
pub(crate) fn usage(gateway: &Gateway, job: &Job) -> UsageRecord {
    let located = &job.visit.located;
    let (capability, session) = match &job.work {
        Work::New { app, .. } => (Some(Arc::clone(app)), None),
        Work::Within { ticket, .. } => (None, Some(ticket.session.clone())),
        Work::Refresh { .. } => (None, None),
    };
    UsageRecord {
        at_ms: clock::wall().as_millis() as u64,
        decision: None,
        trace: job.visit.trace.trace_id,
        node: gateway.identity.node,
        door: job.visit.door,
        method: method(&job.visit.method),
        route: job.work.template().into(),
        status: CLIENT_LEFT.as_u16(),
        capability,
        orchestrator: None,
        region: None,
        home: located.home,
        country: located.caller.place.country,
        attempts: 1,
        bytes_up: job.declared(),
        bytes_down: 0,
        ttfb_us: 0,
        duration_us: 0,
        end: "abandoned",
        session,
    }
}

/// Adds what is known once an answer has begun.
pub(crate) fn answered(
    usage: &mut UsageRecord,
    view: &View,
    job: &Job,
    route: &Route,
    status: StatusCode,
) {
    usage.decision = job.decision;
    usage.status = status.as_u16();
    usage.orchestrator = Some(route.row.id);
    usage.region = Some(view.atlas.name(route.row.region));
    usage.attempts = job.tried.len() as u32 + 1;
    usage.ttfb_us = job.age(clock::now()).as_micros() as u64;
    usage.end = "whole";
}

/// Returns a method as text; the usual ones are at hand.
fn method(method: &Method) -> Cow<'static, str> {
    let usual = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    match usual.into_iter().find(|it| method == it) {
        Some(usual) => usual.into(),
        None => method.to_string().into(),
    }
}

/// What is written when the last byte has passed, or failed to. Dropped before that, it
/// says so itself: no way out leaves a request unwritten.
pub(crate) struct Note(pub(crate) Option<Noted>);

/// What a [`Note`] will be made of.
pub(crate) struct Noted {
    pub(crate) line: Option<Box<Line>>,
    pub(crate) attempt: Attempt,
    pub(crate) session: Option<Using>,
    pub(crate) started: Instant,
    pub(crate) upload: Upload,
    pub(crate) lease: Option<Lease>,
    pub(crate) busy: Option<Arc<Busy>>,
}

impl Note {
    /// Changes what will be written.
    pub(crate) fn with(&mut self, change: impl FnOnce(&mut Noted)) {
        if let Some(noted) = &mut self.0 {
            change(noted);
        }
    }

    /// Changes the line that will be written.
    pub(crate) fn usage(&mut self, change: impl FnOnce(&mut UsageRecord)) {
        if let Some(line) = self.0.as_mut().and_then(|it| it.line.as_mut()) {
            change(&mut line.usage);
        }
    }

    /// Counts bytes of the answer.
    pub(crate) fn passed(&mut self, n: usize) {
        self.usage(|it| it.bytes_down += n as u64);
    }

    /// Writes it down.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(noted) = self.0.take() {
            noted.end(end);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.end(End::Abandoned);
    }
}

impl Watch for Note {
    fn passes(&mut self, n: usize) -> bool {
        self.passed(n);
        true
    }

    fn ended(mut self: Box<Self>, end: End) {
        self.end(end);
    }
}

impl Noted {
    fn end(self, end: End) {
        let Self { line, mut attempt, session, started, upload, lease, busy } = self;
        // An answer that breaks because its question did is nobody's failure but the client's.
        let end = if end == End::Cut && upload.is_broken() { End::Abandoned } else { end };
        let now = clock::now();
        let said = match end {
            End::Whole => {
                if let Some(lease) = lease {
                    lease.put_back(now);
                }
                "whole"
            }
            End::Cut => {
                attempt.will_end(Outcome::Failed);
                counter!("portolan_streams_cut_total").increment(1);
                "cut"
            }
            End::Abandoned => {
                attempt.will_end(Outcome::Neutral);
                "abandoned"
            }
        };
        drop((attempt, busy));
        let Some(mut line) = line else { return };
        let usage = &mut line.usage;
        usage.end = said;
        usage.duration_us = now.saturating_duration_since(started).as_micros() as u64;
        if let Some(using) = session {
            using.session().count(usage.bytes_up, usage.bytes_down);
            using.end(now);
        }
        let entry = Entry::of(usage);
        // One line of the access log: it names no address, and its fields are the record's.
        tracing::info!(target: "access", usage = %entry, "served");
        line.slot.write(entry);
    }
}

/// The status of a request whose client left before any answer: nginx's 499.
const CLIENT_LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};
