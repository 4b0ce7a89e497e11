//! The table, drawn over itself on a terminal, one after the other elsewhere.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use anyhow::Result;

use crate::demo::children::Children;
use crate::demo::client::Visit;
use crate::demo::plan::{CLIENTS, Plan};
use crate::demo::watch::{Seen, Watcher};

/// Where the demo is drawn.
#[derive(Debug)]
pub(super) struct Screen {
    plain: bool,
    news: VecDeque<String>,
}

impl Screen {
    /// Draws over the last table only on a terminal.
    pub(super) fn new(plain: bool) -> Self {
        Self { plain: plain || !std::io::stdout().is_terminal(), news: VecDeque::new() }
    }

    /// Prints addresses, process ids and lines to paste.
    pub(super) fn introduce(&self, plan: &Plan, children: &Children) -> Result<()> {
        print(&introduction(plan, children)?)
    }

    /// Draws one table.
    pub(super) fn draw(
        &mut self,
        plan: &Plan,
        children: &Children,
        seconds: u64,
        visits: &[Visit],
        watcher: &Watcher,
        news: &[String],
    ) -> Result<()> {
        self.news.extend(news.iter().cloned());
        while self.news.len() > NEWS_SHOWN {
            self.news.pop_front();
        }
        let mut text = String::new();
        if !self.plain {
            // Home, and clear to the end.
            text.push_str("\x1b[H\x1b[2J");
            text.push_str(&introduction(plan, children)?);
        }
        writeln!(text, "-- after {seconds} s: who is steered where, and why")?;
        writeln!(
            text,
            "{:<13} | {:<8} | {:<4} | {:<12} | {:<6} | {:>5} | why",
            "client", "home", "node", "orchestrator", "region", "ms"
        )?;
        for it in visits {
            writeln!(
                text,
                "{:<13} | {:<8} | {:<4} | {:<12} | {:<6} | {:>5} | {}",
                it.place, it.home, it.node, it.orchestrator, it.region, it.took_ms, it.why
            )?;
        }
        sights(&mut text, plan, watcher)?;
        let shown: Vec<&String> =
            if self.plain { news.iter().collect() } else { self.news.iter().collect() };
        for line in shown {
            writeln!(text, "news: {line}")?;
        }
        print(&text)
    }

    /// Prints one line.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        print(&format!("{text}\n"))
    }
}

fn introduction(plan: &Plan, children: &Children) -> Result<String> {
    let mut text = format!(
        "Portolan demo: {} nodes, {} orchestrators\nfiles and logs are in {}\n",
        plan.nodes.len(),
        plan.orchestrators.len(),
        plan.folder().display()
    );
    for (at, node) in plan.nodes.iter().enumerate() {
        let pid = children.node(at).unwrap_or_default();
        writeln!(
            text,
            "node         | {:<6} | pid {pid:<7} | clients {} | operators {}",
            node.name, node.public, node.admin
        )?;
    }
    for (at, it) in plan.orchestrators.iter().enumerate() {
        let pid = children.orchestrator(at).unwrap_or_default();
        writeln!(text, "orchestrator | {:<6} | pid {pid:<7} | {}", it.name, it.uri)?;
    }
    suggest(&mut text, plan, children)?;
    Ok(text)
}

fn suggest(text: &mut String, plan: &Plan, children: &Children) -> Result<()> {
    let (node, ip) = (&plan.nodes[0], CLIENTS[0].ip);
    writeln!(text, "try:")?;
    writeln!(
        text,
        "  curl -si -H 'Portolan-Client-Ip: {ip}' -H 'Portolan-Explain: 1' -d '{{}}' '{}/apps/demo~2fonce/app'",
        node.public
    )?;
    writeln!(
        text,
        "  curl -s -H 'Portolan-Client-Ip: {ip}' '{}/discover-orchestrators?app=demo/echo'",
        node.public
    )?;
    writeln!(text, "  curl -s '{}/v1/explain?ip={ip}&capability=demo/once'", node.admin)?;
    for at in [0, 3, 6] {
        if let (Some(it), Some(pid)) = (plan.orchestrators.get(at), children.orchestrator(at)) {
            writeln!(text, "  kill -9 {pid}   # {}: watch its clients move", it.name)?;
        }
    }
    if let (Some(it), Some(pid)) = (plan.nodes.get(1), children.node(1)) {
        writeln!(text, "  kill -9 {pid}   # the node {}: its clients enter by another", it.name)?;
    }
    Ok(())
}

fn sights(text: &mut String, plan: &Plan, watcher: &Watcher) -> Result<()> {
    writeln!(
        text,
        "-- what each node sees (round trip, standing when not ready, * told by a peer; gone: the \
         node itself)"
    )?;
    for (number, orchestrator) in plan.orchestrators.iter().enumerate() {
        write!(text, "{:<6}", orchestrator.name)?;
        for (at, node) in plan.nodes.iter().enumerate() {
            let seen = (!watcher.silent[at]).then_some(&watcher.seen[at][number]);
            write!(text, " | {}", sight(&node.name, seen))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// What a node sees of one orchestrator; of one that is gone nothing is known.
fn sight(node: &str, seen: Option<&Seen>) -> String {
    let Some(seen) = seen else { return format!("{node} {:>4} ms {:<9}", "-", "gone") };
    let standing = if seen.standing == "ready" { "" } else { &seen.standing };
    let star = if seen.told_by.is_some() { "*" } else { "" };
    format!("{node} {:>4.0} ms {standing:<9}{star}", seen.rtt_ms)
}

/// Writes to standard output; whoever reads it may be gone, which is an error like any other.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// The latest news stay in sight.
const NEWS_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_sees_nothing() {
        let seen = |standing: &str| Seen {
            standing: standing.to_owned(),
            rtt_ms: 25.4,
            told_by: Some("fra".to_owned()).filter(|_| standing != "ready"),
        };
        assert_eq!(sight("nyc", Some(&seen("ready"))), "nyc   25 ms          ");
        assert_eq!(sight("nyc", Some(&seen("suspended"))), "nyc   25 ms suspended*");
        assert_eq!(sight("nyc", None), "nyc    - ms gone     ");
    }
}
