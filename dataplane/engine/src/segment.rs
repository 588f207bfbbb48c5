//! Completes checksums and splits super-packets in software, in place, for links that take neither.
//!
//! A super-packet is split from its front: the headers of each segment are written
//! right before its payload, over the payload that has been sent already. Nothing is
//! copied but headers, and nothing is allocated.

use std::io;

use crate::packet::{Checksum, Offload, Segmentation};

/// Why a packet cannot be segmented: its offload does not fit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit(&'static str);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unfit {}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> Self {
        Self::new(io::ErrorKind::InvalidData, unfit)
    }
}

/// Calls `emit` with each packet that `packet` stands for, checksums complete. `packet` is undefined afterwards.
///
/// # Errors
///
/// [`Unfit`] when the offload does not fit the packet, or is for IPv6, which is
/// not carried; otherwise the first error of `emit`, which ends it.
pub fn segment<E: From<Unfit>>(
    packet: &mut [u8],
    offload: Offload,
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let size = match (offload.segmentation, offload.checksum) {
        (Segmentation::None, Checksum::Complete) => return emit(packet),
        (Segmentation::None, Checksum::Partial { start, offset }) => {
            complete(packet, usize::from(start), usize::from(offset))?;
            return emit(packet);
        }
        (Segmentation::TcpV6 { .. }, _) => return Err(Unfit("IPv6 is not carried").into()),
        (Segmentation::TcpV4 { size } | Segmentation::Udp { size }, _) => usize::from(size).max(1),
    };
    let headers = Headers::of(packet).ok_or(Unfit("no TCP or UDP header over IPv4"))?;
    let fits = match offload.segmentation {
        Segmentation::Udp { .. } => headers.protocol == UDP,
        _ => headers.protocol == TCP,
    };
    if !fits {
        return Err(Unfit("the segmentation is for another protocol").into());
    }
    let mut template = [0; MAX_HEADERS];
    template[..headers.payload].copy_from_slice(&packet[..headers.payload]);
    let template = &template[..headers.payload];
    let mut index = 0;
    let mut payload = headers.payload;
    loop {
        let end = packet.len().min(payload + size);
        let position = if end == packet.len() { Position::Last } else { Position::Earlier };
        let segment = &mut packet[payload - headers.payload..end];
        segment[..headers.payload].copy_from_slice(template);
        headers.finish(segment, index, index as usize * size, position)?;
        emit(segment)?;
        if position == Position::Last {
            return Ok(());
        }
        index += 1;
        payload = end;
    }
}

/// Where the headers of an IPv4 packet with TCP or UDP end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IANA number: TCP or UDP.
    pub protocol: u8,
    /// Where the transport header starts.
    pub transport: usize,
    /// Where the payload starts.
    pub payload: usize,
}

impl Headers {
    /// Finds them; `None` if `packet` is anything else or too short.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let transport = usize::from(first & 0xf) * 4;
        let protocol = *packet.get(9)?;
        let length = match protocol {
            TCP => usize::from(*packet.get(transport + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        let payload = transport + length;
        let sound = first >> 4 == 4
            && transport >= 20
            && length >= if protocol == TCP { 20 } else { 8 }
            && payload <= packet.len();
        sound.then_some(Self { protocol, transport, payload })
    }

    /// Makes the copied headers those of segment `index`, whose payload starts `skipped` bytes into the stream.
    fn finish(self, segment: &mut [u8], index: u16, skipped: usize, position: Position) -> Result<(), Unfit> {
        let length = u16::try_from(segment.len()).map_err(|_| Unfit("a segment beyond 65,535 bytes"))?;
        put(segment, 2, length);
        // Each segment is a datagram of its own and needs an identification of its own (RFC 6864 §4).
        put(segment, 4, u16_at(segment, 4).wrapping_add(index));
        put(segment, 10, 0);
        let sum = !fold(sum_of(&segment[..self.transport]));
        put(segment, 10, sum);
        let checksum = match self.protocol {
            TCP => {
                let at = self.transport + 4;
                let sequence =
                    u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
                segment[at..at + 4].copy_from_slice(&sequence.wrapping_add(skipped as u32).to_be_bytes());
                let flags = self.transport + 13;
                if position == Position::Earlier {
                    segment[flags] &= !(TCP_FIN | TCP_PSH);
                }
                if index > 0 {
                    // Congestion window reduced is said once (RFC 3168 §6.1.2).
                    segment[flags] &= !TCP_CWR;
                }
                16
            }
            _ => {
                put(segment, self.transport + 4, length - self.transport as u16);
                6
            }
        };
        let transport_length = u32::from(length) - self.transport as u32;
        let pseudo = sum_of(&segment[12..20]) + u32::from(self.protocol) + transport_length;
        put(segment, self.transport + checksum, fold(pseudo));
        complete(segment, self.transport, checksum)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Earlier,
    Last,
}

/// Completes a checksum whose field holds the folded sum of the pseudo-header.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Unfit> {
    let field = start + offset;
    if field + 2 > packet.len() {
        return Err(Unfit("the checksum lies beyond the packet"));
    }
    let sum = !fold(sum_of(&packet[start..]));
    // A UDP checksum of 0 says that there is none (RFC 768); for TCP both zeros are the same number.
    put(packet, field, if sum == 0 { 0xffff } else { sum });
    Ok(())
}

/// Sum of big-endian 16-bit words; 64 KiB of them fit.
fn sum_of(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let sum: u32 = words.by_ref().map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    sum + words.remainder().first().map_or(0, |&last| u32::from(last) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// The longest IPv4 header and the longest TCP header.
const MAX_HEADERS: usize = 60 + 60;

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4HeaderSlice, PacketBuilder, TcpHeaderSlice, UdpHeaderSlice};
    use proptest::prelude::*;

    use super::*;

    const FROM: [u8; 4] = [10, 0, 1, 10];
    const TO: [u8; 4] = [10, 0, 2, 20];

    fn tcp(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(FROM, TO, 64)
            .tcp(1000, 2000, u32::MAX - 5, 512)
            .psh()
            .fin()
            .ack(7)
            .write(&mut packet, payload)
            .unwrap();
        packet
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(FROM, TO, 64).udp(1000, 2000).write(&mut packet, payload).unwrap();
        packet
    }

    fn split(mut packet: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        segment(&mut packet, offload, |segment| {
            segments.push(segment.to_vec());
            Ok::<_, Unfit>(())
        })
        .unwrap();
        segments
    }

    fn offload(segmentation: Segmentation, offset: u16) -> Offload {
        Offload { checksum: Checksum::Partial { start: 20, offset }, segmentation, ecn: false }
    }

    /// Asserts both checksums of a TCP or UDP packet without options by an independent implementation.
    fn assert_checksums(packet: &[u8]) {
        let ip = Ipv4HeaderSlice::from_slice(packet).unwrap();
        assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
        assert_eq!(usize::from(ip.total_len()), packet.len());
        let rest = &packet[20..];
        if ip.protocol().0 == TCP {
            let header = TcpHeaderSlice::from_slice(rest).unwrap();
            let payload = &rest[header.slice().len()..];
            assert_eq!(header.checksum(), not_zero(header.calc_checksum_ipv4(&ip, payload).unwrap()));
        } else {
            let header = UdpHeaderSlice::from_slice(rest).unwrap();
            assert_eq!(usize::from(header.length()), rest.len());
            let expected =
                header.to_header().calc_checksum_ipv4_raw(ip.source(), ip.destination(), &rest[8..]);
            assert_eq!(header.checksum(), not_zero(expected.unwrap()));
        }
    }

    /// All ones is the other form of zero, the one that is written (RFC 768; Linux does so for TCP too).
    fn not_zero(checksum: u16) -> u16 {
        if checksum == 0 { 0xffff } else { checksum }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for mut packet in [tcp(b"odd"), udp(b"even")] {
            let (offset, protocol) = if packet[9] == TCP { (16, 6) } else { (6, 17) };
            let pseudo = sum_of(&packet[12..20]) + protocol + (packet.len() as u32 - 20);
            let complete = packet.clone();
            put(&mut packet, 20 + offset, fold(pseudo));
            assert_eq!(split(packet, offload(Segmentation::None, offset as u16)), [complete]);
        }
    }

    #[test]
    fn fin_and_push_are_on_the_last_segment_only() {
        let segments = split(tcp(&[7; 25]), offload(Segmentation::TcpV4 { size: 10 }, 16));
        let said: Vec<_> = segments
            .iter()
            .map(|segment| {
                let tcp = TcpHeaderSlice::from_slice(&segment[20..]).unwrap();
                (tcp.sequence_number(), tcp.fin(), tcp.psh(), tcp.ack(), segment.len())
            })
            .collect();
        let first = u32::MAX - 5;
        assert_eq!(
            said,
            [
                (first, false, false, true, 50),
                (first.wrapping_add(10), false, false, true, 50),
                (first.wrapping_add(20), true, true, true, 45),
            ]
        );
    }

    #[test]
    fn a_reduced_congestion_window_is_said_once() {
        let mut packet = tcp(&[7; 25]);
        packet[33] |= TCP_CWR;
        let segments = split(packet, offload(Segmentation::TcpV4 { size: 10 }, 16));
        let said = segments.iter().map(|segment| segment[33] & TCP_CWR != 0).collect::<Vec<_>>();
        assert_eq!(said, [true, false, false], "RFC 3168 §6.1.2");
    }

    #[test]
    fn every_byte_of_the_sequence_number_counts() {
        let mut packet = tcp(&[7; 25]);
        packet[24..28].copy_from_slice(&0x0102_03FA_u32.to_be_bytes());
        let segments = split(packet, offload(Segmentation::TcpV4 { size: 10 }, 16));
        let said: Vec<_> = segments
            .iter()
            .map(|segment| TcpHeaderSlice::from_slice(&segment[20..]).unwrap().sequence_number())
            .collect();
        assert_eq!(said, [0x0102_03FA, 0x0102_0404, 0x0102_040E]);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_sent() {
        let cases = [
            (udp(b"12345"), offload(Segmentation::TcpV4 { size: 2 }, 16)),
            (tcp(b"12345"), offload(Segmentation::Udp { size: 2 }, 6)),
            (tcp(b"12345")[..30].to_vec(), offload(Segmentation::TcpV4 { size: 2 }, 16)),
            (tcp(b"12345"), offload(Segmentation::TcpV6 { size: 2 }, 16)),
            (udp(b"12345"), offload(Segmentation::None, 60_000)),
            (vec![], offload(Segmentation::Udp { size: 2 }, 6)),
        ];
        for (mut packet, offload) in cases {
            let result = segment::<io::Error>(&mut packet, offload, |_| panic!("sent something"));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData, "{offload:?}");
        }
    }

    proptest! {
        #[test]
        fn segments_carry_the_whole_payload_with_right_checksums(
            payload in proptest::collection::vec(any::<u8>(), 1..4000),
            size in 1..1500u16,
            over_tcp: bool,
        ) {
            let (packet, segmentation, headers, offset) = if over_tcp {
                (tcp(&payload), Segmentation::TcpV4 { size }, 40, 16)
            } else {
                (udp(&payload), Segmentation::Udp { size }, 28, 6)
            };
            let segments = split(packet, offload(segmentation, offset));
            prop_assert_eq!(segments.len(), payload.len().div_ceil(usize::from(size)));
            let mut joined = Vec::new();
            for segment in &segments {
                assert_checksums(segment);
                joined.extend_from_slice(&segment[headers..]);
            }
            prop_assert_eq!(joined, payload);
        }

        #[test]
        fn hostile_packets_are_refused_or_split_but_never_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 0..200),
            size: u16, start: u16, offset: u16, kind in 0..4u8,
        ) {
            let segmentation = match kind {
                0 => Segmentation::None,
                1 => Segmentation::TcpV4 { size },
                2 => Segmentation::TcpV6 { size },
                _ => Segmentation::Udp { size },
            };
            if let [first, .., ] = packet.as_mut_slice() { *first = 0x45; }
            let checksum = Checksum::Partial { start, offset };
            let _ = segment(&mut packet, Offload { checksum, segmentation, ecn: false }, |_| Ok::<_, Unfit>(()));
        }
    }
}
