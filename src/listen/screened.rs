//! A client's connection seen through the screen that lets only unambiguous requests pass.
//!
//! What cannot be read in one way is replaced by an empty request of the method
//! [`REFUSED`], whose answer says what was wrong, and within a body by bytes that end its
//! request; then the connection ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::http1::{Fault, Limits, Screen};
use crate::listen::connection::Connection;
use crate::socket::Stream;

/// A screened connection.
#[derive(Debug)]
pub(crate) struct Screened {
    inner: Stream,
    screen: Screen,
    connection: Arc<Connection>,
    /// Bytes that wait for others, such as the beginning of a head.
    held: Vec<u8>,
    /// So many of them were offered to the screen in vain.
    offered: usize,
    /// Bytes that may pass and have not.
    ready: Vec<u8>,
    in_head: bool,
    refused: bool,
    /// Whoever waits to read until an answer has decided on the protocol.
    waiting: Option<Waker>,
    /// How long an answered client is still heard, once nothing more is said to it.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Screened {
    /// Screens `inner` from its first byte on.
    pub(crate) fn new(inner: Stream, connection: Arc<Connection>) -> Self {
        Self {
            inner,
            screen: Screen::new(LIMITS),
            connection,
            held: Vec::new(),
            offered: 0,
            ready: Vec::new(),
            in_head: false,
            refused: false,
            waiting: None,
            lingering: None,
        }
    }

    /// Screens the bytes read after `before`, and leaves in `buf` those that may pass.
    fn screen(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        if !self.held.is_empty() {
            self.held.extend_from_slice(read);
            buf.set_filled(before);
            self.screen_held();
            return;
        }
        match self.screen.take(read) {
            Ok(n) => {
                self.held.extend_from_slice(&read[n..]);
                self.offered = if n == 0 { self.held.len() } else { 0 };
                buf.set_filled(before + n);
            }
            Err(fault) => {
                buf.set_filled(before);
                self.refuse(fault);
            }
        }
        self.note_head();
    }

    fn screen_held(&mut self) {
        match self.screen.take(&self.held) {
            Ok(0) => self.offered = self.held.len(),
            Ok(n) => {
                self.ready.extend(self.held.drain(..n));
                self.offered = 0;
            }
            Err(fault) => self.refuse(fault),
        }
        self.note_head();
    }

    fn refuse(&mut self, fault: Fault) {
        self.refused = true;
        self.held = Vec::new();
        self.offered = 0;
        if self.screen.is_between() {
            self.connection.set_fault(fault);
            self.ready.extend_from_slice(REFUSED_REQUEST);
        } else {
            // Within a body: its request learns of it as of a body that breaks off. An error
            // of the connection would end that before the request is answered.
            tracing::debug!(%fault, "a body was refused");
            self.ready.extend_from_slice(BROKEN_BODY);
        }
    }

    /// Tells the connection's timer of heads that begin and do not come whole.
    fn note_head(&mut self) {
        let in_head = !self.held.is_empty() && self.screen.is_between();
        if in_head != self.in_head {
            self.in_head = in_head;
            self.connection.pace.set_in_head(in_head);
        }
    }

    /// Learns from the answer whether the protocol was switched.
    fn note_answer(&mut self, bytes: &[u8]) {
        if !self.screen.is_undecided() || bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 100") {
            return;
        }
        self.screen.decide(bytes.starts_with(b"HTTP/1.1 101"));
        self.offered = 0;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl AsyncRead for Screened {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let n = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..n]);
                this.ready.drain(..n);
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                if ready!(drop_some(&mut this.inner, context))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if this.screen.is_undecided() {
                this.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            if this.held.len() > this.offered {
                this.screen_held();
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(context, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            this.screen(buf, before);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Screened {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_answer(bytes);
        Pin::new(&mut this.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty()) {
            this.note_answer(first);
        }
        Pin::new(&mut this.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
            if !this.refused && this.screen.is_between() {
                return Poll::Ready(Ok(()));
            }
        }
        // Answered before all of the request came. Its client may be writing still, and is to
        // read why it was not heard out.
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        while lingering.as_mut().poll(context).is_pending() {
            match ready!(drop_some(&mut this.inner, context)) {
                Ok(0) | Err(_) => break,
                Ok(_more) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads something of what still comes and drops it; returns how much. Unread, it would make
/// the system reset the connection, and the answer with it.
fn drop_some(inner: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut dropped = [0; 4096];
    let mut dropped = ReadBuf::new(&mut dropped);
    ready!(Pin::new(inner).poll_read(context, &mut dropped))?;
    Poll::Ready(Ok(dropped.filled().len()))
}

/// The method that stands for a request that could not be read.
pub(crate) const REFUSED: &str = "REFUSED";
/// The connection ends with its answer.
const REFUSED_REQUEST: &[u8] = b"REFUSED / HTTP/1.1\r\nconnection: close\r\n\r\n";
/// What no chunked body goes on with, wherever in it: neither a size, nor its extension, nor
/// the end of a line, nor the fields after the last chunk.
const BROKEN_BODY: &[u8] = b"\0\n\r\0";
/// What a client needs to read an answer around the globe.
const LINGER: Duration = Duration::from_secs(1);
/// What an edge takes of a head: browsers and SDKs send a tenth of it.
pub(crate) const LIMITS: Limits =
    Limits { line_max: 8 * 1024, head_max: 64 * 1024, fields_max: 100 };
