//! What is behind the listeners: the gateway for clients, the routes for the operator.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::edge::locate::Arrival;
use crate::edge::{Gateway, enter};
use crate::listen::lanes::Lanes;
use crate::listen::{House, Listener, Params, serve};

/// Serves clients on `lanes` until `stop` says so; then lets each connection end its requests.
pub async fn serve_clients(
    gateway: Arc<Gateway>,
    listener: Listener,
    params: Params,
    lanes: Arc<Lanes>,
    stop: watch::Receiver<bool>,
) {
    let house = Arc::clone(&gateway);
    serve(listener, params, (house, lanes), stop, move |connection| {
        let arrival = Arc::new(Arrival::new(Arc::clone(connection)));
        let gateway = Arc::clone(&gateway);
        service_fn(move |request: Request<Incoming>| {
            let (gateway, arrival) = (Arc::clone(&gateway), Arc::clone(&arrival));
            // The request is boxed, since it is handed on from step to step.
            enter::answer(gateway, arrival, Box::new(request))
        })
    })
    .await;
}

/// Serves the operator, beside the actors and off the lanes of clients, until `stop` says so.
pub async fn serve_operator(
    routes: axum::Router,
    tcp: TcpListener,
    params: Params,
    stop: watch::Receiver<bool>,
) {
    let listener = Listener { name: "admin", tcp, speech: Arc::default() };
    let lanes = Arc::new(Lanes::none());
    serve(listener, params, (Always, lanes), stop, move |_connection| {
        TowerToHyperService::new(routes.clone())
    })
    .await;
}

impl House for Arc<Gateway> {
    fn has_room(&self) -> bool {
        self.pressure.takes_connections()
    }

    fn is_proxy(&self, ip: IpAddr) -> bool {
        self.params.load().proxies.trusts(ip)
    }
}

/// The operator is never turned away.
struct Always;

impl House for Always {
    fn has_room(&self) -> bool {
        true
    }

    fn is_proxy(&self, _ip: IpAddr) -> bool {
        true
    }
}
