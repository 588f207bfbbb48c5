//! How does the packet leave? Changes addresses, ports, TTL and the checksums that cover them.
//!
//! Last in the path: a walk decides the tuple that a packet leaves with, and
//! what that changes is computed once, into a [`Rewrite`], so that every packet
//! of the flow pays for a few additions. Checksums are updated, never computed
//! again (RFC 1624): the data of a super-packet is not read, and a packet that
//! came in damaged stays detectable.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::trace::{Protocol, Tuple};
use zerocopy::{FromBytes, FromZeros};

use crate::packet::{Brief, Carried, Checksum, Embedded, Kind, Packet, Quoted};
use crate::wire::checksum::{self, Sum, update, update_partial};
use crate::wire::{Icmp, Ipv4, Tcp, Udp};

/// What a walk changes in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct Rewrite {
    /// Source and destination address, source and destination port, as they stand in a packet whose IP header has no options.
    ends: [u8; 12],
    /// What the new addresses add to a sum that covers them: IP header, partial TCP and UDP checksum. Like checksums in a packet it
    /// is in network order, which sums do not depend on (RFC 1071 §2.B).
    addresses: [u8; 2],
    /// What everything new adds to a complete transport checksum; for ICMP echo that is the identifier alone.
    transport: [u8; 2],
    ttl_decrement: u8,
    effect: Effect,
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(u8)]
enum Effect {
    Identity,
    Change,
}

impl Rewrite {
    /// From the tuple that the packet has to the one that it leaves with; the protocol is the same in both.
    ///
    /// An ICMP echo takes its new identifier from `to.source_port`.
    ///
    /// # Panics
    ///
    /// If an address is not IPv4: the parser lets nothing else in yet.
    pub fn new(from: Tuple, to: Tuple, ttl_decrement: u8) -> Self {
        debug_assert_eq!(from.protocol, to.protocol, "a rewrite keeps the protocol");
        let (source, destination) = (v4(to.source), v4(to.destination));
        let ends = [(v4(from.source), source), (v4(from.destination), destination)];
        let ends = ends.map(|(from, to)| (u32::from(from), u32::from(to)));
        let both = |source: u16, destination: u16| u32::from(source) << 16 | u32::from(destination);
        let ports =
            (both(from.source_port, from.destination_port), both(to.source_port, to.destination_port));
        let changed = ends.iter().chain([&ports]).any(|(from, to)| from != to) || ttl_decrement > 0;
        let addresses = Sum::changes(ends);
        let transport = match to.protocol {
            Protocol::ICMP => word(from.source_port, to.source_port),
            _ => Sum::changes([ends[0], ends[1], ports]),
        };
        let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
        let ([i, j], [k, l]) = (to.source_port.to_be_bytes(), to.destination_port.to_be_bytes());
        Self {
            ends: [a, b, c, d, e, f, g, h, i, j, k, l],
            addresses: addresses.fold().to_be_bytes(),
            transport: transport.fold().to_be_bytes(),
            ttl_decrement,
            effect: if changed { Effect::Change } else { Effect::Identity },
        }
    }

    /// Whether packets leave as they came.
    pub const fn is_identity(&self) -> bool {
        matches!(self.effect, Effect::Identity)
    }

    /// Changes the bytes that `packet` was parsed from; an ICMP error needs [`rewrite_icmp_error`] instead.
    ///
    /// A TTL below the decrement becomes 0: whoever decides about the packet looks at it before.
    ///
    /// # Panics
    ///
    /// If `bytes` are not those that `packet` was parsed from.
    #[inline]
    pub fn apply(&self, bytes: &mut [u8], packet: &Packet) {
        if self.is_identity() {
            return;
        }
        let (ip, _) = Ipv4::mut_from_prefix(bytes).expect(PARSED);
        self.apply_ip(ip);
        let transport = &mut bytes[packet.transport.into()..];
        match packet.kind {
            Kind::Tcp(_) => {
                let (tcp, _) = Tcp::mut_from_prefix(transport).expect(PARSED);
                tcp.source_port.set(self.source_port());
                tcp.destination_port.set(self.destination_port());
                tcp.checksum.set(self.checksum(tcp.checksum.get(), packet.checksum));
            }
            Kind::Udp => {
                let (udp, _) = Udp::mut_from_prefix(transport).expect(PARSED);
                udp.source_port.set(self.source_port());
                udp.destination_port.set(self.destination_port());
                let checksum = udp.checksum.get();
                let updated = self.checksum(checksum, packet.checksum);
                udp.checksum.set(match packet.checksum {
                    Checksum::Complete => udp_checksum(checksum, updated),
                    Checksum::Partial { .. } => updated,
                });
            }
            Kind::IcmpEcho(_) => {
                let (icmp, _) = Icmp::mut_from_prefix(transport).expect(PARSED);
                icmp.identifier.set(self.source_port());
                icmp.checksum.set(update(icmp.checksum.get(), self.transport()));
            }
            Kind::IcmpError(_) | Kind::IcmpOther | Kind::Other | Kind::LaterFragment => (),
        }
    }

    /// The same for a packet of a cached flow, whose TTL is above the decrement.
    ///
    /// # Panics
    ///
    /// If `bytes` are not those that `packet` was read from.
    #[inline(always)]
    pub fn apply_brief(&self, bytes: &mut [u8], packet: &Brief) {
        if self.is_identity() {
            return;
        }
        match packet.carried {
            Carried::Tcp(_) => {
                let bytes: &mut [u8; Ipv4::LENGTH + Tcp::LENGTH] = bytes.first_chunk_mut().expect(PARSED);
                self.apply_ends(bytes);
                let field = Ipv4::LENGTH + Tcp::CHECKSUM;
                let checksum = u16::from_ne_bytes([bytes[field], bytes[field + 1]]);
                let checksum = self.transport_checksum(checksum, packet.checksum);
                bytes[field..field + 2].copy_from_slice(&checksum.to_ne_bytes());
            }
            Carried::Udp => {
                let bytes: &mut [u8; Ipv4::LENGTH + Udp::LENGTH] = bytes.first_chunk_mut().expect(PARSED);
                self.apply_ends(bytes);
                let field = Ipv4::LENGTH + Udp::CHECKSUM;
                let before = u16::from_ne_bytes([bytes[field], bytes[field + 1]]);
                let updated = self.transport_checksum(before, packet.checksum);
                let checksum = match packet.checksum {
                    Checksum::Complete => udp_checksum(before, updated),
                    Checksum::Partial { .. } => updated,
                };
                bytes[field..field + 2].copy_from_slice(&checksum.to_ne_bytes());
            }
        }
    }

    /// Addresses, ports, TTL, IP checksum; the ports stand right behind a header without options.
    #[inline(always)]
    fn apply_ends<const N: usize>(&self, bytes: &mut [u8; N]) {
        // The TTL is the upper half of a word that the checksum covers: what a decrement adds to it is a constant.
        let ttl = if self.ttl_decrement == 0 { 0 } else { !u16::from_ne_bytes([self.ttl_decrement, 0]) };
        let before = u16::from_ne_bytes([bytes[10], bytes[11]]);
        let after = !checksum::add(!before, checksum::add(u16::from_ne_bytes(self.addresses), ttl));
        bytes[8] -= self.ttl_decrement;
        bytes[10..12].copy_from_slice(&after.to_ne_bytes());
        bytes[12..24].copy_from_slice(&self.ends);
    }

    /// Of a checksum and its update as they stand in memory.
    #[inline(always)]
    fn transport_checksum(&self, checksum: u16, state: Checksum) -> u16 {
        match state {
            Checksum::Complete => !checksum::add(!checksum, u16::from_ne_bytes(self.transport)),
            Checksum::Partial { .. } => checksum::add(checksum, u16::from_ne_bytes(self.addresses)),
        }
    }

    #[inline]
    fn apply_ip(&self, ip: &mut Ipv4) {
        let ttl = ip.ttl.saturating_sub(self.ttl_decrement);
        // The TTL is the upper half of a word that the checksum covers.
        let difference = word(u16::from(ip.ttl) << 8, u16::from(ttl) << 8).and(self.addresses());
        ip.ttl = ttl;
        ip.source.copy_from_slice(&self.ends[..4]);
        ip.destination.copy_from_slice(&self.ends[4..8]);
        ip.checksum.set(update(ip.checksum.get(), difference));
    }

    #[inline]
    fn checksum(&self, checksum: u16, state: Checksum) -> u16 {
        match state {
            Checksum::Complete => update(checksum, self.transport()),
            Checksum::Partial { .. } => update_partial(checksum, self.addresses()),
        }
    }

    #[inline]
    fn addresses(&self) -> Sum {
        Sum::default().and_word(u16::from_be_bytes(self.addresses))
    }

    #[inline]
    fn transport(&self) -> Sum {
        Sum::default().and_word(u16::from_be_bytes(self.transport))
    }

    #[inline]
    fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.ends[8], self.ends[9]])
    }

    #[inline]
    fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.ends[10], self.ends[11]])
    }
}

/// Gives a packet another identification.
///
/// # Panics
///
/// If `bytes` are shorter than an IPv4 header.
pub fn set_identification(bytes: &mut [u8], identification: u16) {
    let (ip, _) = Ipv4::mut_from_prefix(bytes).expect(PARSED);
    let difference = word(ip.identification.get(), identification);
    ip.identification.set(identification);
    ip.checksum.set(update(ip.checksum.get(), difference));
}

/// Changes an ICMP error and the packet that it quotes (RFC 5508 REQ-4, REQ-5).
///
/// Of `outer` only the addresses count. `embedded` is the tuple that the quoted packet
/// had where the error is delivered, in the direction in which that packet went. The quoted
/// headers get back the checksums that they had there, as far as they are quoted; the ICMP checksum is computed anew.
/// Does nothing to a packet that is no ICMP error.
///
/// # Panics
///
/// If `bytes` are not those that `packet` was parsed from, or an address is not IPv4.
pub fn rewrite_icmp_error(
    bytes: &mut [u8],
    packet: &Packet,
    outer: Tuple,
    embedded: Tuple,
    ttl_decrement: u8,
) {
    let Kind::IcmpError(about) = packet.kind else { return };
    let bytes = &mut bytes[..packet.length as usize];
    let (ip, _) = Ipv4::mut_from_prefix(bytes).expect(PARSED);
    Rewrite::new(packet.tuple, outer, ttl_decrement).apply_ip(ip);

    let quotation = Rewrite::new(about.tuple, embedded, 0);
    let (quoted_ip, _) = Ipv4::mut_from_prefix(&mut bytes[about.offset.into()..]).expect(PARSED);
    quotation.apply_ip(quoted_ip);
    quotation.apply_quoted(&mut bytes[about.transport.into()..], &about);

    let message = &mut bytes[packet.transport.into()..];
    let (icmp, _) = Icmp::mut_from_prefix(message).expect(PARSED);
    icmp.checksum.set(0);
    let checksum = Sum::of(message).checksum();
    let (icmp, _) = Icmp::mut_from_prefix(message).expect(PARSED);
    icmp.checksum.set(checksum);
}

impl Rewrite {
    /// Changes a quoted transport header, of which 8 bytes are certain to be there.
    fn apply_quoted(&self, transport: &mut [u8], about: &Embedded) {
        let difference = self.transport();
        match about.quoted {
            Quoted::Tcp => {
                transport[..4].copy_from_slice(&self.ends[8..]);
                if let Some(field) = transport.get_mut(Tcp::CHECKSUM..Tcp::CHECKSUM + 2) {
                    let checksum = u16::from_be_bytes([field[0], field[1]]);
                    field.copy_from_slice(&update(checksum, difference).to_be_bytes());
                }
            }
            Quoted::Udp => {
                let (udp, _) = Udp::mut_from_prefix(transport).expect(PARSED);
                udp.source_port.set(self.source_port());
                udp.destination_port.set(self.destination_port());
                let checksum = udp.checksum.get();
                udp.checksum.set(udp_checksum(checksum, update(checksum, difference)));
            }
            Quoted::IcmpEcho(_) => {
                let (icmp, _) = Icmp::mut_from_prefix(transport).expect(PARSED);
                icmp.identifier.set(self.source_port());
                icmp.checksum.set(update(icmp.checksum.get(), difference));
            }
            Quoted::Other => (),
        }
    }
}

/// Why a header must be where the parser found it.
const PARSED: &str = "the bytes are those that the packet was parsed from";

/// RFC 768: a checksum of zero says that there is none, and stays; a computed zero is sent as ones.
const fn udp_checksum(before: u16, after: u16) -> u16 {
    match (before, after) {
        (0, _) => 0,
        (_, 0) => 0xFFFF,
        (_, checksum) => checksum,
    }
}

#[inline]
fn word(from: u16, to: u16) -> Sum {
    Sum::change(from.into(), to.into())
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} in a rewrite: only IPv4 is carried yet"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Echo, Offload, Segmentation, TcpFacts, parse};
    use crate::testing::{craft, generate};
    use crate::wire::checksum;

    fn rewritten(mut bytes: Vec<u8>, offload: Offload, to: Tuple, ttl_decrement: u8) -> Vec<u8> {
        let packet = parse(&bytes, offload).unwrap();
        Rewrite::new(packet.tuple, to, ttl_decrement).apply(&mut bytes, &packet);
        bytes
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Rewrite>() <= 24);
    }

    #[test]
    fn nothing_to_do_is_an_identity() {
        let tuple = craft::tuple(Protocol::TCP, "10.0.2.20:40000", "198.51.100.10:443");
        assert!(Rewrite::new(tuple, tuple, 0).is_identity());
        assert!(!Rewrite::new(tuple, tuple, 1).is_identity());
        assert!(!Rewrite::new(tuple, Tuple { source_port: 1, ..tuple }, 0).is_identity());
        let syn = craft::first(tuple);
        assert_eq!(rewritten(syn.clone(), Offload::default(), tuple, 0), syn);
    }

    #[test]
    fn literal_source_translation() {
        let syn = craft::tcp(TcpFacts::SYN, "10.0.2.20:40000", "198.51.100.10:443");
        let to = craft::tuple(Protocol::TCP, "203.0.113.20:1024", "198.51.100.10:443");
        let out = rewritten(syn, Offload::default(), to, 1);
        assert_eq!(out[8], 63);
        assert_eq!(out[12..24], [203, 0, 113, 20, 198, 51, 100, 10, 0x04, 0x00, 0x01, 0xBB]);
        assert!(checksum::verify(&out[..20]));
        assert_eq!(parse(&out, Offload::default()).unwrap().tuple, to);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_and_a_computed_one_becomes_ones() {
        let (from, to) = ("10.0.2.20:5000", "198.51.100.10:53");
        let tuple = craft::tuple(Protocol::UDP, "203.0.113.20:1024", to);
        let mut none = craft::udp(from, to, b"question");
        none[26..28].fill(0);
        assert_eq!(rewritten(none, Offload::default(), tuple, 0)[26..28], [0, 0]);

        // With its own checksum as data, a packet sums to minus zero.
        let checksum = craft::udp("203.0.113.20:1024", to, &[0, 0])[26..28].to_vec();
        let out = rewritten(craft::udp(from, to, &checksum), Offload::default(), tuple, 0);
        assert_eq!(out[26..28], [0xFF, 0xFF]);
        let back = craft::tuple(Protocol::UDP, from, to);
        assert_eq!(rewritten(out, Offload::default(), back, 0), craft::udp(from, to, &checksum));
    }

    #[test]
    fn a_partial_udp_checksum_is_patched_even_where_it_is_all_ones_or_zero() {
        let to = craft::tuple(Protocol::UDP, "203.0.113.20:1024", "198.51.100.10:53");
        let (bytes, offload) =
            craft::offloaded(craft::udp("10.0.2.20:5000", "198.51.100.10:53", &[]), Segmentation::None);
        let (expected, _) = craft::offloaded(craft::first(to), Segmentation::None);
        // The data differs by 5 bytes of length, which the pseudo-header holds.
        let length = u16::from_be_bytes([expected[26], expected[27]]) - 5;
        assert_eq!(rewritten(bytes, offload, to, 0)[26..28], length.to_be_bytes());
    }

    #[test]
    fn other_icmp_and_protocols_change_their_addresses_only() {
        let timestamp = craft::icmp_message(13, 0, [1, 2, 3, 4], "10.0.0.4", "10.0.0.5", &[7; 12]);
        let packet = parse(&timestamp, Offload::default()).unwrap();
        let to = Tuple { destination: "10.0.0.9".parse().unwrap(), ..packet.tuple };
        let expected = craft::icmp_message(13, 0, [1, 2, 3, 4], "10.0.0.4", "10.0.0.9", &[7; 12]);
        assert_eq!(rewritten(timestamp, Offload::default(), to, 0), expected);

        let gre = craft::other(Protocol(47), "10.0.0.4", "10.0.0.5", &[7; 12]);
        let to = Tuple { protocol: Protocol(47), source_port: 0, destination_port: 0, ..to };
        let expected = craft::other(Protocol(47), "10.0.0.4", "10.0.0.9", &[7; 12]);
        assert_eq!(rewritten(gre, Offload::default(), to, 0), expected);
    }

    #[test]
    fn padding_behind_an_icmp_error_is_not_summed() {
        let about = craft::udp("203.0.113.20:1024", "198.51.100.10:53", b"question");
        let mut bytes = craft::port_unreachable("198.51.100.10", &about);
        let length = bytes.len();
        bytes.extend_from_slice(&[0xEE; 7]);
        let packet = parse(&bytes, Offload::default()).unwrap();
        let Kind::IcmpError(embedded) = packet.kind else { panic!("an error") };
        let inside = craft::tuple(Protocol::UDP, "10.0.2.20:5000", "198.51.100.10:53");
        let outer = Tuple { destination: inside.source, ..packet.tuple };
        rewrite_icmp_error(&mut bytes, &packet, outer, Tuple { ..inside }, 0);
        let expected = craft::port_unreachable(
            "198.51.100.10",
            &craft::udp("10.0.2.20:5000", "198.51.100.10:53", b"question"),
        );
        assert_eq!(bytes[..length], expected);
        assert_eq!(bytes[length..], [0xEE; 7]);
        assert_ne!(embedded.tuple, inside);
    }

    fn ends() -> impl Strategy<Value = [(Ipv4Addr, u16); 2]> {
        let address = (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d));
        [(address.clone(), any::<u16>()), (address, any::<u16>())]
    }

    /// The same packet for any ends. An echo has one identifier, that of the first end.
    fn build(which: u8, [source, destination]: [(Ipv4Addr, u16); 2], data: &[u8]) -> Vec<u8> {
        let facts = TcpFacts {
            flags: TcpFacts::ACK,
            sequence: 0xFFFF_FFF0,
            acknowledgement: 5,
            window: 100,
            payload: data.len() as u32,
        };
        match which {
            0 => craft::tcp_segment(facts, source, destination),
            1 => craft::udp(source, destination, data),
            _ => craft::ping(Echo::Request, &source.0.to_string(), &destination.0.to_string(), source.1, 9),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn an_update_equals_a_packet_built_anew(
            which in 0u8..3, from in ends(), to in ends(), data in vec(any::<u8>(), 0..100), ttl_decrement in 0u8..3,
        ) {
            let expected = build(which, to, &data);
            let tuple = parse(&expected, Offload::default()).unwrap().tuple;
            let out = rewritten(build(which, from, &data), Offload::default(), tuple, ttl_decrement);
            prop_assert_eq!(out, craft::with_ttl(expected, craft::TTL - ttl_decrement));
        }

        #[test]
        fn a_partial_update_equals_a_packet_built_anew(
            which in 0u8..2, from in ends(), to in ends(), data in vec(any::<u8>(), 0..100), size in 1u16..50,
        ) {
            let segmentation = match which {
                0 => Segmentation::TcpV4 { size },
                _ => Segmentation::Udp { size },
            };
            let (bytes, offload) = craft::offloaded(build(which, from, &data), segmentation);
            let (expected, _) = craft::offloaded(build(which, to, &data), segmentation);
            let tuple = parse(&expected, offload).unwrap().tuple;
            prop_assert_eq!(rewritten(bytes, offload, tuple, 0), expected);
        }

        #[test]
        fn a_damaged_packet_stays_damaged(which in 0u8..3, from in ends(), to in ends(), data in vec(any::<u8>(), 1..100), bit in 0u32..8) {
            let clean = build(which, to, &data);
            let tuple = parse(&clean, Offload::default()).unwrap().tuple;
            let mut damaged = build(which, from, &data);
            *damaged.last_mut().unwrap() ^= 1 << bit;
            let mut expected = clean;
            *expected.last_mut().unwrap() ^= 1 << bit;
            prop_assert_eq!(rewritten(damaged, Offload::default(), tuple, 0), expected);
        }

        #[test]
        fn whatever_was_parsed_can_be_rewritten(
            mut bytes in generate::damaged(prop_oneof![generate::packets(), generate::fragments()]), offload in generate::offloads(), ends in ends(),
        ) {
            if let Ok(packet) = parse(&bytes, offload) {
                let mut to = Tuple { source: ends[0].0.into(), destination: ends[1].0.into(), ..packet.tuple };
                if matches!(packet.kind, Kind::Tcp(_) | Kind::Udp) {
                    (to.source_port, to.destination_port) = (ends[0].1, ends[1].1);
                }
                if let Some(brief) = Brief::of(&packet).filter(|brief| brief.ttl > 1) {
                    let mut briefly = bytes.clone();
                    let rewrite = Rewrite::new(packet.tuple, to, 1);
                    rewrite.apply_brief(&mut briefly, &brief);
                    let mut fully = bytes.clone();
                    rewrite.apply(&mut fully, &packet);
                    prop_assert_eq!(briefly, fully);
                }
                if let Kind::IcmpError(about) = packet.kind {
                    let embedded = Tuple { source: to.destination, ..about.tuple };
                    rewrite_icmp_error(&mut bytes, &packet, to, embedded, 1);
                } else {
                    Rewrite::new(packet.tuple, to, 1).apply(&mut bytes, &packet);
                }
                let after = parse(&bytes, offload).unwrap();
                prop_assert_eq!(after.tuple, to);
                prop_assert_eq!(after.ttl, packet.ttl.saturating_sub(1));
            }
        }

        #[test]
        fn an_icmp_error_is_translated_there_and_back(
            which in 0u8..3, inside in ends(), outside in ends(), data in vec(any::<u8>(), 0..100),
            router in 1u8..100, quoted in 28usize..200,
        ) {
            // A quotation that ends within the TCP checksum leaves half of one, which nobody can use or update.
            prop_assume!(which != 0 || quoted != 37);
            let router = format!("{router}.9.9.9");
            let error = |ends| {
                let about = build(which, ends, &data);
                craft::icmp_message(11, 0, [0; 4], &router, &ends_source(ends), &about[..quoted.min(about.len())])
            };
            let (before, expected) = (error(outside), error(inside));
            let (packet, wanted) =
                (parse(&before, Offload::default()).unwrap(), parse(&expected, Offload::default()).unwrap());
            let (Kind::IcmpError(was), Kind::IcmpError(is)) = (packet.kind, wanted.kind) else { panic!("errors") };

            let mut bytes = before.clone();
            rewrite_icmp_error(&mut bytes, &packet, wanted.tuple, is.tuple, 0);
            prop_assert_eq!(&bytes, &expected);
            rewrite_icmp_error(&mut bytes, &wanted, packet.tuple, was.tuple, 0);
            prop_assert_eq!(&bytes, &before);
        }
    }

    fn ends_source(ends: [(Ipv4Addr, u16); 2]) -> String {
        ends[0].0.to_string()
    }
}
