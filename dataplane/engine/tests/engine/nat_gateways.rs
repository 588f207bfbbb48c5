//! Several addresses, several gateways, and the end of one: routes that move, addresses that go.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use localvpc_api::tables::{NatGateway, RouteTarget, Tables};
use localvpc_api::trace::TraceOutcome;
use localvpc_api::{DiscardReason, NatGatewayId};
use localvpc_engine::packet::TcpFacts;
use localvpc_engine::report;
use localvpc_engine::testing::craft::{tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const SERVER: &str = "203.0.113.5:443";
const SECOND: NatGatewayId = NatGatewayId(2);

/// A second gateway in the public subnet: 10.0.1.101 with Elastic IP 198.51.100.21.
fn add_second(rows: &mut Tables) {
    let addresses = vec![ip("10.0.1.101")];
    rows.nat_gateways.push(NatGateway { id: SECOND, subnet: PUBLIC, addresses, idle_timeout_ms: 350_000 });
    rows.public_addresses.push(public("198.51.100.21", "10.0.1.101"));
}

/// Lets the private subnet's default route lead elsewhere.
fn route_to(target: RouteTarget) -> impl FnOnce(&mut Tables) {
    move |rows| rows.route_tables[1].routes[1].target = target
}

fn add_address(rows: &mut Tables, private: &str, eip: &str) {
    rows.nat_gateways[0].addresses.push(ip(private));
    rows.public_addresses.push(public(eip, private));
}

#[test]
fn natgw_12_two_addresses_serve_110_000_connections_to_one_destination() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| add_address(rows, "10.0.1.101", "198.51.100.21"));
    let mut seen: HashSet<(IpAddr, u16)> = HashSet::new();
    let mut by_source: BTreeMap<&str, HashSet<IpAddr>> = BTreeMap::new();
    // One instance has not that many ports: two of them take turns.
    for port in 1..=55_000_u16 {
        for (link, source) in [(APP.1, "10.0.2.20"), (DB.1, "10.0.2.30")] {
            let out = net.send(link, udp(format!("{source}:{port}").as_str(), "203.0.113.5:53", b"")).tuple();
            assert!(seen.insert((out.source, out.source_port)), "an address and port twice");
            if port <= 20_000 {
                by_source.entry(source).or_default().insert(out.source);
            }
        }
    }
    assert_eq!(seen.len(), 110_000);
    for eip in ["198.51.100.20", "198.51.100.21"] {
        assert_eq!(seen.iter().filter(|(address, _)| *address == ip(eip)).count(), 55_000, "{eip}");
    }
    assert!(by_source.values().all(|addresses| addresses.len() == 1), "RFC 4787 REQ-2: {by_source:?}");
    for (link, source) in [(APP.1, "10.0.2.20:60000"), (DB.1, "10.0.2.30:60000")] {
        let refused = net.send(link, udp(source, "203.0.113.5:53", b""));
        assert_eq!(refused.verdict, Err(DiscardReason::NatPortsExhausted));
        assert_eq!(net.send(link, udp(source, "203.0.113.5:54", b"")).verdict, Ok(INTERNET));
    }
    let counters = &report::nat_gateways(&net.tables, &net.state, net.now)[0];
    assert_eq!((counters.error_port_allocation, counters.leases), (2, 110_002), "NATGW-15");
}

#[test]
fn natgw_12_what_is_exhausted_recovers_with_an_address_or_a_connection_that_ends() {
    let mut net = Fabric::new(lab::tables());
    let ask = |net: &mut Fabric, port: u16| {
        net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), "203.0.113.5:53", b"")).verdict
    };
    for port in 1..=55_000 {
        assert_eq!(ask(&mut net, port), Ok(INTERNET));
    }
    assert_eq!(ask(&mut net, 60_000), Err(DiscardReason::NatPortsExhausted));
    // Protocols are counted apart: TCP and pings to the same host have ports of their own.
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:60000", "203.0.113.5:53"));
    assert_eq!(syn.verdict, Ok(INTERNET), "NATGW-12: destination address, port and protocol");
    let ping = localvpc_engine::testing::craft::ping(
        localvpc_engine::packet::Echo::Request,
        "10.0.2.20",
        "203.0.113.5",
        7,
        1,
    );
    assert_eq!(net.send(APP.1, ping).verdict, Ok(INTERNET));
    // One more address: room for as many again, and those that are there go on.
    net.push(|rows| add_address(rows, "10.0.1.101", "198.51.100.21"));
    assert_eq!(ask(&mut net, 60_000), Ok(INTERNET));
    assert_eq!(ask(&mut net, 1), Ok(INTERNET));
    assert_eq!(net.state.leases.len(), 55_003);
    net.push(|rows| {
        rows.nat_gateways[0].addresses.pop();
        rows.public_addresses.pop();
    });
    net.pass_ms(1);
    assert_eq!(ask(&mut net, 60_001), Err(DiscardReason::NatPortsExhausted), "and back");
    // All but one are used once more: the one that idles out makes room for exactly one.
    net.pass_ms(349_998);
    for port in 2..=55_000 {
        assert_eq!(ask(&mut net, port), Ok(INTERNET));
    }
    assert_eq!(ask(&mut net, 60_001), Err(DiscardReason::NatPortsExhausted));
    net.pass_ms(1);
    assert_eq!(ask(&mut net, 60_001), Ok(INTERNET));
    assert_eq!(ask(&mut net, 60_002), Err(DiscardReason::NatPortsExhausted));
}

#[test]
fn natgw_6_natgw_7_every_one_of_eight_addresses_gets_its_replies() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        for n in 1..8 {
            add_address(rows, &format!("10.0.1.{}", 100 + n), &format!("198.51.100.{}", 20 + n));
        }
        // Many sources, so that every address is somebody's.
        rows.enis[1].addresses = (20..29).chain(31..90).map(|n| ip(&format!("10.0.2.{n}"))).collect();
    });
    let mut used = HashSet::new();
    for n in (20..29).chain(31..90) {
        let inside = format!("10.0.2.{n}:5000");
        let out = net.send(APP.1, udp(inside.as_str(), "203.0.113.5:53", b"")).tuple();
        used.insert(out.source);
        let back = format!("{}:{}", out.source, out.source_port);
        let reply = net.send(INTERNET, udp("203.0.113.5:53", back.as_str(), b"")).tuple();
        assert_eq!(reply.destination, ip(&format!("10.0.2.{n}")));
    }
    assert_eq!(used.len(), 8, "{used:?}");
}

#[test]
fn natgw_47_an_address_that_is_taken_away_takes_its_connections_along() {
    let mut net = Fabric::new(lab::tables());
    let before = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple();
    net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    net.push(|rows| {
        rows.nat_gateways[0].addresses = vec![ip("10.0.1.101")];
        rows.public_addresses[1] = public("198.51.100.21", "10.0.1.101");
    });
    let after = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple();
    assert_eq!((before.source, after.source), (ip("198.51.100.20"), ip("198.51.100.21")));
    let segment = net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert_eq!((segment.verdict, segment.answers.len()), (Err(DiscardReason::NatNoConnection), 1), "RST");
    net.pass_ms(1);
    assert_eq!(net.state.leases.len(), 1, "only the one that was made anew");
}

#[test]
fn natgw_1_natgw_4_a_private_gateway_does_not_get_past_the_internet_gateway() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.public_addresses.retain(|row| row.private != ip("10.0.1.100")));
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Err(DiscardReason::NoPublicAddress));
    assert!(net.state.leases.is_empty(), "what is refused leaves no lease");
    let traced = net.trace(APP.1, tuple(localvpc_api::trace::Protocol::TCP, "10.0.2.20:51000", SERVER));
    assert_eq!(traced.forward.outcome, TraceOutcome::Discarded(DiscardReason::NoPublicAddress));
    let last = traced.forward.steps.last().unwrap();
    assert_eq!(last.tuple.source, ip("10.0.1.100"), "it came to the internet gateway as the NAT gateway's");
    // Within the VPC it translates as any (NATGW-36): db sees the gateway, and its reply finds back.
    net.push(|rows| {
        let to_db =
            localvpc_api::tables::Route { destination: net_of_db(), target: RouteTarget::NatGateway(NAT) };
        rows.route_tables[1].routes.push(to_db);
        rows.subnets.push(lab::subnet(localvpc_api::SubnetId(3), "10.0.3.0/24", PUBLIC_ROUTES, PUBLIC_ACL));
        rows.enis[2].subnet = localvpc_api::SubnetId(3);
        rows.enis[2].addresses = vec![ip("10.0.3.30")];
        rows.security_groups[2].inbound = vec![rule(lab::tcp(5432), anyone())];
    });
    let arrived = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", "10.0.3.30:5432")).tuple();
    assert_eq!(arrived.source, ip("10.0.1.100"));
    let back = format!("10.0.1.100:{}", arrived.source_port);
    let reply = net.send(DB.1, tcp(SYN_ACK, "10.0.3.30:5432", back.as_str()));
    assert_eq!(reply.verdict, Ok(APP.1));
    assert_eq!(reply.tuple().destination, ip("10.0.2.20"));
}

fn net_of_db() -> ipnet::IpNet {
    lab::net("10.0.3.0/24")
}

#[test]
fn a_route_that_moves_takes_no_lease_along_and_finds_it_when_it_comes_back() {
    let mut net = Fabric::new(lab::tables());
    net.push(add_second);
    // Under load: a hundred flows, each with its lease at the first gateway.
    let query = |n: u16| udp(format!("10.0.2.20:{}", 5000 + n).as_str(), "203.0.113.5:53", b"");
    let first: Vec<_> = (0..100).map(|n| net.send(APP.1, query(n)).tuple()).collect();
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER)).tuple();
    let eip = format!("{}:{}", syn.source, syn.source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert!(first.iter().all(|out| out.source == ip("198.51.100.20")));

    net.push(route_to(RouteTarget::NatGateway(SECOND)));
    for n in 0..100 {
        let out = net.send(APP.1, query(n)).tuple();
        assert_eq!(out.source, ip("198.51.100.21"), "what is sent now goes by the new gateway");
        let back = format!("198.51.100.21:{}", out.source_port);
        assert_eq!(net.send(INTERNET, udp("203.0.113.5:53", back.as_str(), b"")).verdict, Ok(APP.1));
    }
    // The route decides about the way out only: what the far end still sends comes in by the old gateway.
    assert_eq!(net.send(INTERNET, tcp(ACK, SERVER, eip.as_str())).verdict, Ok(APP.1));
    let new = net.send(APP.1, tcp(SYN, "10.0.2.20:51001", SERVER)).tuple();
    assert_eq!(new.source, ip("198.51.100.21"));

    net.pass_ms(349_000);
    net.push(route_to(RouteTarget::NatGateway(NAT)));
    for (n, before) in (0..100).zip(&first) {
        assert_eq!(net.send(APP.1, query(n)).tuple(), *before, "the old lease, port and all");
    }
    let on = net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert_eq!(on.tuple().source_port, syn.source_port, "the connection was silent meanwhile, and goes on");

    // Once more, and this time the connection is not silent: the new gateway does not know it (NATGW-22).
    net.push(route_to(RouteTarget::NatGateway(SECOND)));
    let lost = net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert_eq!((lost.verdict, lost.answers.len()), (Err(DiscardReason::NatNoConnection), 1));
}

#[test]
fn rt_17_rt_19_natgw_43_a_deleted_gateway_leaves_a_blackhole() {
    let mut net = Fabric::new(lab::tables());
    let out = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple();
    net.push(|rows| {
        rows.nat_gateways.clear();
        rows.public_addresses.remove(1);
        rows.route_tables[1].routes[1].target = RouteTarget::Blackhole;
    });
    let refused = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    assert_eq!(refused.verdict, Err(DiscardReason::Blackhole));
    let back = format!("198.51.100.20:{}", out.source_port);
    let late = net.send(INTERNET, udp("203.0.113.5:53", back.as_str(), b""));
    assert!(
        matches!(late.verdict, Err(DiscardReason::NoPublicAssociation | DiscardReason::NoSuchHost)),
        "{late:?}"
    );
    net.pass_ms(1);
    assert!(net.state.leases.is_empty());
    // A gateway that is made later is another one (the registry never reuses a number).
    net.push(|rows| {
        add_second(rows);
        rows.route_tables[1].routes[1].target = RouteTarget::NatGateway(SECOND);
    });
    assert_eq!(
        net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple().source,
        ip("198.51.100.21")
    );
}
