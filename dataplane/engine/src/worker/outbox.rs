//! Packets that leave beside those at hand: pieces of one, fragments that waited for it, answers to it.

use localvpc_api::LinkId;

/// A packet that leaves beside those that were handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra<'a> {
    /// The packet of the batch that it belongs to, by position. It leaves after that one and before the next.
    pub after: usize,
    /// The link it leaves on.
    pub link: LinkId,
    /// From the IP header on, checksums complete.
    pub bytes: &'a [u8],
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an [`Extra`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A piece of a packet that was too big, or a fragment that has waited for its first.
    Fragment,
    /// The dataplane made it: an ICMP error or a reset.
    Answer,
}

/// Packets in one buffer, which is kept for reuse.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    packets: Vec<Slot>,
    /// The packet at hand.
    at: usize,
}

#[derive(Debug)]
struct Slot {
    after: usize,
    link: LinkId,
    origin: Origin,
    /// Where in the buffer it ends.
    end: usize,
}

impl Outbox {
    /// Forgets what is in it.
    #[inline]
    pub(super) fn clear(&mut self) {
        if !self.packets.is_empty() {
            self.bytes.clear();
            self.packets.clear();
        }
    }

    /// What is put in from here on belongs to packet `at`.
    #[inline]
    pub(super) fn turn_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Puts a packet in, made of parts.
    pub(super) fn push(&mut self, origin: Origin, link: LinkId, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.packets.push(Slot { after: self.at, link, origin, end: self.bytes.len() });
    }

    /// All packets, in the order in which they were put in.
    #[inline]
    pub(super) fn packets(&self) -> impl Iterator<Item = Extra<'_>> {
        let mut start = 0;
        self.packets.iter().map(move |&Slot { after, link, origin, end }| {
            let bytes = &self.bytes[start..end];
            start = end;
            Extra { after, link, bytes, origin }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_order_and_with_their_owner() {
        let mut outbox = Outbox::default();
        for _ in 0..2 {
            assert_eq!(outbox.packets().count(), 0);
            outbox.turn_to(0);
            outbox.push(Origin::Fragment, LinkId(1), &[b"he", b"llo"]);
            outbox.turn_to(7);
            outbox.push(Origin::Answer, LinkId(2), &[b"you"]);
            let hello =
                Extra { after: 0, link: LinkId(1), bytes: b"hello".as_slice(), origin: Origin::Fragment };
            let you = Extra { after: 7, link: LinkId(2), bytes: b"you".as_slice(), origin: Origin::Answer };
            assert_eq!(outbox.packets().collect::<Vec<_>>(), [hello, you]);
            outbox.clear();
        }
    }
}
