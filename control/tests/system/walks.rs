//! The worked packet walks, with what both ends see: WALK-1, WALK-2, WALK-4, and the NAT gateway's manners.

use std::net::SocketAddr;

use crate::harness::{Capture, Lab, TWO_TIER, edit};

/// `you are 203.0.113.20:40312`: what a server saw.
fn seen_by_server(body: &str) -> SocketAddr {
    let end = body.strip_prefix("you are ").and_then(|rest| rest.trim().parse().ok());
    end.unwrap_or_else(|| panic!("not an answer of `localvpc serve`: {body}"))
}

#[test]
fn walk_1_the_internet_reaches_web_on_its_elastic_ip() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let mut outside = Capture::start(&lab, "internet", "tcp port 80");
    let mut at_web = Capture::start(&lab, "web", "tcp port 80");

    let client = seen_by_server(&lab.curl("internet", "http://203.0.113.10/"));
    assert_eq!(client.ip().to_string(), "198.51.100.10", "ports and the far end's address stay (IGW-3)");
    let client = client.to_string();

    let sent = outside.packet("the SYN", |it| it.is_syn() && it.is(&client, "203.0.113.10:80"));
    let arrived = at_web.packet("the SYN", |it| it.is_syn() && it.is(&client, "10.0.1.10:80"));
    assert_eq!(sent.ttl, arrived.ttl, "an internet gateway is no hop (PKT-2)");
    at_web.packet("the reply", |it| it.is("10.0.1.10:80", &client));
    outside.packet("the reply", |it| it.is("203.0.113.10:80", &client));
    let foreign = at_web
        .all()
        .into_iter()
        .find(|it| !it.is(&client, "10.0.1.10:80") && !it.is("10.0.1.10:80", &client));
    assert_eq!(foreign, None, "an instance never sees its public address (IGW-4)");
}

#[test]
fn walk_2_natgw_10_natgw_20_app_reaches_the_internet_through_the_nat_gateway() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let mut at_app = Capture::start(&lab, "app", "tcp port 80");
    let mut outside = Capture::start(&lab, "internet", "tcp port 80");

    let seen = seen_by_server(&lab.curl("app", "http://198.51.100.10/"));
    assert_eq!(seen.ip().to_string(), "203.0.113.20", "the NAT gateway's Elastic IP");
    assert!(seen.port() >= 1024, "{seen} (NATGW-10)");

    let sent = at_app.packet("the SYN", |it| it.is_syn() && it.destination == "198.51.100.10:80");
    let inside = sent.source.clone();
    assert!(inside.starts_with("10.0.2.20:"), "{inside}");
    let arrived = outside.packet("the SYN", |it| it.is_syn() && it.is(&seen.to_string(), "198.51.100.10:80"));
    assert_eq!(arrived.ttl, sent.ttl - 1, "a NAT gateway is a hop (NATGW-20), an internet gateway is none");
    let back = at_app.packet("the reply", |it| it.is("198.51.100.10:80", &inside));
    let answered = outside.packet("the reply", |it| it.is("198.51.100.10:80", &seen.to_string()));
    assert_eq!(back.ttl, answered.ttl - 1);

    let leases = lab.leases();
    assert_eq!(leases.len(), 1, "{leases:?}");
    let lease = &leases[0].row;
    assert_eq!(leases[0].name, "nat-a");
    assert_eq!(format!("{}:{}", lease.inside.source, lease.inside.source_port), inside);
    assert_eq!(
        (lease.address.to_string(), lease.port),
        ("10.0.1.100".to_owned(), seen.port()),
        "it writes its private address (NATGW-3); the port stays at the internet gateway (IGW-3)"
    );
}

/// Places and components of one way of an explanation.
fn stages(explanation: &serde_json::Value, way: &str) -> Vec<String> {
    let steps = explanation[way].as_array().unwrap_or_else(|| panic!("no way {way}: {explanation:#}"));
    let text = |step: &serde_json::Value, field: &str| step[field].as_str().unwrap_or_default().to_owned();
    steps.iter().map(|step| format!("{}: {}", text(step, "place"), text(step, "component"))).collect()
}

#[test]
fn walk_1_walk_2_the_stages_in_between() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let walk_1 = lab.explain("example web tcp/80", 0);
    assert_eq!(
        stages(&walk_1, "forward"),
        ["igw: destination", "subnet public-a: network ACL default in", "eni web: security group web in"]
    );
    assert_eq!(
        stages(&walk_1, "back"),
        [
            "eni web: security group web out",
            "subnet public-a: network ACL default out",
            "subnet public-a: route table public",
            "igw: source",
            "internet: host example",
        ]
    );

    let walk_2 = lab.explain("app example tcp/80", 0);
    assert_eq!(
        stages(&walk_2, "forward"),
        [
            "eni app: security group app out",
            "subnet private-a: network ACL app out",
            "subnet private-a: route table private",
            "subnet public-a: network ACL default in",
            "nat-a: source",
            "subnet public-a: network ACL default out",
            "subnet public-a: route table public",
            "igw: source",
            "internet: host example",
        ]
    );
    assert_eq!(
        stages(&walk_2, "back"),
        [
            "igw: destination",
            "subnet public-a: network ACL default in",
            "nat-a: destination",
            "subnet public-a: network ACL default out",
            "subnet public-a: route table public",
            "subnet private-a: network ACL app in",
            "eni app: connection in",
        ]
    );
}

#[test]
fn walk_4_natgw_18_natgw_19_nothing_reaches_the_nat_gateway_or_app_from_outside() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    lab.curl_is_cut("internet", "http://203.0.113.20/", "NGW_NO_CONNECTION");
    // Also where a connection is: a lease lets its own far end in, and on its own port.
    lab.curl("app", "http://198.51.100.10/");
    lab.curl_is_cut("internet", "http://203.0.113.20:22/", "NGW_NO_CONNECTION");
    lab.ping_is_cut("internet", "203.0.113.20", "NGW_NO_CONNECTION");
    lab.ping_is_cut("app", "10.0.1.100", "NGW_NO_CONNECTION");
    lab.ping_is_cut("web", "10.0.1.100", "NGW_NO_CONNECTION");
    // app has no public address; its private one means nothing outside.
    lab.curl_is_cut("internet", "http://10.0.2.20/", "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS");
}

#[test]
fn natgw_21_ping_goes_through_the_nat_gateway() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let mut outside = Capture::start(&lab, "internet", "icmp");
    lab.exec("app", "ping -n -c 2 -i 0.2 -W 10 198.51.100.10").ok();
    outside.packet("the request", |it| {
        it.is("203.0.113.20", "198.51.100.10") && it.what.contains("echo request")
    });
    outside
        .packet("the reply", |it| it.is("198.51.100.10", "203.0.113.20") && it.what.contains("echo reply"));
    let leases = lab.leases();
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0].row.protocol.to_string(), "icmp");
}

#[test]
fn natgw_20_it_shows_in_a_traceroute_and_the_rest_does_not() {
    let Some(lab) = Lab::up(TWO_TIER) else { return };
    let first = lab.exec("app", "ping -n -c 1 -t 1 -W 10 198.51.100.10").exits(1);
    assert!(
        first.stdout.contains("From 10.0.1.100") && first.stdout.contains("Time to live exceeded"),
        "{first}"
    );
    lab.exec("app", "ping -n -c 1 -t 2 -W 10 198.51.100.10").ok();
    // Neither the router between the subnets nor the internet gateway counts (PKT-1, PKT-2).
    lab.exec("web", "ping -n -c 1 -t 1 -W 10 198.51.100.10").ok();
}

#[test]
fn natgw_31_its_subnets_network_acl_must_let_ephemeral_ports_back_in() {
    let acl = "
    network_acls:
      front:
        inbound:
          - { rule: 100, allow: tcp, ports: 80, from: 0.0.0.0/0 }
        outbound:
          - { rule: 100, allow: all, to: 0.0.0.0/0 }
";
    let closed = edit(
        TWO_TIER,
        "public-a:  { cidr: 10.0.1.0/24, route_table: public }",
        "public-a:  { cidr: 10.0.1.0/24, route_table: public, network_acl: front }",
    );
    let closed = edit(&closed, "\n    network_acls:\n", acl);
    let Some(lab) = Lab::up(&closed) else { return };
    // The request gets out: it enters the subnet to port 80 (ORD-8).
    lab.curl_is_cut("app", "http://198.51.100.10/", "SUBNET_ACL_RESTRICTION");
    assert_eq!(lab.leases().len(), 1, "the reply was cut, not the request");

    let rule = "- { rule: 100, allow: tcp, ports: 80, from: 0.0.0.0/0 }";
    let open = edit(
        &closed,
        rule,
        &format!("{rule}\n          - {{ rule: 110, allow: tcp, ports: 1024-65535, from: 0.0.0.0/0 }}"),
    );
    lab.apply(&open).ok();
    assert!(lab.curl("app", "http://198.51.100.10/").contains("203.0.113.20"));
}

#[test]
fn igw_9_walk_5_without_a_public_address_nothing_leaves_a_public_subnet() {
    let web = "eip: 203.0.113.10, security_groups: [web]";
    let Some(lab) = Lab::up(&edit(TWO_TIER, web, "security_groups: [web]")) else { return };
    lab.curl_is_cut("web", "http://198.51.100.10/", "IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS");
    lab.apply(TWO_TIER).ok();
    assert!(lab.curl("web", "http://198.51.100.10/").contains("203.0.113.10"));
}
