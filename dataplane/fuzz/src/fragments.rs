//! Any sequence of fragments, from two hosts, through a table with room for little.
//!
//! - Each is forwarded, discarded and counted, or held back; what is held back leaves, or is counted, in the end.
//! - The table keeps to its bounds, and is empty when their time has come.
//! - No later fragment leaves before its first, and none that overlaps what has left since the first, unless it is the same.
//! - Data is carried as it is.

use std::collections::HashMap;

use localvpc_api::LinkId;
use localvpc_api::trace::Protocol;
use localvpc_engine::packet::{Offload, parse};
use localvpc_engine::state::fragments::{Amount, Bounds, Fragments, LIFETIME_MS};
use localvpc_engine::testing::craft;
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, APP, INTERNET, WEB};
use localvpc_engine::{Limits, Worker, report};

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: fragments, pauses between them.
pub fn fragments(bytes: &[u8]) {
    let mut net = Fabric::with_workers(
        lab::tables(),
        vec![Worker::with_cache(0, 5, 0), Worker::with_cache(1, 6, 0)],
        Limits { connections: 100, leases: 100 },
    );
    net.state.fragments = Fragments::new(BOUNDS);
    let mut seen = Seen::default();
    run(&mut net, &mut seen, &mut Input::new(bytes));
    for _ in 0..2 {
        net.pass_ms(LIFETIME_MS);
    }
    assert_eq!((net.state.fragments.len(), net.state.fragments.held()), (0, Amount::default()));
    let discarded: u64 = report::discards(&net.state).iter().map(|row| row.packets).sum();
    let ended = seen.refused + seen.held - seen.released;
    // An answer that is itself discarded is counted, too.
    assert!(ended <= discarded && discarded <= ended + seen.refused, "{ended} {discarded}");
}

const BOUNDS: Bounds = Bounds {
    datagrams: 5,
    datagrams_per_source: 3,
    fragments_per_datagram: 6,
    held: Amount { fragments: 6, bytes: 4000 },
    held_per_source: Amount { fragments: 4, bytes: 3000 },
};

#[derive(Default)]
struct Seen {
    held: u64,
    released: u64,
    refused: u64,
    /// What has left since the first fragment, by datagram.
    left: HashMap<Datagram, Vec<Part>>,
}

type Datagram = (LinkId, u8, [u8; 4], u16);
type Part = (usize, usize, bool);

fn run(net: &mut Fabric, seen: &mut Seen, input: &mut Input<'_>) -> Option<()> {
    loop {
        let how = input.byte()?;
        if how & 0xF0 == 0xF0 {
            net.now.0 += u64::from(how & 0xF) * 4000;
            continue;
        }
        let bytes = fragment(input, how)?;
        let link = if how & 8 == 0 { APP.1 } else { WEB.1 };
        let whole = parse(&bytes, Offload::default()).is_ok_and(|packet| packet.fragment.is_none());
        match net.offer_on((how >> 7).into(), link, bytes.clone(), Offload::default()) {
            None => seen.held += 1,
            Some(outcome) => {
                match outcome.verdict {
                    Err(_) => seen.refused += 1,
                    Ok(out) if !whole && !outcome.bytes.is_empty() => {
                        let headers = if bytes[9] == sums::TCP { 40 } else { 28 };
                        let came = bytes[..outcome.bytes.len()].get(headers..);
                        assert_eq!(outcome.bytes.get(headers..), came, "data");
                        seen.leaves(link, out, &outcome.bytes);
                    }
                    Ok(_) => {}
                }
                if !outcome.bytes.is_empty() || outcome.verdict.is_err() {
                    for (out, bytes) in &outcome.fragments {
                        seen.released += 1;
                        seen.leaves(link, *out, bytes);
                    }
                }
            }
        }
        let held = net.state.fragments.held();
        assert!(net.state.fragments.len() <= BOUNDS.datagrams);
        assert!(held.fragments <= BOUNDS.held.fragments && held.bytes <= BOUNDS.held.bytes, "{held:?}");
    }
}

impl Seen {
    fn leaves(&mut self, from: LinkId, out: LinkId, bytes: &[u8]) {
        assert!([INTERNET, WEB.1, APP.1, lab::DB.1].contains(&out));
        sums::assert_right_header(bytes);
        let packet = parse(bytes, Offload::default()).expect("what leaves is right");
        let Some(part) = packet.fragment else { return };
        let destination = bytes[16..20].try_into().expect("four bytes");
        let left = self.left.entry((from, bytes[9], destination, part.identification)).or_default();
        let this = (part.start.into(), part.end.into(), part.more);
        if part.is_first() {
            left.clear();
        } else {
            assert!(!left.is_empty(), "a later fragment left before its first: {this:?}");
        }
        let apart = |other: &Part| other.1 <= this.0 || this.1 <= other.0;
        assert!(left.iter().all(|other| *other == this || apart(other)), "{this:?} overlaps {left:?}");
        left.push(this);
    }
}

/// One of a few datagrams' fragments, of any place and length; some that no host sends.
fn fragment(input: &mut Input<'_>, how: u8) -> Option<Vec<u8>> {
    let (what, start) = (input.byte()?, input.byte()?);
    let start = match start {
        255 => 8191,
        254 => 8185,
        start => u16::from(start) % 16,
    };
    let more = what & 1 == 1;
    let units = usize::from(what >> 1 & 7);
    let odd = if more && what & 0x80 == 0 { 0 } else { usize::from(what >> 4 & 7) };
    let (source, destination) = (
        if how & 8 == 0 { "10.0.2.20" } else { "10.0.1.10" },
        if how & 4 == 0 { "203.0.113.5" } else { "10.0.2.30" },
    );
    let length = units * 8 + odd;
    let (protocol, mut data) = match how >> 4 & 3 {
        0 | 1 => (Protocol::UDP, craft::udp("10.0.0.1:5000", "10.0.0.2:53", &[7; 200])),
        2 => (Protocol::TCP, craft::tcp(2, "10.0.0.1:5000", "10.0.0.2:5432")),
        _ => (Protocol::ICMP, craft::icmp_message(8, 0, [0, 9, 0, 1], "10.0.0.1", "10.0.0.2", &[7; 200])),
    };
    data.drain(..20);
    if start > 0 {
        data.fill(start as u8);
    }
    data.resize(length, 1);
    let packet = craft::fragment(protocol, source, destination, (how & 3).into(), start, more, &data);
    if what & 0x80 == 0 { Some(packet) } else { traffic::damaged(input, packet) }
}
