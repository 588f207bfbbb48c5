//! The links that are attached: which queues packets are read from and written to.
//!
//! Workers share one immutable [`Links`]; attaching or detaching publishes another one.
//! A queue's descriptor is closed when the last worker has let go of the link.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::LinkId;
use localvpc_api::message::Offload;
use localvpc_api::report::LinkCounters;
use localvpc_engine::metrics::{Counter, MAX_WORKERS};

use crate::device::{Device, Written};

/// Every attached link.
pub type Links = HashMap<LinkId, Arc<Link>, RandomState>;

/// A link with its queues.
pub struct Link {
    /// Its id in the tables.
    pub id: LinkId,
    /// Whether its queues speak virtio headers, as it was attached.
    pub offload: Offload,
    /// In queue order, never empty.
    queues: Vec<Box<dyn Device>>,
    /// One slot per worker.
    slots: Vec<Slot>,
    /// A queue has failed.
    broken: AtomicBool,
}

/// One worker's counters of a link.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Slot {
    reads: Counter,
    read_bytes: Counter,
    read_segments: Counter,
    writes: Counter,
    merged: Counter,
    written_bytes: Counter,
    write_errors: Counter,
}

impl Link {
    /// A link over `queues`, of which there is at least one.
    ///
    /// # Panics
    ///
    /// Without a queue.
    pub fn new(id: LinkId, offload: Offload, queues: Vec<Box<dyn Device>>) -> Self {
        assert!(!queues.is_empty(), "{id} has no queue");
        let slots = (0..MAX_WORKERS).map(|_| Slot::default()).collect();
        Self { id, offload, queues, slots, broken: AtomicBool::new(false) }
    }

    /// The queue that a worker writes to: its own, or the first where there are fewer than workers.
    #[inline]
    pub fn queue_of(&self, worker: usize) -> &dyn Device {
        self.queues.get(worker).unwrap_or(&self.queues[0]).as_ref()
    }

    /// The queues that worker `worker` of `workers` reads, by position: together the workers read every one.
    pub fn read_by(&self, worker: usize, workers: usize) -> impl Iterator<Item = (usize, &dyn Device)> {
        self.queues.iter().enumerate().skip(worker).step_by(workers).map(|(at, queue)| (at, queue.as_ref()))
    }

    /// A queue by position.
    pub fn queue(&self, at: usize) -> Option<&dyn Device> {
        self.queues.get(at).map(AsRef::as_ref)
    }

    /// The descriptors of all queues, in queue order.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.descriptor()).collect()
    }

    /// Notes that a queue has failed, and so its device.
    pub fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether a queue has failed.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The slot of a worker, to which only that worker may add.
    #[inline]
    pub fn slot(&self, worker: usize) -> &Slot {
        &self.slots[worker]
    }

    /// What all workers counted.
    pub fn counters(&self) -> LinkCounters {
        let sum = |counter: fn(&Slot) -> &Counter| self.slots.iter().map(|slot| counter(slot).value()).sum();
        LinkCounters {
            link: self.id,
            reads: sum(|slot| &slot.reads),
            read_bytes: sum(|slot| &slot.read_bytes),
            read_segments: sum(|slot| &slot.read_segments),
            writes: sum(|slot| &slot.writes),
            merged: sum(|slot| &slot.merged),
            written_bytes: sum(|slot| &slot.written_bytes),
            write_errors: sum(|slot| &slot.write_errors),
        }
    }
}

impl Slot {
    /// Counts a packet, or a super-packet of `segments`, that was read.
    #[inline]
    pub fn read(&self, bytes: usize, segments: u16) {
        self.reads.add(1);
        self.read_bytes.add(bytes as u64);
        self.read_segments.add(u64::from(segments));
    }

    /// Counts what was written.
    #[inline]
    pub fn wrote(&self, written: Written) {
        self.writes.add(u64::from(written.calls));
        self.written_bytes.add(u64::from(written.bytes));
    }

    /// Counts packets that left joined with others.
    #[inline]
    pub fn merged(&self, packets: u16) {
        self.merged.add(u64::from(packets));
    }

    /// Counts a write that failed.
    pub fn write_failed(&self) {
        self.write_errors.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::MemoryDevice;

    fn link(queues: usize) -> Link {
        let queues = (0..queues).map(|_| Box::new(MemoryDevice::new(1).unwrap()) as Box<dyn Device>);
        Link::new(LinkId(7), Offload::VirtioHeader, queues.collect())
    }

    #[test]
    fn every_queue_is_read_by_exactly_one_worker() {
        for (queues, workers) in [(1, 1), (2, 2), (1, 3), (5, 2), (16, 3)] {
            let link = link(queues);
            let mut read: Vec<usize> =
                (0..workers).flat_map(|worker| link.read_by(worker, workers).map(|(at, _)| at)).collect();
            read.sort_unstable();
            assert_eq!(read, (0..queues).collect::<Vec<_>>(), "{queues} queues, {workers} workers");
        }
    }

    #[test]
    fn a_worker_without_a_queue_of_its_own_writes_to_the_first() {
        let link = link(2);
        let descriptor = |queue: &dyn Device| std::os::fd::AsRawFd::as_raw_fd(&queue.descriptor());
        assert_eq!(descriptor(link.queue_of(1)), descriptor(link.queue(1).unwrap()));
        assert_eq!(descriptor(link.queue_of(2)), descriptor(link.queue(0).unwrap()));
    }

    #[test]
    fn counters_are_summed_over_workers() {
        let link = link(2);
        link.slot(0).read(3000, 2);
        link.slot(1).read(40, 1);
        link.slot(1).wrote(Written { calls: 2, bytes: 80 });
        link.slot(1).merged(3);
        link.slot(0).write_failed();
        assert_eq!(
            link.counters(),
            LinkCounters {
                link: LinkId(7),
                reads: 2,
                read_bytes: 3040,
                read_segments: 3,
                writes: 2,
                merged: 3,
                written_bytes: 80,
                write_errors: 1,
            }
        );
    }
}
