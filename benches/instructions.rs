//! How many instructions does a packet take? Times are noisy on shared machines; instructions are not.
//!
//! Run by `scripts/instructions` under callgrind, which counts within [`measured`] only:
//!
//! ```sh
//! cargo bench -p localvpc-benches --bench instructions -- hit_1_flow 10000
//! ```

use std::hint::black_box;
use std::time::Instant;

use localvpc_benches::scenes::{
    self, Cache, Connections, MAX_BATCH, NewConnections, Random, ShortConnections,
};
use localvpc_engine::packet::{self, Offload};

const BATCH: usize = 32;

/// A name, and what handles so many packets.
type Scene = (&'static str, fn(u64));

const SCENES: &[Scene] = &[
    ("parse", |count| {
        let [(_, bytes, _), ..] = scenes::packets();
        measured(count, || {
            black_box(&packet::parse(black_box(&bytes), Offload::default()));
        });
    }),
    ("brief", |count| {
        let [(_, bytes, _), ..] = scenes::packets();
        measured(count, || {
            black_box(&packet::brief(black_box(&bytes), Offload::default()));
        });
    }),
    ("hit_1_flow", |count| hit(count, 1)),
    ("hit_10k_flows", |count| hit(count, 10_000)),
    ("hit_1m_flows", |count| hit(count, 1_000_000)),
    ("walk", |count| {
        let mut connections = Connections::open(1, Cache::Off);
        measured(count, || {
            black_box(connections.forward(0));
        });
    }),
    ("memory", memory),
    ("new", |count| new(count, NewConnections::syns(count as u32))),
    ("new_apart", |count| new(count, NewConnections::syns_apart(count as u32))),
    ("short", short),
];

/// Memory of tracked connections, with all that belongs to them.
fn memory(count: u64) {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
    };
    let before = resident();
    let connections = Connections::open(count as u32, Cache::On);
    let bytes = resident() - before;
    println!(
        "{count} connections with a NAT lease each, {} flows in the cache: {} MB, {} bytes per connection",
        connections.cached_flows(),
        bytes / 1_000_000,
        bytes / count
    );
}

fn hit(count: u64, flows: u32) {
    let mut connections = Connections::open(flows, Cache::On);
    let mut random = Random(1);
    let batches = count.div_ceil(BATCH as u64);
    const { assert!(BATCH <= MAX_BATCH) };
    measured(batches, || connections.forward_batch(BATCH, || random.below(flows)));
}

fn new(count: u64, syns: Vec<Vec<u8>>) {
    let mut connections = NewConnections::new(syns);
    measured(count.div_ceil(BATCH as u64), || {
        black_box(connections.make_next(BATCH));
    });
}

/// Packets of connections that are opened and closed, five at a time.
fn short(count: u64) {
    const TOGETHER: u32 = 5;
    let batch = ShortConnections::PACKETS.len() as u64 * u64::from(TOGETHER);
    let batches = count.div_ceil(batch);
    // Twice round: the first time none of them is known.
    let mut connections = ShortConnections::new((batches.div_ceil(2) as u32).max(1) * TOGETHER, TOGETHER);
    for _ in 0..batches {
        connections.open_and_close(|_, forward| measured(1, forward));
    }
}

/// What callgrind collects in.
#[inline(never)]
fn measured(count: u64, mut operation: impl FnMut()) {
    for _ in 0..count {
        operation();
    }
}

fn main() {
    // Cargo passes `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(name), Some(count)) = (arguments.next(), arguments.next()) else {
        // `cargo bench` without more has nothing to count here.
        return;
    };
    let count: u64 = count.parse().expect("a number of packets");
    let (_, scene) = SCENES.iter().find(|(known, _)| *known == name).expect("a scene of this file");
    let start = Instant::now();
    scene(count);
    println!(
        "{name}: {count} packets, {:.1} ns each with the setup",
        start.elapsed().as_nanos() as f64 / count as f64
    );
}
