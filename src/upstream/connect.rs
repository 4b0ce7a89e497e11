//! One connection to an orchestrator: name, socket, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use metrics::counter;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::clock;
use crate::id::OrchestratorId;
use crate::socket::{Stream, tune};
use crate::upstream::guard::{Denied, Guard};
use crate::upstream::pin::{Pins, Verifier};
use crate::uri::ServiceUri;

/// What is to be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 where the other side has it.
    Http2,
}

/// Makes connections.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// How long connecting and the TLS handshake may take together.
    pub timeout: Duration,
    /// The local address connections leave from, where the operator sets one.
    pub from: Option<IpAddr>,
    /// Which addresses may be connected to; swapped by a reload.
    pub guard: Arc<ArcSwap<Guard>>,
    /// The certificates known.
    pub pins: Arc<Pins>,
    /// How TLS is spoken, and the sessions it can resume.
    pub(crate) tls: Tls,
}

/// One configuration for every orchestrator, by protocol: whose certificate it is, is not TLS's
/// question but that of the pins.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// A connection and what was agreed on it.
pub struct Connected {
    /// The bytes.
    pub io: TokioIo<Stream>,
    /// Whether HTTP/2 was agreed.
    pub http2: bool,
}

/// Why there is no connection. Nothing was sent in any case.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or nothing listens there.
    #[error("cannot connect: {0}")]
    Refused(#[source] io::Error),
    /// The handshake failed.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The name leads to where this node does not go.
    #[error("not connected: {0}")]
    Denied(#[source] Denied),
    /// The certificate is not the one pinned.
    #[error("the certificate is not the one pinned")]
    Pin,
    /// It took too long.
    #[error("no connection within {0:?}")]
    Silent(Duration),
    /// The connections to this orchestrator are all in use.
    #[error("all {0} connections to it are in use")]
    Full(u32),
    /// The HTTP layer refused the connection.
    #[error("HTTP failed: {0}")]
    Http(#[source] hyper::Error),
}

impl Dialer {
    /// Makes a dialer that knows no certificate yet.
    pub fn new(timeout: Duration) -> Self {
        let guard = Arc::default();
        Self { timeout, from: None, guard, pins: Arc::default(), tls: Tls::new() }
    }

    /// The same, to anywhere: for tools, whose user names the place.
    pub fn anywhere(timeout: Duration) -> Self {
        let dialer = Self::new(timeout);
        dialer.guard.store(Arc::new(Guard::open()));
        dialer
    }

    /// Connects to an orchestrator.
    pub async fn dial(
        &self,
        uri: &ServiceUri,
        protocol: Protocol,
    ) -> Result<Connected, ConnectError> {
        let connecting = self.connect(uri, protocol);
        let ended = tokio::time::timeout(self.timeout, connecting).await;
        ended.map_err(|_elapsed| ConnectError::Silent(self.timeout))?
    }

    async fn connect(
        &self,
        uri: &ServiceUri,
        protocol: Protocol,
    ) -> Result<Connected, ConnectError> {
        let tcp = self.tcp(uri).await?;
        tune::tune(&tcp, tune::ORCHESTRATOR_UNACKNOWLEDGED).map_err(ConnectError::Refused)?;
        if !uri.is_tls() {
            let http2 = protocol == Protocol::Http2;
            return Ok(Connected { io: TokioIo::new(Stream::Plain(tcp)), http2 });
        }
        let config = match protocol {
            Protocol::Http1 => &self.tls.http1,
            Protocol::Http2 => &self.tls.http2,
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let name = ServerName::try_from(uri.host().to_owned());
        let name = name.map_err(|bad| ConnectError::Tls(io::Error::other(bad)))?;
        let tls = connector.connect(name, tcp).await.map_err(ConnectError::Tls)?;
        // The handshake is over, so the other side holds the key; nothing was sent under it.
        // A resumed session has the certificate it began with.
        let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if !certificate.is_some_and(|it| self.pins.accepts(OrchestratorId::of(uri), it)) {
            return Err(ConnectError::Pin);
        }
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected { io: TokioIo::new(Stream::Tls(Box::new(tls.into()))), http2 })
    }

    /// Connects to the first address of the name that answers; one that swallows everything
    /// leaves the others their part of the time.
    async fn tcp(&self, uri: &ServiceUri) -> Result<TcpStream, ConnectError> {
        let started = clock::now();
        let found = lookup_host((uri.host(), uri.port())).await.map_err(ConnectError::Refused)?;
        let nowhere = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut failed = ConnectError::Refused(nowhere);
        let mut addresses: Vec<SocketAddr> = Vec::with_capacity(ADDRESSES_MAX);
        let guard = self.guard.load();
        for address in found.take(ADDRESSES_MAX) {
            match guard.admit(uri, address) {
                Ok(()) => addresses.push(address),
                Err(denied) => failed = ConnectError::Denied(denied),
            }
        }
        drop(guard);
        if let ConnectError::Denied(denied) = &failed
            && addresses.is_empty()
        {
            counter!("portolan_addresses_denied_total").increment(1);
            tracing::debug!(%uri, %denied, "not connected");
        }
        for (tried, address) in addresses.iter().enumerate() {
            let spent = clock::now().saturating_duration_since(started);
            let within = share(self.timeout.saturating_sub(spent), addresses.len() - tried);
            let connecting = async { self.socket(*address)?.connect(*address).await };
            failed = match tokio::time::timeout(within, connecting).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => ConnectError::Refused(error),
                Err(_elapsed) => ConnectError::Silent(within),
            };
        }
        Err(failed)
    }

    fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = self.from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        Ok(socket)
    }
}

impl Tls {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = |protocols: &[&[u8]]| {
            let verifier = Verifier { provider: Arc::clone(&provider) };
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .expect("the provider has suites for both versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
            Arc::new(config)
        };
        Self { http1: config(&[b"http/1.1"]), http2: config(&[b"h2", b"http/1.1"]) }
    }
}

/// Returns how long one address may take when `untried` of them share the time `left`.
fn share(left: Duration, untried: usize) -> Duration {
    left / untried.clamp(1, ADDRESSES_MAX) as u32
}

/// Addresses of one name tried, one after the other.
const ADDRESSES_MAX: usize = 4;
/// Hosts whose TLS sessions are kept for resumption, by protocol: those with traffic, at some
/// kilobytes each.
const SESSIONS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(left_ms: u64, untried: usize, expected_ms: u64) {
        let share = share(Duration::from_millis(left_ms), untried);
        assert_eq!(share, Duration::from_millis(expected_ms));
    }

    #[test]
    fn the_addresses_still_untried_share_the_time_left() {
        check(2000, 1, 2000);
        check(2000, 2, 1000);
        check(1000, 1, 1000);
        // What one that refused at once did not use is there for the others.
        check(1999, 1, 1999);
        check(2000, ADDRESSES_MAX, 500);
        check(0, 3, 0);
        check(2000, 0, 2000);
    }

    /// Serves TLS under a fresh certificate until dropped.
    async fn serve() -> (ServiceUri, tokio::task::JoinSet<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (tcp, _peer) = listener.accept().await.unwrap();
                let mut tls = acceptor.accept(tcp).await.unwrap();
                // Session tickets go out with the first byte.
                tokio::io::AsyncWriteExt::write_all(&mut tls, b"!").await.unwrap();
            }
        });
        (uri, tasks)
    }

    async fn dial(dialer: &Dialer, uri: &ServiceUri) -> Option<rustls::HandshakeKind> {
        let connected = dialer.dial(uri, Protocol::Http1).await.unwrap();
        let mut io = connected.io.into_inner();
        tokio::io::AsyncReadExt::read_exact(&mut io, &mut [0]).await.unwrap();
        match io {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.handshake_kind(),
        }
    }

    #[tokio::test]
    async fn what_others_name_is_not_connected_to_next_door() {
        let (uri, _tasks) = serve().await;
        let refused = Dialer::new(Duration::from_secs(5)).dial(&uri, Protocol::Http1).await;
        assert!(matches!(refused, Err(ConnectError::Denied(Denied::Address))));
    }

    #[tokio::test]
    async fn a_session_is_resumed_only_under_the_certificate_pinned() {
        use rustls::HandshakeKind;
        let (uri, _tasks) = serve().await;
        let dialer = Dialer::anywhere(Duration::from_secs(5));
        assert_eq!(dial(&dialer, &uri).await, Some(HandshakeKind::Full));
        assert_eq!(dial(&dialer, &uri).await, Some(HandshakeKind::Resumed));
        let id = OrchestratorId::of(&uri);
        dialer.pins.forget(id);
        assert!(dialer.pins.accepts(id, b"another"));
        let refused = dialer.dial(&uri, Protocol::Http1).await;
        assert!(matches!(refused, Err(ConnectError::Pin)));
    }
}
