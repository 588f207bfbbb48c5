//! Fragments that come in: the first decides, the others follow, attacks end (RFC 791, 1858, 3128, 4787, 5722; NATGW-27).

use etherparse::SlicedPacket;
use etherparse::defrag::IpDefragPool;
use localvpc_api::tables::{Action, PortRange, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::{Echo, Offload, TcpFacts, parse};
use localvpc_engine::report;
use localvpc_engine::state::fragments::{Bounds, LIFETIME_MS};
use localvpc_engine::testing::craft::{self, fragment, fragments, ping, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use proptest::collection::vec;
use proptest::prelude::*;

const HOST: &str = "203.0.113.5";

/// Sends packets in this order; returns what left, in order, and how many were held back.
fn send_all(net: &mut Fabric, from: LinkId, packets: &[Vec<u8>]) -> (Vec<(LinkId, Vec<u8>)>, usize) {
    let (mut left, mut held) = (Vec::new(), 0);
    for packet in packets {
        match net.offer(from, packet.clone()) {
            Some(outcome) => {
                if let Ok(link) = outcome.verdict {
                    left.extend((!outcome.bytes.is_empty()).then_some((link, outcome.bytes)));
                }
                left.extend(outcome.fragments);
            }
            None => held += 1,
        }
    }
    (left, held)
}

/// The data of the datagram that fragments make, by another hand; `None` if they make none.
fn reassembled(packets: &[(LinkId, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for (_, packet) in packets {
        let sliced = SlicedPacket::from_ip(packet).expect("what leaves is well-formed");
        if let Some(done) =
            pool.process_sliced_packet(&sliced, (), ()).expect("fragments that fit each other")
        {
            assert!(whole.is_none(), "one datagram");
            whole = Some(done.payload);
        }
    }
    whole
}

fn datagram(source: &str, destination: &str, length: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..length).map(|at| (at * 31 / 7) as u8).collect();
    udp(source, destination, &data)
}

/// The UDP checksum of a datagram's data between two addresses is right.
fn assert_udp(data: &[u8], source: &str, destination: &str, ports: (u16, u16)) {
    let pseudo = localvpc_engine::wire::checksum::Sum::pseudo_header(
        source.parse().unwrap(),
        destination.parse().unwrap(),
        Protocol::UDP,
        data.len() as u32,
    );
    assert_eq!(pseudo.and(localvpc_engine::wire::checksum::Sum::of(data)).fold(), 0xFFFF, "the UDP checksum");
    assert_eq!((data[0], data[1], data[2], data[3]), {
        let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
        (from[0], from[1], to[0], to[1])
    });
}

#[test]
fn igw_a_4096_byte_datagram_passes_the_1_to_1_translation_in_any_order() {
    let sent = datagram("10.0.1.10:5000", "203.0.113.5:53", 4096);
    let orders: [&[usize]; 6] = [&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]];
    for order in orders {
        let mut net = Fabric::new(lab::tables());
        let parts = fragments(&sent, 7, 1480);
        let parts: Vec<_> = order.iter().map(|at| parts[*at].clone()).collect();
        let (left, held) = send_all(&mut net, WEB.1, &parts);
        let first = order.iter().position(|at| *at == 0).unwrap();
        assert_eq!(
            (left.len(), held),
            (3, first),
            "{order:?}: RFC 4787 REQ-14, what comes before the first waits"
        );
        assert!(left.iter().all(|(link, _)| *link == INTERNET));
        let data = reassembled(&left).expect("all of it");
        assert_udp(&data, "198.51.100.10", HOST, (5000, 53));
        assert_eq!(data[8..], sent[28..], "{order:?}");
        assert_eq!(net.counted(WEB.0), (0, 3), "every fragment is counted");
        assert_eq!(net.state.fragments.held(), Default::default());
    }
}

#[test]
fn icmp_and_other_protocols_pass_the_igw_in_fragments() {
    let mut net = Fabric::new(lab::tables());
    let mut ping = ping(Echo::Request, "10.0.1.10", HOST, 9, 1);
    ping.extend_from_slice(&[5; 3000]);
    let length = (ping.len() as u16).to_be_bytes();
    ping[2..4].copy_from_slice(&length);
    // One of ICMP's that is neither an echo nor an error: a timestamp.
    let stamp = craft::icmp_message(13, 0, [0; 4], "10.0.1.10", HOST, &[7; 3000]);
    let gre = craft::other(Protocol(47), "10.0.1.10", HOST, &[6; 3000]);
    for (id, packet) in [(1, ping), (2, gre), (3, stamp)] {
        let (left, _) = send_all(&mut net, WEB.1, &fragments(&packet, id, 1480));
        assert_eq!(left.len(), 3);
        assert_eq!(reassembled(&left).unwrap(), packet[20..], "nothing but addresses changes");
    }
}

#[test]
fn natgw_27_fragments_of_udp_pass_with_the_lease_of_the_first() {
    let mut net = Fabric::new(lab::tables());
    let sent = datagram("10.0.2.20:5000", "203.0.113.5:53", 5000);
    let mut parts = fragments(&sent, 7, 1480);
    parts.swap(0, 2);
    let (left, held) = send_all(&mut net, APP.1, &parts);
    assert_eq!((left.len(), held), (4, 2));
    let lease = report::leases(&net.state, net.now).remove(0);
    let data = reassembled(&left).unwrap();
    assert_udp(&data, "198.51.100.20", HOST, (lease.port, 53));
    assert_eq!(data[8..], sent[28..]);
    assert!(left.iter().all(|(_, bytes)| bytes[8] == craft::TTL - 1), "NATGW-20: one hop, each fragment");
    // RFC4787-14: it came out of order, and left behind its first.
    assert_eq!(lease.out.packets, 4, "later fragments count, too");
    assert_eq!(report::nat_gateways(&net.tables, &net.state, net.now)[0].out_to_destination.packets, 4);

    // And the answer, the other way round.
    let answer = datagram("203.0.113.5:53", &format!("198.51.100.20:{}", lease.port), 5000);
    let mut parts = fragments(&answer, 8, 1480);
    parts.reverse();
    let (left, held) = send_all(&mut net, INTERNET, &parts);
    assert_eq!((left.len(), held), (4, 3));
    assert!(left.iter().all(|(link, _)| *link == APP.1));
    assert_udp(&reassembled(&left).unwrap(), HOST, "10.0.2.20", (53, 5000));
    assert_eq!(net.counted(APP.0), (4, 4));
}

#[test]
fn natgw_27_fragments_of_tcp_and_icmp_are_discarded() {
    let facts = TcpFacts { flags: TcpFacts::SYN, sequence: 1, acknowledgement: 0, window: 9, payload: 3000 };
    let tcp = craft::tcp_segment(facts, "10.0.2.20:5000", "203.0.113.5:443");
    let mut ping = ping(Echo::Request, "10.0.2.20", HOST, 9, 1);
    ping.extend_from_slice(&[5; 2956]);
    let length = (ping.len() as u16).to_be_bytes();
    ping[2..4].copy_from_slice(&length);
    for packet in [tcp, ping] {
        let mut net = Fabric::new(lab::tables());
        let mut parts = fragments(&packet, 7, 1480);
        parts.swap(0, 1);
        let (left, held) = send_all(&mut net, APP.1, &parts);
        assert_eq!((left.len(), held), (0, 1), "ping -s 10000 fails");
        assert_eq!(net.discarded(DiscardReason::NatFragment), 3, "the one that waited, too");
        assert_eq!(report::nat_gateways(&net.tables, &net.state, net.now)[0].packets_dropped, 3);
        assert!(net.state.leases.is_empty() && net.state.connections.is_empty());
    }
}

#[test]
fn tcp_fragments_pass_without_a_nat_gateway() {
    let mut net = Fabric::new(lab::tables());
    let facts = TcpFacts { flags: TcpFacts::SYN, sequence: 1, acknowledgement: 0, window: 9, payload: 3000 };
    let tcp = craft::tcp_segment(facts, "10.0.1.10:5000", "203.0.113.5:443");
    let (left, _) = send_all(&mut net, WEB.1, &fragments(&tcp, 7, 1480));
    assert_eq!(left.len(), 3, "IGW: all fragments");
}

#[test]
fn nacl_15_later_fragments_share_the_fate_of_the_first() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        let dns = Traffic::Udp(PortRange::one(53));
        rows.network_acls[0].outbound.insert(0, entry(10, Action::Deny, dns, "0.0.0.0/0"));
    });
    for (port, passes) in [(53, 0), (54, 2)] {
        let destination = format!("203.0.113.5:{port}");
        let parts = fragments(&datagram("10.0.1.10:5000", &destination, 2000), port, 1480);
        assert_eq!(send_all(&mut net, WEB.1, &parts).0.len(), passes, "port {port}");
    }
    assert_eq!(net.discarded(DiscardReason::NetworkAcl), 2, "under the reason of the first");
    let row = report::enis(&net.tables).into_iter().find(|row| row.eni == WEB.0).unwrap();
    assert_eq!(row.discards.iter().map(|row| row.packets).sum::<u64>(), 2, "at the same ENI");
}

#[test]
fn sg_30_the_first_fragment_is_tracked_and_the_reply_comes_back_in_fragments() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.security_groups[2].inbound = vec![rule(
            Traffic::Udp(PortRange::one(53)),
            localvpc_api::tables::Peer::SecurityGroup(APP_GROUP),
        )];
    });
    let there = fragments(&datagram("10.0.2.20:5000", "10.0.2.30:53", 20_000), 1, 8976);
    assert_eq!(
        send_all(&mut net, APP.1, &there).0.len(),
        3,
        "by its port, which later fragments do not have"
    );
    let back = fragments(&datagram("10.0.2.30:53", "10.0.2.20:5000", 20_000), 2, 8976);
    assert_eq!(send_all(&mut net, DB.1, &back).0.len(), 3);
    let connection = report::connections(&net.state, net.now).remove(0);
    assert_eq!((connection.sent.packets, connection.received.packets), (3, 3));
}

#[test]
fn rfc6274_a_first_fragment_that_never_comes_is_counted_when_its_time_is_up() {
    let mut net = Fabric::new(lab::tables());
    let parts = fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 4096), 7, 1480);
    assert_eq!(send_all(&mut net, WEB.1, &parts[1..]), (vec![], 2));
    net.pass_ms(LIFETIME_MS - 1);
    assert_eq!(net.discarded(DiscardReason::FragmentTimeout), 0);
    net.pass_ms(1);
    assert_eq!(net.discarded(DiscardReason::FragmentTimeout), 2, "RFC6274-TIMEOUT");
    assert!(net.state.fragments.is_empty());
    assert_eq!(net.state.fragments.held(), Default::default());
    let row = report::enis(&net.tables).into_iter().find(|row| row.eni == WEB.0).unwrap();
    assert_eq!(row.discards[0].packets, 2, "at the ENI that sent them");
    let (left, _) = send_all(&mut net, WEB.1, &parts[..1]);
    assert_eq!(left.len(), 1, "too late for the others, which are gone");
}

#[test]
fn a_decision_is_forgotten_in_time_and_with_nobody_sweeping() {
    let mut net = Fabric::new(lab::tables());
    let parts = fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 4096), 7, 1480);
    send_all(&mut net, WEB.1, &parts[..1]);
    net.now.0 += LIFETIME_MS;
    assert_eq!(send_all(&mut net, WEB.1, &parts[1..]), (vec![], 2), "they wait for another first");
}

#[test]
fn a_push_in_between_leaves_the_rest_of_a_datagram_alone() {
    let mut net = Fabric::new(lab::tables());
    let parts = fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 4096), 7, 1480);
    send_all(&mut net, WEB.1, &parts[..1]);
    net.push(|rows| rows.enis.swap(0, 2));
    assert_eq!(send_all(&mut net, WEB.1, &parts[1..2]).0.len(), 1);
    assert_eq!(net.counted(WEB.0), (0, 2), "counted where it belongs");
    net.push(|rows| {
        rows.links.retain(|row| row.id != INTERNET);
        rows.internet_hosts.clear();
    });
    assert_eq!(send_all(&mut net, WEB.1, &parts[2..]).0.len(), 0, "unless the receiver is gone");
    assert_eq!(net.discarded(DiscardReason::NoSuchAddress), 1);
}

#[test]
fn rfc6274_exact_duplicates_pass() {
    let mut net = Fabric::new(lab::tables());
    let parts = fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 4096), 7, 1480);
    for order in [[0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0], [0, 1, 2, 1, 2, 0]] {
        let sent: Vec<_> = order.iter().map(|at| parts[*at].clone()).collect();
        assert_eq!(send_all(&mut net, WEB.1, &sent).0.len(), 6, "RFC6274-DUPLICATE: {order:?}");
        net.pass_ms(LIFETIME_MS);
    }
    assert!(report::discards(&net.state).is_empty());
}

#[test]
fn an_identification_is_used_again() {
    let mut net = Fabric::new(lab::tables());
    for port in 1..=100_u16 {
        let destination = format!("203.0.113.5:{port}");
        let mut parts =
            fragments(&datagram("10.0.1.10:5000", &destination, 2000 + usize::from(port) * 8), 7, 1480);
        parts.rotate_left(usize::from(port) % 2);
        let (left, _) = send_all(&mut net, WEB.1, &parts);
        assert_udp(&reassembled(&left).unwrap(), "198.51.100.10", HOST, (5000, port));
    }
    assert_eq!(net.state.fragments.len(), 1);
}

#[test]
fn rfc1858_rfc3128_tiny_fragments_are_discarded() {
    let mut net = Fabric::new(lab::tables());
    let syn = craft::tcp_with_options(TcpFacts::SYN, "10.0.1.10:5000", "203.0.113.5:443", &[1; 20]);
    let data = &syn[20..];
    let mut try_one = |start: u16, more, data: &[u8], protocol| {
        net.offer(WEB.1, fragment(protocol, "10.0.1.10", HOST, 9 + data.len() as u16, start, more, data))
            .map(|outcome| outcome.verdict)
    };
    for length in [8, 16, 24, 32] {
        let verdict = try_one(0, true, &data[..length], Protocol::TCP);
        assert_eq!(
            verdict,
            Some(Err(DiscardReason::TinyFragment)),
            "RFC1858-TINY: {length} of a header of 40 bytes"
        );
    }
    assert_eq!(try_one(0, true, data, Protocol::TCP), Some(Ok(INTERNET)), "all 40");
    for start in [1, 2] {
        let verdict = try_one(start, false, &data[8..], Protocol::TCP);
        assert_eq!(verdict, Some(Err(DiscardReason::TinyFragment)), "RFC3128-OFFSET: within the header");
    }
    assert_eq!(try_one(3, false, &data[8..], Protocol::TCP), None, "behind the shortest header");
    assert_eq!(try_one(1, false, &data[8..], Protocol::UDP), None, "UDP's header has 8 bytes");
}

#[test]
fn rfc6274_what_is_no_fragment_of_a_datagram_is_discarded() {
    let mut net = Fabric::new(lab::tables());
    let mut discarded = |start, more, data: &[u8], protocol| {
        let outcome = net.offer(WEB.1, fragment(protocol, "10.0.1.10", HOST, 9, start, more, data)).unwrap();
        assert!(outcome.answers.is_empty());
        outcome.verdict.unwrap_err()
    };
    let udp = Protocol::UDP;
    assert_eq!(
        discarded(8189, false, &[0; 8], udp),
        DiscardReason::OversizedFragment,
        "RFC6274-LENGTH: the ping of death"
    );
    assert_eq!(discarded(8191, false, &[0; 1400], udp), DiscardReason::OversizedFragment);
    assert_eq!(discarded(5, true, &[0; 9], udp), DiscardReason::MalformedFragment, "not a multiple of 8");
    assert_eq!(discarded(5, false, &[], udp), DiscardReason::MalformedFragment, "nothing in it");
    assert_eq!(
        discarded(0, true, &[0, 1, 0, 2, 0, 8, 0, 0], udp),
        DiscardReason::MalformedTransportHeader,
        "a datagram that ends where more follows"
    );
    let error = craft::port_unreachable("10.0.1.10", &datagram("203.0.113.5:1", "10.0.1.10:2", 100));
    assert_eq!(discarded(0, true, &error[20..60], Protocol::ICMP), DiscardReason::MalformedFragment);
    let whole = datagram("10.0.1.10:5000", "203.0.113.5:53", 1000);
    let (partial, offload) = craft::offloaded(fragments(&whole, 1, 800)[0].clone(), Default::default());
    assert_eq!(net.send_offloaded(WEB.1, partial, offload).verdict, Err(DiscardReason::HostileOffload));
    assert!(net.state.fragments.is_empty(), "nothing is remembered of any of them");
}

#[test]
fn rfc5722_an_overlap_ends_the_datagram() {
    let first = fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 4096), 7, 1480)[0].clone();
    let later = |start: u16, more, length| {
        fragment(Protocol::UDP, "10.0.1.10", HOST, 7, start, more, &vec![1; length])
    };
    let attacks = [
        ("by 8 bytes behind", vec![first.clone(), later(184, true, 1480)]),
        ("by 8 bytes before", vec![later(184, true, 1480), first.clone()]),
        ("teardrop: within another", vec![later(200, true, 800), later(210, true, 16), first.clone()]),
        ("around another", vec![later(210, true, 16), later(200, true, 800), first.clone()]),
        ("two ends", vec![later(200, false, 800), later(400, false, 8), first.clone()]),
        ("beyond the end", vec![later(200, false, 800), later(400, true, 8), first.clone()]),
        ("an end before what came", vec![later(400, true, 8), later(200, false, 80), first.clone()]),
        ("a last one that is not", vec![later(200, false, 80), later(200, true, 80), first.clone()]),
        (
            "another first",
            vec![
                first.clone(),
                fragments(&datagram("10.0.1.10:5000", "203.0.113.5:80", 4096), 7, 720)[0].clone(),
            ],
        ),
    ];
    for (name, packets) in attacks {
        let mut net = Fabric::new(lab::tables());
        let (left, held) = send_all(&mut net, WEB.1, &packets);
        let whole = usize::from(packets[0] == first);
        assert_eq!(left.len(), whole, "RFC5722-OVERLAP, {name}: only what came before it");
        assert_eq!(net.discarded(DiscardReason::FragmentOverlap), (packets.len() - whole) as u64, "{name}");
        let after = net.offer(WEB.1, later(1000, true, 8)).unwrap();
        assert_eq!(after.verdict, Err(DiscardReason::FragmentOverlap), "{name}: and what comes later");
        assert_eq!(net.state.fragments.held(), Default::default());
        assert!(held <= 2);
    }
}

#[test]
fn natgw_20_a_later_fragment_without_ttl_ends_without_an_answer() {
    let mut net = Fabric::new(lab::tables());
    let parts = fragments(&datagram("10.0.2.20:5000", "203.0.113.5:53", 2000), 7, 1480);
    net.offer(APP.1, parts[0].clone()).unwrap();
    let out = net.offer(APP.1, craft::with_ttl(parts[1].clone(), 1)).unwrap();
    assert_eq!(out.verdict, Err(DiscardReason::TtlExceeded));
    assert!(out.answers.is_empty(), "RFC 1812 §4.3.2.7: no error about a later fragment");
    let first = net.offer(APP.1, craft::with_ttl(parts[0].clone(), 1)).unwrap();
    assert_eq!(first.verdict, Err(DiscardReason::TtlExceeded));
    assert_eq!(first.answers.len(), 1, "but about a first");
}

#[test]
fn eni_13_an_interface_sends_1024_fragments_in_a_second() {
    let mut net = Fabric::new(lab::tables());
    let refused = Err(DiscardReason::FragmentAllowanceExceeded);
    // Two of each datagram.
    let flood = |net: &mut Fabric, ids: std::ops::Range<u16>| {
        let whole = datagram("10.0.1.10:5000", "203.0.113.5:53", 2000);
        let all = ids.flat_map(|id| fragments(&whole, id, 1480));
        all.filter(|part| net.offer(WEB.1, part.clone()).unwrap().verdict == refused).count()
    };
    assert_eq!(flood(&mut net, 0..512), 0);
    assert_eq!(flood(&mut net, 600..700), 200);
    assert_eq!(net.discarded(DiscardReason::FragmentAllowanceExceeded), 200);
    let row = report::enis(&net.tables).into_iter().find(|row| row.eni == WEB.0).unwrap();
    assert_eq!(row.discards[0].packets, 200, "counted at the interface");
    let whole = net.send(WEB.1, datagram("10.0.1.10:5000", "203.0.113.5:53", 1000));
    assert_eq!(whole.verdict, Ok(INTERNET), "what is no fragment is not concerned");
    let cut = net.send(WEB.1, craft::fragmentable(datagram("10.0.1.10:5000", "203.0.113.5:53", 8000)));
    assert_eq!(cut.fragments.len(), 6, "nor what is cut on its way");
    let db =
        net.offer(DB.1, fragments(&datagram("10.0.2.30:5000", "203.0.113.5:53", 2000), 1, 1480)[0].clone());
    assert_eq!(db.unwrap().verdict, Ok(INTERNET), "nor is another interface");
    let answer = fragments(&datagram("203.0.113.5:53", "198.51.100.10:5000", 2000), 1, 1480);
    assert_ne!(net.offer(INTERNET, answer[0].clone()).unwrap().verdict, refused, "nor what comes in");
    net.pass_ms(500);
    assert_eq!(flood(&mut net, 700..1000), 600 - 512, "half a second is half as many");
    net.push(|rows| rows.enis[0].fragments_per_second = 100_000);
    net.pass_ms(1000);
    assert_eq!(flood(&mut net, 1000..3000), 0, "the limit is configurable");
    net.push(|rows| rows.enis[0].fragments_per_second = 0);
    assert_eq!(flood(&mut net, 3000..3001), 2);
}

#[test]
fn eni_4_a_spoofed_source_has_no_share() {
    let mut net = Fabric::new(lab::tables());
    let spoofed = fragment(Protocol::UDP, "10.0.1.66", HOST, 7, 100, true, &[0; 8]);
    assert_eq!(net.offer(WEB.1, spoofed).unwrap().verdict, Err(DiscardReason::SourceDestCheck));
    assert!(net.state.fragments.is_empty());
}

#[test]
fn rfc4787_14a_a_source_that_floods_loses_its_own() {
    let bounds = Bounds::default();
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.enis[0].fragments_per_second = u32::MAX);
    let other = fragments(&datagram("10.0.2.20:5000", "10.0.1.10:53", 3000), 7, 1480);
    assert!(net.offer(APP.1, other[1].clone()).is_none());
    let mut flood = |ids: std::ops::Range<u16>, length: usize| {
        for id in ids {
            let _ =
                net.offer(WEB.1, fragment(Protocol::UDP, "10.0.1.10", HOST, id, 185, true, &vec![0; length]));
        }
        (net.state.fragments.len(), net.state.fragments.held())
    };
    let (datagrams, held) = flood(0..10_000, 8);
    assert_eq!(datagrams, bounds.datagrams_per_source + 1, "RFC6274-CAPS");
    assert_eq!(held.fragments, bounds.datagrams_per_source + 1);
    let (_, held) = flood(10_000..20_000, 8000);
    assert!(held.bytes <= bounds.held_per_source.bytes + 1500, "{held:?}");
    // One datagram of as many fragments as can be.
    let (_, held) = {
        for start in 8..8000 {
            let _ = net.offer(WEB.1, fragment(Protocol::UDP, "10.0.1.10", HOST, 1, start, true, &[0; 8]));
        }
        (0, net.state.fragments.held())
    };
    assert!(held.fragments <= bounds.held_per_source.fragments + 1, "{held:?}");
    assert!(net.discarded(DiscardReason::FragmentTableFull) > 20_000);
    let (left, _) = send_all(&mut net, APP.1, &[other[0].clone(), other[2].clone()]);
    assert!(left.is_empty(), "app's group admits it, web's does not, but it was not lost in the flood");
    assert_eq!(net.discarded(DiscardReason::SecurityGroup), 3);
    let (left, _) =
        send_all(&mut net, WEB.1, &fragments(&datagram("10.0.1.10:5000", "203.0.113.5:53", 3000), 50, 1480));
    assert_eq!(left.len(), 3, "and the flooder itself still gets datagrams through that come in order");
}

#[test]
fn rfc6274_many_sources_share_one_table() {
    let bounds = Bounds::default();
    let mut net = Fabric::new(lab::tables());
    for number in 0..bounds.datagrams as u32 + 100 {
        let source = std::net::Ipv4Addr::from(0x0100_0000 + number).to_string();
        let _ = net.offer(INTERNET, fragment(Protocol::UDP, &source, "198.51.100.10", 7, 185, true, &[0; 8]));
    }
    assert_eq!(net.state.fragments.len(), bounds.datagrams, "RFC6274-CAPS");
    assert_eq!(net.state.fragments.held().fragments, bounds.held.fragments);
    net.pass_ms(LIFETIME_MS);
    assert!(net.state.fragments.is_empty());
    let counted =
        net.discarded(DiscardReason::FragmentTableFull) + net.discarded(DiscardReason::FragmentTimeout);
    assert_eq!(counted, bounds.datagrams as u64 + 100);
}

/// A datagram, and how its fragments come.
#[derive(Clone, Debug)]
struct Sent {
    flow: usize,
    data: usize,
    room: usize,
    identification: u16,
    /// Where each fragment comes in the whole sequence.
    order: Vec<u32>,
    twice: Vec<bool>,
    /// An extra fragment that overlaps: where it comes, and where it starts.
    overlap: Option<(u32, u16)>,
}

const FLOWS: [(LinkId, &str, &str, LinkId); 3] = [
    (WEB.1, "10.0.1.10:5000", "203.0.113.5:53", INTERNET),
    (APP.1, "10.0.2.20:5000", "203.0.113.5:53", INTERNET),
    (DB.1, "10.0.2.30:5000", "203.0.113.5:53", INTERNET),
];

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let one = (
        0..FLOWS.len(),
        200..6000_usize,
        10..180_usize,
        vec(any::<u32>(), 90),
        vec(any::<bool>(), 90),
        prop::option::weighted(0.3, (any::<u32>(), 1..600_u16)),
    );
    let numbered = |(identification, (flow, data, room, order, twice, overlap))| Sent {
        flow,
        data,
        room: room * 8,
        identification: identification as u16,
        order,
        twice,
        overlap,
    };
    vec(one, 1..6).prop_map(move |all| all.into_iter().enumerate().map(numbered).collect())
}

proptest! {
    #[test]
    fn whatever_the_order_a_datagram_arrives_whole_or_nothing_follows_an_overlap(all in sent()) {
        let mut net = Fabric::new(lab::tables());
        let mut queue = Vec::new();
        let payload = |sent: &Sent| -> Vec<u8> {
            (0..sent.data).map(|at| (at * 13 + usize::from(sent.identification)) as u8).collect()
        };
        for (which, sent) in all.iter().enumerate() {
            let (_, source, destination, _) = FLOWS[sent.flow];
            let whole = udp(source, destination, &payload(sent));
            for (at, part) in fragments(&whole, sent.identification, sent.room).into_iter().enumerate() {
                if sent.twice[at] {
                    queue.push((sent.order[at].wrapping_mul(7), which, part.clone()));
                }
                queue.push((sent.order[at], which, part));
            }
            if let Some((when, start)) = sent.overlap {
                let source = source.split(':').next().unwrap();
                let part = fragment(Protocol::UDP, source, HOST, sent.identification, start, true, &[9; 8]);
                queue.push((when, which, part));
            }
        }
        queue.sort_by_key(|(order, ..)| *order);
        let mut left = vec![Vec::new(); all.len()];
        let mut ended = vec![false; all.len()];
        for (turn, (_, which, part)) in queue.into_iter().enumerate() {
            let (from, .., to) = FLOWS[all[which].flow];
            let Some(outcome) = net.offer_on(turn % 2, from, part, Offload::default()) else { continue };
            ended[which] |= outcome.verdict == Err(DiscardReason::FragmentOverlap);
            let own = outcome.verdict.ok().filter(|_| !outcome.bytes.is_empty()).map(|link| (link, outcome.bytes));
            for (link, bytes) in own.into_iter().chain(outcome.fragments) {
                prop_assert!(link == to && bytes.len() <= 1500);
                prop_assert!(!ended[which], "RFC 5722");
                left[which].push((link, bytes));
            }
        }
        for (sent, left) in all.iter().zip(&left) {
            let parsed = left.iter().map(|(_, bytes)| parse(bytes, Offload::default()).unwrap());
            let firsts = parsed.clone().position(|packet| packet.fragment.is_none_or(|fragment| fragment.is_first()));
            prop_assert!(left.is_empty() || firsts == Some(0), "nothing leaves before the first");
            if sent.overlap.is_none() {
                // A copy of a datagram that was complete has a number of its own behind the NAT gateway.
                let same = |one: &[u8], other: &[u8]| one[6..10] == other[6..10] && one[12..] == other[12..];
                let known = |at: usize, part: &[u8]| left[..at].iter().any(|(_, earlier)| same(earlier, part));
                let once: Vec<_> = left.iter().enumerate().filter(|(at, (_, part))| !known(*at, part)).map(|(_, part)| part.clone()).collect();
                if sent.data + 8 > sent.room {
                    let data = reassembled(&once);
                    prop_assert_eq!(data.as_deref().map(|data| &data[8..]), Some(&payload(sent)[..]));
                }
            }
        }
    }

    #[test]
    fn any_fragments_at_all_are_forwarded_held_or_counted(
        all in vec((0..3_usize, 0..2_u16, 0..40_u16, any::<bool>(), 0..12_usize, prop_oneof![Just(17), Just(6), Just(1), Just(47)]), 0..200),
    ) {
        let mut net = Fabric::new(lab::tables());
        let (mut held, mut refused, mut released, mut answered) = (0, 0, 0, 0);
        for (turn, (flow, identification, start, more, words, protocol)) in all.into_iter().enumerate() {
            let (from, source, ..) = FLOWS[flow];
            let source = source.split(':').next().unwrap();
            // Ports, and a length that a first fragment of UDP may have; for TCP a header of 20 bytes.
            let mut data = vec![0x50; words * 8];
            if let Some(length) = data.get_mut(4..6) {
                length.copy_from_slice(&[0xFF, 0]);
            }
            let part = fragment(Protocol(protocol), source, HOST, identification, start, more || start == 0, &data);
            match net.offer_on(turn % 2, from, part, Offload::default()) {
                None => held += 1,
                Some(outcome) => {
                    refused += u64::from(outcome.verdict.is_err());
                    answered += outcome.answers.len() as u64;
                    released += outcome.fragments.len() as u64;
                }
            }
        }
        net.pass_ms(LIFETIME_MS);
        prop_assert_eq!((net.state.fragments.len(), net.state.fragments.held()), (0, Default::default()));
        let discarded: u64 = report::discards(&net.state).iter().map(|row| row.packets).sum();
        prop_assert_eq!(discarded, refused + held - released);
        prop_assert_eq!(answered, 0, "none of them is TCP without a lease, too big, or out of hops");
    }
}
