//! Connections made before a request needs them, so that none waits for the way to be opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::runtime::Handle;

use crate::clock;
use crate::id::OrchestratorId;
use crate::upstream::connect::Protocol;
use crate::upstream::{ConnectError, Dialer, Lease, Place, Upstream, lock, shake_hands};
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
    /// None is, and the last one failed at this moment.
    Failed(Instant),
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
    /// Opens a connection to `uri` in the background and keeps it for the next request.
    ///
    /// Nothing happens while one is being opened there, within a second of a failure, where
    /// all connections to it are in use, or where no more idle ones are kept. A failure is
    /// counted, and is no outcome: what an orchestrator is worth is told by checks and requests.
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
        if !lock(&origin.ahead).begin(now) {
            return;
        }
        let (place, dialer, uri) =
            (self.place(Arc::clone(&origin)), self.dialer.clone(), uri.clone());
        let made = async move {
            // Boxed, or the connection keeps room for its handshake.
            let made = Box::pin(open(&dialer, &uri, place)).await;
            let now = clock::now();
            let (ahead, result) = match &made {
                Ok(_) => (Ahead::Idle, "made"),
                Err(_) => (Ahead::Failed(now), "failed"),
            };
            counter!("portolan_preconnects_total", "result" => result).increment(1);
            let moved = made.map(|(lease, moved)| {
                lease.put_back(now);
                moved
            });
            *lock(&origin.ahead) = ahead;
            drop(origin);
            if let Ok(moved) = moved {
                moved.await;
            }
        };
        self.run(made, &Handle::current());
    }
}

/// Opens a connection in `place`; what is returned besides moves its bytes.
async fn open(
    dialer: &Dialer,
    uri: &ServiceUri,
    place: Result<Place, ConnectError>,
) -> Result<(Lease, impl Future<Output = ()>), ConnectError> {
    let place = place?;
    let io = dialer.dial(uri, Protocol::Http1).await?.io;
    let (sender, moved) = shake_hands(io).await?;
    Ok((Lease { sender, place, warm: false, once: false }, moved))
}

/// After a failure, none is opened ahead for this long.
const REST: Duration = Duration::from_secs(1);
