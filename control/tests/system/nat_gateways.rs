//! NAT gateways: idle connections, routes that move between two, the end of one, and what they count.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};

use localvpc::view::NatGatewayMetrics;
use localvpc_api::steering;

use crate::harness::{Lab, Transport, behind_a_nat_gateway, echoes, edit, wait};

/// app leaves by nat; nat-b stands beside it.
const TWO: &str = behind_a_nat_gateway!(
    "      nat-b: { subnet: public, eip: [203.0.113.21, 203.0.113.22] }
    instances:
      app: { subnet: private, ip: 10.0.2.20 }
internet:
  hosts:
    example: { ip: 198.51.100.10, run: [localvpc serve 80, localvpc serve 7 --echo] }
"
);

fn by_nat_b() -> String {
    edit(TWO, "via: nat }", "via: nat-b }")
}

/// Requires that the next line is answered with a reset.
#[track_caller]
fn is_reset(stream: &mut TcpStream) {
    let outcome = stream
        .set_read_timeout(Some(wait::PATIENCE))
        .and_then(|()| stream.write_all(b"line\n"))
        .and_then(|()| stream.read(&mut [0; 5]));
    match outcome {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection should be reset: {other:?}"),
    }
}

#[track_caller]
fn metrics(lab: &Lab, name: &str) -> NatGatewayMetrics {
    let all: Vec<NatGatewayMetrics> = lab.json(&["nat", name, "--metrics"]);
    all.into_iter().next().expect("a NAT gateway of the lab")
}

#[test]
fn natgw_22_a_connection_that_idles_too_long_is_reset_on_the_next_write() {
    let Some(lab) = Lab::new() else { return };
    let short = edit(TWO, "eip: 203.0.113.20 }", "eip: 203.0.113.20, idle_timeout: 2s }");
    let up = lab.apply(&short).ok();
    assert!(up.stderr.contains("`idle_timeout` is 2 s; AWS always uses 350 s"), "{up}");
    lab.wait_for_servers();
    let mut connection = lab.connect("app", "198.51.100.10:7");
    echoes(&mut connection);
    assert_eq!(metrics(&lab, "nat").connection_established_count, 1);
    wait::until("the connection to idle out", || lab.leases().is_empty().then_some(()));
    lab.discards("NGW_NO_CONNECTION", || is_reset(&mut connection));
    wait::until("the idle timeout to be counted", || {
        (metrics(&lab, "nat").idle_timeout_count == 1).then_some(())
    });
    // A new one works at once.
    echoes(&mut lab.connect("app", "198.51.100.10:7"));
}

/// The port of each lease sends replies to the queue, and so to the worker, that the connection's own packets come by.
#[test]
fn both_directions_of_a_translated_connection_come_to_one_worker() {
    let Some(lab) = Lab::up(TWO) else { return };
    let mut connections: Vec<_> = (0..16).map(|_| lab.connect("app", "198.51.100.10:7")).collect();
    connections.iter_mut().for_each(echoes);
    let queue = |port| steering::queue(port, 7, lab.counters().workers.len() as u32);
    let leases = lab.leases();
    assert_eq!(leases.len(), connections.len());
    for lease in leases {
        let inside = lease.row.inside.source_port;
        assert_eq!(queue(lease.row.port), queue(inside), "{} for {inside}", lease.row.port);
    }
}

#[test]
fn a_route_moves_between_nat_gateways_under_load() {
    let Some(lab) = Lab::up(TWO) else { return };
    // What is on its way while the route moves may be reset: those are left out.
    let script = "while [ ! -e stop ]; do curl -sS --max-time 5 http://198.51.100.10/ >> seen 2>&1; done";
    let mut load = lab.command(&["exec", "app", "--", "sh", "-c"]);
    load.arg(script);
    let load = crate::harness::Running::start(&mut load);
    let lines = || std::fs::read_to_string(lab.run_dir().join("seen")).unwrap_or_default();
    let count =
        |eip: &str| lines().lines().filter(|line| line.starts_with(&format!("you are {eip}:"))).count();
    let by_b = || count("203.0.113.21") + count("203.0.113.22");
    wait::until("the load to go by nat", || (count("203.0.113.20") > 0).then_some(()));

    let mut silent = lab.connect("app", "198.51.100.10:7");
    let mut talking = lab.connect("app", "198.51.100.10:7");
    for connection in [&mut silent, &mut talking] {
        echoes(connection);
    }
    lab.apply(&by_nat_b()).ok();
    is_reset(&mut talking);
    let seen = lab.curl("app", "http://198.51.100.10/");
    assert!(seen.starts_with("you are 203.0.113.21:") || seen.starts_with("you are 203.0.113.22:"), "{seen}");
    let held: Vec<_> = lab.leases().into_iter().filter(|lease| lease.name == "nat").collect();
    assert!(!held.is_empty(), "the old leases are held until they idle out");
    wait::until("the load to go by nat-b", || (by_b() > 0).then_some(()));

    // Back within the idle time: the connection that was silent meanwhile goes on with its lease.
    lab.apply(TWO).ok();
    echoes(&mut silent);
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"));

    std::fs::write(lab.run_dir().join("stop"), "").expect("a file can be written");
    load.end().ok();
    let lines = lines();
    let lost = lines.lines().filter(|line| line.starts_with("curl:")).count();
    assert!(lost <= 2, "at most what was on its way at a move: {lines}");
}

#[test]
fn rt_17_rt_19_a_deleted_nat_gateway_leaves_a_blackhole() {
    let Some(lab) = Lab::up(TWO) else { return };
    lab.curl("app", "http://198.51.100.10/");
    let deleted = edit(TWO, "nat: { subnet: public,", "nat: { state: deleted, subnet: public,");
    let up = lab.apply(&deleted).ok();
    assert!(up.stdout.contains("~ NAT gateway nat"), "{up}");
    assert!(up.stderr.contains("leads to NAT gateway `nat`, which is deleted: it is a blackhole"), "{up}");
    lab.curl_is_cut("app", "http://198.51.100.10/", "BAD_STATE_ROUTE");
    let explained = lab.explain("app example tcp/80", 1);
    assert_eq!(explained["code"], "BAD_STATE_ROUTE", "{explained}");
    wait::until("its leases to end", || lab.leases().is_empty().then_some(()));

    lab.apply(&edit(&deleted, "via: nat }", "via: nat-b }")).ok();
    lab.curl("app", "http://198.51.100.10/");
    lab.apply(TWO).ok();
    assert!(lab.curl("app", "http://198.51.100.10/").starts_with("you are 203.0.113.20:"), "made anew");
}

#[test]
fn natgw_4_the_internet_gateway_drops_what_a_private_nat_gateway_sends() {
    let private = edit(
        TWO,
        "nat: { subnet: public, ip: 10.0.1.100, eip: 203.0.113.20 }",
        "nat: { subnet: public, connectivity: private, ip: [10.0.1.100, 10.0.1.101] }",
    );
    let Some(lab) = Lab::up(&private) else { return };
    lab.curl_is_cut("app", "http://198.51.100.10/", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS");
    assert!(lab.leases().is_empty());
    let explained = lab.explain("app example tcp/80", 1);
    let advice = explained["advice"].as_str().unwrap_or_default();
    assert!(advice.contains("NAT gateway nat is private"), "{explained}");
}

#[test]
fn natgw_48_natgw_49_metrics_of_real_connections() {
    let Some(lab) = Lab::up(TWO) else { return };
    for _ in 0..3 {
        lab.curl("app", "http://198.51.100.10/");
    }
    lab.ping_is_cut("internet", "203.0.113.20", "NGW_NO_CONNECTION");
    let now = metrics(&lab, "nat");
    assert_eq!((now.connection_attempt_count, now.connection_established_count), (3, 3), "{now:?}");
    assert_eq!(now.bytes_in_from_source, now.bytes_out_to_destination, "{now:?}");
    assert_eq!(
        now.packets_in_from_destination,
        now.packets_out_to_source + now.packets_drop_count,
        "{now:?}"
    );
    assert!(now.packets_drop_count >= 2, "the pings: {now:?}");
    assert!(now.peak_bytes_per_second > 0, "{now:?}");
    assert_eq!(metrics(&lab, "nat-b").connection_attempt_count, 0);
}

#[test]
fn load_natgw_22_iperf3_is_reset_when_its_route_moves_and_a_new_one_takes_the_new_gateway() {
    let Some(lab) = Lab::up(TWO) else { return };
    // The server never hears of the reset: the second client has a server of its own.
    let _servers = [5201, 5202].map(|port| {
        let server = lab.spawn("internet", &format!("iperf3 -s -p {port}"));
        lab.wait_for_port("internet", Transport::Tcp, port);
        server
    });
    let iperf3 = |arguments: &str| lab.spawn("app", &format!("iperf3 -c 198.51.100.10 {arguments}"));
    let carried = |gateway: &str| -> u64 {
        let leases = lab.leases();
        leases.iter().filter(|it| it.name == gateway).map(|it| it.row.out.bytes).sum()
    };
    let first = iperf3("-t 60");
    wait::until("iperf3 to send", || (carried("nat") > 1_000_000).then_some(()));
    lab.apply(&by_nat_b()).ok();
    let reset = first.end().exits(1);
    assert!(reset.stderr.contains("Connection reset by peer"), "{reset}");
    assert_eq!(carried("nat-b"), 0, "what was refused left no lease");

    iperf3("-p 5202 -t 1").end().ok();
    assert!(carried("nat-b") > 1_000_000, "{:?}", lab.leases());
    let by_b = metrics(&lab, "nat-b");
    // Control and data.
    assert_eq!((by_b.connection_attempt_count, by_b.connection_established_count), (2, 2), "{by_b:?}");
    assert!(by_b.packets_drop_count > 0, "the segments that were reset: {by_b:?}");
}

#[test]
fn natgw_6_natgw_16_natgw_47_a_source_keeps_to_one_address_until_it_is_taken_away() {
    let Some(lab) = Lab::up(&by_nat_b()) else { return };
    let seen = |lab: &Lab| {
        let body = lab.curl("app", "http://198.51.100.10/");
        body.trim().rsplit_once(':').map(|(address, _)| address.to_owned()).expect("an address and a port")
    };
    let own = seen(&lab);
    for _ in 0..5 {
        assert_eq!(seen(&lab), own);
    }
    let mut connection = lab.connect("app", "198.51.100.10:7");
    echoes(&mut connection);
    let other = if own.ends_with("203.0.113.21") { "203.0.113.22" } else { "203.0.113.21" };
    lab.apply(&edit(&by_nat_b(), "eip: [203.0.113.21, 203.0.113.22]", &format!("eip: [{other}]"))).ok();
    is_reset(&mut connection);
    assert_eq!(seen(&lab), format!("you are {other}"));
}

/// A private NAT gateway between app's subnet and the one of a service.
const PRIVATE: &str = "
lab: private-nat
vpcs:
  main:
    cidr: 10.0.0.0/16
    subnets:
      private: { cidr: 10.0.2.0/24, route_table: steered }
      middle: { cidr: 10.0.3.0/24 }
      services: { cidr: 10.0.4.0/24 }
    route_tables:
      steered: [ { to: 10.0.4.0/24, via: nat } ]
    nat_gateways:
      nat: { subnet: middle, connectivity: private, ip: 10.0.3.100 }
    security_groups:
      service: { inbound: [ { all: true, from: 10.0.3.100/32 } ] }
    instances:
      app: { subnet: private, ip: 10.0.2.20 }
      service: { subnet: services, ip: 10.0.4.10, security_groups: service, run: localvpc serve 80 }
";

#[test]
fn natgw_1_natgw_36_a_private_nat_gateway_stands_between_subnets() {
    let Some(lab) = Lab::up(PRIVATE) else { return };
    assert!(lab.curl("app", "http://10.0.4.10/").starts_with("you are 10.0.3.100:"));
    let hops = lab.exec("app", "traceroute -n -q 1 -m 3 -w 5 -T -p 80 10.0.4.10").ok().stdout;
    let hops: Vec<&str> = hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["10.0.3.100", "10.0.4.10"]);
    lab.exec("app", "ping -n -M do -s 8473 -c 1 -W 10 10.0.4.10").exits(1);
    lab.exec("app", "ping -n -M do -s 8472 -c 1 -W 10 10.0.4.10").ok();
    // It lets nothing in that app has not asked for.
    lab.connect_is_cut("service", "10.0.3.100:80", "NGW_NO_CONNECTION");
}

#[test]
fn natgw_27_natgw_48_metrics_are_what_was_sent() {
    let Some(lab) = Lab::up(TWO) else { return };
    let bind = |who: &str, address: &str| {
        let socket = lab.inside(who, || UdpSocket::bind(address)).expect("an address of the namespace");
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a time");
        socket
    };
    let (app, server) = (bind("app", "10.0.2.20:0"), bind("internet", "198.51.100.10:9000"));
    let stranger = bind("internet", "198.51.100.10:9001");
    let mut buffer = [0; 2_000];
    for _ in 0..20 {
        app.send_to(&[0; 1_000], "198.51.100.10:9000").expect("it can be sent");
        let (_, from) = server.recv_from(&mut buffer).expect("it arrives");
        server.send_to(&[0; 500], from).expect("it can be answered");
        app.recv(&mut buffer).expect("the answer arrives");
        stranger.send_to(&[0; 100], from).expect("it can be sent");
    }
    wait::until("the last to be discarded", || (lab.discarded("NGW_NO_CONNECTION") == 20).then_some(()));
    let known = metrics(&lab, "nat");
    // 28 bytes of headers each.
    let expected = NatGatewayMetrics {
        name: "nat".to_owned(),
        active_connection_count: 0,
        bytes_in_from_source: 20 * 1_028,
        bytes_out_to_destination: 20 * 1_028,
        packets_in_from_source: 20,
        packets_out_to_destination: 20,
        bytes_in_from_destination: 20 * (528 + 128),
        bytes_out_to_source: 20 * 528,
        packets_in_from_destination: 40,
        packets_out_to_source: 20,
        packets_drop_count: 20,
        connection_attempt_count: 0,
        connection_established_count: 0,
        error_port_allocation: 0,
        idle_timeout_count: 0,
        // By the clock.
        peak_bytes_per_second: known.peak_bytes_per_second,
        peak_packets_per_second: known.peak_packets_per_second,
    };
    assert_eq!(known, expected);

    // 1480 bytes of data fit a packet of 1500, so these are seven: dropped, and counted as such.
    lab.exec("app", "ip link set eth0 mtu 1500").ok();
    lab.ping_is_cut("app", "-M dont -s 10000 198.51.100.10", "NGW_FRAGMENT");
    wait::until("the last fragment to be dropped", || {
        (metrics(&lab, "nat").packets_drop_count >= known.packets_drop_count + 2 * 7).then_some(())
    });
    let more = metrics(&lab, "nat");
    assert_eq!(more.packets_drop_count, known.packets_drop_count + 2 * 7, "{more:?}");
    assert_eq!(more.packets_out_to_destination, known.packets_out_to_destination);
    assert_eq!(more.bytes_in_from_source - known.bytes_in_from_source, 2 * (10_008 + 7 * 20));
}
