//! How long does a packet take that no cache knows?
//!
//! Through a security group of 60 rules, network ACLs of 20 entries each way, route tables, a NAT gateway and an
//! internet gateway.

use std::time::{Duration, Instant};

use criterion::Criterion;
use localvpc_benches::scenes::{Cache, Connections, NewConnections};
use localvpc_benches::{criterion, time};
use localvpc_engine::worker::Verdict;

fn mid_stream(criterion: &mut Criterion) {
    let mut connections = Connections::open(1, Cache::Off);
    time(criterion, "walk/known_connection/cache_off", || connections.forward(0));
    assert_eq!(connections.hits_and_walks().0, 0, "no packet may hit the cache");
}

fn new_connections(criterion: &mut Criterion) {
    const COUNT: u16 = 50_000;
    let syns = NewConnections::syns(COUNT);
    criterion.bench_function("walk/new_connection/growing_to_50k", |bencher| {
        bencher.iter_custom(|wanted| {
            let (mut done, mut took) = (0, Duration::ZERO);
            while done < wanted {
                let mut connections = NewConnections::new(syns.clone());
                let start = Instant::now();
                while done < wanted
                    && let Some(verdict) = connections.make_next()
                {
                    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
                    done += 1;
                }
                took += start.elapsed();
            }
            took
        });
    });
}

fn main() {
    let mut criterion = criterion();
    mid_stream(&mut criterion);
    new_connections(&mut criterion);
    criterion.final_summary();
}
