//! Asks the kernel what its TUN driver can do, in a namespace that is gone afterwards.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::thread::UnshareFlags;

/// What the driver offers (TUNGETFEATURES).
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// IFF_MULTI_QUEUE.
    pub multi_queue: bool,
    /// IFF_VNET_HDR.
    pub virtio_header: bool,
}

/// Which segmentation offloads the kernel grants (TUNSETOFFLOAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Checksum, TSO4 and TSO6.
    pub tcp: bool,
    /// USO4 and USO6, since Linux 6.2.
    pub udp: bool,
}

/// Asks an open `/dev/net/tun`.
///
/// # Errors
/// The kernel's.
pub fn tun_features(tun: &File) -> io::Result<Features> {
    let mut flags: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes one unsigned int to the given address, which is `flags`.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &raw mut flags) };
    check(result)?;
    Ok(Features {
        multi_queue: flags & libc::IFF_MULTI_QUEUE as libc::c_uint != 0,
        virtio_header: flags & libc::IFF_VNET_HDR as libc::c_uint != 0,
    })
}

/// Runs `ask` on a thread in a new network namespace, which is gone with the thread.
///
/// # Errors
/// The kernel's, where no namespace can be made.
pub fn in_a_new_namespace<T: Send>(ask: impl FnOnce() -> T + Send) -> io::Result<T> {
    let thread = || {
        // SAFETY: NEWNET changes no memory and no descriptors, and only this thread's namespace.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(ask())
    };
    std::thread::scope(|scope| {
        scope.spawn(thread).join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    })
}

/// Makes a TUN device in the calling thread's namespace for a moment, and asks for every offload.
///
/// # Errors
/// The kernel's, where no device can be made.
pub fn offloads() -> io::Result<Offloads> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeros is a valid ifreq: an empty name, which lets the kernel choose, and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq at the given address, which is `request`.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let udp = TUN_F_USO4 | TUN_F_USO6;
    let grants = |flags: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
            .is_ok()
    };
    Ok(Offloads { tcp: grants(tcp), udp: grants(tcp | udp) })
}

/// linux/if_tun.h, since Linux 6.2.
const TUN_F_USO4: libc::c_uint = 0x20;
/// linux/if_tun.h, since Linux 6.2.
const TUN_F_USO6: libc::c_uint = 0x40;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
