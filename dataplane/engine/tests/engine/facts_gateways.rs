//! Facts about internet gateways, Elastic IPs and NAT gateways, one by one, on memory.

use std::collections::HashSet;

use localvpc_api::tables::{Action, PublicAddress, Route, RouteTarget, SourceDestCheck, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_api::{DiscardReason, InternetGatewayId};
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::state::Limits;
use localvpc_engine::testing::craft::{self, ping, tcp, tuple, udp};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};
use localvpc_engine::worker::Worker;
use localvpc_engine::{report, tables};

const SYN: u8 = TcpFacts::SYN;
const DNS: &str = "203.0.113.5:53";
const SERVER: &str = "203.0.113.5:443";

fn lab_net() -> Fabric {
    Fabric::new(lab::tables())
}

/// app asks a server on the internet, over UDP.
fn ask(net: &mut Fabric, port: u16) -> Outcome {
    net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), DNS, b"?"))
}

/// The server answers what it has received.
fn answer(net: &mut Fabric, asked: &Outcome) -> Outcome {
    let to = asked.tuple();
    net.send(INTERNET, udp(DNS, format!("{}:{}", to.source, to.source_port).as_str(), b"!"))
}

fn refused(change: impl FnOnce(&mut localvpc_api::Tables)) -> String {
    let net = lab_net();
    let mut rows = lab::tables();
    change(&mut rows);
    let invalid = tables::build(&rows, &net.state.metrics).map(drop).expect_err("these rows are wrong");
    format!("{invalid:?}")
}

#[test]
fn igw_1_a_vpc_has_one_internet_gateway() {
    let said = refused(|rows| {
        let mut second = rows.internet_gateways[0].clone();
        second.id = InternetGatewayId(2);
        rows.internet_gateways.push(second);
    });
    assert!(said.to_lowercase().contains("gateway"), "IGW-1: {said}");
}

#[test]
fn igw_2_all_four_are_needed_for_the_internet() {
    let send = |change: fn(&mut localvpc_api::Tables)| {
        let mut net = lab_net();
        net.push(change);
        net.send(WEB.1, udp("10.0.1.10:5000", DNS, b"")).verdict
    };
    assert_eq!(send(|_| {}), Ok(INTERNET), "IGW-2");
    assert_eq!(send(|rows| rows.route_tables[0].routes.truncate(1)), Err(DiscardReason::NoRoute));
    assert_eq!(
        send(|rows| {
            rows.public_addresses.remove(0);
        }),
        Err(DiscardReason::NoPublicAddress)
    );
    let no_rule = send(|rows| rows.security_groups[0].outbound.clear());
    assert_eq!(no_rule, Err(DiscardReason::SecurityGroupEmpty));
    assert_eq!(send(|rows| rows.network_acls[0].outbound.clear()), Err(DiscardReason::NetworkAcl));
}

#[test]
fn igw_5_eip_7_each_private_address_has_a_public_one_of_its_own() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.enis[0].addresses.push(ip("10.0.1.11"));
        rows.public_addresses.push(public("198.51.100.11", "10.0.1.11"));
    });
    for (private, public) in [("10.0.1.10", "198.51.100.10"), ("10.0.1.11", "198.51.100.11")] {
        let out = net.send(WEB.1, udp(format!("{private}:5000").as_str(), DNS, b""));
        assert_eq!(out.tuple().source, ip(public), "IGW-5, EIP-7");
        let ping = net.send(INTERNET, ping(Echo::Request, "203.0.113.5", public, 7, 1));
        assert_eq!((ping.verdict, ping.tuple().destination), (Ok(WEB.1), ip(private)));
    }
}

#[test]
fn igw_7_public_addresses_stand_for_addresses_of_the_vpc_only() {
    for private in ["192.168.0.9", "10.0.1.77"] {
        let said = refused(|rows| rows.public_addresses[0].private = ip(private));
        assert!(said.contains(private), "IGW-7: {said}");
    }
}

#[test]
fn igw_10_a_spoofed_source_does_not_get_out() {
    let mut net = lab_net();
    net.push(|rows| rows.enis[0].source_dest_check = SourceDestCheck::Disabled);
    for spoofed in ["198.51.100.10:5000", "192.0.2.77:5000", "10.0.1.99:5000"] {
        let out = net.send(WEB.1, udp(spoofed, DNS, b""));
        assert_eq!(out.verdict, Err(DiscardReason::NoPublicAddress), "IGW-10, RFC1812-MARTIAN: {spoofed}");
    }
}

#[test]
fn igw_13_the_gateway_keeps_no_state() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.security_groups[0].inbound =
            vec![rule(Traffic::Udp(localvpc_api::tables::PortRange::ALL), anyone())];
    });
    // In either order, without a packet the other way before, and days later.
    for _ in 0..2 {
        let inward = net.send(INTERNET, udp(DNS, "198.51.100.10:5000", b""));
        assert_eq!(inward.verdict, Ok(WEB.1), "IGW-13");
        let out = net.send(WEB.1, udp("10.0.1.10:6000", DNS, b""));
        assert_eq!(out.tuple().source_port, 6000);
        assert!(net.state.leases.is_empty());
        net.pass_ms(86_400_000);
    }
}

#[test]
fn igw_14_ord_7_an_instance_reaches_its_own_public_address_by_reflection() {
    let mut net = lab_net();
    let out = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "198.51.100.10:80"));
    assert_eq!(out.verdict, Ok(WEB.1), "ORD-7");
    assert_eq!(out.tuple(), tuple(Protocol::TCP, "198.51.100.10:40000", "10.0.1.10:80"), "IGW-14");
    net.push(|rows| rows.route_tables[0].routes.truncate(1));
    let routeless = net.send(WEB.1, tcp(SYN, "10.0.1.10:40001", "198.51.100.10:80"));
    assert_eq!(routeless.verdict, Err(DiscardReason::NoRoute), "IGW-14: through the gateway, or not at all");
}

#[test]
fn pkt_2_pkt_3_only_the_nat_gateway_is_a_hop() {
    let mut net = lab_net();
    let last_hop = |packet| craft::with_ttl(packet, 1);
    let web = net.send(WEB.1, last_hop(udp("10.0.1.10:5000", DNS, b"")));
    assert_eq!((web.verdict, web.bytes[8]), (Ok(INTERNET), 1), "PKT-2");
    let app = net.send(APP.1, craft::with_ttl(udp("10.0.2.20:5000", DNS, b""), 2));
    assert_eq!((app.verdict, app.bytes[8]), (Ok(INTERNET), 1), "PKT-3, RFC1812-TTL");
    let back = net.send(
        INTERNET,
        last_hop(udp(DNS, format!("198.51.100.20:{}", app.tuple().source_port).as_str(), b"")),
    );
    assert_eq!(back.verdict, Err(DiscardReason::TtlExceeded), "on the way back too");
}

#[test]
fn natgw_4_a_private_nat_gateway_does_not_reach_the_internet() {
    let mut net = lab_net();
    net.push(|rows| rows.public_addresses.truncate(1));
    assert_eq!(ask(&mut net, 5000).verdict, Err(DiscardReason::NoPublicAddress), "NATGW-4");
    assert!(net.state.leases.is_empty(), "the port is free again");
}

#[test]
fn natgw_6_natgw_7_up_to_eight_addresses_all_of_them_used() {
    let with = |count: u8| {
        move |rows: &mut localvpc_api::Tables| {
            let address = |n: u8| ip(&format!("10.0.1.{}", 100 + n));
            rows.nat_gateways[0].addresses = (0..count).map(address).collect();
            rows.public_addresses.truncate(1);
            rows.public_addresses.extend((0..count).map(|n| PublicAddress {
                internet_gateway: IGW,
                public: ip(&format!("198.51.100.{}", 20 + n)),
                private: address(n),
            }));
            // Many instances behind one interface.
            rows.enis[1].addresses = (20..=119).map(|n| ip(&format!("10.0.2.{n}"))).collect();
            rows.enis.pop();
            rows.links.retain(|link| link.id != DB.1);
        }
    };
    assert!(!refused(with(9)).is_empty(), "NATGW-6, NATGW-7: at most eight");
    let mut net = lab_net();
    net.push(with(8));
    let mut seen = HashSet::new();
    for host in 20..=119 {
        let sources: HashSet<_> = (0..4)
            .map(|n| {
                net.send(APP.1, udp(format!("10.0.2.{host}:{}", 5000 + n).as_str(), DNS, b"")).tuple().source
            })
            .collect();
        assert_eq!(sources.len(), 1, "RFC4787-2: one instance, one address");
        seen.extend(sources);
    }
    assert_eq!(seen.len(), 8);
}

/// app opens a connection to the server and closes it; which address and port the server saw.
fn open_and_close(net: &mut Fabric, client: &str) -> String {
    let segment = |flags: u8, sequence, acknowledgement| TcpFacts {
        flags,
        sequence,
        acknowledgement,
        window: 64_240,
        payload: 0,
    };
    let (ack, fin) = (TcpFacts::ACK, TcpFacts::FIN | TcpFacts::ACK);
    let syn = net.send(APP.1, craft::tcp_segment(segment(SYN, 100, 0), client, SERVER)).tuple();
    let mapped = format!("{}:{}", syn.source, syn.source_port);
    for (from_inside, flags, sequence, acknowledgement) in [
        (false, SYN | ack, 500, 101),
        (true, ack, 101, 501),
        (true, fin, 101, 501),
        (false, fin, 501, 102),
        (true, ack, 102, 502),
    ] {
        let facts = segment(flags, sequence, acknowledgement);
        let verdict = match from_inside {
            true => net.send(APP.1, craft::tcp_segment(facts, client, SERVER)).verdict,
            false => net.send(INTERNET, craft::tcp_segment(facts, SERVER, mapped.as_str())).verdict,
        };
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    mapped
}

#[test]
fn natgw_14_a_connection_on_a_closed_tuple_keeps_its_port_and_nobody_else_gets_it() {
    let shortcut = || Worker::new(0, 1);
    for workers in [vec![shortcut()], vec![Worker::with_cache(0, 1, 0)], vec![shortcut(), Worker::new(1, 2)]]
    {
        let mut net =
            Fabric::with_workers(lab::tables(), workers, Limits { connections: 1 << 17, leases: 1 << 17 });
        let mapped = open_and_close(&mut net, "10.0.2.20:1");
        // All other ports, so that whatever is free is found.
        for port in 2..=55_000_u16 {
            let syn = net.send(APP.1, tcp(SYN, format!("10.0.2.20:{port}").as_str(), SERVER));
            assert!(syn.verdict.is_ok(), "port {port}: {:?}", syn.verdict);
        }
        let other = |net: &mut Fabric| net.send(APP.1, tcp(SYN, "10.0.2.20:60000", SERVER)).verdict;
        for _ in 0..3 {
            assert_eq!(other(&mut net), Err(DiscardReason::NatPortsExhausted));
            net.pass_ms(30_000);
            assert_eq!(open_and_close(&mut net, "10.0.2.20:1"), mapped);
        }
        let attempts = report::nat_gateways(&net.tables, &net.state, net.now)[0].connection_attempts;
        assert_eq!(attempts, 55_000 + 3, "NATGW-48: each is a connection of its own");
        net.pass_ms(59_000);
        assert_eq!(
            other(&mut net),
            Err(DiscardReason::NatPortsExhausted),
            "its minute begins with the last one's end"
        );
        net.pass_ms(1_000);
        assert!(other(&mut net).is_ok());
    }
}

#[test]
fn natgw_14_natgw_25_a_closed_connection_rests_and_does_not_count_as_idle() {
    let mut net = lab_net();
    open_and_close(&mut net, "10.0.2.20:51000");
    net.pass_ms(59_000);
    assert_eq!(net.state.leases.len(), 1, "NATGW-14, RFC6888-8: the port is not free at once");
    net.pass_ms(350_000);
    assert!(net.state.leases.is_empty());
    let counters = &report::nat_gateways(&net.tables, &net.state, net.now)[0];
    assert_eq!(counters.idle_timeouts, 0, "NATGW-25: it was closed");
}

#[test]
fn natgw_16_a_source_keeps_to_one_address() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.nat_gateways[0].addresses.push(ip("10.0.1.101"));
        rows.public_addresses.push(public("198.51.100.21", "10.0.1.101"));
        rows.internet_hosts.push(ip("203.0.113.6"));
    });
    let mut seen = HashSet::new();
    for port in 5000..5050 {
        for destination in ["203.0.113.5:53", "203.0.113.6:53", "203.0.113.6:54"] {
            let out = net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), destination, b""));
            seen.insert(out.tuple().source);
        }
    }
    assert_eq!(seen.len(), 1, "NATGW-16, RFC4787-2, RFC6888-2: {seen:?}");
}

#[test]
fn natgw_17_the_port_is_random_and_not_the_instances() {
    let mut net = lab_net();
    let ports: Vec<u16> = (2000..2064).map(|port| ask(&mut net, port).tuple().source_port).collect();
    let kept = ports.iter().zip(2000..).filter(|(leased, port)| **leased == *port).count();
    assert!(kept <= 1, "NATGW-17: not preserved");
    let neighbours = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 2).count();
    assert!(neighbours <= 2, "RFC6056-1, RFC6888-15: the next one cannot be told from the last");
    assert!(ports.iter().all(|port| *port >= 1024));
}

#[test]
fn natgw_23_udp_and_pings_are_held_as_long_as_tcp() {
    let mut net = lab_net();
    let asked = ask(&mut net, 5000);
    let pinged = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "203.0.113.5", 77, 1));
    net.pass_ms(349_999);
    assert_eq!(net.state.leases.len(), 2, "NATGW-23, RFC4787-5, RFC5508-2");
    net.pass_ms(1);
    assert!(net.state.leases.is_empty());
    assert_eq!(answer(&mut net, &asked).verdict, Err(DiscardReason::NatNoConnection));
    let reply = ping(Echo::Reply, "203.0.113.5", "198.51.100.20", pinged.tuple().source_port, 1);
    assert_eq!(net.send(INTERNET, reply).verdict, Err(DiscardReason::NatNoConnection));
}

#[test]
fn natgw_26_what_is_sent_in_time_keeps_a_connection() {
    let mut net = lab_net();
    let asked = ask(&mut net, 5000);
    for _ in 0..5 {
        net.pass_ms(349_000);
        assert_eq!(ask(&mut net, 5000).tuple(), asked.tuple(), "NATGW-26, RFC4787-6: from inside");
    }
    // The group's own timer for UDP is shorter; here the lease is asked about.
    net.push(|rows| rows.security_groups[1].inbound.push(rule(Traffic::All, anyone())));
    for _ in 0..5 {
        net.pass_ms(349_000);
        assert_eq!(answer(&mut net, &asked).verdict, Ok(APP.1), "RFC4787-6a: from outside, too");
    }
    assert_eq!(net.state.leases.len(), 1);
    assert_eq!(report::nat_gateways(&net.tables, &net.state, net.now)[0].idle_timeouts, 0);
}

#[test]
fn natgw_30_natgw_34_hit_miss_from_inside_miss_from_outside() {
    let mut net = lab_net();
    let unasked = net.send(INTERNET, udp(DNS, "198.51.100.20:5000", b""));
    assert_eq!(unasked.verdict, Err(DiscardReason::NatNoConnection), "NATGW-34");
    assert!(net.state.leases.is_empty(), "NATGW-30: what comes from outside allocates nothing");
    let first = ask(&mut net, 5000);
    assert_eq!(net.state.leases.len(), 1);
    assert_eq!(answer(&mut net, &first).tuple(), tuple(Protocol::UDP, DNS, "10.0.2.20:5000"));
    assert_eq!(ask(&mut net, 5000).tuple(), first.tuple());
    assert_eq!(net.state.leases.len(), 1, "a hit allocates nothing");
}

#[test]
fn natgw_32_only_addresses_of_its_vpc_are_served() {
    let mut net = lab_net();
    // An instance that forwards for another network, as a VPN would.
    net.push(|rows| rows.enis[1].source_dest_check = SourceDestCheck::Disabled);
    let foreign = net.send(APP.1, udp("192.168.7.7:5000", DNS, b""));
    assert_eq!(foreign.verdict, Err(DiscardReason::NatForeignSource), "NATGW-32");
}

#[test]
fn natgw_35_the_way_back_needs_no_route_of_the_instances_subnet() {
    let mut net = lab_net();
    let asked = ask(&mut net, 5000);
    net.push(|rows| rows.route_tables[1].routes.clear());
    assert_eq!(answer(&mut net, &asked).verdict, Ok(APP.1), "NATGW-35");
    // The NAT gateway's own subnet is asked: without its local route nothing comes back.
    net.push(|rows| {
        rows.route_tables[0].routes.remove(0);
    });
    assert!(answer(&mut net, &asked).verdict.is_err());
}

#[test]
fn natgw_36_it_can_be_the_target_of_a_route_inside_the_vpc() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.route_tables[1].routes.push(Route {
            destination: "10.0.1.0/24".parse().unwrap(),
            target: RouteTarget::NatGateway(NAT),
        });
    });
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.1.10:80"));
    assert_eq!(
        (out.verdict, out.tuple().source),
        (Ok(WEB.1), ip("10.0.1.100")),
        "NATGW-36, NATGW-3: its private address"
    );
    let to = format!("10.0.1.100:{}", out.tuple().source_port);
    let back = net.send(WEB.1, tcp(SYN | TcpFacts::ACK, "10.0.1.10:80", to.as_str()));
    assert_eq!(back.verdict, Ok(APP.1));
}

#[test]
fn natgw_47_another_elastic_ip_ends_what_used_the_old_one() {
    let mut net = lab_net();
    let asked = ask(&mut net, 5000);
    net.push(|rows| rows.public_addresses[1].public = ip("198.51.100.30"));
    assert_eq!(answer(&mut net, &asked).verdict, Err(DiscardReason::NoPublicAssociation), "NATGW-47");
    assert_eq!(ask(&mut net, 5000).tuple().source, ip("198.51.100.30"), "the far end sees a stranger");
}

#[test]
fn nati_2_a_nat_instance_is_behind_its_security_groups() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.route_tables[1].routes[1].target = RouteTarget::NetworkInterface(WEB.0);
        rows.enis[0].source_dest_check = SourceDestCheck::Disabled;
    });
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "203.0.113.5:443"));
    assert_eq!(out.verdict, Err(DiscardReason::SecurityGroup), "NATI-2: its group admits 80 only");
    let web = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "203.0.113.5:80"));
    assert_eq!(web.verdict, Ok(WEB.1));
    // And it can be reached from outside, which a NAT gateway cannot.
    let bastion = net.send(INTERNET, tcp(SYN, "203.0.113.5:40000", "198.51.100.10:80"));
    assert_eq!(bastion.verdict, Ok(WEB.1));
}

#[test]
fn nacl_13_the_ranges_of_ephemeral_ports() {
    let mut net = lab_net();
    net.push(|rows| {
        let ports = localvpc_api::tables::PortRange { from: 32768, to: 60999 };
        rows.network_acls[0].outbound = vec![entry(100, Action::Allow, Traffic::Tcp(ports), "0.0.0.0/0")];
    });
    for (port, reaches) in [(32767, false), (32768, true), (60999, true), (61000, false)] {
        let end = format!("203.0.113.5:{port}");
        net.send(INTERNET, tcp(SYN, end.as_str(), "198.51.100.10:80"));
        let reply = net.send(WEB.1, tcp(SYN | TcpFacts::ACK, "10.0.1.10:80", end.as_str()));
        assert_eq!(reply.verdict.is_ok(), reaches, "NACL-13: {port}");
    }
}
