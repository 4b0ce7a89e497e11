//! The immutable picture decisions are made from.
//!
//! Machines write it, `policy` reads it, neither knows the other. A [`View`] is published
//! whole behind an `Arc`; what did not change is shared with the one before it.

pub mod board;
pub mod claim;
pub mod column;
pub mod index;
pub mod outcome;
pub mod promise;
pub mod rest;
pub mod row;
pub mod share;
mod spill;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::geo::{Confidence, Place, Point};
use crate::id::{OrchestratorId, RegionId};
use crate::score::FLEET_FAILING_MAX;
use crate::unit::{Country, Ppm};

pub use column::Column;
pub use index::{Index, List};
pub use outcome::Gauge;
pub use rest::Resting;
pub use row::{Member, Offer, Prior, Row, Runner, Standing};

/// A capability: one interned key, `pipeline/model`, a BYOC name or a live-runner app id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct CapabilityId(pub u16);

/// A ranking class of clients: home region and confidence class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct CellId(pub u16);

/// One row's position in a [`View`]; stable from one View to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// The regions as a View needs them: names and points, in a stable order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atlas {
    /// Region names; an index into this is a region's number.
    pub names: Vec<RegionId>,
    /// Where each region is.
    pub points: Vec<Point>,
    /// The number of this node's own region.
    pub home: u8,
}

impl Atlas {
    /// The most regions an atlas holds: three confidence classes each make at most 256 cells.
    pub const REGIONS_MAX: usize = 85;

    /// Returns the number of the region nearest to `point`; ties go to the first.
    pub fn nearest(&self, point: &Point) -> u8 {
        let distance = |number: &usize| self.points[*number].distance_m(point);
        (0..self.points.len()).min_by_key(distance).map_or(self.home, |number| number as u8)
    }

    /// Returns the name of the region with `number`.
    pub fn name(&self, number: u8) -> RegionId {
        self.names[usize::from(number)]
    }

    /// Returns the cell of callers at `place`.
    pub fn cell(&self, place: &Place) -> CellId {
        let class = match place.confidence {
            Confidence::Unknown => 0,
            Confidence::Country => 1,
            Confidence::City => 2,
        };
        CellId(u16::from(self.nearest(&place.point)) * CLASSES + class)
    }
}

impl CellId {
    /// Returns the number of the home region.
    pub fn region(self) -> u8 {
        (self.0 / CLASSES) as u8
    }

    /// Returns how far the place of its callers may be trusted.
    pub fn confidence(self) -> Confidence {
        match self.0 % CLASSES {
            0 => Confidence::Unknown,
            1 => Confidence::Country,
            _ => Confidence::City,
        }
    }
}

/// The names of capabilities, by number. Grows only; bounded by [`Self::MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, CapabilityId>,
}

impl Capabilities {
    /// The most capabilities a node knows; further names are not offered to clients.
    pub const MAX: usize = 4096;

    /// Returns the number of `name`, giving it one if there is room.
    pub fn intern(&mut self, name: &str) -> Option<CapabilityId> {
        if let Some(known) = self.number(name) {
            return Some(known);
        }
        if self.names.len() >= Self::MAX {
            return None;
        }
        let name: Arc<str> = name.into();
        let number = CapabilityId(self.names.len() as u16);
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        Some(number)
    }

    /// Returns the number of `name`, if it has one.
    pub fn number(&self, name: &str) -> Option<CapabilityId> {
        self.numbers.get(name).copied()
    }

    /// Returns the name of a number that [`Self::intern`] gave.
    pub fn name(&self, number: CapabilityId) -> &Arc<str> {
        &self.names[usize::from(number.0)]
    }

    /// Returns every name with its number, by number.
    pub fn iter(&self) -> impl Iterator<Item = (CapabilityId, &Arc<str>)> {
        self.names.iter().enumerate().map(|(number, name)| (CapabilityId(number as u16), name))
    }
}

/// One immutable picture of the orchestrators.
#[derive(Debug)]
pub struct View {
    /// Counts up by one with each View of this process.
    pub version: u64,
    /// When it was published.
    pub published_at: Instant,
    /// The regions.
    pub atlas: Arc<Atlas>,
    /// The names of capabilities.
    pub capabilities: Arc<Capabilities>,
    /// The failure rate of all orchestrators together, at most [`FLEET_FAILING_MAX`].
    pub fleet: Ppm,
    rows: Vec<Option<Arc<Row>>>,
    slots: Arc<BTreeMap<OrchestratorId, Slot>>,
    index: Index,
}

impl View {
    /// Returns the View before anything is known.
    pub fn empty(now: Instant, atlas: Arc<Atlas>) -> Self {
        Self {
            version: 0,
            published_at: now,
            index: Index::empty(&atlas),
            atlas,
            capabilities: Arc::default(),
            fleet: FLEET_FAILING_MAX,
            rows: Vec::new(),
            slots: Arc::default(),
        }
    }

    /// Returns the next View: `changes` put, replace or (with `None`) remove a row.
    ///
    /// Work is proportional to what changed: a list is ranked again only if a changed row
    /// stands in it or would enter it. `capabilities` holds at least every number the
    /// changed offers name.
    pub fn next(
        &self,
        now: Instant,
        capabilities: Arc<Capabilities>,
        changes: Vec<(OrchestratorId, Option<Arc<Row>>)>,
    ) -> Self {
        let mut rows = self.rows.clone();
        let mut slots = Arc::clone(&self.slots);
        let mut changed = Vec::with_capacity(changes.len());
        // Places left by others, so that coming and going does not grow the table.
        let mut free = (0_u32..).zip(&self.rows).filter(|(_, row)| row.is_none());
        for (id, row) in changes {
            let slot = match (slots.get(&id).copied(), &row) {
                (Some(slot), Some(_)) => slot,
                (Some(slot), None) => {
                    Arc::make_mut(&mut slots).remove(&id);
                    slot
                }
                (None, None) => continue,
                (None, Some(_)) => {
                    let slot = free.next().map_or(rows.len() as u32, |(slot, _)| slot);
                    if slot as usize == rows.len() {
                        rows.push(None);
                    }
                    Arc::make_mut(&mut slots).insert(id, Slot(slot));
                    Slot(slot)
                }
            };
            let before = std::mem::replace(&mut rows[slot.0 as usize], row);
            changed.push((slot, before));
        }
        let fleet = fleet_failing(now, &rows);
        let mut index = self.index.clone();
        index.update(now.into(), &self.atlas, &rows, &changed, fleet, capabilities.names.len());
        Self {
            version: self.version + 1,
            published_at: now,
            atlas: Arc::clone(&self.atlas),
            capabilities,
            fleet,
            rows,
            slots,
            index,
        }
    }

    /// Returns the row at `slot`.
    pub fn row(&self, slot: Slot) -> Option<&Arc<Row>> {
        self.rows.get(slot.0 as usize)?.as_ref()
    }

    /// Returns the row of an orchestrator.
    pub fn orchestrator(&self, id: OrchestratorId) -> Option<(Slot, &Arc<Row>)> {
        let slot = *self.slots.get(&id)?;
        Some((slot, self.row(slot)?))
    }

    /// Returns every row with its slot, by slot.
    pub fn rows(&self) -> impl Iterator<Item = (Slot, &Arc<Row>)> {
        let numbered = self.rows.iter().enumerate();
        numbered.filter_map(|(slot, row)| Some((Slot(slot as u32), row.as_ref()?)))
    }

    /// Returns the ranked candidates of a capability for callers of `cell` going straight
    /// to the orchestrator.
    pub fn direct(&self, cell: CellId, capability: CapabilityId) -> &[Member] {
        self.index.direct(cell, capability)
    }

    /// Returns the ranked candidates of a capability for work relayed by this node.
    pub fn relayed(&self, capability: CapabilityId) -> &[Member] {
        self.index.relayed(capability)
    }

    /// Notes that a client was shown `listed`, best first: each of the first few is promised
    /// its share of one place, until the client is seen there or was given enough time.
    pub fn promise(&self, now: Instant, listed: impl IntoIterator<Item = Member>) {
        for (member, milli) in listed.into_iter().zip(PROMISED_MILLI) {
            let Some((row, offer)) = member.of(&self.rows) else { continue };
            let holding = offer.holding.max(offer.service.unwrap_or_default());
            row.gauge.promise(now, milli, holding);
        }
    }

    /// Returns the cost each member of a capability's column had when the View was made, by
    /// position; on the direct path as seen from the cell's region.
    pub(crate) fn costs_as_made(
        &self,
        direct: bool,
        cell: CellId,
        capability: CapabilityId,
    ) -> impl Fn(usize) -> u32 {
        self.index.costs(direct, cell, capability)
    }

    /// Returns what is assumed of an orchestrator before anything is known of it itself.
    pub fn prior(&self, capability: CapabilityId) -> Prior {
        let unknown = Prior { failing: self.fleet, service: column::SERVICE_DEFAULT };
        self.column(capability).map_or(unknown, |column| column.prior(self.fleet))
    }

    /// Returns the whole index of a capability, for the scan beyond a short list.
    pub fn column(&self, capability: CapabilityId) -> Option<&Column> {
        self.index.column(capability)
    }

    /// Returns the countries in which a capability is offered, for residency.
    pub fn in_country(&self, capability: CapabilityId, country: Country) -> &[u32] {
        self.column(capability).map_or(&[], |column| column.in_country(country))
    }
}

/// Returns the share of failures among all outcomes of the fleet.
fn fleet_failing(now: Instant, rows: &[Option<Arc<Row>>]) -> Ppm {
    let counts = rows.iter().flatten().map(|row| row.outcomes_at(now));
    let (bad, good) = counts.fold((0, 0), |(bad, good), it| (bad + it.0, good + it.1));
    let share = (bad * 1_000_000).checked_div(bad + good).unwrap_or(0);
    Ppm((share as u32).min(FLEET_FAILING_MAX.0))
}

/// What a client that was shown a list takes up, in thousandths of a place: it walks the list
/// in order, and one in a few finds the first entry full or away.
const PROMISED_MILLI: [u32; 3] = [800, 150, 50];
/// Confidence classes a region.
const CLASSES: u16 = 3;

#[cfg(test)]
pub(crate) mod tests;
