//! Makes the packets that the dataplane itself sends: ICMP errors and TCP resets.
//!
//! An answer is a packet of its own: it is parsed and walked like any other,
//! from the component that made it. Its checksums are complete.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::trace::Protocol;
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use crate::packet::{Kind, Packet, TcpFacts};
use crate::wire::checksum::Sum;
use crate::wire::{Icmp, Ipv4, Tcp, ipv4};

/// Bytes of the longest answer (RFC 1812 §4.3.2.3). A buffer of this capacity is never grown.
pub const LIMIT: usize = 576;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// The packet is too big and must not be fragmented (RFC 1191 §4).
    FragmentationNeeded {
        /// What the next hop takes, bytes of IP packet.
        mtu: u16,
    },
    /// The TTL ran out.
    TimeExceeded,
    /// The destination is unreachable.
    Unreachable {
        /// Code, as in RFC 792 and RFC 1812 §5.2.7.1.
        code: u8,
    },
}

/// Writes an ICMP error about a packet into `out`, replacing what was there.
///
/// `about` is quoted as it is, as much of it as fits [`LIMIT`]: its addresses and ports must be
/// those that its sender knows. The answer goes to its source.
///
/// `None`, with `out` empty, where no error may be sent (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7): about an
/// ICMP error, about a later fragment, from or to an address that is no unicast address, about what is no IPv4 packet.
pub fn icmp_error(out: &mut Vec<u8>, kind: IcmpErrorKind, source: IpAddr, about: &[u8]) -> Option<()> {
    out.clear();
    let IpAddr::V4(source) = source else { return None };
    let (ip, rest) = Ipv4::quoted(about).ok()?;
    if !ipv4::is_unicast(ip.source()) || !ipv4::is_unicast(ip.destination()) {
        return None;
    }
    if Protocol(ip.protocol) == Protocol::ICMP && Icmp::checked(rest).is_ok_and(|(icmp, _)| icmp.is_error()) {
        return None;
    }
    let whole = about.len().min(usize::from(ip.total_length.get()).max(ip.header_length()));
    let quotation = &about[..whole.min(LIMIT - Ipv4::LENGTH - Icmp::LENGTH)];

    let (icmp_type, code, mtu) = match kind {
        IcmpErrorKind::FragmentationNeeded { mtu } => (Icmp::UNREACHABLE, Icmp::FRAGMENTATION_NEEDED, mtu),
        IcmpErrorKind::TimeExceeded => (Icmp::TIME_EXCEEDED, 0, 0),
        IcmpErrorKind::Unreachable { code } => (Icmp::UNREACHABLE, code, 0),
    };
    let mut icmp =
        Icmp { icmp_type, code, checksum: U16::ZERO, identifier: U16::ZERO, sequence: U16::new(mtu) };
    icmp.checksum.set(Sum::of(icmp.as_bytes()).and(Sum::of(quotation)).checksum());

    let length = Ipv4::LENGTH + Icmp::LENGTH + quotation.len();
    let header = ip_header(Protocol::ICMP, source, ip.source(), length, INTERNETWORK_CONTROL);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(icmp.as_bytes());
    out.extend_from_slice(quotation);
    Some(())
}

/// Writes the reset that answers a segment of a connection that does not exist (RFC 9293 §3.10.7.1) into `out`, replacing what was there.
///
/// It comes from the destination of the segment and goes to its source. `None`, with `out` empty, for a reset, and for what is not TCP over IPv4.
pub fn tcp_reset(out: &mut Vec<u8>, about: &Packet) -> Option<()> {
    out.clear();
    let Kind::Tcp(segment) = about.kind else { return None };
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (about.tuple.destination, about.tuple.source) else {
        return None;
    };
    if segment.flags & TcpFacts::RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = if segment.flags & TcpFacts::ACK != 0 {
        (segment.acknowledgement, 0, TcpFacts::RST)
    } else {
        let controls = (segment.flags & (TcpFacts::SYN | TcpFacts::FIN)).count_ones();
        let next = segment.sequence.wrapping_add(segment.payload).wrapping_add(controls);
        (0, next, TcpFacts::RST | TcpFacts::ACK)
    };
    let mut tcp = Tcp {
        source_port: U16::new(about.tuple.destination_port),
        destination_port: U16::new(about.tuple.source_port),
        sequence: U32::new(sequence),
        acknowledgement: U32::new(acknowledgement),
        data_offset: (Tcp::LENGTH as u8 / 4) << 4,
        flags,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent_pointer: U16::ZERO,
    };
    let pseudo_header = Sum::pseudo_header(source, destination, Protocol::TCP, Tcp::LENGTH as u32);
    tcp.checksum.set(pseudo_header.and(Sum::of(tcp.as_bytes())).checksum());

    let header = ip_header(Protocol::TCP, source, destination, Ipv4::LENGTH + Tcp::LENGTH, ROUTINE);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(tcp.as_bytes());
    Some(())
}

/// Type of service of ICMP errors (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xC0;
/// Type of service of everything else.
const ROUTINE: u8 = 0;
/// RFC 1700 recommends 64.
const TTL: u8 = 64;

/// `length` counts the whole answer, so it is at most [`LIMIT`].
fn ip_header(
    protocol: Protocol,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    length: usize,
    type_of_service: u8,
) -> Ipv4 {
    let mut header = Ipv4 {
        version_and_length: 0x45,
        type_of_service,
        total_length: U16::new(length as u16),
        // A packet that is never fragmented needs no identification (RFC 6864 §4.1).
        identification: U16::ZERO,
        flags_and_offset: U16::new(Ipv4::DONT_FRAGMENT),
        ttl: TTL,
        protocol: protocol.0,
        checksum: U16::ZERO,
        source: source.octets(),
        destination: destination.octets(),
    };
    header.checksum.set(Sum::of(header.as_bytes()).checksum());
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Echo, Embedded, Offload, Quoted, Segmentation, parse};
    use crate::testing::{craft, generate};
    use crate::wire::checksum;

    fn error(kind: IcmpErrorKind, about: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xEE; 3];
        let written = icmp_error(&mut out, kind, "10.0.1.100".parse().unwrap(), about);
        assert_eq!(written.is_none(), out.is_empty());
        written.map(|()| out)
    }

    #[test]
    fn fragmentation_needed_tells_the_mtu_and_quotes_548_bytes() {
        let facts =
            TcpFacts { flags: TcpFacts::ACK, sequence: 1, acknowledgement: 1, window: 1, payload: 8900 };
        let about = craft::tcp_segment(facts, "10.0.2.20:40000", "198.51.100.10:443");
        let bytes = error(IcmpErrorKind::FragmentationNeeded { mtu: 1500 }, &about).unwrap();
        assert_eq!(bytes.len(), LIMIT);
        assert_eq!(bytes[20..22], [3, 4]);
        assert_eq!(bytes[24..28], [0, 0, 0x05, 0xDC]);
        assert_eq!(bytes[28..], about[..548]);
        assert!(checksum::verify(&bytes[..20]) && checksum::verify(&bytes[20..]));

        let packet = parse(&bytes, Offload::default()).unwrap();
        assert_eq!(packet.tuple.source, "10.0.1.100".parse::<IpAddr>().unwrap());
        assert_eq!(packet.tuple.destination, "10.0.2.20".parse::<IpAddr>().unwrap());
        let Kind::IcmpError(Embedded { tuple, quoted, .. }) = packet.kind else {
            panic!("{:?}", packet.kind)
        };
        assert_eq!(quoted, Quoted::Tcp);
        assert_eq!(tuple, craft::tuple(Protocol::TCP, "10.0.2.20:40000", "198.51.100.10:443"));
    }

    #[test]
    fn short_packets_are_quoted_whole_without_their_padding() {
        let about = craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"odd");
        let padded = [&about[..], &[0xEE; 9]].concat();
        let bytes = error(IcmpErrorKind::TimeExceeded, &padded).unwrap();
        assert_eq!(bytes[20..22], [11, 0]);
        assert_eq!(bytes[28..], about);
        assert!(checksum::verify(&bytes[20..]));
        let bytes = error(IcmpErrorKind::Unreachable { code: 13 }, &about).unwrap();
        assert_eq!(bytes[20..22], [3, 13]);
    }

    #[test]
    fn is_what_etherparse_writes() {
        let about = craft::ping(Echo::Request, "10.0.2.20", "198.51.100.10", 7, 1);
        let mut expected = craft::port_unreachable("10.0.1.100", &about);
        expected[1] = 0xC0;
        let bytes = error(IcmpErrorKind::Unreachable { code: 3 }, &about).unwrap();
        assert_eq!(bytes, craft::seal(expected));
    }

    #[test]
    fn a_super_packet_is_quoted_as_it_is() {
        let facts =
            TcpFacts { flags: TcpFacts::ACK, sequence: 1, acknowledgement: 1, window: 1, payload: 60_000 };
        let about = craft::tcp_segment(facts, "10.0.2.20:40000", "198.51.100.10:443");
        let (about, _) = craft::offloaded(about, Segmentation::TcpV4 { size: 8961 });
        let bytes = error(IcmpErrorKind::FragmentationNeeded { mtu: 1500 }, &about).unwrap();
        assert_eq!(bytes[28..], about[..548]);
    }

    #[test]
    fn no_error_is_sent_about_errors_fragments_and_non_unicast() {
        let datagram = craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"question");
        let about_error = craft::port_unreachable("198.51.100.10", &datagram);
        assert_eq!(error(IcmpErrorKind::TimeExceeded, &about_error), None);
        let mut fragment = datagram.clone();
        fragment[7] = 1;
        assert_eq!(error(IcmpErrorKind::TimeExceeded, &craft::seal(fragment)), None);
        let multicast = craft::udp("10.0.2.20:5000", "224.0.0.1:53", b"question");
        assert_eq!(error(IcmpErrorKind::TimeExceeded, &multicast), None);
        let nobody = craft::udp("0.0.0.0:5000", "198.51.100.10:53", b"question");
        assert_eq!(error(IcmpErrorKind::TimeExceeded, &nobody), None);
        assert_eq!(error(IcmpErrorKind::TimeExceeded, &datagram[..19]), None);
        let mut out = Vec::new();
        assert_eq!(
            icmp_error(&mut out, IcmpErrorKind::TimeExceeded, "::1".parse().unwrap(), &datagram),
            None
        );
    }

    #[test]
    fn a_buffer_of_the_limit_is_not_grown() {
        let mut out = Vec::with_capacity(LIMIT);
        let about = craft::udp("10.0.2.20:5000", "198.51.100.10:53", &[0; 2000]);
        let source = "10.0.1.100".parse().unwrap();
        icmp_error(&mut out, IcmpErrorKind::TimeExceeded, source, &about).unwrap();
        assert_eq!((out.len(), out.capacity()), (LIMIT, LIMIT));
    }

    proptest! {
        #[test]
        fn whatever_was_parsed_is_answered_with_a_right_packet_or_not_at_all(
            bytes in generate::damaged(prop_oneof![generate::packets(), generate::fragments()]), offload in generate::offloads(),
        ) {
            if let Ok(packet) = parse(&bytes, offload) {
                if let Some(answer) = error(IcmpErrorKind::TimeExceeded, &bytes) {
                    let Kind::IcmpError(about) = parse(&answer, Offload::default()).unwrap().kind else {
                        panic!("no error: {answer:?}")
                    };
                    prop_assert_eq!(about.tuple, packet.tuple);
                }
                let mut out = Vec::new();
                if tcp_reset(&mut out, &packet).is_some() {
                    prop_assert_eq!(parse(&out, Offload::default()).unwrap().tuple, packet.tuple.reversed());
                }
            }
        }
    }

    fn reset(flags: u8, payload: u32) -> Option<TcpFacts> {
        let facts = TcpFacts { flags, sequence: u32::MAX, acknowledgement: 700, window: 9, payload };
        let about = craft::tcp_segment(facts, "10.0.2.20:40000", "198.51.100.10:443");
        let mut out = vec![1, 2, 3];
        let written = tcp_reset(&mut out, &parse(&about, Offload::default()).unwrap());
        assert_eq!(written.is_none(), out.is_empty());
        written?;
        let packet = parse(&out, Offload::default()).unwrap();
        assert_eq!(packet.tuple, craft::tuple(Protocol::TCP, "198.51.100.10:443", "10.0.2.20:40000"));
        let Kind::Tcp(facts) = packet.kind else { panic!("{:?}", packet.kind) };
        let expected = craft::tcp_segment(facts, "198.51.100.10:443", "10.0.2.20:40000");
        assert_eq!(out, expected, "checksums as etherparse computes them");
        Some(facts)
    }

    #[test]
    fn a_reset_answers_as_rfc_9293_says() {
        let facts = |flags, sequence, acknowledgement| {
            Some(TcpFacts { flags, sequence, acknowledgement, window: 0, payload: 0 })
        };
        let (syn, ack, fin, rst) = (TcpFacts::SYN, TcpFacts::ACK, TcpFacts::FIN, TcpFacts::RST);
        assert_eq!(reset(ack, 10), facts(rst, 700, 0));
        assert_eq!(reset(syn | ack, 0), facts(rst, 700, 0));
        assert_eq!(reset(syn, 0), facts(rst | ack, 0, 0), "the SYN counts, and the sequence wraps");
        assert_eq!(reset(fin, 10), facts(rst | ack, 0, 10));
        assert_eq!(reset(syn | fin, 0), facts(rst | ack, 0, 1), "both count");
        assert_eq!(reset(TcpFacts::PSH, 10), facts(rst | ack, 0, 9));
        assert_eq!(reset(rst, 0), None);
        assert_eq!(reset(rst | ack, 0), None);

        let datagram = craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"");
        let mut out = Vec::new();
        assert_eq!(tcp_reset(&mut out, &parse(&datagram, Offload::default()).unwrap()), None);
    }
}
