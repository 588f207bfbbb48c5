//! What a packet of a known flow meets allocates nothing.

use ipnet::Ipv4Net;
use localvpc_benches::allocations;
use localvpc_benches::prefixes::{self, Internet};
use localvpc_benches::scenes::{self, Cache, Connections};
use localvpc_engine::packet;
use localvpc_engine::tables::lpm::Lpm;

#[test]
fn parsing_allocates_nothing() {
    for (name, bytes, offload) in scenes::packets() {
        assert_eq!(allocations(&mut || packet::parse(&bytes, offload).expect(name)), 0.0, "{name}");
    }
}

#[test]
fn finding_a_route_allocates_nothing() {
    let routes = prefixes::numbered(&prefixes::some(&Internet::load().v4, 1_000));
    let lpm = Lpm::build(routes.iter().map(|(route, number)| ((*route).into(), *number)));
    let mut keys = prefixes::random_keys::<Ipv4Net>();
    assert_eq!(allocations(&mut || lpm.lookup(keys.step().into()).expect("there is a default route")), 0.0);
}

#[test]
fn judging_by_rules_allocates_nothing() {
    let (groups, acl, mut packets) =
        (scenes::security_groups(5, 60), scenes::network_acl(40), scenes::rule_packets());
    let mut judge = || {
        let (peer, selector) = packets.step();
        (groups.admit(peer, selector), acl.first_match(peer, selector))
    };
    assert_eq!(allocations(&mut judge), 0.0);
}

#[test]
fn a_flow_hit_allocates_nothing() {
    let mut connections = Connections::open(1, Cache::On);
    let (hits, walks) = connections.hits_and_walks();
    assert_eq!(allocations(&mut || connections.forward(0)), 0.0);
    assert_eq!(connections.hits_and_walks(), (hits + 20_000, walks), "all of them were hits");
}

/// The counter itself counts.
#[test]
fn an_allocation_is_seen() {
    assert_eq!(allocations(&mut || Box::new(1)), 1.0);
}
