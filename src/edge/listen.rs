//! The listeners: accept, speak HTTP/1.1, hand requests on, stop in order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::edge::Gateway;
use crate::edge::enter;
use crate::edge::locate::Connection;
use crate::upstream::tcp;

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a request's head may take.
    pub head_timeout: Duration,
}

/// Serves clients until `stop` says so; then lets each connection end its request.
pub async fn serve_public(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    params: Params,
    stop: watch::Receiver<bool>,
) {
    accept(listener, params, stop, "public", move |tcp, peer, stop| {
        let gateway = Arc::clone(&gateway);
        async move {
            let connection = Arc::new(Connection::new(peer.ip()));
            let service = service_fn(|request| {
                let (gateway, connection) = (Arc::clone(&gateway), Arc::clone(&connection));
                async move {
                    Ok::<_, Infallible>(enter::answer(gateway, connection, request).await)
                }
            });
            let served = builder(&params).serve_connection(TokioIo::new(tcp), service);
            until_stopped(served.with_upgrades(), stop, |it| it.graceful_shutdown()).await;
        }
    })
    .await;
}

/// Serves the admin door until `stop` says so.
pub async fn serve_admin(
    routes: axum::Router,
    listener: TcpListener,
    params: Params,
    stop: watch::Receiver<bool>,
) {
    accept(listener, params, stop, "admin", move |tcp, _peer, stop| {
        let service = TowerToHyperService::new(routes.clone());
        async move {
            let served = builder(&params).serve_connection(TokioIo::new(tcp), service);
            until_stopped(served.with_upgrades(), stop, |it| it.graceful_shutdown()).await;
        }
    })
    .await;
}

fn builder(params: &Params) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(params.head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER)
        .pipeline_flush(false);
    builder
}

/// Drives one connection; when told to stop, asks it to end after its request.
async fn until_stopped<C>(
    connection: C,
    mut stop: watch::Receiver<bool>,
    shut_down: impl Fn(std::pin::Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            shut_down(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that goes away or speaks nonsense is its own affair.
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn accept<F>(
    listener: TcpListener,
    params: Params,
    mut stop: watch::Receiver<bool>,
    name: &'static str,
    serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        gauge!("portolan_connections", "listener" => name).set(connections.len() as f64);
        if connections.len() >= params.connections_max {
            tokio::select! {
                _ended = connections.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((tcp, peer)) => {
                // One that cannot be set up is gone already.
                if tcp::tune(&tcp, tcp::CLIENT_UNACKNOWLEDGED).is_ok() {
                    connections.spawn(serve(tcp, peer, stop.clone()));
                }
            }
            Err(error) => rest(&error).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits a moment after an accept that failed for want of something, such as file handles.
async fn rest(error: &io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Header fields taken from a client.
const HEADERS_MAX: usize = 100;
/// The longest head taken from a client, in bytes.
const BUFFER: usize = 64 * 1024;
