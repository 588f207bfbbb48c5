//! Checks checksums, word by word: nothing here is code of the engine.

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Requires that a packet has a right IP header without options, and ends where that says.
#[track_caller]
pub fn assert_right_header(packet: &[u8]) {
    assert!(packet.len() >= 20 && packet[0] == 0x45, "an IPv4 header");
    assert_eq!(fold(sum(&packet[..20])), 0xFFFF, "the header's checksum");
    assert_eq!(
        usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        packet.len(),
        "the length of the packet"
    );
}

/// By how much the transport checksum of a packet, in which it is complete, is wrong: 0 if it is right. What is not checked has `None`.
///
/// Whatever is changed on the way must not change this: damage stays detectable, and none is added. For a first fragment it
/// means nothing by itself, but the same holds.
pub fn error(packet: &[u8]) -> Option<u16> {
    let (protocol, segment) = (packet[9], &packet[20..]);
    let pseudo = match protocol {
        TCP => u32::from(protocol) + segment.len() as u32 + sum(&packet[12..20]),
        UDP if segment.get(6..8)? == [0, 0] => return None,
        UDP => u32::from(protocol) + segment.len() as u32 + sum(&packet[12..20]),
        ICMP => 0,
        _ => return None,
    };
    Some(zero(!fold(pseudo + sum(segment))))
}

/// By how much a checksum that is still to be completed differs from the sum of the pseudo-header: 0 if it is right.
pub fn partial_error(packet: &[u8], field: usize) -> u16 {
    let length = packet.len() as u32 - 20;
    let pseudo = fold(sum(&packet[12..20]) + u32::from(packet[9]) + length);
    let found = u16::from_be_bytes([packet[field], packet[field + 1]]);
    zero(fold(u32::from(found) + u32::from(!pseudo)))
}

/// The sum of 16-bit words; of 64 KiB of them it fits.
pub fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// Both zeros of one's complement are the same.
pub fn zero(sum: u16) -> u16 {
    if sum == 0xFFFF { 0 } else { sum }
}
