//! Bodies: one that ticks, one that holds its slot, and one that fails on purpose.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::devorch::fault::Fault;
use crate::devorch::session::Sessions;
use crate::devorch::socket::Fate;

/// Server-sent events, one every `every`, `n` in all; each is a frame of its own.
pub(crate) struct Ticks {
    every: Duration,
    next: u64,
    n: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Ticks {
    /// The first event comes at once.
    pub(crate) fn new(n: u64, every: Duration) -> Self {
        Self { every, next: 0, n, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl http_body::Body for Ticks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.next == self.n {
            return Poll::Ready(None);
        }
        if self.next > 0 {
            ready!(self.sleep.as_mut().poll(cx));
        }
        let event = format!("id: {0}\ndata: {{\"seq\":{0}}}\n\n", self.next);
        self.next += 1;
        let every = self.every;
        self.sleep.set(tokio::time::sleep(every));
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

/// Keeps a request of a session counted until its answer is through.
pub(crate) struct Busy {
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Busy {
    /// Calls `leave` when dropped.
    pub(crate) fn new(leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { leave: Some(Box::new(leave)) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

/// Locks the table; a panic elsewhere leaves it usable, since every change is one statement.
pub(crate) fn lock(sessions: &std::sync::Mutex<Sessions>) -> std::sync::MutexGuard<'_, Sessions> {
    sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A body that keeps its slot until it ends.
pub(crate) struct Held {
    /// What is sent.
    pub(crate) body: Body,
    /// What is kept meanwhile.
    pub(crate) busy: Option<Busy>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            // Before the last byte is out, so that a client that saw it finds the slot free.
            self.busy = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.busy.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that breaks off as a [`Fault`] says.
pub(crate) struct Broken {
    body: Body,
    /// Bytes that may still pass.
    left: u64,
    /// Whether one frame, of any length, may pass.
    first: bool,
    /// What happens after the pause, once nothing more may pass.
    then: Option<Fate>,
    pause: Option<Pin<Box<Sleep>>>,
    fate: Arc<watch::Sender<Fate>>,
}

impl Broken {
    /// Wraps `body`, unless `fault` is not one of bodies.
    pub(crate) fn wrap(body: Body, fault: Fault, fate: Arc<watch::Sender<Fate>>) -> Body {
        let (left, first, then) = match fault {
            Fault::ResetAfterHead => (0, false, Some(Fate::Reset)),
            Fault::CutStream(bytes) => (bytes, false, Some(Fate::Reset)),
            Fault::SilentStream => (0, true, None),
            Fault::Refuse
            | Fault::ResetBeforeHead
            | Fault::Status(_)
            | Fault::SlowHead(_)
            | Fault::SilentHead
            | Fault::Garbage => return body,
        };
        Body::new(Self { body, left, first, then, pause: None, fate })
    }

    /// Waits until what was sent is out, then ends the connection or stays silent.
    fn poll_break(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wait = if self.then.is_some() { FLUSH } else { SILENCE };
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        ready!(pause.as_mut().poll(cx));
        self.fate.send_replace(Fate::Reset);
        Poll::Ready(())
    }
}

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.left == 0 && !self.first {
            ready!(self.poll_break(cx));
            return Poll::Ready(Some(Err(axum::Error::new("broken off on purpose"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let Ok(mut bytes) = frame.into_data() else { return Poll::Pending };
        if self.first {
            self.first = false;
            // A body of one piece would be whole with it, and no silence would follow.
            if self.body.size_hint().exact() == Some(0) {
                bytes.truncate(bytes.len().saturating_sub(1));
            }
        } else {
            let pass = self.left.min(bytes.len() as u64);
            bytes.truncate(pass as usize);
            self.left -= pass;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Long enough for what was sent to leave the process, short enough for tests.
const FLUSH: Duration = Duration::from_millis(50);
/// How long silence lasts at most.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);
