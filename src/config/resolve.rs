//! From what stands in the file to what the program uses.

mod dns;
mod listeners;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::sources::{Fetch, Kind};
use crate::address::Cidr;
use crate::config::defaults;
use crate::config::file::{self, File, SourceKind, Wish};
use crate::config::{Complaint, Config, MeshConfig, Policies, Source};
use crate::directory::{self, Named};
use crate::edge::wishes::Allowed;
use crate::forwarded::TrustedProxies;
use crate::geo::Point;
use crate::id::{NodeId, OrchestratorId, RegionId};
use crate::listen;
use crate::listen::pace::Patience;
use crate::operator::OperatorPublic;
use crate::orchestrator;
use crate::policy::Rules;
use crate::region::RegionMap;
use crate::retry;
use crate::session;
use crate::unit::Country;
use crate::upstream;
use crate::upstream::guard::Guard;
use crate::uri::ServiceUri;
use crate::view::board::Manners;

/// Collects complaints, so that all are told at once.
struct Reader {
    complaints: Vec<Complaint>,
    regions: RegionMap,
}

/// Resolves a file; relative paths are taken from `beside`.
pub(super) fn resolve(file: File, beside: &Path, source: Source) -> Result<Config, Vec<Complaint>> {
    let regions = RegionMap::embedded().map_err(|error| {
        let said = error.to_string();
        vec![Complaint::new("regions", "embedded", said, "report this: the program is damaged")]
    })?;
    let mut reader = Reader { complaints: Vec::new(), regions };
    let config = reader.config(file, beside, source);
    match (config, reader.complaints) {
        (Some(config), complaints) if complaints.is_empty() => Ok(config),
        (_, complaints) => Err(complaints),
    }
}

impl Reader {
    fn config(&mut self, file: File, beside: &Path, source: Source) -> Option<Config> {
        let node = self.parse("node.name", &file.node.name, "such as \"fra-1\"");
        let region = self.region("node.region", &file.node.region);
        let public_url =
            file.node.public_url.as_deref().and_then(|it| self.url("node.public_url", it));
        let mesh = self.mesh(&file, beside);
        let listeners = self.listeners(&file, beside);
        let admin = file.listen.admin.as_deref().unwrap_or(defaults::ADMIN);
        let admin = self.address("listen.admin", admin, defaults::ADMIN);
        let orchestrators = self.orchestrators(&file.orchestrators);
        let sources = self.sources(&file.sources);
        let guard = self.guard(&file.upstream, &orchestrators, &sources);
        let rules = self.rules(&file.policy);
        let dns = file.dns.as_ref().map(|it| self.dns(it));
        let (proxies, callers) = self.location(&file.location);
        let peers = file.peers.iter().enumerate().filter_map(|(at, peer)| {
            let url = self.url(&format!("peer[{at}].url"), peer.url.as_deref()?)?;
            Some((peer.node.parse().ok()?, url))
        });
        let peer_urls = peers.collect();
        let forward = file.mesh.as_ref().is_some_and(|it| it.forward.unwrap_or(true));
        let limits = file.limits;
        self.bounds(&limits);
        let from = file.upstream.from.as_deref();
        let from = from.and_then(|it| self.parse("upstream.from", it, "such as \"192.0.2.1\""));
        Some(Config {
            source,
            node: node?,
            region: region?,
            public_url,
            peer_urls,
            dns: dns.flatten(),
            regions: Arc::new(self.regions.clone()),
            listeners,
            admin: admin?,
            listen: listen_params(&limits),
            memory_max: limits.memory_mib.map(|mib| mib.saturating_mul(1024 * 1024)),
            mesh,
            ticket_key: file.node.ticket_key.map(|it| beside.join(it)),
            orchestrators,
            sources,
            directory: directory_params(&limits, &file.upstream),
            orchestrator: orchestrator_params(&file.policy, forward),
            check_timeout: defaults::CHECK_TIMEOUT,
            proxies: proxies?,
            callers,
            geoip: file.geoip.files.iter().map(|it| beside.join(it)).collect(),
            rules,
            upstream: upstream_params(&file.upstream),
            guard,
            connect_timeout: millis(file.upstream.connect_timeout_ms, defaults::CONNECT_TIMEOUT),
            from,
            session: session::Params {
                idle: seconds(limits.session_idle_s, defaults::SESSION_IDLE),
            },
            sessions_max: limits.sessions.unwrap_or(defaults::SESSIONS),
            lanes: limits.lanes.unwrap_or_else(defaults::lanes),
            in_flight_max: limits.in_flight.unwrap_or(defaults::IN_FLIGHT),
            policies: policies(&file.policy),
            call_body_max: limits.call_body_mib.unwrap_or(defaults::CALL_BODY_MIB) << 20,
            replay_all_max: limits.replay_all_mib.unwrap_or(defaults::REPLAY_ALL_MIB) << 20,
            replay_max: limits.replay_kib.unwrap_or(defaults::REPLAY_KIB) * 1024,
            attempts_max: limits.attempts.unwrap_or(defaults::ATTEMPTS),
            reserve_timeout: defaults::RESERVE_TIMEOUT,
            session_head_timeout: defaults::SESSION_HEAD_TIMEOUT,
            ticket_for: defaults::TICKET_FOR,
            journal: file.log.journal.map(|it| beside.join(it)),
            drain: seconds(limits.drain_s, defaults::DRAIN),
            log: file.log.format,
        })
    }

    fn mesh(&mut self, file: &File, beside: &Path) -> Option<MeshConfig> {
        let Some(mesh) = &file.mesh else {
            if let Some(peer) = file.peers.first() {
                let remedy = "add [mesh] with listen, trust_domain, ca, cert and key";
                self.complain("peer", &peer.node, "there are peers but no mesh", remedy);
            }
            return None;
        };
        let mut params = defaults::mesh();
        params.levels_from = mesh.levels_from.unwrap_or(params.levels_from).max(2);
        params.share_load = mesh.share_load.unwrap_or(params.share_load);
        let listen = self.address("mesh.listen", &mesh.listen, "0.0.0.0:7935");
        let advertised = self.advertised(mesh, listen);
        let mut addresses = std::collections::BTreeMap::new();
        for (at, peer) in file.peers.iter().enumerate() {
            let key = format!("peer[{at}].node");
            let Some(name) = self.parse::<NodeId>(&key, &peer.node, "such as \"nyc-1\"") else {
                continue;
            };
            if peer.node == file.node.name {
                self.complain(&key, &peer.node, "this node is no peer of itself", "remove it");
            }
            if params.peers.contains(&name) {
                self.complain(&key, &peer.node, "named twice", "keep one [[peer]] for each node");
            }
            params.peers.push(name);
            let key = format!("peer[{at}].address");
            let address = peer.address.as_deref();
            let address = address.and_then(|it| self.address(&key, it, "203.0.113.7:7935"));
            addresses.extend(address.map(|address| (name, address)));
        }
        let mut path = |key: &str, path: &PathBuf| {
            let path = beside.join(path);
            if !path.is_file() {
                let shown = path.display().to_string();
                self.complain(key, &shown, "no such file", "give the path of a PEM file");
            }
            path
        };
        let [ca, cert, key] =
            [path("mesh.ca", &mesh.ca), path("mesh.cert", &mesh.cert), path("mesh.key", &mesh.key)];
        let revoked = mesh.revoked.as_ref().map(|it| path("mesh.revoked", it));
        let operator = mesh.operator.as_ref().map(|it| path("mesh.operator", it));
        if let Some(at) = &mesh.enrolment {
            self.enrolment(at, revoked.is_some());
        }
        Some(MeshConfig {
            listen: listen?,
            data: mesh.data.as_ref().map(|it| beside.join(it)),
            advertised,
            trust_domain: mesh.trust_domain.clone(),
            ca,
            cert,
            key,
            revoked,
            operator: operator.and_then(|it| self.operator(&it)),
            enrolment: mesh.enrolment.clone(),
            addresses,
            params,
        })
    }

    fn enrolment(&mut self, at: &str, has_list: bool) {
        let key = "mesh.enrolment";
        let port = at.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            self.complain(key, at, "no host and port", "such as \"ca.example:7934\"");
        }
        if !has_list {
            let remedy = "add mesh.revoked, as `portolan node enroll` wrote it";
            self.complain(key, at, "what the CA revokes has no place", remedy);
        }
    }

    fn operator(&mut self, path: &Path) -> Option<OperatorPublic> {
        // That there is none is told already.
        let text = std::fs::read_to_string(path).ok()?;
        let key = OperatorPublic::from_pem(&text);
        if let Err(bad) = key {
            let remedy = "take operator.pub from the CA's folder";
            self.complain("mesh.operator", &path.display().to_string(), bad, remedy);
        }
        key.ok()
    }

    /// Returns where others may dial this node: where it says, or where it listens if that is
    /// one address and not all of them.
    fn advertised(&mut self, mesh: &file::Mesh, listen: Option<SocketAddr>) -> Option<SocketAddr> {
        let said = mesh.address.as_deref();
        let said = said.and_then(|it| self.address("mesh.address", it, "198.51.100.4:7935"));
        if let Some(address) = said.filter(|it| it.ip().is_unspecified() || it.port() == 0) {
            let remedy = "give the address and port by which other nodes reach this one";
            self.complain("mesh.address", &address.to_string(), "nobody can dial this", remedy);
        }
        let dialable = |it: &SocketAddr| !it.ip().is_unspecified() && it.port() != 0;
        said.or(listen.filter(dialable))
    }

    fn orchestrators(&mut self, listed: &[file::Orchestrator]) -> Vec<Named> {
        let mut named = Vec::with_capacity(listed.len());
        let mut seen = std::collections::BTreeSet::new();
        for (at, it) in listed.iter().enumerate() {
            let key = |name: &str| format!("orchestrator[{at}].{name}");
            let remedy = "such as \"https://host:8935\"";
            let uri = self.parse::<ServiceUri>(&key("uri"), &it.uri, remedy);
            let region = it.region.as_deref().and_then(|code| self.region(&key("region"), code));
            let point = it.point.and_then(|[lat, lon]| match Point::new(lat, lon) {
                Ok(point) => Some(point),
                Err(bad) => {
                    let shown = format!("[{lat}, {lon}]");
                    self.complain(&key("point"), &shown, bad, "write [latitude, longitude]");
                    None
                }
            });
            let country =
                it.country.as_deref().and_then(|code| self.country(&key("country"), code));
            let Some(uri) = uri else { continue };
            if !seen.insert(OrchestratorId::of(&uri)) {
                self.complain(&key("uri"), &it.uri, "listed twice", "keep one entry");
                continue;
            }
            let weight_permille = it.weight.and_then(|weight| {
                if (0.0..=1.0).contains(&weight) {
                    return Some((weight * 1000.0).round() as u16);
                }
                let problem = "not between 0 and 1";
                self.complain(&key("weight"), &weight.to_string(), problem, "1 is best");
                None
            });
            named.push(Named { uri, region, point, country, operator: None, weight_permille });
        }
        named
    }

    fn sources(&mut self, listed: &[file::Source]) -> Vec<Fetch> {
        let mut sources = Vec::with_capacity(listed.len());
        for (at, it) in listed.iter().enumerate() {
            let remedy = "such as \"https://host/discover-orchestrators\"";
            let (base, query) = it.url.split_once('?').unwrap_or((&it.url, ""));
            let url = self.parse::<ServiceUri>(&format!("source[{at}].url"), base, remedy);
            let query = Some(query.to_owned()).filter(|it| !it.is_empty());
            let every = seconds(it.every_s, defaults::SOURCE_EVERY).max(Duration::from_secs(1));
            let kind = match it.kind {
                SourceKind::Webhook => Kind::Webhook,
                SourceKind::Discovery => Kind::Discovery,
            };
            sources.extend(url.map(|url| Fetch { url, query, kind, every }));
        }
        sources
    }

    fn guard(&mut self, upstream: &file::Upstream, named: &[Named], lists: &[Fetch]) -> Guard {
        let blocks = upstream.allow_addresses.iter();
        let blocks = blocks
            .filter_map(|it| self.parse("upstream.allow_addresses", it, "such as \"10.0.0.0/8\""));
        let blocks = blocks.collect();
        let ports = upstream.allow_ports.as_ref().map(|listed| {
            let remedy = "such as \"443\" or \"1024-65535\"";
            let ports = listed.iter();
            ports.filter_map(|it| self.parse("upstream.allow_ports", it, remedy)).collect()
        });
        let ports = ports.unwrap_or_else(|| Guard::default().ports);
        let trusted = named.iter().map(|it| &it.uri).chain(lists.iter().map(|it| &it.url));
        Guard { blocks, ports, trusted: trusted.map(|it| it.authority().to_owned()).collect() }
    }

    fn rules(&mut self, policy: &file::Policy) -> Rules {
        let price = policy.price_max_wei.as_deref();
        let price =
            price.and_then(|it| self.parse("policy.price_max_wei", it, "digits only, in wei"));
        let countries = policy.countries.as_ref().map(|codes| {
            codes.iter().filter_map(|it| self.country("policy.countries", it)).collect()
        });
        let never = policy.never.iter().filter_map(|it| {
            self.parse::<ServiceUri>("policy.never", it, "such as \"https://host:8935\"")
        });
        let never = never.map(|uri| OrchestratorId::of(&uri)).collect();
        Rules { price_max_wei: price, countries, only: None, never, shut: None }
    }

    fn location(&mut self, location: &file::Location) -> (Option<TrustedProxies>, Vec<Cidr>) {
        let mut blocks = |key: &str, listed: &[String]| -> Vec<Cidr> {
            let remedy = "such as \"10.0.0.0/8\"";
            listed.iter().filter_map(|it| self.parse(key, it, remedy)).collect()
        };
        let trusted = blocks("location.trusted_proxies", &location.trusted_proxies);
        let callers = blocks("location.named_by", &location.named_by);
        let n_trusted = trusted.len().to_string();
        let written = location.forwarded_by.unwrap_or_default();
        let proxies = match TrustedProxies::new(trusted, written) {
            Ok(proxies) => Some(proxies),
            Err(bad) => {
                self.complain("location.trusted_proxies", &n_trusted, bad, "join blocks");
                None
            }
        };
        (proxies, callers)
    }

    /// Zero is nonsense for every bound.
    fn bounds(&mut self, limits: &file::Limits) {
        let bounds = [
            ("limits.in_flight", limits.in_flight),
            ("limits.sessions", limits.sessions),
            ("limits.lanes", limits.lanes),
            ("limits.connections", limits.connections),
            ("limits.orchestrators", limits.orchestrators),
            ("limits.attempts", limits.attempts),
            ("limits.connections_each", limits.connections_each.map(|it| it as usize)),
            ("limits.head_s", limits.head_s.map(|it| it as usize)),
            ("limits.idle_s", limits.idle_s.map(|it| it as usize)),
            ("limits.memory_mib", limits.memory_mib.map(|it| it as usize)),
            ("limits.checks_per_second", limits.checks_per_second.map(|it| it as usize)),
        ];
        for (key, bound) in bounds {
            if bound == Some(0) {
                self.complain(key, "0", "nothing would ever be served", "write at least 1");
            }
        }
        if let Some(lanes) = limits.lanes.filter(|it| *it > defaults::LANES_MAX) {
            let remedy = format!("write at most {}, or leave it out", defaults::LANES_MAX);
            self.complain("limits.lanes", &lanes.to_string(), "no machine is so wide", &remedy);
        }
    }

    fn region(&mut self, key: &str, code: &str) -> Option<RegionId> {
        let id = code.parse::<RegionId>().ok().filter(|id| self.regions.get(*id).is_some());
        if id.is_none() {
            let known: Vec<&str> = self.regions.iter().map(|it| it.id.as_str()).collect();
            let like = self.regions_like(code).join(" or ");
            let like = if like.is_empty() { like } else { format!("did you mean {like}? ") };
            let remedy = format!("{like}one of {}", known.join(" "));
            self.complain(key, code, "no such region", &remedy);
        }
        id
    }

    /// Returns the regions that may be meant by `text`: by code or by name in another case, or
    /// else by a code that is one slip of the finger away.
    fn regions_like(&self, text: &str) -> Vec<&str> {
        let is_same = |it: &str| it.eq_ignore_ascii_case(text);
        let same = self.regions.iter().filter(|it| is_same(it.id.as_str()) || is_same(&it.name));
        let same: Vec<&str> = same.map(|it| it.id.as_str()).collect();
        if !same.is_empty() {
            return same;
        }
        let upper = text.to_ascii_uppercase();
        let is_near = |it: &&str| strsim::osa_distance(it, &upper) == 1;
        let codes = self.regions.iter().map(|it| it.id.as_str());
        codes.filter(is_near).take(LIKE_MAX).collect()
    }

    fn country(&mut self, key: &str, code: &str) -> Option<Country> {
        let country = Country::parse(code);
        if country.is_none() {
            self.complain(key, code, "not a country", "write two letters, such as \"DE\"");
        }
        country
    }

    fn url(&mut self, key: &str, url: &str) -> Option<String> {
        let remedy = "such as \"https://fra.example.org\"";
        self.parse::<ServiceUri>(key, url, remedy)?;
        if !url.contains("://") {
            // Clients and peers are handed the text as it stands.
            self.complain(key, url, "it names no scheme", remedy);
            return None;
        }
        Some(url.trim_end_matches('/').to_owned())
    }

    fn parse<T: FromStr<Err: Display>>(
        &mut self,
        key: &str,
        text: &str,
        remedy: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(bad) => {
                self.complain(key, text, bad, remedy);
                None
            }
        }
    }

    fn complain(&mut self, key: &str, value: &str, problem: impl Display, remedy: &str) {
        self.complaints.push(Complaint::new(key, value, problem, remedy));
    }
}

/// More of them would be no hint.
const LIKE_MAX: usize = 3;

fn listen_params(limits: &file::Limits) -> listen::Params {
    let bounds = defaults::LISTEN;
    let patience = Patience {
        head: seconds(limits.head_s, bounds.patience.head),
        idle: seconds(limits.idle_s, bounds.patience.idle),
    };
    listen::Params {
        connections_max: limits.connections.unwrap_or(bounds.connections_max),
        each_max: limits.connections_each.unwrap_or(bounds.each_max),
        patience,
        ..bounds
    }
}

fn directory_params(limits: &file::Limits, upstream: &file::Upstream) -> directory::Params {
    directory::Params {
        orchestrators_max: limits.orchestrators.unwrap_or(defaults::ORCHESTRATORS),
        checks_per_second: limits.checks_per_second.unwrap_or(defaults::CHECKS_PER_SECOND),
        checks_at_once: defaults::CHECKS_AT_ONCE,
        interval_busy: millis(upstream.check_busy_ms, defaults::CHECK_BUSY),
        interval_idle: millis(upstream.check_idle_ms, defaults::CHECK_IDLE),
        interval_longest: defaults::CHECK_LONGEST,
    }
}

fn orchestrator_params(policy: &file::Policy, forward: bool) -> orchestrator::Params {
    orchestrator::Params {
        forward,
        suspension: defaults::SUSPENSION,
        slow_start: defaults::SLOW_START,
        weight_wait: millis(policy.weight_ms, Duration::ZERO),
        offers: orchestrator::offer::Params {
            capacity: defaults::CAPACITY,
            session: defaults::SESSION_HOLDS,
            wait_per_cent: millis(policy.wait_ms_per_cent, defaults::WAIT_PER_CENT),
            ether_cents: policy.ether_usd.unwrap_or(defaults::ETHER_USD).saturating_mul(100),
        },
    }
}

fn policies(policy: &file::Policy) -> Policies {
    let may = policy.clients_may.as_deref().unwrap_or(&Wish::ALL);
    Policies {
        price_relax_permille: policy.price_relax_percent.unwrap_or(0).saturating_mul(10),
        panic: policy.panic.unwrap_or_default(),
        clients_may: Allowed {
            prefer: may.contains(&Wish::Prefer),
            pin: may.contains(&Wish::Pin),
            exclude: may.contains(&Wish::Exclude),
            deadline: may.contains(&Wish::Deadline),
            steer: may.contains(&Wish::Steer),
        },
        retries: retry::Params {
            share_permille: policy.retry_percent.unwrap_or(defaults::RETRY_PERCENT) * 10,
            per_second: policy.retries_per_second.unwrap_or(defaults::RETRIES_PER_SECOND),
        },
        place_wait: millis(policy.place_wait_ms, defaults::PLACE_WAIT),
        manners: Manners {
            foreign_permille: policy.foreign_percent.unwrap_or(defaults::FOREIGN_PERCENT).min(100)
                * 10,
            ramp: seconds(policy.spill_ramp_s, Duration::ZERO),
        },
    }
}

fn upstream_params(upstream: &file::Upstream) -> upstream::Params {
    upstream::Params {
        connections_max: upstream.connections.unwrap_or(defaults::CONNECTIONS_EACH).max(1),
        idle_max: defaults::IDLE_EACH,
        idle_all_max: defaults::IDLE_ALL,
        idle_for: defaults::IDLE_FOR,
        head_timeout: millis(upstream.head_timeout_ms, defaults::HEAD_TIMEOUT),
    }
}

fn millis(value: Option<u64>, default: Duration) -> Duration {
    value.map_or(default, Duration::from_millis)
}

fn seconds(value: Option<u64>, default: Duration) -> Duration {
    value.map_or(default, Duration::from_secs)
}
