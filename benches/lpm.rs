//! How long does it take to find a route, beside the crates that do the same?
//!
//! ```sh
//! LOCALVPC_PREFIXES=prefixes.txt.gz cargo bench -p localvpc-benches --bench lpm  # of the internet
//! cargo bench -p localvpc-benches --bench lpm                                    # generated, like those of the internet
//! ```

use std::hint::black_box;

use criterion::Criterion;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::IpNet;
use localvpc_benches::prefixes::{self, Internet, Net};
use localvpc_benches::scenes::Cycle;
use localvpc_benches::{criterion, time};
use localvpc_engine::tables::lpm::Lpm;
use poptrie::Poptrie;
use prefix_trie::PrefixMap;

/// In all of them, addresses that are not routed otherwise find a default route.
fn compare<N>(
    criterion: &mut Criterion,
    name: &str,
    routes: &[(N, u32)],
    keys: impl Fn() -> Cycle<N::Address>,
) where
    N: Net + Into<IpNet> + prefix_trie::Prefix,
    N::Address: ip_network_table_deps_treebitmap::address::Address
        + Into<<(N::Address, u8) as poptrie::Prefix>::ADDRESS>,
    (N::Address, u8): poptrie::Prefix,
{
    let ours = Lpm::build(routes.iter().map(|(route, number)| ((*route).into(), *number)));
    let poptrie: Poptrie<(N::Address, u8), u32> =
        routes.iter().map(|(route, number)| (route.parts(), *number)).collect();
    let prefix_map: PrefixMap<N, u32> = routes.iter().copied().collect();
    let mut tree_bitmap = IpLookupTable::with_capacity(routes.len());
    for (route, number) in routes {
        let (address, length) = route.parts();
        tree_bitmap.insert(address, length.into(), *number);
    }

    let mut check = keys();
    for _ in 0..100_000 {
        let address = check.step();
        let found = ours.lookup(N::ip(address));
        assert_eq!(found, poptrie.lookup(address).copied(), "{address}");
        assert_eq!(found, prefix_map.get_lpm(&N::host(address)).map(|(_, number)| *number), "{address}");
        assert_eq!(found, tree_bitmap.longest_match(address).map(|(_, _, number)| *number), "{address}");
    }

    let mut all = keys();
    time(criterion, &format!("{name}/localvpc"), || ours.lookup(N::ip(black_box(all.step()))));
    let mut all = keys();
    time(criterion, &format!("{name}/poptrie"), || poptrie.lookup(black_box(all.step())).copied());
    let mut all = keys();
    time(criterion, &format!("{name}/prefix-trie"), || {
        prefix_map.get_lpm(&N::host(black_box(all.step()))).map(|(_, number)| *number)
    });
    let mut all = keys();
    time(criterion, &format!("{name}/treebitmap"), || {
        tree_bitmap.longest_match(black_box(all.step())).map(|(_, _, number)| *number)
    });
}

fn main() {
    let mut criterion = criterion();
    let vpc = prefixes::vpc_routes();
    compare(&mut criterion, "lpm/6_ipv4_routes_of_a_vpc/routed_keys", &vpc, || prefixes::routed_keys(&vpc));
    let Internet { origin, v4, v6 } = Internet::load();
    for count in [1_000, 10_000, v4.len()] {
        let routes = prefixes::numbered(&prefixes::some(&v4, count));
        let name = format!("lpm/{count}_ipv4_routes_{origin}");
        compare(
            &mut criterion,
            &format!("{name}/random_keys"),
            &routes,
            prefixes::random_keys::<ipnet::Ipv4Net>,
        );
        compare(&mut criterion, &format!("{name}/routed_keys"), &routes, || prefixes::routed_keys(&routes));
    }
    let routes = prefixes::numbered(&v6);
    let name = format!("lpm/{}_ipv6_routes_{origin}", v6.len());
    compare(&mut criterion, &format!("{name}/random_keys"), &routes, prefixes::random_keys::<ipnet::Ipv6Net>);
    compare(&mut criterion, &format!("{name}/routed_keys"), &routes, || prefixes::routed_keys(&routes));
    criterion.final_summary();
}
