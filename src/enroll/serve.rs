//! The enrolment service: a CA's folder behind TLS 1.3.
//!
//! Every connection carries one request. Who comes too often, too slowly or with too much is
//! cut off; what is asked waits for nobody but the folder's lock. A node that knows how the
//! mesh stands already is answered when that changes, so that it hears of it at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::folder::{Folder, FolderError};
use super::message::{Enroll, MAX_ASKED, Renew};
use crate::ca::{Pace, name};
use crate::clock;
use crate::net::tls::{self, Facts, TlsError};

/// A CA's service, with the certificate it shows at present.
#[derive(Debug)]
pub struct Service {
    folder: Folder,
    config: ArcSwap<rustls::ServerConfig>,
}

/// What an answer is made from.
#[derive(Clone, Debug)]
struct Asked {
    folder: Folder,
    changes: watch::Receiver<()>,
    from: SocketAddr,
}

/// What is said to somebody who gets nothing else.
#[derive(Serialize)]
struct Refusal {
    error: String,
}

impl Service {
    /// Takes up the CA in `folder`; an error where there is none that can sign.
    pub fn new(folder: Folder) -> Result<Self, FolderError> {
        let config = ArcSwap::from_pointee(config(&folder)?);
        Ok(Self { folder, config })
    }

    /// Shows a fresh certificate of the CA that signs to those who come from now on.
    fn refresh(&self) {
        match config(&self.folder) {
            Ok(config) => self.config.store(Arc::new(config)),
            Err(error) => tracing::error!(%error, "the CA cannot show a fresh certificate"),
        }
    }
}

/// Serves those who come to `listener` until `told` completes.
pub async fn serve(service: Service, listener: TcpListener, told: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut pace = Pace::default();
    let mut connections = JoinSet::new();
    let (changed, changes) = watch::channel(());
    let service = Arc::new(service);
    connections.spawn(look(Arc::clone(&service), changed));
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
        let config = service.config.load_full();
        let asked = Asked { folder: service.folder.clone(), changes: changes.clone(), from };
        connections.spawn(async move {
            let met = timeout(WHOLE, meet(stream, config, asked)).await;
            tracing::debug!(in_time = met.is_ok(), "a connection ended");
            drop(permit);
        });
    }
}

/// Tells those who wait whenever the folder's public files change, and has the service show a
/// certificate that fits them. Once a day the list is signed anew, which is such a change.
async fn look(service: Arc<Service>, changed: watch::Sender<()>) {
    let mut before = Default::default();
    let mut fresh_until = clock::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let looking = Arc::clone(&service);
        let is_old = clock::now() >= fresh_until;
        let looked = move || {
            if is_old && let Err(error) = looking.folder.renew_list() {
                tracing::error!(%error, "the CA cannot sign its revocation list anew");
            }
            let stamp = looking.folder.stamp();
            if stamp != before {
                looking.refresh();
            }
            stamp
        };
        let Some(stamp) = blocking(looked).await else { continue };
        if is_old {
            fresh_until = clock::now() + SHOWN_FOR;
        }
        if stamp != before {
            before = stamp;
            changed.send_replace(());
        }
    }
}

async fn meet(stream: TcpStream, config: Arc<rustls::ServerConfig>, asked: Asked) {
    let stream = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no handshake"),
        Err(_elapsed) => return,
    };
    let present = stream.get_ref().1.peer_certificates().and_then(|it| it.first());
    let present = present.map(|it| it.clone().into_owned());
    let answer = |request| {
        let (asked, present) = (asked.clone(), present.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, present, asked).await) }
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
    asked: Asked,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_ASKED).collect().await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long or broke off");
    };
    let (body, path) = (body.to_bytes(), head.uri.path().to_owned());
    let Asked { folder, from, .. } = asked.clone();
    let answer = match (head.method, path.as_str()) {
        (Method::POST, "/v1/enroll") => blocking(move || enroll(&folder, &body, from)).await,
        (Method::POST, "/v1/renew") => {
            blocking(move || renew(&folder, &body, present.as_ref())).await
        }
        (Method::GET, "/v1/standing") => {
            let known = head.headers.get(http::header::IF_NONE_MATCH).cloned();
            return standing(asked, present, known).await;
        }
        _ => Some(refusal(StatusCode::NOT_FOUND, "there is nothing by this name")),
    };
    answer.unwrap_or_else(failed)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Tells how the mesh stands: at once, or when it stands otherwise than the node knows.
async fn standing(
    asked: Asked,
    present: Option<CertificateDer<'static>>,
    known: Option<HeaderValue>,
) -> Response<Full<Bytes>> {
    let Some(present) = present.and_then(|it| Facts::of(&it).ok()) else { return nobody() };
    let present = Arc::new(present);
    let mut changes = asked.changes;
    let give_up = clock::now() + HOLD;
    loop {
        changes.mark_unchanged();
        let (folder, node) = (asked.folder.clone(), Arc::clone(&present));
        let Some(mut told) = blocking(move || told(folder.standing(&node))).await else {
            return failed();
        };
        let tag = told.headers().get(http::header::ETAG);
        if told.status() != StatusCode::OK || known.is_none() || tag != known.as_ref() {
            return told;
        }
        let left = give_up.saturating_duration_since(clock::now());
        if !matches!(timeout(left, changes.changed()).await, Ok(Ok(()))) {
            *told.status_mut() = StatusCode::NOT_MODIFIED;
            *told.body_mut() = Full::default();
            return told;
        }
    }
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

fn told<T: Serialize>(outcome: Result<T, FolderError>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(said) => json(StatusCode::OK, &said),
        Err(
            error @ (FolderError::Refused(_)
            | FolderError::Request(_)
            | FolderError::Revoked
            | FolderError::Stranger
            | FolderError::OtherNode),
        ) => refusal(StatusCode::FORBIDDEN, &error.to_string()),
        Err(error) => {
            tracing::error!(%error, "the CA cannot answer");
            failed()
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

fn failed() -> Response<Full<Bytes>> {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the CA failed; its log says how")
}

fn refusal(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json(status, &Refusal { error: error.to_owned() })
}

fn json(status: StatusCode, said: &impl Serialize) -> Response<Full<Bytes>> {
    // Texts and lists of texts always become JSON.
    let body = serde_json::to_vec(said).unwrap_or_default();
    let tag = format!("\"{}\"", name::fingerprint(&body));
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(http::header::ETAG, tag);
    }
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The service shows the certificate of its CA behind its own, so that who knows the CA's
/// fingerprint alone can check both.
fn config(folder: &Folder) -> Result<rustls::ServerConfig, FolderError> {
    let (trust, service) = (folder.trust()?, folder.signer()?.service()?);
    let mut chain = service.chain()?;
    chain.extend(trust.certificates()?.into_iter().take(1));
    let verifier = tls::nodes_or_nobody(&trust)?;
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, service.key()?)
        .map_err(TlsError::Rustls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Each node of a mesh of 300 waits on one, and some come beside.
const MAX_CONNECTIONS: usize = 1024;

/// How often the folder is looked at for those who wait.
const LOOK: Duration = Duration::from_millis(250);

/// How long a node waits for a change before it is told that there was none; translators of
/// addresses forget a silent connection after half a minute or later.
pub(super) const HOLD: Duration = Duration::from_secs(25);

/// Around the globe a handshake takes 0.6 s.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// All of one connection.
const WHOLE: Duration = Duration::from_secs(45);

/// The longest head of a request, in bytes; hyper takes no less.
const MAX_HEAD: usize = 8192;

/// The service's certificate is good for a week, the list for a month.
const SHOWN_FOR: Duration = Duration::from_secs(86_400);
