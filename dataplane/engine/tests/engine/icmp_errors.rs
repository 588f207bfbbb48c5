//! ICMP errors on every way through the gateways (RFC 5508): what they quote, whom they reach, and that they change nothing.

use localvpc_api::report::ConnectionState;
use localvpc_api::tables::{PortRange, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::{Echo, Embedded, Kind, Packet, TcpFacts, parse};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, ping, tcp, tuple, udp};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::wire::checksum;

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const HOST: &str = "203.0.113.5";
const SERVER: &str = "203.0.113.5:443";
/// A router on the internet.
const ROUTER: &str = "198.18.0.1";

/// An ICMP error as it left: right, as every hand that opens it sees.
#[track_caller]
fn error(bytes: &[u8]) -> (Packet, Embedded) {
    let packet = parse(bytes, Default::default()).expect("what leaves is well-formed");
    let Kind::IcmpError(about) = packet.kind else { panic!("an ICMP error, not {packet:?}") };
    assert!(checksum::verify(&bytes[..20]), "the header");
    assert!(checksum::verify(&bytes[20..]), "the message");
    assert!(checksum::verify(&bytes[28..48]), "the quoted header");
    (packet, about)
}

fn sent(net: &mut Fabric, from: LinkId, bytes: Vec<u8>) -> Vec<u8> {
    let out = net.send(from, bytes);
    assert!(out.verdict.is_ok(), "{out:?}");
    out.bytes
}

/// Every kind of error about a packet, from a router on its way.
fn errors(about: &[u8]) -> Vec<Vec<u8>> {
    let quotation = &about[..about.len().min(28)];
    let back = std::net::Ipv4Addr::new(about[12], about[13], about[14], about[15]).to_string();
    let other = |kind, code| craft::icmp_message(kind, code, [0; 4], ROUTER, &back, quotation);
    vec![
        craft::port_unreachable(ROUTER, about),
        craft::fragmentation_needed(ROUTER, 1280, about),
        other(3, 0),
        other(3, 1),
        other(3, 13),
        other(11, 0),
        other(12, 0),
    ]
}

#[test]
fn rfc5508_4_errors_of_every_kind_reach_app_about_every_protocol() {
    let probes = [
        (tcp(SYN, "10.0.2.20:40000", SERVER), tuple(Protocol::TCP, "10.0.2.20:40000", SERVER)),
        (
            udp("10.0.2.20:5000", "203.0.113.5:53", b"?"),
            tuple(Protocol::UDP, "10.0.2.20:5000", "203.0.113.5:53"),
        ),
        (
            ping(Echo::Request, "10.0.2.20", HOST, 77, 1),
            tuple(Protocol::ICMP, "10.0.2.20:77", "203.0.113.5:77"),
        ),
    ];
    for (probe, inside) in probes {
        let mut net = Fabric::new(lab::tables());
        let left = sent(&mut net, APP.1, probe);
        for message in errors(&left) {
            let (kind, code) = (message[20], message[21]);
            let out = net.send(INTERNET, message);
            assert_eq!(out.verdict, Ok(APP.1), "{kind}/{code}, {inside:?}");
            let (packet, about) = error(&out.bytes);
            assert_eq!((out.bytes[20], out.bytes[21]), (kind, code), "RFC 5508 REQ-4: type and code stay");
            assert_eq!((packet.tuple.source, packet.tuple.destination), (ip(ROUTER), ip("10.0.2.20")));
            assert_eq!(about.tuple, inside, "as app has sent it");
        }
    }
}

#[test]
fn rfc5508_5_errors_of_app_leave_as_the_gateways() {
    let mut net = Fabric::new(lab::tables());
    let left =
        parse(&sent(&mut net, APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"?")), Default::default());
    let eip = format!("198.51.100.20:{}", left.unwrap().tuple.source_port);
    let arrived = sent(&mut net, INTERNET, udp("203.0.113.5:53", eip.as_str(), b"!"));
    for message in errors(&arrived) {
        // errors() writes a router's address: app itself complains.
        let message =
            craft::icmp_message(message[20], message[21], [0; 4], "10.0.2.20", HOST, &arrived[..28]);
        let out = net.send(APP.1, message);
        assert_eq!(out.verdict, Ok(INTERNET));
        let (packet, about) = error(&out.bytes);
        assert_eq!(packet.tuple.source, ip("198.51.100.20"), "RFC 5508 REQ-5");
        assert_eq!(about.tuple, tuple(Protocol::UDP, "203.0.113.5:53", eip.as_str()));
    }
}

#[test]
fn igw_17_errors_pass_the_1_to_1_translation_both_ways() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.security_groups[0].inbound.push(rule(Traffic::Udp(PortRange::ALL), anyone())));
    let left = sent(&mut net, WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", b"?"));
    for message in errors(&left) {
        let out = net.send(INTERNET, message);
        assert_eq!(out.verdict, Ok(WEB.1));
        let (packet, about) = error(&out.bytes);
        assert_eq!(packet.tuple.destination, ip("10.0.1.10"), "IGW-17");
        assert_eq!(about.tuple, tuple(Protocol::UDP, "10.0.1.10:5000", "203.0.113.5:53"));
    }
    let arrived = sent(&mut net, INTERNET, udp("203.0.113.5:53", "198.51.100.10:6000", b"!"));
    let out = net.send(WEB.1, craft::port_unreachable("10.0.1.10", &arrived));
    assert_eq!(out.verdict, Ok(INTERNET));
    let (packet, about) = error(&out.bytes);
    assert_eq!(packet.tuple.source, ip("198.51.100.10"));
    assert_eq!(about.tuple, tuple(Protocol::UDP, "203.0.113.5:53", "198.51.100.10:6000"));
}

#[test]
fn igw_14_an_error_finds_back_by_reflection() {
    // app reaches web by its Elastic IP: through the NAT gateway out, through the internet gateway twice.
    let mut net = Fabric::new(lab::tables());
    let arrived = sent(&mut net, APP.1, tcp(SYN, "10.0.2.20:40000", "198.51.100.10:80"));
    let out = net.send(WEB.1, craft::port_unreachable("10.0.1.10", &arrived));
    assert_eq!(out.verdict, Ok(APP.1));
    let (packet, about) = error(&out.bytes);
    assert_eq!((packet.tuple.source, packet.tuple.destination), (ip("198.51.100.10"), ip("10.0.2.20")));
    assert_eq!(about.tuple, tuple(Protocol::TCP, "10.0.2.20:40000", "198.51.100.10:80"));
}

#[test]
fn rfc5508_6_an_error_neither_refreshes_nor_ends_what_it_is_about() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", SERVER)).tuple();
    let eip = format!("198.51.100.20:{}", syn.source_port);
    sent(&mut net, INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    let left = sent(&mut net, APP.1, tcp(ACK, "10.0.2.20:40000", SERVER));
    let arrived = sent(&mut net, INTERNET, tcp(ACK, SERVER, eip.as_str()));
    net.pass_ms(100_000);
    for message in errors(&left) {
        assert_eq!(net.send(INTERNET, message).verdict, Ok(APP.1));
    }
    assert_eq!(net.send(APP.1, craft::port_unreachable("10.0.2.20", &arrived)).verdict, Ok(INTERNET));
    let lease = report::leases(&net.state, net.now).remove(0);
    let tracked = report::connections(&net.state, net.now).remove(0);
    assert_eq!((lease.idle_ms, lease.state), (100_000, ConnectionState::Established), "RFC 5382 REQ-10");
    assert_eq!((tracked.idle_ms, tracked.state), (100_000, ConnectionState::Established));
    assert_eq!((lease.out.packets, lease.back.packets), (2, 2), "and they are no packets of it");
    net.pass_ms(250_000);
    let late = net.send(INTERNET, craft::port_unreachable(ROUTER, &left));
    assert_eq!(late.verdict, Err(DiscardReason::UnrelatedIcmpError), "350 s after the last segment");
}

#[test]
fn natgw_20_every_kind_of_probe_is_told_of_the_hop() {
    // traceroute sends UDP, `-T` SYNs, `-I` and mtr pings.
    let probes: [fn() -> Vec<u8>; 3] = [
        || udp("10.0.2.20:33000", "203.0.113.5:33434", b"probe"),
        || tcp(SYN, "10.0.2.20:33000", SERVER),
        || ping(Echo::Request, "10.0.2.20", HOST, 77, 1),
    ];
    for probe in probes {
        let mut net = Fabric::new(lab::tables());
        let first = net.send(APP.1, craft::with_ttl(probe(), 1));
        assert_eq!(first.verdict, Err(DiscardReason::TtlExceeded));
        let [(link, bytes)] = first.answers.as_slice() else { panic!("one answer, not {first:?}") };
        let (packet, about) = error(bytes);
        assert_eq!((*link, packet.tuple.source, bytes[20]), (APP.1, ip("10.0.1.100"), 11));
        assert_eq!(
            about.tuple,
            parse(&probe(), Default::default()).unwrap().tuple,
            "the quote is what app sent"
        );
        assert_eq!(
            (net.state.leases.len(), net.state.connections.len()),
            (0, 0),
            "RFC 5508: nothing is begun by it"
        );
        let second = net.send(APP.1, craft::with_ttl(probe(), 2));
        assert_eq!((second.verdict, second.bytes[8]), (Ok(INTERNET), 1), "the next hop is the internet's");
    }
}

#[test]
fn natgw_20_what_comes_back_too_late_is_told_to_the_internet() {
    let mut net = Fabric::new(lab::tables());
    let out = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"?")).tuple();
    let eip = format!("198.51.100.20:{}", out.source_port);
    let late = net.send(INTERNET, craft::with_ttl(udp("203.0.113.5:53", eip.as_str(), b"!"), 1));
    assert_eq!(late.verdict, Err(DiscardReason::TtlExceeded));
    let [(link, bytes)] = late.answers.as_slice() else { panic!("one answer, not {late:?}") };
    let (packet, about) = error(bytes);
    assert_eq!((*link, packet.tuple.destination), (INTERNET, ip(HOST)));
    assert_eq!(
        packet.tuple.source,
        ip("198.51.100.20"),
        "NATGW-3: its private address, by the internet gateway"
    );
    assert_eq!(about.tuple, tuple(Protocol::UDP, "203.0.113.5:53", eip.as_str()), "as the host has sent it");
}

#[test]
fn rfc5508_4_errors_about_nothing_end_in_silence() {
    let mut net = Fabric::new(lab::tables());
    let left = sent(&mut net, APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"?"));
    // About a port that is not leased, another far end, another protocol.
    let about = |source: &str, destination: &str| udp(source, destination, b"?");
    let eip = |port: u16| format!("198.51.100.20:{port}");
    let port = u16::from_be_bytes([left[20], left[21]]);
    for quoted in [
        about(&eip(port ^ 1), "203.0.113.5:53"),
        about(&eip(port), "203.0.113.5:54"),
        about(&eip(port), "203.0.113.6:53"),
        tcp(SYN, eip(port).as_str(), "203.0.113.5:53"),
    ] {
        let out: Outcome = net.send(INTERNET, craft::port_unreachable(ROUTER, &quoted));
        assert_eq!(out.verdict, Err(DiscardReason::UnrelatedIcmpError), "{quoted:?}");
        assert!(out.answers.is_empty());
    }
    // And from inside: about a packet that never came in.
    let forged = udp("203.0.113.5:54", "10.0.2.20:5000", b"!");
    let out = net.send(APP.1, craft::port_unreachable("10.0.2.20", &forged));
    assert!(out.verdict.is_err() && out.answers.is_empty(), "{out:?}");
    assert_eq!(net.state.leases.len(), 1, "RFC5508-4: and nothing was begun by any of them");
}
