//! Nodes that run while their names change: renewed by the CA, revoked, given by files.

use std::time::Duration;

use http::Method;
use portolan::clock;
use portolan::enroll::Rotation;
use portolan::net::tls::{Identity, Trust};

use crate::enroll::Ca;
use crate::mesh::{member, n_links, peer};
use crate::node::Node;

fn file(node: &Node, name: &str) -> std::path::PathBuf {
    node.folder.path().join(name)
}

fn identity(node: &Node) -> Identity {
    Identity::load(&file(node, "node.pem"), &file(node, "node.key")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_at_a_new_ca_and_a_revoked_peer_is_gone_within_a_second() {
    let ca = Ca::start().await;
    ca.folder.rotate(Rotation::Add).unwrap();
    let [of_a, of_b] = [ca.join("a").await, ca.join("b").await];
    ca.folder.rotate(Rotation::Reissue { force: true }).unwrap();
    let asks = format!("enrolment = \"{}\"\n[[peer]]\nnode = \"b\"\n", ca.at);
    let a = member(&of_a, "a", &asks, &[]).await;
    // The other is fed by files alone.
    let b = member(&of_b, "b", &peer("a", &a), &[]).await;
    a.until("the link is up", || n_links(&a) == 1 && n_links(&b) == 1).await;

    let signs = Trust::load("mesh.test", &file(&a, "ca.pem")).unwrap().certificates().unwrap();
    a.until("a has a certificate of the new CA", || {
        let now = Trust::load("mesh.test", &file(&a, "ca.pem")).unwrap();
        let facts = identity(&a).facts().unwrap();
        facts.is_by(&now.certificates().unwrap()[0])
            && facts.serial != of_a.identity.facts().unwrap().serial
    })
    .await;
    assert_eq!(signs.len(), 2);
    assert_eq!(identity(&a).key_pem, of_a.identity.key_pem, "the key stays");
    assert!(n_links(&a) == 1, "a renewal cuts no link");
    let metrics = a.admin(Method::GET, "/metrics").await;
    for name in [
        "portolan_mesh_certificate_expiry_timestamp_seconds",
        "portolan_mesh_renewals_total{outcome=\"renewed\"}",
    ] {
        assert!(metrics.text().contains(name), "{name}");
    }

    // Nonsense in a file changes nothing, and what follows it is taken.
    std::fs::write(file(&b, "revoked.pem"), "nonsense").unwrap();
    let refused = b.admin(Method::POST, "/v1/reload").await.refused(409);
    assert!(refused.contains("revoked.pem"), "{refused}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(n_links(&b) == 1);

    // b hears by its file that a is revoked; a still asks, and hears it from the CA.
    ca.folder.revoke_node("a".parse().unwrap()).unwrap();
    let list = std::fs::read(ca.path.join("revoked.pem")).unwrap();
    let began = clock::now();
    std::fs::write(file(&b, "revoked.pem"), list).unwrap();
    b.until("the link is gone", || n_links(&b) == 0).await;
    assert!(clock::now() - began < Duration::from_millis(1500));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(n_links(&b) + n_links(&a) == 0, "no link came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_of_a_revocation_from_the_ca() {
    let ca = Ca::start().await;
    let [of_a, of_b] = [ca.join("a").await, ca.join("b").await];
    let asks = format!("enrolment = \"{}\"\n[[peer]]\nnode = \"b\"\n", ca.at);
    let a = member(&of_a, "a", &asks, &[]).await;
    let b = member(&of_b, "b", &peer("a", &a), &[]).await;
    a.until("the link is up", || n_links(&a) == 1 && n_links(&b) == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ca.folder.revoke_node("b".parse().unwrap()).unwrap();
    let began = clock::now();
    while n_links(&a) > 0 {
        assert!(clock::now() - began < Duration::from_secs(2), "the CA's word did not arrive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs a command of the program to its end; returns whether it went well, and what it said.
fn portolan(dir: &std::path::Path, args: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
    let done = command.args(args).current_dir(dir).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).unwrap())
}

/// A service that runs, until it is dropped.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_commands_of_the_readme_make_a_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let run = |line: &str| portolan(dir, &line.split(' ').collect::<Vec<_>>());
    #[track_caller]
    fn check((well, said): (bool, String), part: &str) -> String {
        assert!(well && said.contains(part), "{part:?} is missing in: {said}");
        said
    }
    let said = check(run("ca init --trust-domain mesh.test"), "operator.key");
    let fingerprint = said.lines().next().unwrap().to_owned();
    assert_eq!(run("ca fingerprint"), (true, format!("{fingerprint}\n")));

    let mut service = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
    let service = service.args(["ca", "serve", "--listen", "127.0.0.1:0"]).current_dir(dir);
    let service = service.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut service = Served(service);
    let mut line = String::new();
    let mut said = std::io::BufReader::new(service.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let at = line.trim().rsplit(' ').next().unwrap();

    check(run("node keygen --out node.key"), "stays on this machine");
    let key = std::fs::read(dir.join("node.key")).unwrap();
    let again = run("node keygen --out node.key");
    assert!(!again.0 && again.1.contains("there already"), "{again:?}");
    let unplaced = check(run("ca token --node fra-1 --ttl 10m"), &fingerprint);
    let unplaced = unplaced.lines().next().unwrap().strip_prefix("portolan ").unwrap();
    assert!(run(unplaced).1.contains("the host and the port of `portolan ca serve`"));
    let told = check(run(&format!("ca token --node fra-1 --ttl 10m --ca {at}")), &fingerprint);
    let told = told.trim();
    let enroll = told.strip_prefix("portolan ").unwrap();
    let table = check(run(enroll), "[mesh]");
    assert_eq!(std::fs::read(dir.join("node.key")).unwrap(), key);
    let refused = run(enroll);
    assert!(!refused.0 && refused.1.contains("unknown, used or expired"), "{refused:?}");
    let secret = enroll.rsplit(':').next().unwrap();
    assert!(!refused.1.contains(secret), "the token is told to nobody");

    // What it printed is what a node's file needs.
    let text = format!("[node]\nname = \"fra-1\"\nregion = \"FRA\"\n{table}");
    std::fs::write(dir.join("node.toml"), text).unwrap();
    check(run("check --config node.toml"), "mesh.test");

    check(run("ca rotate add"), &fingerprint);
    check(run("ca rotate reissue --force"), "signs; next comes `drop`");
    let early = run("ca rotate drop");
    assert!(!early.0 && early.1.contains("fra-1"), "{early:?}");
    check(run("ca revoke --node fra-1"), "revoked certificates of fra-1: 1");
    check(run("ca rotate drop"), "complete");
    check(run("ca revoke --serial 0a:0b"), "0a0b");
    let nobody = run("ca revoke --node nyc-1");
    assert!(!nobody.0 && nobody.1.contains("--serial"), "{nobody:?}");
}
