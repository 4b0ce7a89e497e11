//! What is known of one peer, and the row that shows it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::About;
use super::Fault;
use super::Greeting;
use super::LinkId;
use super::Membership;
use super::limits::Meters;
use crate::health::Sent;
use crate::id::NodeId;
use crate::id::RegionId;
use crate::unit::Micros;

/// How this node stands with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No link.
    Down,
    /// A link is up.
    Up,
    /// It broke a limit and is not spoken to for a while.
    Quarantined,
}

/// One peer, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The peer.
    pub node: NodeId,
    /// The region its last greeting named; `None` before the first.
    pub region: Option<RegionId>,
    /// What it last said of itself; `None` before it did.
    pub about: Option<Arc<About>>,
    /// The boot epoch its link greeted with; `None` without a link.
    pub epoch: Option<u64>,
    /// How this node stands with it.
    pub standing: Standing,
    /// How it stands with the members as a whole: a hint, which a link that is up outweighs.
    /// `None` while nobody spoke of it.
    pub membership: Option<Membership>,
    /// Where it says it answers dials.
    pub at: Option<SocketAddr>,
    /// The configuration names it.
    pub seed: bool,
    /// It said that it takes no new work.
    pub draining: bool,
    /// The least round trip of the last [`N_SAMPLES`] pings of this link.
    pub rtt: Option<Micros>,
    /// When its last frame came; `None` before the first.
    pub heard_at: Option<Instant>,
    /// How many orchestrators it is known to see.
    pub n_records: usize,
    /// What it sent over its life here.
    pub counts: Counts,
    /// The last reason for a quarantine.
    pub fault: Option<Fault>,
}

/// Counters of one peer, since this node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of any type.
    pub n_frames: u64,
    /// Frames of a type or version unknown here.
    pub n_unknown: u64,
    /// Datagrams that were taken.
    pub n_datagrams: u64,
    /// Datagrams dropped: unreadable, unknown, or naming more members than there is room for.
    pub n_dropped: u64,
    /// Datagrams dropped because they claimed another sender.
    pub n_forged: u64,
    /// Times it asked for all records again.
    pub n_pulls: u64,
    /// Commands it passed on that are not this node's operator's.
    pub n_disobeyed: u64,
    /// Records that were not newer than what was held.
    pub n_older: u64,
    /// Records past their time to live on arrival.
    pub n_expired: u64,
    /// Records refused by a bound of the store.
    pub n_refused: u64,
    /// Times it was put in quarantine.
    pub n_quarantines: u64,
}

/// The peers of this node at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Peers {
    /// This node; `None` on one without a mesh.
    pub local: Option<NodeId>,
    /// One row per peer, by name.
    pub rows: Vec<PeerRow>,
    /// How often an actor of a peer died and was restarted.
    pub n_restarts: u64,
    /// Records of our own that made room for others before their time.
    pub n_dropped: u64,
    /// Bytes sent to all of them, heads of packets included.
    pub n_sent_bytes: u64,
}

impl Peers {
    /// Returns the row of one peer.
    pub fn row(&self, node: NodeId) -> Option<&PeerRow> {
        self.rows.iter().find(|it| it.node == node)
    }
}

/// What the machine keeps of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Whether the configuration names it; it is never forgotten then.
    pub(super) seed: bool,
    pub(super) region: Option<RegionId>,
    pub(super) about: Option<Arc<About>>,
    pub(super) heard_at: Option<Instant>,
    pub(super) counts: Counts,
    pub(super) fault: Option<Fault>,
    /// What it may still send; one link after another is no way around it.
    pub(super) meters: Option<Meters>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Down,
    Up(Box<Up>),
    Quarantined { until: Instant },
}

/// What only a peer with a link has.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) link: LinkId,
    pub(super) epoch: u64,
    pub(super) draining: bool,
    pub(super) ping_at: Instant,
    /// When the last ping was sent.
    pub(super) pinged_at: Option<Instant>,
    pub(super) push_at: Instant,
    /// When what does not go first is pushed, if nothing else is before.
    pub(super) others_at: Instant,
    /// When news that cannot wait for the next push goes out.
    pub(super) urge_at: Option<Instant>,
    /// When it last did.
    pub(super) urged_at: Instant,
    pub(super) digest_at: Instant,
    /// When all was last sent again because the digest did not agree.
    pub(super) pulled_at: Option<Instant>,
    /// Through which versions this link was sent our records.
    pub(super) sent: Sent,
    pub(super) silent_at: Instant,
    pings: VecDeque<(u64, Instant)>,
    samples: VecDeque<Micros>,
}

impl Peer {
    pub(super) fn new(seed: bool) -> Self {
        Self {
            seed,
            region: None,
            about: None,
            heard_at: None,
            counts: Counts::default(),
            fault: None,
            meters: None,
            state: State::Down,
        }
    }

    pub(super) fn up(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            State::Up(up) => Some(up),
            State::Down | State::Quarantined { .. } => None,
        }
    }

    pub(super) fn row(
        &self,
        node: NodeId,
        n_records: usize,
        member: Option<(Membership, Option<SocketAddr>)>,
    ) -> PeerRow {
        let up = match &self.state {
            State::Up(up) => Some(up),
            State::Down | State::Quarantined { .. } => None,
        };
        PeerRow {
            node,
            region: self.region,
            about: self.about.clone(),
            epoch: up.map(|it| it.epoch),
            standing: match self.state {
                State::Down => Standing::Down,
                State::Up(_) => Standing::Up,
                State::Quarantined { .. } => Standing::Quarantined,
            },
            membership: member.map(|(membership, _)| membership),
            at: member.and_then(|(_, at)| at),
            seed: self.seed,
            draining: up.is_some_and(|it| it.draining),
            rtt: up.and_then(|it| it.samples.iter().min().copied()),
            heard_at: self.heard_at,
            n_records,
            counts: self.counts,
            fault: self.fault,
        }
    }
}

impl Up {
    pub(super) fn new(now: Instant, link: LinkId, greeting: &Greeting, silence: Duration) -> Self {
        Self {
            link,
            epoch: greeting.epoch,
            draining: false,
            ping_at: now,
            pinged_at: None,
            push_at: now,
            others_at: now,
            urge_at: None,
            urged_at: now,
            // Not before the first records are through.
            digest_at: now + silence,
            pulled_at: None,
            sent: Sent::default(),
            silent_at: now + silence,
            pings: VecDeque::new(),
            samples: VecDeque::new(),
        }
    }

    /// Notes a ping sent; of more than [`MAX_PINGS`] unanswered ones the oldest is given up.
    pub(super) fn note_ping(&mut self, now: Instant, nonce: u64) {
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((nonce, now));
        self.pinged_at = Some(now);
    }

    /// Takes the answer to a ping; one to no ping of ours is nothing.
    pub(super) fn note_pong(&mut self, now: Instant, nonce: u64) {
        let Some(at) = self.pings.iter().position(|&(asked, _)| asked == nonce) else { return };
        let Some((_, sent_at)) = self.pings.remove(at) else { return };
        if self.samples.len() == N_SAMPLES {
            self.samples.pop_front();
        }
        // A loopback answer within the clock's grain still took time.
        let rtt = Micros::from(now.saturating_duration_since(sent_at)).max(Micros(1));
        self.samples.push_back(rtt);
    }
}

/// How many round trips the least is taken of: the least, unlike a mean, is free of queueing
/// and of a busy peer, and 20 of them forget a route change in 20 seconds, or 100 in a mesh of
/// 300.
pub const N_SAMPLES: usize = 20;

/// The most unanswered pings of one link: more than fit into the longest silence.
const MAX_PINGS: usize = 8;
