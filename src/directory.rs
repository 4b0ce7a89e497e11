//! The known orchestrators: who names them, and when each is checked next.
//!
//! Sans-IO. Sources come and go; an orchestrator stays as long as one of them names it.
//! Checks have a budget, spent first on those with traffic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::geo::Point;
use crate::id::{OrchestratorId, RegionId};
use crate::unit::Country;
use crate::uri::ServiceUri;

/// The knobs of [`Directory`].
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// The most orchestrators known; further ones are counted and left out.
    pub orchestrators_max: usize,
    /// Checks a second, and the burst allowed at start.
    pub checks_per_second: u32,
    /// Checks under way at once.
    pub checks_at_once: usize,
    /// Between checks of an orchestrator with traffic.
    pub interval_busy: Duration,
    /// Between checks of one without, while the budget allows.
    pub interval_idle: Duration,
    /// Between checks of one without, at most.
    pub interval_longest: Duration,
}

/// Who named an orchestrator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The configuration.
    Listed,
    /// A webhook or another node's list, by its URL.
    Fetched(ServiceUri),
    /// Another instance of the same operator.
    Instance(OrchestratorId),
}

/// An orchestrator as a source names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Where it answers.
    pub uri: ServiceUri,
    /// The region it is declared to be in.
    pub region: Option<RegionId>,
    /// The point it is declared to be at.
    pub point: Option<Point>,
    /// The country it is declared to be in.
    pub country: Option<Country>,
    /// The first instance of its operator that was known.
    pub operator: Option<ServiceUri>,
    /// What somebody outside makes of it, by stake or performance: 1000 is best; that, when
    /// nobody says.
    pub weight_permille: Option<u16>,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Start looking after this orchestrator, or take its new declaration.
    Add(OrchestratorId, Named),
    /// Stop looking after it: nobody names it any more.
    Remove(OrchestratorId),
    /// Check it now.
    Check(OrchestratorId),
}

/// The machine.
#[derive(Debug)]
pub struct Directory {
    params: Params,
    sources: BTreeMap<Source, BTreeMap<OrchestratorId, Named>>,
    known: BTreeMap<OrchestratorId, Entry>,
    due: BTreeSet<(Instant, u64, OrchestratorId)>,
    under_way: BTreeMap<OrchestratorId, Instant>,
    tokens_milli: u64,
    refilled_at: Instant,
    outputs: VecDeque<Output>,
    left_out: u64,
}

#[derive(Debug)]
struct Entry {
    named: Named,
    due: Instant,
    busy_until: Option<Instant>,
    failures: u32,
}

impl Directory {
    /// Starts with nobody.
    pub fn new(now: Instant, params: Params) -> Self {
        assert!(
            params.checks_per_second > 0 && params.checks_at_once > 0,
            "checks must be possible"
        );
        Self {
            params,
            sources: BTreeMap::new(),
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            under_way: BTreeMap::new(),
            tokens_milli: u64::from(params.checks_per_second) * 1000,
            refilled_at: now,
            outputs: VecDeque::new(),
            left_out: 0,
        }
    }

    /// Takes what a source names now, all of it; whom no source names any more is dropped.
    pub fn handle_source(&mut self, now: Instant, source: Source, named: Vec<Named>) {
        let named: BTreeMap<OrchestratorId, Named> =
            named.into_iter().map(|it| (OrchestratorId::of(&it.uri), it)).collect();
        let before = match named.is_empty() {
            true => self.sources.remove(&source),
            false => self.sources.insert(source, named.clone()),
        };
        for id in before.into_iter().flat_map(BTreeMap::into_keys) {
            if !named.contains_key(&id) {
                self.drop_unless_named(now, id);
            }
        }
        for id in named.into_keys() {
            self.add(now, id);
        }
        self.handle_timeout(now);
    }

    fn add(&mut self, now: Instant, id: OrchestratorId) {
        // The configuration's word on a place stands above everybody else's.
        let Some(named) = self.sources.values().find_map(|it| it.get(&id)).cloned() else { return };
        if let Some(entry) = self.known.get_mut(&id) {
            if entry.named != named {
                entry.named = named.clone();
                self.outputs.push_back(Output::Add(id, named));
            }
            return;
        }
        if self.known.len() >= self.params.orchestrators_max {
            self.left_out += 1;
            return;
        }
        let entry = Entry { named: named.clone(), due: now, busy_until: None, failures: 0 };
        self.known.insert(id, entry);
        self.due.insert((now, order(id), id));
        self.outputs.push_back(Output::Add(id, named));
    }

    fn drop_unless_named(&mut self, now: Instant, id: OrchestratorId) {
        if self.sources.values().any(|named| named.contains_key(&id)) {
            self.add(now, id);
            return;
        }
        let Some(entry) = self.known.remove(&id) else { return };
        self.due.remove(&(entry.due, order(id), id));
        self.under_way.remove(&id);
        self.outputs.push_back(Output::Remove(id));
        let instances = self.sources.remove(&Source::Instance(id));
        for instance in instances.into_iter().flat_map(BTreeMap::into_keys) {
            self.drop_unless_named(now, instance);
        }
    }

    /// Takes the end of a check.
    pub fn handle_checked(&mut self, now: Instant, id: OrchestratorId, answered: bool) {
        self.under_way.remove(&id);
        let interval = self.interval(now, id);
        let Some(entry) = self.known.get_mut(&id) else { return };
        entry.failures = if answered { 0 } else { entry.failures.saturating_add(1) };
        let backoff = interval.saturating_mul(1 << entry.failures.min(6).saturating_sub(1));
        // One failed check is a doubt, and looked into at once; then patience grows.
        let wait = match (answered, entry.failures) {
            (true, _) => interval,
            (false, 1) => interval.min(RECHECK_AFTER),
            (false, _) => backoff,
        };
        self.schedule(id, now + wait.min(self.params.interval_longest));
        self.handle_timeout(now);
    }

    /// Brings the next check of `id` forward: something was said of it that should be seen
    /// with one's own eyes.
    pub fn handle_doubt(&mut self, now: Instant, id: OrchestratorId) {
        if !self.under_way.contains_key(&id) {
            self.schedule(id, now);
        }
        self.handle_timeout(now);
    }

    /// Notes that `id` has traffic, which for half a minute shortens the time between checks.
    pub fn handle_traffic(&mut self, now: Instant, id: OrchestratorId) {
        let soon = now + self.params.interval_busy;
        let Some(entry) = self.known.get_mut(&id) else { return };
        entry.busy_until = Some(now + BUSY_FOR);
        if entry.due > soon && entry.failures == 0 && !self.under_way.contains_key(&id) {
            self.schedule(id, soon);
        }
    }

    /// Starts every check that is due and within the budget.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.refill(now);
        while self.tokens_milli >= 1000 && self.under_way.len() < self.params.checks_at_once {
            let Some(first) = self.due.first().copied().filter(|it| it.0 <= now) else { break };
            self.due.remove(&first);
            self.tokens_milli -= 1000;
            self.under_way.insert(first.2, now);
            self.outputs.push_back(Output::Check(first.2));
        }
        // A check whose end was never told is taken as lost, and its place given back.
        let lost = |at: &Instant| now.saturating_duration_since(*at) > CHECK_LOST_AFTER;
        let gone: Vec<_> =
            self.under_way.iter().filter(|it| lost(it.1)).map(|(id, _at)| *id).collect();
        for id in gone {
            self.under_way.remove(&id);
            self.schedule(id, now);
        }
    }

    /// Returns the next thing to do, until there is none.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] next has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.under_way.len() >= self.params.checks_at_once {
            return self.under_way.values().min().map(|at| *at + CHECK_LOST_AFTER);
        }
        let missing = 1000_u64.saturating_sub(self.tokens_milli);
        let wait = Duration::from_millis(missing.div_ceil(self.params.checks_per_second.into()));
        self.due.first().map(|(due, ..)| (*due).max(self.refilled_at + wait))
    }

    /// Returns how many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Tells whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns how many were named and left out because the table was full.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn schedule(&mut self, id: OrchestratorId, at: Instant) {
        let Some(entry) = self.known.get_mut(&id) else { return };
        self.due.remove(&(entry.due, order(id), id));
        entry.due = at;
        self.due.insert((at, order(id), id));
    }

    fn interval(&self, now: Instant, id: OrchestratorId) -> Duration {
        let busy = self.known.get(&id).and_then(|it| it.busy_until).is_some_and(|it| it > now);
        if busy {
            return self.params.interval_busy;
        }
        // Half of the budget goes to those without traffic.
        let seconds = self.known.len() as u64 * 2 / u64::from(self.params.checks_per_second);
        Duration::from_secs(seconds).clamp(self.params.interval_idle, self.params.interval_longest)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled_at);
        let rate = u64::from(self.params.checks_per_second);
        let gained = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(rate);
        if gained < 1000 {
            return;
        }
        self.tokens_milli = (self.tokens_milli.saturating_add(gained / 1000)).min(rate * 1000);
        self.refilled_at = now;
    }
}

/// Spreads those due at the same moment, so that each node starts somewhere else than at
/// the top of the list.
fn order(id: OrchestratorId) -> u64 {
    id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A first failed check is repeated after this.
const RECHECK_AFTER: Duration = Duration::from_secs(1);
/// Traffic counts as recent for this long.
const BUSY_FOR: Duration = Duration::from_secs(30);
/// Longer than any check may take.
const CHECK_LOST_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PARAMS: Params = Params {
        orchestrators_max: 1000,
        checks_per_second: 10,
        checks_at_once: 64,
        interval_busy: Duration::from_secs(5),
        interval_idle: Duration::from_secs(30),
        interval_longest: Duration::from_secs(300),
    };

    fn named(number: usize) -> Named {
        let uri = format!("https://o{number}:1").parse().unwrap();
        Named {
            uri,
            region: None,
            point: None,
            country: None,
            operator: None,
            weight_permille: None,
        }
    }

    fn id(number: usize) -> OrchestratorId {
        OrchestratorId::of(&named(number).uri)
    }

    fn outputs(directory: &mut Directory) -> Vec<Output> {
        std::iter::from_fn(|| directory.poll_output()).collect()
    }

    fn checks(directory: &mut Directory) -> usize {
        outputs(directory).iter().filter(|it| matches!(it, Output::Check(_))).count()
    }

    #[test]
    fn an_orchestrator_stays_while_anybody_names_it() {
        let now = clock::now();
        let mut directory = Directory::new(now, PARAMS);
        let hook = Source::Fetched("https://hook:1".parse().unwrap());
        directory.handle_source(now, Source::Listed, vec![named(1)]);
        directory.handle_source(now, hook.clone(), vec![named(1), named(2)]);
        directory.handle_source(now, Source::Listed, vec![]);
        assert_eq!(directory.len(), 2);
        outputs(&mut directory);
        directory.handle_source(now, hook, vec![named(2)]);
        assert_eq!(outputs(&mut directory), [Output::Remove(id(1))]);
    }

    #[test]
    fn instances_leave_with_the_one_that_named_them() {
        let now = clock::now();
        let mut directory = Directory::new(now, PARAMS);
        directory.handle_source(now, Source::Listed, vec![named(1)]);
        directory.handle_source(now, Source::Instance(id(1)), vec![named(2), named(3)]);
        assert_eq!(directory.len(), 3);
        directory.handle_source(now, Source::Listed, vec![]);
        assert!(directory.is_empty());
    }

    #[test]
    fn checks_keep_to_their_budget() {
        let now = clock::now();
        let mut directory = Directory::new(now, PARAMS);
        directory.handle_source(now, Source::Listed, (0..500).map(named).collect());
        assert_eq!(checks(&mut directory), 10, "the burst");
        let mut started = 0;
        for tick in 1..=40 {
            let now = now + Duration::from_millis(tick * 100);
            directory.handle_timeout(now);
            started += checks(&mut directory);
        }
        assert_eq!(started, 40, "four seconds of budget");
    }

    #[test]
    fn no_more_checks_run_at_once_than_allowed_and_lost_ones_come_back() {
        let now = clock::now();
        let params = Params { checks_at_once: 3, ..PARAMS };
        let mut directory = Directory::new(now, params);
        directory.handle_source(now, Source::Listed, (0..10).map(named).collect());
        assert_eq!(checks(&mut directory), 3);
        let later = directory.next_timeout().unwrap() + Duration::from_millis(1);
        directory.handle_timeout(later);
        directory.handle_timeout(later);
        assert_eq!(checks(&mut directory), 3);
    }

    #[test]
    fn traffic_brings_a_check_forward_and_failure_puts_it_off() {
        let now = clock::now();
        let mut directory = Directory::new(now, PARAMS);
        directory.handle_source(now, Source::Listed, vec![named(1)]);
        directory.handle_checked(now, id(1), true);
        assert_eq!(directory.next_timeout(), Some(now + PARAMS.interval_idle));
        directory.handle_traffic(now, id(1));
        assert_eq!(directory.next_timeout(), Some(now + PARAMS.interval_busy));
        let mut now = now;
        for _ in 0..10 {
            directory.handle_checked(now, id(1), false);
            now = directory.next_timeout().unwrap();
        }
        let wait = directory.next_timeout().unwrap();
        directory.handle_checked(wait, id(1), false);
        assert_eq!(directory.next_timeout(), Some(wait + PARAMS.interval_longest));
    }

    #[test]
    fn a_full_table_counts_whom_it_leaves_out() {
        let now = clock::now();
        let mut directory = Directory::new(now, PARAMS);
        directory.handle_source(now, Source::Listed, (0..1003).map(named).collect());
        assert_eq!((directory.len(), directory.left_out()), (1000, 3));
    }
}
