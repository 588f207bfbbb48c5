//! Forwards many packets at once, with the outcome that they have one after the other.

use localvpc_api::LinkId;

use super::{Verdict, Worker};
use crate::Time;
use crate::packet::Offload;
use crate::state::State;
use crate::tables::Tables;

/// A packet of a batch.
#[derive(Debug)]
pub struct BatchPacket<'a> {
    /// The link it came in on.
    pub from: LinkId,
    /// From the IP header on; rewritten in place.
    pub bytes: &'a mut [u8],
    /// What its virtio header said.
    pub offload: Offload,
    /// What becomes of it; `None` until that is decided.
    ///
    /// A panic leaves the packets that were decided before it with their verdicts. The first one without is lost;
    /// those behind it are as they came and may be handed over again.
    pub verdict: Option<Verdict>,
}

impl<'a> BatchPacket<'a> {
    /// A packet about which nothing is decided yet.
    pub fn new(from: LinkId, bytes: &'a mut [u8], offload: Offload) -> Self {
        Self { from, bytes, offload, verdict: None }
    }
}

impl Worker {
    /// Decides about packets in the order in which they came, and rewrites them in place: as [`forward`](Self::forward) does
    /// with each, only faster.
    ///
    /// They may be of any links and any number; 32 to 64 are best. What leaves beside them is in [`extras`](Self::extras).
    pub fn forward_batch(
        &mut self,
        tables: &Tables,
        state: &State,
        batch: &mut [BatchPacket<'_>],
        now: Time,
    ) {
        self.outbox.clear();
        for (at, packet) in batch.iter_mut().enumerate() {
            self.outbox.turn_to(at);
            let verdict = self.decide(tables, state, packet.from, packet.bytes, packet.offload, now);
            packet.verdict = Some(verdict);
        }
    }
}
