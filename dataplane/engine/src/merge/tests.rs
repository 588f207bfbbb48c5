//! What is joined, what is not, and that taking it apart again gives what was put in.

use proptest::prelude::*;

use super::*;
use crate::segment::{Unfit, segment};

const LINK: LinkId = LinkId(7);
const ACK: u8 = TcpFacts::ACK;
const PSH: u8 = TcpFacts::PSH;

/// A packet to be built; the fields are those by which packets of one flow can differ.
#[derive(Clone, Debug)]
struct Sent {
    protocol: u8,
    /// Source port; the rest of the tuple is always the same.
    flow: u16,
    sequence: u32,
    payload: usize,
    /// Segment size of a super-packet.
    size: Option<u16>,
    flags: u8,
    acknowledgement: u32,
    window: u16,
    options: Vec<u8>,
    identification: u16,
    dont_fragment: bool,
    type_of_service: u8,
    ttl: u8,
    partial: bool,
    /// What is done to the finished packet.
    damage: Damage,
    to: LinkId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    None,
    /// A bit of the payload is flipped.
    Payload,
    /// The transport checksum is another one.
    Checksum,
    /// UDP without a checksum.
    NoChecksum,
    /// It says that more fragments follow.
    Fragment,
}

impl Sent {
    fn tcp(sequence: u32, payload: usize) -> Self {
        Self {
            protocol: TCP,
            flow: 1000,
            sequence,
            payload,
            size: None,
            flags: ACK,
            acknowledgement: 9,
            window: 500,
            options: vec![],
            identification: 0,
            dont_fragment: true,
            type_of_service: 0,
            ttl: 64,
            partial: true,
            damage: Damage::None,
            to: LINK,
        }
    }

    fn udp(identification: u16, payload: usize) -> Self {
        Self { protocol: UDP, identification, ..Self::tcp(0, payload) }
    }

    fn build(&self) -> (Vec<u8>, Offload) {
        let transport = if self.protocol == TCP { 20 + self.options.len() } else { 8 };
        let length = (20 + transport + self.payload) as u16;
        let mut bytes = vec![0x45, self.type_of_service, 0, 0, 0, 0, 0, 0, self.ttl, self.protocol, 0, 0];
        put(&mut bytes, 2, length);
        put(&mut bytes, 4, self.identification);
        put(&mut bytes, 6, if self.dont_fragment { Ipv4::DONT_FRAGMENT } else { 0 });
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(self.flow.to_be_bytes());
        bytes.extend(53u16.to_be_bytes());
        let checksum = if self.protocol == TCP {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgement.to_be_bytes());
            bytes.extend([(transport as u8 / 4) << 4, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(&self.options);
            20 + Tcp::CHECKSUM
        } else {
            bytes.extend((length - 20).to_be_bytes());
            bytes.extend([0; 2]);
            20 + Udp::CHECKSUM
        };
        // Depends on the place in the stream, so that exchanged payloads are found out.
        bytes.extend(
            (0..self.payload).map(|at| (self.sequence as usize + at * 7 + usize::from(self.flow)) as u8),
        );
        let sum = pseudo_header(&bytes, u32::from(length) - 20);
        put(&mut bytes, checksum, sum);
        let mut offload = Offload::default();
        if self.partial || self.size.is_some() {
            offload.checksum = Checksum::Partial { start: 20, offset: checksum as u16 - 20 };
        } else {
            let complete = Sum::of(&bytes[20..]).checksum();
            put(&mut bytes, checksum, if complete == 0 { 0xFFFF } else { complete });
        }
        match self.size {
            Some(size) if self.protocol == TCP => offload.segmentation = Segmentation::TcpV4 { size },
            Some(size) => offload.segmentation = Segmentation::Udp { size },
            None => {}
        }
        let field = word(&bytes, checksum);
        match self.damage {
            Damage::None => {}
            Damage::Payload => *bytes.last_mut().unwrap() ^= 1,
            Damage::Checksum => put(&mut bytes, checksum, field ^ 0x0100),
            Damage::NoChecksum if self.protocol == UDP && !self.partial => put(&mut bytes, checksum, 0),
            Damage::NoChecksum => {}
            Damage::Fragment => put(&mut bytes, 6, Ipv4::MORE_FRAGMENTS),
        }
        let sum = Sum::of(&bytes[..20]).checksum();
        put(&mut bytes, 10, sum);
        (bytes, offload)
    }
}

/// A packet as it is written: where to, its bytes and its offload, and how many were joined.
type Written = (LinkId, Vec<u8>, Offload, u16);

/// Puts packets through, as a worker does.
fn merge(sent: &[Sent], takes: Takes) -> Vec<Written> {
    let mut buffer = Vec::new();
    let mut merger = Merger::default();
    let mut candidates = Vec::new();
    for sent in sent {
        let (bytes, offload) = sent.build();
        let (start, length) = (buffer.len() + 16, bytes.len());
        buffer.extend([0xEE; 16]);
        buffer.extend(bytes);
        let segments = sent.size.map_or(1, |size| sent.payload.div_ceil(usize::from(size)).max(1) as u16);
        candidates.push(Candidate { to: sent.to, takes, start, length, offload, segments });
    }
    merger.clear();
    for candidate in &candidates {
        merger.add(&buffer, *candidate);
    }
    let groups = merger.groups().to_vec();
    assert_eq!(groups.iter().map(|group| usize::from(group.packets)).sum::<usize>(), sent.len());
    let segments = |candidate: &Candidate| usize::from(candidate.segments);
    let all: usize = candidates.iter().map(segments).sum();
    assert_eq!(groups.iter().map(|group| usize::from(group.segments)).sum::<usize>(), all);
    let mut written = Vec::new();
    for group in &groups {
        let offload = group.seal(&mut buffer[group.head.clone()]);
        let mut bytes = buffer[group.head.clone()].to_vec();
        merger.joined(group).for_each(|payload| bytes.extend_from_slice(&buffer[payload]));
        written.push((group.to, bytes, offload, group.packets));
    }
    written
}

/// The packets that these stand for, link and flow first; identifications that mean nothing are left out.
fn apart(written: impl IntoIterator<Item = (LinkId, Vec<u8>, Offload)>) -> Vec<((LinkId, u8, u16), Vec<u8>)> {
    let mut packets = Vec::new();
    for (to, mut bytes, offload) in written {
        segment(&mut bytes, offload, |packet| {
            let mut packet = packet.to_vec();
            if word(&packet, 6) == Ipv4::DONT_FRAGMENT {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            let protocol = packet[9];
            if protocol == TCP && word(&packet, 36) == 0 {
                // The other form of zero.
                put(&mut packet, 36, 0xFFFF);
            }
            packets.push(((to, protocol, word(&packet, 20)), packet));
            Ok::<_, Unfit>(())
        })
        .unwrap();
    }
    packets
}

/// How many were joined into each packet that is written.
fn joined(sent: &[Sent]) -> Vec<u16> {
    merge(sent, Takes::TcpAndUdp).into_iter().map(|(.., packets)| packets).collect()
}

#[test]
fn a_stream_becomes_one_super_packet() {
    let sent: Vec<_> = (0..4)
        .map(|at| Sent { identification: 5 + at, ..Sent::tcp(1000 + 100 * u32::from(at), 100) })
        .collect();
    let written = merge(&sent, Takes::Tcp);
    let [(LINK, bytes, offload, 4)] = &written[..] else { panic!("{written:?}") };
    assert_eq!(bytes.len(), 40 + 400);
    assert_eq!(word(bytes, 2), 440);
    assert_eq!(offload.segmentation, Segmentation::TcpV4 { size: 100 });
    assert_eq!(offload.checksum, Checksum::Partial { start: 20, offset: 16 });
}

#[test]
fn datagrams_become_one_super_packet_where_they_are_taken() {
    let sent = [Sent::udp(0, 18), Sent::udp(0, 18), Sent::udp(0, 17), Sent::udp(0, 18)];
    assert_eq!(joined(&sent), [3, 1], "a shorter one is the last");
    assert_eq!(merge(&sent, Takes::Tcp).len(), 4);
    assert_eq!(merge(&sent, Takes::Nothing).len(), 4);
    let mixed: Vec<_> = (0..6).map(|at| Sent { flow: at % 2, ..Sent::udp(0, 18) }).collect();
    assert_eq!(joined(&mixed), [3, 3], "two flows in turn");
    let many: Vec<_> = (0..70).map(|at| Sent::udp(at, 1)).collect();
    assert_eq!(joined(&many), [64, 6]);
}

#[test]
fn super_packets_of_one_segment_size_are_joined() {
    let whole = |sequence, payload| Sent { size: Some(100), ..Sent::tcp(sequence, payload) };
    let counted = |at: u16, sent: Sent| Sent { identification: at, ..sent };
    let sent = [whole(0, 300), counted(3, whole(300, 200)), counted(5, Sent::tcp(500, 60))];
    assert_eq!(joined(&sent), [3]);
    assert_eq!(
        joined(&[whole(0, 250), counted(3, whole(250, 200))]),
        [1, 1],
        "the first ends with a short one"
    );
    let large: Vec<_> = (0..3).map(|at| counted(300 * at as u16, whole(30_000 * at, 30_000))).collect();
    assert_eq!(joined(&large), [2, 1], "65,535 bytes at most");
}

#[test]
fn push_and_fin_end_a_super_packet() {
    let psh = |sent| Sent { flags: ACK | PSH, ..sent };
    assert_eq!(joined(&[Sent::tcp(0, 100), psh(Sent::tcp(100, 100)), Sent::tcp(200, 100)]), [2, 1]);
    assert_eq!(joined(&[psh(Sent::tcp(0, 100)), Sent::tcp(100, 100)]), [1, 1]);
    let fin = Sent { flags: ACK | PSH | TcpFacts::FIN, ..Sent::tcp(100, 50) };
    let written = merge(&[Sent::tcp(0, 100), fin], Takes::Tcp);
    assert_eq!((written.len(), written[0].1[FLAGS]), (1, ACK | PSH | TcpFacts::FIN));
}

type Change = fn(&mut Sent);

#[test]
fn what_differs_is_not_joined() {
    let first = Sent { options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], ..Sent::tcp(0, 100) };
    let next = Sent { sequence: 100, ..first.clone() };
    assert_eq!(joined(&[first.clone(), next.clone()]), [2], "what is changed below");
    let changes: [(_, Change); 19] = [
        ("another flow", |sent| sent.flow = 1),
        ("another link", |sent| sent.to = LinkId(8)),
        ("a gap", |sent| sent.sequence += 1),
        ("a repetition", |sent| sent.sequence = 0),
        ("an acknowledgement", |sent| sent.acknowledgement += 1),
        ("a window", |sent| sent.window += 1),
        ("a timestamp", |sent| sent.options[7] += 1),
        ("no options", |sent| sent.options.clear()),
        ("a longer one", |sent| sent.payload += 1),
        ("nothing", |sent| sent.payload = 0),
        ("SYN", |sent| sent.flags |= TcpFacts::SYN),
        ("RST", |sent| sent.flags |= TcpFacts::RST),
        ("URG", |sent| sent.flags |= TcpFacts::URG),
        ("CWR", |sent| sent.flags |= 0x80),
        ("ECE", |sent| sent.flags |= ECE),
        ("type of service", |sent| sent.type_of_service = 3),
        ("TTL", |sent| sent.ttl -= 1),
        ("DF", |sent| sent.dont_fragment = false),
        ("identification", |sent| sent.identification = 7),
    ];
    for (what, change) in changes {
        let mut changed = next.clone();
        change(&mut changed);
        assert_eq!(joined(&[first.clone(), changed]), [1, 1], "{what}");
    }
    let complete = Sent { partial: false, ..next.clone() };
    assert_eq!(joined(&[first.clone(), complete.clone()]), [2], "a complete checksum");
    for damage in [Damage::Payload, Damage::Checksum] {
        assert_eq!(joined(&[first.clone(), Sent { damage, ..complete.clone() }]), [1, 1], "{damage:?}");
    }
    let unsummed = Sent { damage: Damage::NoChecksum, partial: false, ..Sent::udp(0, 18) };
    assert_eq!(joined(&[unsummed.clone(), unsummed]), [1, 1], "UDP without checksum");
}

#[test]
fn without_df_identifications_count_up() {
    let sent = |identification| Sent { dont_fragment: false, ..Sent::udp(identification, 18) };
    assert_eq!(joined(&[sent(65_535), sent(0), sent(1)]), [3]);
    assert_eq!(joined(&[sent(4), sent(4)]), [1, 1]);
    assert_eq!(joined(&[sent(4), sent(6)]), [1, 1]);
}

#[test]
fn nothing_passes_a_packet_of_its_flow_that_was_left_alone() {
    let reset = Sent { flags: ACK | TcpFacts::RST, ..Sent::tcp(100, 0) };
    let sent = [Sent::tcp(0, 100), reset, Sent::tcp(100, 100)];
    assert_eq!(joined(&sent), [1, 1, 1]);
    let fragment = Sent { damage: Damage::Fragment, ..Sent::udp(0, 18) };
    assert_eq!(joined(&[Sent::udp(0, 18), fragment, Sent::udp(0, 18)]), [1, 1, 1]);
}

/// The packets of a few flows, most of which continue what went before.
fn batches() -> impl Strategy<Value = Vec<Sent>> {
    let step = (any::<bool>(), 0..3u16, 0..3usize, 0..24u8, any::<bool>(), 0..4u8);
    proptest::collection::vec(step, 1..40).prop_map(|steps| {
        let mut streams = [(0u32, 0u16); 6];
        steps
            .into_iter()
            .map(|(tcp, flow, payload, twist, partial, super_packet)| {
                let (sequence, identification) = &mut streams[usize::from(flow) + if tcp { 3 } else { 0 }];
                let mut sent = if tcp { Sent::tcp(*sequence, 0) } else { Sent::udp(0, 0) };
                sent.flow = flow;
                sent.payload = [100, 100, 60][payload];
                sent.identification = *identification;
                // By flow: it counts with DF, it counts without, it stays.
                sent.dont_fragment = flow != 1;
                sent.partial = partial;
                if super_packet == 0 {
                    (sent.size, sent.payload) = (Some(100), sent.payload * 3);
                }
                match twist {
                    0 => sent.flags |= PSH,
                    1 => sent.flags |= TcpFacts::FIN,
                    2 => sent.flags |= TcpFacts::RST,
                    3 => sent.sequence = sent.sequence.wrapping_add(5),
                    4 => sent.acknowledgement += 1,
                    5 => sent.ttl -= 1,
                    6 => sent.identification = sent.identification.wrapping_add(9),
                    7 => sent.damage = Damage::Payload,
                    8 => sent.damage = Damage::Checksum,
                    9 => sent.damage = Damage::NoChecksum,
                    10 => sent.payload = 0,
                    11 => sent.to = LinkId(8),
                    12 => sent.options = vec![1; 4],
                    13 => sent.type_of_service = 1,
                    _ => {}
                }
                if sent.damage != Damage::None {
                    sent.size = None;
                    sent.payload = sent.payload.min(100);
                }
                let segments =
                    sent.size.map_or(1, |size| sent.payload.div_ceil(usize::from(size)).max(1) as u16);
                *sequence = sequence.wrapping_add(sent.payload as u32);
                if flow != 2 {
                    *identification = identification.wrapping_add(segments);
                }
                sent
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn taken_apart_again_every_flow_is_as_it_was(sent in batches()) {
        let originals = sent.iter().map(|sent| {
            let (bytes, offload) = sent.build();
            (sent.to, bytes, offload)
        });
        let written = merge(&sent, Takes::TcpAndUdp);
        for (_, bytes, _, _) in &written {
            prop_assert!(checksum::verify(&bytes[..20]));
            prop_assert_eq!(usize::from(word(bytes, 2)), bytes.len());
        }
        let mut expected = apart(originals);
        let mut found = apart(written.into_iter().map(|(to, bytes, offload, _)| (to, bytes, offload)));
        // Stable: the order within a flow stays.
        expected.sort_by_key(|(flow, _)| *flow);
        found.sort_by_key(|(flow, _)| *flow);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_joined_or_not_but_never_panic(
        packets in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..60), any::<[bool; 4]>(), any::<u16>()), 0..20),
    ) {
        let (mut buffer, mut merger) = (Vec::new(), Merger::default());
        for (mut bytes, [ip, transport, tcp, partial], size) in packets {
            if let (true, [first, ..]) = (ip, bytes.as_mut_slice()) { *first = 0x45; }
            if let (true, Some(protocol)) = (transport, bytes.get_mut(9)) { *protocol = if tcp { TCP } else { UDP }; }
            if ip && bytes.len() >= 20 {
                let length = bytes.len() as u16;
                put(&mut bytes, 2, length);
                bytes[6..8].fill(0);
                bytes[10..12].fill(0);
                let sum = Sum::of(&bytes[..20]).checksum();
                put(&mut bytes, 10, sum);
            }
            let offload = Offload {
                checksum: if partial { Checksum::Partial { start: size, offset: size } } else { Checksum::Complete },
                segmentation: if tcp { Segmentation::TcpV4 { size } } else { Segmentation::Udp { size } },
                ecn: false,
            };
            let start = buffer.len();
            buffer.extend(&bytes);
            let candidate = Candidate { to: LINK, takes: Takes::TcpAndUdp, start, length: bytes.len(), offload, segments: 1 };
            merger.add(&buffer, candidate);
        }
        for group in merger.groups().to_vec() {
            group.seal(&mut buffer[group.head.clone()]);
        }
    }
}
