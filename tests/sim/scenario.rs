//! What happens: how much is asked for, what goes wrong, how old the news is.

use std::time::Duration;

use super::draws::Draws;
use super::server::State;
use super::world::World;

/// One story.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Work asked for over all there is to do it.
    pub(crate) load: f64,
    /// How long it goes on.
    pub(crate) length: Duration,
    /// How often a gateway tells the others what it saw,
    pub(crate) told_every: Duration,
    /// and how old that is when it leaves.
    pub(crate) held: Duration,
    fault: Option<Fault>,
    pub(crate) herd: Option<Herd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// One orchestrator goes to this state and stays there.
    One(State),
    /// Those of the greatest part of the world keep a quarter of their slots, and say nothing
    /// of it.
    BrownOut,
    /// One is down for as long as it is up.
    Flapping,
    /// One gateway loses the way to the three nearest of its orchestrators.
    Cut,
}

/// Clients that ask for a list and walk it by themselves.
#[derive(Clone, Debug)]
pub(crate) struct Herd {
    pub(crate) clients: usize,
    /// All of them come within this time.
    pub(crate) within: Duration,
}

/// Something that happens to the world.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// An orchestrator goes to another state.
    Turn(usize, State),
    /// An orchestrator has so many slots.
    Slots(usize, usize),
    /// Nothing goes from a gateway to an orchestrator any more.
    Cut(usize, usize),
}

impl Scenario {
    /// Returns every story.
    pub(crate) fn all() -> Vec<Self> {
        let calm = |name, load| Self {
            name,
            load,
            length: Duration::from_secs(80),
            told_every: Duration::from_millis(500),
            held: Duration::ZERO,
            fault: None,
            herd: None,
        };
        let faulty = |name, load, fault| Self { fault: Some(fault), ..calm(name, load) };
        let herd = Herd { clients: 1000, within: Duration::from_secs(10) };
        vec![
            calm("load 30 %", 0.3),
            Self { held: Duration::from_secs(5), ..calm("load 85 %, news 5 s old", 0.85) },
            faulty("black hole, silent", 0.6, Fault::One(State::Silent)),
            faulty("black hole, failing", 0.6, Fault::One(State::FailsFast)),
            faulty("region at a quarter", 0.55, Fault::BrownOut),
            faulty("flapping", 0.6, Fault::Flapping),
            Self { herd: Some(herd), ..calm("herd of 1,000", 0.3) },
            faulty("link cut", 0.6, Fault::Cut),
        ]
    }

    /// Returns the same story, told in less time.
    pub(crate) fn shortened(self, length: Duration) -> Self {
        Self { length, ..self }
    }

    /// Returns the time from which on requests count; before it, everybody learns.
    pub(crate) fn counts_from(&self) -> Duration {
        self.length / 4
    }

    /// Returns when it begins to go wrong.
    pub(crate) fn fault_at(&self) -> Duration {
        self.length / 8 * 3
    }

    /// Returns what happens to the world and when, in order.
    pub(crate) fn changes(&self, world: &World) -> Vec<(Duration, Change)> {
        let mut draws = Draws::new(world.seed, 4);
        let (at, one) = (self.fault_at(), draws.below(world.servers.len()));
        match self.fault {
            None => Vec::new(),
            Some(Fault::One(state)) => vec![(at, Change::Turn(one, state))],
            Some(Fault::BrownOut) => {
                let greatest = world.servers.iter().enumerate().filter(|(_, it)| it.part == 0);
                greatest
                    .map(|(server, it)| (at, Change::Slots(server, it.slots.div_ceil(4))))
                    .collect()
            }
            Some(Fault::Flapping) => {
                let times = (self.length - at).as_secs() / FLAP.as_secs();
                let turn = |time| if time % 2 == 0 { State::Down } else { State::Well };
                (0..times)
                    .map(|time| (at + FLAP * time as u32, Change::Turn(one, turn(time))))
                    .collect()
            }
            Some(Fault::Cut) => {
                let gateway = draws.below(world.gateways.len());
                let mut nearest: Vec<usize> = (0..world.servers.len()).collect();
                nearest.sort_by_key(|server| world.rtt[gateway][*server]);
                nearest[..3].iter().map(|server| (at, Change::Cut(gateway, *server))).collect()
            }
        }
    }
}

/// A flapping orchestrator is up or down for this long at a time.
pub(crate) const FLAP: Duration = Duration::from_secs(8);
