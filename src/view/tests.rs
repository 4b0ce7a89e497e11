use std::time::Duration;

use super::*;
use crate::clock;
use crate::score::Evidence;
use crate::unit::Micros;
use crate::uri::ServiceUri;
use row::{Link, Mode, Outcomes};

/// Regions strung along the equator, ten degrees apart.
pub(crate) fn atlas(regions: usize) -> Arc<Atlas> {
    let name = |number: usize| format!("R{number}").parse().unwrap();
    let point = |number: usize| Point::new(0.0, number as f64 * 10.0 % 360.0 - 180.0).unwrap();
    Arc::new(Atlas {
        names: (0..regions).map(name).collect(),
        points: (0..regions).map(point).collect(),
        home: 0,
    })
}

/// An idle, well orchestrator at a region's point that offers `capabilities`.
pub(crate) fn row(atlas: &Atlas, number: u32, region: u8, capabilities: &[CapabilityId]) -> Row {
    let uri: ServiceUri = format!("https://o{number}.example:8935").parse().unwrap();
    let now = clock::now();
    let runner = Runner {
        url: "https://o.example:8935/apps/echo/session".into(),
        path: Some(http::uri::PathAndQuery::from_static("/apps/echo/session")),
        mode: Mode::Persistent,
        gpu: None,
        advert: "{}".into(),
        variant: 0,
        capacity: 4,
        capacity_used: 0,
    };
    let offer = |capability: &CapabilityId| Offer {
        capability: *capability,
        runner: Some(Arc::new(runner.clone())),
        service: Some(Micros::from_ms(100)),
        holding: Micros::from_ms(100),
        capacity_milli: 4_000,
        others_milli: 0,
        arrivals_milli: 0,
        load_at: now.into(),
        price_wei: None,
        price: Micros::ZERO,
    };
    let point = atlas.points[usize::from(region)];
    let home = &atlas.points[usize::from(atlas.home)];
    Row {
        id: OrchestratorId::of(&uri),
        operator: uri.as_str().into(),
        uri,
        point: Some(point),
        region,
        country: Country::parse(if region.is_multiple_of(2) { "DE" } else { "US" }),
        version: "".into(),
        link: Link {
            rtt: crate::geo::expected_rtt(home.distance_m(&point)),
            evidence: Evidence::Distance,
            at: None,
            by: None,
            via: None,
        },
        told: Arc::default(),
        reach: 0,
        outcomes: Outcomes { failures_milli: 0, successes_milli: 0, at: now.into(), told_by: None },
        standing: Standing::Ready,
        checked_at: Some(now),
        last_failure: None,
        weight: Micros::ZERO,
        offers: capabilities.iter().map(offer).collect(),
        refused_ever: 0,
        gauge: Arc::default(),
    }
}

/// A View of `count` orchestrators spread over the regions, all offering `capabilities`.
pub(crate) fn view(atlas: &Arc<Atlas>, count: u32, capabilities: usize) -> View {
    let mut names = Capabilities::default();
    let numbers: Vec<CapabilityId> =
        (0..capabilities).map(|it| names.intern(&format!("app/{it}")).unwrap()).collect();
    let changes = (0..count).map(|number| {
        let region = (number as usize % atlas.points.len()) as u8;
        let row = row(atlas, number, region, &numbers);
        (row.id, Some(Arc::new(row)))
    });
    View::empty(clock::now(), Arc::clone(atlas)).next(
        clock::now(),
        Arc::new(names),
        changes.collect(),
    )
}

fn cell(region: u16) -> CellId {
    CellId(region * CLASSES + 2)
}

#[test]
fn a_list_is_short_near_and_not_of_one_region() {
    let atlas = atlas(10);
    let view = view(&atlas, 1000, 1);
    let list = view.direct(cell(4), CapabilityId(0));
    assert_eq!(list.len(), index::LIST_MAX);
    let regions: Vec<u8> = list.iter().map(|it| view.row(it.slot).unwrap().region).collect();
    assert_eq!(regions[..12], [4; 12]);
    assert!(regions.iter().all(|it| (2..=6).contains(it)), "{regions:?}");
    assert_eq!(regions.iter().filter(|it| **it == 4).count(), 12);
}

#[test]
fn the_less_a_place_is_trusted_the_wider_its_list() {
    let atlas = atlas(10);
    let view = view(&atlas, 1000, 1);
    let reach = |cell: CellId| {
        let list = view.direct(cell, CapabilityId(0)).iter();
        list.map(|it| view.row(it.slot).unwrap().region)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert!(reach(CellId(4 * CLASSES)) > reach(cell(4)));
}

/// After each tick, the lists are what a View built from nothing would hold.
#[test]
fn an_incremental_view_equals_a_full_one() {
    let atlas = atlas(7);
    let mut names = Capabilities::default();
    let both = [names.intern("a").unwrap(), names.intern("b").unwrap()];
    let names = Arc::new(names);
    let mut rows: BTreeMap<u32, Arc<Row>> = BTreeMap::new();
    let mut view = View::empty(clock::now(), Arc::clone(&atlas));
    let mut seed = 0x5eed_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _tick in 0..60 {
        let mut changes = Vec::new();
        for _change in 0..draw(6) {
            let number = draw(120) as u32;
            let offers = &both[..draw(3) as usize];
            let mut row = row(&atlas, number, draw(7) as u8, offers);
            row.outcomes.failures_milli = draw(50_000) as u32;
            row.reach = draw(600) as i16 - 300;
            row.link.rtt = Micros(draw(200_000));
            let id = row.id;
            let row = (draw(5) > 0).then(|| Arc::new(row));
            match &row {
                Some(row) => rows.insert(number, Arc::clone(row)),
                None => rows.remove(&number),
            };
            changes.push((id, row));
        }
        let now = view.published_at;
        view = view.next(now, Arc::clone(&names), changes);
        let all = rows.values().map(|row| (row.id, Some(Arc::clone(row)))).collect();
        let full = View::empty(now, Arc::clone(&atlas)).next(now, Arc::clone(&names), all);
        for capability in both {
            for cell in (0..21).map(CellId) {
                assert_eq!(
                    costs(&view, view.direct(cell, capability), Some(cell)),
                    costs(&full, full.direct(cell, capability), Some(cell)),
                );
            }
            let relayed = |view: &View| costs(view, view.relayed(capability), None);
            assert_eq!(relayed(&view), relayed(&full));
        }
    }
}

/// The static costs of a list; members of equal cost may stand in any order.
fn costs(view: &View, list: &[Member], cell: Option<CellId>) -> Vec<u32> {
    let cost = |member: &Member| {
        let row = view.row(member.slot).unwrap();
        let offer = &row.offers[usize::from(member.offer)];
        let now = view.published_at;
        let prior = Prior { failing: Ppm(0), service: column::SERVICE_DEFAULT };
        match cell {
            None => column::relayed_us(row, offer, now.into(), prior),
            Some(cell) => {
                let from = &view.atlas.points[usize::from(cell.region())];
                let path = row.expected_from(from).0.0 as u32 * u32::from(column::COLD_ROUND_TRIPS);
                path + column::extra_us(row, offer, now.into(), prior)
            }
        }
    };
    list.iter().map(cost).collect()
}

#[test]
fn coming_and_going_does_not_grow_the_table() {
    let atlas = atlas(3);
    let mut view = view(&atlas, 10, 1);
    for number in 100..200 {
        let old = view.rows().next().unwrap().1.id;
        let names = Arc::clone(&view.capabilities);
        view = view.next(view.published_at, Arc::clone(&names), vec![(old, None)]);
        let new = Arc::new(row(&atlas, number, 1, &[CapabilityId(0)]));
        let id = new.id;
        view = view.next(view.published_at, names, vec![(id, Some(new))]);
        assert!(view.orchestrator(id).is_some() && view.orchestrator(old).is_none());
    }
    assert!(view.rows().all(|(slot, _row)| slot.0 < 11));
    assert_eq!(view.rows().count(), 10);
}

#[test]
fn a_capability_table_is_bounded() {
    let mut names = Capabilities::default();
    for number in 0..Capabilities::MAX {
        assert!(names.intern(&number.to_string()).is_some());
    }
    assert_eq!(names.intern("one more"), None);
    assert_eq!(names.intern("7"), names.number("7"));
}

#[test]
fn the_fleet_prior_is_capped() {
    let atlas = atlas(2);
    let mut row = row(&atlas, 1, 0, &[]);
    row.outcomes.failures_milli = 9_000;
    row.outcomes.successes_milli = 1_000;
    let rows = [Some(Arc::new(row))];
    assert_eq!(fleet_failing(clock::now() + Duration::ZERO, &rows), FLEET_FAILING_MAX);
}
