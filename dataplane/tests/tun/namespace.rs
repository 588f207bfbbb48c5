//! A named network namespace with a TUN device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use localvpc_api::message::Offload;

/// Why a system test cannot run here.
pub fn hindrance() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun");
    }
    Command::new("ip").arg("-V").output().err().map(|_| "needs `ip` (iproute2)")
}

/// A named network namespace, removed at the end.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("lvdp-{}-{count}-{role}", std::process::id()));
        run("ip", &["netns", "add", &namespace.0]);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    pub fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.0], arguments].concat());
    }

    /// Runs `task` on a thread inside the namespace.
    pub fn inside<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::spawn(move || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            task()
        })
    }

    /// Makes a TUN device with an address, through which everything goes.
    pub fn tun(&self, address: &str, mtu: u16, offload: Offload) -> Vec<OwnedFd> {
        match offload {
            Offload::VirtioHeader => self.device(address, mtu, || vec![queue(MULTI, TCP), queue(MULTI, TCP)]),
            Offload::Off => self.device(address, mtu, || vec![queue(0, 0)]),
        }
    }

    /// The same with one queue, which hands out UDP super-packets, too.
    pub fn tun_with_uso(&self, address: &str, mtu: u16) -> Vec<OwnedFd> {
        self.device(address, mtu, || vec![queue(MULTI, TCP | UDP)])
    }

    fn device(
        &self,
        address: &str,
        mtu: u16,
        open: impl FnOnce() -> Vec<OwnedFd> + Send + 'static,
    ) -> Vec<OwnedFd> {
        let queues = self.inside(open);
        let queues = queues.join().unwrap();
        // The kernel would send router solicitations of its own.
        let quiet = "echo 1 > /proc/sys/net/ipv6/conf/vpc/disable_ipv6";
        run("ip", &["netns", "exec", &self.0, "sh", "-c", quiet]);
        self.ip(&["link", "set", "vpc", "mtu", &mtu.to_string(), "txqueuelen", "1000", "up"]);
        self.ip(&["address", "add", address, "dev", "vpc"]);
        self.ip(&["route", "add", "default", "dev", "vpc"]);
        queues
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// Multi-queue, with virtio headers.
const MULTI: i32 = libc::IFF_MULTI_QUEUE | libc::IFF_VNET_HDR;

/// CSUM, TSO4, TSO6, ECN.
const TCP: libc::c_ulong = 0x0f;

/// USO4, USO6.
const UDP: libc::c_ulong = 0x60;

/// Opens a queue of the device `vpc` in this thread's namespace; what it may hand out counts where there are headers.
fn queue(flags: i32, offloads: libc::c_ulong) -> OwnedFd {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: an all-zero ifreq is valid: it is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"vpc") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
    assert_eq!(made, 0, "TUNSETIFF: {}", io::Error::last_os_error());
    if flags & libc::IFF_VNET_HDR != 0 {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let granted = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD as _, offloads) };
        assert_eq!(granted, 0, "TUNSETOFFLOAD: {}", io::Error::last_os_error());
    }
    file.into()
}
