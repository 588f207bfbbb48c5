//! An engine that decides nothing: what comes out of one link goes into its neighbour.

use std::sync::Arc;

use localvpc_api::{DiscardReason, LinkId};
use localvpc_dataplane::engine::Engine;
use localvpc_engine::packet::{Offload, Segmentation};
use localvpc_engine::worker::{BatchPacket, Extra, WorkerCounters};
use localvpc_engine::{State, Tables, Time, Verdict};

/// One worker's.
pub struct Null {
    /// Of its worker.
    index: usize,
    counters: Arc<WorkerCounters>,
}

impl Null {
    /// Of worker `index`.
    pub fn new(index: usize) -> Self {
        Self { index, counters: Arc::default() }
    }
}

impl Engine for Null {
    fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    #[inline]
    fn forward_batch(&mut self, _: &Tables, _: &State, batch: &mut [BatchPacket<'_>], _: Time) {
        for packet in batch {
            packet.verdict = Some(Verdict::Forward {
                link: neighbour(packet.from),
                length: packet.bytes.len() as u32,
                segments: segments(packet.bytes.len(), packet.offload),
            });
        }
    }

    fn extras(&self) -> impl Iterator<Item = Extra<'_>> {
        std::iter::empty()
    }

    fn lost(&self, state: &State, segments: u16, reason: DiscardReason) {
        state.metrics.discards(self.index).add(reason, segments);
    }

    fn drop_cache(&mut self) {}
}

/// Control numbers the links of a new lab from 1, the internet's first, then instances in the order of the file: 1 and 2
/// are neighbours, 3 and 4, and so on.
fn neighbour(link: LinkId) -> LinkId {
    LinkId((link.0.wrapping_sub(1) ^ 1).wrapping_add(1))
}

/// About as many as there are: used only to count what the device does not take.
fn segments(length: usize, offload: Offload) -> u16 {
    match offload.segmentation {
        Segmentation::None => 1,
        Segmentation::TcpV4 { size } | Segmentation::TcpV6 { size } | Segmentation::Udp { size } => {
            length.div_ceil(usize::from(size).max(1)) as u16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_neighbours_in_pairs() {
        let pairs: Vec<u32> = (1..=6).map(|link| neighbour(LinkId(link)).0).collect();
        assert_eq!(pairs, [2, 1, 4, 3, 6, 5]);
    }

    #[test]
    fn a_super_packet_counts_as_its_segments() {
        let offload = Offload { segmentation: Segmentation::TcpV4 { size: 1448 }, ..Offload::default() };
        assert_eq!(segments(20 * 1448, offload), 20);
        assert_eq!(segments(1500, Offload::default()), 1);
    }
}
