//! The one body type of both sides: no boxing per frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

/// A request's or an answer's body.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes held whole.
    Whole(Option<Bytes>),
    /// The same, with fields after them.
    Trailed(Option<Bytes>, Option<Box<HeaderMap>>),
    /// Bytes as they come from the other side.
    Stream(Box<Incoming>),
    /// As above, watched: someone counts frames and learns of the end.
    Watched(Box<Watched>),
}

/// A stream with somebody who watches it.
pub struct Watched {
    stream: Incoming,
    watch: Option<Box<dyn Watch>>,
}

/// Who watches a stream pass.
pub trait Watch: Send {
    /// `n` bytes of data came; tells whether they may pass, and more after them.
    fn passes(&mut self, n: usize) -> bool;
    /// The stream ended; called once, before its last byte's end is passed on.
    fn ended(self: Box<Self>, end: End);
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Where it came from.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Whoever watched it let no more pass.
    #[error("no more of this body is let through")]
    Stopped,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To its last byte.
    Whole,
    /// It broke off at its source.
    Cut,
    /// Whoever read it went away.
    Abandoned,
}

impl Body {
    /// Wraps bytes.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// Wraps bytes and the fields that follow them.
    pub fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Self {
        Self::Trailed(Some(bytes).filter(|it| !it.is_empty()), Some(Box::new(trailers)))
    }

    /// Wraps a stream.
    pub fn stream(stream: Incoming) -> Self {
        Self::Stream(Box::new(stream))
    }

    /// Wraps a stream that `watch` learns about.
    pub fn watched(stream: Incoming, watch: Box<dyn Watch>) -> Self {
        Self::Watched(Box::new(Watched { stream, watch: Some(watch) }))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Trailed(bytes, trailers) => {
                let frame = bytes.take().map(Frame::data);
                let frame = frame.or_else(|| Some(Frame::trailers(*trailers.take()?)));
                Poll::Ready(frame.map(Ok))
            }
            Self::Stream(stream) => {
                Pin::new(stream.as_mut()).poll_frame(context).map_err(Broken::Http)
            }
            Self::Watched(watched) => watched.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Trailed(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
            // The watcher must see the end come by.
            Self::Watched(watched) => watched.watch.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Trailed(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Stream(stream) => stream.size_hint(),
            Self::Watched(watched) => watched.stream.size_hint(),
        }
    }
}

impl Watched {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.stream).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let n = frame.data_ref().map_or(0, Bytes::len);
                if self.watch.as_mut().is_some_and(|watch| !watch.passes(n)) {
                    self.end(End::Cut);
                    return Poll::Ready(Some(Err(Broken::Stopped)));
                }
                // With a known length nothing is polled after the last byte.
                if self.stream.is_end_stream() {
                    self.end(End::Whole);
                }
            }
            Poll::Ready(Some(Err(_broken))) => self.end(End::Cut),
            Poll::Ready(None) => self.end(End::Whole),
            Poll::Pending => {}
        }
        polled.map_err(Broken::Http)
    }

    fn end(&mut self, end: End) {
        if let Some(watch) = self.watch.take() {
            watch.ended(end);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let end = if self.stream.is_end_stream() { End::Whole } else { End::Abandoned };
        self.end(end);
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("stream", &self.stream).finish_non_exhaustive()
    }
}
