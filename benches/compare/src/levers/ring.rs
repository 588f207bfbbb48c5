//! The experiment with io_uring: forwards between two devices with one system call for many packets.
//!
//! ```text
//!   io_uring_enter: [write what was read] [read, read, …] from both queues, until one has nothing more
//!                   nothing at all for a while: wait until either is readable
//! ```
//!
//! It joins nothing and decides nothing. The dataplane itself could not do so as it is: its system call filter knows no
//! io_uring, which is a way around such filters.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};
use localvpc_dataplane::poll::SPIN;
use rustix::event::EventfdFlags;

use crate::Failure;

/// Threads that forward, ended when dropped.
pub struct Rings {
    over: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Rings {
    /// Starts one for each pair of queues.
    ///
    /// # Errors
    ///
    /// When the kernel has no io_uring for us.
    pub fn start(pairs: impl Iterator<Item = (OwnedFd, OwnedFd)>) -> Result<Self, Failure> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let mut rings = Self { over: Arc::default(), wake, threads: Vec::new() };
        for (near, far) in pairs {
            for queue in [&near, &far] {
                rustix::io::ioctl_fionbio(queue, true)?;
            }
            let ring = IoUring::new(ENTRIES)?;
            let (over, wake) = (rings.over.clone(), rings.wake.clone());
            let thread = std::thread::Builder::new().name("ring".into()).spawn(move || {
                let sides = [near, far].map(Side::of);
                if let Err(error) = (Loop { ring, sides, over, wake }).run() {
                    eprintln!("io_uring failed: {error}");
                }
            })?;
            rings.threads.push(thread);
        }
        Ok(rings)
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for _ in &self.threads {
            // It fails only at 2^64 - 1.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One queue, and the buffers of what is read from it.
struct Side {
    queue: OwnedFd,
    /// Those that are read into, and those that are written from at the same time.
    buffers: [Vec<Box<[u8]>>; 2],
    /// Of the last reads, in order; 0: nothing was there.
    lengths: Vec<usize>,
    /// How many to try next: more after all were there, fewer after not.
    tries: usize,
}

impl Side {
    fn of(queue: OwnedFd) -> Self {
        let buffers = || (0..BATCH).map(|_| vec![0; CAPACITY].into_boxed_slice()).collect();
        Self { queue, buffers: [buffers(), buffers()], lengths: Vec::with_capacity(BATCH), tries: 1 }
    }

    /// Takes the last reads as done. Whether they brought anything.
    fn look(&mut self) -> bool {
        let count = self.lengths.iter().filter(|&&length| length > 0).count();
        self.tries = match count {
            // Super-packets leave while the processor's cache holds them.
            _ if self.lengths.iter().sum::<usize>() >= BUDGET => 1,
            _ if count == self.tries => (self.tries * 2).min(BATCH),
            _ => count.max(1),
        };
        self.buffers.swap(0, 1);
        count > 0
    }
}

struct Loop {
    ring: IoUring,
    sides: [Side; 2],
    over: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let mut busy = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            if self.turn()? {
                busy = Instant::now();
            } else if busy.elapsed() < SPIN {
                rustix::thread::sched_yield();
            } else {
                self.sleep()?;
                busy = Instant::now();
            }
        }
        Ok(())
    }

    /// Writes what the last turn read, and reads on. Whether there was anything.
    fn turn(&mut self) -> io::Result<bool> {
        let Self { ring, sides, .. } = self;
        let mut submitted = 0;
        for from in 0..2 {
            let to = sides[1 - from].queue.as_raw_fd();
            let Side { buffers, lengths, .. } = &mut sides[from];
            for (buffer, length) in buffers[1].iter().zip(lengths.drain(..)).filter(|(_, length)| *length > 0)
            {
                let write = opcode::Write::new(types::Fd(to), buffer.as_ptr(), length as u32);
                // SAFETY: the buffer stays until the ring has said that it is done, below.
                unsafe { push(ring, &write.build().user_data(WRITE)) };
                submitted += 1;
            }
        }
        for (from, side) in sides.iter_mut().enumerate() {
            let queue = side.queue.as_raw_fd();
            side.lengths.resize(side.tries, 0);
            for (at, buffer) in side.buffers[0][..side.tries].iter_mut().enumerate() {
                let read = opcode::Read::new(types::Fd(queue), buffer.as_mut_ptr(), CAPACITY as u32);
                // Otherwise the ring would wait for a packet, whether or not the descriptor is one that never blocks.
                let read = read.rw_flags(libc::RWF_NOWAIT).build().user_data((from * BATCH + at) as u64);
                // SAFETY: the buffer stays until the ring has said that it is done, below.
                unsafe { push(ring, &read) };
                submitted += 1;
            }
        }
        while let Err(error) = ring.submit_and_wait(submitted) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        for done in ring.completion().filter(|done| done.user_data() != WRITE) {
            let (from, at) = (done.user_data() as usize / BATCH, done.user_data() as usize % BATCH);
            sides[from].lengths[at] = usize::try_from(done.result()).unwrap_or(0);
        }
        let [near, far] = sides;
        Ok(near.look() | far.look())
    }

    /// Until either queue is readable, or the end.
    fn sleep(&mut self) -> io::Result<()> {
        let waited: [RawFd; 3] =
            [self.sides[0].queue.as_raw_fd(), self.sides[1].queue.as_raw_fd(), self.wake.as_raw_fd()];
        // Left in the ring they would report a past event later; poll(2) is asked once in a long while.
        let mut waited = waited.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: three entries, which outlive the call.
        if unsafe { libc::poll(waited.as_mut_ptr(), 3, -1) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// # Safety
///
/// What the entry points to must stay until its completion came.
unsafe fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the caller promises. There are as many entries as both sides could ever need.
    unsafe { ring.submission().push(entry) }.expect("a ring with room");
}

/// Packets of a queue at a time.
const BATCH: usize = 64;
/// Reads and writes of both sides.
const ENTRIES: u32 = 4 * BATCH as u32;
/// The virtio header and the longest packet.
const CAPACITY: usize = 10 + 65_536;
/// Bytes after which a side reads one packet at a time.
const BUDGET: usize = 64 * 1024;
const WRITE: u64 = u64::MAX;
