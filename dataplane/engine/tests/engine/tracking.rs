//! What security groups track of each kind of flow, and what a change of rules, groups or members does to it (SG-30…SG-37).

use localvpc_api::DiscardReason;
use localvpc_api::tables::{Peer, PortRange, Tables, Traffic};
use localvpc_api::trace::Protocol;
use localvpc_engine::Time;
use localvpc_engine::packet::{Echo, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::Fabric;
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const CLIENT: &str = "203.0.113.5:40000";
const NO_RULE: DiscardReason = DiscardReason::SecurityGroup;
const NO_RULES: DiscardReason = DiscardReason::SecurityGroupEmpty;

/// One kind of flow from app to db: its first packet, the answer, what comes after them, and the rule that admits it.
struct Flow {
    rule: Traffic,
    first: Vec<u8>,
    answer: Vec<u8>,
    more: Vec<u8>,
    timeout_ms: u64,
}

fn flows() -> Vec<Flow> {
    let (app, db) = ("10.0.2.20", "10.0.2.30");
    vec![
        Flow {
            rule: lab::tcp(5432),
            first: tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5432"),
            answer: tcp(SYN_ACK, "10.0.2.30:5432", "10.0.2.20:40000"),
            more: tcp(ACK, "10.0.2.20:40000", "10.0.2.30:5432"),
            timeout_ms: 432_000_000,
        },
        Flow {
            rule: Traffic::Udp(PortRange::one(53)),
            first: udp("10.0.2.20:5000", "10.0.2.30:53", b"?"),
            answer: udp("10.0.2.30:53", "10.0.2.20:5000", b"!"),
            more: udp("10.0.2.20:5000", "10.0.2.30:53", b"?"),
            timeout_ms: 30_000,
        },
        Flow {
            rule: lab::ICMP,
            first: ping(Echo::Request, app, db, 7, 1),
            answer: ping(Echo::Reply, db, app, 7, 1),
            more: ping(Echo::Request, app, db, 7, 2),
            timeout_ms: 30_000,
        },
        Flow {
            rule: Traffic::Protocol(47),
            first: craft::other(Protocol(47), app, db, b"one"),
            answer: craft::other(Protocol(47), db, app, b"two"),
            more: craft::other(Protocol(47), app, db, b"three"),
            timeout_ms: 600_000,
        },
    ]
}

impl Flow {
    /// db admits it from members of app's group.
    fn admitted(&self) -> Fabric {
        let mut net = Fabric::new(lab::tables());
        net.push(|rows| {
            rows.security_groups[2].inbound = vec![rule(self.rule, Peer::SecurityGroup(APP_GROUP))]
        });
        net
    }

    fn established(&self) -> Fabric {
        let mut net = self.admitted();
        assert_eq!(net.send(APP.1, self.first.clone()).verdict, Ok(DB.1));
        assert_eq!(net.send(DB.1, self.answer.clone()).verdict, Ok(APP.1));
        assert_eq!(net.send(APP.1, self.more.clone()).verdict, Ok(DB.1));
        assert_eq!(net.state.connections.len(), 2, "at each interface");
        net
    }
}

#[test]
fn sg_31_whatever_is_tracked_outlives_every_change_of_the_rules() {
    // The rule goes, the way out goes, the group is taken off, the sender leaves the group that the rule refers to.
    let changes: [fn(&mut Tables); 4] = [
        |rows| rows.security_groups[2].inbound.clear(),
        |rows| rows.security_groups.iter_mut().for_each(|group| group.outbound.clear()),
        |rows| rows.enis[2].security_groups = vec![APP_GROUP],
        |rows| rows.enis[1].security_groups = vec![WEB_GROUP],
    ];
    for flow in flows() {
        for (at, change) in changes.into_iter().enumerate() {
            let mut net = flow.established();
            net.push(change);
            for _ in 0..3 {
                assert_eq!(
                    net.send(APP.1, flow.more.clone()).verdict,
                    Ok(DB.1),
                    "{:?}, change {at}",
                    flow.rule
                );
                let back = if flow.rule == lab::tcp(5432) {
                    tcp(ACK, "10.0.2.30:5432", "10.0.2.20:40000")
                } else {
                    flow.answer.clone()
                };
                assert_eq!(net.send(DB.1, back).verdict, Ok(APP.1), "{:?}, change {at}", flow.rule);
            }
            // New ones are judged by what is there now.
            net.pass_ms(432_000_000);
            let refused = net.send(APP.1, flow.first.clone()).verdict;
            assert!(matches!(refused, Err(NO_RULE | NO_RULES)), "{:?}, change {at}: {refused:?}", flow.rule);
        }
    }
}

#[test]
fn sg_30_sg_37_each_kind_has_its_time() {
    for flow in flows() {
        let mut net = flow.admitted();
        net.send(APP.1, flow.first.clone());
        net.send(DB.1, flow.answer.clone());
        if flow.rule == lab::tcp(5432) {
            net.send(APP.1, flow.more.clone());
        }
        let timeouts: Vec<u64> =
            report::connections(&net.state, net.now).iter().map(|row| row.timeout_ms).collect();
        assert_eq!(timeouts, [flow.timeout_ms; 2], "{:?}", flow.rule);
        net.push(|rows| rows.security_groups[2].inbound.clear());
        net.pass_ms(flow.timeout_ms - 1);
        assert_eq!(net.state.connections.len(), 2, "{:?}", flow.rule);
        net.pass_ms(1);
        assert!(net.state.connections.is_empty(), "{:?}", flow.rule);
        assert_eq!(net.send(APP.1, flow.more.clone()).verdict, Err(NO_RULES), "{:?}", flow.rule);
    }
}

#[test]
fn sg_37_timers_are_those_of_the_interface() {
    let mut net = flows().remove(1).admitted();
    net.push(|rows| {
        rows.enis[1].tracking.udp_ms = 1_000;
        rows.enis[1].tracking.udp_stream_ms = 2_000;
    });
    let timeouts = |net: &Fabric| -> Vec<u64> {
        report::connections(&net.state, net.now).iter().map(|row| row.timeout_ms).collect()
    };
    let flow = flows().remove(1);
    net.send(APP.1, flow.first.clone());
    assert_eq!(timeouts(&net), [1_000, 30_000], "app's, then db's");
    net.send(DB.1, flow.answer.clone());
    net.send(APP.1, flow.more.clone());
    assert_eq!(timeouts(&net), [1_000, 30_000], "one answer is no stream");
    net.send(DB.1, flow.answer.clone());
    assert_eq!(timeouts(&net), [2_000, 180_000]);
    net.pass_ms(2_000);
    assert_eq!(timeouts(&net), [180_000], "app has forgotten it, db has not");
    assert_eq!(net.send(DB.1, flow.answer).verdict, Err(NO_RULES), "so the answer ends at app");
}

/// web serves UDP 53 to everybody, and everything may leave: untracked.
fn untracked() -> Fabric {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| rows.security_groups[0].inbound = vec![rule(Traffic::Udp(PortRange::one(53)), anyone())]);
    net
}

#[test]
fn sg_32_sg_33_untracked_udp_is_judged_packet_by_packet() {
    let ask = || udp(CLIENT, "198.51.100.10:53", b"?");
    let answer = || udp("10.0.1.10:53", CLIENT, b"!");
    let mut net = untracked();
    for _ in 0..3 {
        assert_eq!(net.send(INTERNET, ask()).verdict, Ok(WEB.1));
        assert_eq!(net.send(WEB.1, answer()).verdict, Ok(INTERNET));
    }
    assert!(net.state.connections.is_empty(), "SG-32");
    // Narrowed to somebody else: cut at once, and there again at once.
    net.push(|rows| rows.security_groups[0].inbound[0].peer = Peer::Cidr(lab::net("192.0.2.0/24")));
    assert_eq!(net.send(INTERNET, ask()).verdict, Err(NO_RULE), "SG-33");
    net.push(|rows| rows.security_groups[0].inbound[0].peer = anyone());
    assert_eq!(net.send(INTERNET, ask()).verdict, Ok(WEB.1));
    // The rule by which answers leave is narrowed.
    net.push(|rows| rows.security_groups[0].outbound[0].peer = Peer::Cidr(lab::net("10.0.0.0/8")));
    assert_eq!(net.send(WEB.1, answer()).verdict, Err(NO_RULE), "SG-33: no state lets it out");
    assert_eq!(net.send(INTERNET, ask()).verdict, Ok(WEB.1), "from now on it is tracked");
    assert_eq!(net.send(WEB.1, answer()).verdict, Ok(INTERNET), "so that its answers leave");
    assert_eq!(net.state.connections.len(), 1);
}

#[test]
fn sg_32_a_flow_that_the_instance_begins_may_be_untracked_too() {
    let mut net = untracked();
    net.push(|rows| rows.security_groups[0].inbound = vec![rule(Traffic::Udp(PortRange::ALL), anyone())]);
    let ask = || udp("10.0.1.10:5000", "203.0.113.5:53", b"?");
    let answer = || udp("203.0.113.5:53", "198.51.100.10:5000", b"!");
    assert_eq!(net.send(WEB.1, ask()).verdict, Ok(INTERNET));
    assert_eq!(net.send(INTERNET, answer()).verdict, Ok(WEB.1));
    assert!(net.state.connections.is_empty(), "everything may come back, so nothing is tracked");
    net.push(|rows| rows.security_groups[0].inbound.clear());
    assert_eq!(net.send(INTERNET, answer()).verdict, Err(NO_RULES), "SG-33");
    assert_eq!(net.send(WEB.1, ask()).verdict, Ok(INTERNET));
    assert_eq!(net.send(INTERNET, answer()).verdict, Ok(WEB.1), "tracked: its way back is not open any more");
}

#[test]
fn sg_32_one_of_two_protocols_may_be_tracked() {
    // All TCP may leave, but no UDP beyond the VPC.
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        let udp_53 = rule(Traffic::Udp(PortRange::one(53)), anyone());
        rows.security_groups[0].inbound.push(udp_53);
        rows.security_groups[0].outbound = vec![rule(Traffic::Tcp(PortRange::ALL), anyone())];
    });
    net.send(INTERNET, tcp(SYN, CLIENT, "198.51.100.10:80"));
    assert!(net.state.connections.is_empty(), "SG-32: TCP 0 to 65535 is enough for TCP");
    net.send(INTERNET, udp(CLIENT, "198.51.100.10:53", b"?"));
    assert_eq!(net.state.connections.len(), 1, "and not for UDP");
}

#[test]
fn sg_34_sg_35_some_flows_are_tracked_whatever_the_rules_say() {
    let mut net = Fabric::new(lab::tables());
    net.push(|rows| {
        for group in &mut rows.security_groups {
            group.inbound = vec![rule(Traffic::All, anyone())];
        }
    });
    let mut tracked = |from, packet| {
        let before = net.state.connections.len();
        assert!(net.send(from, packet).verdict.is_ok());
        net.state.connections.len() - before
    };
    assert_eq!(tracked(WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", b"")), 0);
    assert_eq!(tracked(WEB.1, tcp(SYN, "10.0.1.10:5000", "203.0.113.5:53")), 0);
    assert_eq!(tracked(WEB.1, ping(Echo::Request, "10.0.1.10", "203.0.113.5", 7, 1)), 1, "SG-34");
    assert_eq!(tracked(WEB.1, craft::other(Protocol(47), "10.0.1.10", "203.0.113.5", b"")), 1, "SG-30");
    assert_eq!(tracked(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", b"")), 1, "SG-35");
    assert_eq!(tracked(APP.1, tcp(SYN, "10.0.2.20:5000", "203.0.113.5:53")), 1, "SG-35");
    // By way of the NAT gateway to web's Elastic IP: both ends see a flow through a NAT gateway.
    assert_eq!(tracked(APP.1, tcp(SYN, "10.0.2.20:5001", "198.51.100.10:80")), 2, "SG-35");
}

#[test]
fn sg_30_pings_are_told_apart_by_identifier() {
    let flow = flows().remove(2);
    let mut net = flow.established();
    let reply = |identifier| ping(Echo::Reply, "10.0.2.30", "10.0.2.20", identifier, 1);
    assert_eq!(net.send(DB.1, reply(7)).verdict, Ok(APP.1));
    assert_eq!(net.send(DB.1, reply(8)).verdict, Err(NO_RULES), "SG-30: app has asked under another one");
    net.push(|rows| rows.security_groups[2].outbound.clear());
    assert_eq!(net.send(DB.1, reply(7)).verdict, Ok(APP.1), "SG-30: by its own identifier");
    assert_eq!(net.send(DB.1, reply(9)).verdict, Err(NO_RULES), "and at db, too");
}

#[test]
fn sg_20_sg_22_references_follow_their_members() {
    let mut net = Fabric::new(lab::tables());
    let knock = |net: &mut Fabric, from: localvpc_api::LinkId, source: &str, port: u16| {
        net.send(from, tcp(SYN, format!("{source}:{port}").as_str(), "10.0.2.30:5432")).verdict
    };
    assert_eq!(knock(&mut net, WEB.1, "10.0.1.10", 1), Err(NO_RULE));
    net.push(|rows| rows.enis[0].security_groups.push(APP_GROUP));
    assert_eq!(knock(&mut net, WEB.1, "10.0.1.10", 2), Ok(DB.1), "SG-22: a member from now on");
    // A member's address changes, or it gets another one: the rule follows.
    net.push(|rows| {
        rows.enis[0].addresses = vec![ip("10.0.1.11"), ip("10.0.1.12")];
        rows.public_addresses.remove(0);
    });
    for source in ["10.0.1.11", "10.0.1.12"] {
        assert_eq!(knock(&mut net, WEB.1, source, 3), Ok(DB.1), "SG-20: {source}");
    }
    // Another interface gets the address that the member had: it is no member.
    net.push(|rows| {
        rows.enis[0].addresses = vec![ip("10.0.1.12")];
        rows.enis.push(eni(
            (localvpc_api::EniId(4), localvpc_api::LinkId(4)),
            PUBLIC,
            "10.0.1.11",
            WEB_GROUP,
        ));
        rows.links.push(link(localvpc_api::LinkId(4), localvpc_api::tables::LinkKind::Enis, 9001));
    });
    assert_eq!(knock(&mut net, localvpc_api::LinkId(4), "10.0.1.11", 4), Err(NO_RULE), "SG-20");
    net.push(|rows| {
        rows.enis.remove(1);
        rows.links.retain(|link| link.id != APP.1);
    });
    assert_eq!(knock(&mut net, WEB.1, "10.0.1.12", 5), Ok(DB.1));
}

#[test]
fn an_interface_that_goes_takes_its_connections_along() {
    // VPP's test_delete_interface: with live sessions, and the name comes back.
    let flow = flows().remove(0);
    let mut net = flow.established();
    let mut rows_before = None;
    net.push(|rows| {
        rows_before = Some((rows.enis[2].clone(), rows.links[2].clone()));
        rows.enis.pop();
        rows.links.retain(|link| link.id != DB.1);
    });
    assert_eq!(net.send(APP.1, flow.more.clone()).verdict, Err(DiscardReason::NoSuchAddress));
    assert_eq!(net.send(DB.1, flow.answer.clone()).verdict, Err(DiscardReason::UnknownLink));
    net.pass_ms(1);
    assert_eq!(net.state.connections.len(), 1, "app's own is left to its time");
    let (eni, link) = rows_before.unwrap();
    net.push(|rows| {
        rows.enis.push(eni);
        rows.links.push(link);
        rows.security_groups[2].inbound.clear();
    });
    assert_eq!(net.send(APP.1, flow.more).verdict, Err(NO_RULES), "db knows nothing of it any more");
}

#[test]
fn what_has_idled_out_is_swept_and_counted_once() {
    let mut net = Fabric::new(lab::tables());
    for port in 1..=5 {
        assert!(
            net.send(APP.1, udp(format!("10.0.2.20:{port}").as_str(), "203.0.113.5:53", b"")).verdict.is_ok()
        );
    }
    assert!(net.send(WEB.1, udp("10.0.1.10:9", "203.0.113.5:53", b"")).verdict.is_ok());
    let pieces = craft::fragments(&udp("10.0.1.10:7", "203.0.113.5:53", &[0; 3000]), 1, 1480);
    assert!(net.offer(WEB.1, pieces[1].clone()).is_none(), "held until its first comes");
    let sweep = |net: &Fabric, now| -> usize {
        (0..net.state.parts()).map(|part| net.state.expire(&net.tables, part, now)).sum()
    };
    assert_eq!(sweep(&net, net.now), 0);
    let late = Time(net.now.0 + 1_000_000);
    assert_eq!(sweep(&net, late), 6 + 5 + 1, "connections, leases, and one fragment");
    assert_eq!(sweep(&net, late), 0);
    let (connections, leases) = (&net.state.connections, &net.state.leases);
    assert!(connections.is_empty() && connections.activities.is_empty() && leases.is_empty());
}

#[test]
fn sg_32_a_bare_ack_answers_an_untracked_flow_and_a_syn_from_its_port_does_not() {
    let mut net = Fabric::new(lab::tables());
    let ack = TcpFacts::ACK;
    assert!(net.send(INTERNET, tcp(SYN, "203.0.113.5:40000", "198.51.100.10:80")).verdict.is_ok());
    assert!(net.send(WEB.1, tcp(ack, "10.0.1.10:80", "203.0.113.5:40000")).verdict.is_ok(), "SG-32");
    assert_eq!(net.state.connections.len(), 0, "80 from everywhere, everything out: untracked");
    assert!(net.send(WEB.1, tcp(SYN, "10.0.1.10:80", "203.0.113.5:443")).verdict.is_ok());
    assert_eq!(
        net.state.connections.len(),
        1,
        "it begins a connection of web's own, and inbound is not open to all"
    );
}

#[test]
fn sg_30_messages_that_are_no_echo_belong_together_by_their_addresses() {
    let mut net = Fabric::new(lab::tables());
    let stamp = |kind, code, from, to| craft::icmp_message(kind, code, [0; 4], from, to, &[0; 12]);
    assert_eq!(
        net.send(WEB.1, stamp(14, 0, "10.0.1.10", "10.0.2.20")).verdict,
        Err(DiscardReason::SecurityGroupEmpty)
    );
    assert_eq!(net.send(APP.1, stamp(13, 5, "10.0.2.20", "10.0.1.10")).verdict, Ok(WEB.1));
    assert_eq!(
        net.send(WEB.1, stamp(14, 0, "10.0.1.10", "10.0.2.20")).verdict,
        Ok(APP.1),
        "type and code differ"
    );
}

#[test]
fn a_connection_that_has_idled_out_begins_anew_before_it_is_swept() {
    let mut net = Fabric::new(lab::tables());
    let question = || udp("10.0.1.10:5000", "203.0.113.5:53", b"?");
    for _ in 0..3 {
        assert!(net.send(WEB.1, question()).verdict.is_ok());
    }
    let packets = |net: &Fabric| -> Vec<u64> {
        report::connections(&net.state, net.now).iter().map(|row| row.sent.packets).collect()
    };
    assert_eq!(packets(&net), [3]);
    net.now.0 += 30_000;
    assert_eq!(packets(&net), [0; 0], "SG-37");
    assert!(net.send(WEB.1, question()).verdict.is_ok());
    assert_eq!((packets(&net), net.state.connections.len()), (vec![1], 1));
}
