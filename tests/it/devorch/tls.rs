use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan::devorch::Params;
use portolan::livepeer::proto::{EndTranscodingSessionRequest, OrchestratorInfo, PingPong};
use prost::Message;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Orchestrator, params};

/// Believes any certificate, as every gateway in use does.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

async fn connect(orch: &Orchestrator, alpn: &[u8]) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut settings = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    settings.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(orch.addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = TlsConnector::from(Arc::new(settings)).connect(name, tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn));
    tls
}

async fn start() -> Orchestrator {
    Orchestrator::start(Params { service: None, ..params() }).await
}

/// Calls one method; returns the answer, or the gRPC status.
async fn call<M: Message + Default>(
    orch: &mut Orchestrator,
    method: &str,
    question: &impl Message,
) -> Result<M, String> {
    let stream = TokioIo::new(connect(orch, b"h2").await);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    orch.tasks.spawn(async { drop(connection.await) });
    let mut frame = BytesMut::from(&[0][..]);
    frame.extend_from_slice(&(question.encoded_len() as u32).to_be_bytes());
    frame.extend_from_slice(&question.encode_to_vec());
    let uri = format!("https://{}/net.Orchestrator/{method}", orch.addr);
    let request =
        Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let answer = send.send_request(request.body(Full::new(frame.freeze())).unwrap()).await.unwrap();
    let head = answer.headers().get("grpc-message").cloned();
    let body = answer.into_body().collect().await.unwrap();
    let tail = body.trailers().and_then(|it| it.get("grpc-message").cloned());
    if let Some(why) = head.or(tail) {
        return Err(why.to_str().unwrap().to_owned());
    }
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    Ok(M::decode(&body.to_bytes()[5..]).unwrap())
}

#[tokio::test]
async fn grpc_answers_on_the_port_of_everything_else() {
    let mut orch = start().await;
    let ping = PingPong { value: b"x".to_vec() };
    let pong: PingPong = call(&mut orch, "Ping", &ping).await.unwrap();
    assert!(pong.value.is_empty());

    let about: OrchestratorInfo =
        call(&mut orch, "GetOrchestrator", &PingPong::default()).await.unwrap();
    assert_eq!(about.transcoder, format!("https://{}", orch.addr));
    assert_eq!((about.price_info, about.ticket_params), (None, None));

    let end = EndTranscodingSessionRequest { auth_token: about.auth_token };
    assert_eq!(
        call::<PingPong>(&mut orch, "EndTranscodingSession", &end).await.unwrap(),
        PingPong::default()
    );
    let forged = EndTranscodingSessionRequest::default();
    let refused = call::<PingPong>(&mut orch, "EndTranscodingSession", &forged).await;
    assert_eq!(refused.unwrap_err().replace("%20", " "), "Invalid auth token");
    assert!(call::<PingPong>(&mut orch, "Fly", &ping).await.is_err());
}

#[tokio::test]
async fn both_versions_of_http_answer_over_tls() {
    let mut orch = start().await;
    let stream = TokioIo::new(connect(&orch, b"http/1.1").await);
    let (mut send, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    orch.tasks.spawn(async { drop(connection.await) });
    let request = Request::get("/discovery").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(send.send_request(request).await.unwrap().status(), StatusCode::OK);

    let stream = TokioIo::new(connect(&orch, b"h2").await);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    orch.tasks.spawn(async { drop(connection.await) });
    let uri = format!("https://{}/apps/once/app", orch.addr);
    let request = Request::post(uri).body(Full::new(Bytes::from_static(b"two"))).unwrap();
    let answer = send.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "two");
}
