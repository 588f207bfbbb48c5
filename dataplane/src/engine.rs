//! What the worker loop asks of whatever decides about packets.
//!
//! The dataplane's is [`localvpc_engine::Worker`]. A benchmark puts one in its place that decides nothing, and so
//! measures what the devices and the loop around them cost by themselves, under the very same settings.

use std::sync::Arc;

use localvpc_api::DiscardReason;
use localvpc_engine::worker::{BatchPacket, Extra, WorkerCounters};
use localvpc_engine::{State, Tables, Time};

/// One worker's own; see [`localvpc_engine::Worker`] for what the methods promise.
pub trait Engine: Send + 'static {
    /// Its counters.
    fn counters(&self) -> &Arc<WorkerCounters>;

    /// Decides about packets in the order in which they came, and rewrites them in place.
    fn forward_batch(&mut self, tables: &Tables, state: &State, batch: &mut [BatchPacket<'_>], now: Time);

    /// The packets that leave beside those of the last [`forward_batch`](Self::forward_batch), in the order in which they leave.
    fn extras(&self) -> impl Iterator<Item = Extra<'_>>;

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
    fn forward_batch(&mut self, tables: &Tables, state: &State, batch: &mut [BatchPacket<'_>], now: Time) {
        self.forward_batch(tables, state, batch, now);
    }

    #[inline]
    fn extras(&self) -> impl Iterator<Item = Extra<'_>> {
        self.extras()
    }

    fn lost(&self, state: &State, segments: u16, reason: DiscardReason) {
        self.lost(state, segments, reason);
    }

    fn drop_cache(&mut self) {
        self.drop_cache();
    }
}
