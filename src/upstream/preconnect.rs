//! Connections made before a request needs them, so that none waits for the way to be opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::runtime::Handle;

use crate::clock;
use crate::id::OrchestratorId;
use crate::upstream::connect::Protocol;
use crate::upstream::{ConnectError, Dialer, Lease, Origin, Place, Upstream, lock, speak_http1};
use crate::uri::ServiceUri;
use crate::view::outcome::Gauge;

/// Whether a connection is being made ahead of the requests; one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Ahead {
    /// None is.
    #[default]
    Idle,
    /// One is.
    Making,
    /// None is, and the last one came to nothing at this moment.
    Failed(Instant),
}

/// One that is being made; whatever becomes of its task, the next one is not held up.
#[derive(Debug)]
struct Making {
    origin: Arc<Origin>,
    ends: Ahead,
}

impl Drop for Making {
    fn drop(&mut self) {
        *lock(&self.origin.ahead) = self.ends;
    }
}

impl Ahead {
    /// Begins one, unless one is on its way or has failed a moment ago.
    fn begin(&mut self, now: Instant) -> bool {
        let may = match *self {
            Self::Idle => true,
            Self::Making => false,
            Self::Failed(at) => now.saturating_duration_since(at) >= REST,
        };
        if may {
            *self = Self::Making;
        }
        may
    }
}

impl Upstream {
    /// Opens a connection to `uri` in the background and keeps it for the next request, if
    /// that comes within five seconds.
    ///
    /// Nothing happens while one is being opened there, within a second of a failure, where it
    /// would take the last place from a request, or where no more idle ones are kept. A failure
    /// is counted, and is no outcome: what an orchestrator is worth is told by checks and
    /// requests.
    pub fn preconnect(
        &self,
        id: OrchestratorId,
        uri: &ServiceUri,
        gauge: &Arc<Gauge>,
        now: Instant,
    ) {
        if self.idle_all.load(Ordering::Relaxed) >= self.params.idle_all_max {
            return;
        }
        let origin = self.origin(id, gauge);
        if origin.open.load(Ordering::Acquire).saturating_add(1) >= self.params.connections_max {
            return;
        }
        if !lock(&origin.ahead).begin(now) {
            return;
        }
        let mut making = Making { origin: Arc::clone(&origin), ends: Ahead::Failed(now) };
        let place = self.place(origin);
        // Boxed, or the connection keeps room for its handshake.
        let opening = Box::pin(open(self.dialer.clone(), uri.clone(), place));
        let made = async move {
            let made = opening.await;
            let now = clock::now();
            let (result, moved) = match made {
                Ok((lease, moved)) => match lease.keep(now, false) {
                    true => ("made", Some(moved)),
                    false => ("unkept", None),
                },
                Err(_) => ("failed", None),
            };
            making.ends = if moved.is_some() { Ahead::Idle } else { Ahead::Failed(now) };
            drop(making);
            counter!("portolan_preconnects_total", "result" => result).increment(1);
            if let Some(moved) = moved {
                moved.await;
            }
        };
        self.run(made, &Handle::current());
    }
}

/// Opens a connection in `place`; what is returned besides moves its bytes.
async fn open(
    dialer: Dialer,
    uri: ServiceUri,
    place: Result<Place, ConnectError>,
) -> Result<(Lease, impl Future<Output = ()>), ConnectError> {
    let place = place?;
    let io = dialer.dial(&uri, Protocol::Http1).await?.io;
    let (sender, moved) = speak_http1(io).await?;
    Ok((Lease { sender, place, warm: false, once: false }, moved))
}

/// After a failure, none is opened ahead for this long.
const REST: Duration = Duration::from_secs(1);
