//! Connections: accept, delay, TLS, one request after another, and the faults among them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::devorch::Shared;
use crate::devorch::apps;
use crate::devorch::body::Broken;
use crate::devorch::body::SILENCE;
use crate::devorch::fault::Drawn;
use crate::devorch::fault::Fault;
use crate::devorch::grpc;
use crate::devorch::seen::Seen;
use crate::devorch::socket;
use crate::devorch::socket::Fate;

/// What a request knows of its connection.
#[derive(Clone)]
pub(crate) struct Wire {
    /// A fault that the application must play, since it owns the stream.
    pub(crate) fault: Option<Fault>,
    /// Ends the connection.
    pub(crate) fate: Arc<watch::Sender<Fate>>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { fault: None, fate: Arc::new(watch::Sender::new(Fate::Open)) }
    }
}

/// Accepts connections until dropped, which ends them all.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let router = apps::router(Arc::clone(&shared));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    Seen::count(&shared.seen.connections);
                    let refuse = shared.faults().draw_refusal(rand::random);
                    if refuse || connections.len() >= MAX_CONNECTIONS {
                        drop(tcp.set_zero_linger()); // At worst it closes politely.
                        continue;
                    }
                    let (shared, router) = (Arc::clone(&shared), router.clone());
                    connections.spawn(connection(shared, router, tcp, peer.ip(), tls.clone()));
                }
                // Out of descriptors: wait for some to come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ended = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    router: Router,
    tcp: TcpStream,
    peer: IpAddr,
    tls: Option<TlsAcceptor>,
) {
    drop(tcp.set_nodelay(true)); // Without it the connection is slower, not wrong.
    let fate = Arc::new(watch::Sender::new(Fate::Open));
    let (near, far) = socket::pipe();
    let distance = Arc::clone(&shared);
    let carried = socket::carry(tcp, far, || distance.delays.load().of(peer), fate.subscribe());
    let mut ended = fate.subscribe();
    let served = async {
        let talk = async {
            match tls {
                None => talk(shared, router, near, fate).await,
                Some(tls) => {
                    // A handshake that fails is seen by the caller: an alert, or the end.
                    let shaken = tokio::time::timeout(HANDSHAKE, tls.accept(near)).await;
                    if let Ok(Ok(stream)) = shaken {
                        talk(shared, router, stream, fate).await;
                    }
                }
            }
        };
        tokio::select! {
            () = talk => {}
            _decided = ended.wait_for(|it| *it != Fate::Open) => {}
        }
    };
    tokio::join!(carried, served);
}

/// Serves HTTP/1.1 or HTTP/2 on an open stream.
async fn talk<S>(shared: Arc<Shared>, router: Router, stream: S, fate: Arc<watch::Sender<Fate>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, router) = (Arc::clone(&shared), router.clone());
        let fate = Arc::clone(&fate);
        async move { Ok::<_, Infallible>(respond(&shared, router, request, fate).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    drop(connection.await); // How a connection ends is its caller's business.
}

/// Answers one request, or fails as told.
async fn respond(
    shared: &Shared,
    router: Router,
    request: Request<Incoming>,
    fate: Arc<watch::Sender<Fate>>,
) -> Response {
    let mut request = request.map(Body::new);
    let path = request.uri().path();
    if path.starts_with("/dev/") {
        return route(router, request).await;
    }
    Seen::count(&shared.seen.requests);
    let is_app = path.starts_with("/apps/");
    if is_app {
        Seen::count(&shared.seen.apps);
        shared.seen.note_payment(path, request.headers());
    }
    let Drawn { slow, fault } = shared.faults().draw(is_app, rand::random);
    if fault.is_some() || !slow.is_zero() {
        Seen::count(&shared.seen.faults);
    }
    socket::wait(slow).await;
    match fault {
        Some(Fault::Refuse | Fault::ResetBeforeHead) => return end(&fate, Fate::Reset).await,
        Some(Fault::Garbage) => return end(&fate, Fate::Garbage).await,
        Some(Fault::SilentHead) => {
            tokio::time::sleep(SILENCE).await;
            return end(&fate, Fate::Reset).await;
        }
        Some(Fault::Status(status)) => return apps::text(status, "failed on purpose"),
        Some(
            Fault::ResetAfterHead | Fault::SilentStream | Fault::CutStream(_) | Fault::SlowHead(_),
        )
        | None => {}
    }
    request.extensions_mut().insert(Wire { fault, fate: Arc::clone(&fate) });
    let answer = if grpc::is_grpc(&request) {
        grpc::answer(shared, request).await
    } else {
        route(router, request).await
    };
    match fault {
        // A WebSocket has no body; its application plays the fault.
        Some(fault) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
            answer.map(|body| Broken::wrap(body, fault, fate))
        }
        Some(_) | None => answer,
    }
}

/// Ends the connection; its task is dropped before this could answer.
async fn end(fate: &watch::Sender<Fate>, how: Fate) -> Response {
    fate.send_replace(how);
    std::future::pending().await
}

async fn route(mut router: Router, request: Request<Body>) -> Response {
    match router.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// The most connections at a time.
pub(crate) const MAX_CONNECTIONS: usize = 4096;
/// The most requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long a TLS handshake may take: several round trips of the longest delay.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(120);
