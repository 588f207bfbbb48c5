//! Joins consecutive packets of one flow into super-packets, so that one write carries them all.
//!
//! What GRO does where packets enter a kernel, done where they leave us: the receiver's stack sees what its
//! own GRO could have shown it. It is the inverse of [`segment`](mod@crate::segment): a joined packet taken apart
//! again is the packets it was made of.
//!
//! ```text
//!  batch    A1  B1  A2  A3  C1  B2         one buffer; each packet has headers and a payload
//!  groups   A1+A2+A3   B1+B2   C1          in the order of their first packets: no flow is reordered
//!  written  A1 with new headers, then the payloads of A2 and A3 from where they lie
//! ```
//!
//! Two packets are joined only if their headers differ in nothing but lengths, checksums, identification
//! and sequence number; if the second continues the first; and if what is joined can be told apart again: all
//! payloads but the last have one size. A packet with PSH or FIN ends a group; one with
//! SYN, RST, URG or CWR, with a wrong checksum or none, without payload, or a fragment joins none.

use std::ops::Range;

use localvpc_api::LinkId;

use crate::packet::{Checksum, Offload, Segmentation, TcpFacts};
use crate::segment::Headers;
use crate::wire::checksum::{self, Sum};
use crate::wire::{Ipv4, Tcp, Udp};

/// Which super-packets a receiver can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takes {
    /// None: packets for it are left alone.
    #[default]
    Nothing,
    /// TCP segments (TSO).
    Tcp,
    /// TCP segments and UDP datagrams (TSO and USO).
    TcpAndUdp,
}

/// A packet of a batch, which lies in the batch's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The link it leaves on.
    pub to: LinkId,
    /// Which super-packets that link takes.
    pub takes: Takes,
    /// Where in the buffer its IP header starts. Candidates come in ascending order.
    pub start: usize,
    /// Its bytes from there on.
    pub length: usize,
    /// What is left to be done for it.
    pub offload: Offload,
    /// Packets that it stands for.
    pub segments: u16,
}

/// Packets that are written together: one that is as it was, or several joined.
#[derive(Clone, Debug)]
pub struct Group {
    /// The link they leave on.
    pub to: LinkId,
    /// Where the first packet lies in the buffer, headers included.
    pub head: Range<usize>,
    /// How many were joined; 1: it is as it was.
    pub packets: u16,
    /// Packets that the whole stands for.
    pub segments: u16,
    /// Of the first packet, as it came.
    offload: Offload,
    /// The first and the last packet, by their numbers in the batch.
    ends: (u16, u16),
    /// What continues it may join.
    open: Option<Facts>,
    /// PSH and FIN of the last packet.
    flags: u8,
    /// Size of each segment's payload but the last's, and of all payloads.
    payload: (u16, u32),
}

/// Finds the groups of one batch after the other; its buffers are kept.
#[derive(Debug)]
pub struct Merger {
    groups: Vec<Group>,
    packets: Vec<Piece>,
    /// By hash of a flow: its newest group. A collision costs a chance to join, nothing else.
    newest: [u16; SLOTS],
}

/// A packet that was added.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where its payload lies in the buffer.
    payload: (u32, u32),
    /// The packet that follows it in its group.
    next: u16,
}

/// What a packet, or a group, must tell for another to join it.
#[derive(Clone, Copy, Debug)]
struct Facts {
    headers: Headers,
    /// Payload bytes of each segment but the last.
    size: u16,
    /// Payload bytes of all.
    payload: u32,
    segments: u16,
    /// Of a group whose first packet it is; not known of a single packet.
    identification: Option<Identification>,
    /// PSH and FIN.
    flags: u8,
    sums: Sums,
}

/// How the identification goes on from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identification {
    /// By one for each.
    Counts,
    /// Not at all, as with Linux's unconnected sockets. Only under DF, where it means nothing (RFC 6864 §4.1).
    Stays,
}

/// What is known of a transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sums {
    Unverified,
    Right,
}

/// What a packet is to this module.
enum Kind {
    /// Of no flow that could be joined.
    Other,
    /// It may belong to any flow.
    Fragment,
    /// Of a flow, but not to be joined: nothing of its flow may pass it.
    Alone,
    Joinable(Facts),
}

const NONE: u16 = u16::MAX;
const SLOTS: usize = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Datagrams that the kernel's own GRO joins (`UDP_GRO_CNT_MAX`).
const MAX_DATAGRAMS: u16 = 64;

/// The smallest TCP segments that are joined: a kernel that forwards them must segment again, and has a lower limit (`TCP_MIN_SND_MSS`).
const MIN_SEGMENT: u16 = 48;

/// The longest IPv4 packet.
const MAX_LENGTH: u32 = 65_535;

/// Congestion was experienced (RFC 3168); the same on all segments that are joined.
const ECE: u8 = 0x40;
/// Flags that only the last segment may have.
const ENDING: u8 = TcpFacts::PSH | TcpFacts::FIN;

impl Default for Merger {
    fn default() -> Self {
        Self { groups: Vec::new(), packets: Vec::new(), newest: [NONE; SLOTS] }
    }
}

impl Merger {
    /// Begins a new batch.
    pub fn clear(&mut self) {
        self.groups.clear();
        self.packets.clear();
        self.newest = [NONE; SLOTS];
    }

    /// Adds the next packet of the batch, which lies in `buffer`: to a group if it continues one, otherwise as a new group.
    ///
    /// # Panics
    ///
    /// If it does not lie in `buffer`, or is the 65,535th of its batch.
    pub fn add(&mut self, buffer: &[u8], candidate: Candidate) {
        assert!(self.packets.len() < usize::from(NONE), "a batch of at most 65,534 packets");
        let number = self.packets.len() as u16;
        let end = candidate.start + candidate.length;
        let bytes = &buffer[candidate.start..end];
        let kind = if candidate.takes == Takes::Nothing { Kind::Other } else { kind(bytes, &candidate) };
        let mut piece = Piece { payload: (end as u32, end as u32), next: NONE };
        let (mut open, mut payload, mut flags) = (None, (0, 0), 0);
        match kind {
            Kind::Other => {}
            Kind::Fragment => self.newest = [NONE; SLOTS],
            Kind::Alone => self.newest[slot(candidate.to, bytes)] = NONE,
            Kind::Joinable(facts) => {
                piece.payload.0 = (candidate.start + facts.headers.payload) as u32;
                let slot = slot(candidate.to, bytes);
                if let Some(group) = self.groups.get_mut(usize::from(self.newest[slot]))
                    && group.join(number, buffer, bytes, &candidate, facts)
                {
                    self.packets[usize::from(std::mem::replace(&mut group.ends.1, number))].next = number;
                    self.packets.push(piece);
                    return;
                }
                self.newest[slot] = self.groups.len() as u16;
                open = (facts.flags == 0
                    && facts.payload == u32::from(facts.size) * u32::from(facts.segments))
                .then_some(facts);
                (payload, flags) = ((facts.size, facts.payload), facts.flags);
            }
        }
        self.packets.push(piece);
        let Candidate { to, offload, segments, .. } = candidate;
        let head = candidate.start..end;
        self.groups.push(Group {
            to,
            head,
            packets: 1,
            segments,
            offload,
            ends: (number, number),
            open,
            flags,
            payload,
        });
    }

    /// The groups of the batch, in the order in which they are to be written.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The payloads behind the head of a group of this batch, in order, as ranges of the buffer.
    pub fn joined(&self, group: &Group) -> impl Iterator<Item = Range<usize>> {
        let mut at = self.packets.get(usize::from(group.ends.0)).map_or(NONE, |head| head.next);
        std::iter::from_fn(move || {
            let piece = self.packets.get(usize::from(at))?;
            at = piece.next;
            Some(piece.payload.0 as usize..piece.payload.1 as usize)
        })
    }
}

impl Group {
    /// Makes the headers of its head those of the whole, and says what is left to be done for the whole. `head` is [`Group::head`] of the buffer.
    ///
    /// # Panics
    ///
    /// If `head` is shorter than the headers that were found there.
    pub fn seal(&self, head: &mut [u8]) -> Offload {
        if self.packets == 1 {
            return self.offload;
        }
        let (size, payload) = self.payload;
        let protocol = head[9];
        let headers = head.len() as u32 - self.first_payload(head);
        put(head, 2, (headers + payload) as u16);
        put(head, 10, 0);
        let sum = Sum::of(&head[..Ipv4::LENGTH]).checksum();
        put(head, 10, sum);
        let length = headers - Ipv4::LENGTH as u32 + payload;
        let (segmentation, checksum) = if protocol == TCP {
            head[FLAGS] |= self.flags;
            (Segmentation::TcpV4 { size }, Tcp::CHECKSUM)
        } else {
            put(head, Ipv4::LENGTH + 4, length as u16);
            (Segmentation::Udp { size }, Udp::CHECKSUM)
        };
        put(head, Ipv4::LENGTH + checksum, pseudo_header(head, length));
        let (start, offset) = (Ipv4::LENGTH as u16, checksum as u16);
        Offload { checksum: Checksum::Partial { start, offset }, segmentation, ecn: false }
    }

    /// Payload bytes of the head.
    fn first_payload(&self, head: &[u8]) -> u32 {
        let headers = Headers::of(head).expect("a packet that was joined to has headers");
        (head.len() - headers.payload) as u32
    }

    /// Takes a packet in if it continues the group.
    fn join(
        &mut self,
        number: u16,
        buffer: &[u8],
        bytes: &[u8],
        candidate: &Candidate,
        mut facts: Facts,
    ) -> bool {
        debug_assert!(number > self.ends.1, "in order");
        let Some(whole) = &mut self.open else { return false };
        let head = &buffer[self.head.clone()];
        let Some(identification) = whole.continued_by(head, &facts, bytes) else { return false };
        // Last, because it may have to read all of both.
        if self.to != candidate.to
            || !whole.sums_up(head, self.offload)
            || !facts.sums_up(bytes, candidate.offload)
        {
            return false;
        }
        whole.identification = Some(identification);
        whole.payload += facts.payload;
        whole.segments += facts.segments;
        self.payload = (whole.size, whole.payload);
        self.flags = facts.flags;
        self.packets += 1;
        self.segments += candidate.segments;
        if facts.flags != 0 || whole.payload != u32::from(whole.size) * u32::from(whole.segments) {
            self.open = None;
        }
        true
    }
}

impl Facts {
    /// Whether a packet continues this group, whose first packet is `head`; and how the identification then goes on.
    fn continued_by(&self, head: &[u8], next: &Self, bytes: &[u8]) -> Option<Identification> {
        if self.headers != next.headers || !same_headers(head, bytes, self.headers) {
            return None;
        }
        // Super-packets have the same size of segments; a single packet may be shorter, as the last.
        let fits = next.size == self.size || next.segments == 1 && next.size < self.size;
        let segments = self.segments.saturating_add(next.segments);
        let length = self.headers.payload as u32 + self.payload + next.payload;
        if !fits || length > MAX_LENGTH {
            return None;
        }
        if self.headers.protocol == UDP {
            if segments > MAX_DATAGRAMS {
                return None;
            }
        } else if sequence(bytes) != sequence(head).wrapping_add(self.payload) {
            return None;
        }
        let (first, this) = (word(head, 4), word(bytes, 4));
        let counts = this == first.wrapping_add(self.segments);
        let stays = this == first && word(head, 6) & Ipv4::DONT_FRAGMENT != 0;
        match self.identification {
            None | Some(Identification::Counts) if counts => Some(Identification::Counts),
            None | Some(Identification::Stays) if stays => Some(Identification::Stays),
            _ => None,
        }
    }

    /// Whether the transport checksum is right. What is joined gets another one, so a wrong one would be lost.
    fn sums_up(&mut self, bytes: &[u8], offload: Offload) -> bool {
        if self.sums == Sums::Right {
            return true;
        }
        let at = Ipv4::LENGTH + if self.headers.protocol == TCP { Tcp::CHECKSUM } else { Udp::CHECKSUM };
        let length = (bytes.len() - Ipv4::LENGTH) as u32;
        let right = match offload.checksum {
            // 0 and 0xFFFF are the same number.
            Checksum::Partial { .. } => word(bytes, at) % 0xFFFF == pseudo_header(bytes, length) % 0xFFFF,
            Checksum::Complete => {
                Sum::of(&bytes[Ipv4::LENGTH..]).and_word(pseudo_header(bytes, length)).fold() == 0xFFFF
            }
        };
        if right {
            self.sums = Sums::Right;
        }
        right
    }
}

/// Reads a packet as far as it must be known here.
fn kind(bytes: &[u8], candidate: &Candidate) -> Kind {
    if bytes.len() < Ipv4::LENGTH || bytes[0] != 0x45 {
        return Kind::Other;
    }
    if word(bytes, 6) & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET) != 0 {
        return Kind::Fragment;
    }
    let Some(headers) = Headers::of(bytes) else { return Kind::Other };
    if usize::from(word(bytes, 2)) != bytes.len() || !checksum::verify(&bytes[..Ipv4::LENGTH]) {
        return Kind::Alone;
    }
    let payload = (bytes.len() - headers.payload) as u32;
    let (size, flags) = match (headers.protocol, candidate.offload.segmentation) {
        (TCP, Segmentation::TcpV4 { size }) => (Some(size), bytes[FLAGS]),
        (UDP, Segmentation::Udp { size }) => (Some(size), TcpFacts::ACK),
        (TCP, Segmentation::None) => (None, bytes[FLAGS]),
        (_, Segmentation::None) => (None, TcpFacts::ACK),
        _ => return Kind::Alone,
    };
    // Fits: the whole packet does.
    let size = size.unwrap_or(payload as u16).min(payload as u16);
    if payload == 0 || size == 0 {
        return Kind::Alone;
    }
    let joinable = match headers.protocol {
        TCP => flags & !(ENDING | ECE) == TcpFacts::ACK && !candidate.offload.ecn && size >= MIN_SEGMENT,
        _ => {
            let sound = usize::from(word(bytes, Ipv4::LENGTH + 4)) == bytes.len() - Ipv4::LENGTH;
            let summed = word(bytes, Ipv4::LENGTH + Udp::CHECKSUM) != 0
                || candidate.offload.checksum != Checksum::Complete;
            sound && summed && candidate.takes == Takes::TcpAndUdp
        }
    };
    if !joinable {
        return Kind::Alone;
    }
    let segments = payload.div_ceil(u32::from(size)) as u16;
    let flags = flags & ENDING;
    Kind::Joinable(Facts {
        headers,
        size,
        payload,
        segments,
        identification: None,
        flags,
        sums: Sums::Unverified,
    })
}

/// Whether two packets' headers differ in nothing but lengths, checksums, identification, sequence number, PSH and FIN.
fn same_headers(one: &[u8], other: &[u8], headers: Headers) -> bool {
    // Version and type of service; flags, TTL and protocol; addresses and ports.
    let same = one[..2] == other[..2] && one[6..10] == other[6..10] && one[12..24] == other[12..24];
    if headers.protocol == UDP {
        return same;
    }
    same
        // Acknowledgement and length.
        && one[28..FLAGS] == other[28..FLAGS]
        && (one[FLAGS] ^ other[FLAGS]) & !ENDING == 0
        // Window; urgent pointer and options.
        && one[34..36] == other[34..36]
        && one[38..headers.payload] == other[38..headers.payload]
}

/// Where a flow is looked for. The packet has a transport header.
fn slot(to: LinkId, bytes: &[u8]) -> usize {
    let half =
        |at: usize| u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let addresses = half(12) << 32 | half(16);
    let rest = half(20) ^ u64::from(to.0) << 32 ^ u64::from(bytes[9]) << 56;
    let mixed = (addresses ^ rest.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 58) as usize % SLOTS
}

/// The folded sum of the pseudo-header.
fn pseudo_header(bytes: &[u8], length: u32) -> u16 {
    // Not more than 65,535: so long is the whole packet at most.
    Sum::of(&bytes[12..20]).and_word(bytes[9].into()).and_word(length as u16).fold()
}

fn sequence(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]])
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// TCP's flags behind an IPv4 header without options.
const FLAGS: usize = Ipv4::LENGTH + 13;

#[cfg(test)]
mod tests;
