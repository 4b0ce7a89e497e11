//! One request of the apps door: what it wants, what may still be done with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use metrics::counter;

use crate::edge::fields::Fields;
use crate::edge::places::Kept;
use crate::edge::refusal::ServeError;
use crate::edge::replay::{Replays, Reserved};
use crate::edge::route::{Refusal, Route, Why};
use crate::edge::upload::Bounds;
use crate::edge::visit::Visit;
use crate::edge::wishes::Wishes;
use crate::id::{DecisionId, NodeId, OrchestratorId};
use crate::livepeer::bind;
use crate::ticket::Ticket;
use crate::upstream::Body;
use crate::view::CapabilityId;
use crate::view::row::Mode;

/// One request.
#[derive(Debug)]
pub struct Job {
    /// What was known before anything was decided.
    pub visit: Visit,
    /// What it is.
    pub work: Work,
    /// Its headers, as they came; [`passed`](crate::edge::passed) says which go on.
    pub headers: HeaderMap,
    /// Its body.
    pub body: JobBody,
    /// Its end of a protocol switch, when it asks for one.
    pub upgrade: Option<OnUpgrade>,
    /// Who was tried.
    pub tried: Vec<OrchestratorId>,
    /// The last decision taken for it.
    pub decision: Option<DecisionId>,
    /// The peer it goes through.
    pub via: Option<NodeId>,
    /// What choosing took, over all attempts.
    pub choosing: Duration,
    /// What its client wishes.
    pub wishes: Wishes,
    /// Where a place is worth waiting for, as of the last choice that found nobody.
    pub held_at: Vec<OrchestratorId>,
    /// Who turned it away for lack of places.
    pub full_at: Vec<OrchestratorId>,
    /// Until when it may wait for a place; set when it first does.
    pub wait_until: Option<Instant>,
    /// How often it did.
    pub n_waits: u32,
    /// The place that is kept for it.
    pub kept: Option<Kept>,
    last: Option<Refusal>,
}

/// What a request is.
#[derive(Clone, Debug)]
pub enum Work {
    /// New work: a reservation or a single-shot call, for whoever serves it best.
    New {
        /// The app.
        app: Arc<str>,
        /// The same, by number.
        capability: CapabilityId,
        /// Price and graphics card the client was shown.
        variant: u32,
        /// Reservation or call.
        mode: Mode,
        /// The query, with its `?`.
        query: String,
        /// The orchestrator its payment belongs to, when it brings one.
        bound: Option<OrchestratorId>,
    },
    /// A request within a session; it belongs to one orchestrator.
    Within {
        /// The session.
        ticket: Ticket,
        /// Path at the orchestrator, and query.
        path: String,
        /// Whether it ends the session.
        stop: bool,
    },
    /// A request for fresh payment parameters; it belongs to one orchestrator.
    Refresh {
        /// Which one.
        bound: OrchestratorId,
    },
}

/// A request's body, and whether it can be sent more than once.
#[derive(Debug)]
pub enum JobBody {
    /// Nothing of it was read. The length is what the client declared.
    Unread(Incoming, Option<u64>),
    /// All of it is held, within what may be held.
    Held(Bytes, Reserved),
    /// It went out and is gone.
    Gone,
}

impl Job {
    /// Makes a job nobody was tried for yet.
    pub fn new(
        visit: Visit,
        work: Work,
        wishes: Wishes,
        headers: HeaderMap,
        body: JobBody,
    ) -> Self {
        Self {
            wishes,
            visit,
            work,
            headers,
            body,
            upgrade: None,
            tried: Vec::new(),
            decision: None,
            via: None,
            choosing: Duration::ZERO,
            held_at: Vec::new(),
            full_at: Vec::new(),
            wait_until: None,
            n_waits: 0,
            kept: None,
            last: None,
        }
    }

    /// Lets go of a payment nobody here can take, and of the orchestrator it belonged to: the
    /// unpaid request draws a fresh challenge, with which the client starts anew.
    pub fn unbind(&mut self) {
        if let Work::New { bound, .. } = &mut self.work {
            *bound = None;
        }
    }

    /// Returns the body for an attempt. One that is short enough for its route, and for what
    /// is left of `replays`, is read whole and kept, now that somebody is there to take it;
    /// any other streams and is gone with it.
    pub async fn body_to_send(&mut self, replays: &Replays) -> Result<Body, ServeError> {
        let body = std::mem::replace(&mut self.body, JobBody::Gone);
        let (bytes, reserved) = match body {
            JobBody::Held(bytes, reserved) => (bytes, reserved),
            JobBody::Unread(stream, length) => match self.reserve(length, replays) {
                Some((length, reserved)) => (read_whole(stream, length).await?, reserved),
                None => return Ok(Body::stream(stream)),
            },
            JobBody::Gone => return Err(ServeError::Body("it was sent already".to_owned())),
        };
        self.body = JobBody::Held(bytes.clone(), reserved);
        Ok(if bytes.is_empty() { Body::Empty } else { Body::whole(bytes) })
    }

    /// Returns the bytes of body its client says it sends; 0 where it does not say.
    pub(crate) fn declared(&self) -> u64 {
        match &self.body {
            JobBody::Unread(_stream, length) => length.unwrap_or(0),
            JobBody::Held(bytes, _reserved) => bytes.len() as u64,
            JobBody::Gone => 0,
        }
    }

    /// Reserves room for a body that is worth holding: one that may be sent again.
    fn reserve(&self, length: Option<u64>, replays: &Replays) -> Option<(usize, Reserved)> {
        let params = &self.visit.params;
        let max = match self.work {
            Work::New { mode: Mode::Persistent, .. } | Work::Refresh { .. } => RESERVATION_MAX,
            Work::New { .. } | Work::Within { .. } => params.replay_max,
        };
        let length = usize::try_from(length?).ok().filter(|length| *length <= max)?;
        Some((length, replays.reserve(length, params.replay_all_max)?))
    }

    /// Notes a refusal; an error when nothing else may be tried. `budget` takes one retry out
    /// of the budget, or says that there is none left.
    pub fn note(
        &mut self,
        route: Route,
        refusal: Refusal,
        budget: impl FnOnce() -> bool,
    ) -> Result<(), ServeError> {
        counter!("portolan_attempts_total", "outcome" => refusal.why.name()).increment(1);
        tracing::debug!(orchestrator = %route.row.id, %refusal, "refused");
        let again = self.may_try_again(&refusal);
        self.tried.push(route.row.id);
        if matches!(refusal.why, Why::Full) && !self.full_at.contains(&route.row.id) {
            self.full_at.push(route.row.id);
        }
        let belongs = self.belongs();
        if let Why::Client(error) = refusal.why {
            return Err(error);
        }
        if belongs {
            return Err(gone(&refusal));
        }
        // What was never sent burdened nobody, and is tried again freely.
        if !again || (refusal.sent && !budget()) {
            return Err(ended(&refusal));
        }
        counter!("livepeer_orchestrator_swaps").increment(1);
        self.last = Some(refusal);
        Ok(())
    }

    /// Returns what the client is told when nobody is left: what the last one said.
    pub fn nobody_left(&self) -> Option<ServeError> {
        self.last.as_ref().map(ended)
    }

    /// Tells whether the request may go to somebody else: nothing of it was processed, or
    /// processing it twice does no harm; and its body is still there.
    fn may_try_again(&self, refusal: &Refusal) -> bool {
        let whole = !matches!(self.body, JobBody::Gone);
        let harmless = match &self.work {
            // An unpaid reservation that was lost runs out by itself.
            Work::New { mode: Mode::Persistent, bound: None, .. } => true,
            Work::New { .. } => {
                self.headers.contains_key(IDEMPOTENCY_KEY) || is_idempotent(&self.visit.method)
            }
            Work::Within { .. } | Work::Refresh { .. } => false,
        };
        whole && (!refusal.processed || harmless)
    }

    /// Returns the longest an answer's head may take.
    pub fn patience(&self, now: Instant) -> Duration {
        let params = &self.visit.params;
        let patience = match self.work {
            // One that belongs to a single orchestrator gains nothing by giving up early.
            Work::New { mode: Mode::Persistent, bound: None, .. } => params.reserve_timeout,
            Work::New { .. } | Work::Refresh { .. } => params.head_timeout,
            Work::Within { .. } => params.session_head_timeout,
        };
        self.left(now).map_or(patience, |left| left.min(patience))
    }

    /// Returns what is left of the client's deadline.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let deadline = self.visit.started + self.wishes.deadline?;
        Some(deadline.saturating_duration_since(now))
    }

    /// Returns how much its client may send, and how slowly.
    pub(crate) fn bounds(&self) -> Bounds {
        let max = match self.work {
            Work::New { mode: Mode::Persistent, .. } | Work::Refresh { .. } => {
                RESERVATION_MAX as u64
            }
            Work::New { .. } => self.visit.params.call_body_max,
            // A stream of a session ends when it ends.
            Work::Within { .. } => return Bounds { max: u64::MAX, rate_min: 0 },
        };
        Bounds { max, rate_min: RATE_MIN }
    }

    /// Tells whether it goes on with a session, or with what was paid to one orchestrator.
    pub fn belongs(&self) -> bool {
        !matches!(self.work, Work::New { bound: None, .. })
    }

    /// Tells whether it brings a payment for somebody known; any other goes nowhere.
    pub fn is_paid(&self) -> bool {
        self.belongs()
            && self.visit.fields.has(Fields::PAYMENT)
            && self.headers.contains_key(bind::PAYMENT)
    }

    /// Returns the time since its head was read.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.visit.started)
    }
}

/// What becomes of work that belongs to one orchestrator which cannot be reached: a status
/// that makes the client start afresh.
fn gone(refusal: &Refusal) -> ServeError {
    match &refusal.why {
        Why::Silent => ServeError::Silent,
        Why::Full => ServeError::Full(refusal.retry_after),
        Why::Broken | Why::Lasting | Why::Stale | Why::Client(_) => {
            ServeError::SessionOver(format!("its orchestrator is gone ({refusal})"))
        }
    }
}

fn ended(refusal: &Refusal) -> ServeError {
    match &refusal.why {
        Why::Full => ServeError::Full(refusal.retry_after),
        Why::Silent => ServeError::Silent,
        Why::Broken | Why::Lasting | Why::Stale | Why::Client(_) => {
            ServeError::Failed(refusal.to_string())
        }
    }
}

/// RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    let idempotent =
        [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE];
    idempotent.contains(method)
}

/// Tells whether an answer says "full": the words of orchestrators, or the status for it.
pub fn says_full(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::SERVICE_UNAVAILABLE
            && String::from_utf8_lossy(body).to_ascii_lowercase().contains("capacity"))
}

/// Reads a body of `length` bytes.
async fn read_whole(mut stream: Incoming, length: usize) -> Result<Bytes, ServeError> {
    // Most are there with their head and in one piece; they take no timer and no collecting.
    let mut first = Bytes::new();
    let polled = std::future::poll_fn(|context| {
        Poll::Ready(Pin::new(&mut stream).poll_frame(context).map(|it| it.transpose()))
    });
    let broken = |broken: hyper::Error| ServeError::Body(broken.to_string());
    if let Poll::Ready(frame) = polled.await
        && let Some(frame) = frame.map_err(broken)?
        && let Ok(data) = frame.into_data()
    {
        first = data;
    }
    if stream.is_end_stream() && first.len() <= length {
        return Ok(first);
    }
    let rest = Limited::new(stream, length.saturating_sub(first.len())).collect();
    // Boxed, or every request would have room for it.
    let rest = Box::pin(tokio::time::timeout(BODY_TIMEOUT, rest)).await;
    let rest = rest.map_err(|_elapsed| ServeError::Body("too slow".to_owned()))?;
    let rest = rest.map_err(|broken| ServeError::Body(broken.to_string()))?.to_bytes();
    Ok([first, rest].concat().into())
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// A reservation's body is a few bytes of JSON.
const RESERVATION_MAX: usize = 64 * 1024;
/// A call's body that comes more slowly is no upload: a kilobyte a second.
const RATE_MIN: u64 = 1024;
/// A body short enough to be held comes in one breath.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
