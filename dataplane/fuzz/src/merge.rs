//! Any batch of packets, joined into super-packets and taken apart again.
//!
//! - Taken apart, what was joined is the packets that were put in, in the order of their flow and link, but for
//!   identifications of what must not be fragmented.
//! - What is joined has a right IP header, and the parser takes it if it took its parts.
//! - A receiver that takes no super-packets gets every packet as it was.

use std::collections::BTreeMap;

use localvpc_api::LinkId;
use localvpc_engine::merge::{Candidate, Merger, Takes};
use localvpc_engine::packet::{Offload, parse};
use localvpc_engine::segment::{Unfit, segment};

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: what receivers take, then packets, each as one of a stream or made of the rest.
pub fn merge(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

/// A packet with its link and what is left to be done for it.
struct Sent {
    to: LinkId,
    bytes: Vec<u8>,
    offload: Offload,
    segments: u16,
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let takes =
        [Takes::Nothing, Takes::Tcp, Takes::TcpAndUdp, Takes::TcpAndUdp][usize::from(input.byte()?) & 3];
    let mut batch = Vec::new();
    while batch.len() < 64
        && let Some(sent) = next(input, batch.last())
    {
        batch.push(sent);
    }
    let (mut buffer, mut merger) = (Vec::new(), Merger::default());
    for Sent { to, bytes, offload, segments } in &batch {
        let start = buffer.len();
        buffer.extend_from_slice(bytes);
        let candidate =
            Candidate { to: *to, takes, start, length: bytes.len(), offload: *offload, segments: *segments };
        merger.add(&buffer, candidate);
    }
    let mut found = Flows::default();
    for group in merger.groups().to_vec() {
        let offload = group.seal(&mut buffer[group.head.clone()]);
        let mut whole = buffer[group.head.clone()].to_vec();
        for payload in merger.joined(&group) {
            whole.extend_from_slice(&buffer[payload]);
        }
        assert!(takes != Takes::Nothing || group.packets == 1);
        if group.packets > 1 {
            sums::assert_right_header(&whole);
            let packet = parse(&whole, offload).expect("what is joined of good packets is good");
            assert_eq!(packet.segments, group.segments);
        }
        found.add(group.to, whole, offload);
    }
    let mut expected = Flows::default();
    for Sent { to, bytes, offload, .. } in batch {
        expected.add(to, bytes, offload);
    }
    assert_eq!(found, expected);
    Some(())
}

/// The next packet: one that may continue the last, or any other that a dataplane would write.
fn next(input: &mut Input<'_>, last: Option<&Sent>) -> Option<Sent> {
    let how = input.byte()?;
    let to = LinkId(u32::from(how >> 7));
    if let (1..8, Some(last)) = (how & 0x0F, last) {
        return continuing(input, last);
    }
    let offload = if how & 0x10 == 0 { Offload::default() } else { traffic::offload(input)? };
    let source = ["10.0.2.20:5000", "10.0.2.20:5001"][usize::from(how >> 6 & 1)];
    let bytes = traffic::honest(input, source, "203.0.113.5:443")?;
    let bytes = if how & 0x20 == 0 { bytes } else { traffic::damaged(input, bytes)? };
    sent(to, bytes, offload)
}

/// The last packet once more, further on in its stream, with perhaps a byte of its header changed.
fn continuing(input: &mut Input<'_>, last: &Sent) -> Option<Sent> {
    let mut bytes = last.bytes.clone();
    let packet = parse(&bytes, last.offload).ok()?;
    let identification = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(packet.segments);
    bytes[4..6].copy_from_slice(&identification.to_be_bytes());
    if bytes[9] == sums::TCP && bytes.len() >= 40 {
        let payload = bytes.len() as u32 - 20 - u32::from(bytes[32] >> 4) * 4;
        let sequence = u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]).wrapping_add(payload);
        bytes[24..28].copy_from_slice(&sequence.to_be_bytes());
    }
    let change = input.byte()?;
    if change & 3 == 0 {
        let (at, value) = (usize::from(input.byte()?) % bytes.len(), input.byte()?);
        bytes[at] = value;
    }
    if change & 4 != 0 {
        let shorter = bytes.len() - usize::from(change >> 3).min(bytes.len() / 2);
        bytes.truncate(shorter);
    }
    sent(last.to, traffic::sealed(bytes), last.offload)
}

/// Only what the parser takes is ever written.
fn sent(to: LinkId, mut bytes: Vec<u8>, offload: Offload) -> Option<Sent> {
    let packet = parse(&bytes, offload).ok()?;
    bytes.truncate(packet.length as usize);
    Some(Sent { to, bytes, offload, segments: packet.segments })
}

/// In the seventh byte of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// Single packets by link and flow, each in its order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flows(BTreeMap<(LinkId, Vec<u8>), Vec<Vec<u8>>>);

impl Flows {
    fn add(&mut self, to: LinkId, mut bytes: Vec<u8>, offload: Offload) {
        let taken_apart = segment(&mut bytes, offload, |packet| {
            // Addresses and ports, or whatever is there in their place.
            let flow = [&packet[9..10], &packet[12..packet.len().min(24)]].concat();
            let mut packet = packet.to_vec();
            if packet[6] & DONT_FRAGMENT != 0 {
                // It means nothing then (RFC 6864 §4.1), and is counted on from the first one's.
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            self.0.entry((to, flow)).or_default().push(packet);
            Ok::<_, Unfit>(())
        });
        taken_apart.expect("the parser has taken it");
    }
}
