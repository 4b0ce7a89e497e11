//! Where a job goes next: the choice, under the operator's policies and the client's wishes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::uri::PathAndQuery;
use metrics::{counter, gauge};

use crate::clock;
use crate::edge::Gateway;
use crate::edge::decisions::Record;
use crate::edge::job::{Job, Work};
use crate::edge::open::unknown;
use crate::edge::refusal::ServeError;
use crate::edge::route::Route;
use crate::id::OrchestratorId;
use crate::policy::ask::Running;
use crate::policy::{
    Ask, Decision, Exclusion, Left, NoRoute, Panic, PathKind, Rules, choose, panic,
};
use crate::unit::Micros;
use crate::view::column::COLD_ROUND_TRIPS;
use crate::view::{CapabilityId, View};

/// A policy that had a part in a decision; each is counted, and shown by `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applied {
    /// The client named one, and nobody else.
    Pinned,
    /// The client ruled some out.
    Excluded,
    /// The client set a deadline.
    Deadline,
    /// The client prefers one.
    Preferred,
    /// Who served the client before serves it again.
    Affinity,
    /// The price ceiling was raised, since nobody was below it.
    PriceRelaxed,
    /// Suspensions were overlooked, since too little is left.
    Panic,
}

/// How much is left of each capability, worked out once for each View.
#[derive(Debug, Default)]
pub struct Panics(Mutex<BTreeMap<CapabilityId, (u64, Left)>>);

impl Panics {
    fn left(&self, view: &View, capability: CapabilityId, now: Instant) -> Left {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&capability) {
            Some((version, left)) if *version == view.version => *left,
            Some(_) | None => {
                let left = panic::left(view, |gauge| gauge.into(), capability, now);
                known.insert(capability, (view.version, left));
                let n = known.values().filter(|(_version, left)| *left != Left::Enough).count();
                gauge!("portolan_panics").set(n as f64);
                left
            }
        }
    }
}

impl Gateway {
    /// Returns where `job` goes next.
    pub(crate) fn choose(&self, view: &View, job: &mut Job) -> Result<Route, ServeError> {
        match &job.work {
            Work::Within { ticket, path, .. } => {
                let lost = || ServeError::SessionOver("its orchestrator is not known here".into());
                let (_slot, row) = view.orchestrator(ticket.orchestrator).ok_or_else(lost)?;
                Ok(Route { row: Arc::clone(row), offer: 0, path: readable(path.clone())? })
            }
            Work::Refresh { bound } => {
                let lost = || ServeError::SessionOver("its orchestrator is not known here".into());
                let (_slot, row) = view.orchestrator(*bound).ok_or_else(lost)?;
                let path = readable(format!("{}/refresh-payment", row.uri.base_path()))?;
                Ok(Route { row: Arc::clone(row), offer: 0, path })
            }
            Work::New { .. } => self.choose_new(view, job),
        }
    }

    fn choose_new(&self, view: &View, job: &mut Job) -> Result<Route, ServeError> {
        let Work::New { app, capability, bound, .. } = &job.work else {
            return Err(ServeError::NoDoor);
        };
        let (app, capability, is_bound) = (Arc::clone(app), *capability, bound.is_some());
        let params = Arc::clone(&job.visit.params);
        let now = clock::now();
        if job.tried.len() >= params.attempts_max {
            return Err(job.nobody_left().unwrap_or(ServeError::Full(None)));
        }
        if job.left(now).is_some_and(|left| left.is_zero()) {
            return Err(ServeError::Deadline);
        }
        let mut applied = Vec::new();
        match (params.panic, self.panics.left(view, capability, now)) {
            (Panic::All, Left::Little | Left::Nothing) => applied.push(Applied::Panic),
            (Panic::ShedLow, Left::Little) if job.is_paid() => {}
            (Panic::FailFast | Panic::ShedLow, Left::Little) => return Err(ServeError::Panic),
            // Where nobody is left, there is nothing to keep; why, is told with the refusal.
            (Panic::FailFast | Panic::ShedLow, Left::Nothing) | (_, Left::Enough) => {}
        }
        let chosen = self.choose_within(view, job, now, &mut applied);
        job.choosing += clock::now().saturating_duration_since(now);
        let decision = match chosen {
            Ok(decision) => decision,
            Err(no_route) if no_route.excluded.is_empty() => return Err(unknown(view, &app)),
            Err(_no_route) if is_bound => {
                // The one it belongs to cannot take it.
                job.unbind();
                return self.choose_new(view, job);
            }
            Err(no_route) => return Err(self.nobody(view, job, no_route, now)),
        };
        self.open_ahead(view, &decision, now);
        let member = decision.chosen().member;
        self.record(job, app, applied, decision);
        let Work::New { query, .. } = &job.work else { return Err(ServeError::NoDoor) };
        let row = view.row(member.slot).ok_or(ServeError::NoDoor)?;
        let offer = row.offers.get(usize::from(member.offer));
        let runner = offer.and_then(|it| it.runner.as_ref()).ok_or(ServeError::NoDoor)?;
        let path = runner.path.as_ref().ok_or(ServeError::NoDoor)?;
        let path = match query.as_str() {
            "" => path.clone(),
            query => readable([path.as_str(), query].concat())?,
        };
        Ok(Route { row: Arc::clone(row), offer: member.offer, path })
    }

    /// Chooses under the rules, narrowed by the client; and once more with a raised ceiling
    /// where the operator lets it be raised and nobody is below it.
    fn choose_within(
        &self,
        view: &View,
        job: &Job,
        now: Instant,
        applied: &mut Vec<Applied>,
    ) -> Result<Decision, NoRoute> {
        let params = &job.visit.params;
        let mut rules = self.under_orders(&params.rules, view, &job.visit.located);
        job.wishes.narrow(&mut rules);
        let Work::New { bound, .. } = &job.work else { return Err(NoRoute::default()) };
        if let Some(bound) = bound {
            rules.to_mut().only = Some([*bound].into());
        }
        let wished = [
            (job.wishes.only.is_some(), Applied::Pinned),
            (!job.wishes.never.is_empty(), Applied::Excluded),
            (job.wishes.deadline.is_some(), Applied::Deadline),
        ];
        applied.extend(wished.iter().filter(|(is, _)| *is).map(|(_, policy)| *policy));
        let chosen = self.choose_once(view, job, now, &rules, applied);
        let ceiling = params.rules.price_max_wei.filter(|_| params.price_relax_permille > 0);
        match (chosen, ceiling) {
            (Err(no_route), Some(ceiling)) if no_route.has(Exclusion::PriceCeiling) => {
                let more = ceiling / 1000 * u128::from(params.price_relax_permille);
                rules.to_mut().price_max_wei = Some(ceiling.saturating_add(more));
                applied.push(Applied::PriceRelaxed);
                self.choose_once(view, job, now, &rules, applied)
            }
            (chosen, _) => chosen,
        }
    }

    fn choose_once(
        &self,
        view: &View,
        job: &Job,
        now: Instant,
        rules: &Rules,
        applied: &mut Vec<Applied>,
    ) -> Result<Decision, NoRoute> {
        let Work::New { capability, variant, mode, bound, .. } = &job.work else {
            return Err(NoRoute::default());
        };
        let held =
            job.wishes.affinity.and_then(|key| self.affinities.find(now, (key, *capability)));
        let running = job.wishes.prefer.or(held);
        let ask = Ask {
            caller: &job.visit.located.caller,
            capability: *capability,
            path: PathKind::Relayed,
            mode: Some(*mode),
            variant: Some(*variant),
            gpus: &[],
            rules,
            overlook: applied.contains(&Applied::Panic),
            // What was paid to one of them is of use nowhere else: it does not wait.
            kept: bound.or(job.kept.as_ref().map(|it| it.orchestrator)),
            tried: &job.tried,
            running: running.map(|on| Running { on, switch: Micros::ZERO }),
            deadline: job.left(now).map(Micros::from),
            cold_round_trips: COLD_ROUND_TRIPS,
        };
        let decision = choose(view, |gauge| gauge.into(), &ask, now, self.draw())?;
        if running == Some(decision.chosen().orchestrator) {
            let is_preferred = job.wishes.prefer.is_some();
            applied.push(if is_preferred { Applied::Preferred } else { Applied::Affinity });
        }
        Ok(decision)
    }

    /// Opens a connection to whom the next request would rather go to, were it open.
    fn open_ahead(&self, view: &View, decision: &Decision, now: Instant) {
        let better = decision.better_warm().and_then(|it| view.row(it.member.slot));
        if let Some(row) = better {
            self.shared.upstream.preconnect(row.id, &row.uri, &row.gauge, now);
        }
    }

    /// Keeps a decision with what it was about.
    fn record(&self, job: &mut Job, app: Arc<str>, applied: Vec<Applied>, decision: Decision) {
        if decision.scanned {
            counter!("portolan_choice_scans_total").increment(1);
        }
        for policy in &applied {
            counter!("portolan_policies_applied_total", "policy" => policy.name()).increment(1);
        }
        let id = self.decisions.next_id();
        self.decisions.keep(Arc::new(Record {
            id,
            at_ms: clock::wall().as_millis() as u64,
            capability: app,
            path: PathKind::Relayed,
            place: job.visit.located.caller.place,
            home: job.visit.located.home,
            tried: job.tried.clone(),
            applied,
            decision,
        }));
        job.decision = Some(id);
    }

    /// Returns what a client is told when nobody may serve it.
    fn nobody(&self, view: &View, job: &mut Job, no_route: NoRoute, now: Instant) -> ServeError {
        self.note_held(view, job, &no_route, now);
        if let Some(last) = job.nobody_left() {
            return last;
        }
        if no_route.is_all(Exclusion::Deadline) {
            return ServeError::Deadline;
        }
        if no_route.is_all(Exclusion::Resting) {
            let left = view.rows().filter_map(|(_slot, row)| row.gauge.resting().left(now)).min();
            return ServeError::Full(left);
        }
        if no_route.is_all_for_now() {
            return ServeError::Full(None);
        }
        no_route.into()
    }

    /// Notes where a place is worth waiting for: where `job` was held back, and where it was
    /// turned away though peers and this node divide the places.
    fn note_held(&self, view: &View, job: &mut Job, no_route: &NoRoute, now: Instant) {
        for (reason, name) in [
            (Exclusion::Taken, "taken"),
            (Exclusion::ForeignQuota, "foreign-quota"),
            (Exclusion::SpillRamp, "spill-ramp"),
        ] {
            if no_route.has(reason) {
                counter!("portolan_held_back_total", "reason" => name).increment(1);
            }
        }
        job.held_at.clone_from(&no_route.held);
        let is_shared = |it: &OrchestratorId| {
            let row = view.orchestrator(*it).map(|(_slot, row)| row);
            row.is_some_and(|row| row.gauge.share(now).is_some())
        };
        let full = job.full_at.iter().copied().filter(is_shared);
        job.held_at.extend(full);
        job.held_at.dedup();
    }

    /// Notes who serves `job`, for the requests its client ties to it.
    pub(crate) fn keep_affinity(&self, job: &Job, by: OrchestratorId) {
        if let (Some(key), Work::New { capability, .. }) = (job.wishes.affinity, &job.work) {
            self.affinities.keep(clock::now(), (key, *capability), by);
        }
    }
}

/// Reads the path and query of a request.
fn readable(path: String) -> Result<PathAndQuery, ServeError> {
    let bad = |_not_one| ServeError::BadRequest("the path is not a valid URI path".to_owned());
    PathAndQuery::from_maybe_shared(path).map_err(bad)
}

impl Applied {
    fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Excluded => "excluded",
            Self::Deadline => "deadline",
            Self::Preferred => "preferred",
            Self::Affinity => "affinity",
            Self::PriceRelaxed => "price-relaxed",
            Self::Panic => "panic",
        }
    }
}
