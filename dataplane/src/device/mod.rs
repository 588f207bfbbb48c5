//! Moves packets between the process and the world: one trait, and what implements it.
//!
//! - [`tun`]: a queue of a TUN device whose descriptor control handed over
//! - [`memory`]: two queues in memory, for tests
//! - [`pcap`]: wraps another device and records what passes
//!
//! Packets live in a [`Batch`], with room in front of each for the header that a TUN queue
//! wants before it, so that they are read, rewritten and written in place.
//!
//! - [`batch`]: many packets in one buffer, and one on its way out
//! - [`virtio`]: that header

pub mod batch;
pub mod memory;
pub mod pcap;
pub mod tun;
pub mod virtio;

use std::io;
use std::os::fd::BorrowedFd;

use localvpc_engine::merge::Takes;
use localvpc_engine::packet::{Checksum, Offload, Segmentation};
use localvpc_engine::segment;

pub use batch::{Batch, Made, Outgoing};

/// Where packets come from and go to. Calls never block.
pub trait Device: Send + Sync {
    /// Reads the next packet that waits to the end of a batch that is not full.
    ///
    /// # Errors
    ///
    /// The device is broken or gone; it will not recover.
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival>;

    /// Writes a packet, whose content is undefined afterwards.
    ///
    /// # Errors
    ///
    /// The device is full (`WouldBlock`), down, or refuses this packet. Of a super-packet
    /// that had to be segmented some segments may have been written.
    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written>;

    /// Which super-packets it takes unsplit, and so which are worth making for it.
    fn takes(&self) -> Takes;

    /// A descriptor that is readable while a packet waits.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet, now the last of the batch.
    Packet,
    /// A packet whose offload header says what no honest kernel would; the batch holds its bytes, last.
    Hostile,
    /// Nothing waits.
    Nothing,
}

/// What a write took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Packets or super-packets handed over, one system call each.
    pub calls: u32,
    /// Their bytes from the IP header on.
    pub bytes: u32,
}

/// What an ordinary packet says: nothing is left to be done.
pub const NO_OFFLOAD: Offload =
    Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, ecn: false };

/// Room in front of a packet. More than a virtio header, so that the IP header is aligned.
pub const HEADROOM: usize = 16;

/// The longest packet: the kernel's limit for what is not BIG TCP (GSO_LEGACY_MAX_SIZE).
const CAPACITY: usize = 65_536;

/// How many packets one stands for: segments of a super-packet, otherwise one.
pub fn segments(packet: &[u8], offload: Offload) -> u16 {
    let size = match offload.segmentation {
        Segmentation::None => return 1,
        Segmentation::TcpV4 { size } | Segmentation::TcpV6 { size } | Segmentation::Udp { size } => size,
    };
    let headers = segment::Headers::of(packet).map_or(0, |headers| headers.payload);
    let payload = packet.len().saturating_sub(headers);
    payload.div_ceil(usize::from(size).max(1)).max(1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_by_payload() {
        let mut packet = vec![0; 40 + 3000];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[32] = 5 << 4;
        assert_eq!(segments(&packet, NO_OFFLOAD), 1);
        for (size, expected) in [(1460, 3), (1500, 2), (3000, 1), (1, 3000), (0, 3000)] {
            let offload = Offload { segmentation: Segmentation::TcpV4 { size }, ..NO_OFFLOAD };
            assert_eq!(segments(&packet, offload), expected, "segments of {size} bytes");
        }
    }
}
