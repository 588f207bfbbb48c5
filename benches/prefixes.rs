//! Routes to look up in, and addresses to look up: those of the internet if there is a table of them, else some like them.
//!
//! A real table nests and clusters as no random one does. Whoever has one names it in [`VARIABLE`]: a prefix on each line,
//! both families mixed, plain or gzipped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::scenes::{Cycle, Random};

/// Names the file with a full internet table.
pub const VARIABLE: &str = "LOCALVPC_PREFIXES";

/// All prefixes of both families, without default routes.
pub struct Internet {
    /// For names of benchmarks: `of_the_internet`, or `like_the_internet` if they are generated.
    pub origin: &'static str,
    /// Some 900,000 of the internet, or a million generated.
    pub v4: Vec<Ipv4Net>,
    /// Some 160,000 of the internet, or 200,000 generated.
    pub v6: Vec<Ipv6Net>,
}

impl Internet {
    /// The table that the environment names, or one that is generated.
    ///
    /// # Panics
    /// If the file cannot be read, or has something else in it.
    pub fn load() -> Self {
        let Some(path) = std::env::var_os(VARIABLE) else { return Self::generated() };
        let text = read(Path::new(&path));
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            match line.trim().parse::<IpNet>() {
                Ok(IpNet::V4(net)) => v4.push(net.trunc()),
                Ok(IpNet::V6(net)) => v6.push(net.trunc()),
                Err(_) => panic!("{VARIABLE}, line {}: {line:?} is no prefix such as 10.0.0.0/8", number + 1),
            }
        }
        Self { origin: "of_the_internet", v4: distinct(v4), v6: distinct(v6) }
    }

    fn generated() -> Self {
        let mut random = Random(1);
        // Unicast addresses: 1.0.0.0 up to 223.255.255.255.
        let v4 = generate(1_000_000, &LENGTHS_V4, &mut random, |random, length| {
            let address = Ipv4Addr::from(0x0100_0000 + random.below(0xdf00_0000));
            Ipv4Net::new_assert(address, length).trunc()
        });
        // Registries give out blocks, and providers parts of those.
        let blocks = [0x2001, 0x2400, 0x2402, 0x2408, 0x2409, 0x2600, 0x2604, 0x2620, 0x2804, 0x2a00, 0x2a02];
        let v6 = generate(200_000, &LENGTHS_V6, &mut random, |random, length| {
            let block = blocks[random.below(blocks.len() as u32) as usize];
            let provider = u128::from(random.below(4_000)) << 96;
            let part = u128::from(random.below(256)) << 88 | u128::from(random.draw() & 0xFF_FFFF) << 64;
            Ipv6Net::new_assert((block << 112 | provider | part).into(), length).trunc()
        });
        Self { origin: "like_the_internet", v4, v6 }
    }
}

/// Per cent of the routes of a full table, roughly.
const LENGTHS_V4: [(u8, u32); 9] =
    [(24, 60), (23, 11), (22, 12), (21, 5), (20, 5), (19, 3), (18, 1), (17, 1), (16, 2)];
const LENGTHS_V6: [(u8, u32); 9] =
    [(48, 50), (32, 15), (44, 9), (40, 8), (36, 6), (46, 4), (29, 3), (33, 3), (35, 2)];

fn generate<N: Ord + Copy + std::hash::Hash>(
    count: usize,
    lengths: &[(u8, u32)],
    random: &mut Random,
    mut net: impl FnMut(&mut Random, u8) -> N,
) -> Vec<N> {
    let mut nets = std::collections::HashSet::with_capacity(count);
    while nets.len() < count {
        let mut share = random.below(100);
        let length = lengths.iter().find(|(_, per_cent)| match share.checked_sub(*per_cent) {
            Some(rest) => {
                share = rest;
                false
            }
            None => true,
        });
        let (length, _) = length.expect("the shares add up to 100");
        nets.insert(net(random, *length));
    }
    let mut nets: Vec<N> = nets.into_iter().collect();
    nets.sort_unstable();
    nets
}

/// Some of the prefixes, spread over all of them; always the same.
pub fn some<N: Copy + Ord>(nets: &[N], count: usize) -> Vec<N> {
    let mut random = Random(8);
    let mut chosen: HashMap<u32, N> = HashMap::new();
    while chosen.len() < count.min(nets.len()) {
        let at = random.below(nets.len() as u32);
        chosen.insert(at, nets[at as usize]);
    }
    let mut chosen: Vec<N> = chosen.into_values().collect();
    chosen.sort_unstable();
    chosen
}

/// What the lookups of both families have in common.
pub trait Net: Copy + Ord {
    /// An address of the family.
    type Address: Copy + std::fmt::Display;
    /// The prefix of length 0.
    const DEFAULT: Self;
    /// The first address, and the length.
    fn parts(self) -> (Self::Address, u8);
    /// The prefix that is one address.
    fn host(address: Self::Address) -> Self;
    /// The address of either family.
    fn ip(address: Self::Address) -> IpAddr;
    /// Any address of the prefix.
    fn any(self, random: &mut Random) -> Self::Address;
    /// Any unicast address, as likely as another.
    fn any_unicast(random: &mut Random) -> Self::Address;
}

impl Net for Ipv4Net {
    type Address = Ipv4Addr;
    const DEFAULT: Self = Self::new_assert(Ipv4Addr::UNSPECIFIED, 0);

    fn parts(self) -> (Ipv4Addr, u8) {
        (self.network(), self.prefix_len())
    }

    #[inline]
    fn host(address: Ipv4Addr) -> Self {
        Self::new_assert(address, 32)
    }

    #[inline]
    fn ip(address: Ipv4Addr) -> IpAddr {
        address.into()
    }

    fn any(self, random: &mut Random) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) | random.draw() as u32 & u32::from(self.hostmask()))
    }

    #[inline]
    fn any_unicast(random: &mut Random) -> Ipv4Addr {
        Ipv4Addr::from(0x0100_0000 + random.below(0xdf00_0000))
    }
}

impl Net for Ipv6Net {
    type Address = Ipv6Addr;
    const DEFAULT: Self = Self::new_assert(Ipv6Addr::UNSPECIFIED, 0);

    fn parts(self) -> (Ipv6Addr, u8) {
        (self.network(), self.prefix_len())
    }

    #[inline]
    fn host(address: Ipv6Addr) -> Self {
        Self::new_assert(address, 128)
    }

    #[inline]
    fn ip(address: Ipv6Addr) -> IpAddr {
        address.into()
    }

    fn any(self, random: &mut Random) -> Ipv6Addr {
        let bits = u128::from(random.draw()) << 64 | u128::from(random.draw());
        Ipv6Addr::from(u128::from(self.network()) | bits & u128::from(self.hostmask()))
    }

    #[inline]
    fn any_unicast(random: &mut Random) -> Ipv6Addr {
        // 2000::/3: nothing else is given out.
        let (upper, lower) = (random.draw(), random.draw());
        Ipv6Addr::from(u128::from(0x2000 << 48 | upper >> 3) << 64 | u128::from(lower))
    }
}

/// Each with a number, behind a default route with the number 0.
pub fn numbered<N: Net>(nets: &[N]) -> Vec<(N, u32)> {
    std::iter::once(N::DEFAULT).chain(nets.iter().copied()).zip(0..).collect()
}

/// Any unicast addresses. As many as nothing can learn by heart: with a million routes, what a lookup touches is rarely in the nearer caches.
pub fn random_keys<N: Net>() -> Cycle<N::Address> {
    let mut random = Random(2);
    Cycle::of(KEYS, || N::any_unicast(&mut random))
}

/// Addresses within the routes, each route as likely as another.
pub fn routed_keys<N: Net>(routes: &[(N, u32)]) -> Cycle<N::Address> {
    let mut random = Random(3);
    Cycle::of(KEYS, || {
        let (route, _) = routes[random.below(routes.len() as u32) as usize];
        route.any(&mut random)
    })
}

const KEYS: usize = 1 << 20;

/// What a subnet of a normal VPC has: local, a default route, and a few others.
pub fn vpc_routes() -> Vec<(Ipv4Net, u32)> {
    let routes =
        ["0.0.0.0/0", "10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];
    routes.iter().zip(0..).map(|(route, number)| (route.parse().expect("a prefix"), number)).collect()
}

fn distinct<N: Ord>(mut nets: Vec<N>) -> Vec<N> {
    nets.sort_unstable();
    nets.dedup();
    nets
}

fn read(path: &Path) -> String {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", path.display()));
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip is there to be run");
    assert!(
        output.status.success(),
        "{VARIABLE}: {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("prefixes are ASCII")
}
