//! How long does it take a NAT gateway to find a free port, whatever is in use?
//!
//! An operation reserves a port and releases it, so that the fill stays as it is.

use criterion::Criterion;
use localvpc_benches::scenes::{self, Random, destination};
use localvpc_benches::{criterion, time};
use localvpc_engine::state::nat_ports::NatPorts;

fn one_destination(criterion: &mut Criterion, name: &str, in_use: u32) {
    let ports = scenes::nat_ports(in_use);
    let mut random = Random(1);
    time(criterion, &format!("nat_ports/reserve_and_release/{name}"), || {
        let port = ports.reserve(&destination(0), random.draw()).expect("the quota is not used up");
        ports.release(&destination(0), port);
    });
}

fn million_destinations(criterion: &mut Criterion) {
    const COUNT: u32 = 1_000_000;
    let ports = NatPorts::default();
    let mut random = Random(1);
    for number in 0..COUNT {
        ports.reserve(&destination(number), random.draw()).expect("the quota is not used up");
    }
    time(criterion, "nat_ports/reserve_and_release/any_of_1m_destinations", || {
        let destination = destination(random.below(COUNT));
        let port = ports.reserve(&destination, random.draw()).expect("the quota is not used up");
        ports.release(&destination, port);
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
    criterion.final_summary();
}
