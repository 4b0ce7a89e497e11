//! The origin: orchestrators to Portolan, plain servers to the others, all in one thread.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use portolan::clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval};

/// Serves on all of `addresses` until killed.
pub(crate) async fn serve(addresses: &[SocketAddr]) {
    let mut listeners = JoinSet::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.unwrap();
        listeners.spawn(accept(listener, *address));
    }
    crate::say("ready");
    while listeners.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, address: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (tcp, peer) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        connections.spawn(async move {
            // Checks come as HTTP/2, calls as HTTP/1.1.
            let server = auto::Builder::new(TokioExecutor::new());
            let wait = if is_far(peer) { FAR } else { Duration::ZERO };
            let service = service_fn(|request| async move {
                // Where there is nothing to wait for, no timer is made either.
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                answer(request, address).await
            });
            // A relay that closes is no failure of this side.
            drop(server.serve_connection(TokioIo::new(tcp), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    address: SocketAddr,
) -> Result<Response<Answer>, Infallible> {
    let (kind, answer) = match request.uri().path() {
        "/discovery" => ("application/json", Answer::Whole(Some(list(address).into()))),
        "/stream" => ("text/event-stream", Answer::Frames(FRAMES, interval(FRAME_EVERY))),
        _ => ("application/octet-stream", Answer::Whole(Some(Bytes::from_static(&KIB)))),
    };
    let mut body = request.into_body();
    while let Some(Ok(_frame)) = body.frame().await {}
    let mut response = Response::new(answer);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Whoever comes from 127.1.0.0/16 is far away, so that a nearer peer is the better way.
fn is_far(peer: SocketAddr) -> bool {
    matches!(peer.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [127, 1])
}

/// An orchestrator's list: one app that answers at once, one that streams.
fn list(address: SocketAddr) -> String {
    let runners: Vec<_> = ["call", "stream"]
        .iter()
        .map(|name| {
            serde_json::json!({
                "url": format!("http://{address}/{name}"), "app": format!("bench/{name}"),
                "mode": "single-shot", "capacity": 10_000, "capacity_available": 10_000,
            })
        })
        .collect();
    let entry = serde_json::json!({ "address": format!("http://{address}"), "runners": runners });
    serde_json::json!([entry]).to_string()
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    /// Frames still to come, and when.
    Frames(u32, Interval),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Frames(0, _) => Poll::Ready(None),
            Self::Frames(left, interval) => interval.poll_tick(context).map(|_at| {
                *left -= 1;
                let event = format!("data: {}\n\n", clock::wall().as_nanos());
                Some(Ok(Frame::data(event.into())))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Frames(0, _))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Frames(..) => SizeHint::default(),
        }
    }
}

/// What a call is answered with.
static KIB: [u8; 1024] = [b'x'; 1024];
/// Events of one stream, the first at once.
pub(crate) const FRAMES: u32 = 100;
/// The way from far away and back.
const FAR: Duration = Duration::from_millis(60);
/// A language model's pace.
const FRAME_EVERY: Duration = Duration::from_millis(10);
