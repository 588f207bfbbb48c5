//! Parses a fragment: the first one has a transport header, the others have none.
//!
//! What cannot be part of an honest datagram ends here: fragments too small to hold the
//! header that rules are about (RFC 1858 §3, RFC 3128), or reaching beyond the largest datagram.

use localvpc_api::DiscardReason;
use localvpc_api::trace::Protocol;
use zerocopy::FromBytes;

use super::offload::{Checksum, Offload, Segmentation};
use super::{Kind, Packet, TcpFacts, echo, icmp_ports, tuple};
use crate::wire::{Icmp, Ipv4, Tcp, Udp, ipv4};

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the datagram, together with addresses and protocol.
    pub identification: u16,
    /// Where its data starts in that of the datagram, bytes; a multiple of 8.
    pub start: u16,
    /// Where its data ends, bytes; a multiple of 8 unless it is the last fragment.
    pub end: u16,
    /// Whether others come behind it.
    pub more: bool,
}

impl Fragment {
    /// Whether it has the transport header.
    pub const fn is_first(&self) -> bool {
        self.start == 0
    }
}

/// Parses a packet whose IP header, already checked, says that it is a fragment; `data` is what it has of the datagram.
#[cold]
#[inline(never)]
pub(super) fn parse(ip: &Ipv4, data: &[u8], offload: Offload) -> Result<Packet, DiscardReason> {
    // Whoever fragments completes the checksum first, and a super-packet is no fragment.
    if offload.checksum != Checksum::Complete || offload.segmentation != Segmentation::None {
        return Err(DiscardReason::HostileOffload);
    }
    let (start, more) = (ip.fragment_offset(), ip.more_fragments());
    if data.is_empty() || more && !data.len().is_multiple_of(8) {
        return Err(DiscardReason::MalformedFragment);
    }
    // Linux checks the same sum, which includes the header that the datagram gets back.
    let end = usize::from(start) + data.len();
    if end + Ipv4::LENGTH > usize::from(u16::MAX) {
        return Err(DiscardReason::OversizedFragment);
    }
    let (kind, ports) = match start {
        0 => first(Protocol(ip.protocol), data)?,
        // The header of TCP reaches at least this far; a fragment within it is an attack (RFC 1858 §3.2.2).
        1..20 if Protocol(ip.protocol) == Protocol::TCP => return Err(DiscardReason::TinyFragment),
        _ => (Kind::LaterFragment, (0, 0)),
    };
    if !ipv4::is_unicast(ip.source()) || !ipv4::is_unicast(ip.destination()) {
        return Err(DiscardReason::NotUnicast);
    }
    let length = ip.total_length.get();
    Ok(Packet {
        tuple: tuple(ip, ports),
        kind,
        window_scale: None,
        fragment: Some(Fragment {
            identification: ip.identification.get(),
            start,
            // Checked above: below 65,535.
            end: end as u16,
            more,
        }),
        ttl: ip.ttl,
        dont_fragment: ip.dont_fragment(),
        transport: Ipv4::LENGTH as u16,
        length: length.into(),
        segments: 1,
        segment_length: length,
        checksum: Checksum::Complete,
    })
}

/// What the first fragment carries. It must hold the whole header, with the options of TCP.
fn first(protocol: Protocol, data: &[u8]) -> Result<(Kind, (u16, u16)), DiscardReason> {
    match protocol {
        Protocol::TCP => {
            let (tcp, _) = Tcp::ref_from_prefix(data).map_err(|_| DiscardReason::TinyFragment)?;
            if tcp.header_length() > data.len() {
                return Err(DiscardReason::TinyFragment);
            }
            let (tcp, data) = Tcp::checked(data)?;
            let facts = TcpFacts {
                flags: tcp.flags,
                sequence: tcp.sequence.get(),
                acknowledgement: tcp.acknowledgement.get(),
                window: tcp.window.get(),
                payload: data.len() as u32,
            };
            Ok((Kind::Tcp(facts), (tcp.source_port.get(), tcp.destination_port.get())))
        }
        Protocol::UDP => {
            let (udp, _) = Udp::ref_from_prefix(data).map_err(|_| DiscardReason::TinyFragment)?;
            // The length counts the fragments that follow, too.
            if usize::from(udp.length.get()) <= data.len() {
                return Err(DiscardReason::MalformedTransportHeader);
            }
            Ok((Kind::Udp, (udp.source_port.get(), udp.destination_port.get())))
        }
        Protocol::ICMP => {
            let (icmp, _) = Icmp::checked(data)?;
            match echo(icmp) {
                Some(echo) => Ok((Kind::IcmpEcho(echo), icmp_ports(icmp))),
                // An error is at most 576 bytes long (RFC 1812 §4.3.2.3), and in pieces its checksum cannot be verified.
                None if icmp.is_error() => Err(DiscardReason::MalformedFragment),
                None => Ok((Kind::IcmpOther, icmp_ports(icmp))),
            }
        }
        _ => Ok((Kind::Other, (0, 0))),
    }
}
