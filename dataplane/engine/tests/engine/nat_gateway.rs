//! Leases, their quota and their end; packets that are too big; ICMP errors through both gateways.

use localvpc_api::DiscardReason;
use localvpc_api::trace::Protocol;
use localvpc_engine::packet::{Segmentation, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::state::nat_ports::{Destination, NatPorts};
use localvpc_engine::testing::craft::{self, tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use std::collections::HashSet;

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const SERVER: &str = "203.0.113.5:443";

#[test]
fn natgw_12_55_000_connections_to_one_destination_exactly() {
    let mut net = Fabric::new(lab::tables());
    // One instance has 65,536 ports itself; leave port 0 alone.
    let mut ports = HashSet::new();
    for port in 1..=55_000_u16 {
        let out = net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), "203.0.113.5:53", b""));
        assert!(ports.insert(out.tuple().source_port), "no port twice towards one destination");
    }
    let refused = net.send(APP.1, udp("10.0.2.20:55001", "203.0.113.5:53", b""));
    assert_eq!(refused.verdict, Err(DiscardReason::NatPortsExhausted));
    let other = net.send(APP.1, udp("10.0.2.20:55001", "203.0.113.5:54", b""));
    assert_eq!(other.verdict, Ok(INTERNET), "another destination has ports of its own");
    let known = net.send(APP.1, udp("10.0.2.20:7", "203.0.113.5:53", b""));
    assert_eq!(known.verdict, Ok(INTERNET), "what has a lease keeps it");
    let counters = &report::nat_gateways(&net.tables, &net.state, net.now)[0];
    assert_eq!(counters.error_port_allocation, 1, "NATGW-15");
    assert_eq!(counters.leases, 55_001);
    assert_eq!(counters.active_connections, 0, "NATGW-48: TCP only");
    net.pass_ms(350_000);
    assert!(net.state.leases.is_empty());
    let again = net.send(APP.1, udp("10.0.2.20:55001", "203.0.113.5:53", b""));
    assert_eq!(again.verdict, Ok(INTERNET));
}

#[test]
fn natgw_22_an_idle_connection_is_reset_from_inside_and_ignored_from_outside() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    net.pass_ms(349_999);
    assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER)).verdict, Ok(INTERNET));
    net.pass_ms(350_000);
    assert_eq!(report::nat_gateways(&net.tables, &net.state, net.now)[0].idle_timeouts, 1);
    let outside = net.send(INTERNET, tcp(ACK, SERVER, eip.as_str()));
    assert_eq!(outside.verdict, Err(DiscardReason::NatNoConnection), "NATGW-24");
    assert!(outside.answers.is_empty());
    let late = net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    assert_eq!(late.verdict, Err(DiscardReason::NatNoConnection), "WALK-3");
    let [(link, reset)] = late.answers.as_slice() else { panic!("one answer, not {:?}", late.answers) };
    assert_eq!(*link, APP.1);
    let parsed = localvpc_engine::packet::parse(reset, Default::default()).unwrap();
    assert_eq!(parsed.tuple, tuple(Protocol::TCP, SERVER, "10.0.2.20:51000"), "as if the server had sent it");
    let localvpc_engine::packet::Kind::Tcp(facts) = parsed.kind else { panic!("TCP") };
    assert_ne!(facts.flags & TcpFacts::RST, 0);
}

#[test]
fn a_lease_belongs_to_its_gateway() {
    let mut net = Fabric::new(lab::tables());
    let before = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple();
    net.push(|rows| {
        let second = localvpc_api::NatGatewayId(2);
        rows.nat_gateways.push(localvpc_api::tables::NatGateway {
            id: second,
            subnet: PUBLIC,
            addresses: vec![ip("10.0.1.101")],
            idle_timeout_ms: 350_000,
        });
        rows.public_addresses.push(public("198.51.100.21", "10.0.1.101"));
        rows.route_tables[1].routes[1].target = localvpc_api::tables::RouteTarget::NatGateway(second);
    });
    let after = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")).tuple();
    assert_eq!((before.source, after.source), (ip("198.51.100.20"), ip("198.51.100.21")));
    net.push(|rows| {
        rows.nat_gateways.remove(0);
        rows.public_addresses.retain(|row| row.private != ip("10.0.1.100"));
    });
    net.pass_ms(1);
    assert_eq!(net.state.leases.len(), 1, "leases of a deleted gateway are gone");
}

#[test]
fn natgw_20_time_exceeded_comes_from_its_private_address() {
    let mut net = Fabric::new(lab::tables());
    let probe = craft::with_ttl(udp("10.0.2.20:33000", "203.0.113.5:33434", b"probe"), 1);
    let out = net.send(APP.1, probe.clone());
    assert_eq!(out.verdict, Err(DiscardReason::TtlExceeded));
    // Though nothing was tracked, the answer is related to what app sent: its group has no rule for ICMP.
    let [(link, error)] = out.answers.as_slice() else { panic!("one answer") };
    assert_eq!(*link, APP.1);
    let parsed = localvpc_engine::packet::parse(error, Default::default()).unwrap();
    assert_eq!((parsed.tuple.source, parsed.tuple.destination), (ip("10.0.1.100"), ip("10.0.2.20")));
    assert_eq!(&error[28..48], &probe[..20], "the quote is what app sent");
}

#[test]
fn igw_17_an_error_from_the_internet_reaches_app_with_its_own_addresses() {
    let mut net = Fabric::new(lab::tables());
    let sent = udp("10.0.2.20:5000", "203.0.113.5:53", b"query");
    let out = net.send(APP.1, sent.clone());
    let error = net.send(INTERNET, craft::port_unreachable("203.0.113.5", &out.bytes));
    assert_eq!(error.verdict, Ok(APP.1), "related to app's connection, which tracks it (SG-35)");
    let parsed = localvpc_engine::packet::parse(&error.bytes, Default::default()).unwrap();
    let localvpc_engine::packet::Kind::IcmpError(about) = parsed.kind else { panic!("an error") };
    assert_eq!(about.tuple, tuple(Protocol::UDP, "10.0.2.20:5000", "203.0.113.5:53"));
    assert_eq!(parsed.tuple.destination, ip("10.0.2.20"));
    let idle = report::leases(&net.state, net.now)[0].back.packets;
    assert_eq!(idle, 0, "RFC 5508 REQ-6: an error refreshes nothing");
    let mut forged = out.bytes.clone();
    forged[20..22].copy_from_slice(&9_u16.to_be_bytes());
    let error = net.send(INTERNET, craft::port_unreachable("203.0.113.5", &forged));
    assert_eq!(error.verdict, Err(DiscardReason::UnrelatedIcmpError), "RFC 5508 REQ-4");
}

#[test]
fn an_error_from_app_leaves_with_the_elastic_ip() {
    let mut net = Fabric::new(lab::tables());
    let out = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"query")).tuple();
    let eip = format!("198.51.100.20:{}", out.source_port);
    let arrived = net.send(INTERNET, udp("203.0.113.5:53", eip.as_str(), b"answer"));
    let error = net.send(APP.1, craft::port_unreachable("10.0.2.20", &arrived.bytes));
    assert_eq!(error.verdict, Ok(INTERNET));
    let parsed = localvpc_engine::packet::parse(&error.bytes, Default::default()).unwrap();
    let localvpc_engine::packet::Kind::IcmpError(about) = parsed.kind else { panic!("an error") };
    assert_eq!(about.tuple, tuple(Protocol::UDP, "203.0.113.5:53", eip.as_str()), "RFC 5508 REQ-5");
    assert_eq!(parsed.tuple.source, ip("198.51.100.20"));
}

#[test]
fn walk_13_a_packet_too_big_for_the_internet_is_answered_with_the_mtu() {
    let mut net = Fabric::new(lab::tables());
    for (link, source, reached) in [(WEB.1, "10.0.1.10", WEB.1), (APP.1, "10.0.2.20", APP.1)] {
        let small = net.send(link, udp(format!("{source}:5000").as_str(), "203.0.113.5:53", &[0; 1472]));
        assert_eq!(small.verdict, Ok(INTERNET), "1500 bytes fit");
        let sent = udp(format!("{source}:5001").as_str(), "203.0.113.5:53", &[0; 1473]);
        let big = net.send(link, sent.clone());
        assert_eq!(big.verdict, Err(DiscardReason::TooBig));
        let [(link, error)] = big.answers.as_slice() else { panic!("{source}: one answer") };
        assert_eq!(*link, reached);
        assert_eq!((error[20], error[21]), (3, 4), "IGW-12, MTU-3");
        assert_eq!(u16::from_be_bytes([error[26], error[27]]), 1500);
        assert_eq!(&error[12..16], &[10, 0, 1, 1], "from the router of the public subnet");
        assert_eq!(&error[40..48], &sent[12..20], "{source}: the quote has the sender's own addresses");
        assert_eq!(&error[48..50], &sent[20..22], "{source}: and its own port");
    }
}

#[test]
fn a_super_packet_is_judged_by_its_segments() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    let facts = TcpFacts { flags: ACK, sequence: 1001, acknowledgement: 1001, window: 1000, payload: 60_000 };
    let data = || craft::tcp_segment(facts, "10.0.2.20:51000", SERVER);
    for _ in 0..2 {
        let (bytes, offload) = craft::offloaded(data(), Segmentation::TcpV4 { size: 1460 });
        let out = net.send_offloaded(APP.1, bytes, offload);
        assert_eq!(out.verdict, Ok(INTERNET), "60 kB in segments of 1500 bytes");
        assert_eq!(out.bytes.len(), 60_040, "unsplit");
    }
    let (bytes, offload) = craft::offloaded(data(), Segmentation::TcpV4 { size: 8961 });
    assert_eq!(net.send_offloaded(APP.1, bytes, offload).verdict, Err(DiscardReason::TooBig));
    let counters = report::enis(&net.tables);
    let app = counters.iter().find(|row| row.eni == APP.0).unwrap();
    assert_eq!(app.sent.packets, 1 + 2 * 42, "segments are counted, not super-packets");
}

#[test]
fn natgw_18_natgw_19_what_is_for_the_gateway_itself_is_no_hop_past_it() {
    let mut net = Fabric::new(lab::tables());
    let lost = net.send(INTERNET, craft::with_ttl(udp("203.0.113.5:53", "198.51.100.20:33434", b""), 1));
    assert_eq!(lost.verdict, Err(DiscardReason::NatNoConnection));
    assert!(lost.answers.is_empty(), "a traceroute to it sees nothing");
    let large = net.send(APP.1, udp("10.0.2.20:5000", "10.0.1.100:53", &[0; 8900]));
    assert_eq!((large.verdict, large.answers.len()), (Err(DiscardReason::NatNoConnection), 0));

    // A reply goes past it, and says so when it cannot; from the address that it came to.
    net.push(|rows| {
        rows.nat_gateways[0].addresses.push(ip("10.0.1.101"));
        rows.public_addresses.push(public("198.51.100.21", "10.0.1.101"));
        rows.enis[1].addresses = (20..30).map(|n| ip(&format!("10.0.2.{n}"))).collect();
        rows.enis[2].addresses = vec![ip("10.0.2.30")];
    });
    let mut addresses = HashSet::new();
    for n in 20..30 {
        let seen = net.send(APP.1, udp(format!("10.0.2.{n}:5000").as_str(), "203.0.113.5:53", b"")).tuple();
        addresses.insert(seen.source);
        let eip = format!("{}:{}", seen.source, seen.source_port);
        let reply = net.send(INTERNET, craft::with_ttl(udp("203.0.113.5:53", eip.as_str(), b""), 1));
        assert_eq!(reply.verdict, Err(DiscardReason::TtlExceeded));
        let [(link, error)] = reply.answers.as_slice() else { panic!("one answer") };
        let parsed = localvpc_engine::packet::parse(error, Default::default()).unwrap();
        assert_eq!((*link, parsed.tuple.source), (INTERNET, seen.source));
        let localvpc_engine::packet::Kind::IcmpError(about) = parsed.kind else { panic!("an error") };
        assert_eq!(about.tuple, tuple(Protocol::UDP, "203.0.113.5:53", eip.as_str()));
    }
    assert_eq!(addresses.len(), 2, "of both");
}

#[test]
fn igw_17_rfc5508_4_an_error_quotes_the_address_that_it_comes_to() {
    let mut net = Fabric::new(lab::tables());
    let sent = net.send(WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", b"query"));
    let about = |quote: &[u8]| craft::port_unreachable("203.0.113.5", quote);
    assert_eq!(net.send(INTERNET, about(&sent.bytes)).verdict, Ok(WEB.1));
    let mut forged = about(&udp("198.51.100.99:5000", "203.0.113.5:53", b"query"));
    forged[16..20].copy_from_slice(&[198, 51, 100, 10]);
    assert_eq!(net.send(INTERNET, craft::seal(forged)).verdict, Err(DiscardReason::UnrelatedIcmpError));

    let came = net.send(INTERNET, tcp(SYN, "203.0.113.5:4000", "198.51.100.10:80"));
    assert_eq!(net.send(WEB.1, craft::port_unreachable("10.0.1.10", &came.bytes)).verdict, Ok(INTERNET));
    let mut forged = craft::port_unreachable("10.0.1.10", &tcp(SYN, "203.0.113.5:4000", "10.0.1.99:80"));
    forged[12..16].copy_from_slice(&[10, 0, 1, 10]);
    assert_eq!(net.send(WEB.1, craft::seal(forged)).verdict, Err(DiscardReason::UnrelatedIcmpError));
}

#[test]
fn natgw_12_of_a_full_quota_any_port_that_is_given_back_is_found() {
    let ports = NatPorts::default();
    let destination = Destination {
        nat_gateway: NAT,
        address: ip("10.0.1.100"),
        remote: ip("203.0.113.5"),
        remote_port: 443,
        protocol: Protocol::UDP,
    };
    let mut taken: Vec<u16> = (0..55_000).map(|_| ports.reserve(&destination, 7 << 32).unwrap()).collect();
    assert_eq!(ports.reserve(&destination, 7 << 32), None);
    taken.sort_unstable();
    // One of each 64, wherever in its word it stands.
    for port in taken.into_iter().step_by(65) {
        ports.release(&destination, port);
        assert_eq!(ports.reserve(&destination, 9 << 32), Some(port), "the only one that is free");
        assert_eq!(ports.reserve(&destination, 9 << 32), None);
    }
}
