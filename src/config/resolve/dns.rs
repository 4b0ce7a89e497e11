//! `[dns]`: the mesh's name and who is reached by it.

use super::Reader;
use crate::config::DnsConfig;
use crate::config::file;
use crate::edge::dns::{ADDRESSES_MAX, Answers, Params, Placed};

impl Reader {
    pub(super) fn dns(&mut self, dns: &file::Dns) -> Option<DnsConfig> {
        let ttl_s = dns.ttl_s.unwrap_or(TTL_S);
        if !TTLS_S.contains(&ttl_s) {
            let remedy = "15 to 30: below it resolvers ask too often, above it the dead stay";
            self.complain("dns.ttl_s", &ttl_s.to_string(), "out of range", remedy);
        }
        let trusted = dns.trusted_resolvers.iter().filter_map(|it| {
            self.parse("dns.trusted_resolvers", it, "such as \"192.0.2.53\" or \"10.0.0.0/8\"")
        });
        let trusted = trusted.collect();
        let nodes = dns.nodes.iter().enumerate();
        let listen = self.address("dns.listen", &dns.listen, "0.0.0.0:53");
        let nodes: Vec<Placed> = nodes.filter_map(|(at, it)| self.dns_node(at, it)).collect();
        if nodes.is_empty() {
            let remedy = "add a [[dns.node]] for each node that clients reach by this name";
            self.complain("dns.node", "", "nobody to answer with", remedy);
        }
        let named = nodes.iter().map(|it| it.node);
        let answers = Answers::new(&dns.name, &dns.servers, ttl_s, named);
        let answers = answers
            .map_err(|bad| {
                let said = format!("{}, {}", dns.name, dns.servers.join(", "));
                self.complain("dns.name, dns.servers", &said, bad, "such as gateway.example");
            })
            .ok()?;
        Some(DnsConfig { listen: listen?, params: Params { answers, nodes, trusted } })
    }

    fn dns_node(&mut self, at: usize, node: &file::DnsNode) -> Option<Placed> {
        let key = |name: &str| format!("dns.node[{at}].{name}");
        let region = self.region(&key("region"), &node.region);
        let point = region.and_then(|it| Some(self.regions.get(it)?.point));
        let n = node.addresses.len();
        if n == 0 || n > ADDRESSES_MAX {
            let remedy = format!("1 to {ADDRESSES_MAX} addresses");
            self.complain(&key("addresses"), &n.to_string(), "out of range", &remedy);
        }
        let addresses = node.addresses.iter();
        let addresses = addresses.filter_map(|it| {
            self.parse(&key("addresses"), it, "such as \"198.51.100.4\", without a port")
        });
        let addresses = addresses.collect();
        let node = self.parse(&key("node"), &node.node, "such as \"fra-1\"")?;
        Some(Placed { node, point: point?, addresses })
    }
}

const TTL_S: u32 = 20;
const TTLS_S: std::ops::RangeInclusive<u32> = 15..=30;
