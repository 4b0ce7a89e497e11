//! The enrolment service: a CA's folder behind TLS 1.3.
//!
//! Every connection carries one request. Who comes too often, too slowly or with too much is
//! cut off; what is asked waits for nobody but the folder's lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::folder::{Folder, FolderError};
use super::message::{Enroll, MAX_ASKED, Renew};
use crate::ca::Pace;
use crate::clock;
use crate::net::tls::{self, Facts, Identity, TlsError, Trust};

/// A CA's service, with the certificate it shows at present.
#[derive(Debug)]
pub struct Service {
    folder: Folder,
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    ca_pem: String,
    until: Duration,
    config: Arc<rustls::ServerConfig>,
}

/// What is said to somebody who gets nothing else.
#[derive(Serialize)]
struct Refusal {
    error: String,
}

impl Service {
    /// Takes up the CA in `folder`; an error where there is none that can sign.
    pub fn new(folder: Folder) -> Result<Self, FolderError> {
        let mut service = Self { folder, shown: None };
        service.config()?;
        Ok(service)
    }

    /// Returns how to meet the next connection: under a certificate of the CA that signs,
    /// renewed long before it ends.
    fn config(&mut self) -> Result<Arc<rustls::ServerConfig>, FolderError> {
        let trust = self.folder.trust()?;
        let now = clock::wall();
        let fits = |it: &&Shown| it.ca_pem == trust.ca_pem && now < it.until;
        if let Some(shown) = self.shown.as_ref().filter(fits) {
            return Ok(Arc::clone(&shown.config));
        }
        let signer = self.folder.signer()?;
        let config = Arc::new(config(&trust, &signer.service()?)?);
        let ca_pem = trust.ca_pem;
        self.shown = Some(Shown { ca_pem, until: now + SHOWN_FOR, config: Arc::clone(&config) });
        Ok(config)
    }
}

/// Serves those who come to `listener` until `told` completes.
pub async fn serve(mut service: Service, listener: TcpListener, told: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut pace = Pace::default();
    let mut connections = JoinSet::new();
    tokio::pin!(told);
    loop {
        let accepted = tokio::select! {
            () = &mut told => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Out of descriptors, most likely: some will be free in a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        if !pace.take(clock::now(), from.ip()) {
            tracing::debug!("an address comes too often and is cut off");
            continue;
        }
        let config = match service.config() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "the CA cannot show a certificate");
                continue;
            }
        };
        let folder = service.folder.clone();
        connections.spawn(async move {
            let met = timeout(WHOLE, meet(stream, from, config, folder)).await;
            tracing::debug!(in_time = met.is_ok(), "a connection ended");
            drop(permit);
        });
    }
}

async fn meet(
    stream: TcpStream,
    from: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    folder: Folder,
) {
    let stream = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no handshake"),
        Err(_elapsed) => return,
    };
    let present = stream.get_ref().1.peer_certificates().and_then(|it| it.first());
    let present = present.map(|it| it.clone().into_owned());
    let answer = |request| {
        let (folder, present) = (folder.clone(), present.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, present, folder, from).await) }
    };
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request was not answered");
    }
}

/// Answers one request; the folder is read and written on a thread that may wait.
async fn answer(
    request: Request<Incoming>,
    present: Option<CertificateDer<'static>>,
    folder: Folder,
    from: SocketAddr,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_ASKED).collect().await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long or broke off");
    };
    let (body, path) = (body.to_bytes(), head.uri.path().to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let present = present.as_ref();
        match (head.method, path.as_str()) {
            (Method::POST, "/v1/enroll") => enroll(&folder, &body, from),
            (Method::POST, "/v1/renew") => renew(&folder, &body, present),
            (Method::GET, "/v1/standing") => standing(&folder, present),
            _ => refusal(StatusCode::NOT_FOUND, "there is nothing by this name"),
        }
    });
    asked.await.unwrap_or_else(|_panic| {
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "the CA failed; its log says how")
    })
}

fn enroll(folder: &Folder, body: &[u8], from: SocketAddr) -> Response<Full<Bytes>> {
    let Some(asked) = read::<Enroll>(body) else { return malformed() };
    let Ok(token) = asked.token.parse::<crate::ca::Token>() else { return malformed() };
    let named = folder.enroll(&token, &asked.request);
    match &named {
        Ok(_) => tracing::info!(node = %token.node(), %from, "a node joined"),
        // Whoever tries tokens is no client but an attacker, or an operator that needs help.
        Err(error) => tracing::warn!(node = %token.node(), %from, %error, "a node did not join"),
    }
    told(named)
}

fn renew(
    folder: &Folder,
    body: &[u8],
    present: Option<&CertificateDer<'static>>,
) -> Response<Full<Bytes>> {
    let Some(asked) = read::<Renew>(body) else { return malformed() };
    let Some(present) = present.and_then(|it| Facts::of(it).ok()) else { return nobody() };
    let named = folder.renew(&present, &asked.request);
    match &named {
        Ok(_) => tracing::info!(serial = %present.serial, "a certificate was renewed"),
        Err(error) => tracing::warn!(serial = %present.serial, %error, "no renewal"),
    }
    told(named)
}

fn standing(folder: &Folder, present: Option<&CertificateDer<'static>>) -> Response<Full<Bytes>> {
    let Some(present) = present.and_then(|it| Facts::of(it).ok()) else { return nobody() };
    told(folder.standing(&present))
}

fn told<T: Serialize>(outcome: Result<T, FolderError>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(said) => json(StatusCode::OK, &said),
        Err(
            error @ (FolderError::Refused(_)
            | FolderError::Request(_)
            | FolderError::Revoked
            | FolderError::OtherNode),
        ) => refusal(StatusCode::FORBIDDEN, &error.to_string()),
        Err(error) => {
            tracing::error!(%error, "the CA cannot answer");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the CA failed; its log says how")
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

fn malformed() -> Response<Full<Bytes>> {
    refusal(StatusCode::BAD_REQUEST, "that is no request of a node of this version")
}

fn nobody() -> Response<Full<Bytes>> {
    refusal(StatusCode::UNAUTHORIZED, "show the node's certificate; enrol first")
}

fn refusal(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json(status, &Refusal { error: error.to_owned() })
}

fn json(status: StatusCode, said: &impl Serialize) -> Response<Full<Bytes>> {
    // Texts and lists of texts always become JSON.
    let body = serde_json::to_vec(said).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The service shows the certificate of its CA behind its own, so that who knows the CA's
/// fingerprint alone can check both.
fn config(trust: &Trust, service: &Identity) -> Result<rustls::ServerConfig, TlsError> {
    let mut chain = service.chain()?;
    chain.extend(trust.certificates()?.into_iter().take(1));
    let verifier = tls::nodes_or_nobody(trust)?;
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, service.key()?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A mesh of 300 nodes asks 30 times a second, for some milliseconds each.
const MAX_CONNECTIONS: usize = 128;

/// Around the globe a handshake takes 0.6 s.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// All of one connection.
const WHOLE: Duration = Duration::from_secs(20);

/// The longest head of a request, in bytes; hyper takes no less.
const MAX_HEAD: usize = 8192;

/// The service's certificate is good for a week.
const SHOWN_FOR: Duration = Duration::from_secs(86_400);
