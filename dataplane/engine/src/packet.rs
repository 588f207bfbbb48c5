//! Parses a packet once into plain data: tuple, offsets, what its offload header means.
//!
//! Everything behind the parser trusts these facts and reads no header again,
//! except to change it. What a hostile guest can write into a packet or into its
//! virtio header ends here, as a [`DiscardReason`].

use localvpc_api::DiscardReason;
use localvpc_api::trace::{Protocol, Tuple};

use crate::tables::rules::Selector;
use crate::wire::{Icmp, Ipv4, Tcp, Udp, checksum, ipv4};

/// What the virtio header of the TUN says about a packet. The default is a plain packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Who completes the transport checksum.
    pub checksum: Checksum,
    /// Whether the packet is a super-packet that the receiver takes apart.
    pub segmentation: Segmentation,
    /// Whether a TCP super-packet carries CWR, which only its first segment may keep (RFC 3168 §6.1.2).
    pub ecn: bool,
}

/// The state of a transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is in its place (or, for UDP, left out).
    #[default]
    Complete,
    /// The field holds the folded sum of the pseudo-header; the receiver adds the rest.
    Partial {
        /// Where summing starts: bytes from the IP header.
        start: u16,
        /// Where the checksum stands: bytes from `start`.
        offset: u16,
    },
}

/// The kind of a super-packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// One packet.
    #[default]
    None,
    /// TCP segments over IPv4.
    TcpV4 {
        /// Data bytes of each segment but the last.
        size: u16,
    },
    /// TCP segments over IPv6.
    TcpV6 {
        /// Data bytes of each segment but the last.
        size: u16,
    },
    /// UDP datagrams of one flow.
    Udp {
        /// Data bytes of each datagram but the last.
        size: u16,
    },
}

/// A packet parsed once: facts and offsets, no borrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses and ports. ICMP echo has its identifier in both ports, other ICMP type and code, other protocols 0.
    pub tuple: Tuple,
    /// What it carries.
    pub kind: Kind,
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
}

/// Which half of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The ping.
    Request,
    /// Its answer.
    Reply,
}

impl Packet {
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
            Kind::Other => Selector::Other(tuple.protocol),
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
    /// Where the quoted transport header starts: bytes from the outer IP header. At least 8 bytes of it are there.
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
#[inline]
pub fn parse(bytes: &[u8], offload: Offload) -> Result<Packet, DiscardReason> {
    let (ip, rest) = Ipv4::checked(bytes)?;
    let protocol = Protocol(ip.protocol);
    let transport = Ipv4::LENGTH as u16;
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
    let (segments, segment_length) = check_offload(offload, protocol, length, headers as u16)?;
    if !ipv4::is_unicast(ip.source()) || !ipv4::is_unicast(ip.destination()) {
        return Err(DiscardReason::NotUnicast);
    }
    Ok(Packet {
        tuple: tuple(ip, ports),
        kind,
        ttl: ip.ttl,
        dont_fragment: ip.dont_fragment(),
        transport,
        length: length.into(),
        segments,
        segment_length,
        checksum: offload.checksum,
    })
}

/// Holds the virtio header against the packet; says how many packets it stands for, and the length of the largest.
///
/// `headers` counts the bytes before the data. Linux keeps the true total length in the IP header of a
/// super-packet (more than 65,535 bytes would need BIG TCP, which a TUN does not offer).
#[inline]
fn check_offload(
    offload: Offload,
    protocol: Protocol,
    length: u16,
    headers: u16,
) -> Result<(u16, u16), DiscardReason> {
    let hostile = Err(DiscardReason::HostileOffload);
    if let Checksum::Partial { start, offset } = offload.checksum {
        let expected = match protocol {
            Protocol::TCP => Tcp::CHECKSUM,
            Protocol::UDP => Udp::CHECKSUM,
            _ => return hostile,
        };
        if usize::from(start) != Ipv4::LENGTH || usize::from(offset) != expected {
            return hostile;
        }
    }
    let size = match (offload.segmentation, protocol) {
        (Segmentation::None, _) => return Ok((1, length)),
        (Segmentation::TcpV4 { size }, Protocol::TCP) | (Segmentation::Udp { size }, Protocol::UDP) => size,
        _ => return hostile,
    };
    if size == 0 || offload.checksum == Checksum::Complete {
        return hostile;
    }
    let data = length - headers;
    Ok((data.div_ceil(size).max(1), headers + data.min(size)))
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
    // RFC 792: the quotation holds at least 64 bits of what follows the IP header.
    let first: &[u8; 8] = rest.first_chunk().ok_or(DiscardReason::Truncated)?;
    let word = |at: usize| u16::from_be_bytes([first[at], first[at + 1]]);
    let (quoted, ports) = match Protocol(ip.protocol) {
        Protocol::TCP => (Quoted::Tcp, (word(0), word(2))),
        Protocol::UDP => (Quoted::Udp, (word(0), word(2))),
        Protocol::ICMP => {
            let (about, _) = Icmp::checked(first)?;
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
