//! Facts about subnets, routes and the order of stages, one by one, on memory.

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Action, Route, RouteTarget, SourceDestCheck, Traffic};
use localvpc_api::trace::{Decision, Direction, Protocol, TraceOutcome, TraceWalk};
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::testing::craft::{ping, tcp, tuple, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;

fn lab_net() -> Fabric {
    Fabric::new(lab::tables())
}

fn route(destination: &str, target: RouteTarget) -> Route {
    Route { destination: net(destination), target }
}

/// Stage by stage: `acl out public` and the like.
fn stages(walk: &TraceWalk) -> Vec<String> {
    let subnet = |id| if id == PUBLIC { "public" } else { "private" };
    let way = |direction| if direction == Direction::Inbound { "in" } else { "out" };
    let name = |decision: &Decision| match *decision {
        Decision::SourceDestCheck { .. } => "check".to_owned(),
        Decision::SecurityGroup { direction, .. } => format!("sg {}", way(direction)),
        Decision::NetworkAcl { subnet: of, direction, .. } => {
            format!("acl {} {}", way(direction), subnet(of))
        }
        Decision::Route { subnet: of, .. } => format!("route {}", subnet(of)),
        Decision::SameSubnet { subnet: of } => format!("inside {}", subnet(of)),
        Decision::NatGateway { direction, .. } => format!("nat {}", way(direction)),
        Decision::InternetGateway { direction, .. } => format!("igw {}", way(direction)),
        Decision::Internet { .. } => "internet".to_owned(),
        Decision::End => "end".to_owned(),
    };
    walk.steps.iter().map(|step| name(&step.decision)).collect()
}

/// The public subnet is 11.0.1.0/24, of a second CIDR of the VPC.
#[test]
fn vpc_5_a_public_range_inside_a_vpc_is_as_private_as_any() {
    let mut net = lab_net();
    net.push(|rows| {
        rows.vpcs[0].cidrs.push("11.0.0.0/16".parse().unwrap());
        rows.subnets[0].cidr = "11.0.1.0/24".parse().unwrap();
        rows.enis[0].addresses = vec![ip("11.0.1.10")];
        rows.nat_gateways[0].addresses = vec![ip("11.0.1.100")];
        rows.public_addresses = vec![public("198.51.100.20", "11.0.1.100")];
        for table in &mut rows.route_tables {
            table.routes.push(route("11.0.0.0/16", RouteTarget::Local));
        }
    });
    let inside = net.send(WEB.1, udp("11.0.1.10:5000", "10.0.2.20:53", b""));
    assert_eq!(inside.verdict, Err(DiscardReason::SecurityGroupEmpty), "it came as far as app's group");
    let out = net.send(WEB.1, udp("11.0.1.10:5000", "203.0.113.5:53", b""));
    assert_eq!(out.verdict, Err(DiscardReason::NoPublicAddress), "VPC-5: not by itself on the internet");
    let from_outside = net.send(INTERNET, udp("203.0.113.5:53", "11.0.1.10:5000", b""));
    assert_eq!(from_outside.verdict, Err(DiscardReason::NoPublicAssociation));
}

#[test]
fn vpc_29_inside_a_subnet_no_route_is_asked() {
    let mut net = lab_net();
    net.push(|rows| rows.route_tables[1].routes = vec![route("10.0.0.0/16", RouteTarget::Blackhole)]);
    let neighbour = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5432"));
    assert_eq!(neighbour.verdict, Ok(DB.1), "VPC-29");
    let away = net.send(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.1.10:80"));
    assert_eq!(away.verdict, Err(DiscardReason::Blackhole));
}

#[test]
fn vpc_30_neither_broadcast_nor_multicast_is_carried() {
    let mut net = lab_net();
    for destination in ["255.255.255.255:67", "224.0.0.251:5353", "239.1.2.3:5000"] {
        let out = net.send(APP.1, udp("10.0.2.20:5000", destination, b""));
        assert_eq!(out.verdict, Err(DiscardReason::NotUnicast), "VPC-30: {destination}");
        assert!(out.answers.is_empty(), "RFC1812-NO-ERROR: silence about what is not unicast");
    }
    // RFC1812-BROADCAST: a subnet's last address is nobody's.
    let directed = net.send(WEB.1, udp("10.0.1.10:5000", "10.0.2.255:5000", b""));
    assert_eq!(directed.verdict, Err(DiscardReason::NoSuchAddress));
}

#[test]
fn vpc_31_no_route_however_wide_reaches_the_service_range() {
    let mut net = lab_net();
    for (link, source) in [(WEB.1, "10.0.1.10:5000"), (APP.1, "10.0.2.20:5000")] {
        let out = net.send(link, udp(source, "169.254.169.7:53", b""));
        assert!(out.verdict.is_err(), "VPC-31: {source} {:?}", out.verdict);
    }
}

#[test]
fn rt_9_rt_10_a_route_to_a_whole_subnet_beats_local() {
    let mut net = lab_net();
    net.push(|rows| {
        // Everything for db's subnet goes to app's neighbour web first: a firewall.
        rows.route_tables[0].routes.push(route("10.0.2.0/24", RouteTarget::NetworkInterface(WEB.0)));
        rows.enis[0].source_dest_check = SourceDestCheck::Disabled;
        let mut second = rows.enis[0].clone();
        second.id = localvpc_api::EniId(7);
        second.link = localvpc_api::LinkId(7);
        second.addresses = vec![ip("10.0.3.7")];
        second.subnet = localvpc_api::SubnetId(3);
        second.source_dest_check = SourceDestCheck::Enabled;
        rows.subnets.push(subnet(localvpc_api::SubnetId(3), "10.0.3.0/24", PUBLIC_ROUTES, PUBLIC_ACL));
        rows.links.push(link(second.link, localvpc_api::tables::LinkKind::Enis, 9001));
        rows.enis.push(second);
        rows.security_groups[0].inbound.push(rule(Traffic::All, anyone()));
    });
    let out = net.send(localvpc_api::LinkId(7), udp("10.0.3.7:5000", "10.0.2.30:53", b""));
    assert_eq!(out.verdict, Ok(WEB.1), "RT-10: longer than local");
    assert_eq!(out.tuple(), tuple(Protocol::UDP, "10.0.3.7:5000", "10.0.2.30:53"), "NATI-1: as it was sent");
    let beside = net.send(localvpc_api::LinkId(7), udp("10.0.3.7:5000", "10.0.1.100:53", b""));
    assert_eq!(beside.verdict, Err(DiscardReason::NatNoConnection), "the rest stays local");
}

#[test]
fn rt_14_every_kind_of_target() {
    let mut net = lab_net();
    let web = |net: &mut Fabric, to: &str| net.send(WEB.1, udp("10.0.1.10:5000", to, b"")).verdict;
    net.push(|rows| {
        rows.enis[1].source_dest_check = SourceDestCheck::Disabled;
        rows.security_groups[1].inbound.push(rule(Traffic::All, anyone()));
        rows.route_tables[0].routes.extend([
            route("192.0.2.0/24", RouteTarget::NetworkInterface(APP.0)),
            route("192.0.3.0/24", RouteTarget::Blackhole),
        ]);
    });
    assert_eq!(web(&mut net, "10.0.2.20:53"), Ok(APP.1), "RT-14: local");
    assert_eq!(web(&mut net, "203.0.113.5:53"), Ok(INTERNET), "an internet gateway");
    assert_eq!(web(&mut net, "192.0.2.1:53"), Ok(APP.1), "a network interface");
    assert_eq!(web(&mut net, "192.0.3.1:53"), Err(DiscardReason::Blackhole));
    let app = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    assert_eq!(app.tuple().source, ip("198.51.100.20"), "a NAT gateway");
}

#[test]
fn rt_25_an_appliance_is_given_other_subnets_traffic_only() {
    let mut net = lab_net();
    net.push(|rows| {
        // From app's subnet everything goes to web, which forwards.
        rows.route_tables[1].routes = vec![
            route("10.0.0.0/16", RouteTarget::Local),
            route("0.0.0.0/0", RouteTarget::NetworkInterface(WEB.0)),
        ];
        rows.enis[0].source_dest_check = SourceDestCheck::Disabled;
        rows.security_groups[0].inbound.push(rule(Traffic::All, anyone()));
    });
    let out = net.send(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b""));
    assert_eq!(out.verdict, Ok(WEB.1), "RT-25");
    assert_eq!(out.tuple().source, ip("10.0.2.20"), "no translation is needed");
    let neighbour = net.send(APP.1, tcp(SYN, "10.0.2.20:5000", "10.0.2.30:5432"));
    assert_eq!(neighbour.verdict, Ok(DB.1), "what stays in a subnet cannot be steered");
}

#[test]
fn rt_26_no_route_is_silence() {
    let mut net = lab_net();
    net.push(|rows| rows.route_tables[1].routes.truncate(1));
    let out = net.send(APP.1, tcp(SYN, "10.0.2.20:5000", "203.0.113.5:443"));
    assert_eq!(out.verdict, Err(DiscardReason::NoRoute));
    assert!(out.answers.is_empty(), "RT-26, RFC1812-UNREACHABLE: no unreachable");
    let nobody = net.send(APP.1, tcp(SYN, "10.0.2.20:5000", "10.0.1.77:443"));
    assert_eq!(nobody.verdict, Err(DiscardReason::NoSuchAddress));
    assert!(nobody.answers.is_empty());
}

#[test]
fn rt_7_rt_29_the_longest_prefix_of_the_worked_example() {
    let mut net = lab_net();
    net.push(|rows| {
        // A blackhole stands in for the example's peering connection.
        rows.route_tables[0].routes.insert(0, route("172.31.0.0/16", RouteTarget::Blackhole));
        rows.internet_hosts.push(ip("8.8.8.8"));
    });
    let mut to = |address: &str| net.send(WEB.1, udp("10.0.1.10:5000", address, b"")).verdict;
    assert_eq!(to("10.0.9.9:53"), Err(DiscardReason::NoSuchAddress), "RT-29: local");
    assert_eq!(to("172.31.1.1:53"), Err(DiscardReason::Blackhole), "RT-7, RFC1812-LPM");
    assert_eq!(to("8.8.8.8:53"), Ok(INTERNET));
}

#[test]
fn rt_32_what_arrives_needs_no_route_of_its_subnet() {
    let mut net = lab_net();
    net.push(|rows| rows.route_tables[0].routes.clear());
    let syn = net.send(INTERNET, tcp(SYN, "203.0.113.5:40000", "198.51.100.10:80"));
    assert_eq!(syn.verdict, Ok(WEB.1), "RT-32: delivered to the owner of the address");
    let reply = net.send(WEB.1, tcp(SYN | TcpFacts::ACK, "10.0.1.10:80", "203.0.113.5:40000"));
    assert_eq!(reply.verdict, Err(DiscardReason::NoRoute), "but the answer does");
}

#[test]
fn ord_2_ord_3_inside_the_gateway_rules_see_private_addresses() {
    let net = lab_net();
    let walk = net.trace(INTERNET, tuple(Protocol::TCP, "203.0.113.5:40000", "198.51.100.10:80"));
    assert_eq!(stages(&walk.forward), ["igw in", "acl in public", "sg in"], "ORD-2");
    for step in &walk.forward.steps[1..] {
        assert_eq!(step.tuple, tuple(Protocol::TCP, "203.0.113.5:40000", "10.0.1.10:80"), "ORD-3");
    }
    let reply = walk.reply.expect("it was delivered");
    for step in &reply.steps[..reply.steps.len() - 1] {
        assert_eq!(step.tuple.source, ip("10.0.1.10"), "ORD-3, on the way out: {step:?}");
    }
}

#[test]
fn ord_4_a_wrong_acl_and_a_wrong_route_cut_in_any_order() {
    let send = |acl_denies: bool, routeless: bool| {
        let mut net = lab_net();
        net.push(|rows| {
            if acl_denies {
                rows.network_acls[0].outbound = vec![entry(1, Action::Deny, Traffic::All, "0.0.0.0/0")];
            }
            if routeless {
                rows.route_tables[0].routes.truncate(1);
            }
        });
        net.send(WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", b""))
    };
    assert_eq!(send(false, false).verdict, Ok(INTERNET), "ORD-4");
    for (acl_denies, routeless) in [(true, false), (false, true), (true, true)] {
        let out = send(acl_denies, routeless);
        assert!(out.verdict.is_err() && out.answers.is_empty(), "{acl_denies} {routeless}: {out:?}");
    }
}

#[test]
fn ord_5_between_two_subnets_there_and_back() {
    let mut net = lab_net();
    net.push(|rows| rows.enis[0].security_groups.push(APP_GROUP));
    let walk = net.trace(WEB.1, tuple(Protocol::TCP, "10.0.1.10:40000", "10.0.2.30:5432"));
    let there = ["check", "sg out", "acl out public", "route public", "acl in private", "sg in"];
    assert_eq!(stages(&walk.forward), there, "ORD-5");
    let reply = walk.reply.expect("it was delivered");
    let back = ["check", "sg out", "acl out private", "route private", "acl in public", "sg in"];
    assert_eq!(stages(&reply), back, "the mirror, network ACLs again");
    assert_eq!(reply.outcome, TraceOutcome::Delivered(WEB.1));
}

#[test]
fn ord_9_each_exit_of_a_subnet_is_looked_up_once() {
    let net = lab_net();
    let walk = net.trace(APP.1, tuple(Protocol::TCP, "10.0.2.20:51000", "203.0.113.5:443"));
    let routes =
        |walk: &TraceWalk| stages(walk).into_iter().filter(|it| it.starts_with("route")).collect::<Vec<_>>();
    assert_eq!(routes(&walk.forward), ["route private", "route public"], "ORD-9");
    let reply = walk.reply.expect("it was delivered");
    assert_eq!(routes(&reply), ["route public"], "on the way back the NAT gateway's local route");
}

#[test]
fn pkt_6_the_router_answers_no_ping() {
    let mut net = lab_net();
    for (link, source, router) in [(APP.1, "10.0.2.20", "10.0.2.1"), (WEB.1, "10.0.1.10", "10.0.2.1")] {
        let out = net.send(link, ping(Echo::Request, source, router, 7, 1));
        assert_eq!(out.verdict, Err(DiscardReason::NoSuchAddress), "PKT-6");
        assert!(out.answers.is_empty());
    }
}

#[test]
fn pkt_8_a_packet_reaches_the_owner_of_its_address_and_nobody_else() {
    let mut net = lab_net();
    net.push(|rows| {
        for group in &mut rows.security_groups {
            group.inbound.push(rule(Traffic::All, anyone()));
        }
    });
    for (address, owner) in [("10.0.2.20", APP), ("10.0.2.30", DB)] {
        let before = [APP, DB].map(|(eni, _)| net.counted(eni).0);
        let out = net.send(WEB.1, udp("10.0.1.10:5000", format!("{address}:53").as_str(), b""));
        assert_eq!(out.verdict, Ok(owner.1), "PKT-8");
        let after = [APP, DB].map(|(eni, _)| net.counted(eni).0);
        assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1, "one copy");
    }
    let nobody = net.send(WEB.1, udp("10.0.1.10:5000", "10.0.2.99:53", b""));
    assert_eq!(nobody.verdict, Err(DiscardReason::NoSuchAddress), "and never flooded");
}

#[test]
fn pkt_9_what_is_not_ip_is_not_carried() {
    let mut net = lab_net();
    let good = udp("10.0.2.20:5000", "10.0.2.30:53", b"");
    for version in [0_u8, 5, 6, 15] {
        let mut bytes = good.clone();
        bytes[0] = version << 4 | 5;
        let out = net.send(APP.1, bytes);
        assert_eq!(out.verdict, Err(DiscardReason::NotIpv4), "PKT-9: version {version}");
    }
}
