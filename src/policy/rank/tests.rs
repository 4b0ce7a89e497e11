use std::time::Duration;

use super::*;
use crate::geo::{Confidence, Place, Point};
use crate::policy::ask::{Caller, Rules};
use crate::view::tests::{atlas, view};
use crate::view::{CapabilityId, Member};

/// Everyone in order for a caller at the first region, by slot.
fn listed(view: &View, now: Instant, draw: u64) -> Vec<Member> {
    let point = Point::new(0.0, -180.0).unwrap();
    let place = Place { point, country: None, confidence: Confidence::City };
    let caller = Caller { place, cell: view.atlas.cell(&place), observed: Vec::new() };
    let rules = Rules::default();
    let ask = Ask::new(&caller, CapabilityId(0), PathKind::Direct, &rules);
    let ranked = rank(view, |gauge| gauge.into(), &ask, now, 100);
    in_order(ranked, 100, draw).iter().map(|it| it.member).collect()
}

#[test]
fn a_list_stays_as_it_is_while_nothing_is_promised() {
    let view = view(&atlas(3), 9, 1);
    let first = listed(&view, view.published_at, 1);
    assert!((2..50).all(|draw| listed(&view, view.published_at, draw) == first));
}

#[test]
fn a_promise_sends_the_next_client_elsewhere_and_fades() {
    let view = view(&atlas(3), 9, 1);
    let now = view.published_at;
    let first = listed(&view, now, 1);
    view.promise(now, first.iter().copied());
    let tops: std::collections::BTreeSet<Member> =
        (1..50).map(|draw| listed(&view, now, draw)[0]).collect();
    assert_eq!(tops, first[..3].iter().copied().collect(), "the three of its region take turns");
    assert_eq!(listed(&view, now + Duration::from_secs(60), 7), first);
}

/// Places are four each; of forty clients no more than that are sent to one before the
/// others have theirs.
#[test]
fn a_herd_is_spread_by_what_is_free() {
    let view = view(&atlas(1), 10, 1);
    let now = view.published_at;
    let mut tops = vec![0; 10];
    for draw in 0..40_u64 {
        let list = listed(&view, now, mixed(draw));
        view.promise(now, list.iter().copied());
        tops[list[0].slot.0 as usize] += 1;
    }
    assert!(tops.iter().all(|top| (2..=6).contains(top)), "{tops:?}");
}

/// What a check shows of clients that came is not counted twice.
#[test]
fn what_was_seen_is_not_promised_any_more() {
    let view = view(&atlas(1), 1, 1);
    let now = view.published_at;
    for draw in 0..3 {
        view.promise(now, listed(&view, now, draw));
    }
    let gauge = &view.row(Slot(0)).unwrap().gauge;
    assert_eq!(gauge.promised_milli(now), 2_400);
    gauge.settle(now, 2_000);
    assert_eq!(gauge.promised_milli(now), 400);
}
