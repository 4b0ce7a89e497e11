//! One node: built from its configuration, run until told to stop, drained.

mod listeners;
mod naming;
mod peers;
mod reload;
pub mod stop;
mod ways;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
use crate::app::listeners::Bound;
use crate::app::naming::{Keeper, Naming};
use crate::app::reload::Reloader;
use crate::clock;
use crate::config::Config;
use crate::edge::admin::{self, Admin};
use crate::edge::{self, Gateway, pressure};
use crate::geoip::GeoStore;
use crate::journal::Journal;
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
    reloader: Arc<Reloader>,
}

/// Builds a node and starts it, in this order: what it knows, what it listens on, the actors,
/// the listeners. Nothing is bound before everything that can be wrong was read.
pub async fn start(config: Config) -> Result<App> {
    let key = ticket_key(config.ticket_key.as_deref())?;
    let naming = config.mesh.as_ref().map(Naming::read).transpose()?;
    let journal = match &config.journal {
        // Room for those under way, and for what a disk that stalls for a moment leaves.
        Some(path) => Journal::open(path, config.in_flight_max.saturating_mul(8))?,
        None => Journal::disabled(),
    };
    let geo = open_geo(&config).await?;
    let bound = Bound::bind(&config).await?;

    let (news, heard) = mpsc::channel(NEWS_MAX);
    let shared = Arc::new(share(&config, geo, heard));
    let keeper = keeper(&config, naming)?;
    let endpoint = keeper.as_ref().map(|it| it.endpoint().clone());
    let mesh = endpoint
        .as_ref()
        .zip(config.mesh.as_ref())
        .map(|(endpoint, mesh)| peers::mesh_args(&config, mesh, endpoint.clone(), &shared, news))
        .transpose()?;
    let named = Arc::new(ArcSwap::from_pointee(configured(&config)));
    let root_args = root_args(&config, &shared, Arc::clone(&named), mesh);
    let (root, root_ended) =
        Actor::spawn(None, root::RootActor, root_args).await.context("the actors did not start")?;

    let gateway =
        Arc::new(Gateway::new(edge_identity(&config)?, edge_params(&config), shared, journal, key));
    let (stop, stopped) = watch::channel(false);
    let (listen, memory_max) = (config.listen, config.memory_max);
    let at = bound.addresses()?;
    let reloader = {
        let (gateway, keeper) = (Arc::clone(&gateway), keeper.clone());
        Arc::new(Reloader::new(gateway, named, &bound.public, keeper, config))
    };
    let routes = admin::routes(Admin {
        gateway: Arc::clone(&gateway),
        metrics: telemetry::metrics(),
        reload: Arc::clone(&reloader) as Arc<dyn admin::Reload>,
    });
    let direct = ways::ports(&bound.public);
    let doors = bound.serve(&gateway, routes, listen, &stopped);
    let watches = watches(&gateway, endpoint.as_ref(), keeper, direct, memory_max);
    let mesh = endpoint.as_ref().map(Endpoint::local_addr).transpose()?;
    tracing::info!(
        node = %gateway.identity.node,
        region = %gateway.identity.region,
        public = ?at.public,
        admin = %at.admin,
        mesh = mesh.map(tracing::field::display), "listening"
    );
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
        reloader,
    })
}

/// Starts what goes on beside the serving.
fn watches(
    gateway: &Arc<Gateway>,
    endpoint: Option<&Endpoint>,
    keeper: Option<Arc<Keeper>>,
    direct: Vec<u16>,
    memory_max: Option<u64>,
) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let watched = Arc::clone(gateway);
    watches.spawn(async move { pressure::watch(&watched.pressure, memory_max).await });
    keeper.into_iter().for_each(|it| naming::keep(it, &mut watches));
    if let Some(endpoint) = endpoint {
        // Set once, before anything is served.
        drop(gateway.carrier.set(endpoint.clone()));
        watches.spawn(edge::forward::serve(Arc::clone(gateway), endpoint.clone()));
    }
    watches.spawn(ways::watch(Arc::clone(gateway), direct));
    watches
}

impl App {
    /// Runs until `told` completes, then drains; an error when the actors gave up.
    pub async fn run(mut self, told: impl Future<Output = ()>) -> Result<()> {
        let gave_up = tokio::select! {
            () = told => false,
            _ended = &mut self.root_ended => true,
        };
        if gave_up {
            bail!("the actors gave up after too many restarts; the log says of what");
        }
        self.stop().await;
        Ok(())
    }

    /// Takes nothing new, lets what runs end, and ends.
    pub async fn stop(mut self) {
        tracing::info!("draining");
        self.gateway.drain();
        if let Some(mesh) = self.gateway.shared.refs.mesh.load().as_ref() {
            // Without a mesh nobody needs to know.
            drop(mesh.cast(mesh::Msg::Drain));
        }
        self.gateway.drained(self.reloader.drain()).await;
        self.stop.send_replace(true);
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

fn keeper(config: &Config, naming: Option<Naming>) -> Result<Option<Arc<Keeper>>> {
    let Some((mesh, naming)) = config.mesh.as_ref().zip(naming) else { return Ok(None) };
    let endpoint = peers::endpoint(config, mesh, naming.clone())?;
    Ok(Some(Arc::new(Keeper::new(mesh.clone(), endpoint, naming))))
}

async fn open_geo(config: &Config) -> Result<GeoStore> {
    let files = config.geoip.clone();
    let opened = tokio::task::spawn_blocking(move || GeoStore::open(files, clock::wall()));
    let (geo, trouble) = opened.await?;
    if let Some(error) = trouble {
        tracing::warn!(%error, "the node runs without this address database");
    }
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
    Shared::new(view, upstream, Table::new(config.sessions_max), geo, heard)
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

/// Reads the key of rewritten URLs, or draws one that dies with the process.
fn ticket_key(path: Option<&Path>) -> Result<ticket::Key> {
    let Some(path) = path else {
        tracing::warn!("node.ticket_key is not set: rewritten URLs end with this process");
        return Ok(ticket::Key::new(rand::rng().random()));
    };
    let remedy = || {
        let path: PathBuf = path.to_owned();
        format!(
            "node.ticket_key = {}: write 64 hexadecimal digits, the same on all nodes",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).with_context(remedy)?;
    let text = text.trim();
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        bail!(remedy());
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok().with_context(remedy)?;
    }
    Ok(ticket::Key::new(bytes))
}

/// Messages from the mesh that wait for the directory.
const NEWS_MAX: usize = 16;
/// What idle connections and actors get to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
