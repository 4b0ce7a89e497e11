//! Addresses that somebody else names: a list's orchestrators, and where a list leads.

use std::time::Duration;

use portolan::view::Standing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::node::{Node, Orch, Setup, params};

/// Serves `answer` to whoever connects; returns where, and what ends it when dropped.
async fn list(answer: String) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut tcp, _peer) = listener.accept().await.unwrap();
            // One who left early is no matter.
            drop(tcp.read(&mut [0; 1024]).await);
            drop(tcp.write_all(answer.as_bytes()).await);
        }
    });
    (port, tasks)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn node(port: u16, more: &str) -> Node {
    let source =
        format!("[[source]]\nurl = \"http://127.0.0.1:{port}/list\"\nkind = \"webhook\"\n{more}");
    Setup::new("guard").more(&source).launch(&[]).await
}

#[tokio::test]
async fn what_a_list_names_is_not_looked_for_next_door() {
    let orch = Orch::start(params()).await;
    let (port, _tasks) = list(ok(&format!("[{{\"address\":\"{}\"}}]", orch.uri))).await;
    let denied = node(port, "").await;
    let view = || denied.app.gateway.shared.view.load();
    denied
        .until("it was looked at", || view().rows().any(|(_slot, row)| row.last_failure.is_some()))
        .await;
    let why = view().rows().next().unwrap().1.last_failure.clone().unwrap();
    assert!(why.contains("not public") && why.contains("upstream.allow_addresses"), "{why}");
    assert_eq!(orch.seen().await["apps"], 0);

    let listed = "[upstream]\nallow_addresses = [\"127.0.0.0/8\"]\n";
    let allowed = node(port, listed).await;
    allowed.until_ready(1).await;
}

#[tokio::test]
async fn a_list_that_points_elsewhere_is_not_followed() {
    let orch = Orch::start(params()).await;
    let (there, _there) = list(ok(&format!("[{{\"address\":\"{}\"}}]", orch.uri))).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{there}/list\r\n\
         connection: close\r\ncontent-length: 0\r\n\r\n"
    );
    let (here, _here) = list(redirect).await;
    let node = node(here, "[upstream]\nallow_addresses = [\"127.0.0.0/8\"]\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let view = node.app.gateway.shared.view.load();
    assert!(view.rows().all(|(_slot, row)| row.standing != Standing::Ready));
    assert_eq!(view.rows().count(), 0);
}
