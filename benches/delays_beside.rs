//! How long do packets wait while large tables are installed, and while a million flows idle out?
//!
//! A worker forwards batches of 32 packets of 10,000 flows, without a pause, while another thread does what the dataplane's
//! server or housekeeping does. Of each batch its time on the clock and the thread's own time are told: on a machine with few processors the
//! system interrupts threads, for which nobody here can do anything.
//!
//! ```sh
//! cargo bench -p localvpc-benches --bench delays -- install
//! cargo bench -p localvpc-benches --bench delays -- expiry
//! ```

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::tables::{LinkKind, Route, RouteTarget, SecurityGroupRule};
use localvpc_api::{EniId, Generation, LinkId, RouteTableId, SecurityGroupId, SubnetId};
use localvpc_benches::delays::{beside, own_time};
use localvpc_benches::prefixes::Internet;
use localvpc_benches::scenes::{self, Beside, Cache, Connections, Random};
use localvpc_engine::testing::lab;
use localvpc_engine::{Time, tables};

const BATCH: usize = 32;
const FLOWS: u32 = 10_000;

/// 100 ENIs with 16 groups of 63 rules each: what AWS allows one, and a little more.
const ENIS: u32 = 100;
const GROUPS: u32 = 16;
const RULES: u32 = 63;

fn install() {
    let mut connections = Connections::open(FLOWS, Cache::On);
    let (mut lane, Beside { state, rows, now, .. }) = connections.lane();
    let Internet { origin, v4, .. } = Internet::load();
    let mut large = rows.clone();
    add_routes(&mut large, &v4);
    add_rules(&mut large);
    println!(
        "delays/install/{}_ipv4_routes_{origin}+{}_rules/beside_batches_of_{BATCH}_of_{FLOWS}_flows",
        v4.len(),
        ENIS * GROUPS * RULES
    );
    let first = Arc::new(tables::build(rows, &state.metrics).expect("the benchmark's tables"));
    let published = Mutex::new(first.clone());
    let (offered, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (mut current, mut random) = (first, Random(1));
    let batch = || {
        // As a worker takes up what it is woken for.
        let latest = offered.load(Ordering::Acquire);
        if latest != taken.load(Ordering::Relaxed) {
            current = published.lock().expect("nobody panics").clone();
            taken.store(latest, Ordering::Release);
        }
        let left = lane.forward_batch(&current, state, now, BATCH, || random.below(FLOWS));
        assert_eq!(left, BATCH, "every packet leaves, under whatever tables");
    };
    let (lines, delays) = beside(batch, || {
        // From small tables to large ones, and from those to others as large.
        [1, 2, 3].map(|number| {
            large.generation = Generation(rows.generation.0 + number as u64);
            let (start, own) = (Instant::now(), own_time());
            let built = Arc::new(tables::build(&large, &state.metrics).expect("the benchmark's tables"));
            let build = own_time() - own;
            let replaced = std::mem::replace(&mut *published.lock().expect("nobody panics"), built.clone());
            offered.store(number, Ordering::Release);
            while taken.load(Ordering::Acquire) != number {
                std::thread::yield_now();
            }
            let swapped = start.elapsed();
            drop(replaced);
            state.metrics.retain(|eni| built.has_eni(eni), |nat| built.has_nat_gateway(nat));
            let all = start.elapsed();
            format!(
                "  install {number}: {} ms from rows to the swap ({} ms of the thread's own time), {} ms more to free what was replaced",
                swapped.as_millis(),
                build.as_millis(),
                (all - swapped).as_millis()
            )
        })
    });
    lines.iter().for_each(|line| println!("{line}"));
    print!("{delays}");
}

fn add_routes(rows: &mut localvpc_api::Tables, prefixes: &[Ipv4Net]) {
    // Those of `app`: its packets are looked up among them when they are walked.
    let table = rows.route_tables.iter_mut().find(|table| table.id == lab::PRIVATE_ROUTES);
    let routes = &mut table.expect("the lab has it").routes;
    let known: Vec<IpNet> = routes.iter().map(|route| route.destination).collect();
    let targets = [
        RouteTarget::NatGateway(lab::NAT),
        RouteTarget::InternetGateway(lab::IGW),
        RouteTarget::NetworkInterface(lab::WEB.0),
    ];
    let host = lab::ip("203.0.113.5");
    let others = prefixes.iter().map(|net| IpNet::V4(*net)).filter(|net| !known.contains(net));
    routes.extend(others.zip(0..).map(|(destination, at)| {
        let target = if destination.contains(&host) { targets[0] } else { targets[at % targets.len()] };
        Route { destination, target }
    }));
}

fn add_rules(rows: &mut localvpc_api::Tables) {
    let mut random = Random(9);
    let subnet = lab::subnet(SubnetId(50), "10.0.64.0/18", lab::PUBLIC_ROUTES, lab::PUBLIC_ACL);
    debug_assert_eq!(subnet.route_table, RouteTableId(1));
    rows.subnets.push(subnet);
    let link = LinkId(50);
    rows.links.push(lab::link(link, LinkKind::Enis, 9001));
    for number in 0..ENIS {
        let ids: Vec<SecurityGroupId> =
            (0..GROUPS).map(|group| SecurityGroupId(1_000 + number * GROUPS + group)).collect();
        for id in &ids {
            let rule = |_| SecurityGroupRule {
                traffic: scenes::traffic(&mut random),
                peer: localvpc_api::tables::Peer::Cidr(scenes::cidr(&mut random)),
            };
            let inbound = (0..RULES).map(rule).collect();
            rows.security_groups.push(lab::group(*id, inbound));
        }
        let address = format!("10.0.{}.{}", 65 + number / 200, 10 + number % 200);
        let mut eni = lab::eni((EniId(1_000 + number), link), SubnetId(50), &address, ids[0]);
        eni.security_groups = ids;
        rows.enis.push(eni);
    }
}

fn expiry() {
    const COUNT: u32 = 1_000_000;
    let mut connections = Connections::open(COUNT, Cache::On);
    let (mut lane, Beside { tables, state, now, .. }) = connections.lane();
    println!(
        "delays/expiry/{COUNT}_flows_with_a_connection_and_a_lease_each/beside_batches_of_{BATCH}_of_{FLOWS}_flows"
    );
    // These go on; all others are silent for longer than the 350 s that they may be.
    let later = Time(now.0 + 300_000);
    for first in (0..FLOWS).step_by(BATCH) {
        let mut numbers = first..FLOWS;
        lane.forward_batch(tables, state, later, BATCH, || numbers.next().unwrap_or(first));
    }
    let after = Time(now.0 + 360_000);
    let mut random = Random(1);
    let batch = || {
        let left = lane.forward_batch(tables, state, after, BATCH, || random.below(FLOWS));
        assert_eq!(left, BATCH, "what goes on does not idle out");
    };
    let (line, delays) = beside(batch, || {
        let (mut ended, mut longest) = (0, std::time::Duration::ZERO);
        let (start, own) = (Instant::now(), own_time());
        // As housekeeping does, only without its pauses.
        for part in 0..state.parts() {
            let step = own_time();
            ended += black_box(state.expire(tables, part, after));
            longest = longest.max(own_time() - step);
        }
        format!(
            "  {ended} connections and leases ended in {} ms ({} ms of the thread's own time); the longest of {} steps took {} µs of it",
            start.elapsed().as_millis(),
            (own_time() - own).as_millis(),
            state.parts(),
            longest.as_micros()
        )
    });
    println!("{line}");
    print!("{delays}");
    assert_eq!(state.leases.len(), FLOWS as usize, "the others are gone");
}

fn main() {
    // Cargo passes `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let scenes: [(&str, fn()); 2] = [("install", install), ("expiry", expiry)];
    for (name, scene) in scenes {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            scene();
        }
    }
}
