//! One connection to an orchestrator: name, socket, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::id::OrchestratorId;
use crate::upstream::pin::{Pins, Verifier};
use crate::upstream::tcp;
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
    /// The certificates known.
    pub pins: Arc<Pins>,
    /// The cryptography.
    pub provider: Arc<CryptoProvider>,
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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { timeout, from: None, pins: Arc::default(), provider }
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
        let tcp = self.tcp(uri).await.map_err(ConnectError::Refused)?;
        tcp::tune(&tcp, tcp::ORCHESTRATOR_UNACKNOWLEDGED).map_err(ConnectError::Refused)?;
        if !uri.is_tls() {
            let http2 = protocol == Protocol::Http2;
            return Ok(Connected { io: TokioIo::new(Stream::Plain(tcp)), http2 });
        }
        let connector = TlsConnector::from(Arc::new(self.tls(uri, protocol)));
        let name = ServerName::try_from(uri.host().to_owned());
        let name = name.map_err(|bad| ConnectError::Tls(io::Error::other(bad)))?;
        let tls = connector.connect(name, tcp).await.map_err(|error| {
            let pinned = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
            match pinned {
                Some(rustls::Error::InvalidCertificate(
                    rustls::CertificateError::ApplicationVerificationFailure,
                )) => ConnectError::Pin,
                Some(_) | None => ConnectError::Tls(error),
            }
        })?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected { io: TokioIo::new(Stream::Tls(Box::new(tls))), http2 })
    }

    async fn tcp(&self, uri: &ServiceUri) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((uri.host(), uri.port())).await?.take(ADDRESSES_MAX) {
            match self.socket(address)?.connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failed = error,
            }
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

    fn tls(&self, uri: &ServiceUri, protocol: Protocol) -> ClientConfig {
        let verifier = Verifier {
            pins: Arc::clone(&self.pins),
            id: OrchestratorId::of(uri),
            provider: Arc::clone(&self.provider),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        config
    }
}

/// The bytes of a connection, in the clear or under TLS.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Addresses of one name tried, one after the other.
const ADDRESSES_MAX: usize = 4;
