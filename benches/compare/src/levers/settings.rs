//! What can be set about the way that packets take, and the levers: what else than usual is tried.

use localvpc_api::settings::{self, Merge, Poll};

/// How a stage is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the workers.
    pub dataplane: settings::Settings,
    /// Packets that a worker takes from a queue at a time, 64 at most.
    pub batch: usize,
    /// `txqueuelen` of both devices: packets that wait to be read.
    pub queue_length: u32,
    /// Of both devices, in bytes.
    pub mtu: u16,
    /// Workers, and queues of each device.
    pub workers: usize,
    /// Which processors workers run on.
    pub pinning: Pinning,
    /// Niceness of the workers: less than 0 is more of a right to a processor than others have.
    pub nice: i32,
    /// How the kernel takes what is written.
    pub napi: Napi,
    /// Super-packets that the devices take.
    pub granted: Granted,
    /// Who chooses the queue of a packet.
    pub steering: Steering,
    /// How packets are read and written.
    pub calls: Calls,
}

/// Which processors workers run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Whichever the system chooses.
    Free,
    /// One of its own for each.
    OneEach,
}

/// How the kernel takes what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Napi {
    /// At once, within the call.
    Off,
    /// `IFF_NAPI`: through a queue, with receive offload. (`IFF_NAPI_FRAGS` is refused to TUN devices, which is what TAP devices have.)
    On,
}

/// Super-packets that devices take and hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// TCP and UDP.
    All,
    /// TCP only, as before Linux 6.2.
    Tcp,
}

/// Who chooses the queue of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// A lab's program, by the ports.
    Program,
    /// The kernel: that by which the other direction was written, of 4,096 flows.
    Kernel,
}

/// How packets are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// By the dataplane's workers: a system call for each packet.
    Each,
    /// By [`crate::ring`]: many in a call to `io_uring_enter`.
    Ring,
}

/// Something else than usual.
#[derive(Clone, Debug)]
pub struct Lever {
    /// Its name.
    pub name: &'static str,
    /// With it.
    pub settings: Settings,
    /// The lever that it is compared with; the usual if none.
    pub beside: Option<&'static str>,
}

impl Settings {
    /// As a lab has it.
    pub fn usual() -> Self {
        Self {
            dataplane: settings::Settings::default(),
            batch: 64,
            queue_length: 2000,
            mtu: 9001,
            workers: 2,
            pinning: Pinning::Free,
            nice: 0,
            napi: Napi::Off,
            granted: Granted::All,
            steering: Steering::Program,
            calls: Calls::Each,
        }
    }
}

/// All of them, in the order of the table.
pub fn levers() -> Vec<Lever> {
    let usual = Settings::usual;
    let with = |poll, merge| Settings { dataplane: settings::Settings { poll, merge }, ..usual() };
    let lever = |name, settings| Lever { name, settings, beside: None };
    vec![
        lever("poll/busy", with(Poll::Busy, Merge::On)),
        lever("poll/block", with(Poll::Block, Merge::On)),
        lever("merge/off", with(Poll::Adaptive, Merge::Off)),
        lever("queue/500", Settings { queue_length: 500, ..usual() }),
        lever("queue/1000", Settings { queue_length: 1000, ..usual() }),
        lever("queue/4000", Settings { queue_length: 4000, ..usual() }),
        lever("mtu/1500", Settings { mtu: 1500, ..usual() }),
        lever("mtu/8500", Settings { mtu: 8500, ..usual() }),
        lever("batch/16", Settings { batch: 16, ..usual() }),
        lever("batch/32", Settings { batch: 32, ..usual() }),
        lever("workers/1", Settings { workers: 1, ..usual() }),
        lever("nice/-10", Settings { nice: -10, ..usual() }),
        lever("pinned", Settings { pinning: Pinning::OneEach, ..usual() }),
        lever("napi", Settings { napi: Napi::On, ..usual() }),
        lever("steering/kernel", Settings { steering: Steering::Kernel, ..usual() }),
        lever("no-uso", Settings { granted: Granted::Tcp, ..usual() }),
        Lever {
            name: "io_uring",
            settings: Settings { calls: Calls::Ring, ..usual() },
            // It joins nothing.
            beside: Some("merge/off"),
        },
    ]
}
