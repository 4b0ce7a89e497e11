//! One node: built from its configuration, run until told to stop, drained.

pub mod ground;
pub mod handover;
mod listeners;
mod naming;
mod orders;
mod peers;
mod reload;
mod remembered;
mod sockets;
pub mod stop;
mod succession;
mod watchdog;
mod ways;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use ractor::{Actor, ActorRef};
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::actors::directory::Configured;
use crate::actors::{Shared, directory, mesh, root, sessions};
use crate::app::handover::{Inherited, Program, Takeover};
use crate::app::listeners::{Addresses, Bound};
use crate::app::naming::{Keeper, Naming};
use crate::app::reload::Reloader;
use crate::app::sockets::Sockets;
use crate::app::succession::Succession;
use crate::clock;
use crate::config::Config;
use crate::edge::admin::{self, Admin};
use crate::edge::{self, Gateway, pressure};
use crate::geoip::GeoStore;
use crate::journal::Journal;
use crate::listen::lanes::Lanes;
use crate::net::Endpoint;
use crate::session::Table;
use crate::telemetry;
use crate::ticket;
use crate::upstream::{Dialer, Upstream};
use crate::view::{Atlas, View};

/// A node that runs.
#[derive(Debug)]
pub struct App {
    /// Its gateway.
    pub gateway: Arc<Gateway>,
    /// Where clients connect, on the first listener.
    pub public: SocketAddr,
    /// The same, on each of them.
    pub all_public: Vec<SocketAddr>,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// Where resolvers ask, on a node with a DNS door.
    pub dns: Option<SocketAddr>,
    /// Where peers connect, on a node with peers.
    pub mesh: Option<SocketAddr>,
    root: ActorRef<root::Msg>,
    root_ended: tokio::task::JoinHandle<()>,
    endpoint: Option<Endpoint>,
    stop: watch::Sender<bool>,
    doors: JoinSet<()>,
    watches: JoinSet<()>,
    /// What carries clients' bytes; to the end, also where their connections became others'.
    _lanes: Arc<Lanes>,
    reloader: Arc<Reloader>,
    succession: Succession,
    data: Option<PathBuf>,
}

/// Builds a node and starts it, in this order: what it knows, what it listens on, the actors,
/// the listeners. Nothing is bound before everything that can be wrong was read; the journal is
/// opened after that, so that the second of two nodes with one file is told of its port.
pub async fn start(config: Config) -> Result<App> {
    start_after(config, None).await
}

/// As [`start`], in the place of another process, which goes on if this one fails.
pub async fn start_after(config: Config, before: Option<Inherited>) -> Result<App> {
    let geo = look(&config).await?;
    let (mut takeover, handles) = Takeover::new(before)?;
    let mut sockets = Sockets::new(handles);
    let naming = config.mesh.as_ref().map(Naming::read).transpose()?;
    let (key, drawn) = ticket_key(&config, takeover.key())?;
    let bound = Bound::bind(&config, &mut sockets)?;
    let journal = open_journal(&config, &mut sockets)?;

    let (news, heard) = mpsc::channel(NEWS_MAX);
    let shared = Arc::new(share(&config, geo, heard));
    recall(&config, &shared);
    takeover.mesh(config.mesh.is_some()).await?;
    let keeper = keeper(&config, naming, &mut sockets)?;
    let endpoint = keeper.as_ref().map(|it| it.endpoint().clone());
    let mesh = endpoint
        .as_ref()
        .zip(config.mesh.as_ref())
        .map(|(endpoint, mesh)| peers::mesh_args(&config, mesh, endpoint.clone(), &shared, news))
        .transpose()?;
    let named = Arc::new(ArcSwap::from_pointee(configured(&config)));
    let args = root_args(&config, &shared, Arc::clone(&named), mesh);
    let root = Actor::spawn(None, root::RootActor, args).await;
    let (root, root_ended) = root.context("the actors did not start")?;

    let gateway =
        Arc::new(Gateway::new(edge_identity(&config)?, edge_params(&config), shared, journal, key));
    let (stop, stopped) = watch::channel(false);
    let lanes = Arc::new(Lanes::start(config.lanes).context("no threads to serve clients")?);
    let (listen, memory_max, data) = (config.listen, config.memory_max, data_of(&config));
    let at = bound.addresses()?;
    let reloader = {
        let (gateway, keeper) = (Arc::clone(&gateway), keeper.clone());
        Arc::new(Reloader::new(gateway, named, &bound.public, keeper, config))
    };
    let (handover, asked) = mpsc::channel(1);
    let routes = admin::routes(Admin {
        handover: handover.clone(),
        gateway: Arc::clone(&gateway),
        metrics: telemetry::metrics(),
        reload: Arc::clone(&reloader) as Arc<dyn admin::Reload>,
    });
    let direct = ways::ports(&bound.public);
    takeover.settle(&gateway).await?;
    let doors = bound.serve(&gateway, routes, (listen, &lanes), &stopped);
    let mut watches =
        watch(&gateway, endpoint.as_ref(), (memory_max, data.clone()), direct, keeper);
    watches.spawn(watchdog::visit(Arc::clone(&gateway), Arc::clone(&lanes)));
    let mesh = endpoint.as_ref().map(Endpoint::local_addr).transpose()?;
    takeover.ready().await?;
    announce(&gateway.identity, &at, mesh);
    Ok(App {
        gateway,
        public: at.public[0],
        all_public: at.public,
        admin: at.admin,
        dns: at.dns,
        mesh,
        root,
        root_ended,
        endpoint,
        stop,
        doors,
        watches,
        _lanes: lanes,
        reloader,
        data,
        succession: Succession { sockets, asked, ask: handover, drawn, program: None },
    })
}

impl App {
    /// Runs until `told` completes, then drains, or until another process took its place, then
    /// lets what it serves end; an error when the actors gave up.
    pub async fn run(mut self, told: impl Future<Output = ()>) -> Result<()> {
        let gave_up = tokio::select! {
            () = told => false,
            _ended = &mut self.root_ended => true,
            () = self.succession.handed_over(&self.gateway, self.endpoint.as_ref()) => {
                self.leave().await;
                return Ok(());
            }
        };
        if gave_up {
            bail!("the actors gave up after too many restarts; the log says of what");
        }
        self.stop().await;
        Ok(())
    }

    /// Takes nothing new, lets what runs end, and ends.
    pub async fn stop(self) {
        tracing::info!("draining");
        self.remember().await;
        self.gateway.drain();
        if let Some(mesh) = self.gateway.shared.refs.mesh.load().as_ref() {
            // Without a mesh nobody needs to know.
            drop(mesh.cast(mesh::Msg::Drain));
        }
        self.gateway.drained(self.reloader.drain()).await;
        self.stop.send_replace(true);
        self.end().await;
    }

    /// Leaves new connections to the process that took over, lets what runs end, and ends. What
    /// still comes on open connections is served.
    async fn leave(mut self) {
        tracing::info!("handed over; draining");
        // What the other process has learned since is not written over.
        self.watches.abort_all();
        self.stop.send_replace(true);
        // Nor does this one end a session that goes on there and is idle only here, check
        // anybody, or keep links to peers. What is under way needs no actor, and the last View
        // stays; the endpoint does too, for what goes through a peer.
        self.root.stop(None);
        // Whoever is about to ask on an open connection has asked by then.
        tokio::time::sleep(LAST_WORDS).await;
        self.gateway.drained(self.reloader.drain()).await;
        self.end().await;
    }

    /// Writes down what is known of orchestrators, for the next process.
    async fn remember(&self) {
        let Some(data) = self.data.clone() else { return };
        let shared = Arc::clone(&self.gateway.shared);
        let written = tokio::task::spawn_blocking(move || remembered::write(&data, &shared)).await;
        if let Err(error) = written.map_err(anyhow::Error::from).flatten() {
            let error = format!("{error:#}");
            tracing::warn!(%error, "what is known of orchestrators is not kept");
        }
    }

    async fn end(mut self) {
        self.succession.release();
        let ended = async { while self.doors.join_next().await.is_some() {} };
        // Idle connections have no request to end.
        drop(tokio::time::timeout(LAST_WORDS, ended).await);
        self.doors.abort_all();
        self.root.stop(None);
        drop(tokio::time::timeout(LAST_WORDS, &mut self.root_ended).await);
        if let Some(endpoint) = &self.endpoint {
            endpoint.close();
        }
        if !self.gateway.journal.close().await {
            tracing::error!("the journal did not come to its end");
        }
        tracing::info!("stopped");
    }

    /// Hands over to `program` whenever the process is told to, by SIGUSR2 or at the admin door.
    pub fn hand_over_to(&mut self, program: Program) {
        let ask = self.succession.open(program);
        self.watches.spawn(succession::on_signal(ask));
    }

    /// Reads the configuration again whenever the process is told to by SIGHUP.
    pub fn reload_on_hangup(&mut self) {
        #[cfg(unix)]
        self.watches.spawn(reload::on_hangup(Arc::clone(&self.reloader)));
    }

    /// Returns the actor above all others, for tests that kill them.
    pub fn root(&self) -> &ActorRef<root::Msg> {
        &self.root
    }
}

fn announce(own: &edge::Identity, at: &Addresses, mesh: Option<SocketAddr>) {
    tracing::info!(
        node = %own.node,
        region = %own.region,
        public = ?at.public,
        admin = %at.admin,
        mesh = mesh.map(tracing::field::display), "listening"
    );
}

/// Starts what goes on beside requests.
fn watch(
    gateway: &Arc<Gateway>,
    endpoint: Option<&Endpoint>,
    (memory_max, data): (Option<u64>, Option<PathBuf>),
    direct: Vec<u16>,
    keeper: Option<Arc<Keeper>>,
) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let watched = Arc::clone(gateway);
    let pulse = gateway.shared.pulses.of(clock::now(), "memory", SLOW);
    watches.spawn(async move { pressure::watch(&watched.pressure, memory_max, &pulse).await });
    watches.spawn(watchdog::watch(Arc::clone(gateway)));
    watches.spawn(ways::watch(Arc::clone(gateway), direct));
    watches.spawn(ways::hear(Arc::clone(gateway)));
    watches.spawn(orders::carry_out(Arc::clone(gateway), data.clone()));
    if let Some(endpoint) = endpoint {
        // Set once, before anything comes through peers.
        drop(gateway.carrier.set(endpoint.clone()));
        watches.spawn(edge::forward::serve(Arc::clone(gateway), endpoint.clone()));
    }
    if let Some(keeper) = keeper {
        let pulse = gateway.shared.pulses.of(clock::now(), "naming", SLOW);
        naming::keep(keeper, &mut watches, pulse);
    }
    if let Some(data) = data {
        watches.spawn(remembered::keep(Arc::clone(gateway), data));
    }
    watches
}

fn data_of(config: &Config) -> Option<PathBuf> {
    config.mesh.as_ref()?.data.clone()
}

/// Begins with what an earlier process knew of orchestrators.
fn recall(config: &Config, shared: &Shared) {
    let Some((data, mesh)) = data_of(config).zip(config.mesh.as_ref()) else { return };
    match orders::recall(mesh, &data, shared) {
        Ok(0) => {}
        Ok(number) => tracing::info!(number, "orders of the operator are in force from before"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(%error, "the orders kept from before are of no use; peers tell them anew");
        }
    }
    match remembered::recall(&data, shared, clock::wall(), clock::now()) {
        Ok(0) => {}
        Ok(n) => tracing::info!(n, "orchestrators are remembered from before"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(%error, "what was known of orchestrators is of no use; it is asked anew");
        }
    }
}

fn open_journal(config: &Config, sockets: &mut Sockets) -> Result<Journal> {
    let Some(path) = &config.journal else { return Ok(Journal::disabled()) };
    let file =
        sockets.file("journal", path, || Journal::file(path).map_err(anyhow::Error::from))?;
    // Room for those under way, and for what a disk that stalls for a moment leaves.
    Ok(Journal::over(file, path, config.in_flight_max.saturating_mul(8))?)
}

fn keeper(
    config: &Config,
    naming: Option<Naming>,
    sockets: &mut Sockets,
) -> Result<Option<Arc<Keeper>>> {
    let Some((mesh, naming)) = config.mesh.as_ref().zip(naming) else { return Ok(None) };
    let listen = mesh.listen;
    let taken = || format!("mesh.listen = {listen}: is another process using it?");
    let socket = sockets.udp(MESH, listen).with_context(taken)?;
    let endpoint = peers::endpoint(config, mesh, naming.clone(), socket)?;
    Ok(Some(Arc::new(Keeper::new(mesh.clone(), endpoint, naming))))
}

/// Fails where the configuration takes for granted what is not so; opens the address database.
async fn look(config: &Config) -> Result<GeoStore> {
    let (mut doubts, files) = (ground::survey(config), config.geoip.clone());
    ground::refuse(&doubts)?;
    let opened = tokio::task::spawn_blocking(move || ground::database(files));
    let (geo, doubt) = opened.await?;
    doubts.extend(doubt);
    ground::log(&doubts);
    Ok(geo)
}

fn share(config: &Config, geo: GeoStore, heard: mpsc::Receiver<mesh::PeerNews>) -> Shared {
    let atlas = Arc::new(Atlas {
        names: config.regions.iter().map(|it| it.id).collect(),
        points: config.regions.iter().map(|it| it.point).collect(),
        home: config.regions.index_of(config.region).unwrap_or_default(),
    });
    let dialer = Dialer { from: config.from, ..Dialer::new(config.connect_timeout) };
    dialer.guard.store(Arc::new(config.guard.clone()));
    let view = View::empty(clock::now(), atlas);
    let upstream = Upstream::new(config.upstream, dialer);
    let shared = Shared::new(view, upstream, Table::new(config.sessions_max), geo, heard);
    shared.board.introduce(config.node, config.region);
    shared.board.set_manners(config.policies.manners);
    shared
}

fn root_args(
    config: &Config,
    shared: &Arc<Shared>,
    named: Arc<ArcSwap<Configured>>,
    mesh: Option<mesh::Args>,
) -> root::Args {
    root::Args {
        shared: Arc::clone(shared),
        mesh,
        directory: directory::Args {
            params: config.directory,
            named,
            check_timeout: config.check_timeout,
            regions: Arc::clone(&config.regions),
            shared: Arc::clone(shared),
        },
        sessions: sessions::Args { params: config.session, shared: Arc::clone(shared) },
    }
}

fn edge_identity(config: &Config) -> Result<edge::Identity> {
    let region = config.regions.get(config.region).context("node.region: no such region")?;
    Ok(edge::Identity {
        node: config.node,
        region: config.region,
        point: region.point,
        in_flight_max: config.in_flight_max,
    })
}

fn configured(config: &Config) -> Configured {
    Configured {
        orchestrator: config.orchestrator,
        listed: config.orchestrators.clone(),
        fetched: config.sources.clone(),
    }
}

fn edge_params(config: &Config) -> edge::Params {
    edge::Params {
        public_url: config.public_url.clone(),
        peer_urls: config.peer_urls.clone(),
        proxies: config.proxies.clone(),
        callers: config.callers.clone(),
        rules: config.rules.clone(),
        price_relax_permille: config.policies.price_relax_permille,
        panic: config.policies.panic,
        clients_may: config.policies.clients_may,
        retries: config.policies.retries,
        place_wait: config.policies.place_wait,
        replay_max: config.replay_max,
        replay_all_max: config.replay_all_max,
        call_body_max: config.call_body_max,
        attempts_max: config.attempts_max,
        reserve_timeout: config.reserve_timeout.min(config.upstream.head_timeout),
        head_timeout: config.upstream.head_timeout,
        session_head_timeout: config.session_head_timeout,
        ticket_for: config.ticket_for,
    }
}

/// Returns the key of rewritten URLs, and the same again where no file holds it: that of the
/// process before, or one that is drawn and dies with the process.
fn ticket_key(
    config: &Config,
    before: Option<[u8; 32]>,
) -> Result<(ticket::Key, Option<[u8; 32]>)> {
    if let Some(path) = &config.ticket_key {
        return Ok((ground::read_ticket_key(path)?, None));
    }
    let drawn = before.unwrap_or_else(|| rand::rng().random());
    Ok((ticket::Key::new(drawn), Some(drawn)))
}

/// What the mesh's socket is for.
const MESH: &str = "mesh";
/// Messages from the mesh that wait for the directory.
const NEWS_MAX: usize = 16;
/// Loops that turn every second or so are stalled after this.
const SLOW: Duration = Duration::from_secs(20);
/// What idle connections and actors get to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
