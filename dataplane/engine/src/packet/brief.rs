//! Reads of a packet what the flow cache needs, and no more: the fast path of parsing.
//!
//! A [`Brief`] exists of exactly those packets that a cache may decide: whole IPv4 packets without options, UDP or TCP in
//! mid-stream, that [`parse`](super::parse) takes too. Everything else, good or bad, is left to the parser.

use localvpc_api::LinkId;
use localvpc_api::trace::Protocol;

use super::{Checksum, Kind, Load, Offload, Packet, Segmentation, TcpFacts};
use crate::hash::Seed;
use crate::wire::checksum;

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
    /// A TCP segment without SYN, FIN and RST.
    Tcp(TcpFacts),
    /// A UDP datagram.
    Udp,
}

/// A flow on a link: addresses, ports, link, protocol.
///
/// IPv6 flows will have a cache of their own with a wider key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromZeros)]
pub struct Key {
    addresses: u64,
    rest: u64,
}

/// Links with greater ids are not cached: 2²⁴ of them in one lab's life are beyond what it is for.
pub const MAX_LINK: u32 = 1 << 24;

const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;

/// Reads a packet that a link delivered; `None` if it is not one that a flow cache may decide.
#[inline(always)]
pub fn brief(bytes: &[u8], offload: Offload) -> Option<Brief> {
    let head: &[u8; IP + UDP] = bytes.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let length = word(2);
    // Version 4, no options; no fragment; honest length.
    if head[0] != 0x45 || word(6) & 0x3FFF != 0 || usize::from(length) > bytes.len() {
        return None;
    }
    let ip: &[u8; IP] = head.first_chunk()?;
    if !(is_unicast(ip[12]) & is_unicast(ip[16])) || !checksum::verify_header(ip) {
        return None;
    }
    let room = usize::from(length).checked_sub(IP)?;
    let (carried, headers) = match head[9] {
        6 => {
            let tcp: &[u8; IP + TCP] = bytes.first_chunk()?;
            let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            let header = usize::from(tcp[IP + 12] >> 4) * 4;
            let flags = tcp[IP + 13];
            if header < TCP || room < header || flags & (TcpFacts::SYN | TcpFacts::FIN | TcpFacts::RST) != 0 {
                return None;
            }
            let facts = TcpFacts {
                flags,
                sequence: number(IP + 4),
                acknowledgement: number(IP + 8),
                window: u16::from_be_bytes([tcp[IP + 14], tcp[IP + 15]]),
                payload: (room - header) as u32,
            };
            (Carried::Tcp(facts), IP + header)
        }
        17 => {
            let datagram = usize::from(word(IP + 4));
            if datagram < UDP || room < datagram {
                return None;
            }
            (Carried::Udp, IP + UDP)
        }
        _ => return None,
    };
    let (segments, segment_length) = match offload {
        Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, .. } => (1, length),
        _ => offload.check(Protocol(head[9]), length, headers as u16).ok()?,
    };
    Some(Brief {
        addresses: u64::from_ne_bytes(*ip.last_chunk()?),
        ports: u32::from_ne_bytes([head[IP], head[IP + 1], head[IP + 2], head[IP + 3]]),
        carried,
        ttl: ip[8],
        segments,
        segment_length,
        length,
        checksum: offload.checksum,
    })
}

/// As [`ipv4::is_unicast`](crate::wire::ipv4::is_unicast) says, by the first byte.
#[inline]
fn is_unicast(first: u8) -> bool {
    first.wrapping_sub(1) < 223 && first != 127
}

impl Brief {
    /// The same of a packet that was parsed already.
    pub fn of(packet: &Packet) -> Option<Self> {
        let carried = match packet.kind {
            Kind::Tcp(facts) if facts.flags & (TcpFacts::SYN | TcpFacts::FIN | TcpFacts::RST) == 0 => {
                Carried::Tcp(facts)
            }
            Kind::Udp => Carried::Udp,
            _ => return None,
        };
        let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) =
            (packet.tuple.source, packet.tuple.destination)
        else {
            return None;
        };
        if packet.fragment.is_some() {
            return None;
        }
        let [a, b, c, d] = source.octets();
        let [e, f, g, h] = destination.octets();
        let ([i, j], [k, l]) =
            (packet.tuple.source_port.to_be_bytes(), packet.tuple.destination_port.to_be_bytes());
        Some(Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: u32::from_ne_bytes([i, j, k, l]),
            carried,
            ttl: packet.ttl,
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
        (link.0 < MAX_LINK).then(|| Key {
            addresses: self.addresses,
            rest: u64::from(self.ports) << 32 | u64::from(link.0) << 8 | u64::from(tcp),
        })
    }

    /// What its connections count.
    #[inline]
    pub fn load(&self) -> Load {
        Load { segments: self.segments, length: self.length.into() }
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

impl Key {
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
    use crate::packet::parse;
    use crate::testing::{craft, generate};

    #[test]
    fn is_of_mid_stream_tcp_and_udp_only() {
        let (from, to) = ("10.0.2.20:5000", "203.0.113.5:443");
        let plain = |bytes: Vec<u8>| brief(&bytes, Offload::default()).is_some();
        assert!(plain(craft::tcp(TcpFacts::ACK, from, to)) && plain(craft::udp(from, to, b"data")));
        for flags in [TcpFacts::SYN, TcpFacts::FIN | TcpFacts::ACK, TcpFacts::RST] {
            assert!(!plain(craft::tcp(flags, from, to)));
        }
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
            let parsed = parse(&bytes, offload).ok().and_then(|packet| Brief::of(&packet));
            prop_assert_eq!(brief(&bytes, offload), parsed);
        }

        #[test]
        fn agrees_with_the_parser_about_offloads(
            payload in 0..4000_u32, size in 0..2000_u16, udp: bool, padding in 0..9_usize, damage in prop::option::of((0..44_usize, any::<u8>())),
        ) {
            let (from, to) = ("10.0.2.20:5000", "203.0.113.5:443");
            let facts = TcpFacts { flags: TcpFacts::ACK, sequence: 1, acknowledgement: 2, window: 3, payload };
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
            let parsed = parse(&bytes, offload).ok().and_then(|packet| Brief::of(&packet));
            prop_assert_eq!(brief(&bytes, offload), parsed);
        }
    }
}
