//! The gRPC side: `net.Orchestrator`, without generated code.

use std::future::Ready;
use std::future::ready;
use std::task::Context;
use std::task::Poll;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::clock;
use crate::devorch::Shared;
use crate::devorch::seen::Seen;
use crate::livepeer::proto::EndTranscodingSessionRequest;
use crate::livepeer::proto::EndTranscodingSessionResponse;
use crate::livepeer::proto::OrchestratorRequest;
use crate::livepeer::proto::PingPong;

/// Tells whether a request is gRPC, the way real orchestrators do.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    request.version() == http::Version::HTTP_2
        && kind.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one call.
pub(crate) async fn answer(shared: &Shared, request: Request<Body>) -> Response {
    Seen::count(&shared.seen.grpc);
    let about = |_request: OrchestratorRequest| {
        let session = format!("{:08x}", rand::random::<u32>());
        Ok(shared.issuer.about(&session, clock::wall()))
    };
    // An orchestrator without a key signs with nothing.
    let ping = |_ping: PingPong| Ok(PingPong::default());
    let end = |request: EndTranscodingSessionRequest| {
        let token = request.auth_token.unwrap_or_default();
        let known = shared.issuer.verify(&token, clock::wall());
        known.map_err(|_why| Status::unknown("Invalid auth token"))?;
        Ok(EndTranscodingSessionResponse {})
    };
    match request.uri().path() {
        "/net.Orchestrator/GetOrchestrator" => unary(about, request).await,
        "/net.Orchestrator/Ping" => unary(ping, request).await,
        "/net.Orchestrator/EndTranscodingSession" => unary(end, request).await,
        _ => Status::unimplemented("unknown method").into_http(),
    }
}

/// The longest request, in bytes.
const MAX_REQUEST: usize = 256 * 1024;

async fn unary<M, R, F>(answer: F, request: Request<Body>) -> Response
where
    M: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
    F: Fn(M) -> Result<R, Status>,
{
    let codec = ProstCodec::<R, M>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
    grpc.unary(Answer(answer), request).await.map(Body::new)
}

struct Answer<F>(F);

impl<F, M, R> Service<tonic::Request<M>> for Answer<F>
where
    F: Fn(M) -> Result<R, Status>,
{
    type Response = tonic::Response<R>;
    type Error = Status;
    type Future = Ready<Result<tonic::Response<R>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<M>) -> Self::Future {
        ready((self.0)(request.into_inner()).map(tonic::Response::new))
    }
}
