//! A fresh TLS 1.3 connection for each request, without resumption.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan::clock;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Makes requests for some `seconds`, `at_once` of them at any time.
pub(crate) async fn handshakes(to: SocketAddr, path: &str, at_once: usize, seconds: f64) {
    let connector = TlsConnector::from(Arc::new(config()));
    let until = clock::now() + Duration::from_secs_f64(seconds);
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let (connector, path) = (connector.clone(), path.to_owned());
        clients.spawn(async move {
            let mut answered = 0;
            while clock::now() < until {
                let tcp = TcpStream::connect(to).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let name = ServerName::try_from("bench").unwrap();
                let mut tls = connector.connect(name, tcp).await.unwrap();
                crate::idle::call(&mut tls, &path).await.unwrap();
                answered += 1;
            }
            answered
        });
    }
    let answered: u64 = clients.join_all().await.into_iter().sum();
    crate::say(&serde_json::json!({ "answered": answered }).to_string());
}

fn config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Takes any certificate without a look: the client's work is not what is measured.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
