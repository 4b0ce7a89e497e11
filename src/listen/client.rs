//! The life of one client's connection: who it is, what it speaks, when it ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::counter;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::listen::connection::{Connection, Secured};
use crate::listen::pace::Patience;
use crate::listen::places::Place;
use crate::listen::screened::{LIMITS, Screened};
use crate::listen::seldom::Seldom;
use crate::listen::{BoxError, Hall, proxied};
use crate::socket::Stream;

/// A client that was let in.
pub(crate) struct Client {
    /// Who it is.
    pub(crate) connection: Arc<Connection>,
    stream: Stream,
    _place: Place,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// What it said first is not what this listener speaks.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// It took too long to say it.
    #[error("it did not say who it is in time")]
    Slow,
    /// Its address holds all the connections it may.
    #[error("its address holds all the connections it may")]
    Address,
}

impl Hall {
    /// Lets a client in, once it has said who it is; `None` for one that is refused.
    pub(crate) async fn enter(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        is_proxy: impl Fn(IpAddr) -> bool,
    ) -> Option<Client> {
        let greeted = self.greet(tcp, peer, is_proxy);
        let greeted = tokio::time::timeout(self.params.handshake_timeout, greeted).await;
        match greeted.unwrap_or(Err(Refused::Slow)) {
            Ok(client) => Some(client),
            Err(refused) => {
                let reason = match refused {
                    Refused::Handshake(_) => "handshake",
                    Refused::Slow => "slow",
                    Refused::Address => "address",
                };
                counter!("portolan_connections_refused_total", "reason" => reason).increment(1);
                tracing::debug!(%refused, "a connection was refused");
                None
            }
        }
    }

    /// Learns who the client is, gives it a place, and agrees on what is spoken: in this
    /// order, so that no address has more handshakes under way than it may hold connections.
    async fn greet(
        &self,
        mut tcp: TcpStream,
        peer: SocketAddr,
        is_proxy: impl Fn(IpAddr) -> bool,
    ) -> Result<Client, Refused> {
        let ip = match self.speech.proxied {
            true => proxied::client(&mut tcp, peer).await?,
            false => peer.ip(),
        };
        let each_max = if is_proxy(ip) { u32::MAX } else { self.params.each_max };
        let place = self.places.take(ip, each_max).ok_or(Refused::Address)?;
        let (stream, secured) = match &self.speech.tls {
            None => (Stream::Plain(tcp), None),
            Some(tls) => {
                let accepted = TlsAcceptor::from(Arc::clone(&tls.config)).accept(tcp).await?;
                let sni = accepted.get_ref().1.server_name().map(Into::into);
                let secured = Secured { sni, certificate: tls.certificate() };
                (Stream::Tls(Box::new(accepted.into())), Some(secured))
            }
        };
        let connection = Arc::new(Connection::new(ip, secured, Arc::clone(&self.speech)));
        Ok(Client { connection, stream, _place: place })
    }
}

impl Client {
    /// Serves the connection to its end.
    pub(crate) async fn serve<S, B>(
        self,
        service: S,
        patience: Patience,
        stop: watch::Receiver<bool>,
    ) where
        S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let Self { connection, stream, _place } = self;
        match &stream {
            Stream::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                http2(stream, &connection, service, patience, stop).await;
            }
            Stream::Plain(_) | Stream::Tls(_) => {
                http1(stream, &connection, service, patience, stop).await;
            }
        }
    }
}

/// Speaks HTTP/1.1.
async fn http1<S, B>(
    stream: Stream,
    connection: &Arc<Connection>,
    service: S,
    patience: Patience,
    stop: watch::Receiver<bool>,
) where
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let io = TokioIo::new(Screened::new(stream, Arc::clone(connection)));
    let served = http1::Builder::new()
        // Heads are timed where their first byte is seen.
        .header_read_timeout(None)
        // The screen bounds heads. A limit on fields here, even the same, makes the library
        // read each head into fresh memory; and its buffers bound the steps of a body.
        .max_buf_size(STEP)
        .serve_connection(io, service)
        .with_upgrades();
    until_stopped(served, connection, (patience, LAST_REQUEST), stop, |it| it.graceful_shutdown())
        .await;
}

/// Speaks HTTP/2, gRPC included.
async fn http2<S, B>(
    stream: Stream,
    connection: &Arc<Connection>,
    service: S,
    patience: Patience,
    stop: watch::Receiver<bool>,
) where
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let served = builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(LIMITS.head_max as u32)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    // Here a client is told which of its requests were not taken up.
    let patience = (patience, Duration::ZERO);
    until_stopped(served, connection, patience, stop, |it| it.graceful_shutdown()).await;
}

/// Drives one connection until it ends, its client has taken too long, or all are to stop;
/// then it ends its requests first. One without a request gets the second of `patience` for
/// another, which may be on its way.
async fn until_stopped<C>(
    served: C,
    connection: &Connection,
    patience: (Patience, Duration),
    mut stop: watch::Receiver<bool>,
    shut_down: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut served = std::pin::pin!(served);
    let mut ending = std::pin::pin!(async {
        tokio::select! {
            biased;
            () = connection.pace.expired(patience.0) => {
                counter!("portolan_connections_expired_total").increment(1);
                Some(GOODBYE)
            }
            _ = stop.wait_for(|stop| *stop) => None,
        }
    });
    let mut ending = Seldom::new(ending.as_mut());
    let ended = std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = served.as_mut().poll(context) {
            return Poll::Ready(Err(ended));
        }
        // Nobody wakes the timer when a head begins.
        ending.poll(context, connection.pace.is_in_head()).map(Ok)
    });
    let goodbye = match ended.await {
        Ok(goodbye) => goodbye,
        Err(ended) => return note_end(ended),
    };
    if goodbye.is_none() {
        tokio::select! {
            biased;
            ended = served.as_mut() => return note_end(ended),
            () = connection.pace.asked(patience.1) => {}
        }
    }
    shut_down(served.as_mut());
    match goodbye {
        None => note_end(served.await),
        // An idle one hears of it; whoever dawdles within a head is left.
        Some(within) => {
            if let Ok(ended) = tokio::time::timeout(within, served).await {
                note_end(ended);
            }
        }
    }
}

fn note_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        // A client that goes away or speaks nonsense is its own affair.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Bytes of a body moved at once.
const STEP: usize = 256 * 1024;
/// Streams a client may have open: what browsers and gRPC clients ask for.
const STREAMS_MAX: u32 = 100;
/// What a client may send ahead on one stream,
const STREAM_WINDOW: u32 = 64 * 1024;
/// and on all of them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams a client may reset that were not taken up yet, and such as this side resets for
/// what it did wrong; more end the connection.
const RESETS_MAX: usize = 20;
/// What is held of an answer its client does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// A quiet client is asked whether it lives,
const PING_EVERY: Duration = Duration::from_secs(20);
/// and has this long to say so.
const PING_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection of a node that stops may wait for its first request, or for another:
/// several round trips around the world. Closed before, it would look broken to a client that
/// has just sent one.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// What a client that is sent away gets to hear of it.
const GOODBYE: Duration = Duration::from_secs(1);
