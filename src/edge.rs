//! Where requests enter: one node's gateway, and the life of a request.
//!
//! Nothing here mutates the mesh, and no request waits on an actor: it reads one View, a few
//! atomics, and writes counters.

pub mod admin;
pub mod affinity;
pub mod apps;
pub mod bindings;
pub mod choice;
pub mod decisions;
pub mod discover;
pub mod dns;
pub mod doors;
pub mod enter;
pub mod explain;
pub mod fields;
pub mod forward;
pub mod grpc;
pub mod job;
pub mod locate;
mod marks;
mod note;
pub mod observe;
pub mod open;
mod orders;
pub mod passed;
pub mod places;
pub mod pressure;
pub mod refusal;
pub mod relay;
pub mod replay;
pub mod resolve;
pub mod retries;
pub mod rewrite;
pub mod route;
pub mod send;
pub mod slug;
pub mod steer;
pub mod upload;
pub mod visit;
pub mod ways;
pub mod wishes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Response};
use rand::RngExt;

use crate::actors::Shared;
use crate::address::Cidr;
use crate::clock;
use crate::forwarded::TrustedProxies;
use crate::geo::Point;
use crate::id::{NodeId, RegionId};
use crate::journal::{Entry, Journal, Slot, UsageRecord};
use crate::net::Endpoint;
use crate::policy::{Panic, Rules};
use crate::retry;
use crate::ticket;
use crate::upstream::Body;
use crate::view::View;
use crate::view::board::Bell;

use affinity::Affinities;
use bindings::Bindings;
use choice::Panics;
use decisions::Decisions;
use job::{Job, Work};
use places::Places;
use pressure::Pressure;
use refusal::ServeError;
use replay::Replays;
use retries::Retries;
use route::{Refusal, Route};
use ways::Ways;
use wishes::Allowed;

/// Which node this is; stays as it is for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its name.
    pub node: NodeId,
    /// Where it runs.
    pub region: RegionId,
    /// The point of that region.
    pub point: Point,
    /// Requests under way at once.
    pub in_flight_max: usize,
}

/// The knobs of a [`Gateway`], swapped whole by a reload. A request keeps those it began with.
#[derive(Clone, Debug)]
pub struct Params {
    /// How clients reach this node, without a trailing slash; the request's own `Host` when
    /// not set.
    pub public_url: Option<String>,
    /// How clients reach the peers, by name.
    pub peer_urls: BTreeMap<NodeId, String>,
    /// Whose word on the client's address is taken.
    pub proxies: TrustedProxies,
    /// Who may name the client's address outright.
    pub callers: Vec<Cidr>,
    /// What every request may use.
    pub rules: Rules,
    /// How far the price ceiling may be raised when nobody is below it, in thousandths of it.
    pub price_relax_permille: u32,
    /// What is done when too little is left.
    pub panic: Panic,
    /// What clients may wish.
    pub clients_may: Allowed,
    /// How many requests may be sent again.
    pub retries: retry::Params,
    /// The longest body of a call held to be sent again, in bytes.
    pub replay_max: usize,
    /// Such bodies together, in bytes.
    pub replay_all_max: usize,
    /// The longest body of a call, in bytes.
    pub call_body_max: u64,
    /// Orchestrators tried for one request.
    pub attempts_max: usize,
    /// How long a request waits for a place, over all attempts, where peers have them all.
    pub place_wait: Duration,
    /// How long a reservation may take: another orchestrator is asked while the client, whose
    /// SDK waits five seconds, is still there.
    pub reserve_timeout: Duration,
    /// How long the head of a single-shot call's answer may take.
    pub head_timeout: Duration,
    /// The same within a session, where nobody else can.
    pub session_head_timeout: Duration,
    /// How long a rewritten URL is good for.
    pub ticket_for: Duration,
}

/// One node's gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Which node this is.
    pub identity: Identity,
    /// The knobs.
    pub params: ArcSwap<Params>,
    /// How hard memory presses.
    pub pressure: Pressure,
    /// What the actors share.
    pub shared: Arc<Shared>,
    /// The usage journal.
    pub journal: Journal,
    /// The last decisions.
    pub decisions: Decisions,
    /// By which requests go through peers; empty on a node without any.
    pub carrier: OnceLock<Endpoint>,
    key: ticket::Key,
    /// Its name, as every answer tells it.
    name: HeaderValue,
    ways: Ways,
    bindings: Bindings,
    affinities: Affinities,
    panics: Panics,
    replays: Replays,
    retries: Retries,
    places: Arc<Places>,
    in_flight: Arc<AtomicUsize>,
    draining: AtomicBool,
    draws: AtomicU64,
    upgrades: relay::Upgrades,
}

/// Serves one request of the apps door, from its head to the last byte of its answer.
///
/// Each turn tries somebody else, so `choose` ends the loop when nobody is left; a request
/// that belongs to one orchestrator goes there or nowhere. Once an answer's head is there,
/// nothing is retried.
pub async fn serve(
    gateway: &Arc<Gateway>,
    mut job: Box<Job>,
) -> Result<Response<Body>, ServeError> {
    let admitted = gateway.admit(&job)?;
    let refused = loop {
        let view = gateway.view();
        let route = match gateway.choose(&view, &mut job) {
            Ok(route) => route,
            Err(nobody) => {
                // Boxed, or every request would have room for it.
                if Box::pin(gateway.wait_for_place(&view, &mut job)).await {
                    continue;
                }
                break nobody;
            }
        };
        match gateway.open(&route, &mut job).await {
            Ok(answer) => {
                return relay::relay(gateway, &view, admitted, job, route, answer).await;
            }
            Err(refusal) => match gateway.note(&mut job, route, refusal) {
                Ok(()) => {}
                Err(end) => break end,
            },
        }
    };
    admitted.refused(&job, &refused);
    Err(refused)
}

/// A request let in: its place among those under way, and its line in the journal. A
/// request whose client leaves before it is answered leaves its line all the same.
#[derive(Debug)]
pub(crate) struct Admitted(Option<Box<Line>>);

/// A place among the requests under way, with a line of the journal that is being filled.
#[derive(Debug)]
pub(crate) struct Line {
    _permit: Permit,
    pub(crate) slot: Slot,
    pub(crate) usage: UsageRecord,
}

/// One among the requests under way; counted out when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admitted {
    /// Hands the place and the line on to whoever writes it; `None` when that was done.
    pub(crate) fn take(mut self) -> Option<Box<Line>> {
        self.0.take()
    }

    /// Writes down that nobody served the request.
    fn refused(mut self, job: &Job, error: &ServeError) {
        if let Some(Line { usage, .. }) = self.0.as_deref_mut() {
            usage.status = error.status().as_u16();
            usage.decision = job.decision;
            usage.attempts = job.tried.len() as u32;
            usage.end = "refused";
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(line) = self.0.take() else { return };
        let Line { _permit, slot, mut usage } = *line;
        let now = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
        usage.duration_us = now.saturating_sub(usage.at_ms).saturating_mul(1000);
        slot.write(Entry::of(&usage));
    }
}

impl Gateway {
    /// Puts a gateway together.
    pub fn new(
        identity: Identity,
        params: Params,
        shared: Arc<Shared>,
        journal: Journal,
        key: ticket::Key,
    ) -> Self {
        let places = Arc::<Places>::default();
        let bell: Arc<dyn Bell> = Arc::clone(&places) as _;
        shared.board.hang(bell);
        let name = HeaderValue::from_bytes(identity.node.as_bytes());
        Self {
            identity,
            name: name.expect("a name is letters, digits and '-', '_', '.'"),
            places,
            pressure: Pressure::default(),
            in_flight: Arc::default(),
            decisions: Decisions::new(rand::rng().random()),
            carrier: OnceLock::new(),
            ways: Ways::default(),
            bindings: Bindings::default(),
            affinities: Affinities::default(),
            panics: Panics::default(),
            replays: Replays::default(),
            retries: Retries::default(),
            draining: AtomicBool::new(false),
            draws: AtomicU64::new(rand::rng().random()),
            upgrades: relay::Upgrades::default(),
            params: ArcSwap::from_pointee(params),
            shared,
            journal,
            key,
        }
    }

    /// Lets a request in, or refuses it at once: nothing queues. A node that stops still
    /// serves what belongs to a session.
    fn admit(&self, job: &Job) -> Result<Admitted, ServeError> {
        if self.is_draining() && matches!(job.work, Work::New { .. }) {
            return Err(ServeError::Draining);
        }
        if !job.belongs() && !self.pressure.takes_work(job.is_paid()) {
            return Err(ServeError::Memory);
        }
        let permit = self.permit()?;
        let slot = self.journal.admit().ok_or(ServeError::JournalFull)?;
        if let Work::New { capability, .. } = &job.work {
            let region = job.visit.located.caller.cell.region();
            self.retries.count(capability.0, region, job.visit.started);
        }
        let usage = note::usage(self, job);
        Ok(Admitted(Some(Box::new(Line { _permit: permit, slot, usage }))))
    }

    /// Takes a place among the requests under way.
    pub(crate) fn permit(&self) -> Result<Permit, ServeError> {
        let permit = Permit(Arc::clone(&self.in_flight));
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        if before < self.identity.in_flight_max { Ok(permit) } else { Err(ServeError::Busy) }
    }

    /// Notes a refusal; an error when nothing else may be tried, or the retry budget of this
    /// route in this region is used up.
    fn note(&self, job: &mut Job, route: Route, refusal: Refusal) -> Result<(), ServeError> {
        let Work::New { capability, .. } = &job.work else {
            return job.note(route, refusal, || false);
        };
        let (capability, region) = (capability.0, job.visit.located.caller.cell.region());
        let params = job.visit.params.retries;
        job.note(route, refusal, || self.retries.take(capability, region, clock::now(), params))
    }

    fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Returns one random word: a counter from a random start, mixed.
    fn draw(&self) -> u64 {
        let mut word = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Takes nothing new from here on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Tells whether nothing new is taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.is_ordered_out()
    }

    /// Waits until no request is under way, or until `deadline` has passed.
    pub async fn drained(&self, deadline: Duration) {
        let idle = async {
            while self.in_flight.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        // At the deadline the rest is cut, which its clients are told by the cut itself.
        drop(tokio::time::timeout(deadline, idle).await);
        self.upgrades.end();
    }

    /// Returns whether `ip` may name the client's address outright.
    fn may_name_clients(&self, ip: IpAddr) -> bool {
        self.params.load().callers.iter().any(|block| block.contains(ip))
    }

    /// Returns seconds since the Unix epoch.
    fn wall_s() -> u64 {
        clock::wall().as_secs()
    }
}

/// How often a stopping node looks whether it may.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
