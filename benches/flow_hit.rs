//! How long does a packet of a known flow take, from its bytes to the rewritten bytes and the link it leaves on?
//!
//! One cache entry stands for a security group of 60 rules, network ACLs, route
//! tables, a NAT gateway and an internet gateway. Counters and checksums are
//! included, and so is copying 140 bytes to the buffer first.

use localvpc_benches::scenes::{Cache, Connections, Random};
use localvpc_benches::{criterion, time};

fn main() {
    let mut criterion = criterion();
    for (name, count) in [("1_flow", 1), ("10k_flows_in_random_order", 10_000)] {
        let mut connections = Connections::open(count, Cache::On);
        let mut random = Random(1);
        let (_, walks) = connections.hits_and_walks();
        time(&mut criterion, &format!("flow_hit/security_group+nat_gateway+internet_gateway/{name}"), || {
            connections.forward(random.below(u32::from(count)) as usize)
        });
        assert_eq!(connections.hits_and_walks().1, walks, "every packet must hit the cache");
    }
    criterion.final_summary();
}
