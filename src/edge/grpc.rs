//! gRPC on the clients' port: whether this node lives, and a clear no to the rest.
//!
//! Orchestrators are asked how they are by `net.Orchestrator/Ping`; whoever takes this node
//! for one gets the same answer. Prices and sessions are had by the other doors.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::edge::refusal::ServeError;
use crate::upstream::Body;

/// Tells whether a request speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call: `Ping` with what it brought.
pub(crate) async fn answer(request: Request<Incoming>) -> Result<Response<Body>, ServeError> {
    if !is_grpc(request.headers()) {
        return Err(ServeError::NoDoor);
    }
    if request.uri().path() != PING {
        return Ok(status(UNIMPLEMENTED, "ask for /discover-orchestrators or /discovery instead"));
    }
    let body = Limited::new(request.into_body(), PING_MAX).collect();
    let body = tokio::time::timeout(PING_WITHIN, body).await;
    let body = body.map_err(|_elapsed| ServeError::Body("too slow".to_owned()))?;
    let body: Bytes = body.map_err(|broken| ServeError::Body(broken.to_string()))?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(OK));
    let mut response = Response::new(Body::with_trailers(body, trailers));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    Ok(response)
}

/// Turns a refusal of this node into one that gRPC clients read.
pub(crate) fn refusal(refused: &Response<Body>) -> Response<Body> {
    // As gRPC maps the statuses of HTTP where it has to.
    let (code, said) = match refused.status() {
        StatusCode::BAD_REQUEST => (INTERNAL, "this request cannot be read"),
        StatusCode::NOT_FOUND => (UNIMPLEMENTED, "no such service here"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            (UNAVAILABLE, "this node takes nothing more now; try again in a second")
        }
        _ => (UNKNOWN, "this node does not serve this"),
    };
    status(code, said)
}

/// An answer of trailers only.
fn status(code: u16, said: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(STATUS, HeaderValue::from(code));
    headers.insert("grpc-message", HeaderValue::from_static(said));
    response
}

const PING: &str = "/net.Orchestrator/Ping";
/// A ping is some bytes.
const PING_MAX: usize = 1024;
const PING_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: &str = "grpc-status";
// The codes of gRPC that are used here.
const OK: u16 = 0;
const UNKNOWN: u16 = 2;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
