//! Which records answer a question about the mesh's name.

use std::net::IpAddr;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::svcb::{Alpn, IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_server::proto::rr::rdata::{A, AAAA, HTTPS, NS, SOA};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::Placed;
use crate::id::NodeId;

/// The mesh's name and what is said under it. Each node has a name of its own below it.
#[derive(Clone, Debug)]
pub struct Answers {
    name: Name,
    /// The servers of this zone, as the zone above names them.
    servers: Vec<Name>,
    ttl_s: u32,
    nodes: Vec<(Name, NodeId)>,
}

/// Why a text is no name of the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS name; write one such as gateway.example")]
pub struct BadName;

/// What a question is answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it is one.
    pub code: ResponseCode,
    /// The records.
    pub answers: Vec<Record>,
    /// Says how long "no such record" holds.
    pub authority: Option<Record>,
}

impl Answer {
    pub(super) fn refused(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authority: None }
    }
}

impl Answers {
    /// Takes the mesh's name, the servers of its zone, how long answers hold and the nodes.
    pub fn new(
        name: &str,
        servers: &[String],
        ttl_s: u32,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Result<Self, BadName> {
        let parse = |text: &str| {
            let mut name = Name::from_ascii(text).map_err(|_bad| BadName)?;
            name.set_fqdn(true);
            Ok(name)
        };
        let name = parse(name)?;
        let below = |node: NodeId| Ok((parse(&format!("{node}.{name}"))?, node));
        Ok(Self {
            servers: servers.iter().map(|it| parse(it)).collect::<Result<_, _>>()?,
            ttl_s,
            nodes: nodes.map(below).collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Answers a question. `ordered` is asked only when it matters: the nodes in the order in
    /// which to try them.
    pub fn answer<'a>(
        &self,
        name: &Name,
        kind: RecordType,
        ordered: impl Fn() -> Vec<&'a Placed>,
    ) -> Answer {
        let answers = if *name == self.name {
            self.of_mesh(kind, ordered)
        } else if let Some((_, node)) = self.nodes.iter().find(|it| it.0 == *name) {
            let ordered = ordered();
            let it = ordered.iter().find(|it| it.node == *node);
            it.map_or_else(Vec::new, |it| self.addresses(name, kind, &it.addresses))
        } else if self.name.zone_of(name) {
            let authority = Some(self.authority());
            return Answer { code: ResponseCode::NXDomain, answers: Vec::new(), authority };
        } else {
            return Answer::refused(ResponseCode::Refused);
        };
        let authority = answers.is_empty().then(|| self.authority());
        Answer { code: ResponseCode::NoError, answers, authority }
    }

    fn of_mesh<'a>(&self, kind: RecordType, ordered: impl Fn() -> Vec<&'a Placed>) -> Vec<Record> {
        let record = |data: RData| Record::from_rdata(self.name.clone(), self.ttl_s, data);
        #[expect(clippy::wildcard_enum_match_arm, reason = "forty kinds are not answered")]
        match kind {
            RecordType::A | RecordType::AAAA => {
                let of = |it: &&Placed| self.addresses(&self.name, kind, &it.addresses);
                ordered().iter().take(NODES_MAX).flat_map(of).collect()
            }
            RecordType::HTTPS => {
                let ranked = ordered();
                let service = |(at, it): (usize, &&Placed)| {
                    let name = &self.nodes.iter().find(|(_, node)| *node == it.node)?.0;
                    Some(record(RData::HTTPS(HTTPS(service(at as u16 + 1, name.clone(), it)))))
                };
                ranked.iter().take(NODES_MAX).enumerate().filter_map(service).collect()
            }
            RecordType::NS => {
                self.servers.iter().map(|it| record(RData::NS(NS(it.clone())))).collect()
            }
            RecordType::SOA => vec![self.authority()],
            _ => Vec::new(),
        }
    }

    fn addresses(&self, name: &Name, kind: RecordType, addresses: &[IpAddr]) -> Vec<Record> {
        let data = |ip: &IpAddr| match (kind, ip) {
            (RecordType::A, IpAddr::V4(ip)) => Some(RData::A(A(*ip))),
            (RecordType::AAAA, IpAddr::V6(ip)) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        };
        let record = |data| Record::from_rdata(name.clone(), self.ttl_s, data);
        addresses.iter().filter_map(data).map(record).collect()
    }

    /// The start of authority, whose last field says how long a "no" holds.
    fn authority(&self) -> Record {
        let server = self.servers.first().unwrap_or(&self.name).clone();
        let (serial, refresh, retry, expire) = (1, 3600, 600, 86_400);
        let soa = SOA::new(server, self.name.clone(), serial, refresh, retry, expire, self.ttl_s);
        Record::from_rdata(self.name.clone(), self.ttl_s, RData::SOA(soa))
    }
}

/// One node as a service of the mesh (RFC 9460): lower priorities are tried first.
fn service(priority: u16, name: Name, node: &Placed) -> SVCB {
    let v4: Vec<A> = node
        .addresses
        .iter()
        .filter_map(|it| if let IpAddr::V4(ip) = it { Some(A(*ip)) } else { None })
        .collect();
    let v6: Vec<AAAA> = node
        .addresses
        .iter()
        .filter_map(|it| if let IpAddr::V6(ip) = it { Some(AAAA(*ip)) } else { None })
        .collect();
    let alpn = Alpn(vec!["h2".to_owned(), "http/1.1".to_owned()]);
    let mut params = vec![(SvcParamKey::Alpn, SvcParamValue::Alpn(alpn))];
    if !v4.is_empty() {
        params.push((SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))));
    }
    if !v6.is_empty() {
        params.push((SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))));
    }
    SVCB::new(priority, name, params)
}

/// Nodes named in one answer: the one to use, and two to fall back to.
const NODES_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::Point;

    fn nodes() -> Vec<Placed> {
        let node = |name: &str, addresses: &[&str]| Placed {
            node: name.parse().unwrap(),
            point: Point::new(0.0, 0.0).unwrap(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        };
        vec![node("fra", &["192.0.2.1", "2001:db8::1"]), node("nyc", &["192.0.2.2"])]
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        let nodes = nodes();
        let servers = ["ns1.example.net".to_owned()];
        let answers =
            Answers::new("Gateway.example", &servers, 20, nodes.iter().map(|it| it.node)).unwrap();
        answers.answer(&Name::from_ascii(name).unwrap(), kind, || nodes.iter().collect())
    }

    fn texts(answer: &Answer) -> Vec<String> {
        answer.answers.iter().map(|it| it.data.to_string()).collect()
    }

    #[test]
    fn the_mesh_is_all_its_nodes_in_order() {
        let answer = ask("gateway.example.", RecordType::A);
        assert_eq!(texts(&answer), ["192.0.2.1", "192.0.2.2"]);
        assert!(answer.answers.iter().all(|it| it.ttl == 20));
        assert_eq!(texts(&ask("GATEWAY.example.", RecordType::AAAA)), ["2001:db8::1"]);
        let https = texts(&ask("gateway.example.", RecordType::HTTPS));
        assert!(https[0].starts_with("1 fra.Gateway.example."), "{https:?}");
        assert!(https[1].starts_with("2 nyc.Gateway.example."), "{https:?}");
        assert_eq!(texts(&ask("gateway.example.", RecordType::NS)), ["ns1.example.net."]);
    }

    #[test]
    fn each_node_has_a_name_of_its_own() {
        assert_eq!(texts(&ask("nyc.gateway.example.", RecordType::A)), ["192.0.2.2"]);
        let none = ask("nyc.gateway.example.", RecordType::AAAA);
        assert_eq!(none.code, ResponseCode::NoError);
        assert!(none.answers.is_empty() && none.authority.is_some());
    }

    #[test]
    fn what_is_not_ours_is_refused_and_what_is_not_there_denied() {
        assert_eq!(ask("sin.gateway.example.", RecordType::A).code, ResponseCode::NXDomain);
        assert_eq!(ask("example.", RecordType::A).code, ResponseCode::Refused);
        assert_eq!(ask("gateway.example.org.", RecordType::A).code, ResponseCode::Refused);
        let text = ask("gateway.example.", RecordType::TXT);
        assert!(text.code == ResponseCode::NoError && text.authority.is_some());
        assert_eq!(Answers::new("a..b", &[], 20, [].into_iter()).unwrap_err(), BadName);
    }
}
