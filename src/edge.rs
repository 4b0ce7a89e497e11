//! Where requests enter: one node's gateway, and the life of a request.
//!
//! Nothing here mutates the mesh, and no request waits on an actor: it reads one View, a few
//! atomics, and writes counters.

pub mod admin;
pub mod apps;
pub mod bindings;
pub mod decisions;
pub mod discover;
pub mod enter;
pub mod explain;
pub mod job;
pub mod listen;
pub mod locate;
pub mod open;
pub mod refusal;
pub mod relay;
pub mod resolve;
pub mod rewrite;
pub mod route;
pub mod slug;
pub mod visit;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actors::Shared;
use crate::address::Cidr;
use crate::clock;
use crate::forwarded::TrustedProxies;
use crate::geo::Point;
use crate::id::{NodeId, RegionId};
use crate::journal::{Journal, Slot};
use crate::policy::Rules;
use crate::ticket;
use crate::upstream::Body;
use crate::view::View;

use bindings::Bindings;
use decisions::Decisions;
use job::Job;
use refusal::ServeError;

/// The knobs of a [`Gateway`].
#[derive(Clone, Debug)]
pub struct Params {
    /// This node.
    pub node: NodeId,
    /// Where it runs.
    pub region: RegionId,
    /// The point of that region.
    pub point: Point,
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
    /// Requests under way at once.
    pub in_flight_max: usize,
    /// The longest body held to be sent again, in bytes.
    pub replay_max: usize,
    /// Orchestrators tried for one request.
    pub attempts_max: usize,
    /// How long an answer's head may take where another orchestrator could be asked.
    pub head_timeout: Duration,
    /// The same within a session, where nobody else can.
    pub session_head_timeout: Duration,
    /// How long a rewritten URL is good for.
    pub ticket_for: Duration,
}

/// One node's gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The knobs.
    pub params: Params,
    /// What the actors share.
    pub shared: Arc<Shared>,
    /// The usage journal.
    pub journal: Journal,
    /// The last decisions.
    pub decisions: Decisions,
    key: ticket::Key,
    bindings: Bindings,
    permits: Arc<Semaphore>,
    draining: AtomicBool,
    draws: AtomicU64,
    upgrades: relay::Upgrades,
}

/// Serves one request of the apps door, from its head to the last byte of its answer.
///
/// Each turn tries somebody else, so `choose` ends the loop when nobody is left; a request
/// that belongs to one orchestrator goes there or nowhere. Once an answer's head is there,
/// nothing is retried.
pub async fn serve(gateway: &Arc<Gateway>, mut job: Job) -> Result<Response<Body>, ServeError> {
    let admitted = gateway.admit()?;
    let view = gateway.view();
    let refused = loop {
        let route = match gateway.choose(&view, &mut job) {
            Ok(route) => route,
            Err(nobody) => break nobody,
        };
        match gateway.open(&route, &mut job).await {
            Ok(answer) => return relay::relay(gateway, admitted, job, route, answer).await,
            Err(refusal) => match job.note(route, refusal) {
                Ok(()) => {}
                Err(end) => break end,
            },
        }
    };
    relay::record_refused(gateway, admitted, &job, &refused);
    Err(refused)
}

/// A request let in: its place among those under way, and its line in the journal.
#[derive(Debug)]
pub struct Admitted {
    _permit: OwnedSemaphorePermit,
    slot: Slot,
}

impl Gateway {
    /// Puts a gateway together.
    pub fn new(params: Params, shared: Arc<Shared>, journal: Journal, key: ticket::Key) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(params.in_flight_max)),
            decisions: Decisions::new(rand::rng().random()),
            bindings: Bindings::default(),
            draining: AtomicBool::new(false),
            draws: AtomicU64::new(rand::rng().random()),
            upgrades: relay::Upgrades::default(),
            params,
            shared,
            journal,
            key,
        }
    }

    /// Lets a request in, or refuses it at once: nothing queues.
    fn admit(&self) -> Result<Admitted, ServeError> {
        if self.is_draining() {
            return Err(ServeError::Draining);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_full| ServeError::Busy)?;
        let slot = self.journal.admit().ok_or(ServeError::JournalFull)?;
        Ok(Admitted { _permit: permit, slot })
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
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until no request is under way, or until `deadline` has passed.
    pub async fn drained(&self, deadline: Duration) {
        let all = self.params.in_flight_max as u32;
        // At the deadline the rest is cut, which its clients are told by the cut itself.
        drop(tokio::time::timeout(deadline, self.permits.acquire_many(all)).await);
        self.upgrades.end();
    }

    /// Returns whether `ip` may name the client's address outright.
    fn may_name_clients(&self, ip: IpAddr) -> bool {
        self.params.callers.iter().any(|block| block.contains(ip))
    }

    /// Returns seconds since the Unix epoch.
    fn wall_s() -> u64 {
        clock::wall().as_secs()
    }
}
