//! Requests that wait for a place, where all are taken: a short time, a bounded number, in the
//! order they came.
//!
//! Nothing here is at request rate while there are places. Who ends an attempt wakes the one
//! who has waited longest and keeps the place for it, so that nobody who comes later is faster.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::Notify;

use crate::clock;
use crate::edge::Gateway;
use crate::edge::job::Job;
use crate::id::OrchestratorId;
use crate::view::View;
use crate::view::board::Bell;
use crate::view::outcome::Gauge;

/// Who waits where.
#[derive(Debug, Default)]
pub struct Places(Mutex<Queues>);

#[derive(Debug, Default)]
struct Queues {
    of: BTreeMap<OrchestratorId, Queue>,
    n_waiting: usize,
}

#[derive(Debug)]
struct Queue {
    gauge: Arc<Gauge>,
    waiting: VecDeque<Arc<Waiter>>,
}

/// One request that waits, perhaps at several orchestrators.
#[derive(Debug, Default)]
struct Waiter {
    given: OnceLock<OrchestratorId>,
    bell: Notify,
}

/// A place kept for a request that has waited; let go of when dropped.
#[derive(Debug)]
pub struct Kept {
    /// Where.
    pub orchestrator: OrchestratorId,
    gauge: Arc<Gauge>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.gauge.release();
    }
}

impl Bell for Places {
    fn ring(&self, orchestrator: OrchestratorId) {
        let now = clock::now();
        let mut queues = self.lock();
        let Some(queue) = queues.of.get_mut(&orchestrator) else { return };
        while queue.gauge.has_room(now)
            && let Some(first) = queue.waiting.pop_front()
        {
            if first.given.set(orchestrator).is_ok() {
                queue.gauge.reserve();
                first.bell.notify_one();
            }
        }
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines up at each of `at`; `None` when too many wait already.
    fn join(self: &Arc<Self>, at: Vec<(OrchestratorId, Arc<Gauge>)>) -> Option<Waiting> {
        let waiter = Arc::new(Waiter::default());
        let mut queues = self.lock();
        if queues.n_waiting >= WAITING_MAX {
            return None;
        }
        queues.n_waiting += 1;
        for (orchestrator, gauge) in &at {
            let queue = queues
                .of
                .entry(*orchestrator)
                .or_insert_with(|| Queue { gauge: Arc::clone(gauge), waiting: VecDeque::new() });
            queue.waiting.push_back(Arc::clone(&waiter));
            gauge.wait();
        }
        drop(queues);
        let waiting = Waiting { places: Arc::clone(self), at, waiter, is_left: false };
        // A place that was given back a moment before the line began rang for nobody.
        waiting.at.iter().for_each(|(orchestrator, _gauge)| self.ring(*orchestrator));
        Some(waiting)
    }
}

/// A place in the lines; left when dropped.
struct Waiting {
    places: Arc<Places>,
    at: Vec<(OrchestratorId, Arc<Gauge>)>,
    waiter: Arc<Waiter>,
    is_left: bool,
}

impl Waiting {
    /// Waits until a place is given, for `patience` at most.
    async fn wait(mut self, patience: Duration) -> Option<Kept> {
        // Whether it was in time is seen by what was given.
        drop(tokio::time::timeout(patience, self.waiter.bell.notified()).await);
        self.leave()
    }

    /// Leaves all lines; returns the place that was given.
    fn leave(&mut self) -> Option<Kept> {
        self.is_left = true;
        let mut queues = self.places.lock();
        for (orchestrator, _gauge) in &self.at {
            if let Some(queue) = queues.of.get_mut(orchestrator) {
                queue.waiting.retain(|it| !Arc::ptr_eq(it, &self.waiter));
                if queue.waiting.is_empty() {
                    queues.of.remove(orchestrator);
                }
            }
        }
        queues.n_waiting -= 1;
        // What is set under the lock is set for good: nobody gives a place from here on.
        let given = *self.waiter.given.get_or_init(|| NOWHERE);
        drop(queues);
        let (_id, gauge) = self.at.iter().find(|(orchestrator, _gauge)| *orchestrator == given)?;
        Some(Kept { orchestrator: given, gauge: Arc::clone(gauge) })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_left {
            // The client went away: a place that was given to it is the next one's.
            drop(self.leave());
        }
        self.at.iter().for_each(|(_orchestrator, gauge)| gauge.end_wait());
    }
}

impl Gateway {
    /// Waits for a place where `job` was held back or turned away for lack of them; tells
    /// whether it is worth choosing again.
    pub(crate) async fn wait_for_place(&self, view: &View, job: &mut Job) -> bool {
        let now = clock::now();
        // A place it was given and found of no use is others' while it waits for another.
        job.kept = None;
        let patience = job.visit.params.place_wait;
        let until = *job.wait_until.get_or_insert(now + patience);
        let until = job.left(now).map_or(until, |left| until.min(now + left / 2));
        let at: Vec<_> = std::mem::take(&mut job.held_at)
            .into_iter()
            .filter_map(|it| Some((it, Arc::clone(&view.orchestrator(it)?.1.gauge))))
            .collect();
        if at.is_empty() || until <= now || job.n_waits >= WAITS_MAX {
            return false;
        }
        job.n_waits += 1;
        let Some(waiting) = self.places.join(at) else {
            count("crowded");
            return false;
        };
        job.kept = waiting.wait(until.saturating_duration_since(now)).await;
        count(if job.kept.is_some() { "given" } else { "in-vain" });
        if let Some(kept) = &job.kept {
            job.tried.retain(|it| *it != kept.orchestrator);
        }
        job.kept.is_some()
    }
}

fn count(result: &'static str) {
    counter!("portolan_place_waits_total", "result" => result).increment(1);
}

/// How often one request waits: one whose places turn out to be none is not to go on for long.
const WAITS_MAX: u32 = 4;
/// Requests that wait at once: a twentieth of those that may be under way is far from full.
const WAITING_MAX: usize = 1024;
/// No orchestrator has this id: it stands for having left the lines.
const NOWHERE: OrchestratorId = OrchestratorId(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::board::Board;
    use crate::view::outcome::Outcome;

    const ID: OrchestratorId = OrchestratorId(7);

    /// One place, and it is taken.
    fn full() -> (Arc<Places>, Arc<Gauge>) {
        let (board, places) = (Arc::new(Board::default()), Arc::<Places>::default());
        let bell: Arc<dyn Bell> = Arc::clone(&places) as _;
        board.hang(bell);
        let gauge = board.gauge(ID);
        gauge.set_places(1);
        gauge.begin();
        (places, gauge)
    }

    fn join(places: &Arc<Places>, gauge: &Arc<Gauge>) -> Waiting {
        places.join(vec![(ID, Arc::clone(gauge))]).unwrap()
    }

    #[tokio::test]
    async fn who_waited_longest_is_first_and_one_who_leaves_passes_the_place_on() {
        let (places, gauge) = full();
        let [first, second, third] = [0; 3].map(|_| join(&places, &gauge));
        assert_eq!(gauge.waiting(), 3);
        gauge.end(Outcome::Neutral);
        assert_eq!(first.waiter.given.get(), Some(&ID));
        assert!(!gauge.has_room(clock::now()), "it is kept");
        drop(first);
        let kept = second.wait(Duration::ZERO).await.unwrap();
        assert!(third.waiter.given.get().is_none(), "there is one place");
        gauge.begin();
        drop(kept);
        assert!(third.waiter.given.get().is_none(), "and it is in use");
        gauge.end(Outcome::Neutral);
        assert!(third.wait(Duration::ZERO).await.is_some());
        assert!(gauge.waiting() == 0 && gauge.has_room(clock::now()));
        assert!(places.lock().of.is_empty() && places.lock().n_waiting == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_it_said() {
        let (places, gauge) = full();
        let (began, patience) = (clock::now(), Duration::from_millis(500));
        assert!(join(&places, &gauge).wait(patience).await.is_none());
        assert!(clock::now() - began < patience * 2);
        gauge.end(Outcome::Neutral);
        assert!(gauge.has_room(clock::now()), "nothing is kept for who has left");
        let in_time = join(&places, &gauge);
        assert!(in_time.waiter.given.get().is_some(), "what is free is had at once");
    }

    #[test]
    fn no_more_wait_than_fit() {
        let (places, gauge) = full();
        let all: Vec<Waiting> = (0..WAITING_MAX).map(|_| join(&places, &gauge)).collect();
        assert!(places.join(vec![(ID, Arc::clone(&gauge))]).is_none());
        drop(all);
        assert!(places.join(vec![(ID, gauge)]).is_some());
    }
}
