//! The QUIC endpoint: binds, dials and accepts links between nodes.
//!
//! Nothing is decided here but who a peer is. A link is handed out only when both
//! certificates are of the mesh's CA, each side found the node it expects, and both greeted.

pub mod bulk;
mod greet;
mod link;
mod live;
pub mod rtt;
pub mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::AsyncUdpSocket;
use quinn::EndpointConfig;
use quinn::IdleTimeout;
use quinn::Incoming;
use quinn::Runtime;
use quinn::TokioRuntime;
use quinn::TransportConfig;
use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

pub use self::bulk::BulkStream;
use self::bulk::Dialed;
pub use self::link::{CloseReason, Established, Frames, Link, MAX_UNREAD};
use self::live::Live;
use self::tls::{Identity, TlsError, Trust};
use crate::ca::Revoked;
use crate::ca::Serial;
use crate::ca::name;
use crate::clock;
use crate::id::NodeId;
use crate::mesh::BadGreeting;
use crate::mesh::Greeting;
use crate::mesh::LinkId;
use crate::wire::WireError;

/// What an endpoint needs to begin.
#[derive(Clone, Debug)]
pub struct Params {
    /// The UDP address peers dial; port 0 takes any.
    pub listen: SocketAddr,
    /// This node's certificate and key.
    pub identity: Identity,
    /// The CA and trust domain of the mesh.
    pub trust: Trust,
    /// The certificates that are of use no longer.
    pub revoked: Revoked,
    /// How long a peer may take from its first packet to its greeting.
    pub handshake_timeout: Duration,
    /// How long a connection may be silent before QUIC gives it up.
    pub idle_timeout: Duration,
    /// How often an idle connection is kept awake.
    pub keep_alive: Duration,
    /// How long one connection may live, at most: what was proven at its start is proven anew.
    pub age_max: Duration,
    /// The most messages queued for one link.
    pub outbound_max: usize,
}

/// Why there is no link, or no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Certificates, keys or the CA are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The UDP address cannot be bound.
    #[error("cannot bind UDP {listen}; is another process using it?")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A parameter is out of its range.
    #[error("the idle timeout is too long for QUIC")]
    Idle(#[from] quinn::VarIntBoundsExceeded),
    /// The dial did not begin.
    #[error("cannot dial")]
    Dial(#[from] quinn::ConnectError),
    /// The connection ended before the greetings did.
    #[error("the connection ended before the greeting")]
    Connection(#[from] quinn::ConnectionError),
    /// The control stream failed before the greetings were through.
    #[error("the control stream failed before the greeting")]
    Write(#[from] quinn::WriteError),
    /// The peer took longer than [`Params::handshake_timeout`].
    #[error("the peer did not greet in time")]
    Timeout,
    /// The peer's certificate names no node of this mesh.
    #[error(transparent)]
    Identity(#[from] tls::NoNode),
    /// The peer is another node than the one dialed, or than it says.
    #[error("the peer is {proven} by its certificate, not {expected}")]
    OtherNode {
        /// Who it should be.
        expected: NodeId,
        /// Who it is.
        proven: NodeId,
    },
    /// The peer's certificate is revoked.
    #[error("the peer's certificate {0} is revoked; enrol that node again")]
    Revoked(Serial),
    /// The mesh of an endpoint stays the same.
    #[error("the trust domain of a node that runs cannot change; restart it")]
    OtherDomain,
    /// Nothing is forwarded to a node without a link.
    #[error("there is no link to {0}")]
    Unlinked(NodeId),
    /// The peer's greeting is not acceptable.
    #[error(transparent)]
    Greeting(#[from] BadGreeting),
    /// The peer's first bytes are no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer's first frame is not a greeting.
    #[error("the peer did not greet")]
    NotGreeted,
}

/// A bound endpoint; clones share it, and with the last it closes.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    quinn: quinn::Endpoint,
    /// Where all connections are driven.
    runtime: Handle,
    client: ArcSwap<quinn::ClientConfig>,
    bulk_client: ArcSwap<quinn::ClientConfig>,
    dialed: Dialed,
    carried: Mutex<mpsc::Receiver<BulkStream>>,
    transport: Arc<TransportConfig>,
    door: Arc<Door>,
    accepted: Mutex<mpsc::Receiver<Established>>,
    /// The accept loop and the end of links in time; both end with the endpoint.
    _tasks: JoinSet<()>,
}

/// What both directions of greeting need.
#[derive(Debug)]
struct Door {
    trust_domain: String,
    handshake_timeout: Duration,
    outbound_max: usize,
    greeting: ArcSwap<Greeting>,
    links: AtomicU64,
    n_refused: AtomicU64,
    age_max: Duration,
    revoked: ArcSwap<Revoked>,
    live: Live,
    found: std::sync::Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// Connections for what peers forward.
    bulk: mpsc::Sender<quinn::Connection>,
}

impl Endpoint {
    /// Returns the trust domain of the mesh it is in.
    pub fn trust_domain(&self) -> &str {
        &self.shared.door.trust_domain
    }

    /// Binds a UDP socket and answers the dials of peers, greeting as `greeting`.
    /// Runs inside a tokio runtime.
    pub fn bind(params: Params, greeting: Greeting) -> Result<Self, NetError> {
        let listen = params.listen;
        let socket = UdpSocket::bind(listen).map_err(|source| NetError::Bind { listen, source })?;
        Self::on(params, greeting, socket)
    }

    /// As [`Self::bind`], on a socket that is bound already.
    pub fn on(params: Params, greeting: Greeting, socket: UdpSocket) -> Result<Self, NetError> {
        let listen = params.listen;
        let socket = TokioRuntime
            .wrap_udp_socket(socket)
            .map_err(|source| NetError::Bind { listen, source })?;
        Self::over(params, greeting, EndpointConfig::default(), socket)
    }

    /// As [`Self::bind`], over a socket of the caller's making.
    pub fn over(
        params: Params,
        greeting: Greeting,
        config: EndpointConfig,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Result<Self, NetError> {
        let transport = Arc::new(transport(&params)?);
        let server = server(&params.trust, &params.identity, &transport)?;
        let bulk_client = client(&params.trust, &params.identity, &transport, tls::ALPN_BULK)?;
        let client = client(&params.trust, &params.identity, &transport, tls::ALPN)?;
        let (bulk, connections) = mpsc::channel(MAX_HANDSHAKES);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(|source| NetError::Bind { listen: params.listen, source })?;
        let door = Arc::new(Door {
            trust_domain: params.trust.trust_domain,
            handshake_timeout: params.handshake_timeout,
            outbound_max: params.outbound_max,
            greeting: ArcSwap::from_pointee(greeting),
            links: AtomicU64::new(0),
            n_refused: AtomicU64::new(0),
            age_max: params.age_max,
            revoked: ArcSwap::from_pointee(params.revoked),
            live: Live::default(),
            found: std::sync::Mutex::default(),
            bulk,
        });
        let (established, accepted) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_dials(quinn.clone(), Arc::clone(&door), established));
        tasks.spawn(end_in_time(Arc::clone(&door)));
        let (streams, carried) = mpsc::channel(MAX_CARRIED);
        tasks.spawn(bulk::carry(Arc::clone(&door), connections, streams));
        let accepted = Mutex::new(accepted);
        let shared = Shared {
            quinn,
            runtime: Handle::current(),
            client: ArcSwap::from_pointee(client),
            bulk_client: ArcSwap::from_pointee(bulk_client),
            dialed: Dialed::default(),
            carried: Mutex::new(carried),
            transport,
            door,
            accepted,
            _tasks: tasks,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns where all connections are driven: what speaks over their streams is best there.
    pub fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.quinn.local_addr()
    }

    /// Changes what this node says of itself on links to come.
    pub fn announce(&self, greeting: Greeting) {
        self.shared.door.greeting.store(Arc::new(greeting));
    }

    /// Takes another certificate, other CAs and another revocation list for the links to come;
    /// with an error everything stays as it is. Links of peers that are revoked end at once,
    /// the others live on; a list older than the one in use is not taken. Returns how many
    /// links ended.
    pub fn swap(
        &self,
        identity: &Identity,
        trust: &Trust,
        revoked: Revoked,
    ) -> Result<usize, NetError> {
        let Shared { quinn, transport, door, .. } = &*self.shared;
        if trust.trust_domain != door.trust_domain {
            return Err(NetError::OtherDomain);
        }
        tls::check(trust, identity)?;
        let server = server(trust, identity, transport)?;
        let bulk = client(trust, identity, transport, tls::ALPN_BULK)?;
        self.shared.client.store(Arc::new(client(trust, identity, transport, tls::ALPN)?));
        self.shared.bulk_client.store(Arc::new(bulk));
        quinn.set_server_config(Some(server));
        let used = door.revoked.load_full();
        let revoked = if revoked.number() < used.number() {
            // What was revoked stays so; the rest is as good as ever.
            let (found, used_number) = (revoked.number(), used.number());
            tracing::warn!(found, used = used_number, "an older revocation list is not taken");
            used
        } else {
            Arc::new(revoked)
        };
        door.revoked.store(Arc::clone(&revoked));
        Ok(door.live.close_revoked(&revoked))
    }

    /// Leaves the socket to another process: moves to a port of the system's choice, where no
    /// peer finds this node. Links end when they have been silent for too long.
    pub fn leave(&self) -> io::Result<()> {
        let mut any = self.local_addr()?;
        any.set_port(0);
        // Of the socket before the last one packets are still read: twice, and it is gone.
        self.return_to(UdpSocket::bind(any)?)?;
        self.return_to(UdpSocket::bind(any)?)
    }

    /// Moves to `socket`, such as the one it left.
    pub fn return_to(&self, socket: UdpSocket) -> io::Result<()> {
        self.shared.quinn.rebind(socket)
    }

    /// Dials `peer` and greets it.
    pub async fn dial(&self, peer: NodeId, at: SocketAddr) -> Result<Established, NetError> {
        let Shared { quinn, client, door, .. } = &*self.shared;
        let dialed = async {
            let name = name::server_name(peer);
            let connection = quinn.connect_with((**client.load()).clone(), at, &name)?.await?;
            door.greet_first(connection, peer).await
        };
        timeout(door.handshake_timeout, dialed).await.map_err(|_elapsed| NetError::Timeout)?
    }

    /// Waits for the next link a peer dialed; `None` when the endpoint is closed.
    pub async fn accept(&self) -> Option<Established> {
        self.shared.accepted.lock().await.recv().await
    }

    /// Returns how many dials of others were refused.
    pub fn n_refused(&self) -> u64 {
        self.shared.door.n_refused.load(Ordering::Relaxed)
    }

    /// Closes every link and the endpoint.
    pub fn close(&self) {
        self.shared.quinn.close(VarInt::from_u32(CloseReason::Done as u32), b"");
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.quinn.close(VarInt::from_u32(CloseReason::Done as u32), b"");
    }
}

impl Door {
    fn greeting(&self) -> Greeting {
        **self.greeting.load()
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the link a dial becomes; `None` where it is for what the peer forwards.
    async fn answer(&self, incoming: Incoming) -> Result<Option<Established>, NetError> {
        let connection = incoming.await?;
        let agreed = connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
        if agreed.and_then(|it| it.protocol).as_deref() == Some(tls::ALPN_BULK) {
            // When nobody takes it the endpoint is closing.
            drop(self.bulk.send(connection).await);
            return Ok(None);
        }
        Ok(Some(self.greet_back(connection).await?))
    }

    /// Notes where the node at the other end of a link was reached.
    fn note_found(&self, node: NodeId, at: SocketAddr) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the names the CA gave out, since each proved its own.
        found.insert(node, at);
    }

    fn found_at(&self, node: NodeId) -> Option<SocketAddr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    fn note_refused(&self, error: &NetError) {
        self.n_refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a dial was refused");
    }
}

/// Answers dials side by side, so that a slow stranger holds up nobody.
async fn answer_dials(
    quinn: quinn::Endpoint,
    door: Arc<Door>,
    established: mpsc::Sender<Established>,
) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = quinn.accept().await {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= MAX_HANDSHAKES {
            door.n_refused.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        }
        if handshakes.len() >= MAX_HANDSHAKES / 2 && !incoming.remote_address_validated() {
            // Under load an address has to be real before it costs a handshake.
            drop(incoming.retry());
            continue;
        }
        let (door, established) = (Arc::clone(&door), established.clone());
        handshakes.spawn(async move {
            let answered = timeout(door.handshake_timeout, door.answer(incoming)).await;
            match answered.map_err(|_elapsed| NetError::Timeout).flatten() {
                // The receiver is gone only together with this loop.
                Ok(Some(link)) => drop(established.send(link).await),
                Ok(None) => {}
                Err(error) => door.note_refused(&error),
            }
        });
    }
}

/// Ends links when their time is over.
async fn end_in_time(door: Arc<Door>) {
    loop {
        sleep(SWEEP).await;
        door.live.close_aged(clock::now());
    }
}

fn server(
    trust: &Trust,
    identity: &Identity,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, NetError> {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server(trust, identity)?));
    server.transport_config(Arc::clone(transport));
    server.max_incoming(MAX_HANDSHAKES);
    server.incoming_buffer_size_total(MAX_INCOMING_BYTES);
    Ok(server)
}

fn client(
    trust: &Trust,
    identity: &Identity,
    transport: &Arc<TransportConfig>,
    alpn: &[u8],
) -> Result<quinn::ClientConfig, NetError> {
    let mut client = quinn::ClientConfig::new(Arc::new(tls::client(trust, identity, alpn)?));
    client.transport_config(Arc::clone(transport));
    Ok(client)
}

fn transport(params: &Params) -> Result<TransportConfig, NetError> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(params.idle_timeout)?))
        .keep_alive_interval(Some(params.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_BI_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_WINDOW))
        .datagram_send_buffer_size(DATAGRAM_WINDOW);
    Ok(transport)
}

/// The most handshakes at once: every peer of a full mesh may dial in the same second.
pub const MAX_HANDSHAKES: usize = 64;

/// Streams peers opened that nobody took yet.
const MAX_CARRIED: usize = 64;

/// How often links are looked at whose time may be over.
const SWEEP: Duration = Duration::from_secs(10);

/// The most bytes held of connections not yet answered.
const MAX_INCOMING_BYTES: u64 = 1024 * 1024;

/// One for control; the rest is for requests a peer forwards.
const MAX_BI_STREAMS: u32 = 32;

const MAX_UNI_STREAMS: u32 = 16;

/// The most unread bytes of one stream: two of the longest frames.
const STREAM_WINDOW: u32 = 512 * 1024;

/// The most bytes of datagrams waiting in either direction of one link; the oldest make room.
const DATAGRAM_WINDOW: usize = 64 * 1024;

/// The most unread bytes of one link.
const LINK_WINDOW: u32 = 2 * 1024 * 1024;

#[cfg(test)]
pub(crate) mod tests;
