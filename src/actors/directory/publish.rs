//! Rows into Views, ten times a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, gauge};
use ractor::ActorProcessingErr;

use crate::actors::directory::State;
use crate::actors::mesh;
use crate::actors::orchestrator::Msg as ChildMsg;
use crate::clock;
use crate::directory::{Named, Source};
use crate::health::{Candidate, OBSERVERS, Observation, observes};
use crate::id::OrchestratorId;
use crate::mesh::{Membership, PeerRow, Standing as PeerStanding};
use crate::uri::ServiceUri;
use crate::view::row::Standing;
use crate::view::{Row, View};

impl State {
    /// Has outcomes drained, starts due checks, publishes what changed.
    pub(super) async fn tick(&mut self, now: Instant) -> Result<(), ActorProcessingErr> {
        if self.alarm_at.is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        let view = self.args.shared.view.load_full();
        for (_slot, row) in view.rows().filter(|(_slot, row)| row.gauge.is_dirty()) {
            self.machine.handle_traffic(now, row.id);
            self.tell(row.id, ChildMsg::Drain);
        }
        self.release();
        self.report(&view);
        self.args.shared.upstream.sweep(now);
        let observed = self.worth_telling(&view);
        let mesh = self.args.shared.refs.mesh.load();
        if let (Some(mesh), false) = (mesh.as_ref(), observed.is_empty()) {
            // A mesh that is being restarted hears of it with the next change.
            drop(mesh.cast(mesh::Msg::Observed(observed)));
        }
        if !self.changes.is_empty() {
            self.publish(view).await?;
        }
        Ok(())
    }

    /// Returns what was observed and is this node's to tell: of orchestrators it uses or that
    /// failed it, and of those it is one of the observers of.
    fn worth_telling(&mut self, view: &View) -> Vec<Observation> {
        let mut observed = std::mem::take(&mut self.observed);
        let peers = self.args.shared.peers.load();
        let Some(local) = peers.local.filter(|_| peers.rows.len() >= OBSERVERS) else {
            return observed;
        };
        let gone = |row: &PeerRow| {
            row.standing != PeerStanding::Up && row.membership != Some(Membership::Alive)
        };
        let here = (local, Some(view.atlas.points[usize::from(view.atlas.home)]));
        let others = peers.rows.iter().filter(|row| !gone(row));
        let others = others.map(|row| (row.node, row.region.and_then(|it| self.point_of(it))));
        let nodes: Vec<_> = others.chain([here]).collect();
        observed.retain(|seen| {
            let used = seen.in_flight > 0 || seen.arrivals_milli > 0 || seen.failures_milli > 0;
            used || {
                let row = view.orchestrator(seen.orchestrator);
                let point = row.and_then(|(_slot, row)| row.point);
                let candidates: Vec<_> = nodes
                    .iter()
                    .map(|&(node, at)| Candidate {
                        node,
                        distance_m: at.zip(point).map(|(from, to)| from.distance_m(&to)),
                    })
                    .collect();
                observes(local, seen.orchestrator, &candidates)
            }
        });
        observed
    }

    /// Builds the next View off the runtime's workers and swaps it in.
    async fn publish(&mut self, view: Arc<View>) -> Result<(), ActorProcessingErr> {
        let changes: Vec<_> = std::mem::take(&mut self.changes).into_iter().collect();
        let names = self.args.shared.capabilities();
        // Names only ever grow; the same number of them is the same names.
        let same = names == *view.capabilities;
        let names = if same { Arc::clone(&view.capabilities) } else { Arc::new(names) };
        let next = tokio::task::spawn_blocking(move || view.next(clock::now(), names, changes));
        self.args.shared.view.store(Arc::new(next.await?));
        counter!("portolan_views_total").increment(1);
        Ok(())
    }

    pub(super) fn take_row(&mut self, row: Box<Row>, observation: Observation) {
        // A row that comes after its orchestrator was let go would never leave again.
        if !self.children.contains_key(&row.id) {
            return;
        }
        let view = self.args.shared.view.load();
        let known = view.orchestrator(row.id).is_some();
        // A restarted child has heard of nothing yet; the last row says more.
        if !(known && row.standing == Standing::Unknown) {
            self.changes.insert(row.id, Some(Arc::from(row)));
        }
        self.observed.push(observation);
    }

    /// Takes over from an earlier directory what it had fetched: those rows are looked after
    /// until their source is read again and says otherwise.
    pub(super) fn take_over(&mut self, now: Instant) {
        let view = self.args.shared.view.load_full();
        let configured = self.args.named.load_full();
        let mut fetched: Vec<Named> = Vec::new();
        let mut instances: BTreeMap<OrchestratorId, Vec<Named>> = BTreeMap::new();
        for (_slot, row) in view.rows() {
            if configured.listed.iter().any(|named| named.uri == row.uri) {
                continue;
            }
            let operator = row.operator.parse::<ServiceUri>().ok();
            let parent = operator.filter(|it| *it != row.uri);
            let named = Named {
                uri: row.uri.clone(),
                region: None,
                point: row.point,
                country: row.country,
                operator: parent.clone(),
                weight_permille: None,
            };
            match parent {
                Some(parent) => {
                    instances.entry(OrchestratorId::of(&parent)).or_default().push(named);
                }
                None if configured.fetched.is_empty() => {
                    self.changes.insert(row.id, None);
                }
                None => fetched.push(named),
            }
        }
        if let Some(first) = configured.fetched.first() {
            self.machine.handle_source(now, Source::Fetched(first.url.clone()), fetched);
        }
        for (parent, named) in instances {
            self.machine.handle_source(now, Source::Instance(parent), named);
        }
    }

    fn report(&self, view: &View) {
        let count = |standing: Standing| {
            view.rows().filter(|(_slot, row)| row.standing == standing).count() as f64
        };
        for (name, standing) in STANDINGS {
            gauge!("portolan_orchestrators", "standing" => name).set(count(standing));
        }
        gauge!("livepeer_ai_orchestrators_available_total").set(count(Standing::Ready));
        let peers = self.args.shared.peers.load();
        for (name, standing) in PEERS {
            let n = peers.rows.iter().filter(|row| row.standing == standing).count();
            gauge!("portolan_peers", "standing" => name).set(n as f64);
        }
        gauge!("portolan_orchestrators_left_out").set(self.machine.left_out() as f64);
    }
}

const PEERS: [(&str, PeerStanding); 3] = [
    ("up", PeerStanding::Up),
    ("down", PeerStanding::Down),
    ("quarantined", PeerStanding::Quarantined),
];
const STANDINGS: [(&str, Standing); 5] = [
    ("unknown", Standing::Unknown),
    ("ready", Standing::Ready),
    ("suspended", Standing::Suspended),
    ("probation", Standing::Probation),
    ("draining", Standing::Draining),
];
