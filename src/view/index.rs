//! Short lists: for each (cell, capability) the candidates a request looks at first.
//!
//! A list holds at most [`LIST_MAX`] members, few of one region, ranked by the part of
//! their cost that is known when the View is made. It is found without looking at everyone:
//! regions are visited in the order of the best cost they could hold, and the search ends
//! when no region left can better the worst of a full list.

use std::sync::Arc;

use crate::unit::Ppm;
use crate::unit::stamp::Stamp;
use crate::view::column::{COLD_ROUND_TRIPS, Column, Stretch};
use crate::view::row::{Member, Row};
use crate::view::{Atlas, CapabilityId, CellId, Slot};

/// A ranked short list.
#[derive(Clone, Debug, Default)]
pub struct List {
    members: Arc<[Member]>,
    /// The cost a newcomer must be below; `u32::MAX` while there is room.
    worst_us: u32,
}

/// Every short list, and what they are made from.
#[derive(Clone, Debug)]
pub struct Index {
    columns: Vec<Arc<Column>>,
    /// By capability, then cell.
    direct: Vec<Vec<List>>,
    relayed: Vec<List>,
    paths: Vec<Arc<Paths>>,
}

/// Direct path costs from one region's point to every row, in microseconds.
#[derive(Clone, Debug)]
struct Paths {
    by_slot: Vec<u32>,
    /// A lower bound by region of the rows.
    least: Vec<u32>,
}

/// The most members of a list.
pub const LIST_MAX: usize = 32;
/// The most members of one region in a list, by how far the caller's place is trusted: the
/// less it is, the wider the list reaches. By the class of a cell.
const OF_ONE_REGION: [usize; 3] = [4, 6, 12];

impl Index {
    /// Returns the index of nothing.
    pub(crate) fn empty(atlas: &Atlas) -> Self {
        let paths =
            || Arc::new(Paths { by_slot: Vec::new(), least: vec![u32::MAX; atlas.points.len()] });
        Self {
            columns: Vec::new(),
            direct: Vec::new(),
            relayed: Vec::new(),
            paths: atlas.points.iter().map(|_point| paths()).collect(),
        }
    }

    pub(crate) fn direct(&self, cell: CellId, capability: CapabilityId) -> &[Member] {
        let cells = self.direct.get(usize::from(capability.0));
        cells.and_then(|cells| cells.get(usize::from(cell.0))).map_or(&[], |list| &list.members)
    }

    pub(crate) fn relayed(&self, capability: CapabilityId) -> &[Member] {
        self.relayed.get(usize::from(capability.0)).map_or(&[], |list| &list.members)
    }

    /// Returns the cost of each member of a column, by position.
    pub(crate) fn costs(
        &self,
        direct: bool,
        cell: CellId,
        capability: CapabilityId,
    ) -> impl Fn(usize) -> u32 {
        let column = self.columns.get(usize::from(capability.0));
        let paths = self.paths.get(usize::from(cell.region())).filter(|_| direct);
        move |at: usize| {
            let Some(column) = column else { return u32::MAX };
            match paths {
                Some(paths) => {
                    let slot = column.members()[at].slot.0 as usize;
                    paths.by_slot[slot].saturating_add(column.extra_us()[at])
                }
                None => column.relayed_us()[at],
            }
        }
    }

    pub(crate) fn column(&self, capability: CapabilityId) -> Option<&Column> {
        self.columns.get(usize::from(capability.0)).map(Arc::as_ref)
    }

    /// Brings the index up to date with `rows`; `changed` names each changed slot with the
    /// row that stood there before.
    pub(crate) fn update(
        &mut self,
        now: Stamp,
        atlas: &Atlas,
        rows: &[Option<Arc<Row>>],
        changed: &[(Slot, Option<Arc<Row>>)],
        fleet: Ppm,
        capabilities: usize,
    ) {
        self.columns.resize_with(capabilities, Arc::default);
        self.relayed.resize_with(capabilities, || List { worst_us: u32::MAX, ..List::default() });
        self.direct.resize_with(capabilities, Vec::new);
        self.measure_paths(atlas, rows, changed);

        let mut touched: Vec<Touched> = (0..capabilities).map(|_| Touched::default()).collect();
        for (slot, before) in changed {
            let after = rows[slot.0 as usize].as_ref();
            note(&mut touched, *slot, before.as_deref(), after.map(Arc::as_ref));
        }
        for (number, touched) in touched.iter().enumerate() {
            let capability = CapabilityId(number as u16);
            if !touched.laid_out_anew && touched.members.is_empty() {
                continue;
            }
            let usual = self.columns[number].usual_by(rows);
            if touched.laid_out_anew || self.columns[number].is_outdated(usual) {
                self.columns[number] = Arc::new(Column::build(capability, rows, now, fleet));
                self.rank_all(number);
            } else {
                let column = Arc::make_mut(&mut self.columns[number]);
                column.set_usual(usual);
                for member in &touched.members {
                    if let Some((row, _offer)) = member.of(rows) {
                        column.refresh(*member, row, now, fleet);
                    }
                }
                self.rank_touched(number, &touched.members, rows);
            }
        }
    }

    fn measure_paths(
        &mut self,
        atlas: &Atlas,
        rows: &[Option<Arc<Row>>],
        changed: &[(Slot, Option<Arc<Row>>)],
    ) {
        let place = |row: &Row| (row.point, row.reach, row.region);
        let moved: Vec<(Slot, &Row)> = changed
            .iter()
            .filter_map(|(slot, before)| Some((slot, before, rows[slot.0 as usize].as_deref()?)))
            .filter(|(_, before, row)| before.as_deref().map(place) != Some(place(row)))
            .map(|(slot, _, row)| (*slot, row))
            .collect();
        if moved.is_empty() {
            return;
        }
        for (paths, point) in self.paths.iter_mut().zip(&atlas.points) {
            let paths = Arc::make_mut(paths);
            paths.by_slot.resize(rows.len(), u32::MAX);
            for (slot, row) in &moved {
                let cost = row.expected_from(point).0.0.saturating_mul(COLD_ROUND_TRIPS.into());
                let cost = u32::try_from(cost).unwrap_or(u32::MAX);
                paths.by_slot[slot.0 as usize] = cost;
                let least = &mut paths.least[usize::from(row.region)];
                *least = cost.min(*least);
            }
        }
    }

    fn rank_all(&mut self, capability: usize) {
        let column = Arc::clone(&self.columns[capability]);
        let regions = self.paths.iter();
        let lists = regions.flat_map(|paths| rank_direct(&column, paths, &OF_ONE_REGION));
        self.direct[capability] = lists.collect();
        self.relayed[capability] = rank_relayed(&column);
    }

    /// Ranks again the lists in which one of `members` stands or would enter.
    fn rank_touched(&mut self, capability: usize, members: &[Member], rows: &[Option<Arc<Row>>]) {
        let column = Arc::clone(&self.columns[capability]);
        let mut standing = vec![false; rows.len()];
        for member in members {
            standing[member.slot.0 as usize] = true;
        }
        let positions: Vec<usize> = positions(&column, members, rows);
        let stands = |list: &List| list.members.iter().any(|it| standing[it.slot.0 as usize]);

        let of_region = self.direct[capability].chunks_mut(OF_ONE_REGION.len());
        for (lists, paths) in of_region.zip(&self.paths) {
            let costs = |at: &usize| paths.cost_us(&column, *at);
            let least = positions.iter().map(costs).min().unwrap_or(u32::MAX);
            let touched: Vec<usize> = (0..lists.len())
                .filter(|at| least < lists[*at].worst_us || stands(&lists[*at]))
                .collect();
            let limits: Vec<usize> = touched.iter().map(|at| OF_ONE_REGION[*at]).collect();
            for (at, list) in touched.into_iter().zip(rank_direct(&column, paths, &limits)) {
                lists[at] = list;
            }
        }

        let list = &self.relayed[capability];
        let enters = |at: &usize| column.relayed_us()[*at] < list.worst_us;
        if stands(list) || positions.iter().any(enters) {
            self.relayed[capability] = rank_relayed(&column);
        }
    }
}

impl Paths {
    /// Returns the cost of a member of `column` by its position.
    fn cost_us(&self, column: &Column, at: usize) -> u32 {
        let path = self.by_slot[column.members()[at].slot.0 as usize];
        path.saturating_add(column.extra_us()[at])
    }
}

/// Ranks the lists of one region's cells, one for each of `limits` on members of one region.
fn rank_direct(column: &Column, paths: &Paths, limits: &[usize]) -> Vec<List> {
    let bound = |stretch: &Stretch| {
        paths.least[usize::from(stretch.region)].saturating_add(stretch.least_extra_us)
    };
    rank(column, limits, bound, |at| paths.cost_us(column, at))
}

fn rank_relayed(column: &Column) -> List {
    let cost = |at: usize| column.relayed_us()[at];
    let lists = rank(column, &OF_ONE_REGION[2..], |stretch| stretch.least_relayed_us, cost);
    lists.into_iter().next().unwrap_or_default()
}

/// Finds the cheapest [`LIST_MAX`] members, once for each of `limits` on how many may be of
/// one region; the members of a region are gone through once for all of them.
fn rank(
    column: &Column,
    limits: &[usize],
    bound: impl Fn(&Stretch) -> u32,
    cost: impl Fn(usize) -> u32,
) -> Vec<List> {
    let mut visits: Vec<(u32, &Stretch)> =
        column.stretches().iter().map(|stretch| (bound(stretch), stretch)).collect();
    visits.sort_unstable_by_key(|(bound, stretch)| (*bound, stretch.region));
    let mut ranked: Vec<Best> = limits.iter().map(|limit| Best::with_limit(*limit)).collect();
    let mut local: Vec<(u32, Member)> = Vec::new();
    for (bound, stretch) in visits {
        let open = || ranked.iter().filter(|best| bound <= best.worst_us());
        let Some(worst_us) = open().map(Best::worst_us).max() else { break };
        let most = open().map(|best| best.of_one_region).max().unwrap_or(0);
        let members = &column.members()[stretch.range.clone()];
        let found = stretch.range.clone().map(&cost).zip(members.iter().copied());
        cheapest(&mut local, found, worst_us, most);
        for best in &mut ranked {
            best.take(&local);
        }
    }
    ranked.into_iter().map(Best::into_list).collect()
}

/// Fills `local` with the `most` cheapest of `found`, none above `worst_us`.
fn cheapest(
    local: &mut Vec<(u32, Member)>,
    found: impl Iterator<Item = (u32, Member)>,
    mut worst_us: u32,
    most: usize,
) {
    local.clear();
    for one in found {
        if one.0 > worst_us {
            continue;
        }
        let at = local.partition_point(|held| *held < one);
        local.insert(at, one);
        local.truncate(most);
        if local.len() == most {
            worst_us = local[most - 1].0.min(worst_us);
        }
    }
}

/// The best members found so far.
struct Best {
    of_one_region: usize,
    members: Vec<(u32, Member)>,
}

impl Best {
    fn with_limit(of_one_region: usize) -> Self {
        Self { of_one_region, members: Vec::with_capacity(LIST_MAX * 2) }
    }

    /// Returns the cost a newcomer must not be above; `u32::MAX` while there is room.
    fn worst_us(&self) -> u32 {
        self.members.get(LIST_MAX - 1).map_or(u32::MAX, |worst| worst.0)
    }

    /// Takes those of one region, cheapest first.
    fn take(&mut self, local: &[(u32, Member)]) {
        self.members.extend(local.iter().take(self.of_one_region));
        self.members.sort_unstable();
        self.members.truncate(LIST_MAX);
    }

    fn into_list(self) -> List {
        let worst_us = self.worst_us();
        List { members: self.members.into_iter().map(|(_cost, member)| member).collect(), worst_us }
    }
}

/// What a tick does to one capability.
#[derive(Debug, Default)]
struct Touched {
    /// Somebody came, left or moved: the column is built again.
    laid_out_anew: bool,
    /// Those whose costs alone changed.
    members: Vec<Member>,
}

fn note(touched: &mut [Touched], slot: Slot, before: Option<&Row>, after: Option<&Row>) {
    let offers = |row: Option<&Row>| row.map_or_else(Vec::new, capabilities_of);
    let place = |row: &Row| (row.region, row.country);
    let (had, has) = (offers(before), offers(after));
    if had == has && before.map(place) == after.map(place) {
        for (at, capability) in (0_u8..).zip(&has) {
            touched[usize::from(capability.0)].members.push(Member { slot, offer: at });
        }
        return;
    }
    for capability in had.iter().chain(&has) {
        touched[usize::from(capability.0)].laid_out_anew = true;
    }
}

fn capabilities_of(row: &Row) -> Vec<CapabilityId> {
    row.offers.iter().map(|offer| offer.capability).collect()
}

fn positions(column: &Column, members: &[Member], rows: &[Option<Arc<Row>>]) -> Vec<usize> {
    let position = |member: &Member| {
        let (row, _offer) = member.of(rows)?;
        let stretch = column.stretches().iter().find(|it| it.region == row.region)?;
        let within = column.members()[stretch.range.clone()].binary_search(member).ok()?;
        Some(stretch.range.start + within)
    };
    members.iter().filter_map(position).collect()
}
