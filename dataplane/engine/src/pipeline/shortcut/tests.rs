use localvpc_api::tables::{Action, Peer, PortRange, Traffic};

use super::*;
use crate::packet::{Offload, TcpFacts, parse};
use crate::testing::fabric::Fabric;
use crate::testing::{craft, lab};

/// What a walk is afterwards, for comparison. Of a reservation only what was reserved is shown.
fn outcome(out: LinkId, walk: &Walk<'_>) -> String {
    let effects: Vec<String> = walk
        .effects
        .as_slice()
        .iter()
        .map(|effect| match effect {
            Effect::NewLease { nat_gateway, new, reservation } => {
                format!("{nat_gateway:?} {new:?} {:?}", reservation.key())
            }
            other => format!("{other:?}"),
        })
        .collect();
    let Walk { tuple, embedded, ttl_spent, mtu, mss, sender, receiver, refused_by, .. } = walk;
    format!(
        "{out:?} {tuple:?} {embedded:?} {ttl_spent} {mtu} {mss} {sender:?} {receiver:?} {refused_by:?} {effects:#?}"
    )
}

fn by_stages<'a>(fabric: &'a Fabric, link: LinkId, walk: &mut Walk<'a>) -> LinkId {
    let at = crate::pipeline::admit(&fabric.tables, link, walk, &mut ()).unwrap();
    crate::pipeline::walk(&fabric.tables, &fabric.state, at, walk, &mut ()).unwrap()
}

fn syn(from: &str, to: &str) -> Packet {
    parse(&craft::tcp(TcpFacts::SYN, from, to), Offload::default()).unwrap()
}

fn fabric() -> Fabric {
    Fabric::new(lab::tables())
}

fn walk(packet: &Packet) -> Walk<'_> {
    Walk::new(packet, crate::Time(1_000_000), 12_345 << 32)
}

/// Shortcuts after a SYN from port 1000 on, and that SYN's ends.
fn after_one(fabric: &Fabric, link: LinkId, from: &str, to: &str) -> Shortcuts {
    let mut shortcuts = Shortcuts::new(1);
    shortcuts.turn_to(fabric.tables.generation);
    let first = syn(&format!("{from}:1000"), to);
    let mut walk = walk(&first);
    let out = by_stages(fabric, link, &mut walk);
    shortcuts.remember(&fabric.tables, &fabric.state, link, out, &walk);
    shortcuts
}

#[test]
fn proposes_what_the_stages_propose() {
    let mut fabric = fabric();
    for (link, from, to) in [
        // Through the NAT gateway; through it and back in to another instance, which sees another source; through the internet
        // gateway; within the VPC; in from the internet.
        (lab::APP.1, "10.0.2.20", "203.0.113.5:443"),
        (lab::APP.1, "10.0.2.20", "198.51.100.10:80"),
        (lab::WEB.1, "10.0.1.10", "203.0.113.5:443"),
        (lab::APP.1, "10.0.2.20", "10.0.2.30:5432"),
        (lab::INTERNET, "203.0.113.5", "198.51.100.10:80"),
    ] {
        let shortcuts = after_one(&fabric, link, from, to);
        let ends = format!("{from}:2000");
        // The second finds the connection that the first has made.
        for flags in [TcpFacts::SYN, TcpFacts::ACK, TcpFacts::FIN | TcpFacts::ACK, TcpFacts::RST] {
            let bytes = craft::tcp(flags, ends.as_str(), to);
            let next = parse(&bytes, Offload::default()).unwrap();
            let expected = {
                let mut walk = walk(&next);
                let out = by_stages(&fabric, link, &mut walk);
                outcome(out, &walk)
            };
            let mut taken = walk(&next);
            let out = shortcuts.take(&fabric.tables, &fabric.state, link, &mut taken);
            if link == lab::INTERNET && flags != TcpFacts::SYN {
                assert_eq!(out, None, "web does not track what anybody may send it (SG-32)");
                continue;
            }
            let out = out.unwrap_or_else(|| panic!("a shortcut from {from} to {to}, flags {flags:#x}"));
            assert_eq!(outcome(out, &taken), expected);
            drop(taken);
            fabric.send_on(0, link, bytes, Offload::default());
        }
    }
}

#[test]
fn is_only_between_the_same_ends_for_what_fits() {
    let fabric = fabric();
    let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
    let shortcuts = after_one(&fabric, link, from, to);
    let taken = |link, packet: &Packet| {
        let mut walk = walk(packet);
        let taken = shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk).is_some();
        assert!(taken || walk.effects.as_slice().is_empty() && walk.tuple == packet.tuple, "{walk:?}");
        taken
    };
    let next = syn("10.0.2.20:2000", to);
    assert!(taken(link, &next));
    assert!(!taken(lab::WEB.1, &next), "another link");
    assert!(!taken(link, &syn("10.0.2.21:2000", to)), "another source");
    assert!(!taken(link, &syn("10.0.2.20:2000", "203.0.113.5:80")), "another port");
    assert!(!taken(link, &syn("10.0.2.20:2000", "203.0.113.6:443")), "another destination");
    assert!(!taken(link, &Packet { ttl: 1, ..next }), "time exceeded at the NAT gateway");
    assert!(taken(link, &Packet { ttl: 2, ..next }));
    assert!(taken(link, &Packet { segment_length: 1500, ..next }));
    assert!(!taken(link, &Packet { segment_length: 1501, ..next }), "too big for the internet");
    for flags in [TcpFacts::ACK, TcpFacts::SYN | TcpFacts::ACK, TcpFacts::SYN | TcpFacts::RST] {
        let other = parse(&craft::tcp(flags, "10.0.2.20:2000", to), Offload::default()).unwrap();
        assert!(!taken(link, &other), "flags {flags:#x}");
    }
}

#[test]
fn ends_with_its_generation_and_gives_way_to_what_is_known() {
    let mut fabric = fabric();
    let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
    let mut shortcuts = after_one(&fabric, link, from, to);
    let next = syn("10.0.2.20:2000", to);
    let taken = |shortcuts: &Shortcuts, fabric: &Fabric| {
        shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(&next)).is_some()
    };
    assert!(taken(&shortcuts, &fabric));
    fabric.send_on(0, link, craft::tcp(TcpFacts::SYN, "10.0.2.20:2000", to), Offload::default());
    assert!(!taken(&shortcuts, &fabric), "the connection is known now");
    fabric.pass_ms(1_000_000);
    let ack = parse(&craft::tcp(TcpFacts::ACK, "10.0.2.20:2000", to), Offload::default()).unwrap();
    let later = shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(&ack));
    assert_eq!(later, None, "nothing is known any more");
    assert!(taken(&shortcuts, &fabric));
    shortcuts.turn_to(fabric.tables.generation);
    assert!(taken(&shortcuts, &fabric));
    shortcuts.turn_to(Generation(fabric.tables.generation.0 + 1));
    assert!(!taken(&shortcuts, &fabric));
}

#[test]
fn a_closed_connection_that_is_opened_again_keeps_its_translation() {
    let mut fabric = fabric();
    let (link, from, to) = (lab::APP.1, "10.0.2.20", "203.0.113.5:443");
    let next = syn("10.0.2.20:2000", to);
    for flags in [TcpFacts::SYN, TcpFacts::RST] {
        fabric.send_on(0, link, craft::tcp(flags, "10.0.2.20:2000", to), Offload::default());
    }
    let mut walked = walk(&next);
    let out = by_stages(&fabric, link, &mut walked);
    let reopens = |effect: &Effect<'_>| matches!(effect, Effect::Reopen { .. });
    assert!(walked.effects.as_slice().iter().any(reopens), "{walked:?}");
    // As others remember it, and as it is remembered itself.
    let mut own = Shortcuts::new(1);
    own.turn_to(fabric.tables.generation);
    own.remember(&fabric.tables, &fabric.state, link, out, &walked);
    for shortcuts in [after_one(&fabric, link, from, to), own] {
        let mut taken = walk(&next);
        assert_eq!(shortcuts.take(&fabric.tables, &fabric.state, link, &mut taken), Some(out));
        assert_eq!(outcome(out, &taken), outcome(out, &walked));
    }
}

#[test]
fn of_several_addresses_only_the_one_that_its_source_keeps_to_is_remembered() {
    let mut fabric = fabric();
    fabric.push(|rows| {
        let other = lab::ip("10.0.1.101");
        rows.nat_gateways[0].addresses.push(other);
        rows.public_addresses.push(lab::public("198.51.100.101", "10.0.1.101"));
    });
    let (link, to) = (lab::APP.1, "203.0.113.5:443");
    let first = syn("10.0.2.20:1000", to);
    let preferred = preferred_address(&fabric.tables.nat_gateways[0], first.tuple.source);
    let destination = Destination {
        nat_gateway: lab::NAT,
        address: preferred,
        remote: first.tuple.destination,
        remote_port: 443,
        protocol: Protocol::TCP,
    };
    for _ in 0..55_000 {
        fabric.state.leases.ports.reserve(&destination, 7 << 32).unwrap();
    }
    let shortcuts = after_one(&fabric, link, "10.0.2.20", to);
    let mut walk = walk(&first);
    assert_eq!(shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk), None);
}

/// Opens a connection, and has the answer to it walked by the stages: where it left, and what it was like.
fn answered(
    fabric: &mut Fabric,
    (link, from): (LinkId, &str),
    (back, to): (LinkId, &str),
    port: u16,
) -> (Packet, LinkId, LinkId) {
    let sent = fabric.send_on(
        0,
        link,
        craft::tcp(TcpFacts::SYN, format!("{from}:{port}").as_str(), to),
        Offload::default(),
    );
    assert_eq!(sent.verdict, Ok(back), "{from}:{port} to {to}");
    let Tuple { source, source_port, destination, destination_port, .. } = sent.tuple();
    let facts = TcpFacts {
        flags: TcpFacts::SYN | TcpFacts::ACK,
        sequence: 9,
        acknowledgement: 1,
        window: 500,
        payload: 0,
    };
    let (near, far) = (format!("{source}:{source_port}"), format!("{destination}:{destination_port}"));
    let bytes = craft::tcp_segment(facts, far.as_str(), near.as_str());
    (parse(&bytes, Offload::default()).unwrap(), back, link)
}

/// Through the NAT gateway, from two instances; through the internet gateway; within the VPC.
const ANSWERED: [[(LinkId, &str); 2]; 4] = [
    [(lab::APP.1, "10.0.2.20"), (lab::INTERNET, "203.0.113.5:443")],
    [(lab::DB.1, "10.0.2.30"), (lab::INTERNET, "203.0.113.5:443")],
    [(lab::INTERNET, "203.0.113.5"), (lab::WEB.1, "198.51.100.10:22")],
    [(lab::APP.1, "10.0.2.20"), (lab::DB.1, "10.0.2.30:5432")],
];

/// The lab, where security groups admit everything and track it, and network ACLs deny ports 2000 to 2999 both ways.
fn answering_fabric() -> Fabric {
    let mut fabric = fabric();
    fabric.push(|rows| {
        let everything = || lab::rule(Traffic::All, lab::anyone());
        for group in &mut rows.security_groups {
            // What is admitted by a rule for one half of all addresses is tracked.
            let half = |net: &str| lab::rule(Traffic::All, Peer::Cidr(lab::net(net)));
            group.inbound = vec![half("0.0.0.0/1"), half("128.0.0.0/1")];
            group.outbound = vec![everything()];
        }
        for acl in &mut rows.network_acls {
            let ports = Traffic::Tcp(PortRange { from: 2000, to: 2999 });
            for entries in [&mut acl.inbound, &mut acl.outbound] {
                entries.insert(0, lab::entry(1, Action::Deny, ports, "0.0.0.0/0"));
            }
        }
    });
    fabric
}

#[test]
fn an_answer_proposes_what_the_stages_propose() {
    let mut fabric = answering_fabric();
    let mut shortcuts = Shortcuts::new(1);
    shortcuts.turn_to(fabric.tables.generation);
    let mut taken_at_all = [0; ANSWERED.len()];
    for port in [1000, 1500, 1, 1999, 3000, 5000, 65_535] {
        for (number, [near, far]) in ANSWERED.into_iter().enumerate() {
            let (packet, link, back) = answered(&mut fabric, near, far, port);
            let mut walked = walk(&packet);
            let out = by_stages(&fabric, link, &mut walked);
            assert_eq!(out, back);
            let mut taken = walk(&packet);
            match shortcuts.take(&fabric.tables, &fabric.state, link, &mut taken) {
                Some(out) => {
                    assert_eq!(outcome(out, &taken), outcome(back, &walked), "{number} {port}");
                    taken_at_all[number] += 1;
                }
                None => {
                    assert!(taken.effects.as_slice().is_empty() && taken.tuple == packet.tuple);
                    shortcuts.remember(&fabric.tables, &fabric.state, link, out, &walked);
                }
            }
        }
    }
    // The first is walked, and the first on the other side of what is denied.
    assert!(taken_at_all.iter().all(|taken| *taken >= 4), "{taken_at_all:?}");
}

#[test]
fn an_answer_goes_no_way_that_a_network_acl_may_close() {
    let mut fabric = answering_fabric();
    let (near, from) = (lab::APP.1, "10.0.2.20");
    // Of another subnet, so that network ACLs are asked.
    let far = (lab::WEB.1, "10.0.1.10:22");
    let mut shortcuts = Shortcuts::new(1);
    shortcuts.turn_to(fabric.tables.generation);
    let (packet, link, _) = answered(&mut fabric, (near, from), far, 1999);
    let mut walked = walk(&packet);
    let out = by_stages(&fabric, link, &mut walked);
    shortcuts.remember(&fabric.tables, &fabric.state, link, out, &walked);
    drop(walked);
    for (port, goes) in [(1, true), (1999, true), (2000, false), (2999, false), (3000, false)] {
        let (packet, link, _) = answered(&mut fabric, (near, from), far, port);
        let taken = shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(&packet));
        assert_eq!(taken.is_some(), goes, "to port {port}");
    }
    // On another link, too big, and from another port.
    let (packet, link, _) = answered(&mut fabric, (near, from), far, 7);
    let taken = |link, packet: &Packet| {
        shortcuts.take(&fabric.tables, &fabric.state, link, &mut walk(packet)).is_some()
    };
    assert!(taken(link, &packet));
    assert!(!taken(lab::DB.1, &packet));
    assert!(!taken(link, &Packet { segment_length: 9002, ..packet }));
    let other = Tuple { source_port: 23, ..packet.tuple };
    assert!(!taken(link, &Packet { tuple: other, ..packet }));
    fabric.pass_ms(1_000_000);
    let mut late = Walk::new(&packet, fabric.now, 0);
    assert_eq!(shortcuts.take(&fabric.tables, &fabric.state, link, &mut late), None, "nothing is tracked");
}
