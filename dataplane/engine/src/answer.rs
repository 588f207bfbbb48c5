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
