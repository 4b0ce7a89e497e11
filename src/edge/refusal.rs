//! Every "no" of this node, and the answer it becomes: one table.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use metrics::counter;

use crate::http1::Fault;
use crate::livepeer::bind::BadBinding;
use crate::livepeer::error;
use crate::policy::NoRoute;
use crate::ticket::BadTicket;
use crate::upstream::Body;

/// Why a request was not served. Nothing was answered yet in any case.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No such door.
    #[error("no such path here; try /discover-orchestrators, /discovery or /v1/resolve")]
    NoDoor,
    /// The door does not take this method.
    #[error("this path takes {0} only")]
    Method(&'static str),
    /// A part of the request cannot be read: what, and the remedy.
    #[error("{0}")]
    BadRequest(String),
    /// The request cannot be read in one way only.
    #[error("this request cannot be read: {0}")]
    Unreadable(#[from] Fault),
    /// The request is for a host that is not served here.
    #[error("the host asked for is not served on this connection; connect anew, by its own name")]
    Misdirected,
    /// The payment headers cannot be read.
    #[error(transparent)]
    Payment(#[from] BadBinding),
    /// The request's body broke off or came too slowly.
    #[error("the request's body did not arrive: {0}")]
    Body(String),
    /// The request's body is longer than this door takes.
    #[error("the request's body is longer than {0} bytes, the most that is taken here; send less")]
    TooLarge(u64),
    /// The node is full.
    #[error("this node has no room for more requests now; try again in a second")]
    Busy,
    /// Memory runs out.
    #[error("this node runs out of memory and takes no new work; try again in a few seconds")]
    Memory,
    /// The journal cannot take another line, and nothing is served unmetered.
    #[error("this node cannot record more usage now; try again in a second")]
    JournalFull,
    /// The session table is full.
    #[error("this node has no room for more sessions now; try another node")]
    SessionsFull,
    /// The node is stopping.
    #[error("this node is stopping; try another one")]
    Draining,
    /// Not everybody was heard of since the start.
    #[error("nobody is known to offer {0} yet, but not everybody was asked; try again in a second")]
    NotYet(String),
    /// Nobody offers what was asked for.
    #[error("nobody offers {0}; GET /discovery lists what is offered")]
    Unknown(String),
    /// Nobody is left to serve it.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// The URL is not one of ours, or is past its time.
    #[error(transparent)]
    Ticket(#[from] BadTicket),
    /// The ticket of a report is not good here.
    #[error(
        "this report's ticket is not good from this network, or has expired; GET /v1/resolve for another"
    )]
    Survey(BadTicket),
    /// The session is over, or its orchestrator is gone; a client reserves again.
    #[error("this session is over: {0}; reserve again")]
    SessionOver(String),
    /// Everybody who could be tried failed.
    #[error("no orchestrator served this; the last one: {0}")]
    Failed(String),
    /// Everybody who could be tried is full.
    #[error("every orchestrator that could serve this is full")]
    Full(Option<Duration>),
    /// Too little is left of what could serve it.
    #[error(
        "more than half of what could serve this is down, and the rest is kept for others; try again in a few seconds"
    )]
    Panic,
    /// The client's deadline is over, or nobody could keep it.
    #[error("nobody can serve this within the deadline set by Portolan-Deadline")]
    Deadline,
    /// The operator does not let clients wish this.
    #[error("clients of this node may not {0}; ask its operator for policy.clients_may")]
    WishDenied(&'static str),
    /// The one orchestrator this belongs to did not answer in time.
    #[error("the orchestrator did not answer in time")]
    Silent,
}

impl ServeError {
    /// Returns status, a short name for metrics, and after how many seconds to try again.
    fn answer(&self) -> (StatusCode, &'static str, Option<u32>) {
        match self {
            Self::NoDoor => (StatusCode::NOT_FOUND, "no-door", None),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method", None),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request", None),
            Self::Unreadable(fault) => {
                let status = StatusCode::from_u16(fault.status());
                (status.unwrap_or(StatusCode::BAD_REQUEST), "unreadable", None)
            }
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected", None),
            Self::Payment(_) => (StatusCode::BAD_REQUEST, "bad-payment", None),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "body", None),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", None),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", Some(1)),
            Self::Memory => (StatusCode::SERVICE_UNAVAILABLE, "memory", Some(5)),
            Self::JournalFull => (StatusCode::SERVICE_UNAVAILABLE, "journal-full", Some(1)),
            Self::SessionsFull => (StatusCode::SERVICE_UNAVAILABLE, "sessions-full", Some(5)),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", Some(1)),
            Self::NotYet(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-yet", Some(1)),
            Self::Unknown(_) => (StatusCode::NOT_FOUND, "unknown-app", None),
            Self::NoRoute(_) => (StatusCode::SERVICE_UNAVAILABLE, "no-route", Some(2)),
            Self::Ticket(_) => (StatusCode::NOT_FOUND, "ticket", None),
            Self::Survey(_) => (StatusCode::FORBIDDEN, "survey", None),
            Self::SessionOver(_) => (StatusCode::NOT_FOUND, "session-over", None),
            Self::Failed(_) => (StatusCode::BAD_GATEWAY, "failed", None),
            Self::Full(wait) => {
                let seconds = wait.map_or(2, |wait| wait.as_secs_f64().ceil() as u32);
                (StatusCode::SERVICE_UNAVAILABLE, "full", Some(seconds.max(1)))
            }
            Self::Panic => (StatusCode::SERVICE_UNAVAILABLE, "panic", Some(5)),
            Self::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline", None),
            Self::WishDenied(_) => (StatusCode::FORBIDDEN, "wish-denied", None),
            Self::Silent => (StatusCode::GATEWAY_TIMEOUT, "silent", None),
        }
    }

    /// Returns the status this becomes.
    pub fn status(&self) -> StatusCode {
        self.answer().0
    }

    /// Returns the answer, with a body that old and new SDKs parse, and counts it.
    pub fn into_response(self) -> Response<Body> {
        let (status, reason, retry_after) = self.answer();
        counter!("portolan_refusals_total", "reason" => reason).increment(1);
        let mut response = json(status, error::body(&self.to_string()));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Self::Method(allowed) = self {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

/// Returns a JSON answer.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // JSON with a client's own words in it is not to be taken for anything else.
    let as_told = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, as_told);
    response
}
