//! Runs the worker threads and switches all of them to new tables or links before it says so.
//!
//! ```text
//!            publish: swap, epoch + 1, wake each worker          every worker: load both, epoch seen
//!  server ───────────────────────────────────────────▶ tables ◀─────────────────────────── worker 0..N
//!         ◀─────────────────────────────────────────── links
//!            returns when all have seen the epoch
//! ```
//!
//! What a swap replaced is freed by the thread that published, after the last worker has
//! let go of it: freeing large tables never stalls a packet.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use localvpc_api::LinkId;
use localvpc_api::report::{LinkCounters, WorkerCounters};
use localvpc_api::settings::Settings;
use localvpc_engine::{Limits, State, Tables};
use rustix::event::EventfdFlags;

use crate::clock;
use crate::engine::Engine;
use crate::links::{Link, Links};
use crate::worker::{Metrics, Worker};

/// The workers, and what they share.
pub struct Fleet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What workers, housekeeping and server share.
pub(crate) struct Shared {
    /// In force; a worker takes them up when it is woken.
    pub(crate) tables: ArcSwap<Tables>,
    /// Attached; likewise.
    pub(crate) links: ArcSwap<Links>,
    /// Likewise.
    pub(crate) settings: Mutex<Settings>,
    /// What outlives packets and pushes.
    pub(crate) state: State,
    /// Counts publications. Raised after `tables` and `links` are swapped.
    pub(crate) epoch: AtomicU64,
    /// Set once; workers end when they are woken.
    pub(crate) stop: AtomicBool,
    /// One eventfd per worker.
    pub(crate) wakes: Vec<OwnedFd>,
    /// One per worker.
    pub(crate) metrics: Vec<Metrics>,
    /// The epoch that each worker works under.
    seen: Mutex<Vec<u64>>,
    /// Told whenever `seen` changes, and when the fleet stops.
    changed: Condvar,
}

/// A worker did not switch in time. What was published stays published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} did not switch within {} s; it is stuck or starved of processor time", PATIENCE.as_secs())]
pub struct Laggard {
    /// Its index.
    pub worker: usize,
}

/// How long a worker may take to finish its batch and switch.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a round of looking for idle connections and leases takes.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Steps of a round: few, since each takes a processor from somebody for a moment, and enough that none is long.
const STEPS: u32 = 16;

impl Fleet {
    /// Starts `workers` threads, which forward nothing before tables and links come, and one for housekeeping. All run on return.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors or threads.
    pub fn start(workers: usize, seed: u64) -> io::Result<Self> {
        Self::start_with(workers, seed, localvpc_engine::Worker::new)
    }

    /// The same with another [`Engine`], made from a worker's index and a seed of its own.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors or threads.
    pub fn start_with<E: Engine>(
        workers: usize,
        seed: u64,
        engine: impl Fn(usize, u64) -> E,
    ) -> io::Result<Self> {
        let wake = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        // Each worker draws its own random numbers.
        let engines: Vec<_> = (0..workers).map(|index| engine(index, seed ^ (index as u64) << 32)).collect();
        let shared = Arc::new(Shared {
            tables: ArcSwap::from_pointee(Tables::default()),
            links: ArcSwap::from_pointee(Links::default()),
            settings: Mutex::default(),
            state: State::new(Limits::default()).with_queues(workers as u32),
            epoch: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wakes: (0..workers).map(|_| wake()).collect::<Result<_, _>>()?,
            metrics: engines.iter().map(|engine| Metrics::new(engine.counters().clone())).collect(),
            seen: Mutex::new(vec![0; workers]),
            changed: Condvar::new(),
        });
        let mut fleet = Self { shared, threads: Vec::with_capacity(workers + 1) };
        let (started, starting) = mpsc::channel();
        for (index, engine) in engines.into_iter().enumerate() {
            let worker = Worker::new(index, engine, fleet.shared.clone())?;
            fleet.spawn(format!("worker-{index}"), &started, move || worker.run())?;
        }
        let shared = fleet.shared.clone();
        fleet.spawn("housekeeping".into(), &started, move || shared.keep_house())?;
        // A thread makes system calls before it comes to our code that a filter will forbid.
        drop(started);
        starting.iter().for_each(drop);
        Ok(fleet)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.shared.wakes.len()
    }

    /// The tables in force.
    pub fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    /// The links attached.
    pub fn links(&self) -> Arc<Links> {
        self.shared.links.load_full()
    }

    /// Connections and leases.
    pub fn state(&self) -> &State {
        &self.shared.state
    }

    /// Puts tables in force on every worker.
    ///
    /// # Errors
    ///
    /// [`Laggard`]
    pub fn install(&self, tables: Tables) -> Result<(), Laggard> {
        let tables = Arc::new(tables);
        let replaced = self.shared.tables.swap(tables.clone());
        self.shared.publish()?;
        drop(replaced);
        // Nobody counts for what is gone any more.
        self.shared.state.metrics.retain(|eni| tables.has_eni(eni), |nat| tables.has_nat_gateway(nat));
        Ok(())
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.shared.settings()
    }

    /// Lets every worker work by other settings.
    ///
    /// # Errors
    ///
    /// [`Laggard`]
    pub fn configure(&self, settings: Settings) -> Result<(), Laggard> {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        self.shared.publish()
    }

    /// Lets every worker read and write a link. One of the same id is replaced.
    ///
    /// # Errors
    ///
    /// [`Laggard`]
    pub fn attach(&self, link: Link) -> Result<(), Laggard> {
        let mut links = Links::clone(&self.shared.links.load());
        links.insert(link.id, Arc::new(link));
        self.relink(links)
    }

    /// Takes a link from every worker; its queues are closed on return.
    ///
    /// # Errors
    ///
    /// [`Laggard`]: that worker closes the queues when it gets there.
    pub fn detach(&self, link: LinkId) -> Result<(), Laggard> {
        let mut links = Links::clone(&self.shared.links.load());
        links.remove(&link);
        self.relink(links)
    }

    /// Counters of every link, by ascending id.
    pub fn link_counters(&self) -> Vec<LinkCounters> {
        let mut counters: Vec<_> = self.shared.links.load().values().map(|link| link.counters()).collect();
        counters.sort_unstable_by_key(|counters| counters.link);
        counters
    }

    /// Counters of every worker.
    pub fn worker_counters(&self) -> Vec<WorkerCounters> {
        self.shared.metrics.iter().map(Metrics::counters).collect()
    }

    fn spawn(
        &mut self,
        name: String,
        started: &mpsc::Sender<()>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let started = started.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Dropping it says that this thread runs.
            drop(started);
            run();
        })?;
        self.threads.push(thread);
        Ok(())
    }

    fn relink(&self, links: Links) -> Result<(), Laggard> {
        let replaced = self.shared.links.swap(Arc::new(links));
        let switched = self.shared.publish();
        drop(replaced);
        switched
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        drop(self.shared.lock_seen());
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked outside of a packet has said so already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Says that `worker` works under what was published with `epoch`.
    pub(crate) fn acknowledge(&self, worker: usize, epoch: u64) {
        self.lock_seen()[worker] = epoch;
        self.changed.notify_all();
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) -> Result<(), Laggard> {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        let behind = |seen: &Vec<u64>| seen.iter().position(|&seen| seen < epoch);
        let waited =
            self.changed.wait_timeout_while(self.lock_seen(), PATIENCE, |seen| behind(seen).is_some());
        let seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        behind(&seen).map_or(Ok(()), |worker| Err(Laggard { worker }))
    }

    fn wake(&self) {
        for wake in &self.wakes {
            // It fails only when the worker has not taken 2^64 - 2 earlier calls.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    /// Ends what has idled for too long, in small steps, until the fleet stops.
    fn keep_house(&self) {
        let parts = self.state.parts();
        let per_step = parts.div_ceil(STEPS as usize);
        for part in (0..parts).cycle() {
            self.state.expire(&self.tables.load(), part, clock::now().into());
            if (part + 1) % per_step != 0 && part + 1 != parts {
                continue;
            }
            let stopped = |_: &mut Vec<u64>| !self.stop.load(Ordering::Acquire);
            drop(self.changed.wait_timeout_while(self.lock_seen(), HOUSEKEEPING / STEPS, stopped));
            if self.stop.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn lock_seen(&self) -> MutexGuard<'_, Vec<u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
