//! What a connection waits for and since when, and the end of waiting.
//!
//! One timer a connection, which a request does not touch: it is set anew only when the
//! connection falls due earlier than the timer would tell.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock;

/// What a connection waits for. Shared by its reader, its requests and its timer.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    /// Requests under way.
    busy: AtomicU32,
    /// Milliseconds after `started` when the last request ended.
    idle_ms: AtomicU64,
    /// Milliseconds after `started`, plus one, when an unfinished head began; 0 for none.
    head_ms: AtomicU64,
}

/// A request under way; while it is, nothing is expected of the client's connection.
#[derive(Debug)]
pub struct Busy(std::sync::Arc<crate::listen::connection::Connection>);

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From one request to the next.
    pub idle: Duration,
}

impl Pace {
    /// Starts without a request.
    pub(crate) fn new(now: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        Self { started: now, busy: AtomicU32::new(0), idle_ms: zero(), head_ms: zero() }
    }

    /// Notes that a head began and is not whole yet, or that it is whole now.
    pub(crate) fn set_in_head(&self, is_in_head: bool) {
        let ms = if is_in_head { self.ms() + 1 } else { 0 };
        self.head_ms.store(ms, Ordering::Relaxed);
    }

    /// Tells whether a head began and is not whole yet.
    pub(crate) fn is_in_head(&self) -> bool {
        self.head_ms.load(Ordering::Relaxed) > 0
    }

    fn ms(&self) -> u64 {
        clock::now().saturating_duration_since(self.started).as_millis() as u64
    }

    /// Returns when the client has taken too long; `None` while it is not its turn.
    fn due(&self, patience: Patience) -> Option<Instant> {
        let at = |ms: u64| self.started + Duration::from_millis(ms);
        let head = self.head_ms.load(Ordering::Relaxed).checked_sub(1);
        if self.busy.load(Ordering::Acquire) > 0 {
            return None;
        }
        let idle = at(self.idle_ms.load(Ordering::Relaxed)) + patience.idle;
        Some(head.map_or(idle, |ms| (at(ms) + patience.head).min(idle)))
    }

    /// Waits until a request is under way, `within` at most.
    pub(crate) async fn asked(&self, within: Duration) {
        let until = clock::now() + within;
        while self.busy.load(Ordering::Acquire) == 0 && clock::now() < until {
            tokio::time::sleep(ASKED_LOOK).await;
        }
    }

    /// Waits until the client has taken too long. To be polled also whenever the connection
    /// was and a head has begun, of which nobody else tells it.
    pub(crate) async fn expired(&self, patience: Patience) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(patience.idle));
        std::future::poll_fn(|context| {
            loop {
                let due = self.due(patience);
                if let Some(due) = due.map(tokio::time::Instant::from_std)
                    && due < sleep.deadline()
                {
                    sleep.as_mut().reset(due);
                }
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let now = clock::now();
                match self.due(patience) {
                    Some(due) if due <= now => return Poll::Ready(()),
                    Some(due) => sleep.as_mut().reset(due.into()),
                    None => sleep.as_mut().reset((now + patience.idle).into()),
                }
            }
        })
        .await;
    }
}

impl Busy {
    /// Counts a request in.
    pub(crate) fn begin(
        connection: &std::sync::Arc<crate::listen::connection::Connection>,
    ) -> Self {
        connection.pace.busy.fetch_add(1, Ordering::AcqRel);
        Self(std::sync::Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let pace = &self.0.pace;
        pace.idle_ms.store(pace.ms(), Ordering::Relaxed);
        pace.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How often a connection that is to end looks whether it was asked something: an answer that
/// ends sooner leaves it open until the next look, or closes it where the client knows of it.
const ASKED_LOOK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(5), idle: Duration::from_secs(60) };

    /// Returns after how many seconds a connection ends, having done `what` after two.
    async fn ends_after(what: impl Fn(&Pace)) -> u64 {
        let started = clock::now();
        let pace = Pace::new(started);
        let mut expired = std::pin::pin!(pace.expired(PATIENCE));
        let soon = tokio::time::timeout(Duration::from_secs(2), expired.as_mut());
        assert!(soon.await.is_err());
        what(&pace);
        expired.await;
        clock::now().saturating_duration_since(started).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_and_a_slow_head_ends_sooner() {
        assert_eq!(ends_after(|_pace| {}).await, 60);
        assert_eq!(ends_after(|pace| pace.set_in_head(true)).await, 7);
        assert_eq!(
            ends_after(|pace| {
                pace.set_in_head(true);
                pace.set_in_head(false);
            })
            .await,
            60
        );
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_request_is_under_way_nothing_is_expected() {
        let pace = Pace::new(clock::now());
        pace.busy.store(1, Ordering::Release);
        let ended = tokio::time::timeout(Duration::from_secs(3600), pace.expired(PATIENCE));
        assert!(ended.await.is_err());
    }
}
