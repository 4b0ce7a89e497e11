//! What one choice takes. Targets: 2 us over a full short list, 400 us for a scan of 10,000.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[expect(dead_code, reason = "shared with the other bench")]
mod fleet;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portolan::clock;
use portolan::policy::choose::Live;
use portolan::policy::{Observed, PathKind, Rules, choose, to_measure};
use portolan::unit::Micros;
use portolan::view::CapabilityId;
use portolan::view::outcome::Gauge;

fn short_list(criterion: &mut Criterion) {
    let now = clock::now();
    let view = fleet::view(now);
    let (mut caller, rules) = (fleet::caller(&view), Rules::default());
    let list = view.direct(caller.cell, CapabilityId(0));
    assert_eq!(list.len(), 32);
    for (at, member) in list.iter().enumerate() {
        view.row(member.slot).unwrap().gauge.begin();
        if at < 5 {
            let orchestrator = view.row(member.slot).unwrap().id;
            caller.observed.push(Observed { orchestrator, rtt: Micros::from_ms(30 + at as u64) });
        }
    }
    let live = |gauge: &Gauge| Live::from(gauge);
    let mut draws = fleet::Draws(7);
    for (name, path) in [("direct", PathKind::Direct), ("relayed", PathKind::Relayed)] {
        let ask = fleet::ask(&caller, &rules, path);
        criterion.bench_function(&format!("choose/short list of 32, {name}"), |bench| {
            bench.iter(|| choose(&view, live, black_box(&ask), now, draws.below(u64::MAX)));
        });
    }
    let ask = fleet::ask(&caller, &rules, PathKind::Direct);
    criterion.bench_function("choose/whom to measure, second round", |bench| {
        bench.iter(|| to_measure(&view, live, black_box(&ask), now, &caller.observed[..2], 3));
    });
}

fn scan(criterion: &mut Criterion) {
    let now = clock::now();
    let view = fleet::view(now);
    let caller = fleet::caller(&view);
    let list = view.direct(caller.cell, CapabilityId(0));
    let id = |slot| view.row(slot).unwrap().id;
    let costliest = view.column(CapabilityId(0)).unwrap().members().last().unwrap().slot;
    let one = Rules { only: Some([id(costliest)].into()), ..Rules::default() };
    let none_listed =
        Rules { never: list.iter().map(|it| id(it.slot)).collect(), ..Rules::default() };
    let live = |gauge: &Gauge| Live::from(gauge);
    for (name, rules) in [("one eligible", one), ("all but the list eligible", none_listed)] {
        let ask = fleet::ask(&caller, &rules, PathKind::Direct);
        assert!(choose(&view, live, &ask, now, 0).unwrap().scanned);
        criterion.bench_function(&format!("choose/scan of 10,000, {name}"), |bench| {
            bench.iter(|| choose(&view, live, black_box(&ask), now, 0));
        });
    }
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
}

criterion_group! { name = benches; config = brief(); targets = short_list, scan }
criterion_main!(benches);
