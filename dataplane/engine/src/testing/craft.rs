//! Builds packets for tests.
//!
//! etherparse writes them, so that they are right by another hand than the one that is tested.
//! All of them have TTL 64, DF set (as Linux sends) and complete, right checksums.
//! A malformed argument panics: it is a mistake in the test.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, TcpHeader, TcpOptionElement,
    TransportHeader, UdpHeader, icmpv4,
};
use localvpc_api::trace::{Protocol, Tuple};

use crate::packet::{Checksum, Echo, Offload, Segmentation, TcpFacts};
use crate::wire::checksum::Sum;
use crate::wire::{Ipv4, Tcp, Udp};

/// TTL of what is built here.
pub const TTL: u8 = 64;

/// An address and a port, also written `"10.0.1.10:443"`.
#[derive(Clone, Copy, Debug)]
pub struct End(pub SocketAddrV4);

/// A TCP segment without data; `flags` as in [`TcpFacts`].
///
/// Its numbers are right, in either direction, while none of the connection's segments have data: both ends begin at 1000.
pub fn tcp(flags: u8, source: impl Into<End>, destination: impl Into<End>) -> Vec<u8> {
    let sequence = if flags & TcpFacts::SYN != 0 { 1000 } else { 1001 };
    let acknowledgement = if flags & TcpFacts::ACK != 0 { 1001 } else { 0 };
    let facts = TcpFacts { flags, sequence, acknowledgement, window: 64240, payload: 0 };
    tcp_segment(facts, source, destination)
}

/// A SYN or SYN-ACK that offers to scale windows.
pub fn tcp_scaled(
    facts: TcpFacts,
    scale: u8,
    source: impl Into<End>,
    destination: impl Into<End>,
) -> Vec<u8> {
    let options = [TcpOptionElement::Noop, TcpOptionElement::WindowScale(scale)];
    segment_with(facts, &options, source, destination)
}

/// A TCP segment with everything stated, and as many data bytes as `facts` says.
pub fn tcp_segment(facts: TcpFacts, source: impl Into<End>, destination: impl Into<End>) -> Vec<u8> {
    segment_with(facts, &[], source, destination)
}

fn segment_with(
    facts: TcpFacts,
    options: &[TcpOptionElement],
    source: impl Into<End>,
    destination: impl Into<End>,
) -> Vec<u8> {
    let (source, destination) = (source.into().0, destination.into().0);
    let mut header = TcpHeader::new(source.port(), destination.port(), facts.sequence, facts.window);
    header.acknowledgment_number = facts.acknowledgement;
    header.fin = facts.flags & TcpFacts::FIN != 0;
    header.syn = facts.flags & TcpFacts::SYN != 0;
    header.rst = facts.flags & TcpFacts::RST != 0;
    header.psh = facts.flags & TcpFacts::PSH != 0;
    header.ack = facts.flags & TcpFacts::ACK != 0;
    header.urg = facts.flags & TcpFacts::URG != 0;
    header.set_options(options).expect("the options fit a header");
    let data = data(facts.payload as usize);
    transport(IpNumber::TCP, TransportHeader::Tcp(header), *source.ip(), *destination.ip(), &data)
}

/// A TCP segment without data but with options: at most 40 bytes of them, a multiple of 4, as they are.
pub fn tcp_with_options(
    flags: u8,
    source: impl Into<End>,
    destination: impl Into<End>,
    options: &[u8],
) -> Vec<u8> {
    let bare = tcp(flags, source, destination);
    let (source, destination) = (source_of(&bare), destination_of(&bare));
    let header = TcpHeader::from_slice(&bare[20..]).expect("etherparse wrote it").0;
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(options);
    bytes[12] = ((bytes.len() / 4) as u8) << 4;
    bytes[16..18].fill(0);
    let sum = Sum::pseudo_header(source, destination, Protocol::TCP, bytes.len() as u32);
    let checksum = sum.and(Sum::of(&bytes)).checksum();
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip(IpNumber::TCP, source, destination, &bytes)
}

/// The fragments that a sender makes of a packet, in order: `room` bytes of data in each but the last, a multiple of 8.
pub fn fragments(packet: &[u8], identification: u16, room: usize) -> Vec<Vec<u8>> {
    let (mut header, data) = Ipv4Header::from_slice(packet).expect("an IPv4 packet");
    let mut start = 0;
    let mut fragment = |part: &[u8]| {
        header.identification = identification;
        header.dont_fragment = false;
        header.fragment_offset = (start as u16 / 8).try_into().expect("a datagram has at most 65,535 bytes");
        start += part.len();
        header.more_fragments = start < data.len();
        header.set_payload_len(part.len()).expect("a part is smaller than the whole");
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], part].concat()
    };
    data.chunks(room).map(&mut fragment).collect()
}

/// A fragment of any kind, right or not: `start` in units of 8 bytes.
pub fn fragment(
    protocol: Protocol,
    source: &str,
    destination: &str,
    identification: u16,
    start: u16,
    more: bool,
    data: &[u8],
) -> Vec<u8> {
    let mut packet = other(protocol, source, destination, data);
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    let more = if more { Ipv4::MORE_FRAGMENTS } else { 0 };
    packet[6..8].copy_from_slice(&(start | more).to_be_bytes());
    seal(packet)
}

/// A UDP datagram.
pub fn udp(source: impl Into<End>, destination: impl Into<End>, data: &[u8]) -> Vec<u8> {
    let (source, destination) = (source.into().0, destination.into().0);
    let header = UdpHeader {
        source_port: source.port(),
        destination_port: destination.port(),
        length: (UdpHeader::LEN + data.len())
            .try_into()
            .expect("a datagram has at most 65,507 bytes of data"),
        checksum: 0,
    };
    transport(IpNumber::UDP, TransportHeader::Udp(header), *source.ip(), *destination.ip(), data)
}

/// A ping or its answer, with 56 bytes of data as `ping` sends them.
pub fn ping(echo: Echo, source: &str, destination: &str, identifier: u16, sequence: u16) -> Vec<u8> {
    let header = IcmpEchoHeader { id: identifier, seq: sequence };
    let icmp_type = match echo {
        Echo::Request => Icmpv4Type::EchoRequest(header),
        Echo::Reply => Icmpv4Type::EchoReply(header),
    };
    icmp(icmp_type, address(source), address(destination), &data(56))
}

/// An ICMP message of any type, with what stands in the second half of its header.
pub fn icmp_message(
    icmp_type: u8,
    code: u8,
    rest: [u8; 4],
    source: &str,
    destination: &str,
    data: &[u8],
) -> Vec<u8> {
    let icmp_type = Icmpv4Type::Unknown { type_u8: icmp_type, code_u8: code, bytes5to8: rest };
    icmp(icmp_type, address(source), address(destination), data)
}

/// "Port unreachable" from `source` about a packet, to the source of that packet, quoting all of it up to 548 bytes.
pub fn port_unreachable(source: &str, about: &[u8]) -> Vec<u8> {
    let icmp_type = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
    icmp(icmp_type, address(source), source_of(about), &about[..about.len().min(548)])
}

/// "Fragmentation needed" from `source` about a packet, quoting its headers and 8 bytes.
pub fn fragmentation_needed(source: &str, mtu: u16, about: &[u8]) -> Vec<u8> {
    let icmp_type = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: mtu,
    });
    icmp(icmp_type, address(source), source_of(about), &about[..about.len().min(28)])
}

/// A packet of a protocol without ports.
pub fn other(protocol: Protocol, source: &str, destination: &str, data: &[u8]) -> Vec<u8> {
    ip(IpNumber(protocol.0), address(source), address(destination), data)
}

/// The packet that starts a connection with this tuple: a SYN, a datagram, a ping, or a bare packet.
pub fn first(tuple: Tuple) -> Vec<u8> {
    let (source, destination) = (tuple.source.to_string(), tuple.destination.to_string());
    let end = |address: &str, port| End(SocketAddrV4::new(self::address(address), port));
    let ends = (end(&source, tuple.source_port), end(&destination, tuple.destination_port));
    match tuple.protocol {
        Protocol::TCP => tcp(TcpFacts::SYN, ends.0, ends.1),
        Protocol::UDP => udp(ends.0, ends.1, b"hello"),
        Protocol::ICMP => ping(Echo::Request, &source, &destination, tuple.source_port, 1),
        protocol => other(protocol, &source, &destination, b"hello"),
    }
}

/// The tuple of a packet between two ends.
pub fn tuple(protocol: Protocol, source: impl Into<End>, destination: impl Into<End>) -> Tuple {
    let (source, destination) = (source.into().0, destination.into().0);
    Tuple {
        source: (*source.ip()).into(),
        destination: (*destination.ip()).into(),
        source_port: source.port(),
        destination_port: destination.port(),
        protocol,
    }
}

/// The same packet with another TTL.
pub fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    packet[8] = ttl;
    seal(packet)
}

/// The same packet with DF cleared.
pub fn fragmentable(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] &= !0x40;
    seal(packet)
}

/// The IP header checksum made right again after a test changed a header.
pub fn seal(mut packet: Vec<u8>) -> Vec<u8> {
    let length = (usize::from(packet[0] & 0x0F) * 4).min(packet.len());
    packet[10..12].fill(0);
    let checksum = Sum::of(&packet[..length]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A TCP or UDP packet as a kernel hands it to a TUN with offloads: the pseudo-header's sum where the checksum goes.
///
/// `segmentation` makes a super-packet of it.
pub fn offloaded(mut packet: Vec<u8>, segmentation: Segmentation) -> (Vec<u8>, Offload) {
    let protocol = Protocol(packet[9]);
    let offset = match protocol {
        Protocol::TCP => Tcp::CHECKSUM,
        Protocol::UDP => Udp::CHECKSUM,
        protocol => panic!("no kernel offloads the checksum of {protocol}"),
    };
    let octets = |at| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"));
    let sum = Sum::pseudo_header(octets(12), octets(16), protocol, packet.len() as u32 - 20).fold();
    packet[20 + offset..22 + offset].copy_from_slice(&sum.to_be_bytes());
    let checksum = Checksum::Partial { start: 20, offset: offset as u16 };
    (packet, Offload { checksum, segmentation, ecn: false })
}

impl From<SocketAddrV4> for End {
    fn from(end: SocketAddrV4) -> Self {
        Self(end)
    }
}

impl From<&str> for End {
    fn from(end: &str) -> Self {
        Self(
            end.parse()
                .unwrap_or_else(|_| panic!("`{end}` is no IPv4 address with a port, like 10.0.1.10:443")),
        )
    }
}

impl From<(Ipv4Addr, u16)> for End {
    fn from((address, port): (Ipv4Addr, u16)) -> Self {
        Self(SocketAddrV4::new(address, port))
    }
}

fn icmp(icmp_type: Icmpv4Type, source: Ipv4Addr, destination: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    let header = TransportHeader::Icmpv4(Icmpv4Header { icmp_type, checksum: 0 });
    transport(IpNumber::ICMP, header, source, destination, data)
}

fn transport(
    protocol: IpNumber,
    mut header: TransportHeader,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    data: &[u8],
) -> Vec<u8> {
    let carrier = Ipv4Header {
        source: source.octets(),
        destination: destination.octets(),
        protocol,
        ..Default::default()
    };
    header.update_checksum_ipv4(&carrier, data).expect("the data fits a packet");
    let mut bytes = Vec::new();
    header.write(&mut bytes).expect("a vector takes all");
    bytes.extend_from_slice(data);
    ip(protocol, source, destination, &bytes)
}

fn ip(protocol: IpNumber, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = payload.len().try_into().expect("a packet has at most 65,535 bytes");
    let mut header = Ipv4Header::new(length, TTL, protocol, source.octets(), destination.octets())
        .expect("a packet has at most 65,535 bytes");
    header.dont_fragment = true;
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no IPv4 address"))
}

fn source_of(packet: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = packet[12..16].try_into().expect("four bytes");
    octets.into()
}

fn destination_of(packet: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = packet[16..20].try_into().expect("four bytes");
    octets.into()
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| at as u8).collect()
}
