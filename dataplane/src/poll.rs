//! Waits for packets: looks for a while, because the next one is often close behind, and then sleeps.
//!
//! To sleep and be woken costs more than most packets do, and the sender pays for the waking. So after the last packet a worker
//! goes on looking for [`SPIN`]; a lab in which nothing happens costs nothing.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use localvpc_api::settings::Poll;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::clock::{self, Instant};

/// How long a worker looks for the next packet before it sleeps, where it polls adaptively. Measured, see DESIGN.md.
pub const SPIN: Duration = Duration::from_micros(50);

/// Queues that are reported at a time; the kernel hands those out first that waited longest.
const EVENTS: usize = 64;

/// Descriptors that are waited for.
pub struct Poller {
    epoll: OwnedFd,
    /// What was readable last, by number.
    ready: Vec<u64>,
    /// When something was readable last.
    busy: Instant,
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Something was readable already.
    AtOnce,
    /// Nothing was, for some time.
    Idle,
}

impl Poller {
    /// Waits for nothing yet.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, ready: Vec::with_capacity(EVENTS), busy: clock::now() })
    }

    /// Waits for a descriptor, too; `number` is what [`Self::ready`] will call it.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for, or there is no memory.
    pub fn add(&self, descriptor: impl AsFd, number: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(number), EventFlags::IN)
    }

    /// Waits for it no more.
    ///
    /// # Errors
    ///
    /// When it was not waited for.
    pub fn remove(&self, descriptor: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.epoll, descriptor)
    }

    /// Waits until something is readable, or a signal came.
    pub fn wait(&mut self, poll: Poll) -> Waited {
        let mut waited = Waited::AtOnce;
        loop {
            if self.look(Some(&AT_ONCE)) {
                self.busy = clock::now();
                return waited;
            }
            waited = Waited::Idle;
            let sleepy = match poll {
                Poll::Block => true,
                Poll::Busy => false,
                Poll::Adaptive => clock::now().since(self.busy) >= SPIN,
            };
            if sleepy {
                self.look(None);
                self.busy = clock::now();
                return waited;
            }
            // Whoever could make something come may need this processor for it.
            rustix::thread::sched_yield();
        }
    }

    /// What was readable when [`Self::wait`] returned, by number.
    pub fn ready(&self) -> &[u64] {
        &self.ready
    }

    /// Whether something is readable, within a time.
    fn look(&mut self, patience: Option<&Timespec>) -> bool {
        self.ready.clear();
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        match epoll::wait(&self.epoll, &mut events, patience) {
            Ok((events, _)) => self.ready.extend(events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            // The descriptor is ours and valid, the buffer too: no other error is left.
            Err(errno) => panic!("epoll_wait: {errno}"),
        }
        !self.ready.is_empty()
    }
}

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
