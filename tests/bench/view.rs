//! What building a View takes. Targets: 50 ms for 10,000 orchestrators in 51 cells with 8
//! capabilities, 5 ms for a tick in which one row in a hundred changed.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

#[expect(dead_code, reason = "shared with the other bench")]
mod fleet;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portolan::clock;
use portolan::view::View;

fn build(criterion: &mut Criterion) {
    let now = clock::now();
    let (atlas, names) = (fleet::atlas(), fleet::capabilities());
    let rows = fleet::rows(&atlas, now);
    let empty = View::empty(now, Arc::clone(&atlas));
    criterion.bench_function("view/full build of 10,000 x 51 cells x 8", |bench| {
        let next = |rows| empty.next(now, Arc::clone(&names), rows);
        bench.iter_batched(|| rows.clone(), next, BatchSize::LargeInput);
    });

    let full = empty.next(now, Arc::clone(&names), rows.clone());
    let mut draws = fleet::Draws(3);
    criterion.bench_function("view/tick, 1 % changed", |bench| {
        let next = |changes| full.next(now, Arc::clone(&names), changes);
        bench.iter_batched(|| fleet::tick(&rows, now, &mut draws), next, BatchSize::LargeInput);
    });
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4))
        .without_plots()
}

criterion_group! { name = benches; config = brief(); targets = build }
criterion_main!(benches);
