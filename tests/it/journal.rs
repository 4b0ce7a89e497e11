//! What is left of requests when they are over: one line each, and no address anywhere.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use portolan::journal::verify;
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::node::{ONCE, Orch, Setup, params};

/// Addresses no test but this one names.
const CLIENTS: [&str; 3] = ["91.17.23.45", "12.34.56.78", "2003:e2:1234::5678"];

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn every_request_served_is_one_sound_line_without_an_address() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(written.clone())
        .finish();
    // This test's runtime has one thread, which is all the node runs on.
    let _logs = tracing::subscriber::set_default(subscriber);
    // With a single subscriber in the process, the library asks that of whichever thread comes by
    // a line first whether it is of interest; those of other tests have none.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());

    let orchs = [Orch::start(params()).await];
    let node = Setup::new("journal").start(&orchs).await;
    for client in CLIENTS {
        let request = Request::post(ONCE).header("portolan-client-ip", client);
        let answer = node.send(request.body(Bytes::from("12345")).unwrap()).await;
        assert_eq!(answer.text(), "12345");
        // Refused: it costs nobody anything and is not written.
        let request = Request::post("/apps/none/app").header("portolan-client-ip", client);
        node.send(request.body(Bytes::new()).unwrap()).await.refused(404);
    }
    let session = node.reserve().await;
    node.post(&format!("{}/x", session.app), "hello").await;
    node.post(&format!("{}/stop", session.control), "").await;
    let folder = node.stop().await;

    let path = folder.path().join("journal");
    let count = verify(&path).unwrap();
    assert_eq!((count.records, count.torn_bytes), (6, 0));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> =
        text.lines().map(|it| serde_json::from_str(&it[9..]).unwrap()).collect();
    assert_eq!((&lines[0]["country"], &lines[0]["home"]), (&"DE".into(), &"FRA".into()));
    assert_eq!((&lines[0]["bytes_up"], &lines[0]["bytes_down"]), (&5.into(), &5.into()));
    assert!(lines.iter().all(|it| it["end"] == "whole"), "{text}");
    let routes: Vec<&str> = lines[3..].iter().map(|it| it["route"].as_str().unwrap()).collect();
    assert_eq!(routes, ["/apps/{app}/session", "/run/{ticket}/{rest}", "/run/{ticket}/stop"]);
    assert!(lines[3..].iter().all(|it| it["session"] == session.id.as_str()));

    let logs = String::from_utf8_lossy(&written.0.lock().unwrap()).into_owned();
    assert!(logs.contains("served"), "{logs}");
    for client in CLIENTS {
        assert!(!text.contains(client) && !logs.contains(client), "{client} was written");
    }
    let sealed = session.app.strip_prefix("/run/").unwrap();
    assert!(!logs.contains(sealed) && !text.contains(sealed), "a rewritten URL was written");
}
