//! Who runs where: regions, ports, distances, files.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::RngExt;
use tokio::net::{TcpListener, UdpSocket};

use crate::geo::expected_rtt;
use crate::region::{Region, RegionMap};
use crate::uri::ServiceUri;

/// One demo.
#[derive(Debug)]
pub(super) struct Plan {
    /// The nodes, one a region.
    pub(super) nodes: Vec<Node>,
    /// The orchestrators, three a region.
    pub(super) orchestrators: Vec<Orchestrator>,
    folder: PathBuf,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// Its region's code.
    pub(super) region: String,
    /// Where clients connect.
    pub(super) public: ServiceUri,
    /// Where the operator connects.
    pub(super) admin: ServiceUri,
    /// Its TOML file.
    pub(super) config: PathBuf,
    mesh: SocketAddr,
}

/// One orchestrator.
#[derive(Debug)]
pub(super) struct Orchestrator {
    /// Its name in the table.
    pub(super) name: String,
    /// Its region's code.
    pub(super) region: String,
    /// Where it answers.
    pub(super) uri: ServiceUri,
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// Its distances, as its flag has them.
    pub(super) delays: String,
}

/// A client of the demo: a place, and an address the embedded database puts there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// What the table calls it.
    pub(super) place: &'static str,
    /// Its address.
    pub(super) ip: &'static str,
}

/// Clients in nine countries.
pub(super) const CLIENTS: [Client; 9] = [
    Client { place: "Germany", ip: "91.0.0.1" },
    Client { place: "France", ip: "90.0.0.1" },
    Client { place: "Britain", ip: "86.128.0.1" },
    Client { place: "United States", ip: "12.0.0.1" },
    Client { place: "Canada", ip: "142.112.0.1" },
    Client { place: "Brazil", ip: "177.0.0.1" },
    Client { place: "Japan", ip: "133.0.0.1" },
    Client { place: "Singapore", ip: "118.200.0.1" },
    Client { place: "Australia", ip: "1.120.0.1" },
];

const REGIONS: [&str; 3] = ["FRA", "NYC", "SIN"];
/// Round trips within a region, in milliseconds: the first orchestrator is the near one.
const LOCAL_MS: [u64; 3] = [2, 25, 50];

impl Plan {
    /// The mesh of the demo.
    pub(super) const TRUST_DOMAIN: &str = "demo.portolan";

    /// Finds free ports and writes every file; returns the listener for the CA too.
    pub(super) async fn make() -> Result<(Self, TcpListener)> {
        let regions = RegionMap::embedded()?;
        let region = |code: &str| -> Result<&Region> {
            let found = code.parse().ok().and_then(|id| regions.get(id));
            found.with_context(|| format!("region {code} is missing"))
        };
        let number: u64 = rand::rng().random();
        let folder = std::env::temp_dir().join(format!("portolan-demo-{number:016x}"));
        std::fs::create_dir_all(&folder)?;
        let mut ports = Ports::default();
        let mut orchestrators = Vec::new();
        for (number, code) in REGIONS.iter().enumerate() {
            let here = region(code)?;
            for (at, local_ms) in LOCAL_MS.iter().enumerate() {
                let listen = ports.tcp().await?;
                let mut delays = String::new();
                for (other, other_code) in REGIONS.iter().enumerate() {
                    let far = expected_rtt(here.point.distance_m(&region(other_code)?.point));
                    let ms = if other == number { *local_ms } else { far.0 / 1000 + at as u64 };
                    let comma = if delays.is_empty() { "" } else { "," };
                    write!(delays, "{comma}127.1.{}.0/24={ms}ms", other + 1)?;
                }
                let letter = char::from(b'a' + at as u8);
                orchestrators.push(Orchestrator {
                    name: format!("{}-{letter}", code.to_lowercase()),
                    region: (*code).to_owned(),
                    uri: format!("https://{listen}").parse()?,
                    listen,
                    delays,
                });
            }
        }
        let mut nodes = Vec::new();
        for code in REGIONS {
            let (public, admin) = (ports.tcp().await?, ports.tcp().await?);
            nodes.push(Node {
                name: code.to_lowercase(),
                region: code.to_owned(),
                public: format!("http://{public}").parse()?,
                admin: format!("http://{admin}").parse()?,
                config: folder.join(format!("{}.toml", code.to_lowercase())),
                mesh: ports.udp().await?,
            });
        }
        let plan = Self { nodes, orchestrators, folder };
        let ca = TcpListener::bind("127.0.0.1:0").await?;
        plan.write(&ca.local_addr()?.to_string())?;
        Ok((plan, ca))
    }

    fn write(&self, ca: &str) -> Result<()> {
        let key: [u8; 32] = rand::rng().random();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(self.folder.join("ticket.key"), hex)?;
        for (number, node) in self.nodes.iter().enumerate() {
            std::fs::write(&node.config, self.config(number, node, ca)?)?;
        }
        Ok(())
    }

    /// Between nodes there is no distance on one machine, so nothing is forwarded. Every node
    /// but the first is told where the first is, and learns of the others from it.
    fn config(&self, number: usize, node: &Node, ca: &str) -> Result<String> {
        let mut text = format!(
            "[node]\nname = \"{name}\"\nregion = \"{region}\"\npublic_url = \"{public}\"\n\
             ticket_key = \"ticket.key\"\n\n\
             [listen]\npublic = \"{listen}\"\nadmin = \"{admin}\"\n\n\
             [mesh]\nlisten = \"{mesh}\"\ntrust_domain = \"{domain}\"\nca = \"{name}-ca.pem\"\n\
             cert = \"{name}-node.pem\"\nkey = \"{name}-node.key\"\n\
             revoked = \"{name}-revoked.pem\"\noperator = \"{name}-operator.pub\"\n\
             enrolment = \"{ca}\"\nforward = false\n\n\
             [location]\nnamed_by = [\"127.0.0.0/8\"]\n\n\
             [upstream]\nfrom = \"127.1.{from}.1\"\n\n\
             [log]\njournal = \"{name}.journal\"\n",
            name = node.name,
            region = node.region,
            public = node.public,
            listen = node.public.authority(),
            admin = node.admin.authority(),
            mesh = node.mesh,
            domain = Self::TRUST_DOMAIN,
            from = number + 1,
        );
        for (at, peer) in self.nodes.iter().enumerate().filter(|(at, _)| *at != number) {
            write!(text, "\n[[peer]]\nnode = \"{}\"\nurl = \"{}\"\n", peer.name, peer.public)?;
            if at == 0 {
                writeln!(text, "address = \"{}\"", peer.mesh)?;
            }
        }
        for it in &self.orchestrators {
            write!(text, "\n[[orchestrator]]\nuri = \"{}\"\nregion = \"{}\"\n", it.uri, it.region)?;
        }
        Ok(text)
    }

    /// Where the files of this demo are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the files.
    pub(super) fn clean(&self) {
        // A folder for temporary files is cleaned by others too.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Free ports, held until the plan is made so that none is given twice.
#[derive(Default)]
struct Ports {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Ports {
    async fn tcp(&mut self) -> Result<SocketAddr> {
        let held = TcpListener::bind("127.0.0.1:0").await?;
        let address = held.local_addr()?;
        self.tcp.push(held);
        Ok(address)
    }

    async fn udp(&mut self) -> Result<SocketAddr> {
        let held = UdpSocket::bind("127.0.0.1:0").await?;
        let address = held.local_addr()?;
        self.udp.push(held);
        Ok(address)
    }
}
