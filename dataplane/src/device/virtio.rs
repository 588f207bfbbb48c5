//! Reads and writes the 10-byte header before each packet of a TUN queue with IFF_VNET_HDR.
//!
//! ```text
//!  0       1       2       4       6       8      10
//!  +-------+-------+-------+-------+-------+-------+
//!  | flags | gso   |hdr_len|gso    |csum   |csum   |   virtio 1.2 §5.1.6, struct virtio_net_hdr;
//!  |       | type  |       |size   |start  |offset |   16-bit fields in the host's order (TUNSETVNETLE is off)
//!  +-------+-------+-------+-------+-------+-------+
//! ```
//!
//! Only what a kernel says after the offloads that control asks for is understood.
//! Whether a header fits its packet is for the engine to check.

use localvpc_engine::packet::{Checksum, Offload, Segmentation};

/// Bytes of a header.
pub const LENGTH: usize = 10;

/// A header that no kernel sends with the offloads that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hostile {
    /// A flag beyond NEEDS_CSUM and DATA_VALID.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// A segmentation that was not asked for, such as UFO.
    #[error("unknown segmentation {0:#04x}")]
    Segmentation(u8),
    /// Segments of no bytes.
    #[error("segments of 0 bytes")]
    EmptySegments,
}

/// Understands the header of a packet that was read.
///
/// # Errors
///
/// [`Hostile`]: the packet must be discarded.
pub fn parse(header: [u8; LENGTH]) -> Result<Offload, Hostile> {
    let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let flags = header[FLAGS];
    if flags & !(NEEDS_CSUM | DATA_VALID) != 0 {
        return Err(Hostile::Flags(flags));
    }
    let checksum = if flags & NEEDS_CSUM != 0 {
        Checksum::Partial { start: field(CSUM_START), offset: field(CSUM_OFFSET) }
    } else {
        Checksum::Complete
    };
    let size = field(GSO_SIZE);
    let kind = header[GSO_TYPE];
    let ecn = kind & GSO_ECN != 0;
    let segmentation = match kind & !GSO_ECN {
        GSO_NONE if !ecn => Segmentation::None,
        GSO_TCPV4 => Segmentation::TcpV4 { size },
        GSO_TCPV6 => Segmentation::TcpV6 { size },
        GSO_UDP_L4 if !ecn => Segmentation::Udp { size },
        _ => return Err(Hostile::Segmentation(kind)),
    };
    if segmentation != Segmentation::None && size == 0 {
        return Err(Hostile::EmptySegments);
    }
    Ok(Offload { checksum, segmentation, ecn })
}

/// The header for a packet to be written. `headers` is the length of its IP and
/// transport headers: the kernel keeps that much in one piece.
pub fn encode(offload: Offload, headers: u16) -> [u8; LENGTH] {
    let mut header = [0; LENGTH];
    let mut set = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    let (kind, size) = match offload.segmentation {
        Segmentation::None => (GSO_NONE, 0),
        Segmentation::TcpV4 { size } => (GSO_TCPV4, size),
        Segmentation::TcpV6 { size } => (GSO_TCPV6, size),
        Segmentation::Udp { size } => (GSO_UDP_L4, size),
    };
    set(GSO_SIZE, size);
    let mut flags = 0;
    if let Checksum::Partial { start, offset } = offload.checksum {
        flags = NEEDS_CSUM;
        set(CSUM_START, start);
        set(CSUM_OFFSET, offset);
    }
    if kind != GSO_NONE || flags != 0 {
        set(HDR_LEN, headers);
    }
    header[FLAGS] = flags;
    header[GSO_TYPE] = if offload.ecn { kind | GSO_ECN } else { kind };
    header
}

const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const HDR_LEN: usize = 2;
const GSO_SIZE: usize = 4;
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;

const NEEDS_CSUM: u8 = 1;
/// The checksum was verified by somebody; it is complete all the same.
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::NO_OFFLOAD;

    fn header(flags: u8, kind: u8, fields: [u16; 4]) -> [u8; LENGTH] {
        let mut header = [0; LENGTH];
        header[0] = flags;
        header[1] = kind;
        for (at, field) in fields.iter().enumerate() {
            header[2 + 2 * at..4 + 2 * at].copy_from_slice(&field.to_ne_bytes());
        }
        header
    }

    #[test]
    fn a_tcp_super_packet() {
        let offload = Offload {
            checksum: Checksum::Partial { start: 20, offset: 16 },
            segmentation: Segmentation::TcpV4 { size: 1448 },
            ecn: false,
        };
        let bytes = header(1, 1, [52, 1448, 20, 16]);
        assert_eq!(parse(bytes), Ok(offload));
        assert_eq!(encode(offload, 52), bytes);
    }

    #[test]
    fn an_ordinary_packet_with_a_verified_checksum() {
        assert_eq!(parse(header(2, 0, [0, 0, 0, 0])), Ok(NO_OFFLOAD));
        assert_eq!(encode(NO_OFFLOAD, 40), [0; LENGTH]);
    }

    #[test]
    fn what_was_not_asked_for_is_hostile() {
        assert_eq!(parse(header(1, 3, [0, 1448, 20, 6])), Err(Hostile::Segmentation(3)), "UFO");
        assert_eq!(parse(header(4, 1, [0; 4])), Err(Hostile::Flags(4)), "RSC_INFO");
        assert_eq!(parse(header(0, 0x80, [0; 4])), Err(Hostile::Segmentation(0x80)), "ECN without TCP");
        assert_eq!(parse(header(1, 0x85, [0, 9, 20, 6])), Err(Hostile::Segmentation(0x85)), "ECN with UDP");
        assert_eq!(parse(header(1, 1, [40, 0, 20, 16])), Err(Hostile::EmptySegments));
    }

    fn offloads() -> impl Strategy<Value = Offload> {
        let checksum = prop_oneof![
            Just(Checksum::Complete),
            any::<(u16, u16)>().prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        ];
        let segmentation = prop_oneof![
            Just((Segmentation::None, false)),
            (1..=u16::MAX, any::<bool>()).prop_map(|(size, ecn)| (Segmentation::TcpV4 { size }, ecn)),
            (1..=u16::MAX, any::<bool>()).prop_map(|(size, ecn)| (Segmentation::TcpV6 { size }, ecn)),
            (1..=u16::MAX).prop_map(|size| (Segmentation::Udp { size }, false)),
        ];
        (checksum, segmentation).prop_map(|(checksum, (segmentation, ecn))| Offload {
            checksum,
            segmentation,
            ecn,
        })
    }

    proptest! {
        #[test]
        fn every_offload_survives_the_way_through_a_header(offload in offloads(), headers: u16) {
            prop_assert_eq!(parse(encode(offload, headers)), Ok(offload));
        }

        #[test]
        fn any_bytes_are_understood_or_hostile(bytes: [u8; LENGTH]) {
            if let Ok(offload) = parse(bytes) {
                let again = encode(offload, 0);
                prop_assert_eq!(parse(again), Ok(offload));
                prop_assert_eq!(again[GSO_TYPE], bytes[GSO_TYPE]);
            }
        }
    }
}
