//! How long does a packet of a known flow take, from its bytes to the rewritten bytes and the link it leaves on?
//!
//! One cache entry stands for a security group of 60 rules, network ACLs, route
//! tables, a NAT gateway and an internet gateway. Counters and checksums are
//! included, and so is writing 40 bytes of headers to the buffer first.

use criterion::Criterion;
use localvpc_benches::scenes::{Cache, Connections, Random};
use localvpc_benches::{criterion, time, time_batches};

const NAME: &str = "flow_hit/security_group+nat_gateway+internet_gateway";

fn one_by_one(criterion: &mut Criterion, name: &str, count: u32) {
    let mut connections = Connections::open(count, Cache::On);
    let mut random = Random(1);
    let (_, walks) = connections.hits_and_walks();
    time(criterion, &format!("{NAME}/{name}"), || connections.forward(random.below(count)));
    assert_eq!(connections.hits_and_walks().1, walks, "every packet must hit the cache");
}

fn in_batches(criterion: &mut Criterion, name: &str, count: u32, sizes: &[usize]) {
    let mut connections = Connections::open(count, Cache::On);
    let mut random = Random(1);
    let before = connections.hits_and_walks();
    for size in sizes {
        time_batches(criterion, &format!("{NAME}/{name}/batches_of_{size}"), *size, || {
            connections.forward_batch(*size, || random.below(count));
        });
    }
    let after = connections.hits_and_walks();
    let (hits, walks) = (after.0 - before.0, after.1 - before.1);
    assert!(walks * 1_000 <= hits, "{walks} of {hits} packets were walked");
}

fn main() {
    let mut criterion = criterion();
    one_by_one(&mut criterion, "1_flow", 1);
    one_by_one(&mut criterion, "10k_flows_in_random_order", 10_000);
    in_batches(&mut criterion, "1_flow", 1, &[32]);
    in_batches(&mut criterion, "10k_flows_in_random_order", 10_000, &[32, 64]);
    in_batches(&mut criterion, "1m_flows_in_random_order", 1_000_000, &[32, 64]);
    criterion.final_summary();
}
