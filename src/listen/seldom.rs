//! A future that waits beside a busy one, and is polled only once something woke it.
//!
//! A connection is polled at every step of every request; its timer and the word to stop,
//! which it waits for too, have something to say once in its life.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future polled seldom.
#[derive(Debug)]
pub(crate) struct Seldom<'a, F> {
    inner: Pin<&'a mut F>,
    bell: Arc<Bell>,
    /// What the inner future wakes.
    waker: Waker,
    /// The task it is part of, as of the last poll.
    task: Option<Waker>,
}

/// What the inner future rings.
#[derive(Debug, Default)]
struct Bell {
    rang: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<'a, F: Future> Seldom<'a, F> {
    pub(crate) fn new(inner: Pin<&'a mut F>) -> Self {
        let bell = Arc::new(Bell::default());
        Self { inner, waker: Waker::from(Arc::clone(&bell)), bell, task: None }
    }

    /// Polls the inner future if it was woken since the last time, or never polled; or if it is
    /// `due`, since something that does not wake it has changed.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, due: bool) -> Poll<F::Output> {
        let mut due = due;
        if !self.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            let task = Some(context.waker().clone());
            self.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&task);
            self.task = task;
            due = true;
        }
        if !due && !self.bell.rang.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.bell.rang.store(false, Ordering::Release);
        self.inner.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_at_first_when_it_was_woken_and_when_it_is_due() {
        let polled = AtomicU32::new(0);
        let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1)));
        let mut counted = std::pin::pin!(std::future::poll_fn(|context| {
            polled.fetch_add(1, Ordering::Relaxed);
            sleep.as_mut().poll(context)
        }));
        let mut seldom = Seldom::new(counted.as_mut());
        let mut steps = 0;
        let mut busy = tokio::time::interval(Duration::from_millis(100));
        std::future::poll_fn(|context| {
            while busy.poll_tick(context).is_ready() {
                steps += 1;
            }
            seldom.poll(context, steps == 5)
        })
        .await;
        assert!(steps >= 10, "{steps}");
        // At first, once or more when due, and when the second is over.
        assert!((3..=4).contains(&polled.load(Ordering::Relaxed)), "{polled:?}");
    }

    #[test]
    fn whoever_polls_it_last_is_woken() {
        let first = Arc::new(Bell::default());
        let second = Arc::new(Bell::default());
        let kept = Mutex::new(None);
        let mut inner = std::pin::pin!(std::future::poll_fn(|context| {
            *kept.lock().unwrap() = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        let mut seldom = Seldom::new(inner.as_mut());
        for bell in [&first, &second] {
            let waker = Waker::from(Arc::clone(bell));
            assert!(seldom.poll(&mut Context::from_waker(&waker), false).is_pending());
        }
        kept.lock().unwrap().take().unwrap().wake();
        let rang = |bell: &Bell| bell.rang.load(Ordering::Relaxed);
        assert_eq!((rang(&first), rang(&second)), (false, true));
    }
}
