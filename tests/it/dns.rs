//! The DNS door, asked as resolvers ask it.

use std::net::SocketAddr;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_server::proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::node::{Node, Setup};

/// Two names of nodes, of which the one that runs here is the second.
const ZONE: &str = r#"
[dns]
listen = "127.0.0.1:0"
name = "gateway.example"
servers = ["ns1.example"]
trusted_resolvers = ["127.0.0.0/8"]

[[dns.node]]
node = "sin-1"
region = "SIN"
addresses = ["192.0.2.2", "2001:db8::2"]

[[dns.node]]
node = "names"
region = "FRA"
addresses = ["192.0.2.1"]
"#;

async fn start() -> Node {
    Setup::new("names").more(ZONE).launch(&[]).await
}

fn question(name: &str, kind: RecordType, subnet: Option<&str>) -> Message {
    let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
    asked.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(subnet) = subnet {
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Subnet(subnet.parse().unwrap()));
        asked.edns = Some(edns);
    }
    asked
}

async fn ask(at: SocketAddr, asked: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&asked.to_vec().unwrap(), at).await.unwrap();
    let mut answer = [0; 4096];
    let (n, _from) = socket.recv_from(&mut answer).await.unwrap();
    Message::from_vec(&answer[..n]).unwrap()
}

fn texts(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|it| it.data.to_string()).collect()
}

#[tokio::test]
async fn only_nodes_that_take_clients_are_answered() {
    let node = start().await;
    let at = node.app.dns.unwrap();
    let asked = question("gateway.example.", RecordType::A, None);
    assert_eq!(texts(&ask(at, &asked).await), ["192.0.2.1"], "the other one was never seen");
    // A node that is to stop leaves the answer; with nobody left, the map decides.
    node.app.gateway.drain();
    let here = ask(at, &question("gateway.example.", RecordType::A, Some("91.0.0.0/24"))).await;
    assert_eq!(texts(&here), ["192.0.2.1", "192.0.2.2"]);
    let far = ask(at, &question("gateway.example.", RecordType::A, Some("118.200.0.0/24"))).await;
    assert_eq!(texts(&far), ["192.0.2.2", "192.0.2.1"]);
}

#[tokio::test]
async fn the_scope_of_an_answer_says_whom_it_is_for() {
    let node = start().await;
    let at = node.app.dns.unwrap();
    for (subnet, scope) in [("91.0.0.0/24", 24), ("91.0.0.77/32", 24), ("0.0.0.0/0", 0)] {
        let answer = ask(at, &question("gateway.example.", RecordType::A, Some(subnet))).await;
        let edns = answer.edns.unwrap();
        let Some(EdnsOption::Subnet(told)) = edns.option(EdnsCode::Subnet) else {
            panic!("no subnet in {edns:?}");
        };
        assert_eq!(told.scope_prefix(), scope, "{subnet}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_ours_are_told_apart() {
    let node = start().await;
    let at = node.app.dns.unwrap();
    for (name, kind, code, n_authority) in [
        ("gateway.example.", RecordType::TXT, ResponseCode::NoError, 1),
        ("x.gateway.example.", RecordType::A, ResponseCode::NXDomain, 1),
        ("example.org.", RecordType::A, ResponseCode::Refused, 0),
    ] {
        let answer = ask(at, &question(name, kind, None)).await;
        assert_eq!((answer.metadata.response_code, answer.authorities.len()), (code, n_authority));
        assert!(answer.answers.is_empty());
    }
    let mut update = question("gateway.example.", RecordType::A, None);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(ask(at, &update).await.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn it_answers_over_tcp_and_outlives_noise() {
    let node = start().await;
    let at = node.app.dns.unwrap();
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 11, 12, 13, 512] {
        noise.send_to(&vec![0xff; length], at).await.unwrap();
    }
    let mut tcp = TcpStream::connect(at).await.unwrap();
    let asked = question("gateway.example.", RecordType::HTTPS, None).to_vec().unwrap();
    tcp.write_u16(asked.len() as u16).await.unwrap();
    tcp.write_all(&asked).await.unwrap();
    let mut answer = vec![0; tcp.read_u16().await.unwrap().into()];
    tcp.read_exact(&mut answer).await.unwrap();
    let texts = texts(&Message::from_vec(&answer).unwrap());
    assert!(texts[0].starts_with("1 names.gateway.example."), "{texts:?}");
}
