//! Holds what a TUN's virtio header says against the packet behind it.

use localvpc_api::DiscardReason;
use localvpc_api::trace::Protocol;

use crate::wire::{Ipv4, Tcp, Udp};

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

impl Offload {
    /// Holds the virtio header against the packet; says how many packets it stands for, and the length of the largest.
    ///
    /// `headers` counts the bytes before the data. Linux keeps the true total length in the IP header of a
    /// super-packet (more than 65,535 bytes would need BIG TCP, which a TUN does not offer).
    #[inline]
    pub(super) fn check(
        self,
        protocol: Protocol,
        length: u16,
        headers: u16,
    ) -> Result<(u16, u16), DiscardReason> {
        let hostile = Err(DiscardReason::HostileOffload);
        if let Checksum::Partial { start, offset } = self.checksum {
            let expected = match protocol {
                Protocol::TCP => Tcp::CHECKSUM,
                Protocol::UDP => Udp::CHECKSUM,
                _ => return hostile,
            };
            if usize::from(start) != Ipv4::LENGTH || usize::from(offset) != expected {
                return hostile;
            }
        }
        let size = match (self.segmentation, protocol) {
            (Segmentation::None, _) => return Ok((1, length)),
            (Segmentation::TcpV4 { size }, Protocol::TCP) | (Segmentation::Udp { size }, Protocol::UDP) => {
                size
            }
            _ => return hostile,
        };
        if size == 0 || self.checksum == Checksum::Complete {
            return hostile;
        }
        let data = length - headers;
        Ok((data.div_ceil(size).max(1), headers + data.min(size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Echo, TcpFacts, parse};
    use crate::testing::craft;

    const PLAIN: Offload =
        Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, ecn: false };

    fn partial(start: u16, offset: u16, segmentation: Segmentation) -> Offload {
        Offload { checksum: Checksum::Partial { start, offset }, segmentation, ecn: false }
    }

    fn data(payload: u32) -> TcpFacts {
        TcpFacts { flags: TcpFacts::ACK, sequence: 7, acknowledgement: 9, window: 500, payload }
    }

    #[test]
    fn a_super_packet_stands_for_its_segments() {
        let big = craft::tcp_segment(data(65_495), "10.0.0.4:1", "10.0.0.5:2");
        assert_eq!(big.len(), 65_535);
        let (big, offload) = craft::offloaded(big, Segmentation::TcpV4 { size: 1448 });
        let packet = parse(&big, offload).unwrap();
        assert_eq!((packet.length, packet.segments, packet.segment_length), (65_535, 46, 1488));
        assert_eq!(packet.checksum, Checksum::Partial { start: 20, offset: 16 });

        let datagrams = craft::udp("10.0.0.4:1", "10.0.0.5:2", &[0; 4000]);
        let (datagrams, offload) = craft::offloaded(datagrams, Segmentation::Udp { size: 1000 });
        let packet = parse(&datagrams, offload).unwrap();
        assert_eq!((packet.length, packet.segments, packet.segment_length), (4028, 4, 1028));

        let small = craft::tcp_segment(data(100), "10.0.0.4:1", "10.0.0.5:2");
        let (small, offload) = craft::offloaded(small, Segmentation::TcpV4 { size: 1448 });
        let packet = parse(&small, offload).unwrap();
        assert_eq!((packet.segments, packet.segment_length), (1, 140));

        let (empty, offload) = craft::offloaded(
            craft::tcp(TcpFacts::ACK, "10.0.0.4:1", "10.0.0.5:2"),
            Segmentation::TcpV4 { size: 9 },
        );
        assert_eq!(parse(&empty, offload).unwrap().segments, 1);
    }

    #[test]
    fn a_virtio_header_that_contradicts_its_packet_is_hostile() {
        let tcp = craft::tcp_segment(data(3000), "10.0.0.4:1", "10.0.0.5:2");
        let udp = craft::udp("10.0.0.4:1", "10.0.0.5:2", &[0; 3000]);
        let ping = craft::ping(Echo::Request, "10.0.0.4", "10.0.0.5", 1, 1);
        let gre = craft::other(Protocol(47), "10.0.0.4", "10.0.0.5", &[0; 100]);
        let tcp_v4 = Segmentation::TcpV4 { size: 1000 };
        let none = Segmentation::None;
        let hostile = [
            (&tcp, partial(20, 6, none), "the checksum of UDP"),
            (&tcp, partial(20, 15, none), "an odd offset"),
            (&tcp, partial(24, 16, none), "a start inside the header"),
            (&tcp, partial(0, 36, none), "the same place, summed from the IP header"),
            (&tcp, partial(0, 10, none), "the IP header checksum"),
            (&tcp, partial(u16::MAX, u16::MAX, none), "far outside"),
            (&udp, partial(20, 16, none), "the checksum of TCP"),
            (&ping, partial(20, 2, none), "ICMP has no pseudo-header"),
            (&gre, partial(20, 16, none), "no checksum known"),
            (&tcp, partial(20, 16, Segmentation::TcpV4 { size: 0 }), "size 0"),
            (&udp, partial(20, 6, Segmentation::Udp { size: 0 }), "size 0"),
            (&udp, partial(20, 6, tcp_v4), "TCP segments of UDP"),
            (&tcp, partial(20, 16, Segmentation::Udp { size: 1000 }), "datagrams of TCP"),
            (&tcp, partial(20, 16, Segmentation::TcpV6 { size: 1000 }), "IPv6 segments of IPv4"),
            (&tcp, Offload { segmentation: tcp_v4, ..PLAIN }, "segments share no complete checksum"),
            (&ping, Offload { segmentation: tcp_v4, ..PLAIN }, "TCP segments of ICMP"),
        ];
        for (bytes, offload, why) in hostile {
            assert_eq!(parse(bytes, offload), Err(DiscardReason::HostileOffload), "{why}");
        }
        assert!(parse(&tcp, partial(20, 16, tcp_v4)).is_ok());
        assert!(parse(&udp, partial(20, 6, none)).is_ok());
    }
}
