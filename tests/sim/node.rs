//! A node of this program as a gateway: its machines, its View and its choices, without its
//! sockets and actors.

mod defaults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan::clock;
use portolan::directory::{self, Directory, Named, Source};
use portolan::geo::{Confidence, Place, Point, expected_rtt};
use portolan::health::{HealthStore, MemoryStore, Outbox, Sent, Versioned};
use portolan::id::{NodeId, OrchestratorId};
use portolan::orchestrator::evidence::Told;
use portolan::orchestrator::{Answer, CheckFailure, Declared, Orchestrator, Output};
use portolan::policy::{Ask, Caller, PathKind, Rules, choose, in_order, rank};
use portolan::unit::Micros;
use portolan::uri::ServiceUri;
use portolan::view::outcome::{Gauge, Outcome};
use portolan::view::{Atlas, Capabilities, CapabilityId, Standing, View};

use self::defaults::{APP, DIRECTORY, HEALTH, PARAMS, advert};
use super::algorithm::{Answered, End};
use super::draws;
use super::gateway::Gateway;
use super::world::{Site, World};

/// The node.
pub(crate) struct Node {
    start: Instant,
    site: Site,
    peers: Vec<Site>,
    slots: Vec<usize>,
    uris: Vec<ServiceUri>,
    by_id: BTreeMap<OrchestratorId, usize>,
    directory: Directory,
    machines: Vec<Orchestrator>,
    alarms: Vec<Option<Instant>>,
    gauges: Vec<Arc<Gauge>>,
    /// Whether an attempt holds the one place of a probation.
    probes: Vec<bool>,
    view: View,
    names: Arc<Capabilities>,
    rules: Rules,
    caller: Caller,
    changed: BTreeSet<usize>,
    outbox: Outbox,
    store: MemoryStore,
    sent: Vec<u64>,
    checks: Vec<usize>,
    better_warm: Option<usize>,
}

impl Node {
    /// Starts the node of the `number`th gateway.
    pub(crate) fn new(world: &World, number: usize) -> Self {
        let (start, site) = (clock::now(), world.gateways[number].clone());
        let uri = |server: usize| -> ServiceUri { format!("https://o{server}:1").parse().unwrap() };
        let uris: Vec<ServiceUri> = (0..world.servers.len()).map(uri).collect();
        let gauges: Vec<Arc<Gauge>> = uris.iter().map(|_| Arc::default()).collect();
        let machine = |server: usize| {
            let at = &world.servers[server].site;
            let declared = Declared {
                uri: uris[server].clone(),
                operator: uris[server].as_str().into(),
                point: Some(at.point),
                region: at.number,
                country: None,
                weight_permille: 1000,
            };
            let draw = draws::word(&[world.seed, 9, number as u64, server as u64]);
            let gauge = Arc::clone(&gauges[server]);
            Orchestrator::new(start, PARAMS, declared, site.point, gauge, draw)
        };
        let mut names = Capabilities::default();
        names.intern(APP).unwrap();
        let named = |uri: &ServiceUri| Named {
            uri: uri.clone(),
            region: None,
            point: None,
            country: None,
            operator: None,
            weight_permille: None,
        };
        let mut directory = Directory::new(start, DIRECTORY);
        directory.handle_source(start, Source::Listed, uris.iter().map(named).collect());
        let atlas = Arc::new(Atlas { home: site.number, ..Atlas::clone(&world.atlas) });
        let place = Place { point: site.point, country: None, confidence: Confidence::City };
        let caller = Caller { place, cell: atlas.cell(&place), observed: Vec::new() };
        let mut node = Self {
            machines: (0..uris.len()).map(machine).collect(),
            alarms: vec![None; uris.len()],
            probes: vec![false; uris.len()],
            by_id: uris.iter().enumerate().map(|(at, uri)| (OrchestratorId::of(uri), at)).collect(),
            slots: world.servers.iter().map(|it| it.slots).collect(),
            peers: world.gateways.clone(),
            view: View::empty(start, atlas),
            names: Arc::new(names),
            rules: Rules::default(),
            changed: BTreeSet::new(),
            outbox: Outbox::new(HEALTH),
            store: MemoryStore::new(HEALTH),
            sent: vec![0; world.gateways.len()],
            checks: Vec::new(),
            better_warm: None,
            start,
            site,
            uris,
            directory,
            gauges,
            caller,
        };
        node.drain_directory();
        node
    }

    fn at(&self, now: u64) -> Instant {
        self.start + Duration::from_micros(now)
    }

    fn ask<'a>(
        &'a self,
        caller: &'a Caller,
        path: PathKind,
        tried: &'a [OrchestratorId],
    ) -> Ask<'a> {
        Ask { tried, ..Ask::new(caller, CapabilityId(0), path, &self.rules) }
    }

    /// Carries out what a machine asks for, as its actor does.
    fn perform(&mut self, now: Instant, server: usize) {
        while let Some(output) = self.machines[server].poll_output() {
            match output {
                Output::Changed => drop(self.changed.insert(server)),
                Output::Doubt => {
                    self.directory.handle_doubt(now, OrchestratorId::of(&self.uris[server]));
                }
            }
        }
        self.alarms[server] = self.machines[server].next_timeout(now);
        self.drain_directory();
    }

    fn drain_directory(&mut self) {
        while let Some(output) = self.directory.poll_output() {
            if let directory::Output::Check(id) = output {
                self.checks.push(self.by_id[&id]);
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let mut rows = Vec::with_capacity(self.changed.len());
        for server in std::mem::take(&mut self.changed) {
            let names = &self.names;
            let row = self.machines[server].row(now, |name| names.number(name));
            self.outbox.record(now, self.machines[server].observation(now));
            rows.push((row.id, Some(Arc::new(row))));
        }
        if !rows.is_empty() {
            self.view = self.view.next(now, Arc::clone(&self.names), rows);
        }
    }

    fn tell_of(&mut self, now: Instant, id: OrchestratorId) {
        let server = self.by_id[&id];
        let told = self.store.observations(now, id).into_iter().map(|it| {
            let peer = self.peers.iter().find(|peer| name(peer) == it.node);
            let way = |peer: &Site| expected_rtt(self.site.point.distance_m(&peer.point));
            Told {
                node: it.node,
                observation: it.observation,
                at: now.checked_sub(it.age).unwrap_or(now),
                peer_rtt: peer.map(way),
                peer_point: peer.map(|it| it.point),
            }
        });
        let told = told.collect();
        self.machines[server].handle_told(now, told);
        self.perform(now, server);
    }
}

impl Gateway for Node {
    fn choose(&mut self, now: u64, tried: &[usize], word: u64) -> Option<usize> {
        let tried: Vec<_> = tried.iter().map(|it| OrchestratorId::of(&self.uris[*it])).collect();
        let ask = self.ask(&self.caller, PathKind::Relayed, &tried);
        let decision = choose(&self.view, |gauge| gauge.into(), &ask, self.at(now), word).ok()?;
        self.better_warm = decision.better_warm().map(|it| self.by_id[&it.orchestrator]);
        Some(self.by_id[&decision.chosen().orchestrator])
    }

    fn better_warm(&mut self) -> Option<usize> {
        self.better_warm.take()
    }

    fn list(&mut self, now: u64, point: &Point, word: u64) -> Vec<usize> {
        let place = Place { point: *point, country: None, confidence: Confidence::City };
        let cell = self.view.atlas.cell(&place);
        let caller = Caller { place, cell, observed: Vec::new() };
        let (now, ask) = (self.at(now), self.ask(&caller, PathKind::Direct, &[]));
        let ranked = rank(&self.view, |gauge| gauge.into(), &ask, now, self.uris.len());
        let order = in_order(ranked, self.uris.len(), word);
        self.view.promise(now, order.iter().map(|it| it.member));
        order.iter().map(|it| self.by_id[&it.orchestrator]).collect()
    }

    fn begin(&mut self, _now: u64, server: usize) -> bool {
        let id = OrchestratorId::of(&self.uris[server]);
        let standing = self.view.orchestrator(id).map(|(_slot, row)| row.standing);
        if standing == Some(Standing::Probation) {
            if !self.gauges[server].take_probe() {
                return false;
            }
            self.probes[server] = true;
        }
        self.gauges[server].begin();
        true
    }

    fn end(&mut self, _now: u64, server: usize, answered: Answered) {
        let gauge = &self.gauges[server];
        if std::mem::take(&mut self.probes[server]) {
            gauge.end_probe();
        }
        let id = OrchestratorId::of(&self.uris[server]);
        let link = self.view.orchestrator(id).map_or(0, |(_slot, row)| row.link.rtt.0);
        gauge.end(match answered.end {
            End::Served => {
                Outcome::Served { service: Micros(answered.waited.saturating_sub(link)), offer: 0 }
            }
            End::Full => Outcome::Full,
            End::Failed | End::Broken | End::Silent => Outcome::Failed,
        });
    }

    fn warm(&mut self, server: usize, idle: u32) {
        self.gauges[server].set_warm(idle);
    }

    fn checked(&mut self, now: u64, server: usize, answer: Option<(u64, usize)>) {
        let (now, id) = (self.at(now), OrchestratorId::of(&self.uris[server]));
        let end = match answer {
            None => Err(CheckFailure::Silent(Duration::from_secs(3))),
            Some((rtt, used)) => Ok(Answer {
                rtt: Some(Micros(rtt)),
                runners: Some(vec![advert(&self.uris[server], self.slots[server], used)]),
                info: None,
            }),
        };
        let answered = end.is_ok();
        self.machines[server].handle_check(now, end);
        self.perform(now, server);
        self.directory.handle_checked(now, id, answered);
        self.drain_directory();
    }

    fn tick(&mut self, now: u64) {
        let now = self.at(now);
        self.directory.handle_timeout(now);
        self.publish(now);
        for id in self.store.expire(now) {
            self.tell_of(now, id);
        }
        for server in 0..self.machines.len() {
            if self.gauges[server].is_dirty() {
                self.directory.handle_traffic(now, OrchestratorId::of(&self.uris[server]));
                let drained = self.gauges[server].drain();
                self.machines[server].handle_outcomes(now, &drained);
                self.perform(now, server);
            }
            if self.alarms[server].is_some_and(|at| at <= now) {
                self.machines[server].handle_timeout(now);
                self.perform(now, server);
            }
        }
        self.drain_directory();
    }

    fn checks(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.checks)
    }

    fn tell(&mut self, now: u64, peer: usize) -> Vec<Versioned> {
        let sent = Sent { urgent: 0, others: self.sent[peer] };
        let records = self.outbox.others_since(self.at(now), sent, usize::MAX);
        self.sent[peer] = self.outbox.version();
        records
    }

    fn told(&mut self, now: u64, peer: usize, records: &[Versioned]) {
        let (now, origin) = (self.at(now), name(&self.peers[peer]));
        for id in self.store.apply(now, origin, 1, records).changed {
            self.tell_of(now, id);
        }
    }
}

fn name(site: &Site) -> NodeId {
    NodeId(site.region.0)
}
