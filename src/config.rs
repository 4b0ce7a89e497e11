//! One TOML file into everything a node is built from.
//!
//! [`File`] is what may stand there, [`Config`] what the program uses: typed, complete and
//! valid. The way from one to the other is the only validation there is; every complaint
//! names the key, the value and the remedy, and all of them are found at once.

mod defaults;
mod file;
mod resolve;
mod source;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::actors::sources::Fetch;
use crate::address::Cidr;
use crate::directory::{self, Named};
use crate::edge::dns;
use crate::edge::wishes::Allowed;
use crate::forwarded::TrustedProxies;
use crate::id::{NodeId, RegionId};
use crate::listen::{self, tls};
use crate::mesh;
use crate::operator::OperatorPublic;
use crate::orchestrator;
use crate::policy::{Panic, Rules};
use crate::region::RegionMap;
use crate::retry;
use crate::session;
use crate::telemetry::LogFormat;
use crate::upstream;
use crate::upstream::guard::Guard;
use crate::view::board::Manners;

pub use file::File;
pub use source::{Change, Source};

/// Everything a node is built from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it comes from, and what stood there.
    pub source: Source,
    /// This node.
    pub node: NodeId,
    /// Where it runs.
    pub region: RegionId,
    /// How clients reach it.
    pub public_url: Option<String>,
    /// The regions.
    pub regions: Arc<RegionMap>,
    /// Where clients connect.
    pub listeners: Vec<Listening>,
    /// Where the operator connects.
    pub admin: SocketAddr,
    /// The bounds of both.
    pub listen: listen::Params,
    /// The mesh, on a node with peers.
    pub mesh: Option<MeshConfig>,
    /// How clients reach the peers.
    pub peer_urls: BTreeMap<NodeId, String>,
    /// The mesh's name in the DNS, on a node that answers for it.
    pub dns: Option<DnsConfig>,
    /// The file of the key for rewritten URLs; a random key while not set.
    pub ticket_key: Option<PathBuf>,
    /// Orchestrators listed.
    pub orchestrators: Vec<Named>,
    /// Lists to fetch.
    pub sources: Vec<Fetch>,
    /// The directory's knobs.
    pub directory: directory::Params,
    /// Each orchestrator's knobs.
    pub orchestrator: orchestrator::Params,
    /// How long a check may take.
    pub check_timeout: Duration,
    /// Whose word on the client's address is taken.
    pub proxies: TrustedProxies,
    /// Who may name the client's address outright.
    pub callers: Vec<Cidr>,
    /// The address database's files; the embedded one when empty.
    pub geoip: Vec<PathBuf>,
    /// What every request may use.
    pub rules: Rules,
    /// Connections to orchestrators.
    pub upstream: upstream::Params,
    /// Which addresses they may lead to.
    pub guard: Guard,
    /// How long connecting to one may take.
    pub connect_timeout: Duration,
    /// The local address connections leave from.
    pub from: Option<IpAddr>,
    /// Each session's knobs.
    pub session: session::Params,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Threads that serve clients.
    pub lanes: usize,
    /// Requests at once.
    pub in_flight_max: usize,
    /// What is done when choosing is not simple.
    pub policies: Policies,
    /// The longest body of a call held to be sent again, in bytes.
    pub replay_max: usize,
    /// Such bodies together, in bytes.
    pub replay_all_max: usize,
    /// The longest body of a call, in bytes.
    pub call_body_max: u64,
    /// Orchestrators tried for one request.
    pub attempts_max: usize,
    /// The memory this process may hold, in bytes; what the system gives it when not set.
    pub memory_max: Option<u64>,
    /// How long a reservation may take.
    pub reserve_timeout: Duration,
    /// How long a session may take to answer a request's head.
    pub session_head_timeout: Duration,
    /// How long a rewritten URL is good for.
    pub ticket_for: Duration,
    /// The usage journal; none is kept while not set.
    pub journal: Option<PathBuf>,
    /// How long stopping may take.
    pub drain: Duration,
    /// How lines are logged.
    pub log: LogFormat,
}

/// What is done when choosing is not simple.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    /// How far the price ceiling may be raised when nobody is below it, in thousandths of it.
    pub price_relax_permille: u32,
    /// What is done when too little is left.
    pub panic: Panic,
    /// What clients may wish.
    pub clients_may: Allowed,
    /// How many requests may be sent again.
    pub retries: retry::Params,
    /// How long a request waits for a place where peers have them all.
    pub place_wait: Duration,
    /// What is done for neighbours.
    pub manners: Manners,
}

/// One listener for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The key of its address, such as `listener[0].address`.
    pub key: String,
    /// Where.
    pub address: SocketAddr,
    /// Its certificate; plain HTTP without one.
    pub tls: Option<tls::Source>,
    /// Whether a PROXY header comes first.
    pub proxied: bool,
    /// The hosts it answers for; all of them when empty.
    pub names: Vec<String>,
}

/// The DNS door of a node that has one.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// UDP and TCP address for resolvers.
    pub listen: SocketAddr,
    /// What it answers.
    pub params: dns::Params,
}

/// The mesh of a node with peers.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Where peers connect, over UDP.
    pub listen: SocketAddr,
    /// The mesh's name.
    pub trust_domain: String,
    /// The CA's certificate.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// This node's key.
    pub key: PathBuf,
    /// The list of what is revoked.
    pub revoked: Option<PathBuf>,
    /// Whose commands to the whole mesh are obeyed.
    pub operator: Option<OperatorPublic>,
    /// Where the CA renews certificates, HOST:PORT.
    pub enrolment: Option<String>,
    /// The directory for what has to survive a restart.
    pub data: Option<PathBuf>,
    /// Where other nodes may dial this one; `None` when it can only dial them.
    pub advertised: Option<SocketAddr>,
    /// Where each peer is.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The machine's knobs.
    pub params: mesh::Params,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}; give the path of the node's TOML file with --config", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML of the expected form.
    #[error("{}: {said}", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what.
        said: String,
    },
    /// Values that cannot be used, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Values(Vec<Complaint>),
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {problem}; {remedy}")]
pub struct Complaint {
    /// The key, with its table.
    pub key: String,
    /// The value, as written.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl Complaint {
    /// Makes one about `key`, where `value` stands.
    pub fn new(key: &str, value: &str, problem: impl Display, remedy: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: format!("{value:?}"),
            problem: problem.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}

impl Config {
    /// Reads and resolves the file at `path`; paths within it are relative to it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let form = |error: toml::de::Error| {
            let hint = error.span().and_then(|at| unquoted(&text, at.start));
            let hint = hint.map_or(String::new(), |it| format!("\ntext stands in quotes: {it}"));
            let said = format!("{}{hint}", error.to_string().trim_end());
            ConfigError::Form { path: path.to_owned(), said }
        };
        let file: File = toml::from_str(&text).map_err(form)?;
        let table: toml::Table = toml::from_str(&text).map_err(form)?;
        let source = Source::new(path, &text, &table);
        let beside = path.parent().unwrap_or(Path::new("."));
        resolve::resolve(file, beside, source).map_err(ConfigError::Values)
    }
}

/// Returns the line around the byte `at` as it should be, if all it lacks are quotes.
fn unquoted(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |it| it + 1);
    let line = text[start..].lines().next()?;
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let is_toml = |value: &str| toml::from_str::<toml::Table>(&format!("x = {value}")).is_ok();
    let quoted = format!("\"{value}\"");
    let is_word = value.starts_with(|it: char| it.is_alphanumeric() || matches!(it, '/' | '.'));
    let lacks_quotes = is_word && !is_toml(value) && is_toml(&quoted);
    lacks_quotes.then(|| format!("{} = {quoted}", key.trim()))
}

#[cfg(test)]
mod tests;
