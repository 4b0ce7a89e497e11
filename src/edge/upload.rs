//! How far a client's body has come, and for whom one waits meanwhile.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::Body;
use crate::upstream::body::{End, Watch};

/// In vain, for whom and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Waited {
    /// The client's body stood still, or all but did.
    #[error("too little of it came in {0:?}")]
    ForClient(Duration),
    /// The client's body broke off.
    #[error("it broke off before its end")]
    Broken,
    /// The body was sent and no answer began.
    #[error("no answer within {0:?}")]
    ForAnswer(Duration),
}

/// What a client may send, and how slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The most bytes.
    pub(crate) max: u64,
    /// Bytes a second that must come on the whole, once it has taken [`SLOW_AFTER`]; a
    /// stream of a session may be as slow as it likes.
    pub(crate) rate_min: u64,
}

/// How far the client's body has come.
#[derive(Clone, Debug)]
pub struct Upload(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    started: Instant,
    bounds: Bounds,
    bytes: AtomicU64,
    /// Milliseconds after `started` when a byte last went out.
    moved_ms: AtomicU64,
    ended: Mutex<Option<(Instant, End)>>,
}

impl Upload {
    /// Watches a body that streams; one that is held whole has ended already.
    pub(crate) fn watch(body: Body, bounds: Bounds, now: Instant) -> (Body, Self) {
        let streams = matches!(body, Body::Stream(_));
        let ended = Mutex::new((!streams).then_some((now, End::Whole)));
        let zero = || AtomicU64::new(0);
        let progress = Progress { started: now, bounds, bytes: zero(), moved_ms: zero(), ended };
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
        mut sending: Pin<&mut impl Future<Output = T>>,
        patience: Duration,
        mut now: Instant,
    ) -> Result<T, Waited> {
        loop {
            let (wait, stalled) = match self.end() {
                // What broke off is not answered as if it were whole; a moment is left to an
                // answer that was on its way.
                Some(ended) if self.is_cut() => {
                    ((ended + BROKEN_GRACE).saturating_duration_since(now), true)
                }
                Some(ended) => ((ended + patience).saturating_duration_since(now), false),
                None => ((self.moved_at() + STALL).saturating_duration_since(now), true),
            };
            let wait =
                if stalled && self.0.bounds.rate_min > 0 { wait.min(SLOW_LOOK) } else { wait };
            if stalled && !self.is_cut() && self.is_slow(now) {
                return Err(Waited::ForClient(now.saturating_duration_since(self.0.started)));
            }
            if wait.is_zero() {
                return Err(match stalled {
                    true if self.is_cut() => Waited::Broken,
                    true => Waited::ForClient(STALL),
                    false => Waited::ForAnswer(patience),
                });
            }
            if let Ok(answered) = tokio::time::timeout(wait, sending.as_mut()).await {
                return Ok(answered);
            }
            now = clock::now();
        }
    }

    /// Tells whether it has taken too long for what came of it.
    fn is_slow(&self, now: Instant) -> bool {
        let taken = now.saturating_duration_since(self.0.started);
        let owed = taken.as_secs().saturating_mul(self.0.bounds.rate_min);
        taken >= SLOW_AFTER && self.0.bytes.load(Ordering::Relaxed) < owed
    }

    /// Tells whether more came than may.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > self.0.bounds.max
    }

    /// Tells whether the client's body ended before its end; not whether somebody further on
    /// read no more of it, who may answer all the same.
    fn is_cut(&self) -> bool {
        let ended = *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.is_some_and(|(_at, how)| how == End::Cut)
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
    fn passes(&mut self, n: usize) -> bool {
        let ms = clock::now().saturating_duration_since(self.0.started).as_millis() as u64;
        self.0.moved_ms.store(ms, Ordering::Relaxed);
        let before = self.0.bytes.fetch_add(n as u64, Ordering::Relaxed);
        before.saturating_add(n as u64) <= self.0.bounds.max
    }

    fn ended(self: Box<Self>, end: End) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert((clock::now(), end));
    }
}

/// How slow a body is shows after this,
const SLOW_AFTER: Duration = Duration::from_secs(30);
/// and is looked at this often.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// An answer to a body that broke off may still come for this long.
const BROKEN_GRACE: Duration = Duration::from_millis(500);
/// A client's body may stand still for this long.
const STALL: Duration = Duration::from_secs(30);
