//! What the configuration names, at start and after a reload.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorRef;

use crate::actors::directory::{Msg, State};
use crate::actors::orchestrator::Msg as ChildMsg;
use crate::actors::sources;
use crate::directory::Source;

impl State {
    /// Takes what the configuration lists, and reads the lists it names and no others.
    /// Whoever is named no more keeps the sessions it has.
    pub(super) fn configure(&mut self, now: Instant, myself: &ActorRef<Msg>) {
        let named = self.args.named.load_full();
        self.machine.handle_source(now, Source::Listed, named.listed.clone());
        let gone: Vec<_> = self
            .pollers
            .iter()
            .filter(|(_url, (fetch, _poller))| !named.fetched.contains(fetch))
            .map(|(url, _poller)| url.clone())
            .collect();
        for url in gone {
            if let Some((_fetch, poller)) = self.pollers.remove(&url) {
                poller.abort();
            }
            if !named.fetched.iter().any(|fetch| fetch.url == url) {
                self.machine.handle_source(now, Source::Fetched(url), Vec::new());
            }
        }
        for fetch in &named.fetched {
            if !self.pollers.contains_key(&fetch.url) {
                let shared = Arc::clone(&self.args.shared);
                let poll = sources::poll(fetch.clone(), shared, myself.clone());
                let poller = self.tasks.spawn(poll);
                self.pollers.insert(fetch.url.clone(), (fetch.clone(), poller));
            }
        }
    }

    /// Takes what a reload changed.
    pub(super) fn reload(&mut self, now: Instant, myself: &ActorRef<Msg>) {
        self.configure(now, myself);
        let params = self.args.named.load().orchestrator;
        for id in self.children.keys() {
            self.tell(*id, ChildMsg::Params(params));
        }
    }
}
