//! What STUN would say (RFC 5780): how a NAT gateway maps and filters, and that an Elastic IP does neither.

use std::collections::HashSet;

use localvpc_api::tables::{PortRange, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::TcpFacts;
use localvpc_engine::testing::craft::{tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

/// What a mapping, or a filter, depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dependent {
    Nothing,
    Address,
    AddressAndPort,
}

/// Two servers with two ports each, as STUN needs.
const SERVERS: [&str; 4] = ["203.0.113.5:3478", "203.0.113.5:3479", "203.0.113.6:3478", "203.0.113.6:3479"];

/// The lab of the walks, with the second server, where web admits UDP from everybody.
fn stun_lab() -> Fabric {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.internet_hosts.push(ip("203.0.113.6"));
        rows.security_groups[0].inbound.push(rule(Traffic::Udp(PortRange::ALL), anyone()));
    });
    net
}

/// The address and port that each server sees a client at.
fn seen(net: &mut Fabric, link: LinkId, client: &str) -> [String; 4] {
    SERVERS.map(|server| {
        let request = net.send(link, udp(client, server, b"binding request")).tuple();
        format!("{}:{}", request.source, request.source_port)
    })
}

fn mapping(net: &mut Fabric, link: LinkId, client: &str) -> Dependent {
    let [first, other_port, other_address, _] = seen(net, link, client);
    match (first == other_port, first == other_address) {
        (true, true) => Dependent::Nothing,
        (true, false) => Dependent::Address,
        _ => Dependent::AddressAndPort,
    }
}

/// The client asks the first server only; then the others try the address at which that one saw it.
fn filtering(net: &mut Fabric, link: LinkId, client: &str) -> Dependent {
    let request = net.send(link, udp(client, SERVERS[0], b"binding request")).tuple();
    let at = format!("{}:{}", request.source, request.source_port);
    let mut arrives = |server: &str| {
        let verdict = net.send(INTERNET, udp(server, at.as_str(), b"binding response")).verdict;
        assert!(verdict == Ok(link) || verdict == Err(DiscardReason::NatNoConnection), "{verdict:?}");
        verdict.is_ok()
    };
    assert!(arrives(SERVERS[0]), "the one that was asked may answer");
    match (arrives(SERVERS[1]), arrives(SERVERS[2])) {
        (_, true) => Dependent::Nothing,
        (true, false) => Dependent::Address,
        (false, false) => Dependent::AddressAndPort,
    }
}

#[test]
fn the_nat_gateway_maps_by_address_and_port() {
    let mut net = stun_lab();
    assert_eq!(
        mapping(&mut net, APP.1, "10.0.2.20:5000"),
        Dependent::AddressAndPort,
        "RFC4787-1, RFC5382-1, NATGW-13"
    );
}

#[test]
fn the_nat_gateway_filters_by_address_and_port() {
    let mut net = stun_lab();
    assert_eq!(
        filtering(&mut net, APP.1, "10.0.2.20:5000"),
        Dependent::AddressAndPort,
        "RFC4787-8, RFC6888-7"
    );
}

#[test]
fn it_behaves_the_same_with_a_thousand_connections() {
    let mut net = stun_lab();
    for port in 10_000..11_000 {
        seen(&mut net, APP.1, &format!("10.0.2.20:{port}"));
    }
    assert_eq!(net.state.leases.len(), 4000);
    assert_eq!(mapping(&mut net, APP.1, "10.0.2.20:5000"), Dependent::AddressAndPort, "RFC4787-11");
    assert_eq!(filtering(&mut net, APP.1, "10.0.2.20:5001"), Dependent::AddressAndPort);
}

#[test]
fn the_nat_gateway_does_not_hairpin() {
    let mut net = stun_lab();
    let asked = net.send(APP.1, udp("10.0.2.20:5000", SERVERS[0], b"")).tuple();
    let mapped = format!("{}:{}", asked.source, asked.source_port);
    // Another instance behind the same gateway, and the same one, to the mapped address.
    for (link, source) in [(DB.1, "10.0.2.30:6000"), (APP.1, "10.0.2.20:6000")] {
        let out = net.send(link, udp(source, mapped.as_str(), b""));
        assert!(out.verdict.is_err() && out.answers.is_empty(), "RFC4787-9, RFC4787-9a, RFC5382-8: {out:?}");
    }
    // Whereas a public address of somebody else is reached by way of the internet gateway (IGW-14).
    let web = net.send(APP.1, udp("10.0.2.20:6000", "198.51.100.10:53", b""));
    assert_eq!((web.verdict, web.tuple().source), (Ok(WEB.1), ip("198.51.100.20")), "NATGW-38");
}

#[test]
fn tcp_from_outside_needs_the_very_far_end() {
    let mut net = stun_lab();
    let syn = net.send(APP.1, tcp(TcpFacts::SYN, "10.0.2.20:5000", "203.0.113.5:443")).tuple();
    let mapped = format!("{}:{}", syn.source, syn.source_port);
    for stranger in ["203.0.113.5:444", "203.0.113.6:443", "203.0.113.6:80"] {
        let out = net.send(INTERNET, tcp(TcpFacts::SYN, stranger, mapped.as_str()));
        assert_eq!(out.verdict, Err(DiscardReason::NatNoConnection), "RFC5382-3: {stranger}");
        net.pass_ms(6_000);
        assert!(out.answers.is_empty(), "RFC5382-4: and nobody tells it, not after 6 s either");
    }
}

#[test]
fn one_port_serves_several_destinations() {
    let mut net = stun_lab();
    let mut ports = [HashSet::new(), HashSet::new()];
    for port in 10_000..50_000 {
        for (ports, server) in ports.iter_mut().zip(["203.0.113.5:53", "203.0.113.6:53"]) {
            let out = net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), server, b""));
            assert!(ports.insert(out.tuple().source_port), "never twice towards one destination");
        }
    }
    let both = ports[0].intersection(&ports[1]).count();
    // 80,000 connections on 64,512 ports.
    assert!(both >= 80_000 - 64_512, "RFC4787-3, RFC5382-7, RFC7857-OVERLAP: {both} ports in use twice");
}

#[test]
fn an_elastic_ip_is_one_to_one() {
    let mut net = stun_lab();
    assert_eq!(mapping(&mut net, WEB.1, "10.0.1.10:5000"), Dependent::Nothing, "IGW-3: endpoint-independent");
    assert_eq!(seen(&mut net, WEB.1, "10.0.1.10:5000"), ["198.51.100.10:5000"; 4].map(String::from));
    assert_eq!(filtering(&mut net, WEB.1, "10.0.1.10:5000"), Dependent::Nothing);
    // Unasked, on any port.
    let unasked = net.send(INTERNET, udp("203.0.113.6:1", "198.51.100.10:9", b""));
    assert_eq!(unasked.tuple(), tuple(Protocol::UDP, "203.0.113.6:1", "10.0.1.10:9"));
    assert!(net.state.leases.is_empty(), "and without any state at the gateway");
}

#[test]
fn low_ports_become_high_ones_in_either_parity() {
    let mut net = stun_lab();
    let mut parities = HashSet::new();
    for port in [1, 80, 443, 1022, 1023] {
        for mapped in seen(&mut net, APP.1, &format!("10.0.2.20:{port}")) {
            let mapped: u16 = mapped.rsplit_once(':').unwrap().1.parse().unwrap();
            assert!(mapped >= 1024, "RFC4787-3a: {port} became {mapped}");
            parities.insert((port % 2, mapped % 2));
        }
    }
    assert!(parities.len() > 2, "RFC4787-4: parity is not kept, ports are random");
}
