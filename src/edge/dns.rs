//! The DNS door: the mesh's name, answered with the addresses of nodes in the order in which
//! this client should try them.
//!
//! For clients that can do no better than connect to a name. Who asks is a resolver; the
//! client's own network is known only where a trusted resolver tells it (RFC 7871).

mod answer;
mod placed;
mod whom;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use metrics::counter;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use crate::address::Cidr;
use crate::clock;
use crate::edge::Gateway;
use crate::edge::resolve::Wanted;
use crate::id::NodeId;

pub use answer::{Answer, Answers, BadName};
pub use placed::{ADDRESSES_MAX, Placed};
pub use whom::Whom;

/// What this door answers.
#[derive(Clone, Debug)]
pub struct Params {
    /// The mesh's name and what is said under it.
    pub answers: Answers,
    /// The nodes that clients reach by it.
    pub nodes: Vec<Placed>,
    /// Resolvers whose word on their clients' networks is taken.
    pub trusted: Vec<Cidr>,
}

/// Answers questions until `stop` says so.
pub async fn serve(
    gateway: Arc<Gateway>,
    params: Params,
    (udp, tcp): (UdpSocket, TcpListener),
    mut stop: watch::Receiver<bool>,
) {
    let mut server = Server::new(Door { gateway, params });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_WITHIN, TCP_BUFFER);
    // An error says that whoever would stop it is gone.
    drop(stop.wait_for(|stop| *stop).await);
    if let Err(error) = server.shutdown_gracefully().await {
        tracing::debug!(%error, "the DNS door closed with an error");
    }
}

struct Door {
    gateway: Arc<Gateway>,
    params: Params,
}

impl Door {
    /// Returns the nodes as whoever asks should try them.
    fn ordered(&self, whom: &Whom) -> Vec<&Placed> {
        let located = self.gateway.locate_ip(whom.ip).widened(whom.is_wide);
        let now = clock::now();
        let open = self.gateway.entrances(now, &located, String::new(), &Wanted::default());
        let open: Vec<NodeId> = open.iter().map(|it| it.node).collect();
        let ordered = placed::open(&self.params.nodes, &open);
        if !ordered.is_empty() {
            return ordered;
        }
        counter!("portolan_dns_all_down_total").increment(1);
        placed::nearest(&self.params.nodes, &located.caller.place.point)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Door {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut respond: R,
    ) -> ResponseInfo {
        let told = request.edns.as_ref().and_then(|it| match it.option(EdnsCode::Subnet) {
            Some(EdnsOption::Subnet(subnet)) => Some(*subnet),
            Some(_) | None => None,
        });
        let whom = Whom::of(request.src().ip(), told.map(plain), &self.params.trusted);
        let answer = match (request.metadata.op_code, request.request_info()) {
            (OpCode::Query, Ok(asked)) => {
                let query = (asked.query.name().into(), asked.query.query_type());
                self.params.answers.answer(&query.0, query.1, || self.ordered(&whom))
            }
            (_, Ok(_)) => Answer::refused(ResponseCode::NotImp),
            (_, Err(_)) => Answer::refused(ResponseCode::FormErr),
        };
        let code = if answer.code == ResponseCode::NoError { "no-error" } else { "other" };
        counter!("portolan_dns_answers_total", "code" => code).increment(1);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.message_type = MessageType::Response;
        metadata.authoritative = answer.code != ResponseCode::Refused;
        metadata.response_code = answer.code;
        let edns = request.edns.is_some().then(|| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            if let Some(subnet) = told {
                // The scope says whom else the answer is for; nobody's word was taken: for all.
                let scope = if whom.was_told { whom.scope } else { 0 };
                let (address, source) = (subnet.addr(), subnet.source_prefix());
                let subnet = ClientSubnet::new(address, source, scope);
                edns.options_mut().insert(EdnsOption::Subnet(subnet));
            }
            edns
        });
        let mut response = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            response.edns(edns);
        }
        let response = response.build(metadata, &answer.answers, [], answer.authority.as_ref(), []);
        respond.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a DNS answer was not sent");
            hickory_server::proto::op::Header {
                metadata,
                counts: hickory_server::proto::op::HeaderCounts::default(),
            }
            .into()
        })
    }
}

fn plain(subnet: ClientSubnet) -> (IpAddr, u8) {
    (subnet.addr(), subnet.source_prefix())
}

/// A resolver has its question ready when it connects.
const TCP_WITHIN: Duration = Duration::from_secs(5);
/// Answers under way to one resolver.
const TCP_BUFFER: usize = 32;
/// Larger datagrams may be fragmented on the way (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
