//! The listeners: who is let in, how many at once, and how all of them stop.

mod client;
pub mod connection;
pub mod lanes;
pub mod names;
pub mod pace;
pub mod places;
mod proxied;
pub(crate) mod screened;
mod seldom;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::HttpService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::listen::connection::Connection;
use crate::listen::lanes::Lanes;
use crate::listen::names::Names;
use crate::listen::pace::Patience;
use crate::listen::places::Places;
use crate::listen::tls::Tls;
use crate::socket::tune;

/// The bounds of all listeners.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Connections open at once on one listener; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections of one client address on one listener; trusted proxies may hold more.
    pub each_max: u32,
    /// How long a client may take to say who it is: PROXY header, TLS.
    pub handshake_timeout: Duration,
    /// How long it may take for a head, and from one request to the next.
    pub patience: Patience,
}

/// What is said on one listener for clients.
#[derive(Debug, Default)]
pub struct Speech {
    /// The certificate; plain HTTP without one.
    pub tls: Option<Tls>,
    /// Whether a PROXY header comes first.
    pub proxied: bool,
    /// The hosts it answers for; all of them when empty.
    pub names: Names,
}

/// A listener for clients.
#[derive(Debug)]
pub struct Listener {
    /// Its name in metrics.
    pub name: &'static str,
    /// The socket.
    pub tcp: TcpListener,
    /// What is said on it.
    pub speech: Arc<Speech>,
}

/// What every connection of a listener shares.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) params: Params,
    pub(crate) speech: Arc<Speech>,
    pub(crate) places: Arc<Places>,
}

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whom a listener accepts for.
pub trait House: Send + Sync + 'static {
    /// Tells whether another connection may be accepted now.
    fn has_room(&self) -> bool;

    /// Tells whether `ip` is a proxy, which may hold as many connections as there are.
    fn is_proxy(&self, ip: IpAddr) -> bool;
}

/// Serves connections on `lanes` until `stop` says so; then lets each end its requests. `make`
/// makes the service of one connection.
pub async fn serve<S, B>(
    listener: Listener,
    params: Params,
    (house, lanes): (impl House, Arc<Lanes>),
    stop: watch::Receiver<bool>,
    make: impl Fn(&Arc<Connection>) -> S + Send + Sync + 'static,
) where
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>
        + Send
        + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let Listener { tcp, speech, name } = listener;
    let (house, make) = (Arc::new(house), Arc::new(make));
    let hall = Arc::new(Hall { params, speech, places: Arc::default() });
    let at_door = Arc::clone(&house);
    accept((tcp, name), params, (&lanes, || at_door.has_room()), stop, move |tcp, peer, stop| {
        let (house, hall, make) = (Arc::clone(&house), Arc::clone(&hall), Arc::clone(&make));
        async move {
            let Some(client) = hall.enter(tcp, peer, |ip| house.is_proxy(ip)).await else {
                return;
            };
            let service = make(&client.connection);
            client.serve(service, params.patience, stop).await;
        }
    })
    .await;
}

async fn accept<F>(
    (listener, name): (TcpListener, &'static str),
    params: Params,
    (lanes, has_room): (&Lanes, impl Fn() -> bool),
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let open = gauge!("portolan_connections", "listener" => name);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        open.set(connections.len() as f64);
        if connections.len() >= params.connections_max || !has_room() {
            tokio::select! {
                _ended = connections.join_next(), if !connections.is_empty() => {}
                () = tokio::time::sleep(ROOM_LOOK) => {}
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
                let (serve, stop) = (serve.clone(), stop.clone());
                // One that cannot be tuned is gone already.
                if tune::tune(&tcp, tune::CLIENT_UNACKNOWLEDGED).is_ok() {
                    lanes.serve(&mut connections, tcp, move |tcp| serve(tcp, peer, stop));
                }
            }
            Err(error) => {
                lanes::not_let_in(&error);
                tokio::time::sleep(ROOM_LOOK).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A listener that is full, or found the system so, looks again after this.
const ROOM_LOOK: Duration = Duration::from_millis(50);
