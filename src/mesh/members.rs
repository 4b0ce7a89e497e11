//! Who the members of the mesh are: SWIM, driven by time and by datagrams over links.
//!
//! What it says of a member is a hint and no more. A link of this node's own that is up
//! outweighs any word of others, and addresses told by a third node are tried, not believed.

mod identity;
mod lag;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{Config, Foca, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use self::identity::Identity;
use self::identity::{BadMember, Codec};
use self::lag::Lag;
use crate::id::NodeId;
use crate::wire::WireError;
use crate::wire::datagram;
use crate::wire::v1::AskV1;

/// How a member stands with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It answers.
    Alive,
    /// It left somebody without an answer.
    Suspect,
    /// It did not refute a suspicion in time.
    Down,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Dropped {
    /// Its bytes say nothing that is known here.
    #[error("the datagram cannot be read")]
    Unreadable,
    /// It is of a type or version unknown here.
    #[error("the datagram is of an unknown type")]
    Unknown,
    /// Its sender is not the node at the other end of the link.
    #[error("the datagram claims another sender")]
    Forged,
    /// It names members there is no room for.
    #[error("the datagram names too many members")]
    Crowd,
}

/// What the machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Send this to a member, if there is a link to it.
    Send { to: NodeId, datagram: Bytes },
    /// Something about this member is not as before.
    Changed(NodeId),
}

/// The machine.
#[derive(Debug)]
pub(super) struct Members {
    foca: Foca<Identity, Codec, StdRng, NoCustomBroadcast>,
    host: Host,
    members_max: usize,
}

/// What the protocol asks of its host, kept until the shell takes it.
#[derive(Debug)]
struct Host {
    now: Instant,
    lag: Lag,
    /// Whether some member spoke to this node under its latest identity.
    heard: bool,
    n_timers: u64,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    outputs: VecDeque<Output>,
}

impl Members {
    /// Returns a mesh of one. `seed` decides whom it asks first; at most `members_max` others
    /// are remembered.
    pub(super) fn new(now: Instant, local: Identity, seed: u64, members_max: usize) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let host = Host {
            now,
            lag: Lag::default(),
            heard: false,
            n_timers: 0,
            timers: BTreeMap::new(),
            outputs: VecDeque::new(),
        };
        Self { foca: Foca::new(local, profile(), rng, Codec), host, members_max }
    }

    /// Asks to be let in, and who else there is.
    pub(super) fn announce(&mut self, now: Instant, to: Identity) {
        self.host.now = now;
        report(self.foca.announce(to, &mut self.host));
    }

    /// Tells a member that it is suspected, so that it can refute that at once. Left to gossip,
    /// a suspicion could stay for ever once this node had been down itself in between.
    pub(super) fn warn(&mut self, node: NodeId) {
        let mut all = self.foca.iter_membership_state();
        let Some(member) = all.find(|it| it.id().node == node) else { return };
        match identity::warning(self.foca.identity(), member) {
            Ok(packet) => {
                let datagram = datagram::wrap(&packet);
                self.host.outputs.push_back(Output::Send { to: node, datagram });
            }
            Err(error) => tracing::debug!(%error, "a warning of our own cannot be sent"),
        }
    }

    /// Takes a datagram that came over the link to `from`.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(), Dropped> {
        let unreadable = |_error: WireError| Dropped::Unreadable;
        let packet = datagram::unwrap(bytes).map_err(unreadable)?.ok_or(Dropped::Unknown)?;
        let (gossip, members) = datagram::read(packet).map_err(unreadable)?;
        if gossip.source.node != from.as_str() {
            return Err(Dropped::Forged);
        }
        let named = members.iter().map(|it| &it.id).chain([&gossip.source]);
        let named: Result<Vec<_>, BadMember> = named.map(Identity::read).collect();
        let named = named.map_err(|_name| Dropped::Unreadable)?;
        let n_new = named.iter().filter(|it| self.state_of(it.node).is_none()).count();
        if self.foca.iter_membership_state().len() + n_new > self.members_max {
            return Err(Dropped::Crowd);
        }
        self.host.now = now;
        match self.foca.handle_data(packet, &mut self.host) {
            Ok(()) => Ok(()),
            Err(
                foca::Error::MalformedPacket
                | foca::Error::Decode(_)
                | foca::Error::DataTooBig
                | foca::Error::CustomBroadcast(_),
            ) => Err(Dropped::Unreadable),
            Err(foca::Error::DataFromOurselves | foca::Error::IndirectForOurselves) => {
                Err(Dropped::Forged)
            }
            Err(other) => {
                report(Err(other));
                Ok(())
            }
        }
    }

    /// Does what is due; late calls stretch the patience with others.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.host.now = now;
        while let Some(next) = self.host.timers.first_entry()
            && next.key().0 <= now
        {
            let ((due, _), timer) = next.remove_entry();
            if matches!(timer, Timer::ProbeRandomMember(_)) {
                self.host.lag.note(now.saturating_duration_since(due));
            }
            report(self.foca.handle_timer(timer, &mut self.host));
        }
    }

    /// Returns when [`Self::handle_timeout`] is due next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.host.timers.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Returns the next thing to do; `None` when there is nothing left.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        while let Some(output) = self.host.outputs.pop_front() {
            if !self.buries_the_living(&output) {
                return Some(output);
            }
        }
        None
    }

    /// Whether any member spoke to this node under its latest identity. Until then it has to
    /// announce itself: others may still write to an earlier one.
    pub(super) fn is_heard(&self) -> bool {
        self.host.heard
    }

    /// Whether a message tells a member that it is down which is not: the protocol sends that
    /// when a suspicion ran out, also when it was refuted in time, and two members that tell
    /// each other so take new identities at once and lose sight of one another.
    fn buries_the_living(&self, output: &Output) -> bool {
        let Output::Send { to, datagram } = output else { return false };
        let gossip = datagram::unwrap(datagram).ok().flatten().map(datagram::gossip);
        matches!(gossip, Some(Ok((it, _))) if it.ask == AskV1::TurnUndead)
            && self.state_of(*to).is_some_and(|(it, _)| it != Membership::Down)
    }

    /// Returns how a member stands; `None` for one nobody spoke of.
    pub(super) fn state_of(&self, node: NodeId) -> Option<(Membership, Option<SocketAddr>)> {
        let mut all = self.foca.iter_membership_state();
        let member = all.find(|it| it.id().node == node)?;
        let membership = match member.state() {
            State::Alive => Membership::Alive,
            State::Suspect => Membership::Suspect,
            State::Down => Membership::Down,
        };
        Some((membership, member.id().at))
    }
}

impl Runtime<Identity> for Host {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(it) | Notification::MemberDown(it) => {
                self.outputs.push_back(Output::Changed(it.node));
            }
            Notification::Rename(_, it) => self.outputs.push_back(Output::Changed(it.node)),
            Notification::Rejoin(it) => {
                self.heard = false;
                tracing::info!(renewals = it.renewals, "was held for down and is back");
            }
            Notification::Active => self.heard = true,
            Notification::Idle | Notification::Defunct => self.heard = false,
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        let datagram = datagram::wrap(data);
        self.outputs.push_back(Output::Send { to: to.node, datagram });
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        let after = match event {
            Timer::ProbeRandomMember(_)
            | Timer::SendIndirectProbe { .. }
            | Timer::ChangeSuspectToDown { .. } => self.lag.stretch(after),
            // One that is lost only makes a member that is down remembered for longer.
            Timer::RemoveDown(_) if self.timers.len() >= TIMERS_MAX => return,
            Timer::RemoveDown(_)
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => after,
        };
        self.n_timers += 1;
        self.timers.insert((self.now + after, self.n_timers), event);
    }
}

/// One profile for 3 to 1,000 members, measured over links of an ocean's length: nobody is
/// held for down at 5 % loss, and who is down is known to be within ten seconds.
fn profile() -> Config {
    let lan = Config::new_lan(NonZeroU32::MIN);
    let every = Duration::from_secs(10);
    let pair = NonZeroUsize::MIN.saturating_add(1);
    Config {
        // A preset's fifth of this leaves members that never hear of it.
        max_transmissions: NonZeroU8::MIN.saturating_add(14),
        suspect_to_down_after: Duration::from_secs(4),
        max_packet_size: NonZeroUsize::MIN.saturating_add(datagram::MAX_PACKET - 1),
        // Decides how soon a mesh that fell in two is whole again.
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: every,
            num_members: pair,
        }),
        ..lan
    }
}

fn report(outcome: Result<(), foca::Error>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "membership goes on after this");
    }
}

/// The most timers waited for: far more than a few for each member.
const TIMERS_MAX: usize = 8192;

#[cfg(test)]
mod tests;
