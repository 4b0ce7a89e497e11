//! The operator's commands, from node to node.

use super::*;
use crate::operator::{Command, OperatorKey};
use crate::orders::Orders;
use crate::wire::v1::CommandV1;

const WALL: Duration = Duration::from_secs(1_800_000_000);

fn key() -> OperatorKey {
    OperatorKey::from_seed([7; 32]).unwrap()
}

fn ruled(name: &str) -> Mesh {
    let operator = Operator { mesh: "m.test".to_owned(), key: Some(key().public()) };
    Mesh::new(clock::now(), Params { operator, ..params() }, greeting(name), None, 7)
}

fn command(sequence: u64, previous: u64) -> Vec<u8> {
    let mut orders = Orders { previous, ..Orders::default() };
    orders.set_dial("FRA".parse().unwrap(), (sequence % 100) as u8);
    let (mesh, not_after) = ("m.test".to_owned(), WALL.as_secs() + 60);
    Command { mesh, sequence, not_after, body: orders.write() }.sign(&key()).unwrap()
}

/// Whom a command was passed on to, and the number of the orders that came into force.
fn told(mesh: &mut Mesh) -> (Vec<NodeId>, Option<u64>) {
    let (mut peers, mut number) = (Vec::new(), None);
    for output in outputs(mesh) {
        if let Output::Send { peer, message: Message::Command(_) } = output {
            peers.push(peer);
        } else if let Output::Ordered(in_force) = output {
            number = Some(in_force.number);
        }
    }
    (peers, number)
}

fn pass(mesh: &mut Mesh, from: &str, signed: Vec<u8>) {
    let frame = framed(Message::Command(CommandV1 { signed }));
    mesh.handle_frame(clock::now(), node(from), LinkId(1), frame);
}

#[test]
fn a_command_reaches_all_peers_once_and_who_comes_later() {
    let now = clock::now();
    let mut a = ruled("a");
    for peer in ["b", "c"] {
        a.handle_link_up(now, LinkId(1), &greeting(peer));
    }
    outputs(&mut a);
    assert_eq!(a.handle_command(WALL, &command(5, 0)), Ok(()));
    assert_eq!(told(&mut a), (vec![node("b"), node("c")], Some(5)));
    // It comes back by others, and goes no further.
    pass(&mut a, "b", command(5, 0));
    assert_eq!(told(&mut a), (vec![], None));
    // A later one of a peer is obeyed, whatever it was made from, and passed on to the others.
    pass(&mut a, "b", command(9, 8));
    assert_eq!(told(&mut a), (vec![node("c")], Some(9)));
    a.handle_link_up(now, LinkId(2), &greeting("b"));
    assert_eq!(told(&mut a), (vec![node("b")], None));
}

#[test]
fn orders_made_from_others_than_those_in_force_are_refused_where_they_are_given() {
    let mut a = ruled("a");
    assert_eq!(a.handle_command(WALL, &command(5, 0)), Ok(()));
    let overtaken = NotObeyed::Overtaken { from: 0, now: 5 };
    assert_eq!(a.handle_command(WALL, &command(6, 0)), Err(overtaken));
    assert_eq!(a.handle_command(WALL, &command(6, 5)), Ok(()), "the refused one left no trace");
    assert_eq!(mesh("a").handle_command(WALL, &command(5, 0)), Err(NotObeyed::NoOperator));
}

#[test]
fn a_command_that_is_not_the_operators_goes_no_further_and_is_counted() {
    let now = clock::now();
    let mut a = ruled("a");
    a.handle_link_up(now, LinkId(1), &greeting("b"));
    pass(&mut a, "b", command(5, 0));
    pass(&mut a, "b", command(4, 0));
    assert_eq!(a.peers().row(node("b")).unwrap().counts.n_disobeyed, 0, "late is no mistake");
    outputs(&mut a);
    let mut forged = command(7, 5);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    pass(&mut a, "b", forged);
    assert_eq!(told(&mut a), (vec![], None));
    let row = a.peers().row(node("b")).unwrap().clone();
    assert_eq!((row.counts.n_disobeyed, row.fault), (1, None), "it may know another operator");
}

#[test]
fn orders_that_were_kept_are_those_in_force_after_a_restart() {
    let operator = Operator { mesh: "m.test".to_owned(), key: Some(key().public()) };
    let before = Orders { previous: 3, ..Orders::default() };
    let kept = InForce::kept(&operator, &command(5, 0), before.clone()).unwrap();
    assert_eq!((kept.number, &kept.before), (5, &before));
    let mut a = ruled("a").under(Arc::new(kept));
    let overtaken = NotObeyed::Overtaken { from: 0, now: 5 };
    assert_eq!(a.handle_command(WALL, &command(6, 0)), Err(overtaken));
    let other = Operator { mesh: "else.test".to_owned(), ..operator };
    assert!(InForce::kept(&other, &command(5, 0), before).is_err());
}
