//! What the worker loop asks of whatever decides about packets.
//!
//! The dataplane's is [`localvpc_engine::Worker`]. A benchmark puts one in its place that decides nothing, and so
//! measures what the devices and the loop around them cost by themselves, under the very same settings.

use std::sync::Arc;

use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::packet::Offload;
use localvpc_engine::worker::WorkerCounters;
use localvpc_engine::{State, Tables, Time, Verdict};

/// One worker's own; see [`localvpc_engine::Worker`] for what the methods promise.
pub trait Engine: Send + 'static {
    /// Its counters.
    fn counters(&self) -> &Arc<WorkerCounters>;

    /// Decides about the packet that came in on `from` and rewrites it in place.
    fn forward(
        &mut self,
        tables: &Tables,
        state: &State,
        from: LinkId,
        bytes: &mut [u8],
        offload: Offload,
        now: Time,
    ) -> Verdict;

    /// Takes the packets that it made itself in the last [`forward`](Self::forward), each with the link it leaves on.
    fn answers(&mut self) -> impl Iterator<Item = (LinkId, &[u8])>;

    /// Takes the fragments that leave since the last [`forward`](Self::forward).
    fn fragments(&mut self) -> impl Iterator<Item = (LinkId, &[u8])>;

    /// Counts a packet that was lost after its verdict.
    fn lost(&self, state: &State, segments: u16, reason: DiscardReason);

    /// Forgets what it may forget, after a panic.
    fn drop_cache(&mut self);
}

impl Engine for localvpc_engine::Worker {
    #[inline]
    fn counters(&self) -> &Arc<WorkerCounters> {
        self.counters()
    }

    #[inline]
    fn forward(
        &mut self,
        tables: &Tables,
        state: &State,
        from: LinkId,
        bytes: &mut [u8],
        offload: Offload,
        now: Time,
    ) -> Verdict {
        self.forward(tables, state, from, bytes, offload, now)
    }

    #[inline]
    fn answers(&mut self) -> impl Iterator<Item = (LinkId, &[u8])> {
        self.answers()
    }

    #[inline]
    fn fragments(&mut self) -> impl Iterator<Item = (LinkId, &[u8])> {
        self.fragments()
    }

    fn lost(&self, state: &State, segments: u16, reason: DiscardReason) {
        self.lost(state, segments, reason);
    }

    fn drop_cache(&mut self) {
        self.drop_cache();
    }
}
