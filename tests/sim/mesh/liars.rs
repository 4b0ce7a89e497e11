//! Three of the eight nodes that a node hears lie about orchestrators.

use std::time::Duration;

use super::player::{Temper, Way};
use super::sea::{Sea, Waters, ms};

/// Nine nodes that send each request to the cheapest of two orchestrators; the first is fast.
fn choosing(seed: u64, second_ms: u64) -> Sea {
    let mut sea = Sea::new(Waters { n_nodes: 9, n_orchestrators: 2, loss_permille: 1, seed });
    for node in &mut sea.nodes {
        node.player.temper = Temper::Choosing;
        node.player.held[0].rtt = ms(20);
        node.player.held[1].rtt = ms(second_ms);
    }
    assert!(sea.until_whole(ms(30_000)).is_some());
    sea.run(ms(20_000));
    sea
}

fn begin_to_lie(sea: &mut Sea) {
    sea.nodes.iter_mut().take(N_LIARS).for_each(|it| it.player.temper = Temper::Lying);
}

/// How many requests honest nodes sent to each orchestrator since the last call.
fn sent(sea: &mut Sea) -> [u64; 2] {
    let honest = sea.nodes.iter_mut().skip(N_LIARS);
    honest.fold([0, 0], |sum, node| {
        let held = &mut node.player.held;
        let [first, second] = [0, 1].map(|it| std::mem::take(&mut held[it].n_requests));
        [sum[0] + first, sum[1] + second]
    })
}

#[test]
fn what_three_of_eight_say_sends_nobody_from_a_fast_orchestrator_to_a_slow_one() {
    crate::for_seeds(|seed| {
        let mut sea = choosing(seed, 150);
        sea.nodes.iter_mut().for_each(|it| it.player.held[1].way = Way::Half);
        begin_to_lie(&mut sea);
        sent(&mut sea);
        for second in 0..60 {
            sea.run(ms(1_000));
            let [right, wrong] = sent(&mut sea);
            assert!(right > 0 && wrong == 0, "{wrong} of {right} went wrong in second {second}");
        }
    });
}

#[test]
fn one_that_turns_bad_is_left_within_seconds_whatever_three_of_eight_say() {
    crate::for_seeds(|seed| {
        let mut sea = choosing(seed, 10);
        sent(&mut sea);
        begin_to_lie(&mut sea);
        sea.run(ms(1_000));
        let [_, before] = sent(&mut sea);
        assert!(before > 0, "the second is the faster one");
        for node in &mut sea.nodes {
            node.player.held[1].way = Way::Half;
            node.player.held[1].rtt = ms(150);
        }
        sea.run(LEFT_WITHIN);
        sent(&mut sea);
        for _ in 0..60 {
            sea.run(ms(1_000));
            let [right, wrong] = sent(&mut sea);
            // Whether it is well again, somebody has to try now and then.
            assert!(wrong * 10 <= right, "{wrong} beside {right}");
        }
    });
}

const N_LIARS: usize = 3;
/// Within this nobody goes to one that turned bad any more, but to try it.
const LEFT_WITHIN: Duration = Duration::from_secs(5);
