//! Any packet with any offload, cut into segments, and those into fragments.
//!
//! - What the parser takes with its offload is segmented: into as many packets as it said, none larger than it said, with right checksums
//!   if that of the whole is, and all of the data.
//! - What it refuses may be refused, and nothing panics.
//! - Fragments are no larger than asked for, have right headers and all of the data.

use localvpc_engine::fragment::fragment;
use localvpc_engine::packet::{Checksum, Offload, Packet, Segmentation, parse};
use localvpc_engine::segment::{Headers, Unfit, segment};
use localvpc_engine::testing::craft;
use zerocopy::IntoBytes;

use crate::input::Input;
use crate::{sums, traffic};

/// Bytes: an MTU, an offload, how the packet is made, the packet.
pub fn segments(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let mtu = input.word()?.max(68);
    let offload = traffic::offload(input)?;
    let bytes = match input.byte()? & 3 {
        0 => input.rest().to_vec(),
        1 => traffic::any(input)?,
        2 => traffic::honest(input, "10.0.2.20:5000", "203.0.113.5:443")?,
        _ => super_packet(input, offload)?,
    };
    let Ok(packet) = parse(&bytes, offload) else {
        // Not all that is refused is unfit, and what is unfit is an error.
        let _ = segment(&mut bytes.clone(), offload, |_| Ok::<_, Unfit>(()));
        return None;
    };
    let whole = &bytes[..packet.length as usize];
    let cut = cut(whole, offload);
    segmented(&packet, whole, offload, &cut);
    if packet.fragment.is_none() {
        cut.iter().for_each(|one| fragmented(one, mtu));
    }
    Some(())
}

/// TCP or UDP with as much data as it takes, and a partial checksum that is right.
fn super_packet(input: &mut Input<'_>, offload: Offload) -> Option<Vec<u8>> {
    let data: Vec<u8> = (0..u32::from(input.word()?) % 20_000).map(|at| (at * 31 / 8) as u8).collect();
    let mut packet = match offload.segmentation {
        Segmentation::Udp { .. } => craft::udp("10.0.2.20:5000", "203.0.113.5:443", &data),
        _ => {
            let flags = input.byte()?;
            let bare = craft::tcp(flags, "10.0.2.20:5000", "203.0.113.5:443");
            [&bare[..], &data].concat()
        }
    };
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    if let Checksum::Partial { start: 20, offset } = offload.checksum
        && let Some(field) = packet.get_mut(20 + usize::from(offset)..22 + usize::from(offset))
    {
        field.fill(0);
        let pseudo = sums::sum(&packet[12..20]) + u32::from(packet[9]) + u32::from(length) - 20;
        let at = 20 + usize::from(offset);
        packet[at..at + 2].copy_from_slice(&sums::fold(pseudo).to_be_bytes());
    }
    Some(traffic::sealed(packet))
}

fn cut(packet: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let cut = segment(&mut packet.to_vec(), offload, |segment| {
        all.push(segment.to_vec());
        Ok::<_, Unfit>(())
    });
    cut.expect("the parser has taken it");
    all
}

fn segmented(packet: &Packet, whole: &[u8], offload: Offload, cut: &[Vec<u8>]) {
    assert_eq!(cut.len(), usize::from(packet.segments));
    assert_eq!(cut.iter().map(Vec::len).max(), Some(usize::from(packet.segment_length)));
    cut.iter().for_each(|one| sums::assert_right_header(one));
    let Checksum::Partial { start, offset } = offload.checksum else {
        return assert_eq!(cut, [whole]);
    };
    let right = sums::partial_error(whole, (start + offset).into()) == 0;
    let headers = Headers::of(whole).expect("only these have a partial checksum");
    let mut data = Vec::new();
    for one in cut {
        // One whose data is cut is computed anew, so that it is right in any case.
        if right || packet.segments > 1 {
            assert_eq!(sums::error(one), Some(0));
        }
        data.extend_from_slice(&one[headers.payload..]);
        assert_eq!(parse(one, Offload::default()).map(|one| one.tuple), Ok(packet.tuple));
    }
    assert_eq!(data, whole[headers.payload..]);
}

fn fragmented(packet: &[u8], mtu: u16) {
    let mut data = Vec::new();
    fragment(packet, mtu, |header, part| {
        let whole = [header.as_bytes(), part].concat();
        sums::assert_right_header(&whole);
        assert!(whole.len() <= usize::from(mtu));
        assert_eq!(usize::from(header.fragment_offset()), data.len());
        data.extend_from_slice(part);
        assert_eq!(header.more_fragments(), data.len() + 20 < packet.len());
    });
    assert_eq!(data, packet[20..]);
}
