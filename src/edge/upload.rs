//! How far a client's body has come, and for whom one waits meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::Body;
use crate::upstream::body::{End, Watch};

/// In vain, for whom and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Waited {
    /// The client's body stood still.
    #[error("nothing of it came for {0:?}")]
    ForClient(Duration),
    /// The body was sent and no answer began.
    #[error("no answer within {0:?}")]
    ForAnswer(Duration),
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
    pub(crate) fn watch(body: Body, now: Instant) -> (Body, Self) {
        let streams = matches!(body, Body::Stream(_));
        let ended = Mutex::new((!streams).then_some((now, End::Whole)));
        let progress = Progress { started: now, moved_ms: AtomicU64::new(0), ended };
        let upload = Self(Arc::new(progress));
        match body {
            Body::Stream(stream) => (Body::watched(*stream, Box::new(upload.clone())), upload),
            other @ (Body::Empty | Body::Whole(_) | Body::Trailed(..) | Body::Watched(_)) => {
                (other, upload)
            }
        }
    }

    /// Waits for `sending`; the orchestrator's patience starts with the body's end, and a
    /// body that stands still is the client's own doing.
    pub(crate) async fn outlast<T>(
        &self,
        sending: impl Future<Output = T>,
        patience: Duration,
    ) -> Result<T, Waited> {
        let mut sending = std::pin::pin!(sending);
        loop {
            let now = clock::now();
            let (wait, stalled) = match self.end() {
                Some(ended) => ((ended + patience).saturating_duration_since(now), false),
                None => ((self.moved_at() + STALL).saturating_duration_since(now), true),
            };
            if wait.is_zero() {
                return Err(if stalled {
                    Waited::ForClient(STALL)
                } else {
                    Waited::ForAnswer(patience)
                });
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

    /// Returns how long an answer has been owed: since the body was sent whole.
    pub(crate) fn answer_owed(&self, now: Instant) -> Option<Duration> {
        let ended = *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, _whole) = ended.filter(|(_at, how)| *how == End::Whole)?;
        Some(now.saturating_duration_since(at))
    }

    fn end(&self) -> Option<Instant> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).map(|(at, _how)| at)
    }

    fn moved_at(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed))
    }

    /// Returns the time since the body ended, or since `sent` while it has not.
    pub(crate) fn since_end(&self, sent: Instant) -> Duration {
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

/// A client's body may stand still for this long.
const STALL: Duration = Duration::from_secs(30);
