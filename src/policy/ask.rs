//! What a request wants, from whom it comes and what it may use.

use std::collections::BTreeSet;

use crate::geo::Place;
use crate::id::OrchestratorId;
use crate::unit::{Country, Micros};
use crate::view::column::COLD_ROUND_TRIPS;
use crate::view::row::Mode;
use crate::view::{CapabilityId, CellId};

/// The client of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where it is thought to be.
    pub place: Place,
    /// Its ranking class.
    pub cell: CellId,
    /// Round trips its prefix measured itself, best evidence for a direct path; at most 64.
    pub observed: Vec<Observed>,
}

/// One round trip a client measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// To whom.
    pub orchestrator: OrchestratorId,
    /// How long it took.
    pub rtt: Micros,
}

/// Which way the bytes will go; the two have different winners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// From the client straight to the orchestrator.
    Direct,
    /// Through this node.
    Relayed,
}

/// What a request may use, whatever it would like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The highest price of one unit, in wei; nothing above it is used. An offer that
    /// names no price passes.
    pub price_max_wei: Option<u128>,
    /// The countries work may be done in, by the orchestrator's declared place; an
    /// orchestrator without one is out.
    pub countries: Option<BTreeSet<Country>>,
    /// Nobody but these.
    pub only: Option<BTreeSet<OrchestratorId>>,
    /// None of these.
    pub never: BTreeSet<OrchestratorId>,
    /// What the operator's orders leave out; `None` where nothing is ordered.
    pub shut: Option<Box<Shut>>,
}

/// What orders leave out for one client. Regions are bits by their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shut {
    /// Regions whose orchestrators get nothing new,
    pub drained: u128,
    /// and single orchestrators.
    pub orchestrators: BTreeSet<OrchestratorId>,
    /// Regions that are turned down so far that this client is not among those they get.
    pub dialed: u128,
}

impl Shut {
    /// Whether orders leave out an orchestrator of a region.
    pub fn leaves_out(&self, id: OrchestratorId, region: u8) -> bool {
        let bit = Self::bit(region);
        (self.drained | self.dialed) & bit != 0 || self.orchestrators.contains(&id)
    }

    /// The bit of a region.
    pub fn bit(region: u8) -> u128 {
        1_u128.checked_shl(region.into()).unwrap_or(0)
    }
}

/// One request, as `choose` sees it.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// What for.
    pub capability: CapabilityId,
    /// Which way the bytes will go.
    pub path: PathKind,
    /// How work is to be given; `None` takes either.
    pub mode: Option<Mode>,
    /// Only runners of exactly this price and graphics card, when the client was shown one
    /// entry for each; see [`crate::view::row::Runner::variant`].
    pub variant: Option<u32>,
    /// Only runners on one of these graphics cards; empty takes all.
    pub gpus: &'a [String],
    /// What it may use.
    pub rules: &'a Rules,
    /// Whether suspensions are overlooked, as in a panic.
    pub overlook: bool,
    /// Where a place is kept for it, after it has waited.
    pub kept: Option<OrchestratorId>,
    /// Who was tried already for this request.
    pub tried: &'a [OrchestratorId],
    /// Where its session runs now, when there is one.
    pub running: Option<Running>,
    /// The longest the work may take; candidates expected to need longer are out.
    pub deadline: Option<Micros>,
    /// Round trips until the first byte over a new connection; see
    /// [`COLD_ROUND_TRIPS`].
    pub cold_round_trips: u8,
}

impl<'a> Ask<'a> {
    /// Asks for new work, in either mode, of anybody the rules allow.
    pub fn new(
        caller: &'a Caller,
        capability: CapabilityId,
        path: PathKind,
        rules: &'a Rules,
    ) -> Self {
        Self {
            caller,
            capability,
            path,
            mode: None,
            variant: None,
            gpus: &[],
            rules,
            overlook: false,
            kept: None,
            tried: &[],
            running: None,
            deadline: None,
            cold_round_trips: COLD_ROUND_TRIPS,
        }
    }
}

/// The orchestrator a session runs on and what leaving it would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where it runs.
    pub on: OrchestratorId,
    /// The measured cost of a restart elsewhere.
    pub switch: Micros,
}
