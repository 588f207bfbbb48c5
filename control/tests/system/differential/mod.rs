//! The same random probes under the same random rules, here and through a Linux router with nftables.
//!
//! Whether they arrive, what they are answered and how the far end sees them (address, and whether its port, or a ping's identifier, was translated) must
//! agree, or the difference must be one that [`explained`] names a fact for. What was answered is tried once more by the same
//! socket after the rules were replaced: so the states of both are compared.
//!
//! `DIFFERENTIAL_SEED=N` tries that seed alone, `DIFFERENTIAL_SEEDS=N` the first N of at most 40.

mod echo;
mod explained;
mod linux;
mod probe;
mod rules;
mod servers;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Lab, tell_always};
use explained::{When, explained, is_tracked};
use linux::Linux;
use probe::{Kind, Open, Outcome, Port, Probe, Seen};
use rules::{INSTANCES, Random, Rules};
use servers::Servers;

/// Seeds that are tried where nobody asks for more, rounds of each (every one with rules of its own), and probes of each round.
const SEEDS: u64 = 2;
const ROUNDS: usize = 3;
const PROBES: usize = 90;
/// Probes on their way at the same time.
const AT_ONCE: usize = 90;
/// How long an answer is waited for: at first, and where a difference shows, because a busy machine is none.
const PATIENCE: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(3)];

const FILE: &str = "
lab: differential
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public: { cidr: 10.0.1.0/24, route_table: public }
      private: { cidr: 10.0.2.0/24, route_table: private, network_acl: guard }
    route_tables:
      public: [ { to: 0.0.0.0/0, via: igw } ]
      private: [ { to: 0.0.0.0/0, via: nat } ]
    nat_gateways:
      nat: { subnet: public, ip: 10.0.1.100, eip: 203.0.113.20 }
    instances:
      web: { subnet: public, ip: 10.0.1.10, eip: 203.0.113.10, security_groups: web }
      app: { subnet: private, ip: 10.0.2.20, security_groups: app }
      db: { subnet: private, ip: 10.0.2.30, security_groups: db }
RULES
internet:
  hosts:
    one: { ip: 198.51.100.10 }
    two: { ip: 198.51.100.11 }
";

/// Destinations of most probes.
const DESTINATIONS: [&str; 6] =
    ["10.0.1.10", "10.0.2.20", "10.0.2.30", "198.51.100.10", "198.51.100.11", "203.0.113.10"];

/// Destinations of some: the NAT gateway, the router, nobody.
const ODD_DESTINATIONS: [&str; 4] = ["203.0.113.20", "10.0.1.100", "10.0.1.1", "10.0.2.99"];

#[test]
fn load_linux_and_we_agree_or_a_fact_says_why() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("DIFFERENTIAL_SEEDS").unwrap_or(SEEDS).min(SEEDS_WITHOUT_REUSE),
    };
    let Some(worlds) = Worlds::build() else { return };
    let mut tally = BTreeMap::new();
    for seed in seeds {
        worlds.compare(seed, &mut tally);
    }
    println!("{tally:#?}");
    let count = |verdict: &str| tally.get(verdict).copied().unwrap_or_default();
    assert!(
        count("agree: answered") >= 30
            && count("agree: silent") >= 30
            && count("later, agree: answered") >= 5
            && count(TRANSLATED_PINGS) >= 1,
        "too few to say anything: {tally:#?}"
    );
}

/// Among those that agree.
const TRANSLATED_PINGS: &str = "pings whose identifier both translated";

/// Two worlds with the same instances, addresses and servers.
struct Worlds {
    lab: Lab,
    linux: Linux,
    _servers: Vec<Servers>,
}

/// What was found, and how often.
type Tally = BTreeMap<String, usize>;

impl Worlds {
    /// None without root.
    #[track_caller]
    fn build() -> Option<Self> {
        let lab = Lab::new()?;
        lab.apply(&FILE.replace("RULES\n", &Rules::random(&mut Random(0)).yaml())).ok();
        let linux = Linux::build();
        for who in INSTANCES.map(|(name, _)| name).into_iter().chain(["internet"]) {
            tell_always(&lab.netns(who));
        }
        let instances = INSTANCES.iter().map(|(name, address)| (*name, vec![*address]));
        let servers = instances
            .chain([("internet", vec!["198.51.100.10", "198.51.100.11"])])
            .flat_map(|(name, addresses)| {
                [lab.netns(name), linux.netns(name)].map(|it| Servers::start(&it, &addresses))
            })
            .collect();
        Some(Self { lab, linux, _servers: servers })
    }

    /// Tries everything that follows from a seed.
    #[track_caller]
    fn compare(&self, seed: u64, tally: &mut Tally) {
        let mut random = Random(seed);
        let mut ports = ports(seed);
        let mut open: Vec<[Open; 2]> = Vec::new();
        for round in 0..ROUNDS {
            let tracked_before = self.lab.connections();
            let rules = Rules::random(&mut random);
            self.lab.apply(&FILE.replace("RULES\n", &rules.yaml())).ok();
            self.linux.apply(&rules);
            let mut judge = |probe: &Probe, when, here, there, tracked| {
                let verdict = match (here == there, explained((probe, when), here, there, tracked)) {
                    (true, _) => format!("agree: {}", name(here)),
                    (false, Some(fact)) => format!("differ: {fact}"),
                    (false, None) => panic!(
                        "seed {seed}, round {round}, {when:?}: {probe:?}\nhere {here:?}, there {there:?}, tracked: {tracked}\n{}",
                        rules.yaml()
                    ),
                };
                if let (Kind::Ping, true, Outcome::Answered(Some(Seen { port: Port::Translated, .. }))) =
                    (probe.kind, here == there, here)
                {
                    *tally.entry(TRANSLATED_PINGS.to_owned()).or_default() += 1;
                }
                let verdict = if when == When::AfterChange { format!("later, {verdict}") } else { verdict };
                *tally.entry(verdict).or_default() += 1;
            };

            for (probe, outcomes) in again(std::mem::take(&mut open)) {
                judge(
                    &probe,
                    When::AfterChange,
                    outcomes[0],
                    outcomes[1],
                    is_tracked(&probe, &tracked_before),
                );
            }

            let mut probes: Vec<Probe> = (0..PROBES).map(|_| random_probe(&mut random, &mut ports)).collect();
            // Few of those are pings that the NAT gateway translates.
            probes.extend(["app", "db"].map(|from| ping_outside(from, &mut ports)));
            let tried = self.try_all(&probes, PATIENCE[0]);
            let connections = self.lab.connections();
            for (probe, [(here, open_here), (there, open_there)]) in tried {
                let tracked = is_tracked(&probe, &connections);
                if here == there || explained((&probe, When::First), here, there, tracked).is_some() {
                    judge(&probe, When::First, here, there, tracked);
                } else {
                    let [(here, _), (there, _)] = self.once_more(probe, &mut ports);
                    judge(&probe, When::First, here, there, tracked);
                }
                if let (true, Some(here), Some(there)) = (here == there, open_here, open_there) {
                    open.push([here, there]);
                }
            }
        }
    }

    fn netns(&self, probe: &Probe) -> [String; 2] {
        [self.lab.netns(probe.from), self.linux.netns(probe.from)]
    }

    fn try_all(&self, probes: &[Probe], patience: Duration) -> Vec<(Probe, Tried)> {
        let tried = side_by_side(probes.len() * 2, |job| {
            let probe = &probes[job / 2];
            probe.run(&self.netns(probe)[job % 2], patience)
        });
        let mut tried = tried.into_iter();
        let mut next = || tried.next().expect("two for each");
        probes.iter().map(|probe| (*probe, [next(), next()])).collect()
    }

    /// Alone, with patience, and with another source port in the same half of the range.
    fn once_more(&self, mut probe: Probe, ports: &mut impl Iterator<Item = u16>) -> Tried {
        let high = probe.source.port() >= 40_000;
        let port = ports.find(|port| (*port >= 40_000) == high).expect("enough ports");
        probe.source.set_port(port);
        self.netns(&probe).map(|netns| probe.run(&netns, PATIENCE[1]))
    }
}

/// What came of a probe here and there.
type Tried = [(Outcome, Option<Open>); 2];

/// Tries all of them once more by the sockets they have; where only one world is silent, twice, because a busy machine is no
/// difference. A connection that was reset stays so.
fn again(open: Vec<[Open; 2]>) -> Vec<(Probe, [Outcome; 2])> {
    let probes: Vec<Probe> = open.iter().map(|[here, _]| here.probe()).collect();
    let sockets: Vec<Mutex<Open>> = open.into_iter().flatten().map(Mutex::new).collect();
    let ask = |job: usize, patience| sockets[job].lock().expect("no thread panics with it").again(patience);
    let mut outcomes = side_by_side(sockets.len(), |job| ask(job, PATIENCE[0]));
    let late: Vec<usize> = (0..sockets.len())
        .filter(|job| outcomes[*job] == Outcome::Silent && outcomes[job ^ 1] != Outcome::Silent)
        .collect();
    for (job, outcome) in late.iter().zip(side_by_side(late.len(), |at| ask(late[at], 3 * PATIENCE[0]))) {
        outcomes[*job] = outcome;
    }
    probes.iter().enumerate().map(|(at, probe)| (*probe, [outcomes[2 * at], outcomes[2 * at + 1]])).collect()
}

/// Does all of these jobs, [`AT_ONCE`] at a time; what they return is in their order.
fn side_by_side<T: Send>(jobs: usize, doing: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<T>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(jobs) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = done.get(job) else { break };
                    let outcome = doing(job);
                    *place.lock().expect("no thread panics with it") = Some(outcome);
                }
            });
        }
    });
    let taken = done.into_iter().map(|place| place.into_inner().expect("no thread panics with it"));
    taken.map(|outcome| outcome.expect("every job is done")).collect()
}

/// Seeds whose probes have source ports of their own, so that several in a row do not disturb each other.
const SEEDS_WITHOUT_REUSE: u64 = 40;

/// Source ports of a seed's probes: all over the range, none twice.
fn ports(seed: u64) -> impl Iterator<Item = u16> {
    let first = (seed % SEEDS_WITHOUT_REUSE) as u32 * 1_000;
    (first..first + 1_000).map(|n| 20_000 + (n * 7_919 % 40_000) as u16)
}

fn random_probe(random: &mut Random, ports: &mut impl Iterator<Item = u16>) -> Probe {
    let sources = [
        INSTANCES[0],
        INSTANCES[1],
        INSTANCES[2],
        ("internet", "198.51.100.10"),
        ("internet", "198.51.100.11"),
    ];
    let (from, source) = random.pick(&sources);
    let to = loop {
        let to = match random.below(8) {
            0 => random.pick(&ODD_DESTINATIONS),
            _ => random.pick(&DESTINATIONS),
        };
        // What stays in a namespace says nothing, and the internet's way to private addresses is closed: seldom.
        let stays = to == source || (from == "internet" && to.starts_with("198.51.100."));
        let hopeless = from == "internet" && to.starts_with("10.") && random.below(8) > 0;
        if !stays && !hopeless {
            break to;
        }
    };
    let (kind, port) = match random.below(14) {
        0 | 1 => (Kind::Ping, 0),
        2 => (Kind::LostAck, random.pick(&[22, 80, 443])),
        3..7 => (Kind::Udp, random.pick(&[53, 5000, 9000])),
        _ => (Kind::Tcp, random.pick(&[22, 80, 80, 443, 5432])),
    };
    Probe {
        from,
        source: SocketAddrV4::new(address(source), ports.next().expect("enough ports")),
        to: SocketAddrV4::new(address(to), port),
        kind,
    }
}

fn ping_outside(from: &'static str, ports: &mut impl Iterator<Item = u16>) -> Probe {
    let (_, source) = INSTANCES.iter().find(|(name, _)| *name == from).expect("an instance");
    Probe {
        from,
        source: SocketAddrV4::new(address(source), ports.next().expect("enough ports")),
        to: SocketAddrV4::new(address("198.51.100.10"), 0),
        kind: Kind::Ping,
    }
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(_) => "answered",
        Outcome::Refused => "refused",
        Outcome::Unreachable => "unreachable",
        Outcome::Silent => "silent",
    }
}
