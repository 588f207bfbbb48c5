//! Reads packets in batches, has the engine decide, and writes them: one thread per worker.
//!
//! Worker *i* reads queue *i* of every link and writes to queue *i*, so that the kernel
//! keeps a flow on one queue. Each turn it takes up to [`BURST`] packets from every link
//! that has some, so that a busy link does not starve the others.
//!
//! A panic while a packet is handled costs that packet, and is counted; the worker goes on.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use localvpc_api::report::WorkerCounters;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::metrics::Counter;
use localvpc_engine::worker::WorkerCounters as EngineCounters;
use localvpc_engine::{BatchPacket, Tables, Verdict};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::clock::{self, Instant};
use crate::device::{Arrival, Device, Frame, NO_OFFLOAD};
use crate::engine::Engine;
use crate::fleet::Shared;
use crate::links::{Link, Links};

/// Packets taken from one queue before the next has its turn.
pub const BURST: usize = 64;

/// Queues looked at per turn; the kernel hands those out first that waited longest.
const EVENTS: usize = 64;

/// The event that is no queue but a call to look at what was published.
const WAKE: u64 = u64::MAX;

/// One worker thread's own.
pub(crate) struct Worker<E> {
    epoll: OwnedFd,
    /// What the epoll instance watches, by the number that its events carry.
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

/// What a packet passes through.
struct Hands<E> {
    index: usize,
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    links: Arc<Links>,
    engine: E,
    /// The packet at hand.
    frame: Frame,
    /// A packet beside the one at hand: a fragment, or an answer of our own.
    answer: Frame,
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
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wakes[index], EventData::new_u64(WAKE), EventFlags::IN)?;
        let hands = Hands {
            index,
            tables: shared.tables.load_full(),
            links: Arc::default(),
            engine,
            shared,
            frame: Frame::new(),
            answer: Frame::new(),
        };
        Ok(Self { epoll, reading: HashMap::new(), hands })
    }

    /// Forwards until the fleet stops.
    pub(crate) fn run(mut self) {
        let shared = self.hands.shared.clone();
        let mut events = Vec::with_capacity(EVENTS);
        // When the packets of the next batch may have begun to wait: when the last batch began, as long as there is one after the other.
        let mut waiting_since = clock::now();
        while !shared.stop.load(Ordering::Acquire) {
            if self.poll(&mut events, Patience::None) == 0 {
                self.poll(&mut events, Patience::Endless);
                waiting_since = clock::now();
            }
            if events.iter().any(|event| event.data.u64() == WAKE) {
                self.switch();
            }
            for event in events.drain(..).filter(|event| event.data.u64() != WAKE) {
                let now = clock::now();
                self.hands.metrics().note_gap(now.micros_since(waiting_since));
                waiting_since = now;
                self.batch(event.data.u64(), now);
            }
        }
    }

    /// Waits for events and says how many came.
    fn poll(&self, events: &mut Vec<Event>, patience: Patience) -> usize {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = match patience {
            Patience::None => Some(&at_once),
            Patience::Endless => None,
        };
        match epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => events.len(),
            // The descriptor is ours and valid, the buffer too: no other error is left.
            Err(errno) => panic!("epoll_wait: {errno}"),
        }
    }

    /// Takes up what was published.
    fn switch(&mut self) {
        let (shared, hands) = (self.hands.shared.clone(), &mut self.hands);
        // Taken off first: a later call raises it again.
        let _ = rustix::io::read(&shared.wakes[hands.index], &mut [0; 8]);
        let epoch = shared.epoch.load(Ordering::Acquire);
        let tables = shared.tables.load_full();
        if tables.generation != hands.tables.generation {
            hands.metrics().table_swaps.add(1);
        }
        hands.tables = tables;
        hands.links = shared.links.load_full();
        self.watch();
        shared.acknowledge(self.hands.index, epoch);
    }

    /// Watches the queues of the attached links, and no other.
    fn watch(&mut self) {
        let hands = &self.hands;
        self.reading.retain(|_, reading| {
            let kept = hands.links.get(&reading.link.id).is_some_and(|link| Arc::ptr_eq(link, &reading.link));
            if !kept && reading.health == Health::Good {
                // Control holds a duplicate, so closing ours would not end the events.
                // It is watched, so the kernel has no reason to refuse.
                let _ = reading
                    .link
                    .queue(reading.queue)
                    .map(|queue| epoll::delete(&self.epoll, queue.descriptor()));
            }
            kept
        });
        for link in hands.links.values() {
            for (queue, device) in link.read_by(hands.index, hands.shared.wakes.len()) {
                let number = u64::from(link.id.0) << 32 | queue as u64;
                if self.reading.contains_key(&number) {
                    continue;
                }
                let watched =
                    epoll::add(&self.epoll, device.descriptor(), EventData::new_u64(number), EventFlags::IN);
                let health = match watched {
                    Ok(()) => Health::Good,
                    Err(errno) => {
                        tracing::error!("{} queue {queue} cannot be watched: {errno}", link.id);
                        Health::Broken
                    }
                };
                self.reading.insert(number, Reading { link: link.clone(), queue, health });
            }
        }
    }

    /// Handles what waits on one queue, up to [`BURST`] packets.
    fn batch(&mut self, number: u64, now: Instant) {
        let Some(reading) = self.reading.get_mut(&number) else { return };
        let Some(queue) = reading.link.queue(reading.queue) else { return };
        let hands = &mut self.hands;
        hands.metrics().batches.add(1);
        match catch_unwind(AssertUnwindSafe(|| hands.burst(&reading.link, queue, now))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    "{} queue {} failed and is no longer read: {error}",
                    reading.link.id,
                    reading.queue
                );
                let _ = epoll::delete(&self.epoll, queue.descriptor());
                reading.health = Health::Broken;
            }
            Err(_) => hands.recover(),
        }
    }
}

enum Patience {
    None,
    Endless,
}

impl<E: Engine> Hands<E> {
    fn burst(&mut self, link: &Link, queue: &dyn Device, now: Instant) -> io::Result<()> {
        for _ in 0..BURST {
            match queue.read(&mut self.frame)? {
                Arrival::Nothing => break,
                Arrival::Hostile => {
                    link.slot(self.index).read(self.frame.packet().len(), 1);
                    self.discard(DiscardReason::HostileOffload, 1);
                }
                Arrival::Packet => self.forward(link, now),
            }
        }
        Ok(())
    }

    fn forward(&mut self, from: &Link, now: Instant) {
        let segments = self.frame.segments();
        from.slot(self.index).read(self.frame.packet().len(), segments);
        let offload = self.frame.offload;
        let mut batch = [BatchPacket::new(from.id, self.frame.packet_mut(), offload)];
        self.engine.forward_batch(&self.tables, &self.shared.state, &mut batch, now.into());
        if let Some(Verdict::Forward { link, length, segments }) = batch[0].verdict {
            self.frame.truncate(length as usize);
            if send(&self.links, self.index, link, &mut self.frame).is_err() {
                self.discard(DiscardReason::LinkWrite, segments);
            }
        }
        let mut lost = 0;
        for extra in self.engine.extras() {
            self.answer.fill(extra.bytes, NO_OFFLOAD);
            lost += u16::from(send(&self.links, self.index, extra.link, &mut self.answer).is_err());
        }
        if lost > 0 {
            self.discard(DiscardReason::LinkWrite, lost);
        }
    }

    /// Counts the packet that made the engine panic, and starts over with an empty flow cache.
    fn recover(&mut self) {
        self.discard(DiscardReason::Internal, self.frame.segments());
        self.engine.drop_cache();
    }

    fn discard(&self, reason: DiscardReason, packets: u16) {
        self.engine.lost(&self.shared.state, packets, reason);
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.metrics[self.index]
    }
}

/// The link is gone, or would not take the packet.
struct Unsent;

fn send(links: &Links, worker: usize, to: LinkId, frame: &mut Frame) -> Result<(), Unsent> {
    let link = links.get(&to).ok_or(Unsent)?;
    match link.queue_of(worker).write(frame) {
        Ok(written) => {
            link.slot(worker).wrote(written);
            Ok(())
        }
        Err(_) => {
            link.slot(worker).write_failed();
            Err(Unsent)
        }
    }
}
