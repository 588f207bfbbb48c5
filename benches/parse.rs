//! How long does it take to parse a packet?

use std::hint::black_box;

use criterion::Criterion;
use localvpc_benches::{criterion, scenes, time};
use localvpc_engine::packet;

fn parse(criterion: &mut Criterion) {
    for (name, bytes, offload) in scenes::packets() {
        // Borrowed, as forwarding has it: copying what was written a moment ago in smaller pieces would wait for all of them.
        time(criterion, &format!("parse/{name}"), || {
            black_box(&packet::parse(black_box(&bytes), offload));
        });
    }
}

fn main() {
    let mut criterion = criterion();
    parse(&mut criterion);
    criterion.final_summary();
}
