//! The worked packet walks of aws-vpc.md §33, packet by packet on memory, with two workers that take turns.

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Action, RouteTarget, Traffic};
use localvpc_api::trace::{Decision, Direction, Protocol, TraceOutcome};
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::testing::craft::{self, ping, tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const CLIENT: &str = "203.0.113.5:40000";
const SERVER: &str = "203.0.113.5:443";

#[test]
fn walk_1_internet_to_web_and_back() {
    let mut net = Fabric::new(lab::tables());
    for (flags, back) in [(SYN, SYN_ACK), (ACK, ACK), (ACK | TcpFacts::PSH, ACK)] {
        let there = net.send(INTERNET, tcp(flags, CLIENT, "198.51.100.10:80"));
        assert_eq!(there.verdict, Ok(WEB.1));
        assert_eq!(
            there.tuple(),
            tuple(Protocol::TCP, CLIENT, "10.0.1.10:80"),
            "IGW-3: only the destination"
        );
        let back = net.send(WEB.1, tcp(back, "10.0.1.10:80", CLIENT));
        assert_eq!(back.verdict, Ok(INTERNET));
        assert_eq!(back.tuple(), tuple(Protocol::TCP, "198.51.100.10:80", CLIENT));
    }
    assert_eq!(net.counted(WEB.0), (3, 3));
    assert!(net.state.connections.is_empty(), "SG-32, SG-36: port 80 from everywhere is not tracked");
}

#[test]
fn walk_2_app_to_internet_through_the_nat_gateway() {
    let mut net = Fabric::new(lab::tables());
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Ok(INTERNET));
    let leased = out.tuple();
    assert_eq!(leased.source, ip("198.51.100.20"), "the server sees the Elastic IP");
    assert_eq!((leased.destination, leased.destination_port), (ip("203.0.113.5"), 443), "NATGW-11");
    assert!(leased.source_port >= 1024, "NATGW-10");
    assert_eq!(out.bytes[8], craft::TTL - 1, "NATGW-20, PKT-1, PKT-2: one hop, the NAT gateway");

    let eip = format!("198.51.100.20:{}", leased.source_port);
    let back = net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    assert_eq!(back.verdict, Ok(APP.1));
    assert_eq!(back.tuple(), tuple(Protocol::TCP, SERVER, "10.0.2.20:51000"));
    for _ in 0..3 {
        assert_eq!(net.send(APP.1, tcp(ACK, "10.0.2.20:51000", SERVER)).tuple(), leased, "the lease stays");
        assert_eq!(net.send(INTERNET, tcp(ACK, SERVER, eip.as_str())).verdict, Ok(APP.1));
    }
    assert_eq!(net.state.connections.len(), 1, "SG-35: through a NAT gateway it is tracked");
    assert_eq!(net.state.leases.len(), 1);
}

#[test]
fn walk_2_stages_in_the_order_aws_applies_them() {
    let net = Fabric::new(lab::tables());
    let report = net.trace(APP.1, tuple(Protocol::TCP, "10.0.2.20:51000", SERVER));
    let names: Vec<_> = report.forward.steps.iter().map(|step| stage(&step.decision)).collect();
    assert_eq!(
        names,
        [
            "source check",
            "sg out",
            "acl out private",
            "route private",
            "acl in public",
            "nat out",
            "acl out public",
            "route public",
            "igw out",
            "internet"
        ],
        "ORD-1, ORD-8"
    );
    assert_eq!(report.forward.outcome, TraceOutcome::Delivered(INTERNET));
    let seen_by_acl = report.forward.steps[4].tuple;
    assert_eq!((seen_by_acl.source, seen_by_acl.destination_port), (ip("10.0.2.20"), 443), "ORD-8");
    let reply = report.reply.expect("delivered packets have a reply");
    let names: Vec<_> = reply.steps.iter().map(|step| stage(&step.decision)).collect();
    assert_eq!(
        names,
        ["igw in", "acl in public", "nat in", "acl out public", "route public", "acl in private", "sg in"]
    );
    assert_eq!(reply.outcome, TraceOutcome::Delivered(APP.1));
    assert!(net.state.leases.is_empty() && net.state.connections.is_empty(), "a trace changes nothing");
}

#[test]
fn walk_4_nothing_reaches_the_nat_gateway_or_app_from_outside() {
    let mut net = Fabric::new(lab::tables());
    let syn = net.send(INTERNET, tcp(SYN, CLIENT, "198.51.100.20:5000"));
    assert_eq!(syn.verdict, Err(DiscardReason::NatNoConnection), "NATGW-18");
    assert!(syn.answers.is_empty());
    let echo = net.send(INTERNET, ping(Echo::Request, "203.0.113.5", "198.51.100.20", 7, 1));
    assert_eq!(echo.verdict, Err(DiscardReason::NatNoConnection), "NATGW-19");
    let inside = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "10.0.1.100", 7, 1));
    assert_eq!(inside.verdict, Err(DiscardReason::NatNoConnection), "NATGW-19, from the VPC");
    let app = net.send(INTERNET, tcp(SYN, CLIENT, "10.0.2.20:22"));
    assert_eq!(app.verdict, Err(DiscardReason::NoPublicAssociation), "IGW-6");
}

#[test]
fn walk_5_a_public_subnet_is_not_enough() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.public_addresses.retain(|row| row.private != ip("10.0.1.10")));
    let out = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", SERVER));
    assert_eq!(out.verdict, Err(DiscardReason::NoPublicAddress), "IGW-9");
}

#[test]
fn walk_6_between_subnets_the_source_group_decides() {
    let mut net = Fabric::new(lab::tables());
    let refused = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.30:5432"));
    assert_eq!(refused.verdict, Err(DiscardReason::SecurityGroup), "SG-20: web does not carry app's group");
    net.push(|rows| rows.enis[0].security_groups.push(APP_GROUP));
    let admitted = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.30:5432"));
    assert_eq!(admitted.verdict, Ok(DB.1), "SG-22: membership is live");
    assert_eq!(admitted.bytes[8], craft::TTL, "PKT-1: the VPC router is no hop");
    assert_eq!(net.send(DB.1, tcp(SYN_ACK, "10.0.2.30:5432", "10.0.1.10:40000")).verdict, Ok(WEB.1));
}

#[test]
fn walk_7_one_subnet_sees_security_groups_only() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.network_acls[1].inbound.clear();
        rows.network_acls[1].outbound.clear();
        rows.route_tables[1].routes.clear();
    });
    let there = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5432"));
    assert_eq!(there.verdict, Ok(DB.1), "ORD-6, NACL-4");
    assert_eq!(net.send(DB.1, tcp(SYN_ACK, "10.0.2.30:5432", "10.0.2.20:40000")).verdict, Ok(APP.1));
}

#[test]
fn ord_8_the_first_acl_pair_is_skipped_when_sender_and_nat_gateway_share_a_subnet() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.nat_gateways[0].subnet = PRIVATE;
        rows.nat_gateways[0].addresses = vec![ip("10.0.2.100")];
        rows.public_addresses[1].private = ip("10.0.2.100");
        // The NAT gateway's own way out; app's table is that of the same subnet, so it goes to the gateway by address.
        rows.route_tables[1].routes[1].target = RouteTarget::InternetGateway(IGW);
        rows.route_tables[1].routes.push(localvpc_api::tables::Route {
            destination: net_of("203.0.113.0/24"),
            target: RouteTarget::NatGateway(NAT),
        });
        rows.internet_hosts.push(ip("192.0.2.9"));
    });
    let report = net.trace(APP.1, tuple(Protocol::TCP, "10.0.2.20:51000", SERVER));
    let names: Vec<_> = report.forward.steps.iter().map(|step| stage(&step.decision)).collect();
    assert_eq!(
        names[..4],
        ["source check", "sg out", "route private", "nat out"],
        "no network ACL on the way"
    );
}

#[test]
fn a_nat_gateway_routed_to_itself_is_a_loop_and_not_an_endless_one() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.route_tables[0].routes[1].target = RouteTarget::NatGateway(NAT));
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Err(DiscardReason::Loop));
    assert!(net.state.leases.is_empty(), "the port that was taken on the way is free again");
}

#[test]
fn natgw_31_the_acl_of_its_subnet_must_let_replies_in() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.network_acls[0].inbound = vec![entry(100, Action::Allow, lab::tcp(443), "10.0.0.0/16")];
    });
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Ok(INTERNET));
    let eip = format!("198.51.100.20:{}", out.tuple().source_port);
    let back = net.send(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
    assert_eq!(back.verdict, Err(DiscardReason::NetworkAcl), "NATGW-31: 1024–65535 must be open");
}

#[test]
fn natgw_9_other_protocols_are_discarded_and_udp_and_ping_translated() {
    let mut net = Fabric::new(lab::tables());
    let gre = net.send(APP.1, craft::other(Protocol(47), "10.0.2.20", "203.0.113.5", b"gre"));
    assert_eq!(gre.verdict, Err(DiscardReason::NatProtocol));

    let out = net.send(APP.1, udp("10.0.2.20:5353", "203.0.113.5:53", b"query"));
    let eip = format!("198.51.100.20:{}", out.tuple().source_port);
    let back = net.send(INTERNET, udp("203.0.113.5:53", eip.as_str(), b"answer"));
    assert_eq!(back.tuple(), tuple(Protocol::UDP, "203.0.113.5:53", "10.0.2.20:5353"));
    let stranger = net.send(INTERNET, udp("203.0.113.5:54", eip.as_str(), b"answer"));
    assert_eq!(stranger.verdict, Err(DiscardReason::NatNoConnection), "NATGW-13: per destination port");

    let out = net.send(APP.1, ping(Echo::Request, "10.0.2.20", "203.0.113.5", 77, 1));
    let identifier = out.tuple().source_port;
    let back = net.send(INTERNET, ping(Echo::Reply, "203.0.113.5", "198.51.100.20", identifier, 1));
    assert_eq!(back.verdict, Ok(APP.1), "NATGW-21");
    assert_eq!(back.tuple().source_port, 77);
}

#[test]
fn eni_4_a_spoofed_source_is_discarded_where_it_is_sent() {
    let mut net = Fabric::new(lab::tables());
    let spoofed = net.send(APP.1, tcp(SYN, "10.0.2.99:40000", "10.0.2.30:5432"));
    assert_eq!(spoofed.verdict, Err(DiscardReason::SourceDestCheck));
    assert_eq!(net.discarded(DiscardReason::SourceDestCheck), 1);
}

#[test]
fn igw_8_private_and_shared_addresses_do_not_pass_the_internet_gateway() {
    let mut net = Fabric::new(lab::tables());
    let mut to = |destination: &str| net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", destination)).verdict;
    assert_eq!(to("192.168.7.7:80"), Err(DiscardReason::PrivateDestination));
    assert_eq!(to("100.64.0.1:80"), Err(DiscardReason::SharedDestination));
    assert_eq!(to("100.128.0.1:80"), Err(DiscardReason::NoSuchHost), "just outside of RFC 6598");
    let from = net.send(INTERNET, tcp(SYN, "192.168.7.7:4000", "198.51.100.10:80"));
    assert_eq!(from.verdict, Err(DiscardReason::PrivateSource));
}

#[test]
fn igw_14_an_elastic_ip_of_the_same_vpc_is_reached_through_the_gateway() {
    let mut net = Fabric::new(lab::tables());
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", "198.51.100.10:80"));
    assert_eq!(out.verdict, Ok(WEB.1), "NATGW-38");
    assert_eq!(out.tuple().source, ip("198.51.100.20"), "web sees the NAT gateway's Elastic IP");
}

#[test]
fn rt_17_a_blackhole_discards_and_does_not_fall_through() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.route_tables[0].routes.push(localvpc_api::tables::Route {
            destination: net_of("203.0.113.0/24"),
            target: RouteTarget::Blackhole,
        });
    });
    let out = net.send(WEB.1, tcp(SYN, "10.0.1.10:40000", SERVER));
    assert_eq!(out.verdict, Err(DiscardReason::Blackhole));
}

#[test]
fn walk_12_a_nat_instance_needs_its_check_off() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        rows.route_tables[1].routes[1].target = RouteTarget::NetworkInterface(WEB.0);
        rows.security_groups[0].inbound.push(rule(Traffic::All, anyone()));
    });
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Err(DiscardReason::SourceDestCheck), "ENI-4");
    net.push(|rows| rows.enis[0].source_dest_check = localvpc_api::tables::SourceDestCheck::Disabled);
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:51000", SERVER));
    assert_eq!(out.verdict, Ok(WEB.1));
    assert_eq!(out.tuple(), tuple(Protocol::TCP, "10.0.2.20:51000", SERVER), "nothing is translated");
}

fn net_of(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

fn stage(decision: &Decision) -> String {
    let way = |direction: &Direction| match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    };
    let subnet = |subnet: &localvpc_api::SubnetId| if *subnet == PUBLIC { "public" } else { "private" };
    match decision {
        Decision::SourceDestCheck { .. } => "source check".into(),
        Decision::SecurityGroup { direction, .. } => format!("sg {}", way(direction)),
        Decision::Route { subnet: of, .. } => format!("route {}", subnet(of)),
        Decision::SameSubnet { subnet: of } => format!("same subnet {}", subnet(of)),
        Decision::NetworkAcl { subnet: of, direction, .. } => {
            format!("acl {} {}", way(direction), subnet(of))
        }
        Decision::NatGateway { direction, .. } => format!("nat {}", way(direction)),
        Decision::InternetGateway { direction, .. } => format!("igw {}", way(direction)),
        Decision::Internet { .. } => "internet".into(),
        Decision::End => "end".into(),
    }
}
