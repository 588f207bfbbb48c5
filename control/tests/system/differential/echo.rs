//! ICMP echo messages: what a ping asks, and the answer of a server that tells which address and identifier it saw.

use std::net::SocketAddrV4;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;

/// Of the IPv4 header that raw sockets bring along: those here have no options.
pub const IP_HEADER: usize = 20;

/// An echo request.
pub fn request(identifier: u16) -> Vec<u8> {
    message(REQUEST, identifier, b"who am I")
}

/// What a server answers to a datagram from `peer`, if that is an echo request. The identifier is the port of who it saw.
pub fn reply(mut peer: SocketAddrV4, datagram: &[u8]) -> Option<Vec<u8>> {
    let request = datagram.get(IP_HEADER..).filter(|message| message.first() == Some(&REQUEST))?;
    peer.set_port(identifier(request)?);
    let mut seen = peer.to_string();
    if !seen.len().is_multiple_of(2) {
        seen.push(' ');
    }
    Some(message(REPLY, peer.port(), seen.as_bytes()))
}

/// What was seen, if a datagram is the reply to `identifier`; none if it was answered by no such server.
pub fn seen(expected: u16, datagram: &[u8]) -> Option<Option<SocketAddrV4>> {
    let reply = datagram.get(IP_HEADER..).filter(|message| message.first() == Some(&REPLY))?;
    let text = |bytes| std::str::from_utf8(bytes).ok()?.trim_end().parse().ok();
    (identifier(reply)? == expected).then(|| reply.get(8..).and_then(text))
}

fn identifier(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.try_into().ok().map(u16::from_be_bytes)
}

/// The payload is of even length.
fn message(kind: u8, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0], &identifier.to_be_bytes()[..], &[0, 1], payload].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// RFC 1071, over an even number of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !((folded & 0xFFFF) + (folded >> 16)) as u16
}
