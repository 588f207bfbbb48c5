//! How long does it take to find a route, beside the crates that do the same?

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::Criterion;
use ipnet::Ipv4Net;
use localvpc_benches::scenes::{self, Cycle};
use localvpc_benches::{criterion, time};
use localvpc_engine::tables::lpm::Lpm;
use poptrie::Poptrie;
use prefix_trie::PrefixMap;

fn compare(
    criterion: &mut Criterion,
    name: &str,
    routes: &[(Ipv4Net, u32)],
    keys: impl Fn() -> Cycle<Ipv4Addr>,
) {
    let ours = Lpm::build(routes.iter().map(|(route, number)| ((*route).into(), *number)));
    let poptrie: Poptrie<(Ipv4Addr, u8), u32> =
        routes.iter().map(|(route, number)| ((route.network(), route.prefix_len()), *number)).collect();
    let prefix_map: PrefixMap<Ipv4Net, u32> = routes.iter().copied().collect();
    let host = |address| Ipv4Net::new_assert(address, 32);

    let mut check = keys();
    for _ in 0..10_000 {
        let address = check.step();
        let found = ours.lookup(address.into());
        assert_eq!(found, poptrie.lookup(address).copied(), "{address}");
        assert_eq!(found, prefix_map.get_lpm(&host(address)).map(|(_, number)| *number), "{address}");
    }

    let mut all = keys();
    time(criterion, &format!("{name}/localvpc"), || ours.lookup(black_box(all.step()).into()));
    let mut all = keys();
    time(criterion, &format!("{name}/poptrie"), || poptrie.lookup(black_box(all.step())).copied());
    let mut all = keys();
    time(criterion, &format!("{name}/prefix-trie"), || {
        prefix_map.get_lpm(&host(black_box(all.step()))).map(|(_, number)| *number)
    });
}

fn main() {
    let mut criterion = criterion();
    let few = scenes::vpc_routes();
    compare(&mut criterion, "lpm/6_routes/routed_keys", &few, || scenes::routed_keys(&few));
    for (name, count) in [("1k", 1_000), ("10k", 10_000)] {
        let routes = scenes::routes(count);
        compare(&mut criterion, &format!("lpm/{name}_routes/random_keys"), &routes, scenes::random_keys);
        let routed = || scenes::routed_keys(&routes);
        compare(&mut criterion, &format!("lpm/{name}_routes/routed_keys"), &routes, routed);
    }
    criterion.final_summary();
}
