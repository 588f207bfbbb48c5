//! Opens the queues of a TUN device, in the namespace of the calling thread.
//!
//! A link with offloads carries super-packets with a virtio header; what the kernel is allowed to leave undone
//! (checksums, segmentation) is granted flag by flag as far as it knows the flag. A link without is
//! opened through the `tun-tap` crate and carries bare packets. Either way the device lives as long as a descriptor of
//! one of its queues.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use localvpc_api::message::Offload;

use super::{Error, IoContext, netlink, steering};

/// Bytes of `virtio_net_hdr` without the field for merged buffers.
const VIRTIO_HEADER: libc::c_int = 10;

/// `TUNSETIFF` and the like, from `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0_u32 as libc::Ioctl;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8_u32 as libc::Ioctl;

const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// What is asked for, best first. USO came with Linux 6.2.
const OFFLOADS: [libc::c_uint; 4] = [
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
    TUN_F_CSUM,
];

/// Makes a device and opens its queues, non-blocking. With [`Offload::Off`] it has one queue.
///
/// # Errors
///
/// [`Error::System`]: no `/dev/net/tun`, no privilege, or a device of this name exists.
pub fn open(device: &str, offload: Offload, queues: u32) -> Result<Vec<OwnedFd>, Error> {
    // TUNSETIFF would join an existing TUN device instead of making one.
    if netlink::device_exists(device)? {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).trying(|| format!("make device {device}"));
    }
    match offload {
        Offload::VirtioHeader => {
            let queues = (0..queues.max(1)).map(|_| queue(device)).collect::<Result<Vec<_>, _>>()?;
            if let [first, _, ..] = &queues[..]
                && let Err(error) = steering::attach(first)
            {
                tracing::info!(device, %error, "the kernel takes no steering program and spreads packets its own way");
            }
            Ok(queues)
        }
        Offload::Off => bare(device).map(|queue| vec![queue]),
    }
}

fn queue(device: &str) -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/net/tun");
    let file = File::options().read(true).write(true).open(path).doing("open", path)?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    // SAFETY: an all-zero ifreq is valid: it is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })
        .trying(|| format!("make device {device}"))?;
    let header = VIRTIO_HEADER;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header) })
        .trying(|| format!("set the virtio header of {device}"))?;
    // None granted: then the kernel completes everything itself, and the header says so.
    for offloads in OFFLOADS {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(offloads)) })
            .is_ok()
        {
            break;
        }
    }
    non_blocking(&file, device)?;
    Ok(file.into())
}

fn bare(device: &str) -> Result<OwnedFd, Error> {
    let interface = tun_tap::Iface::without_packet_info(device, tun_tap::Mode::Tun)
        .trying(|| format!("make device {device}"))?;
    // SAFETY: into_raw_fd gives up the only owner of an open descriptor.
    let queue = unsafe { OwnedFd::from_raw_fd(interface.into_raw_fd()) };
    non_blocking(&queue, device)?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)
        .trying(|| format!("make device {device}"))?;
    Ok(queue)
}

fn non_blocking(queue: impl std::os::fd::AsFd, device: &str) -> Result<(), Error> {
    rustix::io::ioctl_fionbio(queue, true).trying(|| format!("make device {device} non-blocking"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
