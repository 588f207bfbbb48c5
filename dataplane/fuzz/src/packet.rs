//! Any packet with any offload: what the parser says of it is so, and what it accepts can be rewritten there and back.
//!
//! - A packet is refused, or its facts lie within its bytes and agree with etherparse's.
//! - The usual packets are parsed at once, and with the same outcome as header by header.
//! - What the flow cache reads of a packet ([`Brief`]) exists only of what the parser takes, and says the same.
//! - What lies behind the packet, as padding, changes nothing.
//! - A rewrite gives the tuple that was asked for, keeps data and damage, and can be undone.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use localvpc_api::trace::{Protocol, Tuple};
use localvpc_engine::packet::{Brief, Checksum, Kind, Packet, brief, parse, parse_by_headers};
use localvpc_engine::pipeline::rewrite::Rewrite;

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: an offload, how the packet is made, the packet.
pub fn packet(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let offload = traffic::offload(input)?;
    let bytes = match input.byte()? & 3 {
        0 => input.rest().to_vec(),
        1 => traffic::any(input)?,
        2 => traffic::honest(input, "10.0.2.20:5000", "203.0.113.5:443")?,
        _ => {
            let packet = traffic::honest(input, "10.0.2.20:5000", "203.0.113.5:443")?;
            traffic::damaged(input, packet)?
        }
    };
    let parsed = parse(&bytes, offload);
    assert_eq!(parsed, parse_by_headers(&bytes, offload));
    let of_parsed = parsed.as_ref().ok().and_then(Brief::of);
    assert_eq!(brief(&bytes, offload), of_parsed.filter(Brief::is_in_mid_stream));
    let padded = [&bytes[..], &[0xEE; 3]].concat();
    if let Ok(packet) = parsed {
        assert_eq!(parse(&padded, offload), parsed);
        within(&packet, &bytes);
        let whole = &bytes[..packet.length as usize];
        assert_eq!(parse(whole, offload), parsed);
        agrees(&packet, whole);
        if !matches!(packet.kind, Kind::IcmpError(_)) {
            there_and_back(&packet, whole);
        }
    }
    Some(())
}

fn within(packet: &Packet, bytes: &[u8]) {
    let length = packet.length as usize;
    assert!(usize::from(packet.transport) <= length && length <= bytes.len());
    assert!(packet.segments >= 1);
    assert!(u32::from(packet.segment_length) <= packet.length);
    assert_eq!(packet.segments == 1, u32::from(packet.segment_length) == packet.length);
    if let Kind::Tcp(facts) = packet.kind {
        assert!(u32::from(packet.transport) + 20 + facts.payload <= packet.length);
    }
    if let Checksum::Partial { start, offset } = packet.checksum {
        assert!(usize::from(start + offset) + 2 <= length);
    }
    if let Kind::IcmpError(about) = packet.kind {
        assert!(usize::from(about.offset) + 20 <= usize::from(about.transport));
        assert!(usize::from(about.transport) <= length);
    }
    if let Some(fragment) = packet.fragment {
        assert!(fragment.start < fragment.end && fragment.start.is_multiple_of(8));
        assert!(usize::from(fragment.end - fragment.start) + 20 == length);
    }
}

fn agrees(packet: &Packet, bytes: &[u8]) {
    let sliced = LaxSlicedPacket::from_ip(bytes).expect("etherparse takes what we take");
    let Some(LaxNetSlice::Ipv4(ip)) = sliced.net else { panic!("not IPv4") };
    let header = ip.header();
    assert_eq!(packet.tuple.source, std::net::IpAddr::from(header.source_addr()));
    assert_eq!(packet.tuple.destination, std::net::IpAddr::from(header.destination_addr()));
    assert_eq!(packet.tuple.protocol.0, header.protocol().0);
    assert_eq!((packet.ttl, packet.dont_fragment), (header.ttl(), header.dont_fragment()));
    assert_eq!(packet.fragment.is_some(), header.is_fragmenting_payload());
    if packet.fragment.is_some() {
        return;
    }
    let ports = (packet.tuple.source_port, packet.tuple.destination_port);
    match (&packet.kind, sliced.transport) {
        (Kind::Tcp(facts), Some(TransportSlice::Tcp(tcp))) => {
            assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
            assert_eq!(
                (facts.sequence, facts.acknowledgement),
                (tcp.sequence_number(), tcp.acknowledgment_number())
            );
            assert_eq!((facts.window, facts.payload as usize), (tcp.window_size(), tcp.payload().len()));
        }
        (Kind::Udp, Some(TransportSlice::Udp(udp))) => {
            assert_eq!(ports, (udp.source_port(), udp.destination_port()));
        }
        (Kind::IcmpEcho(_), Some(TransportSlice::Icmpv4(icmp))) => {
            assert_eq!(ports.0.to_be_bytes(), icmp.bytes5to8()[..2]);
            assert_eq!(ports.0, ports.1);
        }
        (Kind::IcmpError(_) | Kind::IcmpOther, Some(TransportSlice::Icmpv4(icmp))) => {
            assert_eq!(ports, (icmp.type_u8().into(), icmp.code_u8().into()));
        }
        // etherparse refuses timestamps of another length than theirs.
        (Kind::IcmpOther, None) => {}
        // etherparse knows more protocols.
        (Kind::Other, _) => assert_eq!(ports, (0, 0)),
        (kind, transport) => panic!("{kind:?} is {transport:?} to etherparse"),
    }
}

fn there_and_back(packet: &Packet, before: &[u8]) {
    let source = [192, 0, 2, 77].into();
    let mut to = Tuple { source, ..packet.tuple };
    match packet.kind {
        Kind::Tcp(_) | Kind::Udp => to.source_port ^= 0x5A5A,
        Kind::IcmpEcho(_) => {
            to.source_port ^= 0x5A5A;
            to.destination_port = to.source_port;
        }
        _ => {}
    }
    let error = |bytes: &[u8]| match packet.checksum {
        Checksum::Complete => sums::error(bytes),
        Checksum::Partial { start, offset } => Some(sums::partial_error(bytes, (start + offset).into())),
    };
    let mut after = before.to_vec();
    Rewrite::new(packet.tuple, to, 0).apply(&mut after, packet);
    let offload = localvpc_engine::packet::Offload { checksum: packet.checksum, ..Default::default() };
    let parsed = parse(&after, offload).expect("what was parsed can be parsed again");
    assert_eq!((parsed.tuple, parsed.kind), (to, packet.kind));
    sums::assert_right_header(&after);
    if packet.kind != Kind::LaterFragment && packet.kind != Kind::IcmpOther {
        assert_eq!(error(&after), error(before), "a packet as damaged as it was");
    }
    let headers = match packet.tuple.protocol {
        _ if packet.kind == Kind::LaterFragment => 20,
        Protocol::TCP => 40,
        Protocol::UDP | Protocol::ICMP => 28,
        _ => 20,
    };
    assert_eq!(after[headers..], before[headers..], "data is carried as it is");
    Rewrite::new(to, packet.tuple, 0).apply(&mut after, &parsed);
    // Both zeros of a checksum are the same, and one of them comes back.
    assert_eq!(parse(&after, offload).map(|packet| packet.tuple), Ok(packet.tuple));
    assert_eq!(error(&after), error(before));
}
