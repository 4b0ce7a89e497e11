//! Asking the enrolment service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::message::{Enroll, MAX_ANSWER, Named, Renew, Standing};
use super::serve::HOLD;
use crate::ca::Token;
use crate::ca::name;
use crate::id::NodeId;
use crate::net::tls::{self, Facts, Identity, TlsError, Trust};

/// Why the service gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached.
    #[error("{at}: {source}; is `portolan ca serve` running there?")]
    Reach {
        /// Its address.
        at: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the CA that is meant, or does not know this node.
    #[error("{at}: {source}; compare --ca-fp with what `portolan ca fingerprint` prints")]
    Handshake {
        /// Its address.
        at: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{0} did not answer in time; is `portolan ca serve` running there?")]
    Timeout(String),
    /// It broke off.
    #[error("the enrolment service broke off")]
    Http(#[from] hyper::Error),
    /// It refused.
    #[error("{status}: {error}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said.
        error: String,
    },
    /// What it said cannot be used.
    #[error("the answer of the enrolment service is of no use: {0}")]
    Answer(&'static str),
    /// This node's own files are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the service is known by.
#[derive(Clone, Debug)]
enum Known {
    /// The fingerprint of the CA.
    Fingerprint(String),
    /// The CAs this node trusts, and who it is to them.
    Trust(Trust, Identity),
}

/// Has a node named by the CA at `at` (HOST:PORT) whose fingerprint is `fingerprint`, for the
/// key `key_pem`, which is not sent.
pub async fn enroll(
    at: &str,
    fingerprint: &str,
    token: &Token,
    key_pem: &str,
) -> Result<Named, AskError> {
    let known = Known::Fingerprint(fingerprint.to_owned());
    let asked = async {
        let stream = connect(at, &known).await?;
        let domain = domain_of(&stream).ok_or(AskError::Answer("it does not name its mesh"))?;
        let request = tls::request(token.node(), &domain, key_pem)?;
        let body = Enroll { token: token.reveal(), request };
        let named: Named = post(stream, "/v1/enroll", &body).await?;
        if named.standing.trust_domain != domain {
            return Err(AskError::Answer("it names another mesh than its certificate"));
        }
        check(&named, token.node(), key_pem)?;
        Ok(named)
    };
    in_time(at, asked).await
}

/// Has the node of `identity` named anew.
pub async fn renew(at: &str, trust: &Trust, identity: &Identity) -> Result<Named, AskError> {
    let node = identity.facts()?.node_of(&trust.trust_domain);
    let node = node.map_err(|_other| AskError::Answer("this node has no name in the mesh"))?;
    let body = Renew { request: identity.request(node, &trust.trust_domain)? };
    let known = Known::Trust(trust.clone(), identity.clone());
    let asked = async {
        let stream = connect(at, &known).await?;
        let named: Named = post(stream, "/v1/renew", &body).await?;
        check(&named, node, &identity.key_pem)?;
        Ok(named)
    };
    in_time(at, asked).await
}

/// Asks how the mesh stands, as the node of `identity`. With the tag of an earlier answer,
/// waits until it stands otherwise; `None` where it did not within half a minute.
pub async fn standing(
    at: &str,
    trust: &Trust,
    identity: &Identity,
    known: Option<&str>,
) -> Result<Option<(Standing, String)>, AskError> {
    let by = Known::Trust(trust.clone(), identity.clone());
    let asked = async {
        let stream = connect(at, &by).await?;
        let request = Request::get("/v1/standing");
        let request = match known {
            Some(tag) => request.header(http::header::IF_NONE_MATCH, tag),
            None => request,
        };
        let answer = send(stream, request, Bytes::new()).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let tag = answer.headers().get(http::header::ETAG).and_then(|it| it.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        let standing = read(&answer)?;
        check_standing(&standing)?;
        Ok(Some((standing, tag)))
    };
    let whole = WHOLE + HOLD;
    timeout(whole, asked).await.map_err(|_elapsed| AskError::Timeout(at.to_owned()))?
}

/// Checks that the answer fits together and names `node` by `key_pem`.
fn check(named: &Named, node: NodeId, key_pem: &str) -> Result<(), AskError> {
    let trust = check_standing(&named.standing)?;
    let identity = Identity { cert_pem: named.certificate.clone(), key_pem: key_pem.to_owned() };
    tls::check(&trust, &identity)?;
    if identity.facts()?.node_of(&trust.trust_domain) != Ok(node) {
        return Err(AskError::Answer("the certificate names another node"));
    }
    Ok(())
}

fn check_standing(standing: &Standing) -> Result<Trust, AskError> {
    let Standing { trust_domain, ca, revoked } = standing;
    name::check_trust_domain(trust_domain)
        .map_err(|_bad| AskError::Answer("it is of no trust domain"))?;
    let trust = Trust { trust_domain: trust_domain.clone(), ca_pem: ca.clone() };
    let certificates = trust.certificates()?;
    if certificates.len() > MAX_CAS {
        return Err(AskError::Answer("it names too many CAs"));
    }
    crate::ca::Revoked::read(revoked, &certificates)
        .map_err(|_bad| AskError::Answer("its revocation list is not of its CA"))?;
    Ok(trust)
}

async fn in_time<T>(
    at: &str,
    asked: impl Future<Output = Result<T, AskError>>,
) -> Result<T, AskError> {
    timeout(WHOLE, asked).await.map_err(|_elapsed| AskError::Timeout(at.to_owned()))?
}

async fn connect(at: &str, known: &Known) -> Result<TlsStream<TcpStream>, AskError> {
    let reach = |source| AskError::Reach { at: at.to_owned(), source };
    let stream = TcpStream::connect(at).await.map_err(reach)?;
    let name = ServerName::try_from(name::SERVICE).map_err(|_dns| AskError::Answer("no name"))?;
    let connector = TlsConnector::from(Arc::new(config(known)?));
    let handshake = |source| AskError::Handshake { at: at.to_owned(), source };
    connector.connect(name, stream).await.map_err(handshake)
}

/// Posts one request and reads the answer to it.
async fn post<T: DeserializeOwned>(
    stream: TlsStream<TcpStream>,
    path: &str,
    asked: &impl Serialize,
) -> Result<T, AskError> {
    let body = serde_json::to_vec(asked).map_err(|_json| AskError::Answer(NOT_ASKED))?;
    let request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    read(&send(stream, request, body.into()).await?)
}

/// Sends one request and takes the answer to it, whatever it is.
async fn send(
    stream: TlsStream<TcpStream>,
    request: http::request::Builder,
    body: Bytes,
) -> Result<Response<Bytes>, AskError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driven = JoinSet::new();
    driven.spawn(connection);
    let request = request
        .header(http::header::HOST, name::SERVICE)
        .body(Full::new(body))
        .map_err(|_head| AskError::Answer(NOT_ASKED))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|_long| AskError::Answer("it is too long or broke off"))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn read<T: DeserializeOwned>(answer: &Response<Bytes>) -> Result<T, AskError> {
    if answer.status() != StatusCode::OK {
        let error = crate::livepeer::error::message(answer.body());
        return Err(AskError::Refused { status: answer.status(), error });
    }
    serde_json::from_slice(answer.body())
        .map_err(|_json| AskError::Answer("it is not of this version"))
}

fn domain_of(stream: &TlsStream<TcpStream>) -> Option<String> {
    let shown = stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
    let uri = Facts::of(&shown).ok()?.uri()?;
    name::domain_of_service(&uri).map(str::to_owned)
}

fn config(known: &Known) -> Result<rustls::ClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match known {
        Known::Fingerprint(fingerprint) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(fingerprint.clone())))
            .with_no_client_auth(),
        Known::Trust(trust, identity) => builder
            .with_root_certificates(tls::roots(trust)?)
            .with_client_auth_cert(identity.chain()?, identity.key()?)?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Takes a service whose chain ends in the CA of this fingerprint, and checks the rest of the
/// chain as ever.
#[derive(Debug)]
struct Pinned(String);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|it| name::fingerprint(it) == self.0);
        let Some(pinned) = pinned else {
            return Err(rustls::Error::General("this CA has another fingerprint".to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

const NOT_ASKED: &str = "it cannot be asked";

/// A rotation has two at once.
const MAX_CAS: usize = 4;

/// All of one question and its answer.
const WHOLE: Duration = Duration::from_secs(20);
