//! A thousand orchestrators, half of them dead, and a node that is ready at once.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use http::Method;
use portolan::clock;
use portolan::devorch::Params;

use crate::node::{Orch, Setup, params};

/// Processes of orchestrators, and addresses of the loopback network each is reached by.
const LISTENING: usize = 25;
const ADDRESSES: usize = 20;
/// One silent orchestrator after the other would take as many seconds as there are; a busy
/// machine takes some as well.
const AT_ONCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the times are what one wants to know")]
async fn a_thousand_orchestrators_of_which_half_are_dead_make_a_node_ready_at_once() {
    let mut orchs = Vec::new();
    let mut listed = String::new();
    let mut list = |at: usize, port: u16| {
        // The first is the address an orchestrator announces; only there is it relayed to.
        let host = if at == 0 { "0.0.0.0".to_owned() } else { format!("127.0.{at}.1") };
        writeln!(listed, "[[orchestrator]]\nuri = \"https://{host}:{port}\"").unwrap();
    };
    for _ in 0..LISTENING {
        let listen = ([0, 0, 0, 0], 0).into();
        let orch = Orch::start(Params { listen, ..params() }).await;
        let port = orch.uri.port();
        orchs.push(orch);
        (0..ADDRESSES).for_each(|at| list(at, port));
    }
    // A port nobody listens on, since its listener is gone.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (0..250).for_each(|at| list(at, dead));
    let silent = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    (0..250).for_each(|at| list(at, port));

    let setup = Setup::new("scale").more("[limits]\nchecks_per_second = 200\n").more(&listed);
    let begin = clock::now();
    let node = setup.launch(&[]).await;
    let started = begin.elapsed();
    let mut first = None;
    while first.is_none() {
        let ready = node.admin(Method::GET, "/readyz").await;
        if ready.status.is_success() {
            first = Some(begin.elapsed());
            assert_eq!(ready.json()["status"], "ready");
        }
        assert!(begin.elapsed() < AT_ONCE, "not ready: {}", ready.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ready = first.unwrap();
    println!("started in {started:?}, ready in {ready:?}");
    // In the end everyone alive is found in spite of those that hang.
    let begin = clock::now();
    loop {
        let ready = node.admin(Method::GET, "/readyz").await.json();
        if ready["orchestrators_ready"] == LISTENING * ADDRESSES {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{ready}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("everyone alive was found after {:?}", begin.elapsed());
    assert_eq!(node.call("served").await.text(), "served");
}
