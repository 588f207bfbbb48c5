//! Packets that were read one after the other, packed into one buffer, and packets on their way out.
//!
//! ```text
//!  buffer   |headroom|packet 0   |headroom|packet 1|headroom|packet 2 ...        | room for the largest |
//! ```
//!
//! A batch ends with a number of packets or of bytes: small packets share a wake-up, a write and a look at the tables,
//! while super-packets of 64 KiB, which are worth a wake-up each, leave while the processor's cache still holds them.

use std::io::IoSlice;

use localvpc_engine::BatchPacket;
use localvpc_engine::packet::Offload;

use super::{CAPACITY, HEADROOM, NO_OFFLOAD};

/// A batch of packets in one buffer, which is reused.
pub struct Batch {
    bytes: Box<[u8]>,
    slots: Vec<Slot>,
    /// Most packets.
    packets: usize,
    /// Bytes after which it is full.
    budget: usize,
}

/// A packet of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Where its IP header is in [`Batch::bytes`].
    pub start: usize,
    /// Its length.
    pub length: usize,
    /// What is left to be done for it.
    pub offload: Offload,
}

/// A packet that is written: whole, or the head of a super-packet whose other payloads lie elsewhere.
pub struct Outgoing<'a> {
    /// [`HEADROOM`] bytes of no meaning, then the packet.
    buffer: &'a mut [u8],
    /// The payloads that follow it.
    joined: &'a [IoSlice<'a>],
    /// What is left to be done for the whole.
    pub offload: Offload,
}

/// A packet of our own making, in a buffer that is kept.
#[derive(Default)]
pub struct Made {
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty batch that is full with a number of packets, or once `budget` bytes are used; the last packet is always taken whole.
    pub fn new(packets: usize, budget: usize) -> Self {
        let bytes = vec![0; budget + HEADROOM * 2 + CAPACITY].into_boxed_slice();
        Self { bytes, slots: Vec::with_capacity(packets), packets, budget }
    }

    /// Forgets its packets.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// Whether it takes no more packets.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.packets || self.end() >= self.budget
    }

    /// Its packets.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The buffer that they lie in.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// A packet, from its IP header on.
    pub fn packet(&self, at: usize) -> &[u8] {
        let Slot { start, length, .. } = self.slots[at];
        &self.bytes[start..start + length]
    }

    /// Puts a packet in; what exceeds the capacity of 65,536 bytes is cut off.
    ///
    /// # Panics
    ///
    /// If the batch is full.
    pub fn fill(&mut self, packet: &[u8], offload: Offload) {
        let length = packet.len().min(CAPACITY);
        self.space(0)[..length].copy_from_slice(&packet[..length]);
        self.push(length, offload);
    }

    /// Takes the last packet out again.
    pub fn pop(&mut self) -> Option<Slot> {
        self.slots.pop()
    }

    /// The packets from number `from` on as the engine wants them, said to come from `link`.
    pub fn to_forward(
        &mut self,
        from: usize,
        link: localvpc_api::LinkId,
    ) -> impl Iterator<Item = BatchPacket<'_>> {
        let (mut rest, mut at) = (&mut self.bytes[..], 0);
        self.slots[from..].iter().map(move |slot| {
            let (packet, behind) = std::mem::take(&mut rest)[slot.start - at..].split_at_mut(slot.length);
            (rest, at) = (behind, slot.start + slot.length);
            BatchPacket::new(link, packet, slot.offload)
        })
    }

    /// A packet, or the head of a joined one, to be written.
    pub fn outgoing(&mut self, start: usize, length: usize, offload: Offload) -> Outgoing<'_> {
        Outgoing { buffer: &mut self.bytes[start - HEADROOM..start + length], joined: &[], offload }
    }

    /// Room for the next packet with `header` bytes in front, for a read.
    pub(super) fn space(&mut self, header: usize) -> &mut [u8] {
        assert!(!self.is_full(), "a full batch is not read into");
        let start = self.next();
        &mut self.bytes[start - header..start + CAPACITY]
    }

    /// Takes up what was read there.
    pub(super) fn push(&mut self, length: usize, offload: Offload) {
        let start = self.next();
        self.slots.push(Slot { start, length, offload });
    }

    /// Where the next packet starts: the IP header is aligned.
    fn next(&self) -> usize {
        self.end().next_multiple_of(HEADROOM) + HEADROOM
    }

    fn end(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.start + slot.length)
    }
}

impl<'a> Outgoing<'a> {
    /// The head of a super-packet, and what is joined to it. `buffer` has [`HEADROOM`] bytes before the head.
    pub fn joined(buffer: &'a mut [u8], joined: &'a [IoSlice<'a>], offload: Offload) -> Self {
        Self { buffer, joined, offload }
    }

    /// The packet, or its head, from the IP header on.
    pub fn head(&self) -> &[u8] {
        &self.buffer[HEADROOM..]
    }

    /// What is joined to the head.
    pub fn payloads(&self) -> &'a [IoSlice<'a>] {
        self.joined
    }

    /// Bytes of the whole.
    pub fn length(&self) -> usize {
        self.head().len() + self.joined.iter().map(|payload| payload.len()).sum::<usize>()
    }

    /// The whole in one piece, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut whole = self.head().to_vec();
        self.joined.iter().for_each(|payload| whole.extend_from_slice(payload));
        whole
    }

    /// The packet, or its head, to be changed.
    pub(super) fn head_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADROOM..]
    }

    /// The head with `header` bytes in front.
    pub(super) fn with_header(&mut self, header: usize) -> &mut [u8] {
        &mut self.buffer[HEADROOM - header..]
    }
}

impl Made {
    /// Takes a packet, checksums complete.
    pub fn fill(&mut self, packet: &[u8]) -> Outgoing<'_> {
        self.bytes.clear();
        self.bytes.resize(HEADROOM, 0);
        self.bytes.extend_from_slice(packet);
        Outgoing { buffer: &mut self.bytes, joined: &[], offload: NO_OFFLOAD }
    }
}

#[cfg(test)]
mod tests {
    use localvpc_api::LinkId;

    use super::*;

    #[test]
    fn packets_lie_apart_and_come_out_as_they_went_in() {
        let mut batch = Batch::new(3, 1000);
        for packet in [&b"one"[..], b"", b"three"] {
            assert!(!batch.is_full());
            batch.fill(packet, NO_OFFLOAD);
        }
        assert!(batch.is_full(), "by number");
        assert_eq!([batch.packet(0), batch.packet(1), batch.packet(2)], [&b"one"[..], b"", b"three"]);
        let mut packets: Vec<_> = batch.to_forward(1, LinkId(4)).collect();
        assert_eq!((packets[0].bytes.len(), packets[1].from), (0, LinkId(4)));
        packets[1].bytes[0] = b'T';
        let slot = batch.slots()[2];
        let mut outgoing = batch.outgoing(slot.start, 4, NO_OFFLOAD);
        assert_eq!(outgoing.head(), b"Thre");
        outgoing.with_header(10).fill(7);
        assert_eq!(batch.packet(0), b"one", "the headroom is nobody's");
        batch.clear();
        batch.fill(&[1; 70_000], NO_OFFLOAD);
        assert!(batch.is_full(), "by bytes");
        assert_eq!(batch.pop().map(|slot| slot.length), Some(CAPACITY));
    }

    #[test]
    fn a_joined_packet_is_its_head_and_its_payloads() {
        let mut buffer = [0; HEADROOM + 4];
        buffer[HEADROOM..].copy_from_slice(b"head");
        let payloads = [IoSlice::new(b"er"), IoSlice::new(b"y")];
        let outgoing = Outgoing::joined(&mut buffer, &payloads, NO_OFFLOAD);
        assert_eq!((outgoing.length(), outgoing.to_vec()), (7, b"headery".to_vec()));
        assert_eq!(Made::default().fill(b"made").to_vec(), b"made");
    }
}
