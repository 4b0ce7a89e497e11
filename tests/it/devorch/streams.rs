use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;

use super::{Orchestrator, params};

#[tokio::test]
async fn every_event_comes_alone_and_in_time() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    let request = Request::get(format!("{app}/events?n=3&every_ms=100")).body("").unwrap();
    let answer = orch.open(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for seq in 0..3 {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let expected = format!("id: {seq}\ndata: {{\"seq\":{seq}}}\n\n");
        assert_eq!(std::str::from_utf8(&frame).unwrap(), expected);
    }
    assert!(body.frame().await.is_none());
}

/// Sends messages over a WebSocket, one after the other, and returns the answers until the
/// socket breaks. The client blocks, so it has a thread of its own.
async fn echoes(addr: SocketAddr, app: String, messages: Vec<Message>) -> Vec<Message> {
    let talk = move || {
        let tcp = TcpStream::connect(addr).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let url = format!("ws://orchestrator.test{app}/ws");
        let (mut socket, _) = tungstenite::client(url, tcp).unwrap();
        let mut echo = |message| {
            socket.send(message).ok()?;
            socket.read().ok()
        };
        messages.into_iter().map_while(&mut echo).collect()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn a_web_socket_echoes_text_and_bytes() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    let messages = vec![Message::text("hi"), Message::binary(vec![0; 300_000])];
    assert_eq!(echoes(orch.addr, app, messages.clone()).await, messages);
}

#[tokio::test]
async fn a_cut_web_socket_breaks_after_its_bytes() {
    let mut orch = Orchestrator::start(params()).await;
    let app = orch.reserve().await;
    orch.post("/dev/fail", "cut-stream=4").await;
    let messages = vec![Message::text("12"); 3];
    let answers = echoes(orch.addr, app, messages).await;
    assert!((1..3).contains(&answers.len()), "{answers:?}");
}
