//! Everybody who offers one capability, laid out for scanning.

use crate::score::Evidence;
use crate::unit::stamp::Stamp;
use crate::unit::{Country, Micros, Ppm};
use crate::view::row::{Member, Offer, Path, Prior, Row};
use crate::view::{CapabilityId, Slot};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The whole index of one capability: members in the order of their regions, with the
/// part of their cost that does not depend on the caller.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Sorted by region, then slot, then offer.
    members: Vec<Member>,
    /// Cost besides a direct path, in microseconds, by member.
    extra_us: Vec<u32>,
    /// Cost over the path this node relays on, in microseconds, by member.
    relayed_us: Vec<u32>,
    stretches: Vec<Stretch>,
    countries: BTreeMap<Country, Vec<u32>>,
    /// The median of the service times learned when the column was laid out: what the costs
    /// above were worked out with.
    usual: Micros,
    /// The same as of the last change.
    usual_now: Micros,
}

/// The members of one region.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    /// The region's number.
    pub(crate) region: u8,
    /// Positions of its members.
    pub(crate) range: Range<usize>,
    /// The least cost besides a direct path.
    pub(crate) least_extra_us: u32,
    /// The least cost over the relayed path.
    pub(crate) least_relayed_us: u32,
}

impl Column {
    /// Lays out everybody who offers `capability`.
    pub(crate) fn build(
        capability: CapabilityId,
        rows: &[Option<Arc<Row>>],
        now: Stamp,
        fleet: Ppm,
    ) -> Self {
        let mut found: Vec<(u8, Member)> = Vec::new();
        for (slot, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            for (offer, at) in row.offers.iter().zip(0_u8..) {
                if offer.capability == capability {
                    found.push((row.region, Member { slot: Slot(slot as u32), offer: at }));
                }
            }
        }
        found.sort_unstable();
        let usual = usual(found.iter().map(|(_, member)| *member), rows);
        let mut column = Self { usual, usual_now: usual, ..Self::default() };
        let prior = Prior { failing: fleet, service: usual };
        for (position, (region, member)) in found.iter().enumerate() {
            let Some((row, offer)) = member.of(rows) else { continue };
            column.members.push(*member);
            column.extra_us.push(extra_us(row, offer, now, prior));
            column.relayed_us.push(relayed_us(row, offer, now, prior));
            if let Some(country) = row.country {
                column.countries.entry(country).or_default().push(position as u32);
            }
            match column.stretches.last_mut().filter(|it| it.region == *region) {
                Some(stretch) => stretch.range.end = position + 1,
                None => column.stretches.push(Stretch {
                    region: *region,
                    range: position..position + 1,
                    least_extra_us: 0,
                    least_relayed_us: 0,
                }),
            }
        }
        for at in 0..column.stretches.len() {
            column.measure_stretch(at);
        }
        column
    }

    /// Returns what is usual by now.
    pub(crate) fn usual_by(&self, rows: &[Option<Arc<Row>>]) -> Micros {
        usual(self.members.iter().copied(), rows)
    }

    /// Tells whether what is `usual` has moved by more than a quarter since the column was
    /// laid out, so that everybody of whom nothing is known ranks elsewhere.
    pub(crate) fn is_outdated(&self, usual: Micros) -> bool {
        usual.0.abs_diff(self.usual.0) > self.usual.0 / 4
    }

    /// Takes what is usual by now.
    pub(crate) fn set_usual(&mut self, usual: Micros) {
        self.usual_now = usual;
    }

    /// Takes new costs for one member whose region and offer stayed as they were.
    pub(crate) fn refresh(&mut self, member: Member, row: &Row, now: Stamp, fleet: Ppm) {
        let prior = Prior { failing: fleet, service: self.usual };
        let Some(offer) = row.offers.get(usize::from(member.offer)) else { return };
        let Some(at) = self.stretches.iter().position(|it| it.region == row.region) else { return };
        let range = self.stretches[at].range.clone();
        let Ok(within) = self.members[range.clone()].binary_search(&member) else { return };
        self.extra_us[range.start + within] = extra_us(row, offer, now, prior);
        self.relayed_us[range.start + within] = relayed_us(row, offer, now, prior);
        self.measure_stretch(at);
    }

    fn measure_stretch(&mut self, at: usize) {
        let stretch = &mut self.stretches[at];
        let least = |costs: &[u32]| costs.iter().copied().min().unwrap_or(u32::MAX);
        stretch.least_extra_us = least(&self.extra_us[stretch.range.clone()]);
        stretch.least_relayed_us = least(&self.relayed_us[stretch.range.clone()]);
    }

    /// Returns every member, by region.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the positions in [`Self::members`] of those in `country`.
    pub fn in_country(&self, country: Country) -> &[u32] {
        self.countries.get(&country).map_or(&[], Vec::as_slice)
    }

    /// Returns what is assumed of a member of which nothing is known.
    pub(crate) fn prior(&self, fleet: Ppm) -> Prior {
        Prior { failing: fleet, service: self.usual_now }
    }

    pub(crate) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    pub(crate) fn extra_us(&self) -> &[u32] {
        &self.extra_us
    }

    pub(crate) fn relayed_us(&self) -> &[u32] {
        &self.relayed_us
    }
}

/// Returns the cost of a row's offer besides its path.
pub(crate) fn extra_us(row: &Row, offer: &Offer, now: Stamp, prior: Prior) -> u32 {
    let nowhere = Path {
        rtt: Micros::ZERO,
        evidence: Evidence::Default,
        at: None,
        round_trips: 0,
        in_flight: 0,
        promised_milli: 0,
        claimed: 0,
        full_at: None,
        tried: 0,
        switch_us: 0,
    };
    cost_us(row, offer, &nowhere, now, prior)
}

/// Returns the cost of a row's offer over the path this node relays on.
pub(crate) fn relayed_us(row: &Row, offer: &Offer, now: Stamp, prior: Prior) -> u32 {
    let link = Path {
        rtt: row.link.rtt,
        evidence: row.link.evidence,
        at: row.link.at,
        round_trips: COLD_ROUND_TRIPS,
        in_flight: 0,
        promised_milli: 0,
        claimed: 0,
        full_at: None,
        tried: 0,
        switch_us: 0,
    };
    cost_us(row, offer, &link, now, prior)
}

fn cost_us(row: &Row, offer: &Offer, path: &Path, now: Stamp, prior: Prior) -> u32 {
    let total = row.inputs(offer, path, now, prior).terms(Micros::ZERO).total();
    u32::try_from(total.0).unwrap_or(u32::MAX)
}

/// Returns the median of the service times learned; the default while there are none.
fn usual(members: impl Iterator<Item = Member>, rows: &[Option<Arc<Row>>]) -> Micros {
    let learned = members.filter_map(|member| member.of(rows)?.1.service);
    let mut learned: Vec<Micros> = learned.collect();
    let middle = learned.len() / 2;
    match learned.is_empty() {
        true => SERVICE_DEFAULT,
        false => *learned.select_nth_unstable(middle).1,
    }
}

/// Service time assumed of a capability nobody has answered for yet.
pub const SERVICE_DEFAULT: Micros = Micros::from_ms(200);
/// Round trips to the first byte over a new connection: TCP, TLS 1.3, the request.
pub const COLD_ROUND_TRIPS: u8 = 3;
