//! One exchange with one orchestrator: connect, send, wait for the head of the answer.
//!
//! Whose fault a silence is depends on who was to speak: while the client's body is still on
//! its way, the orchestrator owes nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, header};

use crate::clock;
use crate::edge::Gateway;
use crate::edge::job::Job;
use crate::edge::refusal::ServeError;
use crate::edge::route::{Exchange, Refusal, Route, Why};
use crate::upstream::body::{End, Watch};
use crate::upstream::{Body, ConnectError, Lease, SendError};
use crate::view::Row;

impl Gateway {
    /// Connects, sends `job` and waits for the head of an answer.
    pub(crate) async fn exchange(&self, route: &Route, job: &mut Job) -> Result<Exchange, Refusal> {
        let (row, started) = (&route.row, clock::now());
        let mut lease = self.lease(row).await?;
        let connecting = clock::now().saturating_duration_since(started);
        // Only now, with somebody there to take it, is the body touched.
        let body = job.body_to_send(self.params.replay_max).await.map_err(Refusal::client)?;
        let (body, upload) = Upload::watch(body, clock::now());
        let mut request = request(route, job, body)?;
        let patience = job.patience(&self.params);
        let sent = clock::now();
        let (response, lease) = loop {
            let warm = lease.warm;
            match upload.outlast(lease.send(request, NOT_HERE), patience).await? {
                Ok(answered) => break answered,
                // An idle connection died as it was taken; the request is whole.
                Err(SendError::Unsent(whole)) if warm => {
                    request = *whole;
                    lease = self.lease(row).await?;
                }
                Err(SendError::Broken(error)) if error.is_user() => {
                    let said = "the client broke off".to_owned();
                    return Err(Refusal::client(ServeError::Body(said)));
                }
                Err(SendError::Unsent(_)) => {
                    return Err(Refusal::unprocessed(Why::Broken, "it closed a new connection"));
                }
                Err(broken) => {
                    let said = broken.to_string();
                    return Err(Refusal { why: Why::Broken, processed: true, said });
                }
            }
        };
        let waiting = upload.since_end(sent);
        Ok(Exchange { response, lease, connecting, waiting, upload })
    }

    async fn lease(&self, row: &Row) -> Result<Lease, Refusal> {
        let leased = self.shared.upstream.lease(row.id, &row.uri, &row.gauge).await;
        leased.map_err(|error| {
            let why = match error {
                ConnectError::Full(_) => Why::Full,
                ConnectError::Silent(_) => Why::Silent,
                ConnectError::Refused(_)
                | ConnectError::Tls(_)
                | ConnectError::Pin
                | ConnectError::Http(_) => Why::Broken,
            };
            Refusal::unprocessed(why, &error.to_string())
        })
    }
}

fn request(route: &Route, job: &Job, body: Body) -> Result<Request<Body>, Refusal> {
    let mut request = Request::new(body);
    *request.method_mut() = job.visit.method.clone();
    *request.uri_mut() = route.path.parse().map_err(|_bad| {
        Refusal::client(ServeError::BadRequest("the path is not a valid URI path".into()))
    })?;
    *request.headers_mut() = job.headers.clone();
    let authority = header::HeaderValue::from_str(route.row.uri.authority());
    let authority = authority.map_err(|bad| Refusal::unprocessed(Why::Broken, &bad.to_string()))?;
    request.headers_mut().insert(header::HOST, authority);
    Ok(request)
}

/// How far the client's body has come.
#[derive(Clone, Debug)]
pub struct Upload(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    started: Instant,
    /// Milliseconds after `started` when a byte last went out.
    moved_ms: AtomicU64,
    ended: Mutex<Option<(Instant, End)>>,
}

impl Upload {
    /// Watches a body that streams; one that is held whole has ended already.
    fn watch(body: Body, now: Instant) -> (Body, Self) {
        let streams = matches!(body, Body::Stream(_));
        let ended = Mutex::new((!streams).then_some((now, End::Whole)));
        let progress = Progress { started: now, moved_ms: AtomicU64::new(0), ended };
        let upload = Self(Arc::new(progress));
        match body {
            Body::Stream(stream) => (Body::watched(*stream, Box::new(upload.clone())), upload),
            other @ (Body::Empty | Body::Whole(_) | Body::Watched(_)) => (other, upload),
        }
    }

    /// Waits for `sending`; the orchestrator's patience starts with the body's end, and a
    /// body that stands still is the client's own doing.
    async fn outlast<T>(
        &self,
        sending: impl Future<Output = T>,
        patience: Duration,
    ) -> Result<T, Refusal> {
        let mut sending = std::pin::pin!(sending);
        loop {
            let now = clock::now();
            let (wait, stalled) = match self.end() {
                Some(ended) => ((ended + patience).saturating_duration_since(now), false),
                None => ((self.moved_at() + STALL).saturating_duration_since(now), true),
            };
            if wait.is_zero() && stalled {
                let said = format!("nothing of it came for {STALL:?}");
                return Err(Refusal::client(ServeError::Body(said)));
            }
            if wait.is_zero() {
                let said = format!("no answer within {patience:?}");
                return Err(Refusal { why: Why::Silent, processed: true, said });
            }
            if let Ok(answered) = tokio::time::timeout(wait, sending.as_mut()).await {
                return Ok(answered);
            }
        }
    }

    /// Tells whether the client broke off: what then breaks further on is its doing.
    pub(crate) fn is_broken(&self) -> bool {
        let ended = *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.is_some_and(|(_at, how)| how != End::Whole)
    }

    fn end(&self) -> Option<Instant> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).map(|(at, _how)| at)
    }

    fn moved_at(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed))
    }

    /// Returns the time since the body ended, or since `sent` while it has not.
    fn since_end(&self, sent: Instant) -> Duration {
        clock::now().saturating_duration_since(self.end().unwrap_or(sent).max(sent))
    }
}

impl Watch for Upload {
    fn passed(&mut self, _n: usize) {
        let ms = clock::now().saturating_duration_since(self.0.started).as_millis() as u64;
        self.0.moved_ms.store(ms, Ordering::Relaxed);
    }

    fn ended(self: Box<Self>, end: End) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert((clock::now(), end));
    }
}

/// Patience is counted here, where it is known whose turn it is.
const NOT_HERE: Duration = Duration::from_secs(24 * 3600);
/// A client's body may stand still for this long.
const STALL: Duration = Duration::from_secs(30);
