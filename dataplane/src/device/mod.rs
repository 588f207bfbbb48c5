//! Moves packets between the process and the world: one trait, and what implements it.
//!
//! - [`tun`]: a queue of a TUN device whose descriptor control handed over
//! - [`memory`]: two queues in memory, for tests
//! - [`pcap`]: wraps another device and records what passes
//!
//! A packet lives in a [`Frame`], with room in front for the header that a TUN queue
//! wants before it, so that it is read, rewritten and written in place.
//!
//! - [`virtio`]: that header

pub mod memory;
pub mod pcap;
pub mod tun;
pub mod virtio;

use std::io;
use std::os::fd::BorrowedFd;

use localvpc_engine::packet::{Checksum, Offload, Segmentation};
use localvpc_engine::segment;

/// Where packets come from and go to. Calls never block.
pub trait Device: Send + Sync {
    /// Reads the next packet that waits.
    ///
    /// # Errors
    ///
    /// The device is broken or gone; it will not recover.
    fn read(&self, frame: &mut Frame) -> io::Result<Arrival>;

    /// Writes the packet in `frame`, whose content is undefined afterwards.
    ///
    /// # Errors
    ///
    /// The device is full (`WouldBlock`), down, or refuses this packet. Of a super-packet
    /// that had to be segmented some segments may have been written.
    fn write(&self, frame: &mut Frame) -> io::Result<Written>;

    /// A descriptor that is readable while a packet waits.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet, now in the frame.
    Packet,
    /// A packet whose offload header says what no honest kernel would; the frame holds its bytes.
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

/// A packet in a buffer that is large enough for the largest super-packet.
pub struct Frame {
    /// Headroom, then the packet. Boxed once, reused for every packet.
    bytes: Box<[u8]>,
    /// Length of the packet.
    length: usize,
    /// What is left to be done for the packet, and how many it stands for.
    pub offload: Offload,
}

/// What an ordinary packet says: nothing is left to be done.
pub const NO_OFFLOAD: Offload =
    Offload { checksum: Checksum::Complete, segmentation: Segmentation::None, ecn: false };

/// Room in front of the packet. More than a virtio header, so that the IP header is aligned.
const HEADROOM: usize = 16;

/// The kernel's limit for what is not BIG TCP (GSO_LEGACY_MAX_SIZE).
const CAPACITY: usize = 65_536;

impl Frame {
    /// An empty frame.
    pub fn new() -> Self {
        Self { bytes: vec![0; HEADROOM + CAPACITY].into_boxed_slice(), length: 0, offload: NO_OFFLOAD }
    }

    /// The packet, from its IP header on.
    pub fn packet(&self) -> &[u8] {
        &self.bytes[HEADROOM..HEADROOM + self.length]
    }

    /// The packet, to be rewritten.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADROOM..HEADROOM + self.length]
    }

    /// Cuts off what lies behind the packet.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Puts a packet in; what exceeds the capacity of 65,536 bytes is cut off.
    pub fn fill(&mut self, packet: &[u8], offload: Offload) {
        self.length = packet.len().min(CAPACITY);
        self.bytes[HEADROOM..HEADROOM + self.length].copy_from_slice(&packet[..self.length]);
        self.offload = offload;
    }

    /// How many packets it stands for: segments of a super-packet, otherwise one.
    pub fn segments(&self) -> u16 {
        let size = match self.offload.segmentation {
            Segmentation::None => return 1,
            Segmentation::TcpV4 { size } | Segmentation::TcpV6 { size } | Segmentation::Udp { size } => size,
        };
        let headers = segment::Headers::of(self.packet()).map_or(0, |headers| headers.payload);
        let payload = self.length.saturating_sub(headers);
        payload.div_ceil(usize::from(size).max(1)).max(1) as u16
    }

    /// Room for a packet with `header` bytes in front, for a read.
    fn space(&mut self, header: usize) -> &mut [u8] {
        &mut self.bytes[HEADROOM - header..]
    }

    /// The packet with `header` bytes in front, for a write.
    fn with_header(&mut self, header: usize) -> &mut [u8] {
        &mut self.bytes[HEADROOM - header..HEADROOM + self.length]
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_segments_by_payload() {
        let mut frame = Frame::new();
        let mut packet = vec![0; 40 + 3000];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[32] = 5 << 4;
        frame.fill(&packet, NO_OFFLOAD);
        assert_eq!(frame.segments(), 1);
        for (size, segments) in [(1460, 3), (1500, 2), (3000, 1), (1, 3000), (0, 3000)] {
            frame.offload.segmentation = Segmentation::TcpV4 { size };
            assert_eq!(frame.segments(), segments, "segments of {size} bytes");
        }
    }
}
