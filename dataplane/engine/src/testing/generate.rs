//! Generates packets for property tests, right and damaged.

use std::net::Ipv4Addr;

use localvpc_api::trace::Protocol;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::craft;
use crate::packet::{Checksum, Echo, Offload, Segmentation, TcpFacts};
use crate::wire::checksum::Sum;

/// One packet of every kind, all right.
pub fn packets() -> impl Strategy<Value = Vec<u8>> {
    let address = (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d));
    let end = (address, any::<u16>());
    (end.clone(), end, vec(any::<u8>(), 0..200), any::<(u8, u8, u16, u32, u32)>()).prop_map(
        |(source, destination, data, (which, byte, word, sequence, acknowledgement))| {
            let (from, to) = (source.0.to_string(), destination.0.to_string());
            let facts = TcpFacts {
                flags: byte & 0x3F,
                sequence,
                acknowledgement,
                window: word,
                payload: data.len() as u32,
            };
            match which % 7 {
                0 | 1 => craft::tcp_segment(facts, source, destination),
                2 => craft::udp(source, destination, &data),
                3 => craft::ping(Echo::Request, &from, &to, word, 1),
                4 => craft::port_unreachable(&from, &craft::tcp_segment(facts, source, destination)),
                5 => craft::fragmentation_needed(&from, word, &craft::udp(source, destination, &data)),
                _ => craft::other(Protocol(byte | 0x80), &from, &to, &data),
            }
        },
    )
}

/// A fragment of any of them, all right; what has no data stays whole.
pub fn fragments() -> impl Strategy<Value = Vec<u8>> {
    (packets(), 1usize..10, any::<Index>(), any::<u16>()).prop_map(|(packet, room, which, identification)| {
        let mut parts = craft::fragments(&packet, identification, room * 8);
        if parts.is_empty() { packet } else { parts.swap_remove(which.index(parts.len())) }
    })
}

/// What a virtio header may say, hostile ones included.
pub fn offloads() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Complete),
        Just(Checksum::Partial { start: 20, offset: 16 }),
        Just(Checksum::Partial { start: 20, offset: 6 }),
        any::<(u16, u16)>().prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let segmentation = (any::<u8>(), any::<u16>()).prop_map(|(which, size)| match which % 6 {
        0 => Segmentation::TcpV4 { size },
        1 => Segmentation::TcpV6 { size },
        2 => Segmentation::Udp { size },
        _ => Segmentation::None,
    });
    (checksum, segmentation, any::<bool>()).prop_map(|(checksum, segmentation, ecn)| Offload {
        checksum,
        segmentation,
        ecn,
    })
}

/// The same packets, cut off and with bytes changed. Mostly their checksums fit the damage, so that it is met by what comes after them.
pub fn damaged(packets: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<u8>()), 0..4);
    (packets, 0.0f64..2.0, changes, any::<bool>()).prop_map(|(mut bytes, cut, changes, icmp_checksum)| {
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        if bytes.is_empty() {
            return bytes;
        }
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if bytes.len() < 24 {
            return bytes;
        }
        if Protocol(bytes[9]) == Protocol::ICMP && icmp_checksum {
            bytes[22..24].fill(0);
            let checksum = Sum::of(&bytes[20..]).checksum();
            bytes[22..24].copy_from_slice(&checksum.to_be_bytes());
        }
        craft::seal(bytes)
    })
}
