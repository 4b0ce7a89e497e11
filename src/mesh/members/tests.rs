use super::*;
use crate::clock;
use crate::wire::v1::{GossipV1, MemberIdV1};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn identity(name: &str) -> Identity {
    Identity { node: node(name), at: Some(([10, 0, 0, 1], 7935).into()), epoch: 1, renewals: 0 }
}

fn members(name: &str) -> Members {
    Members::new(clock::now(), identity(name), 7, 8)
}

/// Carries datagrams between all until nobody has anything to say.
fn settle(now: Instant, all: &mut BTreeMap<NodeId, Members>, cut: &[NodeId]) {
    loop {
        let mut afloat = Vec::new();
        for (&from, members) in all.iter_mut() {
            while let Some(output) = members.poll_output() {
                if let Output::Send { to, datagram } = output {
                    afloat.push((from, to, datagram));
                }
            }
        }
        if afloat.is_empty() {
            return;
        }
        for (from, to, datagram) in afloat {
            if let Some(members) = all.get_mut(&to)
                && !cut.contains(&from)
                && !cut.contains(&to)
            {
                members.handle_datagram(now, from, &datagram).unwrap();
            }
        }
    }
}

fn run(mut now: Instant, all: &mut BTreeMap<NodeId, Members>, cut: &[NodeId], s: u64) -> Instant {
    for _ in 0..s * 20 {
        now += Duration::from_millis(50);
        for members in all.values_mut() {
            members.handle_timeout(now);
        }
        settle(now, all, cut);
    }
    now
}

#[test]
fn one_seed_is_enough_to_find_everybody_and_who_is_gone_is_down_and_back() {
    let names = ["a", "b", "c", "d"];
    let mut all: BTreeMap<_, _> = names.iter().map(|it| (node(it), members(it))).collect();
    let mut now = clock::now();
    for name in &names[1..] {
        all.get_mut(&node(name)).unwrap().announce(now, identity("a"));
    }
    settle(now, &mut all, &[]);
    now = run(now, &mut all, &[], 10);
    let alive = Some((Membership::Alive, identity("a").at));
    for (own, members) in &all {
        for other in names.iter().map(|it| node(it)).filter(|it| it != own) {
            assert_eq!(members.state_of(other), alive, "{own} of {other}");
        }
    }
    let cut = [node("d")];
    now = run(now, &mut all, &cut, 20);
    assert_eq!(all[&node("a")].state_of(node("d")).unwrap().0, Membership::Down);
    run(now, &mut all, &[], 30);
    assert_eq!(all[&node("a")].state_of(node("d")).unwrap().0, Membership::Alive);
    assert_eq!(all[&node("d")].state_of(node("a")).unwrap().0, Membership::Alive);
}

fn said(source: &str, n_members: u16) -> Vec<u8> {
    let id = |name: &str| MemberIdV1 { node: name.to_owned(), at: None, epoch: 1, renewals: 0 };
    let at = Some(crate::wire::v1::AddressV1::V4([10, 0, 0, 1], 7935));
    let (source, target) = (id(source), MemberIdV1 { at, ..id("a") });
    let gossip = GossipV1 { source, incarnation: 0, target, ask: AskV1::Announce };
    let gossip = GossipV1 { ask: if n_members > 0 { AskV1::Feed } else { gossip.ask }, ..gossip };
    let mut packet = datagram::gossip_bytes(&gossip).unwrap();
    if n_members > 0 {
        packet.extend(n_members.to_be_bytes());
    }
    for at in 0..n_members {
        let id = id(&format!("m{at}"));
        let state = crate::wire::v1::StateV1::Alive;
        let member = crate::wire::v1::MemberV1 { id, incarnation: 0, state };
        packet.extend(datagram::member_bytes(&member).unwrap());
    }
    datagram::wrap(&packet).to_vec()
}

#[test]
fn a_datagram_under_anothers_name_is_dropped() {
    let now = clock::now();
    let mut a = members("a");
    assert_eq!(a.handle_datagram(now, node("b"), &said("c", 0)), Err(Dropped::Forged));
    assert_eq!(a.handle_datagram(now, node("a"), &said("a", 0)), Err(Dropped::Forged));
    assert_eq!(a.handle_datagram(now, node("b"), &said("b!", 0)), Err(Dropped::Forged));
    assert_eq!(a.handle_datagram(now, node("b"), &[1]), Err(Dropped::Unreadable));
    assert_eq!(a.handle_datagram(now, node("b"), &[9, 9, 9, 9]), Err(Dropped::Unknown));
    assert_eq!((a.state_of(node("b")), a.state_of(node("c"))), (None, None));
    assert_eq!(a.handle_datagram(now, node("b"), &said("b", 0)), Ok(()));
    assert_eq!(a.state_of(node("b")).unwrap().0, Membership::Alive);
}

#[test]
fn a_crowd_of_invented_members_is_dropped() {
    let now = clock::now();
    let mut a = members("a");
    assert_eq!(a.handle_datagram(now, node("b"), &said("b", 7)), Ok(()));
    assert_eq!(a.handle_datagram(now, node("c"), &said("c", 8)), Err(Dropped::Crowd));
    assert_eq!(a.foca.iter_membership_state().len(), 8);
}

#[test]
fn a_member_that_is_told_of_a_suspicion_refutes_it() {
    let mut all: BTreeMap<_, _> = ["a", "b"].iter().map(|it| (node(it), members(it))).collect();
    let now = clock::now();
    all.get_mut(&node("b")).unwrap().announce(now, identity("a"));
    settle(now, &mut all, &[]);
    let suspect = foca::Member::new(identity("b"), 0, State::Suspect);
    let Members { foca, host, .. } = all.get_mut(&node("a")).unwrap();
    // Not passed on, as after its gossip was lost.
    foca.apply_many([suspect].into_iter(), false, host).unwrap();
    let of_b = |all: &BTreeMap<NodeId, Members>| all[&node("a")].state_of(node("b")).unwrap().0;
    run(now, &mut all, &[], 3);
    assert_eq!(of_b(&all), Membership::Suspect);
    all.get_mut(&node("a")).unwrap().warn(node("b"));
    settle(now, &mut all, &[]);
    assert_eq!(of_b(&all), Membership::Alive);
}

#[test]
fn a_suspicion_that_was_refuted_in_time_buries_nobody() {
    let mut all: BTreeMap<_, _> = ["a", "b"].iter().map(|it| (node(it), members(it))).collect();
    let mut now = clock::now();
    all.get_mut(&node("b")).unwrap().announce(now, identity("a"));
    settle(now, &mut all, &[]);
    // Both lose sight of each other for long enough to suspect, not to be sure.
    let cut = [node("b")];
    now = run(now, &mut all, &cut, 4);
    for (it, other) in [("a", "b"), ("b", "a")] {
        let members = all.get_mut(&node(it)).unwrap();
        assert_eq!(members.state_of(node(other)).unwrap().0, Membership::Suspect);
        members.warn(node(other));
    }
    settle(now, &mut all, &[]);
    run(now, &mut all, &[], 10);
    for (it, other) in [("a", "b"), ("b", "a")] {
        let members = &all[&node(it)];
        assert_eq!(members.state_of(node(other)).unwrap().0, Membership::Alive);
        assert_eq!((members.foca.identity().renewals, members.is_heard()), (0, true));
    }
}
