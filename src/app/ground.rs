//! What a configuration takes for granted of its machine: files, folders and addresses.
//!
//! One list for whoever asks: `portolan check`, a start, a reload and the doctor cannot
//! disagree. Everything is read, nothing is bound and nothing is written.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rustix::fs::{Access, access};

use crate::app::naming::Naming;
use crate::app::peers;
use crate::clock;
use crate::config::{Complaint, Config, MeshConfig};
use crate::geoip::GeoStore;
use crate::net::tls::{self, Facts, TlsError};
use crate::ticket;
use crate::uri::ServiceUri;

/// How much a doubt matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The node runs and all of it works; the operator should know.
    Odd,
    /// The node runs, and a part of it does not work.
    Broken,
    /// The node does not start.
    Refused,
}

/// Something a configuration takes for granted that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it is about.
    pub topic: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// The key, what is wrong with it, and the remedy.
    pub said: Complaint,
}

impl Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.weight {
            Weight::Odd | Weight::Broken => self.said.fmt(f),
            Weight::Refused => write!(f, "a start would be refused: {}", self.said),
        }
    }
}

/// An address that is to be listened on.
#[derive(Debug)]
struct Place {
    key: String,
    at: SocketAddr,
    is_udp: bool,
}

/// Returns every doubt about `config` but those of [`database`]. Blocks for a few small files.
pub fn survey(config: &Config) -> Vec<Doubt> {
    let mut doubts: Vec<Doubt> = url_key(config).into_iter().collect();
    if let Some(mesh) = &config.mesh {
        doubts.extend(naming(config, mesh).err());
        doubts.extend(mesh.data.as_deref().and_then(data));
    }
    doubts.extend(config.journal.as_deref().and_then(journal));
    doubts.extend(clashes(&places(config), is_v6_apart()));
    doubts.extend(operators_door(config.admin));
    doubts.extend(nobody(config));
    doubts.extend(placeholders(config));
    doubts
}

/// Opens the address database; one that cannot be used is replaced by what ships with the
/// program. Blocks for as long as reading it takes.
pub fn database(files: Vec<PathBuf>) -> (GeoStore, Option<Doubt>) {
    let names: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
    let (geo, trouble) = GeoStore::open(files, clock::wall());
    let doubt = trouble.map(|error| {
        let remedy = "until then the countries that ship with the program are used";
        doubt(DATABASE, Weight::Broken, "geoip.files", names.join(", "), error, remedy)
    });
    (geo, doubt)
}

/// Fails with everything a start is refused for.
pub fn refuse(doubts: &[Doubt]) -> Result<()> {
    let refused = doubts.iter().filter(|it| it.weight == Weight::Refused);
    let refused: Vec<String> = refused.map(|it| it.said.to_string()).collect();
    if !refused.is_empty() {
        bail!(refused.join("\n"));
    }
    Ok(())
}

/// Logs what a start goes on with.
pub(super) fn log(doubts: &[Doubt]) {
    for it in doubts {
        tracing::warn!("{it}");
    }
}

/// Reads the key of rewritten URLs from its file.
pub(super) fn read_ticket_key(path: &Path) -> Result<ticket::Key, Complaint> {
    let bad = |problem: &dyn Display| {
        let remedy = "write 64 hexadecimal digits to it (openssl rand -hex 32), the same on all \
                      nodes";
        Complaint::new("node.ticket_key", &path.display().to_string(), problem, remedy)
    };
    let text = fs::read_to_string(path).map_err(|error| bad(&error))?;
    let text = text.trim();
    let no_digits = || bad(&"it does not hold 64 hexadecimal digits");
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(no_digits());
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        let digits = &text[at * 2..at * 2 + 2];
        *byte = u8::from_str_radix(digits, 16).map_err(|_digits| no_digits())?;
    }
    Ok(ticket::Key::new(bytes))
}

/// Returns what the node's certificate says, if peers will believe it.
pub(crate) fn naming(config: &Config, mesh: &MeshConfig) -> Result<Facts, Doubt> {
    let refused = |error: TlsError| {
        let (key, path) = blamed(&error, mesh);
        let error = format!("{:#}", anyhow::Error::from(error));
        doubt(NAME, Weight::Refused, key, path.display(), error, ENROL)
    };
    let broken = |problem: &dyn Display| {
        doubt(NAME, Weight::Broken, "mesh.cert", mesh.cert.display(), problem, ENROL)
    };
    let naming = Naming::read(mesh).map_err(refused)?;
    tls::fit(&naming.trust, &naming.identity).map_err(refused)?;
    let told = |error: TlsError| broken(&format!("{:#}", anyhow::Error::from(error)));
    let facts = naming.identity.facts().map_err(told)?;
    let named = facts.node_of(&mesh.trust_domain).map_err(|bad| broken(&bad))?;
    if named != config.node {
        return Err(broken(&format!("it names {named}, not {}", config.node)));
    }
    tls::check(&naming.trust, &naming.identity).map_err(told)?;
    if naming.revoked.contains(&facts.serial) {
        return Err(broken(&"the certificate is revoked"));
    }
    Ok(facts)
}

/// Returns which of the mesh's files an error is about, by key and path.
fn blamed<'a>(error: &TlsError, mesh: &'a MeshConfig) -> (&'static str, &'a Path) {
    let files = [
        ("mesh.ca", Some(&mesh.ca)),
        ("mesh.key", Some(&mesh.key)),
        ("mesh.revoked", mesh.revoked.as_ref()),
    ];
    let read = error.path();
    let found =
        files.into_iter().find(|(_key, path)| read.is_some() && path.map(|it| &**it) == read);
    let found = found.and_then(|(key, path)| Some((key, path?)));
    let (key, path) = found.unwrap_or(("mesh.cert", &mesh.cert));
    (key, path)
}

fn url_key(config: &Config) -> Option<Doubt> {
    let Some(path) = &config.ticket_key else {
        let (weight, problem) = match config.mesh {
            Some(_) => (Weight::Broken, "rewritten URLs are good at no other node"),
            None => (Weight::Odd, "rewritten URLs end with the process"),
        };
        let remedy = "openssl rand -hex 32 > ticket.key, and name that file";
        let said = absent("node.ticket_key", problem, remedy);
        return Some(Doubt { topic: TICKET_KEY, weight, said });
    };
    let said = read_ticket_key(path).err()?;
    Some(Doubt { topic: TICKET_KEY, weight: Weight::Refused, said })
}

fn data(path: &Path) -> Option<Doubt> {
    let bad = |problem: &dyn Display, remedy: &str| {
        Some(doubt(DATA, Weight::Refused, "mesh.data", path.display(), problem, remedy))
    };
    let remedy = "give a folder that this user may write";
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return bad(&"it is no folder", remedy),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return bad(&"no such folder", "make it, for the user the node runs as");
        }
        Err(error) => return bad(&error, remedy),
    }
    if let Err(error) = access(path, Access::WRITE_OK | Access::EXEC_OK) {
        return bad(&io::Error::from(error), remedy);
    }
    let epoch = peers::last_epoch(path).err()?;
    bad(&format!("{epoch:#}"), remedy)
}

/// The journal's file is made where it is missing, and so is its folder.
fn journal(path: &Path) -> Option<Doubt> {
    let remedy = "give a path this user may write";
    let bad = |problem: &dyn Display| {
        Some(doubt(JOURNAL, Weight::Refused, "log.journal", path.display(), problem, remedy))
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return bad(&"it is a folder"),
        Ok(_) => {
            let error = access(path, Access::READ_OK | Access::WRITE_OK).err()?;
            return bad(&io::Error::from(error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return bad(&error),
    }
    let above = path.ancestors().skip(1);
    let above = above.map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let (folder, found) = above.filter_map(|it| Some((it, fs::metadata(it).ok()?))).next()?;
    if !found.is_dir() {
        return bad(&format!("{} is no folder", folder.display()));
    }
    let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
    bad(&format!("{}: {}", folder.display(), io::Error::from(error)))
}

/// Returns everything that is listened on.
fn places(config: &Config) -> Vec<Place> {
    let tcp = |key: &str, at| Place { key: key.to_owned(), at, is_udp: false };
    let udp = |key: &str, at| Place { is_udp: true, ..tcp(key, at) };
    let mut all: Vec<Place> = config.listeners.iter().map(|it| tcp(&it.key, it.address)).collect();
    all.push(tcp("listen.admin", config.admin));
    if let Some(dns) = &config.dns {
        all.extend([tcp("dns.listen", dns.listen), udp("dns.listen", dns.listen)]);
    }
    all.extend(config.mesh.as_ref().map(|it| udp("mesh.listen", it.listen)));
    all
}

/// Whoever is bound later than one that has its port is refused.
fn clashes(places: &[Place], v6_apart: bool) -> impl Iterator<Item = Doubt> {
    places.iter().enumerate().filter_map(move |(n, it)| {
        let meets =
            |other: &&Place| other.is_udp == it.is_udp && do_clash(other.at, it.at, v6_apart);
        let other = places[..n].iter().find(meets)?;
        let problem = format!("{} = \"{}\" has this port already", other.key, other.at);
        let remedy = "take another port, or one address each in place of all of them";
        Some(doubt(PORT, Weight::Refused, &it.key, it.at, problem, remedy))
    })
}

/// Tells whether two addresses cannot be listened on at once; `v6_apart` where `[::]` leaves
/// out IPv4.
fn do_clash(one: SocketAddr, other: SocketAddr, v6_apart: bool) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |all: IpAddr, ip: IpAddr| {
        let same_family = all.is_ipv4() == ip.is_ipv4();
        all.is_unspecified() && (same_family || (all.is_ipv6() && !v6_apart))
    };
    let same_port = one.port() == other.port() && one.port() != 0;
    same_port && (a == b || covers(a, b) || covers(b, a))
}

fn is_v6_apart() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|it| it.trim() == "1")
}

fn operators_door(at: SocketAddr) -> Option<Doubt> {
    let problem = "whoever reaches this address commands the node, without a password";
    let remedy = "keep it on loopback, such as \"127.0.0.1:7936\", or behind a firewall";
    let open = !at.ip().to_canonical().is_loopback();
    open.then(|| doubt(PORT, Weight::Odd, "listen.admin", at, problem, remedy))
}

fn nobody(config: &Config) -> Option<Doubt> {
    let problem = "neither an orchestrator nor a list of them is named, and peers tell of none, \
                   so nothing can be served";
    let remedy = "add an [[orchestrator]] or a [[source]]; portolan reload takes them up";
    let is_empty = config.orchestrators.is_empty() && config.sources.is_empty();
    let said = || absent("orchestrator", problem, remedy);
    is_empty.then(|| Doubt { topic: ORCHESTRATOR, weight: Weight::Odd, said: said() })
}

/// What was copied from a manual, and does not exist.
fn placeholders(config: &Config) -> impl Iterator<Item = Doubt> {
    let named = config.orchestrators.iter().map(|it| ("orchestrator.uri", &it.uri));
    let lists = config.sources.iter().map(|it| ("source.url", &it.url));
    let is_example = |uri: &ServiceUri| uri.host().ends_with(".example");
    let copied = named.chain(lists).filter(move |(_key, uri)| is_example(uri));
    let problem = "names that end in .example stand for others and lead nowhere";
    copied.map(move |(key, uri)| {
        doubt(ORCHESTRATOR, Weight::Odd, key, uri, problem, "put a name of your own there")
    })
}

fn doubt(
    topic: &'static str,
    weight: Weight,
    key: &str,
    value: impl Display,
    problem: impl Display,
    remedy: &str,
) -> Doubt {
    Doubt { topic, weight, said: Complaint::new(key, &value.to_string(), problem, remedy) }
}

/// A complaint about what is not written.
fn absent(key: &str, problem: &str, remedy: &str) -> Complaint {
    Complaint { value: "none".to_owned(), ..Complaint::new(key, "", problem, remedy) }
}

/// The key of rewritten URLs.
pub(crate) const TICKET_KEY: &str = "ticket key";
/// The node's name in the mesh.
pub(crate) const NAME: &str = "mesh name";
/// What survives a restart.
pub(crate) const DATA: &str = "mesh data";
/// The usage journal.
pub(crate) const JOURNAL: &str = "journal";
/// What is listened on.
pub(crate) const PORT: &str = "port";
/// The address database.
pub(crate) const DATABASE: &str = "database";
/// Who does the work.
pub(crate) const ORCHESTRATOR: &str = "orchestrator";

const ENROL: &str = "enrol the node again with portolan node enroll";

#[cfg(test)]
mod tests;
