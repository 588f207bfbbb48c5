//! Packets that leave beside the one at hand: pieces of it, and fragments that waited for it.

use localvpc_api::LinkId;

/// Packets in one buffer, which is kept for reuse.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// For each packet the link it leaves on, and where in `bytes` it ends.
    packets: Vec<(LinkId, usize)>,
    contents: Contents,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Contents {
    #[default]
    Waiting,
    Taken,
}

impl Outbox {
    /// Puts a packet in, made of parts.
    pub(super) fn push(&mut self, link: LinkId, parts: &[&[u8]]) {
        if self.contents == Contents::Taken {
            self.bytes.clear();
            self.packets.clear();
            self.contents = Contents::Waiting;
        }
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.packets.push((link, self.bytes.len()));
    }

    /// Takes all packets, in the order in which they were put in.
    #[inline]
    pub(super) fn take(&mut self) -> impl Iterator<Item = (LinkId, &[u8])> {
        let waiting = match std::mem::replace(&mut self.contents, Contents::Taken) {
            Contents::Waiting => self.packets.len(),
            Contents::Taken => 0,
        };
        let bytes = self.bytes.as_slice();
        let mut start = 0;
        self.packets[..waiting].iter().map(move |(link, end)| {
            let packet = &bytes[start..*end];
            start = *end;
            (*link, packet)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_once_and_in_order() {
        let mut outbox = Outbox::default();
        let taken = |outbox: &mut Outbox| -> Vec<(u32, Vec<u8>)> {
            outbox.take().map(|(link, bytes)| (link.0, bytes.to_vec())).collect()
        };
        assert!(taken(&mut outbox).is_empty());
        for _ in 0..2 {
            outbox.push(LinkId(1), &[b"he", b"llo"]);
            outbox.push(LinkId(2), &[b"you"]);
            assert_eq!(taken(&mut outbox), [(1, b"hello".to_vec()), (2, b"you".to_vec())]);
            assert!(taken(&mut outbox).is_empty());
        }
    }
}
