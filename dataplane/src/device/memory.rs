//! A device in memory: a test puts packets in at one end and takes what was written out at the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use localvpc_engine::merge::Takes;
use localvpc_engine::packet::Offload;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::{Arrival, Batch, Device, Outgoing, Written};

/// A device and the far end of it: clones share their queues.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    shared: Arc<Shared>,
    takes: Takes,
}

/// A packet with what is left to be done for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Its offload.
    pub offload: Offload,
}

#[derive(Debug)]
struct Shared {
    /// What the device's owner will read.
    arriving: Mutex<VecDeque<Packet>>,
    /// What the device's owner wrote.
    written: Mutex<VecDeque<Packet>>,
    /// Told of each packet in `written`.
    wrote: Condvar,
    /// Packets that `written` takes before a write fails.
    capacity: usize,
    /// Counts the packets in `arriving`, so that the device can be waited for like a real one.
    readable: OwnedFd,
}

impl MemoryDevice {
    /// A device that takes `capacity` packets before it is full.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        let shared = Shared {
            arriving: Mutex::default(),
            written: Mutex::default(),
            wrote: Condvar::new(),
            capacity,
            readable: rustix::event::eventfd(0, flags)?,
        };
        Ok(Self { shared: Arc::new(shared), takes: Takes::TcpAndUdp })
    }

    /// The same, said to take other super-packets than all.
    pub fn taking(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    /// Lets a packet arrive.
    pub fn send(&self, bytes: &[u8], offload: Offload) {
        lock(&self.shared.arriving).push_back(Packet { bytes: bytes.to_vec(), offload });
        // It fails only at 2^64 - 1 packets.
        let _ = rustix::io::write(&self.shared.readable, &1u64.to_ne_bytes());
    }

    /// Takes the next packet that was written, waiting for it for up to `patience`.
    pub fn receive(&self, patience: Duration) -> Option<Packet> {
        let queue = lock(&self.shared.written);
        let waited = self.shared.wrote.wait_timeout_while(queue, patience, |queue| queue.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

impl Device for MemoryDevice {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        match rustix::io::read(&self.shared.readable, &mut [0; 8]) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(Arrival::Nothing),
            Err(errno) => return Err(errno.into()),
        }
        let Some(packet) = lock(&self.shared.arriving).pop_front() else {
            return Ok(Arrival::Nothing);
        };
        batch.fill(&packet.bytes, packet.offload);
        Ok(Arrival::Packet)
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        let mut queue = lock(&self.shared.written);
        if queue.len() >= self.shared.capacity {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        queue.push_back(Packet { bytes: packet.to_vec(), offload: packet.offload });
        self.shared.wrote.notify_all();
        Ok(Written { calls: 1, bytes: packet.length() as u32 })
    }

    fn takes(&self) -> Takes {
        self.takes
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.readable.as_fd()
    }
}

fn lock(queue: &Mutex<VecDeque<Packet>>) -> MutexGuard<'_, VecDeque<Packet>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Made, NO_OFFLOAD};

    #[test]
    fn packets_keep_their_order_and_a_full_device_refuses() {
        let device = MemoryDevice::new(1).unwrap();
        let mut batch = Batch::new(2, 100);
        assert_eq!(device.read(&mut batch).unwrap(), Arrival::Nothing);
        device.send(b"one", NO_OFFLOAD);
        device.send(b"two", NO_OFFLOAD);
        for (at, expected) in [b"one", b"two"].into_iter().enumerate() {
            assert_eq!(device.read(&mut batch).unwrap(), Arrival::Packet);
            assert_eq!(batch.packet(at), expected);
        }
        let mut made = Made::default();
        assert_eq!(device.write(made.fill(b"two")).unwrap(), Written { calls: 1, bytes: 3 });
        assert_eq!(device.write(made.fill(b"two")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(device.receive(Duration::ZERO).unwrap().bytes, b"two");
        assert_eq!(device.receive(Duration::ZERO), None);
    }
}
