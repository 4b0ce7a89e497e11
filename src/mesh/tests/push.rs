//! What is sent of own records: order, budget, repair.

use super::*;
use crate::wire::v1::{DigestV1, PullV1};

fn failing(orchestrator: u64) -> Observation {
    Observation { failures_milli: 1000, ..seen(orchestrator) }
}

pub(super) fn orchestrators(outputs: &[Output]) -> Vec<u64> {
    let records = deltas(outputs).into_iter().flat_map(|it| &it.records);
    records.map(|it| it.orchestrator).collect()
}

#[test]
fn a_failure_is_told_at_once_and_a_burst_of_them_is_one_frame() {
    let now = clock::now();
    let mut mesh = linked(now);
    let later = now + ms(30);
    mesh.handle_observation(later, seen(5));
    mesh.handle_observation(later, failing(6));
    mesh.handle_observation(later, failing(7));
    assert!(mesh.next_timeout() <= Some(later));
    mesh.handle_timeout(later);
    assert_eq!(orchestrators(&outputs(&mut mesh)), [6, 7, 5]);
    mesh.handle_observation(later, seen(8));
    mesh.handle_observation(later, failing(9));
    assert_eq!(mesh.next_timeout(), Some(later + ms(20)));
    mesh.handle_timeout(later + ms(20));
    // What can wait does.
    assert_eq!(orchestrators(&outputs(&mut mesh)), [9]);
    mesh.handle_timeout(later + ms(250));
    assert_eq!(orchestrators(&outputs(&mut mesh)), [8]);
}

#[test]
fn what_can_wait_waits_for_the_budget_and_what_cannot_does_not() {
    let now = clock::now();
    let mut params = params();
    params.bytes_per_second = 2000;
    let mut mesh = Mesh::new(now, params, greeting("a"), None, 7);
    mesh.handle_link_up(now, LinkId(1), &greeting("b"));
    for orchestrator in 0..200 {
        mesh.handle_observation(now, seen(orchestrator));
    }
    let mut n_told = Vec::new();
    for turn in 1..=24 {
        let at = now + ms(turn * 250);
        if turn == 4 {
            mesh.handle_observation(at, failing(500));
        }
        mesh.handle_timeout(at);
        let told = orchestrators(&outputs(&mut mesh));
        hear(&mut mesh, at, Message::Draining);
        assert_eq!(told.contains(&500), turn == 4, "{told:?}");
        n_told.push(told.len());
    }
    assert_eq!(n_told.iter().sum::<usize>(), 201);
    assert!(n_told[0] < 20 && n_told[3] > 0, "{n_told:?}");
    let sent = mesh.peers().n_sent_bytes;
    assert!(sent < 2000 * 8, "{sent}");
}

#[test]
fn a_peer_that_lost_records_asks_their_origin_for_them() {
    let now = clock::now();
    let mut a = linked(now);
    let mut b = mesh("b");
    b.handle_link_up(now, LinkId(1), &greeting("a"));
    outputs(&mut b);
    for orchestrator in 0..5 {
        a.handle_observation(now, seen(orchestrator));
    }
    a.handle_observation(now, failing(9));
    a.handle_timeout(now);
    // The first frames never arrive.
    assert_eq!(deltas(&outputs(&mut a)).len(), 2);
    let later = now + ms(3000) - ms(1);
    hear(&mut a, later, Message::Draining);
    a.handle_timeout(now + ms(3000));
    let digest = DigestV1 {
        epoch: 1,
        n_records: 6,
        sum: a.levels.of(true).digest(health::Sent { urgent: 9, others: 9 }).sum,
    };
    let told = Output::Send { peer: node("b"), message: Message::Digest(digest.clone()) };
    assert!(outputs(&mut a).contains(&told));

    let at = now + ms(3001);
    b.handle_frame(at, node("a"), LinkId(1), framed(Message::Digest(digest.clone())));
    let pull = Message::Pull(PullV1 { epoch: 1 });
    assert_eq!(outputs(&mut b), [Output::Send { peer: node("a"), message: pull.clone() }]);
    // Not again and again.
    b.handle_frame(at, node("a"), LinkId(1), framed(Message::Digest(digest.clone())));
    assert_eq!(outputs(&mut b), []);

    hear(&mut a, at, pull);
    a.handle_timeout(at + ms(250));
    let again = outputs(&mut a);
    assert_eq!(orchestrators(&again), [9, 0, 1, 2, 3, 4]);
    for delta in deltas(&again) {
        let frame = framed(Message::Delta(delta.clone()));
        b.handle_frame(at, node("a"), LinkId(1), frame);
    }
    outputs(&mut b);
    b.handle_frame(at + ms(60_000), node("a"), LinkId(1), framed(Message::Digest(digest)));
    assert_eq!(outputs(&mut b), []);
    assert_eq!(a.peers().row(node("b")).unwrap().counts.n_pulls, 1);
    // While something newer waits, what b holds is rightly older and no digest is sent.
    let busy = at + ms(6999);
    hear(&mut a, busy - ms(2000), Message::Draining);
    a.handle_timeout(busy - ms(1));
    outputs(&mut a);
    a.handle_observation(busy, Observation { in_flight: 3, ..seen(2) });
    hear(&mut a, busy, Message::Draining);
    for (wait, records, n_digests) in [(0, vec![], 0), (250, vec![2], 1)] {
        a.handle_timeout(busy + ms(wait));
        let told = outputs(&mut a);
        let digests =
            told.iter().filter(|it| matches!(it, Output::Send { message: Message::Digest(_), .. }));
        assert_eq!((orchestrators(&told), digests.count()), (records, n_digests));
    }
    // Of an earlier life nothing is left to send.
    hear(&mut a, at, Message::Pull(PullV1 { epoch: 0 }));
    assert_eq!(a.peers().row(node("b")).unwrap().counts.n_pulls, 1);
}

#[test]
fn in_a_large_mesh_what_can_wait_goes_out_together_or_along() {
    let now = clock::now();
    let mut mesh = mesh("a");
    for peer in 0..50 {
        mesh.handle_link_up(now, LinkId(peer), &greeting(&format!("n{peer}")));
    }
    let mut told_at = |observation: Observation, at: u64| {
        if at.is_multiple_of(250) {
            mesh.handle_observation(now + ms(at), observation);
        }
        mesh.handle_timeout(now + ms(at));
        let told = orchestrators(&outputs(&mut mesh));
        told.into_iter().collect::<BTreeSet<u64>>()
    };
    assert_eq!(told_at(seen(1), 0), BTreeSet::from([1]));
    assert!(told_at(seen(2), 250).is_empty());
    assert_eq!(told_at(seen(3), 500), BTreeSet::from([2, 3]));
    assert!(told_at(seen(4), 750).is_empty());
    let used = Observation { in_flight: 1, ..seen(5) };
    assert_eq!(told_at(used, 1_000), BTreeSet::from([4, 5]));
    // Both went, and nothing is left to say before long.
    assert!(told_at(used, 1_001).is_empty());
}

#[test]
fn without_credit_it_waits_and_does_not_ask_again_at_once() {
    let now = clock::now();
    let mut params = params();
    params.bytes_per_second = 2000;
    let mut mesh = Mesh::new(now, params, greeting("a"), None, 7);
    mesh.handle_link_up(now, LinkId(1), &greeting("b"));
    for turn in 1..=40 {
        let at = now + ms(turn * 100);
        for orchestrator in 0..200 {
            let used = Observation { in_flight: turn as u32, ..seen(orchestrator) };
            mesh.handle_observation(at, used);
        }
        mesh.handle_timeout(at);
        outputs(&mut mesh);
        hear(&mut mesh, at, Message::Draining);
        assert!(mesh.next_timeout() > Some(at), "in turn {turn} it has nothing to do but asks");
    }
}

#[test]
fn a_rush_leaves_a_part_to_what_can_wait() {
    let now = clock::now();
    let mut params = params();
    params.bytes_per_second = 4000;
    let mut mesh = Mesh::new(now, params, greeting("a"), None, 7);
    mesh.handle_link_up(now, LinkId(1), &greeting("b"));
    let mut told = BTreeSet::new();
    for turn in 1..=100_u64 {
        let at = now + ms(turn * 100);
        for orchestrator in 0..200 {
            let used = Observation { in_flight: turn as u32, ..seen(orchestrator) };
            mesh.handle_observation(at, used);
        }
        mesh.handle_observation(at, seen(1000 + turn));
        mesh.handle_timeout(at);
        told.extend(orchestrators(&outputs(&mut mesh)).into_iter().filter(|it| *it >= 1000));
        hear(&mut mesh, at, Message::Draining);
    }
    assert!(told.len() > 50, "{told:?}");
}
