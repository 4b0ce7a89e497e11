//! Two levels, in a mesh too large to tell everybody all.

use super::push::orchestrators;
use super::*;

fn at(name: &str, region: &str) -> Greeting {
    Greeting { region: region.parse().unwrap(), ..greeting(name) }
}

fn rtt(orchestrator: u64, ms: u64) -> Observation {
    Observation { rtt: Some(Micros::from_ms(ms)), ..seen(orchestrator) }
}

/// `a` and three others in Frankfurt, `far` in New York; two levels from six nodes on.
fn large(now: Instant) -> Mesh {
    let params = Params { levels_from: 5, ..params() };
    let mut mesh = Mesh::new(now, params, greeting("a"), None, 7);
    for (name, region) in [("b", "FRA"), ("c", "FRA"), ("d", "FRA"), ("far", "NYC")] {
        mesh.handle_link_up(now, LinkId(1), &at(name, region));
    }
    mesh.handle_timeout(now);
    outputs(&mut mesh);
    mesh
}

/// Whom `mesh` tells of which orchestrators within the next seconds.
fn told(mesh: &mut Mesh, now: Instant) -> (Vec<u64>, Vec<u64>) {
    let mut found = (Vec::new(), Vec::new());
    for tick in 0..10 {
        for name in ["b", "c", "d", "far"] {
            // They live.
            let frame = framed(Message::Draining);
            mesh.handle_frame(now + ms(tick * 250), node(name), LinkId(1), frame);
        }
        mesh.handle_timeout(now + ms(tick * 250));
        let all = outputs(mesh);
        let of = |node: NodeId| {
            let its = |it: &&Output| matches!(it, Output::Send { peer, .. } if *peer == node);
            orchestrators(&all.iter().filter(its).cloned().collect::<Vec<_>>())
        };
        found.0.extend(of(node("b")));
        found.1.extend(of(node("far")));
    }
    found
}

/// Has `from` tell `mesh` of an orchestrator.
fn tell(mesh: &mut Mesh, now: Instant, from: &str, version: u64, seen: Observation) {
    let records = [health::Versioned { version, age: Duration::ZERO, observation: seen }];
    let delta = translate::delta_of(1, &records);
    mesh.handle_frame(now, node(from), LinkId(1), framed(Message::Delta(delta)));
}

#[test]
fn beyond_its_region_a_node_tells_what_it_is_nearest_to_and_of_failures() {
    let now = clock::now();
    let mut a = large(now);
    for (at, from) in ["b", "c", "far"].into_iter().enumerate() {
        tell(&mut a, now, from, 1, rtt(1, 5 + at as u64));
    }
    tell(&mut a, now, "b", 2, rtt(2, 5));
    a.handle_observation(now, rtt(1, 20));
    a.handle_observation(now, rtt(2, 20));
    let (near, far) = told(&mut a, now);
    assert_eq!((near, far), (vec![1, 2], vec![2]), "two in the region are nearer to 1");
    let later = now + ms(5000);
    a.handle_observation(later, Observation { failures_milli: 1000, ..rtt(1, 20) });
    let (near, far) = told(&mut a, later);
    assert_eq!((near, far), (vec![1], vec![1]));
}

#[test]
fn what_was_told_before_the_mesh_grew_is_told_by_the_other_level_from_then_on() {
    let now = clock::now();
    let params = Params { levels_from: 4, ..params() };
    let mut a = Mesh::new(now, params, greeting("a"), None, 7);
    a.handle_link_up(now, LinkId(1), &at("b", "FRA"));
    a.handle_link_up(now, LinkId(1), &at("far", "NYC"));
    a.handle_observation(now, rtt(1, 20));
    assert_eq!(told(&mut a, now), (vec![1], vec![1]));
    let later = now + ms(3000);
    a.handle_link_up(later, LinkId(1), &at("c", "FRA"));
    let (near, far) = told(&mut a, later);
    assert_eq!((near, far), (vec![1], vec![1]), "both begin anew, and `a` is the only one");
    // Versions rise over both levels.
    let last = later + ms(3000);
    a.handle_observation(last, rtt(7, 20));
    a.handle_timeout(last);
    let all = outputs(&mut a);
    let versions: Vec<u64> = deltas(&all).iter().map(|it| it.first_version).collect();
    assert!(versions.iter().all(|it| *it == versions[0]), "{versions:?}");
}
