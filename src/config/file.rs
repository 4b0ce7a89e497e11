//! What may stand in a node's TOML file.

use std::path::PathBuf;

use serde::Deserialize;

use crate::forwarded::Written;
use crate::policy::Panic;
use crate::telemetry::LogFormat;

/// A node's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Who this node is.
    pub node: Node,
    /// Where it listens.
    #[serde(default)]
    pub listen: Listen,
    /// Where else it listens, under TLS or behind a proxy.
    #[serde(default, rename = "listener")]
    pub listeners: Vec<Listener>,
    /// The mesh.
    pub mesh: Option<Mesh>,
    /// The other nodes.
    #[serde(default, rename = "peer")]
    pub peers: Vec<Peer>,
    /// Orchestrators.
    #[serde(default, rename = "orchestrator")]
    pub orchestrators: Vec<Orchestrator>,
    /// Lists of orchestrators to fetch.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// Where clients are.
    #[serde(default)]
    pub location: Location,
    /// The mesh's name in the DNS.
    pub dns: Option<Dns>,
    /// The address database.
    #[serde(default)]
    pub geoip: Geoip,
    /// What may be used, and what a cent weighs.
    #[serde(default)]
    pub policy: Policy,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Connections to orchestrators.
    #[serde(default)]
    pub upstream: Upstream,
    /// What is written down.
    #[serde(default)]
    pub log: Log,
}

/// `[dns]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// UDP and TCP address for resolvers.
    pub listen: String,
    /// The mesh's name, such as `gateway.example`.
    pub name: String,
    /// The servers of its zone, as the zone above names them.
    #[serde(default)]
    pub servers: Vec<String>,
    /// How long an answer holds, 15 to 30 seconds.
    pub ttl_s: Option<u32>,
    /// Resolvers that may say for which network they ask.
    #[serde(default)]
    pub trusted_resolvers: Vec<String>,
    /// The nodes that clients reach by it.
    #[serde(default, rename = "node")]
    pub nodes: Vec<DnsNode>,
}

/// `[[dns.node]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsNode {
    /// Its name.
    pub node: String,
    /// The code of its region.
    pub region: String,
    /// Where clients connect to it.
    pub addresses: Vec<String>,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, unique in the mesh.
    pub name: String,
    /// The code of its region.
    pub region: String,
    /// How clients reach it, such as `https://fra.example.org`.
    pub public_url: Option<String>,
    /// The file of the key for rewritten URLs: 64 hexadecimal digits, the same on all nodes.
    pub ticket_key: Option<PathBuf>,
}

/// `[listen]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For clients.
    pub public: Option<String>,
    /// For the operator.
    pub admin: Option<String>,
}

/// `[[listener]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// For clients.
    pub address: String,
    /// The certificate with its chain, PEM; read again by a reload.
    pub cert: Option<PathBuf>,
    /// Its key, PEM, unencrypted.
    pub key: Option<PathBuf>,
    /// Make a certificate at start, in place of the two above.
    #[serde(default)]
    pub self_signed: bool,
    /// A PROXY protocol v2 header comes first on every connection.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The hosts it answers for; all of them when empty.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `[mesh]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// UDP address for peers.
    pub listen: String,
    /// Where other nodes dial this one, if that is not where it listens.
    pub address: Option<String>,
    /// A directory for what has to survive a restart.
    pub data: Option<PathBuf>,
    /// Whether requests may take the way through a peer where that is shorter; they may while
    /// not set.
    pub forward: Option<bool>,
    /// The mesh's name, such as `mesh.example.org`.
    pub trust_domain: String,
    /// The CA's certificate, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub cert: PathBuf,
    /// This node's key, PEM.
    pub key: PathBuf,
    /// What is revoked: a CRL signed by the CA, PEM.
    pub revoked: Option<PathBuf>,
    /// The operator's public key, PEM.
    pub operator: Option<PathBuf>,
    /// Where the CA renews certificates, `HOST:PORT`.
    pub enrolment: Option<String>,
    /// Whether peers tell each other at once where few places are left; they do while not set.
    pub share_load: Option<bool>,
    /// From how many nodes on regions tell each other less.
    pub levels_from: Option<usize>,
}

/// `[[peer]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its UDP address; without one it must dial us.
    pub address: Option<String>,
    /// How clients reach it.
    pub url: Option<String>,
}

/// `[[orchestrator]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orchestrator {
    /// Its service URI.
    pub uri: String,
    /// The region it is in.
    pub region: Option<String>,
    /// Latitude and longitude in degrees, where that is more exact.
    pub point: Option<[f64; 2]>,
    /// Its country, where that is not the region's.
    pub country: Option<String>,
    /// What you make of it, by stake or performance: from 0 to 1, which is best.
    pub weight: Option<f64>,
}

/// `[[source]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The list.
    pub url: String,
    /// What it answers.
    pub kind: SourceKind,
    /// How often it is read.
    pub every_s: Option<u64>,
}

/// What a list answers.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// As for `-orchWebhookUrl`.
    Webhook,
    /// `/discover-orchestrators` of a node or a signer.
    Discovery,
}

/// `[location]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Proxies whose word on the client's address is taken.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// The header they write.
    #[serde(default)]
    pub forwarded_by: Option<Written>,
    /// Callers who may name a client's address in `Portolan-Client-Ip`.
    #[serde(default)]
    pub named_by: Vec<String>,
}

/// `[geoip]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geoip {
    /// Database files; the embedded one when empty.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// `[policy]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The highest price of one unit, in wei, as text since it may exceed TOML's integers.
    pub price_max_wei: Option<String>,
    /// Countries work may be done in.
    pub countries: Option<Vec<String>>,
    /// Service URIs that are never used.
    #[serde(default)]
    pub never: Vec<String>,
    /// How long you would wait to save one cent.
    pub wait_ms_per_cent: Option<u64>,
    /// What one ether costs, in US dollars.
    pub ether_usd: Option<u64>,
    /// How long you would wait for an orchestrator of weight 1 rather than take one of 0;
    /// weights do not count without this.
    pub weight_ms: Option<u64>,
    /// How far the price ceiling may be raised when nobody is below it, in percent.
    pub price_relax_percent: Option<u32>,
    /// What is done when too little is left.
    pub panic: Option<Panic>,
    /// What clients may wish; all of it when not set.
    pub clients_may: Option<Vec<Wish>>,
    /// Retries for each hundred requests of a route in a region,
    pub retry_percent: Option<u32>,
    /// and a second in any case.
    pub retries_per_second: Option<u32>,
    /// How long a request waits for a place where peers have them all.
    pub place_wait_ms: Option<u64>,
    /// The most of an orchestrator's places that work which arrived in other regions has
    /// together while its own region uses it, in percent.
    pub foreign_percent: Option<u32>,
    /// How long it takes until work that spills from a full region to another may be all of it.
    pub spill_ramp_s: Option<u64>,
}

/// What a client may wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// To have one taken while it is good enough.
    Prefer,
    /// To have one taken or nobody.
    Pin,
    /// To have some not taken.
    Exclude,
    /// To have it done by some time.
    Deadline,
    /// To be sent to the node with the best course.
    Steer,
}

impl Wish {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Prefer, Self::Pin, Self::Exclude, Self::Deadline, Self::Steer];
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests at once.
    pub in_flight: Option<usize>,
    /// Sessions at once.
    pub sessions: Option<usize>,
    /// Threads that serve clients; as many as there are processors when not set.
    pub lanes: Option<usize>,
    /// Client connections at once, on each listener.
    pub connections: Option<usize>,
    /// Connections of one client address at once.
    pub connections_each: Option<u32>,
    /// How long a request's head may take.
    pub head_s: Option<u64>,
    /// How long a connection may be idle.
    pub idle_s: Option<u64>,
    /// The memory this process may hold, in MiB; what its control group or the machine has when
    /// not set.
    pub memory_mib: Option<u64>,
    /// Orchestrators known.
    pub orchestrators: Option<usize>,
    /// Checks a second.
    pub checks_per_second: Option<u32>,
    /// The longest body of a call held to be sent again, in KiB.
    pub replay_kib: Option<usize>,
    /// Such bodies together, in MiB.
    pub replay_all_mib: Option<usize>,
    /// The longest body of a call, in MiB; streams of sessions are not bounded.
    pub call_body_mib: Option<u64>,
    /// Orchestrators tried for one request.
    pub attempts: Option<usize>,
    /// A session nobody uses is stopped after this.
    pub session_idle_s: Option<u64>,
    /// How long stopping may take.
    pub drain_s: Option<u64>,
}

/// `[upstream]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The local address connections leave from.
    pub from: Option<String>,
    /// Blocks of addresses that orchestrators may have although they are not public; those
    /// the configuration itself names may have any.
    #[serde(default)]
    pub allow_addresses: Vec<String>,
    /// Ports they may have, such as `"443"` and `"1024-65535"`.
    pub allow_ports: Option<Vec<String>>,
    /// How long connecting may take.
    pub connect_timeout_ms: Option<u64>,
    /// How long an answer's head may take.
    pub head_timeout_ms: Option<u64>,
    /// Connections to one orchestrator.
    pub connections: Option<u32>,
    /// Between checks of an orchestrator with traffic.
    pub check_busy_ms: Option<u64>,
    /// Between checks of one without.
    pub check_idle_ms: Option<u64>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The usage journal.
    pub journal: Option<PathBuf>,
    /// How lines are logged.
    #[serde(default)]
    pub format: LogFormat,
}
