//! The demo as a person runs it: its table says who serves whom, before and after a death.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan::clock;

/// Nine clients and the orchestrators that have to serve them.
const NEAR: [(&str, &str); 9] = [
    ("Germany", "fra-a"),
    ("France", "fra-a"),
    ("Britain", "fra-a"),
    ("United States", "nyc-a"),
    ("Canada", "nyc-a"),
    ("Brazil", "nyc-a"),
    ("Japan", "sin-a"),
    ("Singapore", "sin-a"),
    ("Australia", "sin-a"),
];
/// The whole test ends within this.
const PATIENCE: Duration = Duration::from_secs(90);

/// A demo that runs, and all it has said.
struct Demo {
    process: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    said: Vec<String>,
    until: Instant,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["demo", "--plain", "--every-ms", "500"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (told, lines) = channel();
        let reader = std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        let until = clock::now() + PATIENCE;
        Self { process, lines, reader: Some(reader), said: Vec::new(), until }
    }

    /// Reads on until `found` finds what it looks for in a line or what came before it.
    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&[String]) -> Option<T>) -> T {
        loop {
            if let Some(found) = found(&self.said) {
                return found;
            }
            let left = self.until.saturating_duration_since(clock::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(ended) => panic!("{what}: {ended}; it said:\n{}", self.said.join("\n")),
            }
        }
    }

    fn pid(&self, name: &str) -> u32 {
        let line = self.said.iter().find(|it| cells(it).get(1) == Some(&name)).unwrap();
        cells(line)[2].strip_prefix("pid ").unwrap().parse().unwrap()
    }

    fn pids(&self) -> Vec<u32> {
        let listed = self.said.iter().map(|it| cells(it));
        listed.filter_map(|it| it.get(2)?.strip_prefix("pid ")?.parse().ok()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its children see the end of their standard input.
        drop(self.process.kill());
        drop(self.process.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.split('|').map(str::trim).collect()
}

/// Which node `client` enters by and who serves it, by the last whole table in `said`.
fn serves<'a>(said: &'a [String], client: &str) -> Option<(&'a str, &'a str)> {
    let end = said.iter().rposition(|it| it.starts_with("-- what each node sees"))?;
    let row = said[..end].iter().rev().find(|it| cells(it)[0] == client)?;
    let row = cells(row);
    Some((row.get(2)?, row.get(3)?))
}

fn all_served_by(said: &[String], expected: &[(&str, &str)]) -> Option<()> {
    let by = |(client, name): &(&str, &str)| {
        let node = name.split('-').next().unwrap();
        serves(said, client) == Some((node, *name))
    };
    expected.iter().all(by).then_some(())
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {pid}");
}

fn lives(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is dead and waits for its parent to notice.
    !state.is_empty() && !state.rsplit(')').next().unwrap().trim().starts_with('Z')
}

#[test]
fn clients_are_served_nearby_and_move_when_their_orchestrator_dies() {
    let mut demo = Demo::start();
    demo.until("every client is served by the nearest", |said| all_served_by(said, &NEAR));
    let steady = demo.said.len();
    let pids = demo.pids();
    assert_eq!(pids.len(), 12, "{}", demo.said.join("\n"));

    kill("-9", demo.pid("fra-a"));
    let moved = ["Germany", "France", "Britain"].map(|client| (client, "fra-b"));
    demo.until("the Europeans move to fra-b", |said| all_served_by(said, &moved));
    demo.until("a node learns of the death from another", |said| {
        let learned = |peer: &str| format!("news: {peer} learned from fra that fra-a fails");
        let told = [learned("nyc"), learned("sin")];
        said.iter().any(|it| told.iter().any(|told| it.starts_with(told))).then_some(())
    });
    let stay = &NEAR[3..];
    demo.until("the others stay", |said| all_served_by(said, stay));
    for line in &demo.said[steady..] {
        let row = cells(line);
        if NEAR.iter().any(|(client, _)| row[0] == *client) {
            assert!(row[6].contains(" ms = path"), "a turn failed: {line}");
        }
    }

    // A node dies: its clients enter by another, and are served by whom they were.
    assert!(demo.said.iter().any(|it| it.contains("# the node nyc: its clients enter by another")));
    kill("-9", demo.pid("nyc"));
    let dead = demo.said.len();
    demo.until("the Americans enter by another node", |said| {
        let entered = |client| serves(&said[dead..], client);
        let elsewhere = |client| {
            entered(client).is_some_and(|(node, by)| ["fra", "sin"].contains(&node) && by != "-")
        };
        ["United States", "Canada", "Brazil"].into_iter().all(elsewhere).then_some(())
    });

    demo.until("no round trip of the dead node is shown", |said| {
        let table = said.iter().rposition(|it| it.starts_with("-- what each node sees"))?;
        let rows = said[table..].iter().skip(1).take(9);
        let gone = rows.filter(|it| cells(it).get(2) == Some(&"nyc    - ms gone")).count();
        (gone == 9).then_some(())
    });
    kill("-TERM", demo.process.id());
    demo.until("it drains", |said| said.iter().find(|it| it.starts_with("draining")).map(|_| ()));
    let ended = demo.process.wait().unwrap();
    assert!(ended.success(), "{ended}");
    let left: Vec<&u32> = pids.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "children outlive the demo: {left:?}");
}
