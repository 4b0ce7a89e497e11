//! Makes a fixed number of choices, or Views, for a tool that counts instructions; on a machine
//! at work they say more than a clock. What one takes is the difference of two counts:
//! `valgrind --tool=callgrind choose-count direct 301`, and the same with 1, over 300.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;

use portolan::clock;
use portolan::policy::choose::Live;
use portolan::policy::{Observed, PathKind, Rules, choose, to_measure};
use portolan::unit::Micros;
use portolan::view::outcome::Gauge;
use portolan::view::{CapabilityId, View};

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap();
    let times: usize = args.next().unwrap().parse().unwrap();
    let now = clock::now();
    if what == "build" || what == "tick" {
        let (atlas, names) = (fleet::atlas(), fleet::capabilities());
        let rows = fleet::rows(&atlas, now);
        let empty = View::empty(now, Arc::clone(&atlas));
        if what == "build" {
            for _ in 0..times {
                black_box(empty.next(now, Arc::clone(&names), rows.clone()));
            }
        } else {
            let full = empty.next(now, Arc::clone(&names), rows.clone());
            let mut draws = fleet::Draws(3);
            for _ in 0..times {
                let changes = fleet::tick(&rows, now, &mut draws);
                black_box(full.next(now, Arc::clone(&names), changes));
            }
        }
        return;
    }
    let view = fleet::view(now);
    let (mut caller, mut rules) = (fleet::caller(&view), Rules::default());
    let list = view.direct(caller.cell, CapabilityId(0));
    let id = |slot| view.row(slot).unwrap().id;
    let mut path = PathKind::Direct;
    let seen: Vec<Observed> = list
        .iter()
        .take(5)
        .enumerate()
        .map(|(at, member)| Observed {
            orchestrator: id(member.slot),
            rtt: Micros::from_ms(30 + at as u64),
        })
        .collect();
    match what.as_str() {
        "direct" | "measure" | "relayed" => {
            for member in list {
                view.row(member.slot).unwrap().gauge.begin();
            }
            caller.observed = seen;
            if what == "relayed" {
                path = PathKind::Relayed;
            }
        }
        "one" => {
            let costliest = view.column(CapabilityId(0)).unwrap().members().last().unwrap().slot;
            rules.only = Some([id(costliest)].into());
        }
        "all" => rules.never = list.iter().map(|it| id(it.slot)).collect(),
        _ => unreachable!(),
    }
    let live = |gauge: &Gauge| Live::from(gauge);
    let mut draws = fleet::Draws(7);
    let ask = fleet::ask(&caller, &rules, path);
    let (mut sum, began) = (0, clock::now());
    for _ in 0..times {
        if what == "measure" {
            black_box(to_measure(&view, live, black_box(&ask), now, &caller.observed[..2], 3));
        } else {
            let decision =
                choose(&view, live, black_box(&ask), now, draws.below(u64::MAX)).unwrap();
            sum += decision.chosen;
        }
    }
    eprintln!("{what}: {} ns each, sum {sum}", began.elapsed().as_nanos() / times.max(1) as u128);
}
