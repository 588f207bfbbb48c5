//! Views a TCP header (RFC 9293).

use localvpc_api::DiscardReason;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of the header; options follow it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number of the first byte, or of the SYN.
    pub sequence: U32,
    /// Next sequence number expected from the other side, if ACK is set.
    pub acknowledgement: U32,
    /// Header length in 32-bit words in the upper half.
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the highest bit down.
    pub flags: u8,
    /// Window, not scaled.
    pub window: U16,
    /// Over the pseudo-header, the header and the data.
    pub checksum: U16,
    /// Where urgent data ends, if URG is set.
    pub urgent_pointer: U16,
}

impl Tcp {
    /// Length of a header without options, bytes.
    pub const LENGTH: usize = size_of::<Self>();
    /// Where the checksum stands in the header.
    pub const CHECKSUM: usize = std::mem::offset_of!(Self, checksum);

    /// The header of a segment, and the data behind it and its options.
    ///
    /// # Errors
    ///
    /// The bytes end before the header does, or its length is below 20.
    #[inline]
    pub fn checked(bytes: &[u8]) -> Result<(&Self, &[u8]), DiscardReason> {
        let malformed = DiscardReason::MalformedTransportHeader;
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| malformed)?;
        let length = header.header_length();
        if length < Self::LENGTH {
            return Err(malformed);
        }
        Ok((header, bytes.get(length..).ok_or(malformed)?))
    }

    /// Bytes of the header with its options.
    pub const fn header_length(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}

/// The window scale among the options of a SYN (RFC 7323 §2.2). What stands behind a malformed option is not read.
pub fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match *options {
            [END, ..] | [] => return None,
            [NO_OPERATION, ref rest @ ..] => rest,
            [WINDOW_SCALE, 3, scale, ..] => return Some(scale),
            [_, length, ..] if length >= 2 => options.get(usize::from(length)..)?,
            _ => return None,
        };
    }
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// 40000 → 443, SYN, an MSS option of 1460, one byte of data.
    const BYTES: [u8; 25] = [
        0x9C, 0x40, 0x01, 0xBB, 0x01, 0x02, 0x03, 0x04, 0x0A, 0x0B, 0x0C, 0x0D, 0x60, 0x02, 0xFA, 0xF0, 0x12,
        0x34, 0, 0, 0x02, 0x04, 0x05, 0xB4, 0xEE,
    ];

    #[test]
    fn reads_literal_bytes() {
        let (header, data) = Tcp::checked(&BYTES).unwrap();
        assert_eq!((header.source_port.get(), header.destination_port.get()), (40000, 443));
        assert_eq!((header.sequence.get(), header.acknowledgement.get()), (0x0102_0304, 0x0A0B_0C0D));
        assert_eq!((header.flags, header.window.get(), header.checksum.get()), (2, 64240, 0x1234));
        assert_eq!(header.header_length(), 24);
        assert_eq!(data, [0xEE]);
        assert_eq!(BYTES[Tcp::CHECKSUM..][..2], [0x12, 0x34]);
    }

    #[test]
    fn refuses_a_data_offset_below_the_header_or_beyond_the_packet() {
        for length in 0..24 {
            assert_eq!(Tcp::checked(&BYTES[..length]).unwrap_err(), DiscardReason::MalformedTransportHeader);
        }
        assert!(Tcp::checked(&BYTES[..24]).unwrap().1.is_empty());
        let mut short = BYTES;
        short[12] = 0x4F;
        assert_eq!(Tcp::checked(&short).unwrap_err(), DiscardReason::MalformedTransportHeader);
    }

    #[test]
    fn finds_the_window_scale_wherever_it_stands() {
        // As Linux, Windows and macOS order their options.
        assert_eq!(window_scale(&[2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]), Some(7));
        assert_eq!(window_scale(&[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2]), Some(8));
        assert_eq!(window_scale(&[3, 3, 0]), Some(0), "a scale of 0 is an offer too");
        assert_eq!(window_scale(&[2, 4, 5, 180, 4, 2, 0, 0]), None);
        for behind in [&[0, 3, 3, 7][..], &[0, 2, 3, 3, 7]] {
            assert_eq!(window_scale(behind), None, "behind the end of the options");
        }
        assert_eq!(window_scale(&[]), None);
    }

    #[test]
    fn malformed_options_end_the_search() {
        for options in [
            &[3, 2, 7][..],
            &[3, 4, 7, 7],
            &[3, 3],
            &[3],
            &[2, 0, 3, 3, 7],
            &[2, 1, 3, 3, 7],
            &[8, 10, 3, 3, 7],
            &[2],
        ] {
            assert_eq!(window_scale(options), None, "{options:?}");
        }
    }
}
