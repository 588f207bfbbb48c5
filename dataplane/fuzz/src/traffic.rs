//! Makes packets and offload headers of a fuzzer's bytes: mostly what a host may send, sometimes anything.

use localvpc_engine::packet::{Checksum, Echo, Offload, Segmentation, TcpFacts};
use localvpc_engine::testing::craft;

use crate::input::Input;
use crate::sums::{self, ICMP, TCP, UDP};

/// What a virtio header may say, hostile or not.
pub fn offload(input: &mut Input<'_>) -> Option<Offload> {
    let kind = input.byte()?;
    let checksum = match kind & 3 {
        0 => Checksum::Complete,
        1 => Checksum::Partial { start: 20, offset: 16 },
        2 => Checksum::Partial { start: 20, offset: 6 },
        _ => Checksum::Partial { start: input.word()?, offset: input.word()? },
    };
    let segmentation = match kind >> 2 & 3 {
        0 => Segmentation::None,
        1 => Segmentation::TcpV4 { size: input.word()? },
        2 => Segmentation::Udp { size: input.word()? },
        _ => Segmentation::TcpV6 { size: input.word()? },
    };
    Some(Offload { checksum, segmentation, ecn: kind & 0x10 != 0 })
}

/// A packet from one end to the other, as a host sends it.
pub fn honest(input: &mut Input<'_>, source: &str, destination: &str) -> Option<Vec<u8>> {
    let host = |end: &str| end.split(':').next().unwrap_or_default().to_owned();
    let (from, to) = (host(source), host(destination));
    let kind = input.byte()?;
    let packet = match kind & 7 {
        0..=2 => {
            let flags = input.byte()?;
            // Small numbers, so that some of them fit the stream.
            let (sequence, acknowledgement) =
                (1000 + u32::from(input.byte()?), 1000 + u32::from(input.byte()?));
            let payload = payload(input)?;
            let facts = TcpFacts { flags, sequence, acknowledgement, window: 5000, payload };
            craft::tcp_segment(facts, source, destination)
        }
        3 => craft::tcp_with_options(input.byte()?, source, destination, &options(input)?),
        4 | 5 => craft::udp(source, destination, &vec![7; payload(input)? as usize]),
        6 => {
            let echo = if input.byte()? & 1 == 0 { Echo::Request } else { Echo::Reply };
            craft::ping(echo, &from, &to, 9, 1)
        }
        _ => craft::icmp_message(input.byte()?, input.byte()?, [0; 4], &from, &to, input.take(40)),
    };
    let packet = if kind & 8 == 0 { packet } else { craft::fragmentable(packet) };
    Some(match kind >> 4 {
        0..=12 => packet,
        ttl => craft::with_ttl(packet, ttl - 12),
    })
}

/// The same packet with bytes changed and cut off. Checksums fit the damage if the input says so.
pub fn damaged(input: &mut Input<'_>, mut packet: Vec<u8>) -> Option<Vec<u8>> {
    let how = input.byte()?;
    for _ in 0..how & 3 {
        let (at, value) = (usize::from(input.word()?), input.byte()?);
        let length = packet.len();
        packet[at % length] = value;
    }
    if how & 4 != 0 {
        packet.truncate(usize::from(input.word()?));
    }
    Some(if how & 8 == 0 { sealed(packet) } else { packet })
}

/// Any bytes behind a version and a header length that do not end every test at once.
pub fn any(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let how = input.byte()?;
    let length = usize::from(input.byte()?);
    let mut packet = input.take(length).to_vec();
    if how & 1 == 0 && packet.len() >= 20 {
        packet[0] = 0x45;
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[9] = [ICMP, TCP, UDP, packet[9]][usize::from(how >> 1) & 3];
    }
    Some(if how & 8 == 0 { sealed(packet) } else { packet })
}

/// The same packet with a right IP header checksum, and a right ICMP checksum where it has one.
pub fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet.len() < 20 {
        return packet;
    }
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]])).clamp(20, packet.len().max(20));
    if packet[9] == ICMP && length >= 28 {
        packet[22..24].fill(0);
        let checksum = !sums::fold(sums::sum(&packet[20..length]));
        packet[22..24].copy_from_slice(&checksum.to_be_bytes());
    }
    craft::seal(packet)
}

fn payload(input: &mut Input<'_>) -> Option<u32> {
    Some(match input.byte()? {
        small @ 0..=199 => small.into(),
        mtu @ 200..=219 => 1440 + u32::from(mtu - 200) * 2,
        jumbo @ 220..=239 => 8440 + u32::from(jumbo - 220) * 2,
        more => 8940 + u32::from(more - 240) * 8,
    })
}

fn options(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let words = usize::from(input.byte()?) % 11;
    let mut options = input.take(words * 4).to_vec();
    options.resize(words * 4, 0);
    Some(options)
}
