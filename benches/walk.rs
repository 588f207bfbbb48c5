//! How long does a packet take that no cache knows?
//!
//! Through a security group of 60 rules, network ACLs of 20 entries each way, route tables, a NAT gateway and an
//! internet gateway.

use std::time::{Duration, Instant};

use criterion::Criterion;
use localvpc_benches::scenes::{Cache, Connections, NewConnections};
use localvpc_benches::{criterion, time};

fn mid_stream(criterion: &mut Criterion) {
    let mut connections = Connections::open(1, Cache::Off);
    time(criterion, "walk/known_connection/cache_off", || connections.forward(0));
    assert_eq!(connections.hits_and_walks().0, 0, "no packet may hit the cache");
}

fn new_connections(criterion: &mut Criterion, name: &str, syns: Vec<Vec<u8>>) {
    const BATCH: usize = 32;
    criterion.bench_function(&format!("walk/new_connection/{name}/batches_of_{BATCH}"), |bencher| {
        bencher.iter_custom(|wanted| {
            let (mut done, mut took) = (0, Duration::ZERO);
            while done < wanted {
                let mut connections = NewConnections::new(syns.clone());
                let start = Instant::now();
                loop {
                    match connections.make_next(BATCH) {
                        0 => break,
                        made => done += made as u64,
                    }
                }
                took += start.elapsed();
            }
            // It grows all the way, however few were wanted.
            took.mul_f64(wanted as f64 / done as f64)
        });
    });
}

fn main() {
    let mut criterion = criterion();
    mid_stream(&mut criterion);
    new_connections(&mut criterion, "growing_to_64k", NewConnections::syns(1 << 16));
    new_connections(&mut criterion, "growing_to_1m", NewConnections::syns(1_000_000));
    new_connections(
        &mut criterion,
        "growing_to_64k/each_to_another_port",
        NewConnections::syns_apart(1 << 16),
    );
    criterion.final_summary();
}
