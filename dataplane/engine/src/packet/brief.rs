//! Reads of a packet what the flow cache needs, and no more: the fast path of parsing.
//!
//! A [`Brief`] exists of exactly those packets that a cache may decide: whole IPv4 packets without options, UDP or TCP without
//! SYN, that the parser takes too; [`brief`] reads those of them that can end no connection. [`parse`](super::parse) reads TCP in the same way, plain segments without SYN first,
//! and leaves everything else, good or bad, to [`parse_by_headers`](super::parse_by_headers), with which this must agree
//! about every packet there is.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::LinkId;
use localvpc_api::trace::{Protocol, Tuple};

use super::{Checksum, Kind, Load, Offload, Packet, Segmentation, TcpFacts};
use crate::hash::Seed;
use crate::wire::{self, checksum, ipv4};

/// What the flow cache needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Source and destination address as they stand in the header.
    addresses: u64,
    /// Source and destination port as they stand in the header.
    ports: u32,
    /// What it carries.
    pub carried: Carried,
    /// Hops left.
    pub ttl: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
    /// How many packets it stands for, at least 1.
    pub segments: u16,
    /// Bytes of the largest of them, IP header included.
    pub segment_length: u16,
    /// Bytes of the packet or super-packet from the IP header on.
    pub length: u16,
    /// State of the transport checksum.
    pub checksum: Checksum,
}

/// What a packet of a cached flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A TCP segment without SYN.
    Tcp(TcpFacts),
    /// A UDP datagram.
    Udp,
}

/// A flow on a link: addresses, ports, link, protocol.
///
/// IPv6 flows will have a cache of their own with a wider key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromZeros)]
pub struct Key {
    addresses: u64,
    rest: u64,
}

/// Links with greater ids are not cached: 2²⁴ of them in one lab's life are beyond what it is for.
pub const MAX_LINK: u32 = 1 << 24;

const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;

/// Where the protocol stands.
const PROTOCOL: usize = 9;

/// In the seventh byte of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// Reads a packet that a link delivered; `None` if it is not UDP or TCP in mid-stream, or not one that a flow cache may decide.
#[inline(always)]
pub fn brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    if is_tcp(bytes) { tcp_brief(bytes, offload) } else { udp_brief(bytes, offload) }
}

/// Whether it is TCP, if it is IPv4.
#[inline(always)]
pub fn is_tcp(bytes: &[u8]) -> bool {
    bytes.get(PROTOCOL) == Some(&Protocol::TCP.0)
}

/// A [`brief`] of TCP.
#[inline(always)]
pub fn tcp_brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    const CONTROLS: u8 = TcpFacts::SYN | TcpFacts::FIN | TcpFacts::RST;
    tcp_without(CONTROLS, bytes, offload)
}

/// The same of any TCP segment without SYN: also of one that may end its connection.
#[inline(always)]
pub fn segment_brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    tcp_without(TcpFacts::SYN, bytes, offload)
}

#[inline(always)]
fn tcp_without(flags: u8, bytes: &[u8], offload: Offload) -> Option<Brief> {
    let head = Head::of(bytes, Protocol::TCP)?;
    let (facts, headers) = head.tcp(bytes)?;
    if facts.flags & flags != 0 {
        return None;
    }
    head.brief(Carried::Tcp(facts), headers, offload)
}

/// A [`brief`] of UDP.
#[inline(always)]
pub fn udp_brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    let head = Head::of(bytes, Protocol::UDP)?;
    let datagram = u32::from(u16::from_be(head.word(IP + 4)));
    if datagram < UDP as u32 || u32::from(head.length) < IP as u32 + datagram {
        return None;
    }
    head.brief(Carried::Udp, (IP + UDP) as u16, offload)
}

/// The flow that a packet belongs to, and whether it opens that: then no cache decides about it. Whether the packet is as it should be, only
/// its [`Brief`] or the parser says.
#[inline(always)]
pub fn guess(bytes: &[u8], link: LinkId) -> Option<(Key, Opens)> {
    let head: &[u8; IP + UDP] = bytes.first_chunk()?;
    let tcp = is_tcp(bytes);
    let opens = if tcp && bytes.get(IP + 13)? & TcpFacts::SYN != 0 { Opens::Yes } else { Opens::No };
    let addresses = u64::from_ne_bytes(*head[12..].first_chunk()?);
    let ports = u32::from_ne_bytes(*head[IP..].first_chunk()?);
    Some((Key::new(addresses, ports, link, tcp), opens))
}

/// Whether a packet opens its flow: a TCP segment with SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// It does.
    Yes,
    /// It belongs to one that is open already, or needs no opening.
    No,
}

/// Reads all of a packet, if it is one of the most usual: what [`usual`] takes, without SYN and without offload.
#[inline(always)]
pub(super) fn plain(bytes: &[u8], offload: Offload) -> Option<Packet> {
    let Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, .. } = offload else {
        return None;
    };
    // Looked at first, as the packets with SYN are the others that there are most of.
    let start: &[u8; IP + TCP] = bytes.first_chunk()?;
    if start[IP + 13] & TcpFacts::SYN != 0 {
        return None;
    }
    let head = Head::of(bytes, Protocol::TCP)?;
    let (facts, _) = head.tcp(bytes)?;
    Some(head.packet(facts, None, (1, head.length), Checksum::Complete))
}

/// Reads all of a packet, if it is one of the usual kind: a whole TCP segment with any flags, over IPv4 without options.
#[inline(always)]
pub(super) fn usual(bytes: &[u8], offload: Offload) -> Option<Packet> {
    let head = Head::of(bytes, Protocol::TCP)?;
    let (facts, headers) = head.tcp(bytes)?;
    let size = head.size(offload, headers)?;
    let window_scale = match facts.flags & TcpFacts::SYN {
        0 => None,
        _ => wire::tcp::window_scale(&bytes[IP + TCP..headers.into()]),
    };
    Some(head.packet(facts, window_scale, size, offload.checksum))
}

/// The first bytes of a whole IPv4 packet of a protocol, without options, whose header is as it should be.
struct Head<'a> {
    protocol: Protocol,
    bytes: &'a [u8; IP + UDP],
    /// Of all of the packet.
    length: u16,
}

impl<'a> Head<'a> {
    #[inline(always)]
    fn of(packet: &'a [u8], protocol: Protocol) -> Option<Self> {
        let least = if protocol == Protocol::TCP { IP + TCP } else { IP + UDP };
        if packet.len() < least {
            return None;
        }
        let bytes: &[u8; IP + UDP] = packet.first_chunk()?;
        let start = u64::from_le_bytes(*bytes.first_chunk()?);
        let length = ((start >> 16) as u16).swap_bytes();
        // Version 4, no options; no fragment; honest length.
        if start & 0xFF3F_0000_0000_00FF != 0x45 || usize::from(length) > packet.len() {
            return None;
        }
        if bytes[PROTOCOL] != protocol.0
            || !checksum::verify_header(bytes.first_chunk()?)
            || !is_unicast(bytes[12])
            || !is_unicast(bytes[16])
        {
            return None;
        }
        Some(Self { protocol, bytes, length })
    }

    /// The TCP header of `packet` behind it, and how many bytes both headers have.
    #[inline(always)]
    fn tcp(&self, packet: &[u8]) -> Option<(TcpFacts, u16)> {
        let bytes: &[u8; IP + TCP] = packet.first_chunk()?;
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let header = u32::from(bytes[IP + 12] >> 4) * 4;
        if header < TCP as u32 {
            return None;
        }
        let headers = IP as u32 + header;
        let facts = TcpFacts {
            flags: bytes[IP + 13],
            sequence: number(IP + 4),
            acknowledgement: number(IP + 8),
            window: u16::from_be_bytes([bytes[IP + 14], bytes[IP + 15]]),
            payload: u32::from(self.length).checked_sub(headers)?,
        };
        Some((facts, headers as u16))
    }

    #[inline(always)]
    fn brief(&self, carried: Carried, headers: u16, offload: Offload) -> Option<Brief> {
        let (segments, segment_length) = self.size(offload, headers)?;
        Some(Brief {
            addresses: u64::from_ne_bytes(*self.bytes[12..].first_chunk()?),
            ports: u32::from_ne_bytes(*self.bytes[IP..].first_chunk()?),
            carried,
            ttl: self.bytes[8],
            dont_fragment: self.dont_fragment(),
            segments,
            segment_length,
            length: self.length,
            checksum: offload.checksum,
        })
    }

    /// How many packets it stands for, and the length of the largest.
    #[inline(always)]
    fn size(&self, offload: Offload, headers: u16) -> Option<(u16, u16)> {
        match offload {
            Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, .. } => {
                Some((1, self.length))
            }
            _ => offload.check(self.protocol, self.length, headers).ok(),
        }
    }

    /// All of a TCP segment.
    #[inline(always)]
    fn packet(
        &self,
        facts: TcpFacts,
        window_scale: Option<u8>,
        (segments, segment_length): (u16, u16),
        checksum: Checksum,
    ) -> Packet {
        // Whole: what is put together from bytes is stored byte by byte.
        let (addresses, _) = self.bytes[12..].as_chunks::<4>();
        Packet {
            tuple: Tuple {
                source: addresses[0].into(),
                destination: addresses[1].into(),
                source_port: u16::from_be(self.word(IP)),
                destination_port: u16::from_be(self.word(IP + 2)),
                protocol: Protocol::TCP,
            },
            kind: Kind::Tcp(facts),
            window_scale,
            fragment: None,
            ttl: self.bytes[8],
            dont_fragment: self.dont_fragment(),
            transport: IP as u16,
            length: self.length.into(),
            segments,
            segment_length,
            checksum,
        }
    }

    #[inline(always)]
    fn dont_fragment(&self) -> bool {
        self.bytes[6] & DONT_FRAGMENT != 0
    }

    /// As it stands there.
    #[inline(always)]
    fn word(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

/// As [`ipv4::is_unicast`](crate::wire::ipv4::is_unicast) says, by the first byte.
#[inline]
fn is_unicast(first: u8) -> bool {
    UNICAST[usize::from(first)]
}

const UNICAST: [bool; 256] = {
    let mut table = [false; 256];
    let mut first = 0;
    while first < 256 {
        table[first] = ipv4::is_unicast(Ipv4Addr::new(first as u8, 0, 0, 0));
        first += 1;
    }
    table
};

impl Brief {
    /// The same of a packet that was parsed already.
    pub fn of(packet: &Packet) -> Option<Self> {
        let carried = match packet.kind {
            Kind::Tcp(facts) if facts.flags & TcpFacts::SYN == 0 => Carried::Tcp(facts),
            Kind::Udp => Carried::Udp,
            _ => return None,
        };
        if packet.fragment.is_some() {
            return None;
        }
        let (addresses, ports) = ends(&packet.tuple)?;
        Some(Self {
            addresses,
            ports,
            carried,
            ttl: packet.ttl,
            dont_fragment: packet.dont_fragment,
            segments: packet.segments,
            segment_length: packet.segment_length,
            // IPv4 counts in 16 bits, and BIG TCP is for links that a TUN is not.
            length: packet.length as u16,
            checksum: packet.checksum,
        })
    }

    /// The flow that it belongs to.
    #[inline]
    pub fn key(&self, link: LinkId) -> Option<Key> {
        let tcp = matches!(self.carried, Carried::Tcp(_));
        (link.0 < MAX_LINK).then(|| Key::new(self.addresses, self.ports, link, tcp))
    }

    /// What its connections count.
    #[inline]
    pub fn load(&self) -> Load {
        Load { segments: self.segments, length: self.length.into() }
    }

    /// Whether it can end no connection: it is no TCP segment with FIN or RST.
    pub fn is_in_mid_stream(&self) -> bool {
        self.facts().is_none_or(|facts| facts.flags & (TcpFacts::FIN | TcpFacts::RST) == 0)
    }

    /// Its place in the stream, if it has one.
    #[inline]
    pub fn facts(&self) -> Option<&TcpFacts> {
        match &self.carried {
            Carried::Tcp(facts) => Some(facts),
            Carried::Udp => None,
        }
    }
}

/// Addresses and ports as they stand in a header.
#[inline]
fn ends(tuple: &Tuple) -> Option<(u64, u32)> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (tuple.source, tuple.destination) else {
        return None;
    };
    let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
    let ([i, j], [k, l]) = (tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes());
    Some((u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u32::from_ne_bytes([i, j, k, l])))
}

impl Key {
    /// The flow of a packet that was parsed, whatever its flags; `None` if no packet of that flow is for a cache.
    #[inline]
    pub fn of(packet: &Packet, link: LinkId) -> Option<Self> {
        let tcp = match packet.kind {
            Kind::Tcp(_) => true,
            Kind::Udp => false,
            _ => return None,
        };
        if packet.fragment.is_some() {
            return None;
        }
        Self::between(&packet.tuple, link, tcp)
    }

    /// The flow of whole packets between these ends that come in on `link`.
    #[inline]
    fn between(tuple: &Tuple, link: LinkId, tcp: bool) -> Option<Self> {
        let (addresses, ports) = ends(tuple)?;
        (link.0 < MAX_LINK).then(|| Self::new(addresses, ports, link, tcp))
    }

    /// The TCP flow of the answers to packets that leave on `link` with this tuple.
    #[inline]
    pub fn of_answers(tuple: &Tuple, link: LinkId) -> Option<Self> {
        Self::between(&tuple.reversed(), link, true)
    }

    #[inline(always)]
    fn new(addresses: u64, ports: u32, link: LinkId, tcp: bool) -> Self {
        Self { addresses, rest: u64::from(ports) << 32 | u64::from(link.0) << 8 | u64::from(tcp) }
    }

    /// Its hash.
    #[inline]
    pub(crate) fn hash(self, seed: Seed) -> u64 {
        seed.hash([self.addresses, self.rest])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{parse, parse_by_headers};
    use crate::testing::{craft, generate};

    #[test]
    fn is_of_mid_stream_tcp_and_udp_only() {
        let (from, to) = ("10.0.2.20:5000", "203.0.113.5:443");
        let plain = |bytes: Vec<u8>| brief(&bytes, Offload::default()).is_some();
        assert!(plain(craft::tcp(TcpFacts::ACK, from, to)) && plain(craft::udp(from, to, b"data")));
        for flags in [TcpFacts::SYN, TcpFacts::FIN | TcpFacts::ACK, TcpFacts::RST] {
            let packet = craft::tcp(flags, from, to);
            let opens = if flags & TcpFacts::SYN == 0 { Opens::No } else { Opens::Yes };
            assert_eq!(guess(&packet, LinkId(1)).map(|(_, opens)| opens), Some(opens));
            assert_eq!(segment_brief(&packet, Offload::default()).is_some(), opens == Opens::No);
            assert!(!plain(packet));
        }
        let tuple = craft::tuple(Protocol::TCP, from, to);
        let answer = guess(&craft::tcp(TcpFacts::SYN | TcpFacts::ACK, to, from), LinkId(2));
        assert_eq!(answer, Some((Key::of_answers(&tuple, LinkId(2)).unwrap(), Opens::Yes)));
        assert!(!plain(craft::udp("127.0.0.1:1", to, b"")) && !plain(craft::udp(from, "224.0.0.1:1", b"")));
        for header in 0..16_u8 {
            let mut short = craft::tcp(TcpFacts::ACK, from, to);
            short[32] = header << 4;
            assert_eq!(plain(short), header == 5, "a TCP header of {header} words in a packet with 5");
        }
        let big = craft::udp(from, to, &[0; 3000]);
        assert!(craft::fragments(&big, 1, 1480).into_iter().all(|piece| !plain(piece)));
        let (bytes, offload) = craft::offloaded(big, Segmentation::Udp { size: 1000 });
        let packet = brief(&bytes, offload).unwrap();
        assert_eq!((packet.segments, packet.segment_length, packet.length), (3, 1028, 3028));
    }

    fn all_agree(bytes: &[u8], offload: Offload) -> Result<(), TestCaseError> {
        let parsed = parse_by_headers(bytes, offload);
        prop_assert_eq!(parse(bytes, offload), parsed);
        let of_parsed = parsed.ok().as_ref().and_then(Brief::of);
        prop_assert_eq!(brief(bytes, offload), of_parsed.filter(Brief::is_in_mid_stream));
        let any = if is_tcp(bytes) { segment_brief(bytes, offload) } else { udp_brief(bytes, offload) };
        prop_assert_eq!(any, of_parsed);
        if let Some(brief) = any {
            prop_assert_eq!(guess(bytes, LinkId(7)), brief.key(LinkId(7)).map(|key| (key, Opens::No)));
            prop_assert_eq!(Key::of(&parsed.unwrap(), LinkId(7)), brief.key(LinkId(7)));
        }
        Ok(())
    }

    #[test]
    fn agrees_with_the_parser_about_the_length_of_datagrams() {
        for (length, is_taken) in [(7_u16, false), (11, true), (12, true), (13, false)] {
            let mut bytes = craft::udp("10.0.2.20:5000", "203.0.113.5:53", b"data");
            bytes[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
            let bytes = craft::seal(bytes);
            all_agree(&bytes, Offload::default()).unwrap();
            assert_eq!(brief(&bytes, Offload::default()).is_some(), is_taken, "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// It agrees with the parser about every packet there is.
        #[test]
        fn agrees_with_the_parser(
            bytes in prop_oneof![
                generate::packets(),
                generate::damaged(prop_oneof![generate::packets(), generate::fragments()]),
            ],
            offload in prop_oneof![Just(Offload::default()), generate::offloads()],
        ) {
            all_agree(&bytes, offload)?;
        }

        #[test]
        fn agrees_with_the_parser_about_offloads(
            payload in 0..4000_u32, flags: u8, size in 0..2000_u16, udp: bool, padding in 0..9_usize, damage in prop::option::of((0..44_usize, any::<u8>())),
        ) {
            let (from, to) = ("10.0.2.20:5000", "203.0.113.5:443");
            let facts = TcpFacts { flags, sequence: 1, acknowledgement: 2, window: 3, payload };
            let (mut bytes, offload) = if udp {
                craft::offloaded(craft::udp(from, to, &vec![0; payload as usize]), Segmentation::Udp { size })
            } else {
                craft::offloaded(craft::tcp_segment(facts, from, to), Segmentation::TcpV4 { size })
            };
            bytes.extend(vec![0; padding]);
            if let Some((at, value)) = damage && let Some(byte) = bytes.get_mut(at) {
                *byte = value;
                bytes = craft::seal(bytes);
            }
            all_agree(&bytes, offload)?;
        }
    }
}
