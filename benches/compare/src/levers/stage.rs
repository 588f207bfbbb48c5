//! Two instances, each with a TUN device in a network namespace of its own, and what forwards between them.
//!
//! Namespaces and devices have no names and end with the process, so that nothing is left behind, however it ends.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use localvpc_api::LinkId;
use localvpc_api::message::Offload;
use localvpc_dataplane::device::tun::TunQueue;
use localvpc_dataplane::device::{Arrival, Batch, Device, Outgoing, Written};
use localvpc_dataplane::fleet::Fleet;
use localvpc_dataplane::links::Link;
use localvpc_engine::merge::Takes;
use localvpc_null::Null;
use localvpc_traffic::Endpoint;
use rustix::thread::{CpuSet, Pid, UnshareFlags};

use crate::Failure;
use crate::ring::Rings;
use crate::settings::{Calls, Granted, Napi, Pinning, Settings, Steering};

/// Both instances. What forwards between them ends with it.
pub struct Stage {
    /// Who connects and sends.
    pub client: Endpoint,
    /// Who listens and receives.
    pub server: Endpoint,
    _forwarder: Forwarder,
}

#[expect(dead_code, reason = "kept for what it does when it is dropped")]
enum Forwarder {
    Fleet(Fleet),
    Rings(Rings),
}

const DEVICE: &str = "vpc";

impl Stage {
    /// Sets it up.
    ///
    /// # Errors
    ///
    /// The first thing that failed; nothing is left then.
    pub fn set(settings: &Settings) -> Result<Self, Failure> {
        let (client, near) = instance(Ipv4Addr::new(10, 0, 0, 1), settings)?;
        let (server, far) = instance(Ipv4Addr::new(10, 0, 0, 2), settings)?;
        let forwarder = match settings.calls {
            Calls::Each => Forwarder::Fleet(fleet(near, far, settings)?),
            Calls::Ring => Forwarder::Rings(Rings::start(near.into_iter().zip(far))?),
        };
        Ok(Self { client, server, _forwarder: forwarder })
    }
}

/// The dataplane's own workers.
fn fleet(near: Vec<OwnedFd>, far: Vec<OwnedFd>, settings: &Settings) -> Result<Fleet, Failure> {
    let fleet = Fleet::start_with(settings.workers, 7, |index, _| Null::new(index))?;
    fleet.configure(settings.dataplane)?;
    // Links 1 and 2 are neighbours.
    for (link, queues) in [(LinkId(1), near), (LinkId(2), far)] {
        let queues = TunQueue::adopt(queues, Offload::VirtioHeader).map_err(|(_, why)| why)?;
        let limited = |queue| Box::new(Limited { queue, limit: settings.batch, read: AtomicUsize::new(0) });
        let queues = queues.into_iter().map(|queue| limited(queue) as Box<dyn Device>);
        fleet.attach(Link::new(link, Offload::VirtioHeader, queues.collect()))?;
    }
    place_workers(settings)?;
    Ok(fleet)
}

/// A queue that ends a batch before the worker does.
struct Limited {
    queue: TunQueue,
    /// Packets in a batch.
    limit: usize,
    /// Packets read since the last batch ended. One worker reads it.
    read: AtomicUsize,
}

impl Device for Limited {
    fn read(&self, batch: &mut Batch) -> io::Result<Arrival> {
        let read = self.read.load(Ordering::Relaxed);
        if read == self.limit {
            self.read.store(0, Ordering::Relaxed);
            return Ok(Arrival::Nothing);
        }
        let arrival = self.queue.read(batch)?;
        self.read.store(if arrival == Arrival::Nothing { 0 } else { read + 1 }, Ordering::Relaxed);
        Ok(arrival)
    }

    fn write(&self, packet: Outgoing<'_>) -> io::Result<Written> {
        self.queue.write(packet)
    }

    fn takes(&self) -> Takes {
        self.queue.takes()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.descriptor()
    }
}

/// Says where and how readily workers run. They are this process's only threads of that name.
fn place_workers(settings: &Settings) -> Result<(), Failure> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let Some(number) = name.trim().strip_prefix("worker-") else { continue };
        let thread = Pid::from_raw(task.file_name().to_string_lossy().parse()?);
        if settings.pinning == Pinning::OneEach {
            let mut processors = CpuSet::new();
            processors.set(number.parse::<usize>()? % std::thread::available_parallelism()?);
            rustix::thread::sched_setaffinity(thread, &processors)?;
        }
        rustix::process::setpriority_process(thread, settings.nice)?;
    }
    Ok(())
}

/// A namespace with a device, and the device's queues.
fn instance(address: Ipv4Addr, settings: &Settings) -> Result<(Endpoint, Vec<OwnedFd>), Failure> {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            // SAFETY: a thread's network namespace is its own; descriptors stay shared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            let queues = (0..settings.workers).map(|_| queue(settings)).collect::<Result<Vec<_>, _>>()?;
            if settings.steering == Steering::Program {
                localvpc::host::steering::attach(&queues[0])?;
            }
            // The kernel would send router solicitations of its own.
            fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"), "1")?;
            let (mtu, length) = (settings.mtu.to_string(), settings.queue_length.to_string());
            ip(&["link", "set", "lo", "up"])?;
            ip(&["link", "set", DEVICE, "mtu", &mtu, "txqueuelen", &length, "up"])?;
            ip(&["address", "add", &format!("{address}/32"), "dev", DEVICE])?;
            ip(&["route", "add", "default", "dev", DEVICE])?;
            Ok((Endpoint::of("an instance", namespace.into(), address), queues))
        });
        made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` in the namespace of this thread.
fn ip(arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`ip {}` failed: {}", arguments.join(" "), said.trim_end()).into())
}

/// Opens a queue of the device in this thread's namespace.
fn queue(settings: &Settings) -> Result<OwnedFd, Failure> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let napi = match settings.napi {
        Napi::Off => 0,
        Napi::On => libc::IFF_NAPI,
    };
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE | napi;
    // SAFETY: an all-zero ifreq is valid: it is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    let granted = match settings.granted {
        Granted::All => TUN_F_CSUM_TSO | TUN_F_USO,
        Granted::Tcp => TUN_F_CSUM_TSO,
    };
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, granted) })?;
    Ok(file.into())
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0_u32 as libc::Ioctl;
/// CSUM, TSO4, TSO6, TSO_ECN.
const TUN_F_CSUM_TSO: libc::c_ulong = 0x0f;
/// USO4, USO6.
const TUN_F_USO: libc::c_ulong = 0x60;
