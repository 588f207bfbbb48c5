//! Random labs, small and quarrelsome.

use super::random::Random;

/// A lab.
#[derive(Debug)]
pub struct World {
    pub vpcs: Vec<Vpc>,
    /// Addresses of hosts on the internet.
    pub hosts: Vec<u32>,
}

/// Addresses: the first, and how many bits say so.
pub type Net = (u32, u8);

#[derive(Debug)]
pub struct Vpc {
    pub cidr: Net,
    pub gateway: bool,
    pub subnets: Vec<Subnet>,
    /// Route tables, without their local routes.
    pub tables: Vec<Vec<(Net, Target)>>,
    pub acls: Vec<Acl>,
    pub groups: Vec<Group>,
    pub instances: Vec<Instance>,
    pub nats: Vec<Nat>,
}

#[derive(Debug)]
pub struct Subnet {
    pub cidr: Net,
    /// Whether its instances are in one namespace, behind one link.
    pub shared: bool,
    pub table: usize,
    pub acl: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    Gateway,
    Nat(usize),
    Instance(usize),
    Blackhole,
}

/// Entries by ascending number: `(allows, traffic, far addresses)`.
#[derive(Debug, Default)]
pub struct Acl {
    pub inbound: Vec<(bool, Traffic, Net)>,
    pub outbound: Vec<(bool, Traffic, Net)>,
}

#[derive(Debug, Default)]
pub struct Group {
    pub inbound: Vec<(Traffic, Peer)>,
    pub outbound: Vec<(Traffic, Peer)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Peer {
    Net(Net),
    Group(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    All,
    Tcp(u16, u16),
    Udp(u16, u16),
    /// Of this type; of every one.
    Icmp(Option<u8>),
    Protocol(u8),
}

#[derive(Debug)]
pub struct Instance {
    /// Private addresses, the primary one first, each with its public one.
    pub addresses: Vec<(u32, Option<u32>)>,
    pub subnet: usize,
    pub groups: Vec<usize>,
    pub checks: bool,
}

#[derive(Debug)]
pub struct Nat {
    pub address: u32,
    pub subnet: usize,
    pub public: Option<u32>,
}

impl Vpc {
    /// All private addresses, each with its public one; those of NAT gateways come last.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let instances = self.instances.iter().flat_map(|it| it.addresses.iter().copied());
        instances.chain(self.nats.iter().map(|it| (it.address, it.public)))
    }
}

impl Instance {
    pub fn has(&self, address: u32) -> bool {
        self.addresses.iter().any(|(private, _)| *private == address)
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// An instance of a VPC.
    Instance(usize, usize),
    /// An address of the internet.
    Host(u32),
}

pub const ANY: Net = (0, 0);

const fn ip(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// Two hosts that there are, and one of the same network that there is not.
const HOSTS: [u32; 2] = [ip(198, 51, 100, 10), ip(192, 0, 2, 7)];
const NOBODY: u32 = ip(198, 51, 100, 99);

impl World {
    pub fn random(random: &mut Random) -> Self {
        let vpcs = 1 + usize::from(random.one_in(3));
        Self { vpcs: (0..vpcs).map(|at| vpc(random, at)).collect(), hosts: HOSTS.to_vec() }
    }

    /// Who sends, and from which of its addresses.
    pub fn sender(&self, random: &mut Random) -> (End, u32) {
        if random.one_in(3) {
            // Also addresses that no host of the lab has.
            let address = *random.of(&[HOSTS[0], HOSTS[1], ip(203, 0, 114, 9)]);
            return (End::Host(address), address);
        }
        let vpc = random.below(self.vpcs.len());
        let instance = random.below(self.vpcs[vpc].instances.len());
        let (address, _) = *random.of(&self.vpcs[vpc].instances[instance].addresses);
        (End::Instance(vpc, instance), address)
    }

    /// Somewhere that might be reached, or nearly.
    pub fn destination(&self, random: &mut Random, from: End) -> u32 {
        let own = if let End::Instance(vpc, _) = from { vpc } else { random.below(self.vpcs.len()) };
        let vpc = if random.one_in(4) { &self.vpcs[random.below(self.vpcs.len())] } else { &self.vpcs[own] };
        let instance = random.of(&vpc.instances);
        let (private, public) = *random.of(&instance.addresses);
        match (random.below(10), from) {
            (0, _) => *random.of(&[NOBODY, ip(192, 168, 1, 1), ip(100, 64, 0, 1), vpc.cidr.0 + 0x0909]),
            (1, _) => vpc.subnets[0].cidr.0 + 200,
            (2, _) => vpc.addresses().last().map_or(HOSTS[0], |(private, public)| public.unwrap_or(private)),
            (3, _) => vpc.nats.first().map_or(HOSTS[1], |nat| nat.address),
            (4..=6, End::Instance(..)) => *random.of(&HOSTS),
            (7, _) | (_, End::Host(_)) => public.unwrap_or(private),
            _ => private,
        }
    }
}

fn vpc(random: &mut Random, at: usize) -> Vpc {
    let base = ip(10, if at == 0 || random.one_in(2) { 0 } else { 1 }, 0, 0);
    let gateway = !random.one_in(6);
    let subnet_count = 1 + random.below(3);
    let (table_count, acl_count, group_count) =
        (1 + random.below(3), 1 + random.below(2), 1 + random.below(3));
    let subnet_cidr = |subnet: usize| (base + ((subnet as u32 + 1) << 8), 24);
    let mut public = (0..).map(|number| ip(203, 0, 113, 10 + 40 * at as u8 + number));
    let mut next_public = || public.next();
    let nat_count = random.below(3);
    let nats: Vec<Nat> = (0..nat_count)
        .map(|nat| {
            let subnet = random.below(subnet_count);
            let has = gateway && !random.one_in(8);
            Nat {
                address: subnet_cidr(subnet).0 + 100 + nat as u32,
                subnet,
                public: has.then(&mut next_public).flatten(),
            }
        })
        .collect();
    let instances: Vec<Instance> = (0..1 + random.below(4))
        .map(|instance| {
            let subnet = random.below(subnet_count);
            let mut addresses = vec![subnet_cidr(subnet).0 + 10 + instance as u32];
            if random.one_in(4) {
                addresses.push(subnet_cidr(subnet).0 + 50 + instance as u32);
            }
            let addresses = addresses.into_iter().map(|private| {
                let has = gateway && random.one_in(2);
                (private, has.then(&mut next_public).flatten())
            });
            let addresses = addresses.collect();
            let mut groups = vec![random.below(group_count)];
            if random.one_in(3) {
                let other = random.below(group_count);
                groups.extend((other != groups[0]).then_some(other));
            }
            Instance { addresses, subnet, groups, checks: !random.one_in(5) }
        })
        .collect();
    let target = |random: &mut Random, inside: bool| {
        let choice = random.below(12);
        match choice {
            0..=3 if !nats.is_empty() => Target::Nat(random.below(nats.len())),
            4..=9 if gateway && !inside => Target::Gateway,
            10 => Target::Instance(random.below(instances.len())),
            0..=9 if inside => Target::Instance(random.below(instances.len())),
            _ => Target::Blackhole,
        }
    };
    let tables = (0..table_count)
        .map(|_| {
            let mut routes = Vec::new();
            if !random.one_in(6) {
                routes.push((ANY, target(random, false)));
            }
            if random.one_in(4) {
                routes.push(((ip(198, 51, 100, 0), 24), target(random, false)));
            }
            if random.one_in(8) {
                // More specific than local: a whole subnet, to a NAT gateway or an interface (RT-9).
                let inside = target(random, true);
                let allowed = matches!(inside, Target::Nat(_) | Target::Instance(_));
                routes.extend(allowed.then(|| (subnet_cidr(random.below(subnet_count)), inside)));
            }
            routes
        })
        .collect();
    let nets = {
        let mut nets = vec![ANY, ANY, ANY, (base, 16), (ip(198, 51, 100, 0), 24), (HOSTS[0], 32)];
        nets.extend((0..subnet_count).map(subnet_cidr));
        let instances = instances.iter().flat_map(|it| it.addresses.iter().copied());
        let all = instances.chain(nats.iter().map(|it| (it.address, it.public)));
        nets.extend(
            all.flat_map(|(private, public)| [Some(private), public]).flatten().map(|address| (address, 32)),
        );
        nets
    };
    let acls = (0..acl_count)
        .map(|_| {
            if random.one_in(2) {
                let open = || vec![(true, Traffic::All, ANY)];
                return Acl { inbound: open(), outbound: open() };
            }
            let list = |random: &mut Random| {
                let mut entries: Vec<(bool, Traffic, Net)> = (0..random.below(4))
                    .map(|_| (!random.one_in(3), traffic(random), *random.of(&nets)))
                    .collect();
                if !random.one_in(3) {
                    entries.push((true, Traffic::All, ANY));
                }
                entries
            };
            Acl { inbound: list(random), outbound: list(random) }
        })
        .collect();
    let groups = (0..group_count)
        .map(|_| {
            let rules = |random: &mut Random| -> Vec<(Traffic, Peer)> {
                (0..random.below(4))
                    .map(|_| {
                        let group = random.one_in(4);
                        let peer = if group {
                            Peer::Group(random.below(group_count))
                        } else {
                            Peer::Net(*random.of(&nets))
                        };
                        (traffic(random), peer)
                    })
                    .collect()
            };
            let mut group = Group { inbound: rules(random), outbound: rules(random) };
            if random.one_in(2) {
                group.inbound.push((Traffic::All, Peer::Net(ANY)));
            }
            if !random.one_in(4) {
                group.outbound.push((Traffic::All, Peer::Net(ANY)));
            }
            group
        })
        .collect();
    let subnets = (0..subnet_count)
        .map(|subnet| Subnet {
            cidr: subnet_cidr(subnet),
            shared: random.one_in(4),
            table: random.below(table_count),
            acl: random.below(acl_count),
        })
        .collect();
    Vpc { cidr: (base, 16), gateway, subnets, tables, acls, groups, instances, nats }
}

fn traffic(random: &mut Random) -> Traffic {
    let range = |random: &mut Random| {
        *random.of(&[
            (0, 65_535),
            (80, 80),
            (443, 443),
            (22, 80),
            (1024, 65_535),
            (32_768, 60_999),
            (49_152, 65_535),
            (1024, 49_151),
            (0, 1023),
        ])
    };
    match random.below(9) {
        0 | 1 => Traffic::All,
        2..=4 => {
            let (from, to) = range(random);
            Traffic::Tcp(from, to)
        }
        5 => {
            let (from, to) = range(random);
            Traffic::Udp(from, to)
        }
        6 => Traffic::Icmp(*random.of(&[None, Some(8), Some(0)])),
        7 => Traffic::Protocol(47),
        _ => Traffic::Protocol(*random.of(&[6, 17])),
    }
}
