//! The client side to orchestrators: connect, send, keep warm.
//!
//! Connecting comes before anything is read of a request's body, so that a refused
//! connection can be tried elsewhere at no cost. Each orchestrator has its own few idle
//! connections; nothing is shared between orchestrators.

pub mod body;
pub mod check;
pub mod connect;
pub mod fetch;
pub mod guard;
pub mod pin;
pub mod preconnect;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::id::OrchestratorId;
use crate::upstream::preconnect::Ahead;
use crate::uri::ServiceUri;
use crate::view::outcome::Gauge;

pub use body::Body;
pub use connect::{ConnectError, Dialer};
pub use pin::Pins;

/// The bounds of [`Upstream`].
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Connections to one orchestrator, busy ones included.
    pub connections_max: u32,
    /// Idle connections kept to one orchestrator beyond those used within the last second.
    pub idle_max: usize,
    /// Idle connections kept to all orchestrators together.
    pub idle_all_max: u32,
    /// How long an idle connection is kept: shorter than servers usually keep theirs.
    pub idle_for: Duration,
    /// How long an answer's head may take.
    pub head_timeout: Duration,
}

/// Connections to every orchestrator.
#[derive(Debug)]
pub struct Upstream {
    params: Params,
    dialer: Dialer,
    origins: Mutex<BTreeMap<OrchestratorId, Arc<Origin>>>,
    idle_all: Arc<AtomicU32>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Origin {
    /// The most recently used last.
    idle: Mutex<VecDeque<Idle>>,
    open: AtomicU32,
    ahead: Mutex<Ahead>,
    gauge: Arc<Gauge>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
    /// Whether it has carried a request.
    used: bool,
    _counted: Counted,
}

/// One of the idle connections to all orchestrators; counted out when dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

/// One connection, held for one request.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<Body>,
    place: Place,
    /// Whether the connection was there before the request.
    pub warm: bool,
    /// Whether it carries this one request only.
    once: bool,
}

/// A place among the connections to one orchestrator; given back when dropped.
#[derive(Debug)]
struct Place {
    origin: Arc<Origin>,
    idle_max: usize,
    idle_all_max: u32,
    idle_all: Arc<AtomicU32>,
}

/// What the HTTP layer says of a request that brought no answer.
pub type Unanswered = TrySendError<Request<Body>>;

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// An idle connection was gone before a byte of the request went out; the request is
    /// whole. Never said of a connection made for it, so that trying again ends.
    #[error("the connection was closed before the request was sent")]
    Unsent(Box<Request<Body>>),
    /// No head came back.
    #[error("the orchestrator broke off before answering: {0}")]
    Broken(#[source] Break),
    /// No head came back in time.
    #[error("the orchestrator sent no answer within {0:?}")]
    Silent(Duration),
}

/// How a connection broke off.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Break {
    /// What the HTTP layer says.
    #[source]
    pub error: hyper::Error,
    /// Whether the request, or part of it, may have gone out. It did not on a fresh connection
    /// that was closed before.
    pub sent: bool,
}

impl Upstream {
    /// Makes an upstream without connections.
    pub fn new(params: Params, dialer: Dialer) -> Self {
        let idle_all = Arc::default();
        Self { params, dialer, origins: Mutex::default(), idle_all, tasks: Mutex::default() }
    }

    /// Returns the dialer, for checks.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Takes a connection to `uri` that is not idle for too long by `now`, or makes one.
    pub async fn lease(
        &self,
        id: OrchestratorId,
        uri: &ServiceUri,
        gauge: &Arc<Gauge>,
        now: Instant,
    ) -> Result<Lease, ConnectError> {
        let origin = self.origin(id, gauge);
        while let Some(mut idle) = origin.take_idle() {
            // A place is held from here on, also while a dead connection is dropped.
            let place = self.held_place(&origin);
            if idle.is_fresh(now, self.params.idle_for) && is_ready(&mut idle.sender).await {
                return Ok(Lease { sender: idle.sender, place, warm: true, once: false });
            }
        }
        let place = self.place(origin)?;
        // Boxed, or every request keeps room for a handshake.
        Box::pin(self.connect(uri, place)).await
    }

    /// Speaks over a stream that leads to an orchestrator through somebody else, for one
    /// request; its bytes are moved on `runtime`, where whoever moves the stream's own is.
    pub async fn lease_over(
        &self,
        id: OrchestratorId,
        gauge: &Arc<Gauge>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        runtime: &Handle,
    ) -> Result<Lease, ConnectError> {
        let place = self.place(self.origin(id, gauge))?;
        let lease = self.shake_hands(TokioIo::new(stream), place, runtime).await?;
        Ok(Lease { once: true, ..lease })
    }

    /// Takes a place among the connections to one orchestrator.
    fn place(&self, origin: Arc<Origin>) -> Result<Place, ConnectError> {
        if origin.open.fetch_add(1, Ordering::AcqRel) >= self.params.connections_max {
            origin.open.fetch_sub(1, Ordering::AcqRel);
            return Err(ConnectError::Full(self.params.connections_max));
        }
        Ok(self.held_place(&origin))
    }

    /// Returns a place that is counted already.
    fn held_place(&self, origin: &Arc<Origin>) -> Place {
        Place {
            origin: Arc::clone(origin),
            idle_max: self.params.idle_max,
            idle_all_max: self.params.idle_all_max,
            idle_all: Arc::clone(&self.idle_all),
        }
    }

    /// Makes a connection in `place`.
    async fn connect(&self, uri: &ServiceUri, place: Place) -> Result<Lease, ConnectError> {
        let io = self.dialer.dial(uri, connect::Protocol::Http1).await?.io;
        self.shake_hands(io, place, &Handle::current()).await
    }

    async fn shake_hands<T>(
        &self,
        io: TokioIo<T>,
        place: Place,
        runtime: &Handle,
    ) -> Result<Lease, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, moved) = speak_http1(io).await?;
        self.run(moved, runtime);
        Ok(Lease { sender, place, warm: false, once: false })
    }

    fn origin(&self, id: OrchestratorId, gauge: &Arc<Gauge>) -> Arc<Origin> {
        let mut origins = lock(&self.origins);
        // One that left the directory and came back has other counters.
        if let Some(known) = origins.get(&id).filter(|it| Arc::ptr_eq(&it.gauge, gauge)) {
            return Arc::clone(known);
        }
        let origin = Arc::new(Origin {
            idle: Mutex::default(),
            open: AtomicU32::new(0),
            ahead: Mutex::default(),
            gauge: Arc::clone(gauge),
        });
        origins.insert(id, Arc::clone(&origin));
        origin
    }

    /// Closes idle connections that were not used for their time.
    pub fn sweep(&self, now: Instant) {
        let origins: Vec<Arc<Origin>> = lock(&self.origins).values().cloned().collect();
        for origin in origins {
            let mut idle = lock(&origin.idle);
            let before = idle.len();
            idle.retain(|it| it.is_fresh(now, self.params.idle_for) && !it.sender.is_closed());
            origin.open.fetch_sub((before - idle.len()) as u32, Ordering::AcqRel);
            origin.gauge.set_warm(idle.len() as u32);
        }
    }

    /// Forgets an orchestrator that left the directory.
    pub fn forget(&self, id: OrchestratorId) {
        lock(&self.origins).remove(&id);
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, runtime);
    }
}

/// Begins to speak HTTP/1.1 over `io`; what is returned besides moves its bytes until it ends,
/// which is seen by whoever holds the sender.
async fn speak_http1<T>(
    io: TokioIo<T>,
) -> Result<(SendRequest<Body>, impl Future<Output = ()>), ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake::<_, Body>(io)
        .await;
    let (sender, connection) = handshake.map_err(ConnectError::Http)?;
    Ok((sender, async move { drop(connection.with_upgrades().await) }))
}

/// Tells whether an idle connection takes a request; one whose last request is still being
/// sent may never.
async fn is_ready(sender: &mut SendRequest<Body>) -> bool {
    // Nearly always it is, and neither a timer nor room for one is needed.
    sender.is_ready()
        || matches!(Box::pin(tokio::time::timeout(READY_WITHIN, sender.ready())).await, Ok(Ok(())))
}

impl Origin {
    /// Takes the most recently used idle connection; the place it holds goes to the taker.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = lock(&self.idle);
        let taken = idle.pop_back();
        self.gauge.set_warm(idle.len() as u32);
        taken
    }
}

impl Lease {
    /// Sends a request; what is returned waits for the head of its answer, and
    /// [`Lease::why`] says why none came.
    ///
    /// Nothing of the request is kept meanwhile: it is on its way when this returns.
    /// [`Lease::put_back`] keeps the connection once the answer's body was read to its end.
    pub fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unanswered>> + use<> {
        self.sender.try_send_request(request)
    }

    /// The same, waiting no longer than `within` for the head of the answer.
    pub async fn send_within(
        &mut self,
        request: Request<Body>,
        within: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        match tokio::time::timeout(within, self.send(request)).await {
            Ok(sent) => sent.map_err(|failed| self.why(failed)),
            Err(_elapsed) => Err(SendError::Silent(within)),
        }
    }

    /// Tells why a request that was sent over this brought no answer.
    pub fn why(&self, mut failed: Unanswered) -> SendError {
        match failed.take_message() {
            Some(request) if self.warm => SendError::Unsent(Box::new(request)),
            whole => {
                let (sent, error) = (whole.is_none(), failed.into_error());
                SendError::Broken(Break { error, sent })
            }
        }
    }

    /// Keeps the connection for the next request.
    pub fn put_back(self, now: Instant) {
        self.keep(now, true);
    }

    /// Keeps the connection, unless there is no room for it or it is closed; `used` tells
    /// whether it has carried a request. Returns whether it is kept.
    fn keep(self, now: Instant, used: bool) -> bool {
        if self.once || self.sender.is_closed() {
            return false;
        }
        let Self { sender, place, warm: _, once: _ } = self;
        let mut idle = lock(&place.origin.idle);
        let spare = |it: &Idle| now.saturating_duration_since(it.since) >= IN_USE;
        let oldest = match idle.len() >= place.idle_max && idle.front().is_some_and(spare) {
            true => idle.pop_front(),
            false => None,
        };
        if oldest.is_some() {
            place.origin.open.fetch_sub(1, Ordering::AcqRel);
        }
        let counted = Counted::new(&place.idle_all);
        let has_room = place.idle_all.load(Ordering::Relaxed) <= place.idle_all_max;
        if has_room {
            idle.push_back(Idle { sender, since: now, used, _counted: counted });
            // The idle connection keeps the place.
            place.origin.open.fetch_add(1, Ordering::AcqRel);
        }
        place.origin.gauge.set_warm(idle.len() as u32);
        drop(idle);
        // Closed outside the lock.
        drop(oldest);
        has_room
    }
}

impl Idle {
    /// Tells whether it is young enough by `now` to be taken.
    fn is_fresh(&self, now: Instant, idle_for: Duration) -> bool {
        let kept_for = if self.used { idle_for } else { idle_for.min(UNUSED_FOR) };
        now.saturating_duration_since(self.since) < kept_for
    }
}

impl Counted {
    fn new(all: &Arc<AtomicU32>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.origin.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An idle connection that is not ready at once is not waited for.
const READY_WITHIN: Duration = Duration::from_millis(10);
/// An idle connection used within this time is in use as far as the load goes: under many
/// requests at once all are idle now and then, and making them anew costs more than a request.
const IN_USE: Duration = Duration::from_secs(1);
/// How long a connection is kept that has carried nothing yet: servers give the first request
/// less time than the next (of HAProxy and Go it is an option of its own, often 10 s).
const UNUSED_FOR: Duration = Duration::from_secs(5);
/// Bytes a connection gathers before it writes, and reads at once where so many come; longer
/// heads are refused. A megabyte takes four steps each way rather than sixteen.
const BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests;
