//! Asking an orchestrator how it is.
//!
//! One connection, at most three questions: `Ping`, timed, for the round trip and for life;
//! `/discovery` for live runners and their places; `GetOrchestrator` for capabilities,
//! prices and further instances. Off-chain, none of them needs a key.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::task::JoinSet;

use crate::clock;
use crate::livepeer::proto::{OrchestratorInfo, OrchestratorRequest, PingPong};
use crate::livepeer::runner::{self, parse_discovery};
use crate::orchestrator::{Answer, CheckFailure};
use crate::unit::Micros;
use crate::upstream::body::Body;
use crate::upstream::connect::{ConnectError, Dialer, Protocol};
use crate::uri::ServiceUri;

/// Checks the orchestrator at `uri`; `ask_info` adds `GetOrchestrator`.
pub async fn check(
    dialer: &Dialer,
    uri: &ServiceUri,
    ask_info: bool,
    timeout: Duration,
) -> Result<Answer, CheckFailure> {
    let asked = tokio::time::timeout(timeout, ask(dialer, uri, ask_info)).await;
    asked.map_err(|_elapsed| CheckFailure::Silent(timeout))?
}

async fn ask(dialer: &Dialer, uri: &ServiceUri, ask_info: bool) -> Result<Answer, CheckFailure> {
    let connected = dialer.dial(uri, Protocol::Http2).await.map_err(|error| match error {
        ConnectError::Pin => CheckFailure::Pin,
        ConnectError::Silent(after) => CheckFailure::Silent(after),
        ConnectError::Refused(_)
        | ConnectError::Tls(_)
        | ConnectError::Denied(_)
        | ConnectError::Full(_)
        | ConnectError::Http(_) => CheckFailure::Connect(error.to_string()),
    })?;
    // The connection's task ends with this function.
    let mut tasks = JoinSet::new();
    if connected.http2 {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEADERS_MAX)
            .handshake::<_, Body>(connected.io);
        let (sender, connection) = handshake.await.map_err(unreadable)?;
        tasks.spawn(connection);
        return ask_h2(Http2 { sender, uri }, ask_info).await;
    }
    let (mut sender, connection) =
        http1::handshake::<_, Body>(connected.io).await.map_err(unreadable)?;
    tasks.spawn(connection);
    let mut request = request(Method::GET, uri, "/discovery", Body::Empty);
    // An origin is asked by the path alone (RFC 9112, section 3.2.1).
    *request.uri_mut() = format!("{}/discovery", uri.base_path()).parse().unwrap_or_default();
    request.headers_mut().insert(http::header::HOST, uri.host_field().clone());
    let started = clock::now();
    let answer = sender.send_request(request).await.map_err(unreadable)?;
    let rtt = Some(Micros::from(clock::now() - started));
    Ok(Answer { rtt, runners: runners(answer).await?, info: None })
}

struct Http2<'a> {
    sender: http2::SendRequest<Body>,
    uri: &'a ServiceUri,
}

async fn ask_h2(mut http: Http2<'_>, ask_info: bool) -> Result<Answer, CheckFailure> {
    // The first call also waits for the connection to settle; the second one is timed.
    let ping = PingPong { value: b"portolan".to_vec() };
    let well = http.call::<_, PingPong>("/net.Orchestrator/Ping", &ping).await.is_ok();
    let started = clock::now();
    let timed = http.call::<_, PingPong>("/net.Orchestrator/Ping", &ping).await;
    let mut rtt = timed.is_ok().then(|| Micros::from(clock::now() - started));

    let started = clock::now();
    let discovery = request(Method::GET, http.uri, "/discovery", Body::Empty);
    let answer = http.sender.send_request(discovery).await.map_err(unreadable)?;
    rtt = rtt.or_else(|| Some(Micros::from(clock::now() - started)));
    let runners = runners(answer).await?;
    if !well && runners.is_none() {
        return Err(CheckFailure::Unreadable("neither gRPC nor /discovery answered".to_owned()));
    }
    let mut info = None;
    if ask_info && well {
        let wanted = OrchestratorRequest {
            address: vec![0; 20],
            ignore_capacity_check: true,
            ..OrchestratorRequest::default()
        };
        let call = http.call::<_, OrchestratorInfo>("/net.Orchestrator/GetOrchestrator", &wanted);
        info = call.await.ok().map(Box::new);
    }
    Ok(Answer { rtt, runners, info })
}

impl Http2<'_> {
    /// One unary gRPC call: a five-byte prefix, a message, and a status in the trailers.
    async fn call<Q: Message, A: Message + Default>(
        &mut self,
        path: &str,
        question: &Q,
    ) -> Result<A, CheckFailure> {
        let message = question.encode_to_vec();
        let mut framed = Vec::with_capacity(5 + message.len());
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        let mut request = request(Method::POST, self.uri, path, Body::whole(framed));
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in fields {
            request.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        let answer = self.sender.send_request(request).await.map_err(unreadable)?;
        let early = status(answer.headers());
        let collected = Limited::new(answer.into_body(), MESSAGE_MAX).collect().await;
        let collected = collected.map_err(|error| CheckFailure::Unreadable(error.to_string()))?;
        let late = collected.trailers().and_then(status);
        match early.or(late) {
            Some(0) => {}
            Some(code) => return Err(CheckFailure::Unreadable(format!("gRPC status {code}"))),
            None => return Err(CheckFailure::Unreadable("no gRPC status".to_owned())),
        }
        let body = collected.to_bytes();
        let message = message_of(&body).ok_or_else(|| {
            CheckFailure::Unreadable("a gRPC frame that is not one message".to_owned())
        })?;
        A::decode(message).map_err(|error| CheckFailure::Unreadable(error.to_string()))
    }
}

fn request(method: Method, uri: &ServiceUri, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    let scheme = if uri.is_tls() { "https" } else { "http" };
    let full = format!("{scheme}://{}{}{path}", uri.authority(), uri.base_path());
    *request.uri_mut() = full.parse().unwrap_or_default();
    request
}

/// Reads the runners of a discovery answer; `None` when it has no support for them.
async fn runners(
    answer: http::Response<hyper::body::Incoming>,
) -> Result<Option<Vec<runner::Runner>>, CheckFailure> {
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        other => return Err(CheckFailure::Unreadable(format!("/discovery answered {other}"))),
    }
    let body = Limited::new(answer.into_body(), runner::MAX_BODY).collect().await;
    let body = body.map_err(|error| CheckFailure::Unreadable(error.to_string()))?.to_bytes();
    let list = parse_discovery(&body).map_err(|bad| CheckFailure::Unreadable(bad.to_string()))?;
    Ok(Some(list.entries.into_iter().flat_map(|entry| entry.runners).collect()))
}

fn status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Returns the message of a body that is exactly one uncompressed gRPC frame.
fn message_of(body: &Bytes) -> Option<&[u8]> {
    let (prefix, message) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (prefix[0] == 0 && length == message.len()).then_some(message)
}

fn unreadable(error: hyper::Error) -> CheckFailure {
    CheckFailure::Unreadable(error.to_string())
}

/// The largest gRPC message taken: Go's own default.
const MESSAGE_MAX: usize = 4 << 20;
/// The longest header list taken.
const HEADERS_MAX: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_body_is_one_frame_or_none(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let body = Bytes::from(body);
            let whole = message_of(&body).map(<[u8]>::len);
            prop_assert!(whole.is_none_or(|n| n + 5 == body.len()));
        }
    }
}
