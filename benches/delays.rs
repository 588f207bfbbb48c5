//! How long do batches of packets take while something else goes on?
//!
//! What a machine with few processors does to a thread is told apart from what we do: a batch that was interrupted took longer on the
//! clock, but not of the thread's own time; and whoever waits for a lock gives its processor away of its own will.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What was measured of every batch.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// Nanoseconds on the clock.
    wall: Vec<u32>,
    /// Nanoseconds of the thread's own time.
    own: Vec<u32>,
    /// How often the thread gave its processor away to wait for something.
    waits: u64,
    /// How often the system took the processor from it.
    interruptions: u64,
}

/// Runs batches in a thread of their own for as long as `act` takes, and a little before and after.
pub fn beside<T>(mut batch: impl FnMut() + Send, act: impl FnOnce() -> T) -> (T, Delays) {
    const A_LITTLE: usize = 10_000;
    let (ready, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            let mut delays = Delays {
                wall: Vec::with_capacity(1 << 24),
                own: Vec::with_capacity(1 << 24),
                ..Delays::default()
            };
            let before = switches();
            let mut after = 0;
            while after < A_LITTLE && delays.wall.len() < delays.wall.capacity() {
                let (wall, own) = (Instant::now(), own_time());
                batch();
                delays.own.push((own_time() - own).as_nanos() as u32);
                delays.wall.push(wall.elapsed().as_nanos() as u32);
                if delays.wall.len() == A_LITTLE {
                    ready.store(true, Ordering::Release);
                }
                after += usize::from(done.load(Ordering::Acquire));
            }
            let behind = switches();
            delays.waits = behind.0 - before.0;
            delays.interruptions = behind.1 - before.1;
            delays
        });
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let outcome = act();
        done.store(true, Ordering::Release);
        (outcome, measured.join().expect("batches do not panic"))
    })
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name, all: &[u32]| {
            let mut all = all.to_vec();
            all.sort_unstable();
            let at = |share: f64| f64::from(all[((all.len() - 1) as f64 * share) as usize]) / 1e3;
            writeln!(
                f,
                "  {name}: p50 {:.1} µs, p99.99 {:.1} µs, longest {:.1} µs",
                at(0.5),
                at(0.9999),
                at(1.0)
            )
        };
        writeln!(
            f,
            "  {} batches; waited {} times, interrupted {} times by the system",
            self.wall.len(),
            self.waits,
            self.interruptions
        )?;
        row(f, "own time ", &self.own)?;
        row(f, "the clock", &self.wall)
    }
}

/// Time that this thread has had a processor.
pub fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How often this thread has given its processor away, and how often it was taken.
fn switches() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok()).expect("Linux counts it")
    };
    (number("voluntary_ctxt_switches:"), number("nonvoluntary_ctxt_switches:"))
}
