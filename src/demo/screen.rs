//! The table, drawn over itself on a terminal, one after the other elsewhere.

#![expect(clippy::print_stdout, reason = "the demo draws its table")]

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use anyhow::Result;

use crate::demo::children::Children;
use crate::demo::client::Visit;
use crate::demo::plan::{CLIENTS, Plan};
use crate::demo::watch::Watcher;

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
        println!(
            "Portolan demo: {} nodes, {} orchestrators",
            plan.nodes.len(),
            plan.orchestrators.len()
        );
        println!("files and logs are in {}", plan.folder().display());
        for (at, node) in plan.nodes.iter().enumerate() {
            let pid = children.node(at).unwrap_or_default();
            println!(
                "node         | {:<6} | pid {pid:<7} | clients {} | operators {}",
                node.name, node.public, node.admin
            );
        }
        for (at, it) in plan.orchestrators.iter().enumerate() {
            let pid = children.orchestrator(at).unwrap_or_default();
            println!("orchestrator | {:<6} | pid {pid:<7} | {}", it.name, it.uri);
        }
        self.suggest(plan, children);
        std::io::stdout().flush()?;
        Ok(())
    }

    fn suggest(&self, plan: &Plan, children: &Children) {
        let (node, ip) = (&plan.nodes[0], CLIENTS[0].ip);
        println!("try:");
        println!(
            "  curl -si -H 'Portolan-Client-Ip: {ip}' -H 'Portolan-Explain: 1' -d '{{}}' '{}/apps/demo~2fonce/app'",
            node.public
        );
        println!(
            "  curl -s -H 'Portolan-Client-Ip: {ip}' '{}/discover-orchestrators?app=demo/echo'",
            node.public
        );
        println!("  curl -s '{}/v1/explain?ip={ip}&capability=demo/once'", node.admin);
        for at in [0, 3, 6] {
            if let (Some(it), Some(pid)) = (plan.orchestrators.get(at), children.orchestrator(at)) {
                println!("  kill -9 {pid}   # {}: watch its clients move", it.name);
            }
        }
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
        if !self.plain {
            // Home, and clear to the end.
            print!("\x1b[H\x1b[2J");
            self.introduce(plan, children)?;
        }
        println!("-- after {seconds} s: who is steered where, and why");
        println!(
            "{:<13} | {:<8} | {:<4} | {:<12} | {:<6} | {:>5} | why",
            "client", "home", "node", "orchestrator", "region", "ms"
        );
        for it in visits {
            println!(
                "{:<13} | {:<8} | {:<4} | {:<12} | {:<6} | {:>5} | {}",
                it.place, it.home, it.node, it.orchestrator, it.region, it.took_ms, it.why
            );
        }
        println!("-- what each node sees (round trip, standing when not ready, * told by a peer)");
        for (number, orchestrator) in plan.orchestrators.iter().enumerate() {
            print!("{:<6}", orchestrator.name);
            for (at, node) in plan.nodes.iter().enumerate() {
                let seen = &watcher.seen[at][number];
                let standing = if seen.standing == "ready" { "" } else { &seen.standing };
                let star = if seen.told_by.is_some() { "*" } else { "" };
                print!(" | {} {:>4.0} ms {standing:<9}{star}", node.name, seen.rtt_ms);
            }
            println!();
        }
        let shown: Vec<&String> =
            if self.plain { news.iter().collect() } else { self.news.iter().collect() };
        for line in shown {
            println!("news: {line}");
        }
        std::io::stdout().flush()?;
        Ok(())
    }

    /// Prints one line.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        println!("{text}");
        std::io::stdout().flush()?;
        Ok(())
    }
}

/// The latest news stay in sight.
const NEWS_SHOWN: usize = 8;
