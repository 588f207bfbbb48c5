//! What RFCs ask of NATs and routers, line by line, on memory. Ids are those of facts.toml.

use localvpc_api::DiscardReason;
use localvpc_api::trace::Protocol;
use localvpc_engine::packet::{self, Echo, Kind, Packet, TcpFacts};
use localvpc_engine::testing::craft::{self, ping, tcp, tcp_segment, tuple, udp};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::wire::checksum;
use localvpc_engine::{Limits, Worker, report};

const SYN: u8 = TcpFacts::SYN;
const ACK: u8 = TcpFacts::ACK;
const DNS: &str = "203.0.113.5:53";
const SERVER: &str = "203.0.113.5:443";

fn lab_net() -> Fabric {
    Fabric::new(lab::tables())
}

fn parsed(bytes: &[u8]) -> Packet {
    packet::parse(bytes, Default::default()).expect("what leaves is well-formed")
}

fn ask(net: &mut Fabric) -> Outcome {
    net.send(APP.1, udp("10.0.2.20:5000", DNS, b"?"))
}

fn answer(net: &mut Fabric, asked: &Outcome) -> Outcome {
    let to = asked.tuple();
    net.send(INTERNET, udp(DNS, format!("{}:{}", to.source, to.source_port).as_str(), b"!"))
}

fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> TcpFacts {
    TcpFacts { flags, sequence, acknowledgement, window: 64_240, payload }
}

/// app and the server shake hands; where the server sees app.
fn connected(net: &mut Fabric) -> String {
    let syn = net.send(APP.1, tcp_segment(segment(SYN, 100, 0, 0), "10.0.2.20:51000", SERVER)).tuple();
    let mapped = format!("{}:{}", syn.source, syn.source_port);
    let syn_ack = tcp_segment(segment(SYN | ACK, 500, 101, 0), SERVER, mapped.as_str());
    assert_eq!(net.send(INTERNET, syn_ack).verdict, Ok(APP.1));
    let ack = tcp_segment(segment(ACK, 101, 501, 0), "10.0.2.20:51000", SERVER);
    assert_eq!(net.send(APP.1, ack).verdict, Ok(INTERNET));
    mapped
}

/// The same packet with the byte at `at` changed and, if asked for, its ICMP checksum made right again.
fn damaged(mut bytes: Vec<u8>, at: usize, icmp_checksum_follows: bool) -> Vec<u8> {
    bytes[at] ^= 0x55;
    if icmp_checksum_follows {
        bytes[22..24].fill(0);
        let sum = checksum::Sum::of(&bytes[20..]).checksum();
        bytes[22..24].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

#[test]
fn rfc4787_10_payloads_are_not_looked_into() {
    let mut net = lab_net();
    // What an FTP or SIP gateway would rewrite.
    let said = b"PORT 10,0,2,20,19,136\r\nVia: SIP/2.0/UDP 10.0.2.20:5000\r\n";
    for port in [21, 5060] {
        let out = net.send(APP.1, udp("10.0.2.20:5000", format!("203.0.113.5:{port}").as_str(), said));
        assert_eq!(&out.bytes[28..], said, "RFC4787-10, RFC5382-6");
    }
}

#[test]
fn rfc4787_12_icmp_errors_end_no_mapping() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    for kind in 0..=3 {
        // RFC4787-12a: from a router on the way, not only from the far end.
        let error = match kind {
            0 => craft::port_unreachable("198.18.0.1", &asked.bytes),
            1 => craft::fragmentation_needed("198.18.0.1", 1280, &asked.bytes),
            2 => craft::icmp_message(3, 1, [0; 4], "198.18.0.1", "198.51.100.20", &asked.bytes[..28]),
            _ => craft::icmp_message(11, 0, [0; 4], "198.18.0.1", "198.51.100.20", &asked.bytes[..28]),
        };
        assert_eq!(net.send(INTERNET, error).verdict, Ok(APP.1), "RFC4787-12b: kind {kind}");
    }
    assert_eq!(answer(&mut net, &asked).verdict, Ok(APP.1), "RFC4787-12: it is still there");
}

#[test]
fn rfc4787_13_what_must_not_be_fragmented_is_answered() {
    let mut net = lab_net();
    let out = net.send(APP.1, udp("10.0.2.20:5000", DNS, &[0; 1473]));
    let [(link, error)] = out.answers.as_slice() else { panic!("one answer, not {:?}", out.answers) };
    assert_eq!((*link, error[20], error[21]), (APP.1, 3, 4), "RFC4787-13, RFC1812-DF");
    assert_eq!(u16::from_be_bytes([error[26], error[27]]), 1500);
    assert!(error.len() <= 576, "RFC1812-QUOTE: {} bytes", error.len());
}

#[test]
fn rfc5382_2_simultaneous_open() {
    let mut net = lab_net();
    let syn = net.send(APP.1, tcp_segment(segment(SYN, 100, 0, 0), "10.0.2.20:51000", SERVER)).tuple();
    let mapped = format!("{}:{}", syn.source, syn.source_port);
    let theirs = net.send(INTERNET, tcp_segment(segment(SYN, 500, 0, 0), SERVER, mapped.as_str()));
    assert_eq!(theirs.verdict, Ok(APP.1), "RFC5382-2: the SYNs cross");
    let ours = net.send(APP.1, tcp_segment(segment(SYN | ACK, 100, 501, 0), "10.0.2.20:51000", SERVER));
    assert_eq!(ours.tuple(), syn);
    let theirs = tcp_segment(segment(SYN | ACK, 500, 101, 0), SERVER, mapped.as_str());
    assert_eq!(net.send(INTERNET, theirs).verdict, Ok(APP.1));
    let data = net.send(APP.1, tcp_segment(segment(ACK, 101, 501, 10), "10.0.2.20:51000", SERVER));
    assert_eq!(data.tuple(), syn);
}

#[test]
fn rfc5382_5_an_established_connection_may_be_silent_for_350_s() {
    let mut net = lab_net();
    let mapped = connected(&mut net);
    net.pass_ms(349_999);
    let data = tcp_segment(segment(ACK, 501, 101, 10), SERVER, mapped.as_str());
    assert_eq!(net.send(INTERNET, data.clone()).verdict, Ok(APP.1), "RFC5382-5");
    net.pass_ms(350_000);
    assert_eq!(net.send(INTERNET, data).verdict, Err(DiscardReason::NatNoConnection), "not for two hours");
}

#[test]
fn rfc5382_9_rfc5382_10_icmp_errors_about_tcp() {
    let mut net = lab_net();
    let mapped = connected(&mut net);
    let sent = net.send(APP.1, tcp_segment(segment(ACK, 101, 501, 1000), "10.0.2.20:51000", SERVER));
    let error = net.send(INTERNET, craft::fragmentation_needed("198.18.0.1", 1000, &sent.bytes));
    assert_eq!(error.verdict, Ok(APP.1));
    let Kind::IcmpError(about) = parsed(&error.bytes).kind else { panic!("an error") };
    assert_eq!(about.tuple, tuple(Protocol::TCP, "10.0.2.20:51000", SERVER), "RFC5382-9");
    net.send(INTERNET, craft::port_unreachable("203.0.113.5", &sent.bytes));
    let data = tcp_segment(segment(ACK, 501, 101, 10), SERVER, mapped.as_str());
    assert_eq!(net.send(INTERNET, data).verdict, Ok(APP.1), "RFC5382-10");
}

#[test]
fn rfc5508_1_rfc5508_1a_pings_of_two_instances_are_told_apart() {
    let mut net = lab_net();
    let outs = [(APP, "10.0.2.20"), (DB, "10.0.2.30")]
        .map(|((_, link), source)| (link, net.send(link, ping(Echo::Request, source, "203.0.113.5", 77, 1))));
    let identifiers = outs.clone().map(|(_, out)| out.tuple().source_port);
    assert_ne!(identifiers[0], identifiers[1], "RFC5508-1a");
    for ((link, _), identifier) in outs.into_iter().zip(identifiers) {
        let reply = net.send(INTERNET, ping(Echo::Reply, "203.0.113.5", "198.51.100.20", identifier, 1));
        assert_eq!((reply.verdict, reply.tuple().source_port), (Ok(link), 77), "RFC5508-1");
    }
}

#[test]
fn rfc5508_3_what_is_damaged_and_what_is_not_looked_at() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    let error = craft::port_unreachable("203.0.113.5", &asked.bytes);
    let wrong = damaged(error.clone(), 24, false);
    assert_eq!(net.send(INTERNET, wrong).verdict, Err(DiscardReason::WrongIcmpChecksum), "RFC5508-3");
    // The quoted TTL, so that the quoted header's own checksum is wrong.
    let quoted_header = damaged(error.clone(), 28 + 8, true);
    assert!(net.send(INTERNET, quoted_header).verdict.is_err(), "RFC5508-3a");
    // The quoted UDP checksum.
    let quoted_checksum = damaged(error, 28 + 20 + 6, true);
    assert_eq!(net.send(INTERNET, quoted_checksum).verdict, Ok(APP.1), "RFC5508-3c");
}

#[test]
fn rfc5508_3b_quoted_options_are_skipped_and_3d_extensions_carried() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    let mut with_options = asked.bytes[..20].to_vec();
    with_options[0] = 0x46;
    with_options.extend([1; 4]);
    with_options.extend(&asked.bytes[20..]);
    with_options[10..12].fill(0);
    let sum = checksum::Sum::of(&with_options[..24]).checksum();
    with_options[10..12].copy_from_slice(&sum.to_be_bytes());
    let error = craft::icmp_message(3, 3, [0; 4], "203.0.113.5", "198.51.100.20", &with_options);
    let out = net.send(INTERNET, error);
    assert_eq!(out.verdict, Ok(APP.1), "RFC5508-3b");
    let Kind::IcmpError(about) = parsed(&out.bytes).kind else { panic!("an error") };
    assert_eq!(about.tuple, tuple(Protocol::UDP, "10.0.2.20:5000", DNS));
    // RFC 4884: the quotation padded to 128 bytes, its length in words in the header, an MPLS extension behind it.
    let mut quotation = asked.bytes.clone();
    quotation.resize(128, 0);
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3];
    quotation.extend(extension);
    let error = craft::icmp_message(11, 0, [0, 32, 0, 0], "198.18.0.1", "198.51.100.20", &quotation);
    let out = net.send(INTERNET, error);
    assert_eq!(out.verdict, Ok(APP.1));
    assert!(out.bytes.ends_with(&extension), "RFC5508-3d: carried as it is");
    assert!(checksum::verify(&out.bytes[20..]));
}

#[test]
fn rfc5508_8_no_room_is_silence() {
    let limits = Limits { connections: 10, leases: 1 };
    let mut net = Fabric::with_workers(lab::tables(), vec![Worker::new(0, 1)], limits);
    let first = ask(&mut net);
    let second = net.send(APP.1, udp("10.0.2.20:5001", DNS, b"?"));
    assert_eq!(second.verdict, Err(DiscardReason::LeaseTableFull));
    assert!(second.answers.is_empty(), "RFC5508-8, RFC6888-11: no 3/13, as NATGW-15 says nothing of one");
    assert_eq!(answer(&mut net, &first).verdict, Ok(APP.1), "and nothing was taken from others");
}

#[test]
fn rfc5508_9_to_11_which_messages_pass_the_nat_gateway() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    let exceeded = craft::icmp_message(11, 0, [0; 4], "198.18.0.1", "198.51.100.20", &asked.bytes);
    let out = net.send(INTERNET, exceeded);
    assert_eq!((out.verdict, out.bytes[20]), (Ok(APP.1), 11), "RFC5508-10");
    assert_eq!(parsed(&out.bytes).tuple.source, ip("198.18.0.1"), "the hop's own address");
    let stamp = craft::icmp_message(13, 0, [0; 4], "10.0.2.20", "203.0.113.5", &[0; 12]);
    assert_eq!(net.send(APP.1, stamp).verdict, Err(DiscardReason::NatProtocol), "RFC5508-11");
}

#[test]
fn rfc7857_an_error_sent_in_answer_refreshes_nothing() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    let arrived = answer(&mut net, &asked);
    net.pass_ms(20_000);
    let idle = |net: &Fabric| report::leases(&net.state, net.now)[0].idle_ms;
    assert_eq!(idle(&net), 20_000);
    let error = net.send(APP.1, craft::port_unreachable("10.0.2.20", &arrived.bytes));
    assert_eq!(error.verdict, Ok(INTERNET));
    assert_eq!(idle(&net), 20_000, "RFC7857-ERRORS");
    let inward = net.send(INTERNET, craft::port_unreachable("203.0.113.5", &asked.bytes));
    assert_eq!(inward.verdict, Ok(APP.1));
    assert_eq!(idle(&net), 20_000, "RFC5508-6");
}

#[test]
fn rfc7857_identifications_are_the_gateways_own_where_they_count() {
    // RFC7857-IP-ID. The number of a packet as it left, whose header checksum is right.
    let number = |bytes: &[u8]| {
        assert!(checksum::verify(&bytes[..20]));
        u16::from_be_bytes([bytes[4], bytes[5]])
    };
    let with = |identification: u16, packet: Vec<u8>| {
        let mut packet = craft::fragmentable(packet);
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        craft::seal(packet)
    };
    let mut net = lab_net();
    let mut seen = std::collections::HashSet::new();
    // Two instances count alike, and their flows are known from the second packet on.
    for n in 0..50 {
        for (link, source) in [(APP.1, "10.0.2.20:5000"), (DB.1, "10.0.2.30:5000")] {
            let out = net.send(link, with(n, udp(source, DNS, b"?")));
            assert!(seen.insert(number(&out.bytes)), "twice");
        }
    }
    // Fragments of one datagram have one number, in whatever order they come, a copy of the first included.
    let large = udp("10.0.2.20:5000", DNS, &[7; 4000]);
    let parts = craft::fragments(&large, 9, 1480);
    let mut left = Vec::new();
    for at in [1, 0, 0, 2] {
        let Some(out) = net.offer(APP.1, parts[at].clone()) else { continue };
        left.push(number(&out.bytes));
        left.extend(out.fragments.iter().map(|(_, bytes)| number(bytes)));
    }
    assert!(left.len() == 4 && left.iter().all(|one| *one == left[0]), "{left:?}");
    assert!(seen.insert(left[0]));
    // What is cut behind the gateway, too; and each datagram of a super-packet gets its own.
    let cut = net.send(APP.1, with(3, large));
    assert!(cut.fragments.iter().all(|(_, bytes)| number(bytes) == number(&cut.fragments[0].1)));
    assert!(seen.insert(number(&cut.fragments[0].1)));
    let (bytes, offload) = craft::offloaded(
        with(4, udp("10.0.2.20:5000", DNS, &[7; 3000])),
        packet::Segmentation::Udp { size: 1000 },
    );
    let three = number(&net.send_offloaded(APP.1, bytes, offload).bytes);
    assert!((0..3).all(|n| seen.insert(three.wrapping_add(n))));
    let next = net.send(APP.1, with(5, udp("10.0.2.20:5000", DNS, b"?")));
    assert_eq!(number(&next.bytes), three.wrapping_add(3));
    // What cannot be fragmented keeps its number, what comes in and what passes no NAT gateway as well.
    let atomic = |link, packet: Vec<u8>, net: &mut Fabric| number(&net.send(link, packet).bytes);
    let mut df = udp("10.0.2.20:5000", DNS, b"?");
    df[4..6].copy_from_slice(&[0xBE, 0xEF]);
    assert_eq!(atomic(APP.1, craft::seal(df), &mut net), 0xBEEF, "RFC 6864 §4.1");
    assert_eq!(atomic(WEB.1, with(0xBEEF, udp("10.0.1.10:5000", DNS, b"?")), &mut net), 0xBEEF);
    let back = format!("198.51.100.20:{}", next.tuple().source_port);
    assert_eq!(atomic(INTERNET, with(0xBEEF, udp(DNS, back.as_str(), b"!")), &mut net), 0xBEEF);
}

#[test]
fn rfc6888_6_a_route_leads_past_the_nat_gateway() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.route_tables[1].routes.push(localvpc_api::tables::Route {
            destination: "203.0.113.5/32".parse().unwrap(),
            target: localvpc_api::tables::RouteTarget::InternetGateway(IGW),
        });
        rows.public_addresses.push(public("198.51.100.21", "10.0.2.20"));
    });
    assert_eq!(ask(&mut net).tuple().source, ip("198.51.100.21"), "RFC6888-6");
    assert!(net.state.leases.is_empty());
}

#[test]
fn rfc6888_14_a_port_that_is_free_is_found() {
    let mut net = lab_net();
    for port in 1..=55_000_u16 {
        let out = net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), DNS, b""));
        assert_eq!(out.verdict, Ok(INTERNET), "RFC6888-14: the {port}th");
    }
    let one_more = net.send(APP.1, udp("10.0.2.20:60000", DNS, b""));
    assert_eq!(one_more.verdict, Err(DiscardReason::NatPortsExhausted));
    assert!(one_more.answers.is_empty());
    assert_eq!(net.state.leases.len(), 55_000, "RFC6888-11D: nobody lost one");
}

#[test]
fn rfc1812_wrong_headers_are_dropped_counted_and_never_repaired() {
    let mut net = lab_net();
    let good = udp("10.0.2.20:5000", DNS, b"data");
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        craft::seal(bytes)
    };
    for (bytes, reason) in [
        (changed(0, 0x65), DiscardReason::NotIpv4),
        (changed(0, 0x44), DiscardReason::MalformedIpHeader),
        (changed(3, 19), DiscardReason::MalformedIpHeader),
        (changed(3, 33), DiscardReason::Truncated),
        (damaged(good.clone(), 8, false), DiscardReason::WrongIpChecksum),
    ] {
        let out = net.send(APP.1, bytes);
        assert_eq!(out.verdict, Err(reason), "RFC1812-HEADER");
        assert!(out.answers.is_empty());
        assert!(net.discarded(reason) > 0);
    }
}

#[test]
fn rfc1812_options_are_not_carried() {
    let mut net = lab_net();
    let good = udp("10.0.2.20:5000", "10.0.2.30:53", b"data");
    // Loose source routing, strict source routing, record route, nothing but padding.
    for option in [131_u8, 137, 7, 1] {
        let mut bytes = good[..20].to_vec();
        bytes[0] = 0x47;
        bytes[3] += 8;
        bytes.extend(if option == 1 { [1; 8] } else { [option, 7, 4, 10, 0, 1, 10, 0] });
        bytes.extend(&good[20..]);
        let out = net.send(APP.1, craft::seal(bytes));
        assert_eq!(out.verdict, Err(DiscardReason::IpOptions), "RFC1812-OPTIONS: {option}");
        assert!(out.answers.is_empty());
    }
}

#[test]
fn rfc1812_no_error_about_an_error() {
    let mut net = lab_net();
    let out = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "203.0.113.5", 7, 1));
    let reply = ping(Echo::Reply, "203.0.113.5", "198.51.100.20", out.tuple().source_port, 1);
    let reply = net.send(INTERNET, reply);
    // app complains about the reply, with TTL 1, and the complaint dies at the NAT gateway.
    let complaint = craft::with_ttl(craft::port_unreachable("10.0.2.20", &reply.bytes), 1);
    let out = net.send(APP.1, complaint);
    assert_eq!(out.verdict, Err(DiscardReason::TtlExceeded));
    assert!(out.answers.is_empty(), "RFC1812-NO-ERROR");
    let expired = net.send(APP.1, craft::with_ttl(udp("10.0.2.20:5000", DNS, b""), 1));
    let [(_, error)] = expired.answers.as_slice() else { panic!("one answer") };
    assert_eq!(parsed(error).tuple.source, ip("10.0.1.100"), "RFC1812-SOURCE");
    assert_eq!(&error[28..48], &craft::with_ttl(udp("10.0.2.20:5000", DNS, b""), 1)[..20], "RFC1812-QUOTE");
}

#[test]
fn rfc1812_checksums_stay_right_on_every_way() {
    let mut net = lab_net();
    let asked = ask(&mut net);
    let answered = answer(&mut net, &asked);
    let tcp_out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    let ping_out = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "203.0.113.5", 77, 1));
    for out in [asked, answered, tcp_out, ping_out] {
        let bytes = &out.bytes;
        assert!(checksum::verify(&bytes[..20]), "RFC1812-CHECKSUM");
        let mut pseudo = Vec::new();
        if bytes[9] != 1 {
            pseudo.extend(&bytes[12..20]);
            pseudo.extend([0, bytes[9]]);
            pseudo.extend(((bytes.len() - 20) as u16).to_be_bytes());
        }
        pseudo.extend(&bytes[20..]);
        assert!(checksum::verify(&pseudo), "protocol {}", bytes[9]);
    }
}
