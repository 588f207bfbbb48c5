//! Reads packets in batches, has the engine decide, and writes them: one thread per worker.
//!
//! Worker *i* reads queue *i* of every link and writes to queue *i*, so that the kernel
//! keeps a flow on one queue. Each turn it takes up to [`burst::BURST`] packets from every link
//! that has some, so that a busy link does not starve the others.
//!
//! A panic while a packet is decided about costs that packet, one while packets are read or written those of the batch at hand; they are
//! counted, and the worker goes on.

mod burst;

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use localvpc_api::report::WorkerCounters;
use localvpc_api::settings::Settings;
use localvpc_engine::metrics::Counter;
use localvpc_engine::worker::WorkerCounters as EngineCounters;

use crate::clock::{self, Instant};
use crate::engine::Engine;
use crate::fleet::Shared;
use crate::links::Link;
use crate::poll::{Poller, Waited};
use burst::Hands;

/// The event that is no queue but a call to look at what was published.
const WAKE: u64 = u64::MAX;

/// One worker thread's own.
pub(crate) struct Worker<E> {
    index: usize,
    shared: Arc<Shared>,
    settings: Settings,
    /// Waits for the queues in `reading`, by their numbers.
    poller: Poller,
    reading: HashMap<u64, Reading>,
    hands: Hands<E>,
}

/// A queue that this worker reads.
struct Reading {
    link: Arc<Link>,
    /// Its position in the link.
    queue: usize,
    health: Health,
}

#[derive(PartialEq, Eq)]
enum Health {
    /// Watched.
    Good,
    /// Its device failed. No longer watched: it would report so for ever.
    Broken,
}

/// Counters of a worker, written by it alone.
#[derive(Debug)]
pub(crate) struct Metrics {
    batches: Counter,
    table_swaps: Counter,
    longest_gap_us: AtomicU64,
    /// What the engine counts for this worker.
    engine: Arc<EngineCounters>,
}

impl Metrics {
    /// Nothing counted yet.
    pub(crate) fn new(engine: Arc<EngineCounters>) -> Self {
        Self {
            batches: Counter::default(),
            table_swaps: Counter::default(),
            longest_gap_us: AtomicU64::new(0),
            engine,
        }
    }

    /// As they are now.
    pub(crate) fn counters(&self) -> WorkerCounters {
        WorkerCounters {
            batches: self.batches.value(),
            table_swaps: self.table_swaps.value(),
            longest_gap_us: self.longest_gap_us.load(Ordering::Relaxed),
            packets: self.engine.packets.value(),
            cache_hits: self.engine.cache_hits.value(),
            walks: self.engine.walks.value(),
            cached_flows: self.engine.cached_flows.value(),
        }
    }

    fn note_gap(&self, micros: u64) {
        self.longest_gap_us.fetch_max(micros, Ordering::Relaxed);
    }
}

impl<E: Engine> Worker<E> {
    /// A worker that watches nothing yet.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub(crate) fn new(index: usize, engine: E, shared: Arc<Shared>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&shared.wakes[index], WAKE)?;
        let hands = Hands::new(index, engine, shared.clone());
        let settings = shared.settings();
        Ok(Self { index, shared, settings, poller, reading: HashMap::new(), hands })
    }

    /// Forwards until the fleet stops.
    pub(crate) fn run(mut self) {
        // When the packets of the next batch may have begun to wait: when the last batch began, as long as there is one after the other.
        let mut waiting_since = clock::now();
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.poller.wait(self.settings.poll) == Waited::Idle {
                waiting_since = clock::now();
            }
            if self.poller.ready().contains(&WAKE) {
                self.switch();
            }
            for at in 0..self.poller.ready().len() {
                let number = self.poller.ready()[at];
                if number == WAKE {
                    continue;
                }
                let now = clock::now();
                self.metrics().note_gap(now.micros_since(waiting_since));
                waiting_since = now;
                self.batch(number, now);
            }
        }
    }

    /// Takes up what was published.
    fn switch(&mut self) {
        let (shared, hands) = (self.shared.clone(), &mut self.hands);
        // Taken off first: a later call raises it again.
        let _ = rustix::io::read(&shared.wakes[self.index], &mut [0; 8]);
        let epoch = shared.epoch.load(Ordering::Acquire);
        let tables = shared.tables.load_full();
        if tables.generation != hands.tables.generation {
            shared.metrics[self.index].table_swaps.add(1);
        }
        hands.tables = tables;
        hands.links = shared.links.load_full();
        self.settings = shared.settings();
        hands.merge = self.settings.merge;
        self.watch();
        shared.acknowledge(self.index, epoch);
    }

    /// Watches the queues of the attached links, and no other.
    fn watch(&mut self) {
        let (hands, poller) = (&self.hands, &self.poller);
        self.reading.retain(|_, reading| {
            let kept = hands.links.get(&reading.link.id).is_some_and(|link| Arc::ptr_eq(link, &reading.link));
            if !kept && reading.health == Health::Good {
                // Control holds a duplicate, so closing ours would not end the events.
                // It is watched, so the kernel has no reason to refuse.
                let _ = reading.link.queue(reading.queue).map(|queue| poller.remove(queue.descriptor()));
            }
            kept
        });
        for link in hands.links.values() {
            for (queue, device) in link.read_by(self.index, self.shared.wakes.len()) {
                let number = u64::from(link.id.0) << 32 | queue as u64;
                if self.reading.contains_key(&number) {
                    continue;
                }
                let health = match poller.add(device.descriptor(), number) {
                    Ok(()) => Health::Good,
                    Err(errno) => {
                        tracing::error!("{} queue {queue} cannot be watched: {errno}", link.id);
                        link.break_down();
                        Health::Broken
                    }
                };
                self.reading.insert(number, Reading { link: link.clone(), queue, health });
            }
        }
    }

    /// Handles what waits on one queue, up to [`burst::BURST`] packets.
    fn batch(&mut self, number: u64, now: Instant) {
        self.metrics().batches.add(1);
        let Some(reading) = self.reading.get_mut(&number) else { return };
        let Some(queue) = reading.link.queue(reading.queue) else { return };
        let hands = &mut self.hands;
        match catch_unwind(AssertUnwindSafe(|| hands.burst(&reading.link, queue, now))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    "{} queue {} failed and is no longer read: {error}",
                    reading.link.id,
                    reading.queue
                );
                let _ = self.poller.remove(queue.descriptor());
                reading.health = Health::Broken;
                reading.link.break_down();
            }
            Err(_) => hands.recover(),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics[self.index]
    }
}
