//! How long does it take to parse a packet?

use std::hint::black_box;

use criterion::Criterion;
use localvpc_benches::{criterion, scenes, time_batches};
use localvpc_engine::packet;

const BATCH: usize = 32;

fn parse(criterion: &mut Criterion) {
    for (name, bytes, offload) in scenes::packets() {
        // The outcome is borrowed, as forwarding has it: copying what was written a moment ago in smaller pieces would wait for all
        // of them.
        time_batches(criterion, &format!("parse/{name}"), BATCH, || {
            for _ in 0..BATCH {
                black_box(&packet::parse(black_box(&bytes), offload));
            }
        });
    }
}

fn main() {
    let mut criterion = criterion();
    parse(&mut criterion);
    criterion.final_summary();
}
