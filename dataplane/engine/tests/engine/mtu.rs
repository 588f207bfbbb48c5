//! Packets that are too big for their way: cut where DF is clear, answered where it is set; MSS clamping; how many answers.

use etherparse::SlicedPacket;
use etherparse::defrag::IpDefragPool;
use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::{Kind, Segmentation, TcpFacts, parse};
use localvpc_engine::testing::craft::{self, fragments, tcp, tcp_with_options, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::wire::checksum::Sum;
use localvpc_engine::worker::{ICMP_ERROR_BURST, ICMP_ERRORS_PER_SECOND};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const SERVER: &str = "203.0.113.5:443";

/// Every datagram that fragments make, its header without what fragmentation says, in the order of completion.
fn reassembled(packets: &[(LinkId, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = Vec::new();
    for (_, packet) in packets {
        let sliced = SlicedPacket::from_ip(packet).expect("what leaves is well-formed");
        let done = pool.process_sliced_packet(&sliced, (), ()).expect("fragments that fit each other");
        whole.extend(done.map(|done| done.payload));
    }
    whole
}

fn datagram(source: &str, length: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..length).map(|at| (at * 31 / 7) as u8).collect();
    craft::fragmentable(udp(source, "203.0.113.5:53", &data))
}

/// A segment's TCP checksum is right.
fn assert_tcp(data: &[u8], source: &str, destination: &str) {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let pseudo = Sum::pseudo_header(source, destination, Protocol::TCP, data.len() as u32);
    assert_eq!(pseudo.and(Sum::of(data)).fold(), 0xFFFF, "the TCP checksum");
}

#[test]
fn mtu_3_with_df_clear_a_packet_is_cut_and_reassembles_identical() {
    let mut net = Fabric::new(lab::tables());
    for length in [1473, 1480, 2952, 2953, 8973] {
        let sent = datagram("10.0.1.10:5000", length);
        let out = net.send(WEB.1, sent.clone());
        assert_eq!(out.verdict, Ok(INTERNET), "IGW-12");
        assert!(out.answers.is_empty() && out.bytes.is_empty());
        assert!(out.fragments.iter().all(|(link, bytes)| *link == INTERNET && bytes.len() <= 1500));
        assert_eq!(out.fragments.len(), (length + 8).div_ceil(1480));
        assert!(
            out.fragments.is_sorted_by_key(|(_, bytes)| u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1FFF),
            "RFC4787-13a: in order"
        );
        // The same datagram in fragments that the sender made.
        let by_sender: Vec<_> = fragments(&sent, length as u16, 1480)
            .into_iter()
            .map(|part| {
                let out = net.offer(WEB.1, part).expect("in order");
                (out.verdict.unwrap(), out.bytes)
            })
            .collect();
        let (ours, theirs) = (reassembled(&out.fragments), reassembled(&by_sender));
        assert_eq!(ours, theirs, "{length} bytes");
        assert_eq!(ours[0][8..], sent[28..]);
    }
    let fits = net.send(WEB.1, datagram("10.0.1.10:5000", 1472));
    assert_eq!((fits.bytes.len(), fits.fragments.len()), (1500, 0));
}

#[test]
fn a_datagram_through_the_nat_gateway_is_cut_behind_it() {
    let mut net = Fabric::new(lab::tables());
    // Twice: the second time the flow is known.
    for _ in 0..2 {
        let sent = datagram("10.0.2.20:5000", 8000);
        let out = net.send(APP.1, sent.clone());
        assert_eq!(out.fragments.len(), 8008_usize.div_ceil(1480));
        let whole = &reassembled(&out.fragments)[0];
        assert_eq!(whole[8..], sent[28..]);
        let header = parse(&out.fragments[0].1, Default::default()).unwrap();
        assert_eq!(header.tuple.source, ip("198.51.100.20"));
        let pseudo =
            Sum::pseudo_header([198, 51, 100, 20].into(), [203, 0, 113, 5].into(), Protocol::UDP, 8008);
        assert_eq!(pseudo.and(Sum::of(whole)).fold(), 0xFFFF, "covers the new addresses and port");
        let small = net.send(APP.1, datagram("10.0.2.20:5000", 100));
        assert_eq!((small.verdict, small.fragments.len()), (Ok(INTERNET), 0));
    }
}

#[test]
fn fragments_that_are_too_big_are_cut_again() {
    let mut net = Fabric::new(lab::tables());
    let sent = datagram("10.0.2.20:5000", 20_000);
    let mut parts = fragments(&sent, 7, 8480);
    parts.rotate_left(1);
    let mut left = Vec::new();
    for part in parts {
        if let Some(out) = net.offer(APP.1, part) {
            assert_eq!(out.verdict, Ok(INTERNET));
            left.extend(out.fragments);
        }
    }
    assert!(left.iter().all(|(_, bytes)| bytes.len() <= 1500));
    assert_eq!(reassembled(&left)[0][8..], sent[28..]);
}

#[test]
fn a_later_fragment_that_must_not_be_cut_ends_without_an_answer() {
    let mut net = Fabric::new(lab::tables());
    let mut parts = fragments(&datagram("10.0.1.10:5000", 4000), 7, 2000);
    parts.iter_mut().for_each(|part| part[6] |= 0x40);
    let first = net.offer(WEB.1, craft::seal(parts[0].clone())).unwrap();
    assert_eq!((first.verdict, first.answers.len()), (Err(DiscardReason::TooBig), 1));
    let later = net.offer(WEB.1, craft::seal(parts[1].clone())).unwrap();
    assert_eq!(
        (later.verdict, later.answers.len()),
        (Err(DiscardReason::TooBig), 0),
        "the fate of the first"
    );
}

#[test]
fn super_packets_are_segmented_completed_and_then_cut() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    let facts = TcpFacts { flags: ACK, sequence: 1001, acknowledgement: 1, window: 1000, payload: 30_000 };
    let sent = craft::fragmentable(craft::tcp_segment(facts, "10.0.2.20:51000", SERVER));
    for size in [8000, 8460] {
        let (bytes, offload) = craft::offloaded(sent.clone(), Segmentation::TcpV4 { size });
        let out = net.send_offloaded(APP.1, bytes, offload);
        assert_eq!(out.verdict, Ok(INTERNET), "MTU-3: gso_size decides");
        assert!(out.fragments.iter().all(|(_, bytes)| bytes.len() <= 1500));
        let segments = reassembled(&out.fragments);
        assert_eq!(segments.len(), 4);
        let mut joined = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            assert_tcp(segment, "198.51.100.20", "203.0.113.5");
            let sequence = u32::from_be_bytes(segment[4..8].try_into().unwrap());
            assert_eq!(sequence, 1001 + at as u32 * u32::from(size));
            joined.extend_from_slice(&segment[20..]);
        }
        assert_eq!(joined, sent[40..]);
    }
    let (bytes, offload) = craft::offloaded(sent, Segmentation::TcpV4 { size: 1460 });
    let out = net.send_offloaded(APP.1, bytes, offload);
    assert_eq!((out.bytes.len(), out.fragments.len()), (30_040, 0), "segments that fit stay together");

    let datagram = datagram("10.0.1.10:5000", 6000);
    let (bytes, offload) = craft::offloaded(datagram, Segmentation::Udp { size: 2000 });
    let out = net.send_offloaded(WEB.1, bytes, offload);
    assert_eq!(reassembled(&out.fragments).len(), 3, "three datagrams of two fragments");
    assert_eq!(out.fragments.len(), 6);
}

#[test]
fn natgw_28_mtu_2_what_exceeds_8500_bytes_is_answered_from_the_private_address() {
    let mut net = Fabric::new(lab::tables());
    let sent = udp("10.0.2.20:5000", "203.0.113.5:53", &[0; 8473]);
    let out = net.send(APP.1, sent.clone());
    assert_eq!(out.verdict, Err(DiscardReason::TooBig), "8501 bytes");
    let [(link, error)] = out.answers.as_slice() else { panic!("one answer") };
    assert_eq!((*link, &error[20..22], &error[26..28]), (APP.1, &[3, 4][..], &8500_u16.to_be_bytes()[..]));
    assert_eq!(&error[12..16], &[10, 0, 1, 100], "NATGW-20's address");
    assert_eq!(&error[28..48], &sent[..20], "the quote is what app sent");
    assert_eq!(net.state.leases.len(), 0);
    let fits = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", &[0; 8472]));
    assert_eq!(&fits.answers[0].1[26..28], &1500_u16.to_be_bytes(), "then the internet's turn: IGW-12");
    assert_eq!(report_dropped(&net), 1, "the gateway counts the first alone");
    let cut = net.send(APP.1, craft::fragmentable(sent));
    assert_eq!((cut.verdict, cut.fragments.len()), (Ok(INTERNET), 8481_usize.div_ceil(1480)));
}

#[test]
fn mtu_3_super_packets_learn_the_mtu_of_their_segments() {
    for (link, source, mtu, of) in
        [(WEB.1, "10.0.1.10:51000", 1500, "10.0.1.1"), (APP.1, "10.0.2.20:51000", 8500, "10.0.1.100")]
    {
        let mut net = Fabric::new(lab::tables());
        let syn = net.send(link, tcp(SYN, source, SERVER)).tuple();
        let seen = format!("{}:{}", syn.source, syn.source_port);
        assert_eq!(net.send(INTERNET, tcp(SYN_ACK, SERVER, seen.as_str())).verdict, Ok(link));
        assert_eq!(net.send(link, tcp(ACK, source, SERVER)).verdict, Ok(INTERNET));
        let facts =
            TcpFacts { flags: ACK, sequence: 1001, acknowledgement: 1001, window: 1000, payload: 40_000 };
        let data = craft::tcp_segment(facts, source, SERVER);
        let mut send = |size: u16| {
            let (bytes, offload) = craft::offloaded(data.clone(), Segmentation::TcpV4 { size });
            net.send_offloaded(link, bytes, offload)
        };
        // 40 bytes of headers: as much as fits, and a byte more. Twice, as flow caches know what fits.
        for _ in 0..2 {
            let big = send(8961);
            assert_eq!(big.verdict, Err(DiscardReason::TooBig), "MTU-3");
            let [(to, error)] = big.answers.as_slice() else { panic!("one answer, not {:?}", big.answers) };
            assert_eq!(
                (*to, &error[20..22], &error[26..28]),
                (link, &[3, 4][..], &u16::to_be_bytes(mtu)[..])
            );
            let router: std::net::Ipv4Addr = of.parse().unwrap();
            assert_eq!(&error[12..16], &router.octets());
            let Kind::IcmpError(about) = parse(error, Default::default()).unwrap().kind else {
                panic!("an error")
            };
            assert_eq!(
                about.tuple,
                craft::tuple(Protocol::TCP, source, SERVER),
                "the quote is the sender's own"
            );
            assert_eq!(send(1461).verdict, Err(DiscardReason::TooBig));
            let fits = send(1460);
            assert_eq!((fits.verdict, fits.bytes.len()), (Ok(INTERNET), 40_040), "unsplit");
        }
    }
}

#[test]
fn walk_13_path_mtu_discovery_step_by_step() {
    // A host that halves nothing: it sends what it was told to send, until it gets through.
    let mut net = Fabric::new(lab::tables());
    let mut told = Vec::new();
    let mut mtu = 9001;
    let arrived = loop {
        let data = vec![0; mtu - 28];
        let out = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", &data));
        let Some((_, error)) = out.answers.first() else { break out };
        mtu = u16::from_be_bytes([error[26], error[27]]).into();
        told.push(mtu);
    };
    assert_eq!((arrived.verdict, told), (Ok(INTERNET), vec![8500, 1500]), "NATGW-28, then IGW-12");
}

fn report_dropped(net: &Fabric) -> u64 {
    localvpc_engine::report::nat_gateways(&net.tables, &net.state, net.now)[0].packets_dropped
}

#[test]
fn natgw_28_mtu_4_the_mss_is_clamped_on_syn_and_syn_ack_at_the_nat_gateway_only() {
    let mss = |bytes: &[u8]| {
        let packet = parse(bytes, Default::default()).unwrap();
        assert!(matches!(packet.kind, Kind::Tcp(_)));
        let address = |at: usize| {
            let octets: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
            std::net::Ipv4Addr::from(octets).to_string()
        };
        assert_tcp(&bytes[20..], &address(12), &address(16));
        u16::from_be_bytes([bytes[42], bytes[43]])
    };
    let jumbo = [2, 4, 0x23, 0x01]; // 8961
    let small = [2, 4, 0x05, 0xB4]; // 1460
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp_with_options(SYN, "10.0.2.20:51000", SERVER, &jumbo));
    assert_eq!(mss(&syn.bytes), 8460, "out: 8500 less two headers");
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    let back = net.send(INTERNET, tcp_with_options(SYN_ACK, SERVER, eip.as_str(), &jumbo));
    assert_eq!(mss(&back.bytes), 8460, "and back");
    let again = net.send(INTERNET, tcp_with_options(SYN_ACK, SERVER, eip.as_str(), &small));
    assert_eq!(mss(&again.bytes), 1460, "never raised");
    let web = net.send(WEB.1, tcp_with_options(SYN, "10.0.1.10:51000", SERVER, &jumbo));
    assert_eq!(mss(&web.bytes), 8961, "an internet gateway leaves it alone");
    let db = net.send(APP.1, tcp_with_options(SYN, "10.0.2.20:51000", "10.0.2.30:5432", &jumbo));
    assert_eq!(mss(&db.bytes), 8961, "MTU-1");
}

#[test]
fn rfc1812_icmp_errors_are_limited_and_counted_when_suppressed() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    let eip = format!("198.51.100.20:{}", syn.tuple().source_port);
    net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER));
    net.now.0 += 350_000;
    let big = || udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 2000]);
    let answers = |net: &mut Fabric, tries: u64| {
        (0..tries).map(|_| net.send_on(0, WEB.1, big(), Default::default()).answers.len() as u64).sum::<u64>()
    };
    assert_eq!(answers(&mut net, ICMP_ERROR_BURST + 50), ICMP_ERROR_BURST);
    assert_eq!(net.discarded(DiscardReason::IcmpErrorRate), 50, "RFC1812-RATE");
    assert_eq!(net.discarded(DiscardReason::TooBig), ICMP_ERROR_BURST + 50, "the packets themselves as ever");
    net.now.0 += 10;
    assert_eq!(answers(&mut net, 50), ICMP_ERRORS_PER_SECOND / 100);
    assert_eq!(net.send_on(1, WEB.1, big(), Default::default()).answers.len(), 1, "each worker has a bucket");
    // A reset is no ICMP error.
    let reset = net.send_on(0, APP.1, tcp(ACK, "10.0.2.20:51000", SERVER), Default::default());
    assert_eq!(reset.answers.len(), 1, "NATGW-22");
}
