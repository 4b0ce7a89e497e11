//! A bare relay over the same HTTP library: no choice, no location, no log, no limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Sender = client::SendRequest<Incoming>;

/// The origins in turn, each with its idle connections.
struct Origins {
    all: Vec<(SocketAddr, Mutex<Vec<Sender>>)>,
    next: AtomicUsize,
    connections: Mutex<JoinSet<()>>,
}

/// Relays between `listen` and `origins` until killed.
pub(crate) async fn serve(listen: SocketAddr, origins: Vec<SocketAddr>) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let origins = Arc::new(Origins {
        all: origins.into_iter().map(|it| (it, Mutex::default())).collect(),
        next: AtomicUsize::new(0),
        connections: Mutex::default(),
    });
    let mut clients = JoinSet::new();
    crate::say("ready");
    loop {
        while clients.try_join_next().is_some() {}
        let (tcp, _peer) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let origins = Arc::clone(&origins);
        clients.spawn(async move {
            let service = service_fn(|request| origins.relay(request));
            // A client that goes away is its own affair.
            drop(server::Builder::new().serve_connection(TokioIo::new(tcp), service).await);
        });
    }
}

impl Origins {
    async fn relay(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Passing>, Infallible> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let idle = self.all[at].1.lock().unwrap().pop();
        let mut sender = match idle {
            Some(idle) => idle,
            None => self.connect(self.all[at].0).await,
        };
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let origins = Arc::clone(self);
        Ok(answer.map(|body| Passing { body, lease: Some((sender, origins, at)) }))
    }

    async fn connect(&self, origin: SocketAddr) -> Sender {
        let tcp = TcpStream::connect(origin).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (sender, connection) = client::handshake(TokioIo::new(tcp)).await.unwrap();
        let mut connections = self.connections.lock().unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(async move { drop(connection.await) });
        sender
    }
}

/// An answer's body; its connection is idle again at its end.
struct Passing {
    body: Incoming,
    lease: Option<(Sender, Arc<Origins>, usize)>,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream()
            && let Some((sender, origins, at)) = self.lease.take()
        {
            origins.all[at].1.lock().unwrap().push(sender);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
