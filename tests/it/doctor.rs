//! What the doctor says, by the program itself.

use serde_json::Value;

use crate::node::{Orch, Setup, params};

/// Runs it on a file, and returns its code with what it found.
async fn doctor(file: &std::path::Path) -> (i32, Vec<Value>) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.args(["doctor", "--json", "--config"]).arg(file);
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let found = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}"));
    (output.status.code().unwrap(), found)
}

fn is(found: &[Value], check: &str, level: &str, part: &str) -> bool {
    let of = |it: &&Value| it["check"] == check && it["level"] == level;
    found.iter().filter(of).any(|it| it["found"].as_str().unwrap().contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_what_is_wrong_and_says_what_to_do() {
    let mut orch = Orch::start(params()).await;
    let node = Setup::new("sick").start(std::slice::from_ref(&orch)).await;
    let folder = node.stop().await;
    let file = folder.path().join("node.toml");
    let (code, found) = doctor(&file).await;
    assert_eq!(code, 0, "{found:#?}");
    for check in ["clock", "port", "ticket key", "journal", "orchestrator"] {
        assert!(is(&found, check, "well", ""), "{check}: {found:#?}");
    }
    // Another process at a port, an orchestrator that is gone, a key that is none.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let admin = format!("admin = \"{}\"", taken.local_addr().unwrap());
    std::fs::write(&file, text.replace("admin = \"127.0.0.1:0\"", &admin)).unwrap();
    std::fs::write(folder.path().join("ticket.key"), "secret").unwrap();
    orch.die().await;
    let (code, found) = doctor(&file).await;
    assert_eq!(code, 1, "{found:#?}");
    assert!(is(&found, "port", "bad", "admin"), "{found:#?}");
    assert!(is(&found, "orchestrator", "bad", "https://127.0.0.1"), "{found:#?}");
    assert!(is(&found, "ticket key", "bad", "64 hexadecimal digits"), "{found:#?}");
    for it in &found {
        assert_eq!(it["remedy"].is_string(), it["level"] != "well", "{it}");
        assert!(!it.to_string().contains("secret"), "{it}");
    }
}
