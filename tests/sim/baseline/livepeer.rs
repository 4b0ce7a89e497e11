//! What stock go-livepeer does: by stake and chance, or by the latency seen at discovery,
//! with sessions used again and orchestrators suspended.

use portolan::geo::Point;

use super::{Ears, drawn};
use crate::algorithm::{Answered, End};
use crate::draws;
use crate::gateway::Gateway;
use crate::world::World;

/// A pool of sessions, one an orchestrator.
///
/// A session in use is out of the pool until nothing is in flight on it; one that served
/// well is used again before anybody new is tried. A failure takes it out and suspends it for
/// three refreshes (live: until the next), and refreshes come once the pool is half empty. A
/// capacity refusal is no failure.
pub(crate) struct GoLivepeer {
    ears: Ears,
    sessions: Vec<Session>,
    /// Refreshes so far.
    count: u64,
    live: bool,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Whether it is in the pool.
    known: bool,
    in_flight: u32,
    /// Response time over the length of a segment; none before the first.
    score: Option<f64>,
    suspended_until: Option<u64>,
    stake: f64,
    /// The round trips of the first question, in microseconds.
    initial: u64,
}

impl GoLivepeer {
    /// Starts the `number`th gateway.
    pub(crate) fn new(world: &World, number: usize, live: bool) -> Self {
        let session = |(server, rtt): (usize, &u64)| {
            let word = draws::word(&[world.seed, 10, number as u64, server as u64]);
            let initial = (3.0 * *rtt as f64 * (1.0 - 0.05 * draws::unit(word).ln())) as u64;
            Session { stake: world.servers[server].stake, initial, ..Session::default() }
        };
        let sessions: Vec<Session> = world.rtt[number].iter().enumerate().map(session).collect();
        let mut gateway = Self { ears: Ears::new(sessions.len()), sessions, count: 0, live };
        gateway.refresh();
        gateway
    }

    fn refresh(&mut self) {
        self.count += 1;
        for (server, session) in self.sessions.iter_mut().enumerate() {
            if session.suspended_until.is_some_and(|until| until < self.count) {
                session.suspended_until = None;
            }
            if !session.known && session.suspended_until.is_none() && self.ears.hears(server) {
                *session = Session { known: true, score: None, ..session.clone() };
            }
        }
    }

    fn refresh_if_due(&mut self) {
        let pool = |it: &Self| it.sessions.iter().filter(|it| it.known).count();
        if pool(self) == 0 {
            self.count += 3;
        }
        if pool(self) < REFRESH_BELOW.min(self.sessions.len().div_ceil(2)) {
            self.refresh();
        }
    }

    /// Returns the session at rest that is next in turn, else any in use.
    fn select(&self, tried: &[usize], word: u64) -> Option<usize> {
        let known =
            (0..self.sessions.len()).filter(|it| self.sessions[*it].known && !tried.contains(it));
        let (busy, rest): (Vec<usize>, Vec<usize>) =
            known.partition(|it| self.sessions[*it].in_flight > 0);
        let at_rest = match self.live {
            true => rest.iter().copied().min_by_key(|it| self.sessions[*it].initial),
            false => self.best_known_or_new(&rest, word),
        };
        at_rest.or_else(|| drawn(&busy, |_| 1.0, word))
    }

    fn best_known_or_new(&self, rest: &[usize], word: u64) -> Option<usize> {
        let score = |it: &usize| self.sessions[*it].score;
        let (scored, new): (Vec<usize>, Vec<usize>) =
            rest.iter().copied().partition(|it| score(it).is_some());
        let best = scored.into_iter().min_by(|a, b| score(a).partial_cmp(&score(b)).unwrap());
        match best {
            Some(best) if new.is_empty() || score(&best) <= Some(GOOD_ENOUGH) => Some(best),
            Some(_) | None => self.by_stake_and_chance(&new, word),
        }
    }

    fn by_stake_and_chance(&self, new: &[usize], word: u64) -> Option<usize> {
        let all: f64 = new.iter().map(|it| self.sessions[*it].stake).sum();
        let share = |it: usize| self.sessions[it].stake / all;
        drawn(new, |it| 0.7 * share(it) + 0.3 / new.len() as f64, word)
    }
}

impl Gateway for GoLivepeer {
    fn choose(&mut self, _now: u64, tried: &[usize], word: u64) -> Option<usize> {
        self.refresh_if_due();
        self.select(tried, word)
    }

    fn list(&mut self, _now: u64, _point: &Point, word: u64) -> Vec<usize> {
        let mut left: Vec<usize> =
            (0..self.sessions.len()).filter(|it| self.sessions[*it].known).collect();
        if self.live {
            left.sort_by_key(|it| self.sessions[*it].initial);
            return left;
        }
        let mut list = Vec::new();
        while let Some(next) =
            self.by_stake_and_chance(&left, draws::word(&[word, list.len() as u64]))
        {
            left.retain(|it| *it != next);
            list.push(next);
        }
        list
    }

    fn begin(&mut self, _now: u64, server: usize) -> bool {
        self.sessions[server].in_flight += 1;
        true
    }

    fn end(&mut self, _now: u64, server: usize, answered: Answered) {
        let session = &mut self.sessions[server];
        session.in_flight -= 1;
        match answered.end {
            End::Served => session.score = Some(answered.took as f64 / SEGMENT_US),
            End::Full => {}
            End::Failed | End::Broken | End::Silent => {
                session.known = false;
                let refreshes = if self.live { 0 } else { 3 };
                session.suspended_until = Some(self.count + refreshes);
            }
        }
    }

    fn checked(&mut self, _now: u64, server: usize, answer: Option<(u64, usize)>) {
        self.ears.take(server, answer.is_some());
    }

    fn tick(&mut self, now: u64) {
        self.ears.tick(now);
    }

    fn checks(&mut self) -> Vec<usize> {
        self.ears.due()
    }
}

/// A latency score up to this is good enough to stay.
const GOOD_ENOUGH: f64 = 1.0;
/// A segment of video is usually two seconds.
const SEGMENT_US: f64 = 2_000_000.0;
/// The pool is refreshed when it has fewer than this, or than half of all there are.
const REFRESH_BELOW: usize = 8;
