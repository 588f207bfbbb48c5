//! The bytes of a probe: an IPv4 packet that says who sent it, and looking for it in what arrives.

use std::net::Ipv4Addr;

use localvpc_api::trace::Protocol;

/// What makes a probe and its answer known wherever they come out: gateways change addresses, ports and identifiers, but
/// neither sequence numbers nor contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u32);

impl Token {
    /// What UDP, ICMP and other protocols carry.
    fn contents(self) -> [u8; LENGTH] {
        let mut contents = *b"localvpc probe \0\0\0\0\0";
        contents[LENGTH - 4..].copy_from_slice(&self.0.to_be_bytes());
        contents
    }
}

const LENGTH: usize = 20;
const IP: usize = 20;

/// Addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends, from which port.
    pub source: (Ipv4Addr, u16),
    /// To whom, to which port.
    pub destination: (Ipv4Addr, u16),
}

impl Ends {
    /// Those of a reply.
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// The first packet of a connection: a SYN, a datagram, an echo request. The kernel fills in checksum and identification
/// of its IP header.
pub fn request(ends: Ends, protocol: Protocol, token: Token) -> Vec<u8> {
    let body = match protocol {
        Protocol::TCP => {
            let mut tcp = Vec::with_capacity(20);
            tcp.extend(ends.source.1.to_be_bytes());
            tcp.extend(ends.destination.1.to_be_bytes());
            tcp.extend(token.0.to_be_bytes());
            // No acknowledgement; five words; SYN; a window; checksum and urgent pointer.
            tcp.extend([0, 0, 0, 0, 5 << 4, SYN, 0xfa, 0xf0, 0, 0, 0, 0]);
            checked(tcp, 16, ends, protocol)
        }
        Protocol::ICMP => {
            let mut icmp = vec![8, 0, 0, 0];
            icmp.extend(ends.source.1.to_be_bytes());
            icmp.extend([0, 1]);
            icmp.extend(token.contents());
            let sum = folded(sum(&icmp));
            icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
            icmp
        }
        _ => return datagram(ends, protocol, token),
    };
    packet(ends, protocol, &body)
}

/// A datagram, or a packet of another protocol.
pub fn datagram(ends: Ends, protocol: Protocol, token: Token) -> Vec<u8> {
    let body = match protocol {
        Protocol::UDP => {
            let mut udp = Vec::with_capacity(8 + LENGTH);
            udp.extend(ends.source.1.to_be_bytes());
            udp.extend(ends.destination.1.to_be_bytes());
            udp.extend((8 + LENGTH as u16).to_be_bytes());
            udp.extend([0, 0]);
            udp.extend(token.contents());
            checked(udp, 6, ends, protocol)
        }
        _ => token.contents().to_vec(),
    };
    packet(ends, protocol, &body)
}

/// What a packet is to somebody who waits for a probe or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The probe, and the ends that it has here.
    Probe(Ends),
    /// TCP's answer: it is open, or closed.
    SynAck,
    /// TCP's answer: nothing listens, but it arrived.
    Reset,
    /// An echo reply.
    EchoReply,
}

/// Whether an IPv4 packet comes from an address.
pub fn is_from(bytes: &[u8], source: Ipv4Addr) -> bool {
    bytes.get(12..16) == Some(&source.octets())
}

/// Looks whether a packet is the probe or its answer.
pub fn look(bytes: &[u8], protocol: Protocol, token: Token) -> Option<Seen> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    if bytes[0] >> 4 != 4 || *bytes.get(9)? != protocol.0 || header < IP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let (source, destination) = (address(12)?, address(16)?);
    let body = bytes.get(header..)?;
    let word = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let ends = |from: u16, to: u16| Ends { source: (source, from), destination: (destination, to) };
    let carries = |at: usize| body.get(at..at + LENGTH) == Some(&token.contents());
    match protocol {
        Protocol::TCP => {
            let flags = *body.get(13)?;
            let answers = flags & ACK != 0 && long(8)? == token.0.wrapping_add(1);
            if flags & (SYN | ACK | RST) == SYN && long(4)? == token.0 {
                Some(Seen::Probe(ends(word(0)?, word(2)?)))
            } else if answers && flags & RST != 0 {
                Some(Seen::Reset)
            } else if answers && flags & SYN != 0 {
                Some(Seen::SynAck)
            } else {
                None
            }
        }
        Protocol::UDP => carries(8).then_some(Seen::Probe(ends(word(0)?, word(2)?))),
        Protocol::ICMP => match *body.first()? {
            8 if carries(8) => Some(Seen::Probe(ends(word(4)?, word(4)?))),
            0 if carries(8) => Some(Seen::EchoReply),
            _ => None,
        },
        _ => carries(0).then_some(Seen::Probe(ends(0, 0))),
    }
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn packet(ends: Ends, protocol: Protocol, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(IP + body.len());
    packet.extend([0x45, 0]);
    // A probe is far below 64 KiB.
    packet.extend(((IP + body.len()) as u16).to_be_bytes());
    // Identification; don't fragment; time to live; checksum.
    packet.extend([0, 0, 0x40, 0, 64, protocol.0, 0, 0]);
    packet.extend(ends.source.0.octets());
    packet.extend(ends.destination.0.octets());
    let checksum = !folded(sum(&packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(body);
    packet
}

/// Fills in the checksum at `at`, over the pseudo header too (RFC 9293 §3.1, RFC 768).
fn checked(mut body: Vec<u8>, at: usize, ends: Ends, protocol: Protocol) -> Vec<u8> {
    let pseudo = sum(&ends.source.0.octets())
        + sum(&ends.destination.0.octets())
        + u32::from(protocol.0)
        + body.len() as u32;
    let checksum = match !folded(pseudo + sum(&body)) {
        // Zero would say that there is none (RFC 768).
        0 => 0xffff,
        other => other,
    };
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    body
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        source: (Ipv4Addr::new(10, 0, 2, 20), 40_123),
        destination: (Ipv4Addr::new(198, 51, 100, 10), 443),
    };

    #[test]
    fn a_probe_is_known_where_it_arrives() {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol(47)] {
            let bytes = request(ENDS, protocol, Token(7));
            assert_eq!(folded(sum(&bytes[..20])), 0xffff, "the header's checksum");
            let Some(Seen::Probe(ends)) = look(&bytes, protocol, Token(7)) else { panic!("{protocol}") };
            assert_eq!((ends.source.0, ends.destination.0), (ENDS.source.0, ENDS.destination.0));
            assert_eq!(look(&bytes, protocol, Token(8)), None, "another probe");
            let pseudo = sum(&bytes[12..20]) + u32::from(protocol.0) + bytes.len() as u32 - 20;
            match protocol {
                Protocol::TCP | Protocol::UDP => assert_eq!(folded(pseudo + sum(&bytes[20..])), 0xffff),
                Protocol::ICMP => assert_eq!(folded(sum(&bytes[20..])), 0xffff),
                _ => {}
            }
            for cut in 0..bytes.len() {
                // Nothing is read beyond the end; what is complete enough is known.
                let _ = look(&bytes[..cut], protocol, Token(7));
            }
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |flags: u8, acknowledged: u32| {
            let mut bytes = request(ENDS.reversed(), Protocol::TCP, Token(99));
            bytes[28..32].copy_from_slice(&acknowledged.to_be_bytes());
            bytes[33] = flags;
            look(&bytes, Protocol::TCP, Token(u32::MAX))
        };
        assert_eq!(answer(SYN | ACK, 0), Some(Seen::SynAck));
        assert_eq!(answer(RST | ACK, 0), Some(Seen::Reset));
        assert_eq!(answer(SYN | ACK, 1), None, "it answers another");
        let mut echo = request(ENDS, Protocol::ICMP, Token(3));
        echo[20] = 0;
        assert_eq!(look(&echo, Protocol::ICMP, Token(3)), Some(Seen::EchoReply));
    }
}
