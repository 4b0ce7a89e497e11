//! Reading the configuration again: what changes, what does not, and who notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::apps::read_until;
use crate::listen::Trusted;
use crate::node::{Answer, Node, Orch, Setup, params};

/// Changes the node's file and returns what it says to that.
async fn reload(node: &Node, change: impl Fn(&str) -> String, dry_run: bool) -> Answer {
    let path = node.folder.path().join("node.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(&text)).unwrap();
    node.admin(Method::POST, &format!("/v1/reload?dry_run={dry_run}")).await
}

fn with(more: &'static str) -> impl Fn(&str) -> String {
    move |text| format!("{text}{more}")
}

#[tokio::test]
async fn a_reload_is_shown_as_a_diff_and_applied_as_a_whole() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("reload").start(std::slice::from_ref(&orch)).await;
    let more = "[policy]\nnever = [\"https://127.0.0.9:1\"]\n";
    let shown = reload(&node, with(more), true).await.json();
    assert_eq!(shown["changes"][0]["key"], "policy.never", "{shown}");
    assert_eq!(node.app.gateway.params.load().rules.never.len(), 0, "a dry run changes nothing");
    let done = reload(&node, |text| text.to_owned(), false).await.json();
    assert_eq!((&done["version"], &done["changes"]), (&2.into(), &shown["changes"]));
    assert_eq!(node.app.gateway.params.load().rules.never.len(), 1);
    let told = node.admin_json("/v1/node").await;
    assert_eq!((&told["config"]["version"], &told["config"]["hash"]), (&2.into(), &done["hash"]));

    for (bad, part) in [
        ("[limits]\nattempts = 0\n", "limits.attempts"),
        ("[limits]\nin_flight = 7\n", "restart: limits.in_flight"),
        ("nonsense = 1\n", "node.toml"),
    ] {
        let before = std::fs::read_to_string(node.folder.path().join("node.toml")).unwrap();
        let put = format!("{bad}{before}");
        let refused = reload(&node, |_| put.clone(), false).await.refused(409);
        assert!(refused.contains(part), "{refused}");
        std::fs::write(node.folder.path().join("node.toml"), before).unwrap();
    }
    assert_eq!(node.app.gateway.params.load().rules.never.len(), 1, "the last good one stays");
    assert_eq!(node.call("x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn orchestrators_come_and_go_and_keep_their_sessions() {
    let orchs = [Orch::start(params()).await, Orch::start(params()).await];
    let node = Setup::new("listed").start(&orchs[..1]).await;
    let session = node.reserve().await;
    let more = format!("[[orchestrator]]\nuri = \"{}\"\nregion = \"FRA\"\n", orchs[1].uri);
    let swap = |text: &str| {
        let (kept, _listed) = text.split_once("[[orchestrator]]").unwrap();
        format!("{kept}{more}")
    };
    assert_eq!(reload(&node, swap, false).await.status, StatusCode::OK);
    let id = portolan::id::OrchestratorId::of(&orchs[1].uri);
    node.until("the new one is ready, and alone", || {
        let view = node.app.gateway.shared.view.load();
        let ready: Vec<_> = view
            .rows()
            .filter(|(_, row)| row.standing == portolan::view::Standing::Ready)
            .map(|(_, row)| row.id)
            .collect();
        ready == [id]
    })
    .await;
    let used = node.post(&format!("{}/x", session.app), "still here").await;
    assert_eq!(used.text(), "still here");
    let answer = node.call("x").await;
    assert_eq!(answer.header("portolan-orchestrator"), id.to_string());
}

/// Streams of every kind live through a hundred reloads under load, certificates included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_cut_nothing_and_fail_nothing() {
    let orchs = [Orch::start(params()).await, Orch::start(params()).await];
    let trusted = Trusted::new(&["fra.test"]);
    let mut setup = Setup::new("hundred")
        .more("[[listener]]\naddress = \"127.0.0.1:0\"\ncert = \"c.pem\"\nkey = \"k.pem\"");
    setup.files.push(("c.pem".to_owned(), trusted.cert.clone().into_bytes()));
    setup.files.push(("k.pem".to_owned(), trusted.key.clone().into_bytes()));
    let node = Arc::new(setup.start(&orchs).await);
    let session = node.reserve().await;

    // Server-sent events.
    let events = Request::get(format!("{}/events?n=150&every_ms=20", session.app));
    let events = node.open(events.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(events.status(), StatusCode::OK);
    // An upload that goes on, and comes back as it goes.
    let mut upload = TcpStream::connect(node.app.public).await.unwrap();
    let head = format!(
        "POST {}/up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        session.app
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // A WebSocket that is spoken over all the while.
    let (at, told) = (node.app.public, Arc::clone(&stop));
    let url = format!("ws://{at}{}/ws", session.app);
    let socket = tokio::task::spawn_blocking(move || talk(&url, at, &told));
    let mut load = JoinSet::new();
    for client in 0..4 {
        let (node, stop, turns) = (Arc::clone(&node), Arc::clone(&stop), Arc::clone(&turns));
        let trusted = trusted.clone();
        load.spawn(async move {
            while !stop.load(Ordering::Acquire) {
                if client % 2 == 0 {
                    assert_eq!(node.call("x").await.status, StatusCode::OK);
                } else {
                    let at = node.app.all_public[1];
                    let mut tls = trusted.connect(at, "fra.test", &["http/1.1"]).await.unwrap();
                    let request =
                        b"GET /v1/resolve HTTP/1.1\r\nHost: fra.test\r\nConnection: close\r\n\r\n";
                    tls.write_all(request).await.unwrap();
                    let mut answer = Vec::new();
                    drop(tls.read_to_end(&mut answer).await);
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
                }
                turns.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    for turn in 0..100 {
        // A fresh certificate by the same key, and another knob, each time.
        let attempts = format!("[limits]\nattempts = {}\n", 2 + turn % 3);
        let change = |text: &str| {
            let kept = text.split("[limits]").next().unwrap();
            format!("{kept}{attempts}")
        };
        std::fs::write(node.folder.path().join("c.pem"), trusted.again()).unwrap();
        let done = reload(&node, change, false).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text());
        let piece = format!("piece {turn:04}");
        upload.write_all(format!("a\r\n{piece}\r\n").as_bytes()).await.unwrap();
        read_until(&mut upload, &piece).await;
    }
    stop.store(true, Ordering::Release);
    while let Some(ended) = load.join_next().await {
        ended.expect("a client failed");
    }
    upload.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut upload, "0\r\n\r\n").await;
    assert!(socket.await.unwrap() > 10, "the WebSocket was hardly used");
    let events = events.into_body().collect().await.expect("the events were cut").to_bytes();
    let n = events.windows(5).filter(|it| *it == b"data:").count();
    assert_eq!(n, 150, "{}", String::from_utf8_lossy(&events));
    assert!(turns.load(Ordering::Acquire) > 100, "hardly any load: {turns:?}");
}

/// Sends and hears messages until told to stop; returns how many.
fn talk(url: &str, at: std::net::SocketAddr, stop: &AtomicBool) -> usize {
    let tcp = std::net::TcpStream::connect(at).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut socket, _answer) = tungstenite::client(url, tcp).unwrap();
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        let message = Message::text(format!("message {n}"));
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
        n += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    n
}
