//! Handing over to a new process: nobody is refused, nothing is cut, and a new process that is
//! of no use changes nothing.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::node::{ONCE, Orch, RESERVE, params};

/// A node in a process of its own, started through a link so that its program can be exchanged.
struct Running {
    first: Child,
    said: Lines<BufReader<ChildStdout>>,
    public: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
    /// All that took over.
    later: Vec<u32>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &self.later {
            let mut kill = std::process::Command::new("kill");
            kill.args(["-9", &process.to_string()]).stderr(std::process::Stdio::null());
            // It may have ended by itself.
            drop(kill.status());
        }
    }
}

impl Running {
    async fn start(orch: &Orch, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[node]\nname = \"hand\"\nregion = \"FRA\"\n[listen]\npublic = \"127.0.0.1:0\"\n\
             admin = \"127.0.0.1:0\"\n[log]\njournal = \"journal\"\n{more}\n\
             [[orchestrator]]\nuri = \"{}\"\nregion = \"FRA\"\n",
            orch.uri
        );
        std::fs::write(folder.path().join("node.toml"), text).unwrap();
        Self::start_in(folder).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let program = folder.path().join("portolan");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portolan"), &program).unwrap();
        let mut first = Command::new(&program)
            .args(["run", "--config"])
            .arg(folder.path().join("node.toml"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(first.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap().unwrap();
        let at = |before: &str| {
            let (_, rest) = line.split_once(before).unwrap();
            rest.split(',').next().unwrap().trim().parse().unwrap()
        };
        let (public, admin) = (at("clients on "), at("operators on "));
        let it = Self { first, said, public, admin, folder, later: Vec::new() };
        let ready = async {
            while ask(it.admin, "GET", "/readyz", "").await.unwrap().0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ready).await.unwrap();
        it
    }

    /// Hands over and returns the new process, or why there is none.
    async fn hand_over(&mut self) -> Result<u32, String> {
        let (status, body) = ask(self.admin, "POST", "/v1/handover", "").await.unwrap();
        if status != 200 {
            return Err(body);
        }
        let told: Value = serde_json::from_str(&body).unwrap();
        let process = told["process"].as_u64().unwrap() as u32;
        self.later.push(process);
        Ok(process)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Exchanges the program for a script.
    fn break_program(&self, script: &str) {
        let program = self.folder.path().join("portolan");
        std::fs::remove_file(&program).unwrap();
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Asks on a connection of its own, which the answer closes.
async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut tcp = TcpStream::connect(at).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head[9..12].parse().unwrap(), body.to_owned()))
}

/// Asks again and again on new connections until told to stop.
fn load(at: SocketAddr, stop: &Arc<AtomicBool>, turns: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (stop, turns) = (Arc::clone(stop), Arc::clone(turns));
        load.spawn(async move {
            while !stop.load(Ordering::Acquire) {
                let (status, body) = ask(at, "POST", ONCE, "x").await.expect("a broken connection");
                assert_eq!(status, 200, "{body}");
                turns.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    load
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begin = portolan::clock::now();
    while !so().await {
        assert!(begin.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_one_process_takes_over_from_another() {
    let orch = Orch::start(params()).await;
    let mut node = Running::start(&orch, "[limits]\ndrain_s = 30").await;
    let (status, reserved) = ask(node.public, "POST", RESERVE, "{}").await.unwrap();
    assert_eq!(status, 200, "{reserved}");
    let reserved: Value = serde_json::from_str(&reserved).unwrap();
    let app = path_of(reserved["app_url"].as_str().unwrap());

    // Opened at the first process, goes on for longer than two hand-overs.
    let mut events = TcpStream::connect(node.public).await.unwrap();
    let head = format!("GET {app}/events?n=120&every_ms=50 HTTP/1.1\r\nhost: a\r\n\r\n");
    events.write_all(head.as_bytes()).await.unwrap();
    crate::apps::read_until(&mut events, "data:").await;

    let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = load(node.public, &stop, &turns);
    let first = node.hand_over().await.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
    let line = node.said.next_line().await.unwrap().unwrap();
    assert!(line.contains(&node.public.to_string()), "{line}");
    // A URL of the first process is good at the second, and so is another hand-over.
    assert_eq!(ask(node.public, "POST", &format!("{app}/x"), "y").await.unwrap().0, 200);
    until("another hand-over", async || node.hand_over().await.is_ok()).await;
    assert_ne!(node.later[0], *node.later.last().unwrap(), "{first}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Release);
    while let Some(ended) = load.join_next().await {
        ended.expect("a client failed");
    }
    assert!(turns.load(Ordering::Acquire) > 50, "hardly any load: {turns:?}");
    // The stream comes to its end, and then the first process does.
    crate::apps::read_until(&mut events, "0\r\n\r\n").await;
    let ended = tokio::time::timeout(Duration::from_secs(10), node.first.wait()).await;
    assert!(ended.expect("the first process stayed").unwrap().success(), "{}", node.log());
    let journal = node.folder.path().join("journal");
    portolan::journal::verify(&journal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_is_of_no_use_changes_nothing() {
    let orch = Orch::start(params()).await;
    let mut node = Running::start(&orch, "").await;
    let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = load(node.public, &stop, &turns);
    // A configuration that cannot be read.
    let file = node.folder.path().join("node.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("nonsense = 1\n{good}")).unwrap();
    let refused = node.hand_over().await.unwrap_err();
    assert!(refused.contains("ended before it was ready"), "{refused}");
    std::fs::write(&file, good).unwrap();
    // A program that ends at once, by a signal; then one that is not there.
    node.break_program("#!/bin/sh\nexit 1\n");
    signal(&node.first, "-USR2");
    until("the log says so", async || node.log().matches("not handed over").count() == 2).await;
    std::fs::remove_file(node.folder.path().join("portolan")).unwrap();
    let refused = node.hand_over().await.unwrap_err();
    assert!(refused.contains("did not start"), "{refused}");
    let before = turns.load(Ordering::Acquire);
    until("requests go on", async || turns.load(Ordering::Acquire) > before + 10).await;
    stop.store(true, Ordering::Release);
    while let Some(ended) = load.join_next().await {
        ended.expect("a client failed");
    }
    assert!(node.first.try_wait().unwrap().is_none(), "the node ended");
}

/// The peers never see two nodes of one name, and soon see the new process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_in_the_mesh_is_handed_over_too() {
    let orch = Orch::start(params()).await;
    let ca = crate::enroll::Ca::start().await;
    let [of_a, of_b] = [ca.join("a").await, ca.join("b").await];
    // A port that is free now, and most likely in a moment.
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = format!("data = \".\"\n[[peer]]\nnode = \"a\"\naddress = \"{free}\"");
    let b = of_b.setup("b", &peer).start(&[]).await;
    let at = b.app.mesh.unwrap();
    let peer = format!("data = \".\"\n[[peer]]\nnode = \"b\"\naddress = \"{at}\"");
    let before = of_a.setup("a", &peer).start(std::slice::from_ref(&orch)).await;
    let folder = before.stop().await;
    let file = folder.path().join("node.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, mesh) = text.split_once("[mesh]").unwrap();
    let mesh = mesh.replacen("127.0.0.1:0", &free.to_string(), 1);
    std::fs::write(&file, format!("{head}[mesh]{mesh}")).unwrap();
    let mut node = Running::start_in(folder).await;

    let epoch = || {
        let peers = b.app.gateway.shared.peers.load();
        let row = peers.row("a".parse().unwrap())?;
        row.epoch.filter(|_| row.standing == portolan::mesh::Standing::Up)
    };
    until("they are linked", async || epoch().is_some()).await;
    let first = epoch();
    node.hand_over().await.unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
    until("the new process is linked", async || epoch() > first).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(epoch() > first, "the old process came back");
}

fn signal(process: &Child, which: &str) {
    let id = process.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([which, &id]).status().unwrap().success());
}

fn path_of(url: &str) -> String {
    let (_scheme, rest) = url.split_once("://").unwrap();
    Path::new("/").join(rest.split_once('/').unwrap().1).to_str().unwrap().to_owned()
}
