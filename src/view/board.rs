//! The orchestrators whose use peers may have to be told of: marked by requests, read by the
//! mesh; and what comes back, the share of their places that is this node's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::id::{NodeId, OrchestratorId, RegionId};
use crate::view::claim::LIFE;
use crate::view::outcome::Gauge;
use crate::view::share::{Need, deal};
use crate::view::spill::Spill;

/// One node's board. A request writes a few atomics; the lock is the actors' own.
#[derive(Debug)]
pub struct Board {
    stirred: AtomicBool,
    marks: [AtomicU64; MARKS],
    held: Mutex<BTreeMap<OrchestratorId, Held>>,
    local: OnceLock<(NodeId, RegionId)>,
    bell: OnceLock<Arc<dyn Bell>>,
    foreign_permille: AtomicU32,
    pub(crate) spill: Spill,
}

/// Who is told that a place may be free.
pub trait Bell: fmt::Debug + Send + Sync {
    /// Says that there may be places for requests that wait at `orchestrator`.
    fn ring(&self, orchestrator: OrchestratorId);
}

/// What is done for the neighbours of a region that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// The most of an orchestrator's places that work from other regions has together while
    /// its own region uses it, in thousandths.
    pub foreign_permille: u32,
    /// How long it takes until a spill to another region may be whole; zero for at once.
    pub ramp: Duration,
}

/// What is known of one orchestrator.
#[derive(Debug, Default)]
struct Held {
    gauge: Weak<Gauge>,
    region: Option<RegionId>,
    peers: Vec<PeerNeed>,
    at: Option<Instant>,
}

/// What one peer uses of an orchestrator and wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNeed {
    /// The peer.
    pub node: NodeId,
    /// Where it runs, by its own word.
    pub region: Option<RegionId>,
    /// What it has in flight there.
    pub in_flight: u32,
    /// Requests that wait for a place there, more or less.
    pub waiting: u32,
    /// What all together had there when it said to the peer that it was full; 0 where it did
    /// not.
    pub places: u32,
}

/// What one orchestrator is used for, as peers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Which one.
    pub orchestrator: OrchestratorId,
    /// What of this node's is in flight there.
    pub in_flight: u32,
    /// Requests of this node that wait for a place there.
    pub waiting: u32,
    /// What all together had there when it last said to this node that it was full; 0 where it
    /// did not.
    pub places: u32,
    /// Attempts of this node it turned away because it was full, since the beginning.
    pub refused: u32,
    /// Whether so few places are left that peers should know at once.
    pub scarce: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            stirred: AtomicBool::new(false),
            marks: std::array::from_fn(|_mark| AtomicU64::new(0)),
            held: Mutex::default(),
            local: OnceLock::new(),
            bell: OnceLock::new(),
            foreign_permille: AtomicU32::new(1000),
            spill: Spill::default(),
        }
    }
}

impl Board {
    /// Says which node this is and where it runs; the first word counts.
    pub fn introduce(&self, node: NodeId, region: RegionId) {
        self.local.get_or_init(|| (node, region));
    }

    /// Sets whom to tell of places that may be free; the first word counts.
    pub fn hang(&self, bell: Arc<dyn Bell>) {
        self.bell.get_or_init(|| bell);
    }

    /// Sets what is done for neighbours.
    pub fn set_manners(&self, manners: Manners) {
        self.foreign_permille.store(manners.foreign_permille.min(1000), Ordering::Relaxed);
        self.spill.set_ramp(manners.ramp);
    }

    /// Returns the counters of an orchestrator on this board, new ones where there are none.
    pub fn gauge(self: &Arc<Self>, orchestrator: OrchestratorId) -> Arc<Gauge> {
        let mut held = self.lock();
        if let Some(gauge) = held.get(&orchestrator).and_then(|it| it.gauge.upgrade()) {
            return gauge;
        }
        held.retain(|_id, it| it.gauge.strong_count() > 0);
        let gauge = Arc::new(Gauge::on(Arc::clone(self), orchestrator));
        held.insert(orchestrator, Held { gauge: Arc::downgrade(&gauge), ..Held::default() });
        gauge
    }

    /// Says in which region an orchestrator is.
    pub fn place(&self, orchestrator: OrchestratorId, region: RegionId) {
        let mut held = self.lock();
        let Some(it) = held.get_mut(&orchestrator) else { return };
        it.region = Some(region);
        if let (Some(gauge), Some((_node, home))) = (it.gauge.upgrade(), self.local.get()) {
            gauge.set_away(region != *home);
        }
    }

    /// Marks an orchestrator as used otherwise than before. Two that meet in one mark: the
    /// later one stays, and the other is told of with its next record.
    #[inline]
    pub(crate) fn mark(&self, orchestrator: OrchestratorId) {
        let at = orchestrator.0 as usize % MARKS;
        self.marks[at].store(orchestrator.0, Ordering::Relaxed);
        self.stirred.store(true, Ordering::Release);
    }

    /// Tells those who wait at an orchestrator that there may be a place.
    pub(crate) fn ring(&self, orchestrator: OrchestratorId) {
        if let Some(bell) = self.bell.get() {
            bell.ring(orchestrator);
        }
    }

    /// Tells whether anything was marked since the last [`Self::drain`].
    pub fn is_stirred(&self) -> bool {
        self.stirred.load(Ordering::Acquire)
    }

    /// Takes the marks: how each marked orchestrator is used at `now`. Whose its places are is
    /// worked out anew; `turn` says who comes first, see [`turn_of`].
    pub fn drain(&self, now: Instant, turn: u64) -> Vec<Use> {
        if !self.stirred.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let marks = self.marks.iter().map(|mark| OrchestratorId(mark.swap(0, Ordering::Relaxed)));
        let marked: Vec<OrchestratorId> = marks.filter(|it| it.0 != 0).collect();
        let mut held = self.lock();
        let used = |orchestrator: &OrchestratorId| {
            let it = held.get_mut(orchestrator)?;
            let gauge = it.gauge.upgrade()?;
            gauge.note_usual(now);
            if it.at.is_some_and(|at| now.saturating_duration_since(at) > LIFE) {
                (it.peers, it.at) = (Vec::new(), None);
            }
            self.divide(now, turn, *orchestrator, it, &gauge);
            let (in_flight, waiting) = (gauge.in_flight(), gauge.waiting());
            let load = u64::from(in_flight) + u64::from(gauge.claimed(now));
            let scarce = waiting > 0 || load * SCARCE_FROM >= u64::from(gauge.places());
            let (refused, places) = (gauge.refused().ever, gauge.learned(now));
            Some(Use { orchestrator: *orchestrator, in_flight, waiting, places, refused, scarce })
        };
        let all = marked.iter().filter_map(used).collect();
        drop(held);
        marked.into_iter().for_each(|it| self.ring(it));
        all
    }

    /// Takes what each of the peers that use an orchestrator has in flight and wants there, as
    /// of `at`. Nobody is believed to use more than all of it.
    pub fn claim(&self, at: Instant, turn: u64, orchestrator: OrchestratorId, peers: &[PeerNeed]) {
        let mut held = self.lock();
        let Some(it) = held.get_mut(&orchestrator) else { return };
        let Some(gauge) = it.gauge.upgrade() else { return };
        let most = gauge.places();
        let sum = peers.iter().fold(0, |sum: u32, it| sum.saturating_add(it.in_flight.min(most)));
        gauge.claim(at, sum);
        it.peers = peers.to_vec();
        it.at = Some(at);
        self.divide(at, turn, orchestrator, it, &gauge);
        drop(held);
        self.ring(orchestrator);
    }

    /// Works out which part of an orchestrator's places is this node's.
    fn divide(
        &self,
        now: Instant,
        turn: u64,
        orchestrator: OrchestratorId,
        held: &Held,
        gauge: &Gauge,
    ) {
        let Some((node, region)) = self.local.get() else { return };
        let is_fresh = held.at.is_some_and(|at| now.saturating_duration_since(at) <= LIFE);
        if !is_fresh || held.peers.is_empty() || gauge.places() == 0 {
            return;
        }
        let places = gauge.divisible(now, held.peers.iter().map(|it| it.places));
        // Without a place of its own an orchestrator is everybody's.
        let is_home = |of: Option<RegionId>| held.region.is_none() || of == held.region;
        let own = Need {
            node: *node,
            in_flight: gauge.in_flight(),
            waiting: gauge.waiting(),
            is_home: is_home(Some(*region)),
        };
        let theirs = held.peers.iter().map(|it| Need {
            node: it.node,
            in_flight: it.in_flight.min(places),
            waiting: it.waiting,
            is_home: is_home(it.region),
        });
        let needs: Vec<Need> = std::iter::once(own).chain(theirs).collect();
        let permille = self.foreign_permille.load(Ordering::Relaxed);
        let shares = deal(orchestrator, places, permille, turn, &needs);
        let is_used_at_home = needs.iter().any(|it| it.is_home && it.wants() > 0);
        let foreign = needs.iter().zip(&shares).filter(|(it, _share)| !it.is_home);
        let theirs: u64 = foreign.map(|(_it, share)| u64::from(*share)).sum();
        let is_quota_used = theirs >= u64::from(places) * u64::from(permille) / 1000;
        let is_guest = !own.is_home && is_used_at_home && permille < 1000 && is_quota_used;
        let share = shares[0];
        gauge.set_share(now, share, is_guest);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrchestratorId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns who comes first where places do not divide evenly, by the wall clock: nodes whose
/// clocks differ a little disagree for that little.
pub fn turn_of(wall: Duration) -> u64 {
    wall.as_secs() / TURN_S
}

/// Places are scarce from an eighth in use on: the rest may be those of another runner, and
/// several nodes may take what is left at once.
const SCARCE_FROM: u64 = 8;
/// Orchestrators marked between two looks, 25 ms apart; more meet in one mark.
const MARKS: usize = 256;
/// A turn lasts long beside what passing a place on costs, and short beside a client's
/// patience.
const TURN_S: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::view::CapabilityId;
    use crate::view::claim::{HOLD, PAUSE};
    use crate::view::outcome::{HeldBack, Outcome};

    const ID: OrchestratorId = OrchestratorId(77);
    const APP: CapabilityId = CapabilityId(1);

    fn board(home: &str) -> (Arc<Board>, Arc<Gauge>) {
        let board = Arc::new(Board::default());
        board.introduce("a".parse().unwrap(), "FRA".parse().unwrap());
        let gauge = board.gauge(ID);
        gauge.set_places(10);
        board.place(ID, home.parse().unwrap());
        (board, gauge)
    }

    fn peer(name: &str, region: &str, in_flight: u32, waiting: u32) -> PeerNeed {
        let (node, region) = (name.parse().unwrap(), region.parse().ok());
        PeerNeed { node, region, in_flight, waiting, places: 0 }
    }

    fn begin(gauge: &Gauge, n: u32) {
        for _ in 0..n {
            gauge.begin();
        }
    }

    fn held(gauge: &Gauge, now: Instant) -> Option<HeldBack> {
        gauge.held_back(now, APP, 10, false)
    }

    #[test]
    fn what_requests_stir_is_told_once_and_only_what_is_scarce_is_urgent() {
        let (board, now) = (Arc::new(Board::default()), clock::now());
        let gauge = board.gauge(ID);
        assert!(Arc::ptr_eq(&gauge, &board.gauge(ID)), "one set of counters each");
        gauge.set_places(10);
        assert!(!board.is_stirred() && board.drain(now, 0).is_empty());
        gauge.begin();
        let used = |in_flight, waiting, scarce| {
            [Use { orchestrator: ID, in_flight, waiting, places: 0, refused: 0, scarce }]
        };
        assert_eq!(board.drain(now, 0), used(1, 0, false));
        assert_eq!(board.drain(now, 0), []);
        gauge.begin();
        assert_eq!(board.drain(now, 0), used(2, 0, true));
        (0..2).for_each(|_| gauge.end(Outcome::Neutral));
        assert_eq!(board.drain(now, 0), used(0, 0, false));
        gauge.wait();
        assert_eq!(board.drain(now, 0), used(0, 1, true), "who waits is urgent");
        gauge.end_wait();
        board.claim(now, 0, ID, &[peer("b", "FRA", 3, 0)]);
        gauge.begin();
        assert_eq!(board.drain(now, 0), used(1, 0, true), "peers' use counts too");
        drop(gauge);
        assert_eq!(board.lock().len(), 1);
        board.gauge(OrchestratorId(78));
        assert_eq!(board.lock().len(), 1, "what is gone makes room");
    }

    #[test]
    fn a_node_keeps_to_its_share_and_puts_it_to_the_test_now_and_then() {
        let ((board, gauge), now) = (board("FRA"), clock::now());
        begin(&gauge, 5);
        (0..20).for_each(|_| gauge.wait());
        assert_eq!(held(&gauge, now), None, "nobody else wants any");
        board.claim(now, 0, ID, &[peer("b", "FRA", 5, 20)]);
        assert_eq!((gauge.share(now), held(&gauge, now)), (Some(5), Some(HeldBack::Taken)));
        assert!(!gauge.has_room(now));
        assert_eq!(gauge.held_back(now, APP, 10, true), None, "a place was kept for it");
        gauge.end(Outcome::Neutral);
        assert!(gauge.has_room(now) && held(&gauge, now).is_none());
        gauge.reserve();
        assert!(!gauge.has_room(now), "it is kept for one who has waited");
        // What the other claims is put to the test, and does not pass: it is a lie.
        let mut at = now;
        for wrong in 0..3 {
            for _ in 0..2 {
                at += HOLD / 2 + Duration::from_millis(1);
                board.claim(at, 0, ID, &[peer("b", "FRA", 5, 20)]);
            }
            assert_eq!(held(&gauge, at), None, "{wrong}: one tries");
            assert!(gauge.is_against_claims(at, APP, 10));
            assert_eq!(held(&gauge, at), Some(HeldBack::Taken), "{wrong}: the others wait for it");
            gauge.note_room(at, APP);
        }
        assert_eq!(held(&gauge, at), None, "nobody waits for a liar");
        gauge.note_full(at, APP, 10);
        assert_eq!(held(&gauge, at), Some(HeldBack::Taken), "a refusal bears it out");
    }

    #[test]
    fn somebody_outside_the_mesh_has_places_too() {
        let ((board, gauge), now) = (board("FRA"), clock::now());
        begin(&gauge, 3);
        (0..20).for_each(|_| gauge.wait());
        board.claim(now, 0, ID, &[peer("b", "FRA", 3, 20)]);
        assert_eq!(held(&gauge, now), None);
        gauge.end(Outcome::Full);
        gauge.note_full(now, APP, 10);
        begin(&gauge, 2);
        assert_eq!(held(&gauge, now), Some(HeldBack::Taken), "no more than were in flight then");
        let later = now + PAUSE + Duration::from_millis(2);
        assert_eq!(held(&gauge, later), None);
    }

    #[test]
    fn what_is_divided_is_what_there_is_of_what_is_sought() {
        let ((board, gauge), now) = (board("FRA"), clock::now());
        gauge.set_places(30);
        gauge.note_sought(10);
        begin(&gauge, 6);
        let shares = |places| {
            board.claim(now, 0, ID, &[PeerNeed { places, ..peer("b", "FRA", 5, 50) }]);
            gauge.share(now).unwrap()
        };
        (0..50).for_each(|_| gauge.wait());
        assert_eq!((shares(0), shares(12)), (15, 6), "the peer was refused when 12 were in use");
        assert_eq!(shares(1), 5, "there is no less than what it says itself");
        gauge.note_full(now, APP, 10);
        assert_eq!(shares(0), 5, "so was this node, when 5 and 5 were");
    }

    #[test]
    fn a_guest_keeps_to_the_guests_part_without_being_told_by_a_refusal() {
        let ((board, gauge), now) = (board("NYC"), clock::now());
        board.set_manners(Manners { foreign_permille: 300, ramp: Duration::ZERO });
        begin(&gauge, 3);
        board.claim(now, 0, ID, &[peer("b", "FRA", 0, 1)]);
        assert_ne!(held(&gauge, now), Some(HeldBack::Quota), "its own region does not use it");
        board.claim(now, 0, ID, &[peer("b", "NYC", 1, 0)]);
        assert_eq!((gauge.share(now), held(&gauge, now)), (Some(3), Some(HeldBack::Quota)));
        let late = now + LIFE + Duration::from_millis(1);
        assert_eq!(held(&gauge, late), None, "it is forgotten in time");
    }

    #[test]
    fn a_spill_to_another_region_grows_by_and_by() {
        let ((board, away), now) = (board("NYC"), clock::now());
        board.set_manners(Manners { foreign_permille: 1000, ramp: Duration::from_secs(4) });
        let near = board.gauge(OrchestratorId(1));
        board.place(OrchestratorId(1), "FRA".parse().unwrap());
        away.begin();
        assert_eq!(board.drain(now, 0).len(), 1, "that is its usual use");
        near.note_full(now, APP, 10);
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!((held(&near, now), held(&away, now)), (None, None));
        away.begin();
        assert_eq!(held(&away, now), Some(HeldBack::Ramp), "one more than usual to begin with");
        near.note_full(at(1900), APP, 10);
        assert_eq!(held(&away, at(2000)), None);
        begin(&away, 4);
        assert_eq!(held(&away, at(2000)), Some(HeldBack::Ramp), "half of it and the usual");
        near.note_full(at(4000), APP, 10);
        assert_eq!(held(&away, at(4001)), None);
    }
}
