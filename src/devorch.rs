//! The development orchestrator: it speaks the real wire of an orchestrator with live
//! runners, does small real work, and fails and delays on command.
//!
//! One port carries gRPC, HTTP/1.1 and HTTP/2, as with real orchestrators: with TLS and a
//! self-signed certificate, or in plain text when the service URI says `http`. Nothing in it
//! trusts or knows the mesh, so that it can stand for an orchestrator of somebody else.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::clock;
use crate::id::RegionId;
use crate::uri::ServiceUri;

mod app;
mod apps;
mod body;
mod cli;
mod delay;
mod fault;
mod grpc;
mod image;
mod list;
mod pay;
mod seen;
mod serve;
mod session;
mod socket;
mod switches;
mod tls;

pub use cli::BadArgs;
pub use cli::OrchestratorArgs;
pub use delay::BadDelay;
pub use delay::Delays;
pub use fault::BadFault;
pub use fault::Faults;
pub use pay::Asking;
pub use pay::BadAsking;

/// How a development orchestrator is set up.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The service URI to announce; `https://` and the listening address if none. Without a
    /// base path.
    pub service: Option<ServiceUri>,
    /// The region to announce in the metadata of the runners.
    pub region: Option<RegionId>,
    /// The name of the GPU to announce.
    pub gpu: Option<String>,
    /// How many sessions each runner holds, at most 10,000.
    pub capacity: u32,
    /// How long a session may be idle.
    pub idle: Duration,
    /// How long `demo/once` works when a call does not say.
    pub work: Duration,
    /// How far callers are.
    pub delays: Delays,
    /// What goes wrong.
    pub faults: Faults,
    /// The price, if work is not free.
    pub asking: Option<Asking>,
}

/// Why a development orchestrator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not one of this machine.
    #[error("cannot listen on {at}; choose another address with --listen")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The service URI cannot be announced.
    #[error("the service URI needs a host and port and no path, such as https://127.0.0.1:8935")]
    Service,
    /// No certificate.
    #[error("cannot set up TLS for the host of the service URI")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A development orchestrator that listens and does not answer yet.
pub struct Bound {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// Starts to listen.
pub async fn bind(params: Params) -> Result<Bound, StartError> {
    let at = params.listen;
    let failed = |source| StartError::Listen { at, source };
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let service = match params.service.clone() {
        Some(service) if service.base_path().is_empty() => service,
        Some(_) => return Err(StartError::Service),
        None => format!("https://{addr}").parse().map_err(|_bad| StartError::Service)?,
    };
    let tls = if service.is_tls() {
        let settings = tls::settings(service.host(), clock::wall());
        Some(TlsAcceptor::from(settings.map_err(|why| StartError::Tls(why.into()))?))
    } else {
        None
    };
    let shared = Arc::new(Shared::new(params, service));
    Ok(Bound { addr, shared, listener, tls })
}

/// Runs a development orchestrator until `shutdown` is done; then every connection ends.
pub async fn run(params: Params, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    bind(params).await?.serve(shutdown).await;
    Ok(())
}

impl Bound {
    /// Returns the address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the service URI it announces.
    pub fn service(&self) -> &ServiceUri {
        &self.shared.service
    }

    /// Answers until `shutdown` is done; then every connection ends.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = serve::accept(self.shared, self.listener, self.tls) => {}
            () = shutdown => {}
        }
    }
}

/// What all connections share.
struct Shared {
    service: ServiceUri,
    region: Option<RegionId>,
    gpu: Option<String>,
    work: Duration,
    issuer: pay::Issuer,
    delays: ArcSwap<Delays>,
    sessions: Mutex<session::Sessions>,
    faults: Mutex<Faults>,
    seen: seen::Seen,
}

impl Shared {
    fn new(params: Params, service: ServiceUri) -> Self {
        let issuer = pay::Issuer {
            secret: rand::random(),
            recipient: rand::random(),
            service: service.as_str().to_owned(),
            asking: params.asking,
        };
        Self {
            service,
            region: params.region,
            gpu: params.gpu,
            work: params.work,
            issuer,
            delays: ArcSwap::from_pointee(params.delays),
            sessions: Mutex::new(session::Sessions::new(params.capacity, params.idle)),
            faults: Mutex::new(params.faults),
            seen: seen::Seen::default(),
        }
    }

    /// Locks the faults; a panic elsewhere leaves them usable.
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
