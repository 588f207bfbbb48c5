//! Any virtio header before any packet, as a TUN queue hands them over.
//!
//! - A header is hostile, or what was understood is what would be written.
//! - The engine refuses the packet that it does not fit, or can segment it: into as many packets as it has said.

use localvpc_dataplane::device::virtio::{LENGTH, encode, parse};
use localvpc_engine::packet;
use localvpc_engine::segment::{Unfit, segment};

use crate::{sums, traffic};

/// Bytes: the header, the packet.
pub fn virtio(bytes: &[u8]) {
    let Some((header, bytes)) = bytes.split_first_chunk::<LENGTH>() else { return };
    let Ok(offload) = parse(*header) else { return };
    let written = encode(offload, 40);
    assert_eq!(parse(written), Ok(offload));
    assert_eq!(written[1], header[1], "the kind of segmentation");

    let mut bytes = traffic::sealed(bytes.to_vec());
    let Ok(packet) = packet::parse(&bytes, offload) else { return };
    let mut segments = 0;
    let cut = segment(&mut bytes[..packet.length as usize], offload, |segment| {
        segments += 1;
        assert!(segment.len() <= usize::from(packet.segment_length));
        sums::assert_right_header(segment);
        Ok::<_, Unfit>(())
    });
    assert_eq!((cut, segments), (Ok(()), packet.segments));
}
