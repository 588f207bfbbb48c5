//! STUN messages (RFC 8489), as far as RFC 5780 needs them.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Which of its addresses and ports a server should answer from (RFC 5780 §7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The other address.
    pub address: bool,
    /// The other port.
    pub port: bool,
}

/// Tells an answer from another; random in real life.
pub type Transaction = [u8; 12];

const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const COOKIE: u32 = 0x2112_A442;
const CHANGE_REQUEST: u16 = 0x0003;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;

/// A binding request.
pub fn request(transaction: Transaction, change: Change) -> Vec<u8> {
    let flags = u32::from(change.address) << 2 | u32::from(change.port) << 1;
    message(REQUEST, transaction, CHANGE_REQUEST, &flags.to_be_bytes())
}

/// The answer to a request that came from `seen`.
pub fn success(transaction: Transaction, seen: SocketAddrV4) -> Vec<u8> {
    let port = (seen.port() ^ (COOKIE >> 16) as u16).to_be_bytes();
    let address = (u32::from(*seen.ip()) ^ COOKIE).to_be_bytes();
    message(SUCCESS, transaction, XOR_MAPPED_ADDRESS, &[&[0, 1], &port[..], &address].concat())
}

/// Reads a binding request.
pub fn read_request(bytes: &[u8]) -> Option<(Transaction, Change)> {
    let (transaction, value) = read(bytes, REQUEST, CHANGE_REQUEST)?;
    let flags = *value.last()?;
    Some((transaction, Change { address: flags & 4 != 0, port: flags & 2 != 0 }))
}

/// Reads an answer: where the server saw the request come from.
pub fn read_success(bytes: &[u8]) -> Option<(Transaction, SocketAddrV4)> {
    let (transaction, value) = read(bytes, SUCCESS, XOR_MAPPED_ADDRESS)?;
    let [_, 1, p0, p1, a0, a1, a2, a3] = *value else { return None };
    let port = u16::from_be_bytes([p0, p1]) ^ (COOKIE >> 16) as u16;
    let address = u32::from_be_bytes([a0, a1, a2, a3]) ^ COOKIE;
    Some((transaction, SocketAddrV4::new(Ipv4Addr::from(address), port)))
}

/// A message with one attribute, whose length is a multiple of four.
fn message(kind: u16, transaction: Transaction, attribute: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16;
    let mut bytes = Vec::new();
    for word in [kind, length + 4, (COOKIE >> 16) as u16, COOKIE as u16] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(transaction);
    bytes.extend(attribute.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes
}

fn read(bytes: &[u8], kind: u16, attribute: u16) -> Option<(Transaction, &[u8])> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let is_it = word(0)? == kind && bytes.get(4..8)? == COOKIE.to_be_bytes() && word(HEADER)? == attribute;
    let value = bytes.get(HEADER + 4..)?;
    let whole = value.len() == usize::from(word(HEADER + 2)?);
    (is_it && whole).then_some((bytes[8..HEADER].try_into().ok()?, value))
}

#[test]
fn the_sample_of_rfc_5769_reads_as_it_says() {
    // §2.2, its XOR-MAPPED-ADDRESS alone: 192.0.2.1:32853.
    let transaction = [0xB7, 0xE7, 0xA7, 0x01, 0xBC, 0x34, 0xD6, 0x86, 0xFA, 0x87, 0xDF, 0xAE];
    let value = [0x00, 0x01, 0xA1, 0x47, 0xE1, 0x12, 0xA6, 0x43];
    let seen = "192.0.2.1:32853".parse().expect("an address and a port");
    let bytes = success(transaction, seen);
    assert_eq!(bytes[HEADER + 4..], value);
    assert_eq!(read_success(&bytes), Some((transaction, seen)));
}
