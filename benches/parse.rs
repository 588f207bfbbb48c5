//! How long does it take to parse a packet?

use std::hint::black_box;

use criterion::Criterion;
use localvpc_benches::{criterion, scenes, time};
use localvpc_engine::packet;

fn parse(criterion: &mut Criterion) {
    for (name, bytes, offload) in scenes::packets() {
        time(criterion, &format!("parse/{name}"), || packet::parse(black_box(&bytes), offload));
    }
}

fn main() {
    let mut criterion = criterion();
    parse(&mut criterion);
    criterion.final_summary();
}
