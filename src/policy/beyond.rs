//! What lies beyond each node a client may enter by: the work, as it would go from there.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::geo::{Confidence, Place, Point};
use crate::id::NodeId;
use crate::policy::ask::Ask;
use crate::policy::choose::{Live, judge, resolve};
use crate::policy::decide::least;
use crate::score::Inputs;
use crate::unit::Micros;
use crate::view::outcome::Gauge;
use crate::view::row::Row;
use crate::view::{Member, View};

/// A node work may be relayed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Which one.
    pub node: NodeId,
    /// Where it stands.
    pub point: Point,
    /// Whether it is the node the View belongs to.
    pub is_own: bool,
}

/// Returns the least cost of `ask` when it enters by `relay`; `None` where nobody may serve it.
///
/// Of a peer this node knows the round trips that peer told of, and expects the rest by
/// distance; load, failures and prices are those of its own View. The candidates are the
/// short list of relayed work here and the one of callers beside the peer, at most 64.
pub fn beyond(
    view: &View,
    live: impl Fn(&Gauge) -> Live,
    ask: &Ask<'_>,
    relay: &Relay,
    now: Instant,
) -> Option<Micros> {
    let beside = Place { point: relay.point, country: None, confidence: Confidence::City };
    let near = view.direct(view.atlas.cell(&beside), ask.capability);
    let listed: BTreeSet<Member> =
        view.relayed(ask.capability).iter().chain(near).copied().collect();
    let (prior, now) = (view.prior(ask.capability), now.into());
    let inputs = |member: Member| {
        let (row, offer) = resolve(view, member)?;
        let inputs = judge(prior, row, offer, &live, ask, now).ok()?;
        Some(if relay.is_own { inputs } else { from(relay, row, inputs) })
    };
    let candidates: Vec<Inputs> = listed.into_iter().filter_map(inputs).collect();
    least(&candidates)
}

/// Returns what is known of a candidate as `relay` would reach it.
fn from(relay: &Relay, row: &Row, inputs: Inputs) -> Inputs {
    let told = row.told.iter().find(|(node, _rtt)| *node == relay.node);
    let rtt = told.map_or_else(|| row.expected_from(&relay.point).0, |(_node, rtt)| *rtt);
    Inputs { rtt_us: u32::try_from(rtt.0).unwrap_or(u32::MAX), ..inputs }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::ask::{Caller, PathKind, Rules};
    use crate::view::tests::{atlas, view};
    use crate::view::{CapabilityId, Row, Slot};

    fn relay(view: &View, region: usize, is_own: bool) -> Relay {
        Relay { node: "b".parse().unwrap(), point: view.atlas.points[region], is_own }
    }

    fn least_from(view: &View, rules: &Rules, relay: &Relay) -> Option<Micros> {
        let place = Place { point: relay.point, country: None, confidence: Confidence::City };
        let caller = Caller { place, cell: view.atlas.cell(&place), observed: Vec::new() };
        let ask = Ask {
            cold_round_trips: 1,
            ..Ask::new(&caller, CapabilityId(0), PathKind::Relayed, rules)
        };
        beyond(view, |gauge| gauge.into(), &ask, relay, view.published_at)
    }

    /// What the peer told of every row but those of its own region.
    fn told(view: &View, rtt: Micros) -> View {
        let changes = view.rows().map(|(_slot, row)| {
            let node = "b".parse().unwrap();
            let row = Row { told: [(node, rtt)].into(), ..Row::clone(row) };
            (row.id, Some(Arc::new(row)))
        });
        view.next(view.published_at, Arc::clone(&view.capabilities), changes.collect())
    }

    #[test]
    fn a_peer_is_as_near_as_it_says_and_else_as_distance_lets_one_expect() {
        let view = view(&atlas(10), 200, 1);
        let rules = Rules::default();
        let beside = least_from(&view, &rules, &relay(&view, 6, false)).unwrap();
        let own = least_from(&view, &rules, &relay(&view, 0, true)).unwrap();
        assert!(beside < own + Micros::from_ms(30), "{beside:?} {own:?}: orchestrators are there");
        let near = least_from(&told(&view, Micros(500)), &rules, &relay(&view, 6, false));
        let far = least_from(&told(&view, Micros::from_ms(400)), &rules, &relay(&view, 6, false));
        assert!(near.unwrap() < beside && far.unwrap() >= Micros::from_ms(400), "{near:?} {far:?}");
        // What this node measured itself is not a matter of what a peer says.
        let same = least_from(&told(&view, Micros::from_ms(400)), &rules, &relay(&view, 0, true));
        assert_eq!(same, Some(own));
    }

    #[test]
    fn where_nobody_may_serve_there_is_no_course() {
        let view = view(&atlas(3), 3, 1);
        let only = [view.row(Slot(0)).unwrap().id].into();
        let rules = Rules { never: only, ..Rules::default() };
        assert!(least_from(&view, &rules, &relay(&view, 1, false)).is_some());
        let nobody = Rules { only: Some([].into()), ..Rules::default() };
        assert_eq!(least_from(&view, &nobody, &relay(&view, 1, false)), None);
    }
}
