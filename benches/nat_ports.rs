//! How long does it take a NAT gateway to find a free port, whatever is in use?
//!
//! An operation reserves a port and releases it, so that the fill stays as it is.

use std::time::{Duration, Instant};

use criterion::Criterion;
use localvpc_benches::scenes::{self, Random, destination};
use localvpc_benches::{criterion, time, time_batches};
use localvpc_engine::state::nat_ports::NatPorts;

fn one_destination(criterion: &mut Criterion, name: &str, in_use: u32) {
    let ports = scenes::nat_ports(in_use);
    let mut random = Random(1);
    time(criterion, &format!("nat_ports/reserve_and_release/{name}"), || {
        let port = ports.reserve(&destination(0), random.draw()).expect("the quota is not used up");
        ports.release(&destination(0), port);
    });
}

/// As many destinations as a gateway will ever have at once; what an operation reads of one is far away in memory.
const MANY: u32 = 1_000_000;

/// As many as a worker decides about together: what they will read is fetched for all of them first.
const BATCH: usize = 32;

fn million_destinations(criterion: &mut Criterion) {
    let ports = NatPorts::default();
    let mut random = Random(1);
    for number in 0..MANY {
        ports.reserve(&destination(number), random.draw()).expect("the quota is not used up");
    }
    let name = "nat_ports/reserve_and_release/any_of_1m_destinations";
    time(criterion, &format!("{name}/one_by_one"), || {
        let destination = destination(random.below(MANY));
        let port = ports.reserve(&destination, random.draw()).expect("the quota is not used up");
        ports.release(&destination, port);
    });
    time_batches(criterion, &format!("{name}/batches_of_{BATCH}"), BATCH, || {
        let batch: [_; BATCH] = std::array::from_fn(|_| destination(random.below(MANY)));
        batch.iter().for_each(|destination| ports.prefetch(destination));
        for destination in &batch {
            let port = ports.reserve(destination, random.draw()).expect("the quota is not used up");
            ports.release(destination, port);
        }
    });
}

/// Ports to destinations that had none, until there are a million; memory that is used for the first time included.
fn growing(criterion: &mut Criterion) {
    let name = format!("nat_ports/reserve/growing_to_1m_destinations/batches_of_{BATCH}");
    criterion.bench_function(&name, |bencher| {
        bencher.iter_custom(|wanted| {
            let (mut done, mut took) = (0, Duration::ZERO);
            while done < wanted {
                let ports = NatPorts::default();
                let mut random = Random(1);
                let start = Instant::now();
                for first in (0..MANY).step_by(BATCH) {
                    let batch: [_; BATCH] = std::array::from_fn(|at| destination(first + at as u32));
                    batch.iter().for_each(|destination| ports.prefetch(destination));
                    for destination in &batch {
                        ports.reserve(destination, random.draw()).expect("the quota is not used up");
                    }
                }
                took += start.elapsed();
                done += u64::from(MANY);
            }
            // It grows all the way, however few were wanted.
            took.mul_f64(wanted as f64 / done as f64)
        });
    });
}

fn main() {
    let mut criterion = criterion();
    let quota = NatPorts::QUOTA;
    one_destination(&mut criterion, "0_percent_of_the_quota", 0);
    one_destination(&mut criterion, "40_connections", 40);
    one_destination(&mut criterion, "85_percent_of_the_quota", quota / 100 * 85);
    one_destination(&mut criterion, "99.99_percent_of_the_quota", quota - quota / 10_000);
    million_destinations(&mut criterion);
    growing(&mut criterion);
    criterion.final_summary();
}
