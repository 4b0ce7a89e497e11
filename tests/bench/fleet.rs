//! A fleet to measure on: made from a seed, the same on every machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan::geo::{Confidence, Place, Point, expected_rtt};
use portolan::id::OrchestratorId;
use portolan::policy::{Ask, Caller, PathKind, Rules};
use portolan::region::RegionMap;
use portolan::score::Evidence;
use portolan::unit::{Country, Micros};
use portolan::uri::ServiceUri;
use portolan::view::row::{Link, Outcomes};
use portolan::view::{Atlas, Capabilities, CapabilityId, Offer, Row, Standing, View};

/// Orchestrators.
pub(crate) const ORCHESTRATORS: usize = 10_000;
/// Regions; three confidence classes each make 51 cells.
pub(crate) const REGIONS: usize = 17;
/// Capabilities, each offered by everybody.
pub(crate) const CAPABILITIES: usize = 8;

/// SplitMix64: small, seeded, good enough to spread a fleet.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    /// Returns a number below `below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below
    }
}

/// Rows with the id each is known by.
pub(crate) type Rows = Vec<(OrchestratorId, Option<Arc<Row>>)>;

/// Every third of the embedded regions.
pub(crate) fn atlas() -> Arc<Atlas> {
    let map = RegionMap::embedded().unwrap();
    let regions: Vec<_> = map.iter().step_by(3).take(REGIONS).collect();
    Arc::new(Atlas {
        names: regions.iter().map(|it| it.id).collect(),
        points: regions.iter().map(|it| it.point).collect(),
        home: 0,
    })
}

/// The names of all capabilities.
pub(crate) fn capabilities() -> Arc<Capabilities> {
    let mut names = Capabilities::default();
    for number in 0..CAPABILITIES {
        names.intern(&format!("app/{number}")).unwrap();
    }
    Arc::new(names)
}

/// Orchestrators up to about 500 km from their region's point, some busy, some failing.
pub(crate) fn rows(atlas: &Atlas, now: Instant) -> Rows {
    let mut draws = Draws(1);
    let row = |number| {
        let row = row(atlas, now, number, &mut draws);
        (row.id, Some(Arc::new(row)))
    };
    (0..ORCHESTRATORS).map(row).collect()
}

fn row(atlas: &Atlas, now: Instant, number: usize, draws: &mut Draws) -> Row {
    let uri: ServiceUri = format!("https://o{number}.example:8935").parse().unwrap();
    let region = number % REGIONS;
    let (centre, home) = (&atlas.points[region], &atlas.points[0]);
    let mut near = |degrees: f64| degrees + draws.below(900) as f64 / 100.0 - 4.5;
    let point = Point::new(near(centre.lat()), near(centre.lon())).unwrap();
    let rtt = expected_rtt(home.distance_m(&point)) + Micros(draws.below(20_000));
    let offer = |capability: usize| Offer {
        capability: CapabilityId(capability as u16),
        runner: None,
        service: Some(Micros(150_000 + draws.below(100_000))),
        holding: Micros::from_ms(200),
        capacity_milli: 8_000,
        others_milli: draws.below(10_000) as u32,
        arrivals_milli: draws.below(20_000) as u32,
        load_at: earlier(now, draws).into(),
        price_wei: Some(1_000),
        price: Micros(draws.below(5_000)),
    };
    let offers = (0..CAPABILITIES).map(offer).collect();
    Row {
        id: OrchestratorId::of(&uri),
        operator: uri.as_str().into(),
        uri,
        point: Some(point),
        region: region as u8,
        country: Country::parse(["DE", "US", "JP", "BR"][region % 4]),
        version: "".into(),
        link: Link { rtt, evidence: Evidence::Own, at: Some(now.into()), by: None, via: None },
        told: Arc::default(),
        reach: draws.below(600) as i16 - 300,
        outcomes: outcomes(now, draws),
        standing: Standing::Ready,
        checked_at: Some(now),
        last_failure: None,
        weight: Micros::ZERO,
        offers,
        refused_ever: 0,
        gauge: Arc::default(),
    }
}

fn outcomes(now: Instant, draws: &mut Draws) -> Outcomes {
    let failures_milli = if draws.below(20) == 0 { draws.below(3_000) as u32 } else { 0 };
    let successes_milli = draws.below(60_000) as u32;
    Outcomes { failures_milli, successes_milli, at: earlier(now, draws).into(), told_by: None }
}

/// What is known is up to five seconds old.
fn earlier(now: Instant, draws: &mut Draws) -> Instant {
    now.checked_sub(Duration::from_millis(draws.below(5_000))).unwrap_or(now)
}

/// New outcomes and new load for one row in a hundred, all capabilities of it.
pub(crate) fn tick(rows: &Rows, now: Instant, draws: &mut Draws) -> Rows {
    let changed = |_: usize| {
        let (id, row) = &rows[draws.below(rows.len() as u64) as usize];
        let mut row = Row::clone(row.as_ref().unwrap());
        row.outcomes = outcomes(now, draws);
        let mut offers = row.offers.to_vec();
        for offer in &mut offers {
            offer.others_milli = draws.below(10_000) as u32;
            offer.load_at = earlier(now, draws).into();
        }
        row.offers = offers.into();
        (*id, Some(Arc::new(row)))
    };
    (0..rows.len() / 100).map(changed).collect()
}

/// The View of the whole fleet.
pub(crate) fn view(now: Instant) -> View {
    let atlas = atlas();
    let rows = rows(&atlas, now);
    View::empty(now, atlas).next(now, capabilities(), rows)
}

/// A caller near the fifth region.
pub(crate) fn caller(view: &View) -> Caller {
    let near = &view.atlas.points[5];
    let point = Point::new(near.lat() + 1.0, near.lon() + 1.0).unwrap();
    let place = Place { point, country: None, confidence: Confidence::City };
    Caller { place, cell: view.atlas.cell(&place), observed: Vec::new() }
}

/// A caller's request for the first capability.
pub(crate) fn ask<'a>(caller: &'a Caller, rules: &'a Rules, path: PathKind) -> Ask<'a> {
    Ask::new(caller, CapabilityId(0), path, rules)
}
