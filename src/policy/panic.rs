//! What is done when too little is left: the operator's choice, and when it applies.

use std::time::Instant;

use crate::policy::choose::{Live, resolve};
use crate::score::Evidence;
use crate::unit::Micros;
use crate::view::outcome::Gauge;
use crate::view::row::Path;
use crate::view::{CapabilityId, Standing, View};

/// What is done in a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Panic {
    /// Suspensions are overlooked: everybody is tried.
    All,
    /// New work is refused at once.
    FailFast,
    /// New work that nobody paid for is refused at once; what is left is for the rest.
    #[default]
    ShedLow,
}

/// How much is left of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Enough.
    Enough,
    /// Too little: a panic.
    Little,
    /// Nobody.
    Nothing,
}

/// Returns how much is left of a capability. Little: more than half of its capacity is put
/// aside, in all regions together, and what is left is less than what is wanted of it, one
/// more request included. One region that fails while another has room is no panic.
pub fn left(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    capability: CapabilityId,
    now: Instant,
) -> Left {
    let Some(column) = view.column(capability) else { return Left::Enough };
    let (prior, now) = (view.prior(capability), now.into());
    let (mut well, mut all, mut wanted) = (0, 0, ONE_MILLI);
    for member in column.members() {
        let Some((row, offer)) = resolve(view, *member) else { continue };
        let capacity = u64::from(offer.capacity_milli);
        match row.standing {
            Standing::Ready => well += capacity,
            // Whoever is on the way back takes one at a time.
            Standing::Probation => well += ONE_MILLI,
            Standing::Suspended => {}
            Standing::Unknown | Standing::Draining => continue,
        }
        all += capacity.max(ONE_MILLI);
        let path = Path { in_flight: live(&row.gauge).in_flight, ..NOWHERE };
        wanted += row.inputs(offer, &path, now, prior).load_milli();
    }
    match well {
        0 if all > 0 => Left::Nothing,
        _ if well * 2 < all && well < wanted => Left::Little,
        _ => Left::Enough,
    }
}

const NOWHERE: Path = Path {
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
/// One request.
const ONE_MILLI: u64 = 1000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::view::row::Row;
    use crate::view::tests::{atlas, view};

    /// Nine orchestrators of four places, of which `suspended` are put aside and the others
    /// have `in_flight` requests each.
    fn after(suspended: usize, in_flight: u32) -> Left {
        let view = view(&atlas(3), 9, 1);
        let now = view.published_at;
        let aside = |row: &Arc<Row>| Row { standing: Standing::Suspended, ..Row::clone(row) };
        let changes =
            view.rows().take(suspended).map(|(_, row)| (row.id, Some(Arc::new(aside(row)))));
        let changes = changes.collect();
        let view = view.next(now, Arc::clone(&view.capabilities), changes);
        let live = |_gauge: &Gauge| Live { in_flight, ..Live::default() };
        left(&view, live, CapabilityId(0), now)
    }

    #[test]
    fn a_panic_takes_both_a_failing_fleet_and_too_much_work() {
        assert_eq!(after(0, 100), Left::Enough, "full is no panic");
        assert_eq!(after(4, 100), Left::Enough, "less than half is put aside");
        assert_eq!(after(5, 0), Left::Enough, "what is left is plenty");
        assert_eq!(after(5, 4), Left::Little);
        assert_eq!(after(9, 0), Left::Nothing);
    }
}
