//! A queue of a TUN device, over a descriptor that control opened and handed over.
//!
//! With virtio headers a super-packet of up to 64 KiB passes in one read and one
//! write. Without them (`offload: off`) packets are bare, so a super-packet that goes to
//! such a link is split and its checksums are completed in software, see [`segment`].

use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;

use localvpc_api::message;
use localvpc_engine::merge::Takes;
use localvpc_engine::packet::Segmentation;
use localvpc_engine::segment;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{self, Getter};

use super::{Arrival, Batch, Device, NO_OFFLOAD, Outgoing, Written, virtio};

/// One queue.
#[derive(Debug)]
pub struct TunQueue {
    descriptor: OwnedFd,
    framing: message::Offload,
    /// The kernel has refused a UDP super-packet.
    refuses_datagrams: AtomicBool,
    kernel: Kernel,
}

/// What a kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// Whatever it says itself.
    Actual,
    /// That of one before Linux 6.2: it knows no UDP super-packets.
    WithoutUso,
}

/// Why a descriptor is no queue that the dataplane can use.
#[derive(Debug, thiserror::Error)]
pub enum NotAQueue {
    /// It is no TUN descriptor, or is not attached to a device.
    #[error("it is no attached queue of a TUN device ({0})")]
    NoTun(Errno),
    /// It belongs to a TAP device.
    #[error("{device} is a TAP device, a TUN device was expected")]
    Tap {
        /// The device.
        device: String,
    },
    /// Packets come with the four-byte protocol information.
    #[error("{device} was opened without IFF_NO_PI")]
    PacketInformation {
        /// The device.
        device: String,
    },
    /// Virtio headers are there and should not be, or the other way round.
    #[error("{device} has virtio headers {found}, the request says {announced}")]
    Framing {
        /// The device.
        device: String,
        /// What it does.
        found: &'static str,
        /// What the request says.
        announced: &'static str,
    },
    /// Virtio headers of another size, such as those for merged buffers.
    #[error("{device} has virtio headers of {found} bytes, {} were expected", virtio::LENGTH)]
    HeaderSize {
        /// The device.
        device: String,
        /// Their size.
        found: i32,
    },
    /// Several queues of one link, and the device has but one, or they belong to several devices.
    #[error("{device} is no queue of the multi-queue device {first} that the link began with")]
    Stranger {
        /// The device.
        device: String,
        /// Device of the link's first queue.
        first: String,
    },
    /// It cannot be made non-blocking.
    #[error("it cannot be made non-blocking ({0})")]
    Blocking(Errno),
}

impl TunQueue {
    /// Takes the queues of one device, in queue order.
    ///
    /// # Errors
    ///
    /// The position of the first descriptor that is unusable, and why. All are closed.
    pub fn adopt(
        descriptors: Vec<OwnedFd>,
        framing: message::Offload,
    ) -> Result<Vec<Self>, (usize, NotAQueue)> {
        let several = descriptors.len() > 1;
        let mut first: Option<String> = None;
        let mut queues = Vec::with_capacity(descriptors.len());
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            let device = inspect(&descriptor, framing).map_err(|why| (index, why))?;
            let expected = first.get_or_insert_with(|| device.name.clone());
            if several && (device.flags & libc::IFF_MULTI_QUEUE == 0 || *expected != device.name) {
                return Err((index, NotAQueue::Stranger { device: device.name, first: expected.clone() }));
            }
            unblock(&descriptor).map_err(|errno| (index, NotAQueue::Blocking(errno)))?;
            queues.push(Self {
                descriptor,
                framing,
                refuses_datagrams: AtomicBool::new(false),
                kernel: Kernel::Actual,
            });
        }
        Ok(queues)
    }

    /// The same as a kernel before Linux 6.2 would have it: it refuses UDP super-packets that are written. For tests, because newer kernels
    /// take them however the device was opened.
    #[must_use]
    pub fn without_uso(self) -> Self {
        Self { kernel: Kernel::WithoutUso, ..self }
    }
}

impl Device for TunQueue {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        let header = self.header_length();
        let space = batch.space(header);
        let length = match rustix::io::read(&self.descriptor, &mut *space) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Arrival::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let offload = match space[..header].first_chunk() {
            Some(header) => virtio::parse(*header),
            None => Ok(NO_OFFLOAD),
        };
        // The kernel never hands out less than the header.
        batch.push(length.saturating_sub(header), offload.unwrap_or(NO_OFFLOAD));
        Ok(if offload.is_ok() { Arrival::Packet } else { Arrival::Hostile })
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        match self.framing {
            message::Offload::VirtioHeader => self.write_whole(packet),
            message::Offload::Off => self.write_segments(packet),
        }
    }

    fn takes(&self) -> Takes {
        match self.framing {
            message::Offload::Off => Takes::Nothing,
            message::Offload::VirtioHeader if self.refuses_datagrams.load(Ordering::Relaxed) => Takes::Tcp,
            message::Offload::VirtioHeader => Takes::TcpAndUdp,
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl TunQueue {
    fn header_length(&self) -> usize {
        match self.framing {
            message::Offload::VirtioHeader => virtio::LENGTH,
            message::Offload::Off => 0,
        }
    }

    /// Writes a packet or super-packet with its header.
    fn write_whole(&self, mut packet: Outgoing<'_>) -> io::Result<Written> {
        let offload = packet.offload;
        let headers = if offload == NO_OFFLOAD {
            0
        } else {
            // Never more than the packet: the kernel refuses that.
            segment::Headers::of(packet.head()).map_or(0, |headers| headers.payload as u16)
        };
        let bytes = packet.length() as u32;
        let payloads = packet.payloads();
        let head = packet.with_header(virtio::LENGTH);
        head[..virtio::LENGTH].copy_from_slice(&virtio::encode(offload, headers));
        let is_datagrams = matches!(offload.segmentation, Segmentation::Udp { .. });
        let result = if is_datagrams && self.kernel == Kernel::WithoutUso {
            Err(Errno::INVAL)
        } else if payloads.is_empty() {
            retry(|| rustix::io::write(&self.descriptor, head))
        } else if payloads.len() < PARTS {
            let mut parts = ArrayVec::<_, PARTS>::new();
            parts.push(IoSlice::new(head));
            parts.extend(payloads.iter().copied());
            retry(|| rustix::io::writev(&self.descriptor, &parts))
        } else {
            let mut whole = head.to_vec();
            payloads.iter().for_each(|payload| whole.extend_from_slice(payload));
            retry(|| rustix::io::write(&self.descriptor, &whole))
        };
        match result {
            Ok(()) => Ok(Written { calls: 1, bytes }),
            // USO came with Linux 6.2.
            Err(Errno::INVAL) if is_datagrams => {
                let written = self.write_segments(packet)?;
                self.refuses_datagrams.store(true, Ordering::Relaxed);
                // It is the same kernel for every queue.
                SAID.call_once(|| {
                    tracing::warn!("this kernel takes no UDP super-packets; they are segmented in software");
                });
                Ok(written)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes the packets that a super-packet stands for, checksums complete.
    fn write_segments(&self, mut packet: Outgoing<'_>) -> io::Result<Written> {
        let mut written = Written::default();
        let emit = |packet: &[u8]| {
            let header = [0; virtio::LENGTH];
            let parts = [IoSlice::new(&header[..self.header_length()]), IoSlice::new(packet)];
            match self.framing {
                message::Offload::Off => retry(|| rustix::io::write(&self.descriptor, packet))?,
                message::Offload::VirtioHeader => retry(|| rustix::io::writev(&self.descriptor, &parts))?,
            }
            written.calls += 1;
            written.bytes += packet.len() as u32;
            Ok::<_, io::Error>(())
        };
        let offload = packet.offload;
        if packet.payloads().is_empty() {
            segment::segment(packet.head_mut(), offload, emit)?;
        } else {
            segment::segment(&mut packet.to_vec(), offload, emit)?;
        }
        Ok(written)
    }
}

/// That UDP super-packets are refused.
static SAID: Once = Once::new();

/// Parts that a super-packet is written from; one of more is copied together.
const PARTS: usize = 65;

fn retry(call: impl Fn() -> Result<usize, Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The requests to a descriptor's driver that adopting it makes, for the system call filter.
pub const IOCTLS: [u32; 2] = [TUNGETIFF, TUNGETVNETHDRSZ];

/// `_IOR('T', 210, unsigned int)`: name and flags of the device.
const TUNGETIFF: u32 = 0x8004_54d2;
/// `_IOR('T', 215, int)`: size of the virtio header.
const TUNGETVNETHDRSZ: u32 = 0x8004_54d7;

struct Inspected {
    name: String,
    flags: i32,
}

fn inspect(descriptor: &OwnedFd, framing: message::Offload) -> Result<Inspected, NotAQueue> {
    // SAFETY: TUNGETIFF fills a whole `struct ifreq`, whatever the size in its number says.
    let request = unsafe { ioctl::ioctl(descriptor, Getter::<{ TUNGETIFF }, libc::ifreq>::new()) }
        .map_err(NotAQueue::NoTun)?;
    // SAFETY: the kernel terminates the name, which has 16 bytes.
    let device = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) }.to_string_lossy().into_owned();
    // SAFETY: TUNGETIFF puts the flags into this member of the union.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags } as u16);
    if flags & libc::IFF_TUN == 0 {
        return Err(NotAQueue::Tap { device });
    }
    if flags & libc::IFF_NO_PI == 0 {
        return Err(NotAQueue::PacketInformation { device });
    }
    let said = |has| if has { "on" } else { "off" };
    let (found, announced) = (flags & libc::IFF_VNET_HDR != 0, framing == message::Offload::VirtioHeader);
    if found != announced {
        return Err(NotAQueue::Framing { device, found: said(found), announced: said(announced) });
    }
    if found {
        // SAFETY: TUNGETVNETHDRSZ stores an int.
        let size = unsafe { ioctl::ioctl(descriptor, Getter::<{ TUNGETVNETHDRSZ }, i32>::new()) }
            .map_err(NotAQueue::NoTun)?;
        if size != virtio::LENGTH as i32 {
            return Err(NotAQueue::HeaderSize { device, found: size });
        }
    }
    Ok(Inspected { name: device, flags })
}

fn unblock(descriptor: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_queue_is_refused_by_position() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let refusal = TunQueue::adopt(vec![reader.into()], message::Offload::VirtioHeader).unwrap_err();
        assert!(matches!(refusal, (0, NotAQueue::NoTun(Errno::NOTTY))), "{refusal:?}");
    }
}
