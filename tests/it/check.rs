//! The command line as a newcomer meets it: `portolan check` refuses what `portolan run` does, in
//! the same words, and what went wrong is said once, with what to do.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::node::{Orch, Setup, params};

const NODE: &str = "[node]\nname = \"fra-1\"\nregion = \"FRA\"\n";

fn portolan(command: &str, folder: &TempDir, log: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_portolan"));
    program.args([command, "--config"]).arg(folder.path().join("node.toml"));
    program.env("PORTOLAN_LOG", log).output().unwrap()
}

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn check_refuses_what_run_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let listen = |public: &str, admin: &str| {
        format!("{NODE}[listen]\npublic = \"{public}\"\nadmin = \"{admin}\"\n")
    };
    for (text, log, part) in [
        (format!("{NODE}ticket_key = \"none.key\"\n"), "off", "node.ticket_key"),
        (format!("{NODE}[log]\njournal = \"node.toml/x\"\n"), "off", "log.journal"),
        (listen("0.0.0.0:7936", "127.0.0.1:7936"), "off", "listen.admin"),
        (listen("localhost:1", "127.0.0.1:7936"), "off", "listen.public"),
        (listen("127.0.0.1:0", "127.0.0.1:0"), "inof", "PORTOLAN_LOG"),
    ] {
        std::fs::write(folder.path().join("node.toml"), &text).unwrap();
        let (checked, ran) = (portolan("check", &folder, log), portolan("run", &folder, log));
        assert_eq!(said(&checked), said(&ran), "{text}");
        let (code, error) = said(&checked);
        assert_eq!(code, 64, "{text}");
        assert!(error.contains(part), "{part} is missing in: {error}");
        assert!(checked.stdout.is_empty() && ran.stdout.is_empty());
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing was made");
    }
}

#[test]
fn check_warns_of_what_runs_and_is_odd() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{NODE}[listen]\nadmin = \"0.0.0.0:7936\"\n");
    std::fs::write(folder.path().join("node.toml"), text).unwrap();
    let output = portolan("check", &folder, "");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in ["warning        listen.admin", "warning        orchestrator = none", "ok, but"] {
        assert!(stdout.contains(part), "{part} is missing in: {stdout}");
    }
}

/// A second node of the same file hears of the port, which tells more than the journal's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_is_told_of_the_port() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("first").start(std::slice::from_ref(&orch)).await;
    let path = node.folder.path().join("node.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let public = format!("public = \"{}\"", node.app.public);
    std::fs::write(&path, text.replacen("public = \"127.0.0.1:0\"", &public, 1)).unwrap();
    let (code, error) = said(&portolan("run", &node.folder, "off"));
    assert_eq!(code, 64);
    let expected = format!("listen.public = {}: is another process using it?", node.app.public);
    assert!(error.contains(&expected), "{error}");
    assert!(!error.contains("journal"), "{error}");
}

/// Runs a command on a node's admin door, which is gone when there is no node.
fn command(words: &[&str], admin: std::net::SocketAddr) -> (i32, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_portolan"));
    said(&program.args(words).args(["--admin", &format!("http://{admin}")]).output().unwrap())
}

#[test]
fn without_a_node_that_is_said_once() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, error) = command(&["members"], gone);
    assert_eq!(code, 64);
    assert_eq!(error.matches("refused").count(), 1, "{error}");
    for part in ["portolan run --config", "--admin", &gone.to_string()] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    let (code, error) = command(&["explain", "--ip", "banana", "--capability", "x"], gone);
    assert_ne!(code, 0);
    assert!(error.contains("'banana'") && error.contains("such as 8.8.8.8"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_shows_where_a_file_is_wrong_and_what_a_start_would_refuse() {
    let orch = Orch::start(params()).await;
    let node = Setup::new("lines").start(std::slice::from_ref(&orch)).await;
    let path = node.folder.path().join("node.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("region = \"FRA\"", "region = FRA")).unwrap();
    let (code, error) = command(&["reload", "--dry-run"], node.app.admin);
    assert_eq!(code, 64);
    let has_line = |line: &str| error.lines().any(|it| it == line);
    assert!(has_line("3 | region = FRA"), "{error}");
    assert!(has_line("text stands in quotes: region = \"FRA\""), "{error}");
    std::fs::write(&path, text).unwrap();
    std::fs::remove_file(node.folder.path().join("ticket.key")).unwrap();
    let told = node.admin(http::Method::POST, "/v1/reload?dry_run=true").await.json();
    let warning = told["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("a start would be refused: node.ticket_key"), "{told}");
    assert_eq!(told["changes"].as_array().unwrap().len(), 0, "{told}");
}
