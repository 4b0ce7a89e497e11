//! The life of one client's connection: who it is, what it speaks, when it ends.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::counter;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::edge::listen::pace::Patience;
use crate::edge::listen::screened::{LIMITS, Screened};
use crate::edge::listen::{Hall, proxied};
use crate::edge::locate::{Connection, Secured};
use crate::edge::{Gateway, enter};
use crate::socket::Stream;

/// Serves one connection to its end.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    hall: Arc<Hall>,
    tcp: TcpStream,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) {
    let greeted = tokio::time::timeout(hall.params.handshake_timeout, greet(&hall, tcp, peer));
    let (stream, connection) = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return refuse("handshake", &error),
        Err(elapsed) => return refuse("slow", &elapsed.into()),
    };
    let is_proxy = gateway.params.load().proxies.trusts(connection.peer());
    let each_max = if is_proxy { u32::MAX } else { hall.params.each_max };
    let Some(_place) = hall.places.take(connection.peer(), each_max) else {
        return refuse("address", &io::Error::other("its address holds all it may"));
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&connection));
        // Boxed, or every idle connection keeps room for a request under way.
        let answer = Box::pin(enter::answer(gateway, connection, request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let patience = hall.params.patience;
    match &stream {
        Stream::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2(stream, &connection, service, patience, stop).await;
        }
        Stream::Plain(_) | Stream::Tls(_) => {
            http1(stream, &connection, service, patience, stop).await;
        }
    }
}

/// Learns who the client is and agrees on what is spoken.
async fn greet(
    hall: &Hall,
    mut tcp: TcpStream,
    peer: SocketAddr,
) -> io::Result<(Stream, Arc<Connection>)> {
    let client = match hall.speech.proxied {
        true => proxied::client(&mut tcp, peer).await?,
        false => peer.ip(),
    };
    let Some(tls) = &hall.speech.tls else {
        let connection = Connection::new(client, None).on(Arc::clone(&hall.speech));
        return Ok((Stream::Plain(tcp), Arc::new(connection)));
    };
    // Handshakes are the dearest a stranger can ask for.
    let _turn = hall.handshakes.acquire().await.map_err(io::Error::other)?;
    let accepted = TlsAcceptor::from(Arc::clone(&tls.config)).accept(tcp).await?;
    let sni = accepted.get_ref().1.server_name().map(Into::into);
    let secured = Secured { sni, certificate: tls.certificate() };
    let connection = Connection::new(client, Some(secured)).on(Arc::clone(&hall.speech));
    Ok((Stream::Tls(Box::new(accepted.into())), Arc::new(connection)))
}

fn refuse(reason: &'static str, error: &io::Error) {
    counter!("portolan_connections_refused_total", "reason" => reason).increment(1);
    tracing::debug!(reason, %error, "a connection was refused");
}

/// Speaks HTTP/1.1.
pub(crate) async fn http1<S, B>(
    stream: Stream,
    connection: &Arc<Connection>,
    service: S,
    patience: Patience,
    stop: watch::Receiver<bool>,
) where
    S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static,
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
    until_stopped(served, connection, patience, stop, |it| it.graceful_shutdown()).await;
}

/// Speaks HTTP/2, gRPC included.
async fn http2<S>(
    stream: Stream,
    connection: &Arc<Connection>,
    service: S,
    patience: Patience,
    stop: watch::Receiver<bool>,
) where
    S: HttpService<
            Incoming,
            ResBody = crate::upstream::Body,
            Error: Into<Box<dyn std::error::Error + Send + Sync>>,
            Future: Send + 'static,
        >,
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
    until_stopped(served, connection, patience, stop, |it| it.graceful_shutdown()).await;
}

/// Drives one connection until it ends, its client has taken too long, or all are to stop;
/// then it ends its requests first.
async fn until_stopped<C>(
    served: C,
    connection: &Connection,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
    shut_down: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut served = std::pin::pin!(served);
    let goodbye = tokio::select! {
        biased;
        ended = served.as_mut() => return note_end(ended),
        () = connection.pace.expired(patience) => {
            counter!("portolan_connections_expired_total").increment(1);
            Some(GOODBYE)
        }
        _ = stop.wait_for(|stop| *stop) => None,
    };
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
/// What a client that is sent away gets to hear of it.
const GOODBYE: Duration = Duration::from_secs(1);
