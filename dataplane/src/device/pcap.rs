//! Wraps a device and writes every packet that passes it to a pcap file, super-packets unsplit.
//!
//! The file has the classic format with LINKTYPE_RAW: each packet starts with its IP header.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use localvpc_engine::merge::Takes;

use super::{Arrival, Batch, Device, Outgoing, Written};

/// A device whose packets are recorded.
pub struct Capture<D, W> {
    device: D,
    /// Both directions share one file.
    file: Mutex<W>,
    /// Tells the time since 1970.
    clock: fn() -> Duration,
}

impl<D: Device, W: Write + Send> Capture<D, W> {
    /// Records what passes `device`, stamped with what `clock` says is the time since 1970.
    ///
    /// # Errors
    ///
    /// When the file's header cannot be written.
    pub fn new(device: D, mut file: W, clock: fn() -> Duration) -> io::Result<Self> {
        file.write_all(&MAGIC.to_ne_bytes())?;
        for half in [VERSION.0, VERSION.1] {
            file.write_all(&half.to_ne_bytes())?;
        }
        // Time zone and accuracy are always 0.
        for word in [0, 0, SNAPSHOT_LENGTH, LINKTYPE_RAW] {
            file.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { device, file: Mutex::new(file), clock })
    }

    /// Ends the recording and gives the file back.
    pub fn finish(self) -> W {
        self.file.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, packet: &[u8]) -> io::Result<()> {
        let now = (self.clock)();
        let length = packet.len() as u32;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for word in [now.as_secs() as u32, now.subsec_micros(), length, length] {
            file.write_all(&word.to_ne_bytes())?;
        }
        file.write_all(packet)
    }
}

impl<D: Device, W: Write + Send> Device for Capture<D, W> {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        let arrival = self.device.read(batch)?;
        if arrival != Arrival::Nothing {
            // It has just come.
            self.record(batch.packet(batch.slots().len() - 1))?;
        }
        Ok(arrival)
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        self.record(&packet.to_vec())?;
        self.device.write(packet)
    }

    fn takes(&self) -> Takes {
        self.device.takes()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.descriptor()
    }
}

/// Microseconds, in the byte order of the host.
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: (u16, u16) = (2, 4);
/// Nothing is cut off.
const SNAPSHOT_LENGTH: u32 = 262_144;
const LINKTYPE_RAW: u32 = 101;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::MemoryDevice;
    use crate::device::{Made, NO_OFFLOAD};

    #[test]
    fn both_directions_are_recorded() {
        let memory = MemoryDevice::new(9).unwrap();
        let capture = Capture::new(memory.clone(), Vec::new(), || Duration::from_micros(7_000_009)).unwrap();
        let mut batch = Batch::new(9, 100);
        memory.send(b"in", NO_OFFLOAD);
        assert_eq!(capture.read(&mut batch).unwrap(), Arrival::Packet);
        capture.write(Made::default().fill(b"out")).unwrap();
        assert_eq!(capture.read(&mut batch).unwrap(), Arrival::Nothing);
        let words = |words: [u32; 4]| words.map(u32::to_ne_bytes).concat();
        let mut expected = MAGIC.to_ne_bytes().to_vec();
        expected.extend([2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat());
        expected.extend(words([0, 0, 262_144, 101]));
        expected.extend(words([7, 9, 2, 2]));
        expected.extend(b"in");
        expected.extend(words([7, 9, 3, 3]));
        expected.extend(b"out");
        assert_eq!(capture.finish(), expected);
    }
}
