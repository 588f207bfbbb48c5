//! How does the packet leave? Changes addresses, ports, TTL and the checksums that cover them.
//!
//! Last in the path: a walk decides the tuple that a packet leaves with, and
//! what that changes is computed once, into a [`Rewrite`], so that every packet
//! of the flow pays for a few additions. Checksums are updated, never computed
//! again (RFC 1624): the data of a super-packet is not read, and a packet that
//! came in damaged stays detectable.

use std::net::{IpAddr, Ipv4Addr};

use localvpc_api::trace::{Protocol, Tuple};
use zerocopy::FromBytes;

use crate::packet::{Checksum, Embedded, Kind, Packet, Quoted};
use crate::wire::checksum::{Sum, update, update_partial};
use crate::wire::{Icmp, Ipv4, Tcp, Udp};

/// What a walk changes in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
    /// What the new addresses add to a sum that covers them: IP header, partial TCP and UDP checksum.
    addresses: u16,
    /// What everything new adds to a complete transport checksum; for ICMP echo that is the identifier alone.
    transport: u16,
    ttl_decrement: u8,
    effect: Effect,
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let source = v4(to.source);
        let destination = v4(to.destination);
        let addresses = Sum::difference(&v4(from.source).octets(), &source.octets())
            .and(Sum::difference(&v4(from.destination).octets(), &destination.octets()));
        let source_port = word(from.source_port, to.source_port);
        let transport = match to.protocol {
            Protocol::ICMP => source_port,
            _ => addresses.and(source_port).and(word(from.destination_port, to.destination_port)),
        };
        Self {
            source,
            destination,
            source_port: to.source_port,
            destination_port: to.destination_port,
            addresses: addresses.fold(),
            transport: transport.fold(),
            ttl_decrement,
            effect: if from == to && ttl_decrement == 0 { Effect::Identity } else { Effect::Change },
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
                tcp.source_port.set(self.source_port);
                tcp.destination_port.set(self.destination_port);
                tcp.checksum.set(self.checksum(tcp.checksum.get(), packet.checksum));
            }
            Kind::Udp => {
                let (udp, _) = Udp::mut_from_prefix(transport).expect(PARSED);
                udp.source_port.set(self.source_port);
                udp.destination_port.set(self.destination_port);
                let checksum = udp.checksum.get();
                let updated = self.checksum(checksum, packet.checksum);
                udp.checksum.set(match packet.checksum {
                    Checksum::Complete => udp_checksum(checksum, updated),
                    Checksum::Partial { .. } => updated,
                });
            }
            Kind::IcmpEcho(_) => {
                let (icmp, _) = Icmp::mut_from_prefix(transport).expect(PARSED);
                icmp.identifier.set(self.source_port);
                icmp.checksum.set(update(icmp.checksum.get(), Sum::default().and_word(self.transport)));
            }
            Kind::IcmpError(_) | Kind::IcmpOther | Kind::Other => (),
        }
    }

    #[inline]
    fn apply_ip(&self, ip: &mut Ipv4) {
        let ttl = ip.ttl.saturating_sub(self.ttl_decrement);
        // The TTL is the upper half of a word that the checksum covers.
        let difference = word(u16::from(ip.ttl) << 8, u16::from(ttl) << 8).and_word(self.addresses);
        ip.ttl = ttl;
        ip.source = self.source.octets();
        ip.destination = self.destination.octets();
        ip.checksum.set(update(ip.checksum.get(), difference));
    }

    #[inline]
    fn checksum(&self, checksum: u16, state: Checksum) -> u16 {
        match state {
            Checksum::Complete => update(checksum, Sum::default().and_word(self.transport)),
            Checksum::Partial { .. } => update_partial(checksum, Sum::default().and_word(self.addresses)),
        }
    }
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
        let difference = Sum::default().and_word(self.transport);
        match about.quoted {
            Quoted::Tcp => {
                set(transport, 0, self.source_port);
                set(transport, 2, self.destination_port);
                if let Some(field) = transport.get_mut(Tcp::CHECKSUM..Tcp::CHECKSUM + 2) {
                    let checksum = u16::from_be_bytes([field[0], field[1]]);
                    field.copy_from_slice(&update(checksum, difference).to_be_bytes());
                }
            }
            Quoted::Udp => {
                let (udp, _) = Udp::mut_from_prefix(transport).expect(PARSED);
                udp.source_port.set(self.source_port);
                udp.destination_port.set(self.destination_port);
                let checksum = udp.checksum.get();
                udp.checksum.set(udp_checksum(checksum, update(checksum, difference)));
            }
            Quoted::IcmpEcho(_) => {
                let (icmp, _) = Icmp::mut_from_prefix(transport).expect(PARSED);
                icmp.identifier.set(self.source_port);
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

fn word(from: u16, to: u16) -> Sum {
    Sum::difference(&from.to_be_bytes(), &to.to_be_bytes())
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} in a rewrite: only IPv4 is carried yet"),
    }
}
