//! Parses a packet once into plain data: tuple, offsets, what its offload header means.
//!
//! Everything behind the parser trusts these facts and reads no header again, except to change it. What a hostile guest can write
//! into a packet or into its virtio header ends here, as a [`DiscardReason`].

mod brief;
mod fragment;
mod offload;

use localvpc_api::DiscardReason;
use localvpc_api::trace::{Protocol, Tuple};

pub use self::brief::{
    Brief, Carried, Key, Opens, brief, guess, is_tcp, segment_brief, tcp_brief, udp_brief,
};
pub use self::fragment::Fragment;
pub use self::offload::{Checksum, Offload, Segmentation};
use crate::tables::rules::Selector;
use crate::wire::{self, Icmp, Ipv4, Tcp, Udp, checksum, ipv4};

/// A packet parsed once: facts and offsets, no borrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses and ports. ICMP echo has its identifier in both ports, other ICMP type and code, other protocols and later fragments 0.
    pub tuple: Tuple,
    /// What it carries.
    pub kind: Kind,
    /// The window scale that a TCP SYN offers.
    pub window_scale: Option<u8>,
    /// Which part of a datagram it is; `None` if it is all of it.
    pub fragment: Option<Fragment>,
    /// Hops left.
    pub ttl: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// Where the transport header starts: bytes from the IP header.
    pub transport: u16,
    /// Bytes of the packet or super-packet from the IP header on. Whatever the link delivered beyond is padding, and is not carried.
    pub length: u32,
    /// How many packets it stands for, at least 1.
    pub segments: u16,
    /// Bytes of the largest of them, IP header included: what an MTU must admit.
    pub segment_length: u16,
    /// State of the transport checksum. `Partial` points at the checksum of this very packet.
    pub checksum: Checksum,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(TcpFacts),
    /// A UDP datagram.
    Udp,
    /// A ping or its answer.
    IcmpEcho(Echo),
    /// An ICMP error, with the packet that it quotes.
    IcmpError(Embedded),
    /// Any other ICMP message.
    IcmpOther,
    /// Any other protocol.
    Other,
    /// A fragment other than the first: it has no transport header, so nothing can be decided about it alone.
    LaterFragment,
}

/// Which half of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The ping.
    Request,
    /// Its answer.
    Reply,
}

/// What connections and counters count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Packets.
    pub segments: u16,
    /// Bytes from the IP header on.
    pub length: u32,
}

impl Packet {
    /// What connections count of it.
    #[inline]
    pub fn load(&self) -> Load {
        Load { segments: self.segments, length: self.length }
    }

    /// What rules see of the packet beside addresses, when its tuple has become `tuple`.
    pub fn selector(&self, tuple: Tuple) -> Selector {
        match &self.kind {
            Kind::Tcp(_) => Selector::Tcp(tuple.destination_port),
            Kind::Udp => Selector::Udp(tuple.destination_port),
            Kind::IcmpEcho(Echo::Request) => Selector::Icmp { kind: Icmp::ECHO_REQUEST, code: 0 },
            Kind::IcmpEcho(Echo::Reply) => Selector::Icmp { kind: Icmp::ECHO_REPLY, code: 0 },
            // Type and code stand where others have ports.
            Kind::IcmpError(_) | Kind::IcmpOther => {
                Selector::Icmp { kind: tuple.source_port as u8, code: tuple.destination_port as u8 }
            }
            Kind::Other | Kind::LaterFragment => Selector::Other(tuple.protocol),
        }
    }
}

/// What the TCP state machine needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFacts {
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the highest bit down.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; means something with ACK only.
    pub acknowledgement: u32,
    /// Window, not scaled.
    pub window: u16,
    /// Data bytes, of all segments together.
    pub payload: u32,
}

impl TcpFacts {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// Asks to hand data on at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number means something.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer means something.
    pub const URG: u8 = 0x20;

    /// Whether the segment asks for a new connection: a SYN that is no answer.
    #[inline]
    pub fn begins_connection(&self) -> bool {
        self.flags & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }
}

/// The packet that an ICMP error is about, as far as the error quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Type of the error.
    pub icmp_type: u8,
    /// Code of the error.
    pub code: u8,
    /// Tuple of the quoted packet as quoted: in the direction in which that packet went.
    pub tuple: Tuple,
    /// What the quoted packet carried.
    pub quoted: Quoted,
    /// Where the quoted IP header starts: bytes from the outer IP header.
    pub offset: u16,
    /// Where the quoted transport header starts: bytes from the outer IP header. Of TCP, UDP and ICMP at least 8 bytes of it are there.
    pub transport: u16,
}

/// What a quoted packet carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// A ping or its answer.
    IcmpEcho(Echo),
    /// Anything else.
    Other,
}

/// Parses a packet that a link delivered.
///
/// # Errors
///
/// Why the packet must be discarded before anything is decided about it.
#[inline(never)]
pub fn parse(bytes: &[u8], offload: Offload) -> Result<Packet, DiscardReason> {
    match brief::plain(bytes, offload) {
        Some(packet) => Ok(packet),
        None => parse_others(bytes, offload),
    }
}

/// The same of packets that are not plain. A function of its own, because the plain ones need no registers saved.
#[inline(never)]
fn parse_others(bytes: &[u8], offload: Offload) -> Result<Packet, DiscardReason> {
    match brief::usual(bytes, offload) {
        Some(packet) => Ok(packet),
        None => parse_by_headers(bytes, offload),
    }
}

/// The same, header by header: what [`parse`] does with all but the usual packets, and would do with those.
///
/// # Errors
///
/// Why the packet must be discarded before anything is decided about it.
#[inline(never)]
pub fn parse_by_headers(bytes: &[u8], offload: Offload) -> Result<Packet, DiscardReason> {
    let (ip, rest) = Ipv4::checked(bytes)?;
    if ip.is_fragment() {
        return fragment::parse(ip, rest, offload);
    }
    let protocol = Protocol(ip.protocol);
    let transport = Ipv4::LENGTH as u16;
    let mut window_scale = None;
    let (kind, ports, headers) = match protocol {
        Protocol::TCP => {
            let (tcp, data) = Tcp::checked(rest)?;
            let facts = TcpFacts {
                flags: tcp.flags,
                sequence: tcp.sequence.get(),
                acknowledgement: tcp.acknowledgement.get(),
                window: tcp.window.get(),
                payload: data.len() as u32,
            };
            if facts.flags & TcpFacts::SYN != 0 {
                window_scale = wire::tcp::window_scale(&rest[Tcp::LENGTH..tcp.header_length()]);
            }
            let ports = (tcp.source_port.get(), tcp.destination_port.get());
            (Kind::Tcp(facts), ports, Ipv4::LENGTH + tcp.header_length())
        }
        Protocol::UDP => {
            let (udp, _) = Udp::checked(rest)?;
            let ports = (udp.source_port.get(), udp.destination_port.get());
            (Kind::Udp, ports, Ipv4::LENGTH + Udp::LENGTH)
        }
        Protocol::ICMP => {
            let (icmp, data) = Icmp::checked(rest)?;
            let kind = match echo(icmp) {
                Some(echo) => Kind::IcmpEcho(echo),
                None if icmp.is_error() => Kind::IcmpError(embedded(icmp, rest, data)?),
                None => Kind::IcmpOther,
            };
            (kind, icmp_ports(icmp), Ipv4::LENGTH + Icmp::LENGTH)
        }
        _ => (Kind::Other, (0, 0), Ipv4::LENGTH),
    };
    let length = ip.total_length.get();
    let (segments, segment_length) = offload.check(protocol, length, headers as u16)?;
    if !ipv4::is_unicast(ip.source()) || !ipv4::is_unicast(ip.destination()) {
        return Err(DiscardReason::NotUnicast);
    }
    Ok(Packet {
        tuple: tuple(ip, ports),
        kind,
        window_scale,
        fragment: None,
        ttl: ip.ttl,
        dont_fragment: ip.dont_fragment(),
        transport,
        length: length.into(),
        segments,
        segment_length,
        checksum: offload.checksum,
    })
}

/// Reads the packet that an ICMP error quotes; `message` starts at the ICMP header, `quotation` behind it.
///
/// RFC 5508 REQ-3: the checksums of the message and of the quoted IP header are
/// verified (a), options of the quoted packet are skipped (b), its transport checksum is not looked at (c).
fn embedded(icmp: &Icmp, message: &[u8], quotation: &[u8]) -> Result<Embedded, DiscardReason> {
    if !checksum::verify(message) {
        return Err(DiscardReason::WrongIcmpChecksum);
    }
    let (ip, rest) = Ipv4::quoted(quotation)?;
    // RFC 792: a quotation holds at least 64 bits of what follows the IP header, if the packet had them.
    let first: Result<&[u8; 8], _> = rest.first_chunk().ok_or(DiscardReason::Truncated);
    let word = |bytes: &[u8; 8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (quoted, ports) = match Protocol(ip.protocol) {
        Protocol::TCP => (Quoted::Tcp, (word(first?, 0), word(first?, 2))),
        Protocol::UDP => (Quoted::Udp, (word(first?, 0), word(first?, 2))),
        Protocol::ICMP => {
            let (about, _) = Icmp::checked(first?)?;
            (echo(about).map_or(Quoted::Other, Quoted::IcmpEcho), icmp_ports(about))
        }
        _ => (Quoted::Other, (0, 0)),
    };
    let offset = Ipv4::LENGTH + Icmp::LENGTH;
    Ok(Embedded {
        icmp_type: icmp.icmp_type,
        code: icmp.code,
        tuple: tuple(ip, ports),
        quoted,
        offset: offset as u16,
        transport: (offset + ip.header_length()) as u16,
    })
}

fn tuple(ip: &Ipv4, (source_port, destination_port): (u16, u16)) -> Tuple {
    Tuple {
        source: ip.source().into(),
        destination: ip.destination().into(),
        source_port,
        destination_port,
        protocol: Protocol(ip.protocol),
    }
}

fn echo(icmp: &Icmp) -> Option<Echo> {
    match icmp.icmp_type {
        Icmp::ECHO_REQUEST if icmp.is_echo() => Some(Echo::Request),
        Icmp::ECHO_REPLY if icmp.is_echo() => Some(Echo::Reply),
        _ => None,
    }
}

fn icmp_ports(icmp: &Icmp) -> (u16, u16) {
    if icmp.is_echo() {
        (icmp.identifier.get(), icmp.identifier.get())
    } else {
        (icmp.icmp_type.into(), icmp.code.into())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{craft, generate};

    const PLAIN: Offload =
        Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, ecn: false };

    fn data(payload: u32) -> TcpFacts {
        TcpFacts { flags: TcpFacts::ACK, sequence: 7, acknowledgement: 9, window: 500, payload }
    }

    #[test]
    fn parses_a_literal_syn() {
        // 10.0.2.20:40000 → 198.51.100.10:443, TTL 63, DF, options up to 40 bytes of TCP header.
        let mut bytes = vec![
            0x45, 0x00, 0x00, 0x3C, 0x1C, 0x46, 0x40, 0x00, 0x3F, 0x06, 0x00, 0x00, 10, 0, 2, 20, 198, 51,
            100, 10, 0x9C, 0x40, 0x01, 0xBB, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0xA0, 0x02, 0xFA, 0xF0, 0,
            0, 0, 0, 2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        bytes = craft::seal(bytes);
        bytes.extend_from_slice(&[0xEE; 6]);
        assert_eq!(
            parse(&bytes, PLAIN).unwrap(),
            Packet {
                tuple: craft::tuple(Protocol::TCP, "10.0.2.20:40000", "198.51.100.10:443"),
                kind: Kind::Tcp(TcpFacts {
                    flags: TcpFacts::SYN,
                    sequence: 0x0102_0304,
                    acknowledgement: 0,
                    window: 64240,
                    payload: 0
                }),
                window_scale: Some(7),
                fragment: None,
                ttl: 63,
                dont_fragment: true,
                transport: 20,
                length: 60,
                segments: 1,
                segment_length: 60,
                checksum: Checksum::Complete,
            }
        );
    }

    #[test]
    fn icmp_has_its_identifier_or_its_type_in_the_ports() {
        let ping = parse(&craft::ping(Echo::Reply, "10.0.0.4", "10.0.0.5", 0xBEEF, 3), PLAIN).unwrap();
        assert_eq!(ping.kind, Kind::IcmpEcho(Echo::Reply));
        assert_eq!((ping.tuple.source_port, ping.tuple.destination_port), (0xBEEF, 0xBEEF));

        let timestamp = craft::icmp_message(13, 0, [1, 2, 3, 4], "10.0.0.4", "10.0.0.5", &[0; 12]);
        let timestamp = parse(&timestamp, PLAIN).unwrap();
        assert_eq!(timestamp.kind, Kind::IcmpOther);
        assert_eq!((timestamp.tuple.source_port, timestamp.tuple.destination_port), (13, 0));

        for kind in [8, 0] {
            let odd =
                parse(&craft::icmp_message(kind, 1, [0; 4], "10.0.0.4", "10.0.0.5", &[]), PLAIN).unwrap();
            let ports = (odd.tuple.source_port, odd.tuple.destination_port);
            assert_eq!((odd.kind, ports), (Kind::IcmpOther, (kind.into(), 1)), "an echo has code 0");
        }

        let gre = parse(&craft::other(Protocol(47), "10.0.0.4", "10.0.0.5", &[0; 8]), PLAIN).unwrap();
        assert_eq!((gre.kind, gre.tuple.source_port, gre.tuple.destination_port), (Kind::Other, 0, 0));
    }

    #[test]
    fn only_unicast_is_carried() {
        for destination in
            ["224.0.0.251:5353", "255.255.255.255:67", "0.0.0.0:1", "127.0.0.1:1", "240.0.0.1:1"]
        {
            let to = parse(&craft::udp("10.0.0.4:68", destination, b""), PLAIN);
            assert_eq!(to, Err(DiscardReason::NotUnicast), "to {destination}");
            let from = parse(&craft::udp(destination, "10.0.0.4:68", b""), PLAIN);
            assert_eq!(from, Err(DiscardReason::NotUnicast), "from {destination}");
        }
    }

    #[test]
    fn a_fragment_says_which_part_it_is() {
        let datagram = craft::udp("10.0.0.4:1000", "10.0.0.5:53", &[7; 100]);
        let parts: Vec<_> = craft::fragments(&datagram, 0xBEEF, 48)
            .iter()
            .map(|part| {
                let packet = parse(part, PLAIN).unwrap();
                let Fragment { identification, start, end, more } = packet.fragment.unwrap();
                assert_eq!(identification, 0xBEEF);
                (packet.kind, packet.tuple.destination_port, (start, end, more), packet.length)
            })
            .collect();
        let later = Kind::LaterFragment;
        assert_eq!(
            parts,
            [
                (Kind::Udp, 53, (0, 48, true), 68),
                (later, 0, (48, 96, true), 68),
                (later, 0, (96, 108, false), 32)
            ]
        );
    }

    #[test]
    fn an_icmp_error_names_the_packet_it_quotes() {
        let about = craft::tcp_segment(data(1400), "10.0.2.20:40000", "198.51.100.10:443");
        let error = craft::fragmentation_needed("10.0.1.100", 1500, &about);
        let packet = parse(&error, PLAIN).unwrap();
        assert_eq!(packet.tuple.destination, ip("10.0.2.20"));
        assert_eq!((packet.tuple.source_port, packet.tuple.destination_port), (3, 4));
        assert_eq!(
            packet.kind,
            Kind::IcmpError(Embedded {
                icmp_type: 3,
                code: 4,
                tuple: craft::tuple(Protocol::TCP, "10.0.2.20:40000", "198.51.100.10:443"),
                quoted: Quoted::Tcp,
                offset: 28,
                transport: 48,
            })
        );
        let ping = craft::ping(Echo::Request, "10.0.2.20", "198.51.100.10", 77, 1);
        let Kind::IcmpError(about) =
            parse(&craft::port_unreachable("10.0.1.100", &ping), PLAIN).unwrap().kind
        else {
            panic!("an error")
        };
        assert_eq!((about.quoted, about.tuple.source_port), (Quoted::IcmpEcho(Echo::Request), 77));
    }

    fn ip(address: &str) -> std::net::IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn an_icmp_error_with_quoted_options_is_understood() {
        // RFC 5508 REQ-3b. Four NOPs are put behind the quoted IP header.
        let mut about = craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"question");
        about[0] = 0x46;
        about.splice(20..20, [1; 4]);
        about[3] += 4;
        let about = craft::seal(about);
        let Kind::IcmpError(quoted) =
            parse(&craft::port_unreachable("198.51.100.10", &about), PLAIN).unwrap().kind
        else {
            panic!("an error")
        };
        assert_eq!(quoted.transport, 52);
        assert_eq!(quoted.tuple, craft::tuple(Protocol::UDP, "10.0.2.20:5000", "198.51.100.10:53"));
    }

    #[test]
    fn a_damaged_icmp_error_is_discarded() {
        let about = craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"question");
        let error = |about: &[u8]| craft::icmp_message(3, 3, [0; 4], "198.51.100.10", "10.0.2.20", about);
        let parsed = |bytes: &[u8]| parse(bytes, PLAIN).map(|packet| packet.length);

        let mut wrong = error(&about);
        wrong[22] ^= 1;
        assert_eq!(parsed(&wrong), Err(DiscardReason::WrongIcmpChecksum), "of the message");
        let mut damaged = about.clone();
        damaged[8] -= 1;
        assert_eq!(
            parsed(&error(&damaged)),
            Err(DiscardReason::WrongIcmpChecksum),
            "of the quoted IP header"
        );
        damaged[0] = 0x65;
        assert_eq!(parsed(&error(&damaged)), Err(DiscardReason::MalformedTransportHeader), "no IPv4 quoted");
        let mut fragment = about.clone();
        fragment[7] = 4;
        assert_eq!(
            parsed(&error(&craft::seal(fragment))),
            Err(DiscardReason::UnrelatedIcmpError),
            "a later fragment"
        );
        for length in 0..28 {
            assert_eq!(
                parsed(&error(&about[..length])),
                Err(DiscardReason::Truncated),
                "{length} bytes quoted"
            );
        }
        assert_eq!(parsed(&error(&about[..28])), Ok(56));

        // Any other damage is not ours to find: the receiver verifies.
        let mut damaged = craft::ping(Echo::Request, "10.0.2.20", "10.0.2.21", 1, 1);
        damaged[22] ^= 1;
        assert!(parse(&damaged, PLAIN).is_ok());
    }

    /// What whoever works with a packet relies on.
    fn assert_sound(bytes: &[u8], packet: &Packet) {
        let length = packet.length as usize;
        assert!(length <= bytes.len());
        assert_eq!(packet.transport, 20);
        assert!(packet.segments >= 1 && packet.segment_length as usize <= length);
        assert!(packet.segments as usize * packet.segment_length as usize >= length);
        if let Some(fragment) = packet.fragment {
            assert_eq!(usize::from(fragment.end - fragment.start), length - 20);
            assert!(packet.segments == 1 && packet.checksum == Checksum::Complete);
            assert_eq!(fragment.is_first(), packet.kind != Kind::LaterFragment);
            assert!(fragment.is_first() <= fragment.more && fragment.end <= u16::MAX - 20);
        }
        let header = match packet.kind {
            Kind::Tcp(_) => 20,
            Kind::Udp | Kind::IcmpEcho(_) | Kind::IcmpError(_) | Kind::IcmpOther => 8,
            Kind::Other | Kind::LaterFragment => 0,
        };
        assert!(length >= 20 + header);
        if let Kind::IcmpError(about) = packet.kind {
            let certain = if matches!(about.tuple.protocol.0, 1 | 6 | 17) { 8 } else { 0 };
            assert!(usize::from(about.transport) + certain <= length);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_are_a_packet_or_a_reason(bytes in vec(any::<u8>(), 0..120), offload in generate::offloads()) {
            if let Ok(packet) = parse(&bytes, offload) {
                assert_sound(&bytes, &packet);
            }
        }

        #[test]
        fn a_mutated_packet_is_a_packet_or_a_reason(
            bytes in generate::damaged(prop_oneof![generate::packets(), generate::fragments()]),
            offload in generate::offloads(),
        ) {
            if let Ok(packet) = parse(&bytes, offload) {
                assert_sound(&bytes, &packet);
            }
        }

        #[test]
        fn every_truncation_has_a_reason(bytes in generate::packets(), at: prop::sample::Index) {
            let reason = parse(&bytes[..at.index(bytes.len())], PLAIN);
            prop_assert_eq!(reason, Err(DiscardReason::Truncated));
        }

        #[test]
        fn agrees_with_etherparse(bytes in generate::packets()) {
            let packet = parse(&bytes, PLAIN).unwrap();
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("not IPv4") };
            let ip = ip.header();
            prop_assert_eq!(packet.tuple.source, std::net::IpAddr::from(ip.source_addr()));
            prop_assert_eq!(packet.tuple.destination, std::net::IpAddr::from(ip.destination_addr()));
            prop_assert_eq!(packet.tuple.protocol.0, ip.protocol().0);
            prop_assert_eq!((packet.ttl, packet.dont_fragment), (ip.ttl(), ip.dont_fragment()));
            prop_assert_eq!(packet.length as usize, bytes.len());
            let ports = (packet.tuple.source_port, packet.tuple.destination_port);
            match sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    let Kind::Tcp(facts) = packet.kind else { panic!("{:?}", packet.kind) };
                    prop_assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
                    prop_assert_eq!(facts.sequence, tcp.sequence_number());
                    prop_assert_eq!(facts.acknowledgement, tcp.acknowledgment_number());
                    prop_assert_eq!(facts.window, tcp.window_size());
                    prop_assert_eq!(facts.payload as usize, tcp.payload().len());
                    let flags = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg()];
                    let flags = flags.iter().enumerate().fold(0, |all, (at, set)| all | u8::from(*set) << at);
                    prop_assert_eq!(facts.flags, flags);
                }
                Some(TransportSlice::Udp(udp)) => {
                    prop_assert_eq!(packet.kind, Kind::Udp);
                    prop_assert_eq!(ports, (udp.source_port(), udp.destination_port()));
                }
                Some(TransportSlice::Icmpv4(icmp)) => match packet.kind {
                    Kind::IcmpEcho(_) => prop_assert_eq!(&ports.0.to_be_bytes(), &icmp.bytes5to8()[..2]),
                    _ => prop_assert_eq!(ports, (icmp.type_u8().into(), icmp.code_u8().into())),
                },
                _ => prop_assert_eq!((packet.kind, ports), (Kind::Other, (0, 0))),
            }
        }
    }
}
