//! The same random probes under the same random rules, here and through a Linux router with nftables.
//!
//! Whether they arrive and which address the far end sees must agree, or the difference must be one that
//! [`explained`] names a fact for. `DIFFERENTIAL_SEED=…` tries another seed.

mod linux;
mod probe;
mod rules;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Lab, tell_always};
use linux::Linux;
use probe::{Kind, Outcome, Probe, Servers};
use rules::{INSTANCES, Random, Rules};

const SEED: u64 = 4;
const ROUNDS: usize = 4;
const PROBES: usize = 90;
const AT_ONCE: usize = 24;

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
    let Some(lab) = Lab::new() else { return };
    let seed = std::env::var("DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut random = Random(seed);
    let mut rules = Rules::random(&mut random);
    lab.apply(&FILE.replace("RULES\n", &rules.yaml())).ok();
    let linux = Linux::build();
    for who in INSTANCES.map(|(name, _)| name).into_iter().chain(["internet"]) {
        tell_always(&lab.netns(who));
    }
    let _servers: Vec<Servers> = INSTANCES
        .iter()
        .map(|(name, address)| (*name, vec![*address]))
        .chain([("internet", vec!["198.51.100.10", "198.51.100.11"])])
        .flat_map(|(name, addresses)| {
            [lab.netns(name), linux.netns(name)].map(|it| Servers::start(&it, &addresses))
        })
        .collect();

    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    // All over the range, and no source port twice.
    let mut ports = (0..40_000_u32).map(|n| 20_000 + (n * 7919 % 40_000) as u16);
    for round in 0..ROUNDS {
        if round > 0 {
            rules = Rules::random(&mut random);
            lab.apply(&FILE.replace("RULES\n", &rules.yaml())).ok();
        }
        linux.apply(&rules);
        let probes: Vec<Probe> = (0..PROBES).map(|_| random_probe(&mut random, &mut ports)).collect();
        let patience = Duration::from_millis(800);
        for (probe, here, there) in run_all(&lab, &linux, &probes, patience) {
            // Once more, alone and with patience: a busy machine is no difference.
            let (here, there) = match here == there || explained(&probe, here, there).is_some() {
                true => (here, there),
                false => again(&lab, &linux, probe, &mut ports),
            };
            let verdict = match (here == there, explained(&probe, here, there)) {
                (true, _) => format!("agree: {}", name(here)),
                (false, Some(fact)) => format!("differ: {fact}"),
                (false, None) => panic!(
                    "seed {seed}, round {round}: {probe:?}\nhere {here:?}, there {there:?}\n{}",
                    rules.yaml()
                ),
            };
            *tally.entry(verdict).or_default() += 1;
        }
    }
    println!("seed {seed}: {tally:#?}");
    let count = |verdict: &str| tally.get(verdict).copied().unwrap_or_default();
    assert!(
        seed != SEED || count("agree: answered") >= 60 && count("agree: silent") >= 60,
        "too few to say anything: {tally:#?}"
    );
}

/// The fact that explains why Linux does otherwise.
fn explained(probe: &Probe, here: Outcome, there: Outcome) -> Option<&'static str> {
    let to = probe.to.ip().to_string();
    let inside = probe.from != "internet";
    match to.as_str() {
        // Linux answers on its own addresses, whatever they stand for.
        "10.0.1.100" | "203.0.113.20" if here == Outcome::Silent && probe.kind == Kind::Ping => {
            Some("NATGW-19: a NAT gateway answers no ping")
        }
        "10.0.1.100" | "203.0.113.20" if here == Outcome::Silent => {
            Some("NATGW-18: a NAT gateway lets nothing in, and says so to nobody")
        }
        "10.0.1.1" if here == Outcome::Silent => Some("PKT-6: the router answers nothing"),
        "10.0.2.99" if here == Outcome::Silent && there == Outcome::Unreachable => {
            Some("RT-26: no unreachable from the router")
        }
        // UDP sockets do not hear of an unreachable network.
        "203.0.113.10" if inside && matches!(there, Outcome::Unreachable | Outcome::Silent) => {
            if let Outcome::Answered(Some(seen)) = here {
                // By whom web thinks it is asked: itself, or the NAT gateway.
                let expected = if probe.from == "web" { "203.0.113.10" } else { "203.0.113.20" };
                assert_eq!(seen.to_string(), expected, "{probe:?}");
            }
            Some("IGW-14, NATGW-38: the internet gateway reflects, this router does not")
        }
        // The answer to an untracked datagram is an ICMP error that no rule lets out, or none lets in.
        _ if probe.kind == Kind::Udp && there == Outcome::Refused && here == Outcome::Silent => {
            Some("SG-32, SG-41: an untracked flow has no related errors")
        }
        _ => None,
    }
}

fn run_all(lab: &Lab, linux: &Linux, probes: &[Probe], patience: Duration) -> Vec<(Probe, Outcome, Outcome)> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![[Outcome::Silent; 2]; probes.len()]);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(probe) = probes.get(job / 2) else { break };
                    let netns =
                        if job.is_multiple_of(2) { lab.netns(probe.from) } else { linux.netns(probe.from) };
                    let outcome = probe.run(&netns, patience);
                    outcomes.lock().expect("no thread panics with it")[job / 2][job % 2] = outcome;
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no thread panics with it");
    probes.iter().zip(outcomes).map(|(probe, [here, there])| (*probe, here, there)).collect()
}

/// With another source port, in the same half of the range.
fn again(
    lab: &Lab,
    linux: &Linux,
    mut probe: Probe,
    ports: &mut impl Iterator<Item = u16>,
) -> (Outcome, Outcome) {
    let high = probe.source.port() >= 40_000;
    let port = ports.find(|port| (*port >= 40_000) == high).unwrap_or(probe.source.port() + 1);
    probe.source.set_port(port);
    let patience = Duration::from_secs(3);
    (probe.run(&lab.netns(probe.from), patience), probe.run(&linux.netns(probe.from), patience))
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
    let (kind, port) = match random.below(6) {
        0 => (Kind::Ping, 0),
        1 | 2 => (Kind::Udp, random.pick(&[53, 5000, 9000])),
        _ => (Kind::Tcp, random.pick(&[22, 80, 80, 443, 5432])),
    };
    let address = |text: &str| -> Ipv4Addr { text.parse().expect("an address") };
    Probe {
        from,
        source: SocketAddrV4::new(address(source), ports.next().expect("enough ports")),
        to: SocketAddrV4::new(address(to), port),
        kind,
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(_) => "answered",
        Outcome::Refused => "refused",
        Outcome::Unreachable => "unreachable",
        Outcome::Silent => "silent",
    }
}
