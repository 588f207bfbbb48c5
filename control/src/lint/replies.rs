//! Network ACLs that let a request pass and not its reply (NACL-5).
//!
//! Of every entry that allows, what it really decides is taken (earlier entries are subtracted), for far ends that
//! there can be; of that, the requests, and for them the replies in the other direction: to ports 32768-60999,
//! from which Linux sends, or 1024-65535 where a NAT gateway stands in the subnet. What is denied on purpose (an
//! entry for some of the addresses) is not missed. An entry that lets a whole ephemeral range pass, where the
//! other direction has requests, is taken for their replies, and wants none itself.

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::tables::{Action, IcmpMatch, PortRange, Traffic};
use localvpc_api::trace::Direction;

use crate::config::decode::Named;
use crate::config::document::NetworkAclSection;
use crate::model::{NetworkAcl, NetworkAclEntry, Subnet, text};

use super::catalog::*;
use super::network_acls::{effective, free_below, rect};
use super::ranges::PRIVATE;
use super::region::{Rect, Region};
use super::subject::{DIRECTIONS, Findings, Pair, Subject, entry, far_key, number_span, other, word};

/// From which ports Linux sends.
const LINUX: PortRange = PortRange { from: 32_768, to: 60_999 };
/// From which ports Windows sends (NACL-13).
const WINDOWS: PortRange = PortRange { from: 49_152, to: 65_535 };
/// From which ports NAT gateways send (NATGW-10).
const NAT_GATEWAY: PortRange = PortRange { from: 1024, to: 65_535 };

/// Looks at every network ACL that a subnet uses.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for (written, acl) in pair.network_acls() {
            let subnets = pair.subnets_behind(&acl.name);
            if subnets.is_empty() {
                continue;
            }
            let far_ends = far_ends(pair, &subnets);
            let nat = subnets.iter().find_map(|subnet| pair.nat_gateways_in(&subnet.name).next());
            let mut reported = false;
            for direction in DIRECTIONS {
                reported |= requests(written, acl, direction, &far_ends, findings);
            }
            if let Some(nat) = nat.filter(|_| !reported) {
                nat_gateway(pair, written, acl, &nat.name, findings);
            }
        }
    }
}

/// Who can be at the other end of what enters or leaves these subnets: the other subnets of the VPC, and the
/// internet where there is a way to it.
fn far_ends(pair: Pair<'_>, subnets: &[&Subnet]) -> Region {
    let mut ends = Region::default();
    if pair.has_forwarder() {
        ends.0.push(Rect::new(IpNet::from(Ipv4Net::default()), Traffic::All));
    } else if pair.vpc.internet_gateway.is_some() {
        ends.0.push(Rect::new(IpNet::from(Ipv4Net::default()), Traffic::All));
        for range in PRIVATE {
            ends.take(&Rect::new(IpNet::V4(range), Traffic::All));
        }
    }
    for cidr in &pair.vpc.cidrs {
        ends.take(&Rect::new(*cidr, Traffic::All));
    }
    // Within a subnet no network ACL is asked.
    let is_far = |subnet: &&Subnet| subnets.len() > 1 || subnets.iter().all(|own| own.name != subnet.name);
    ends.0.extend(pair.vpc.subnets.iter().filter(is_far).map(|subnet| Rect::new(subnet.cidr, Traffic::All)));
    ends
}

/// Notes entries for requests whose replies do not pass; whether there are any.
fn requests(
    written: &Named<NetworkAclSection>,
    acl: &NetworkAcl,
    direction: Direction,
    far_ends: &Region,
    findings: &mut Findings,
) -> bool {
    let entries = acl.entries(direction);
    let is_narrow = |it: &NetworkAclEntry| it.action == Action::Allow && !lets_replies_pass(it.traffic);
    let asked: Vec<Rect> =
        acl.entries(other(direction)).iter().filter(|it| is_narrow(it)).map(rect).collect();
    let mut known = Region::default();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.action == Action::Allow) {
        let own = rect(entry);
        if lets_replies_pass(entry.traffic)
            && asked.iter().any(|it| it.addresses.and(&own.addresses).is_some())
        {
            continue;
        }
        let replies = replies(&effective(entries, index), far_ends, LINUX);
        let missing = missing(&replies, acl.entries(other(direction)));
        // What one entry misses, another misses too; one of them is enough.
        let mut news = missing.clone();
        for old in &known.0 {
            news.take(old);
        }
        let (Some(first), false) = (missing.0.first(), news.is_empty()) else { continue };
        known.0.extend(&news.0);
        let message = format!(
            "{} entry {} of network ACL `{}` lets {} {} {} {}, and {} of the replies {}: no {} entry allows {} {} {}",
            word(direction),
            entry.number,
            acl.name,
            text::traffic(entry.traffic),
            if direction == Direction::Inbound { "in" } else { "out" },
            far_key(direction),
            entry.cidr,
            share(&replies, &missing),
            if direction == Direction::Inbound { "get out" } else { "come in" },
            word(other(direction)),
            first.traffic_text(),
            far_key(other(direction)),
            addresses_text(first, entry),
        );
        let help = help(&missing, entry, acl, other(direction));
        let span = span(written, direction, entry);
        findings.add(&NETWORK_ACL_BLOCKS_REPLIES, span, message).help(help);
    }
    !known.is_empty()
}

/// What a NAT gateway sends for others, from any port.
fn nat_gateway(
    pair: Pair<'_>,
    written: &Named<NetworkAclSection>,
    acl: &NetworkAcl,
    name: &str,
    findings: &mut Findings,
) {
    let entries = &acl.outbound;
    let mut internet = far_ends(pair, &[]);
    pair.vpc.cidrs.iter().for_each(|cidr| {
        internet.take(&Rect::new(*cidr, Traffic::All));
    });
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.action == Action::Allow) {
        // Inside the VPC it sends to nobody but those who asked.
        let replies = replies(&effective(entries, index), &internet, NAT_GATEWAY);
        let missing = missing(&replies, &acl.inbound);
        let Some(first) = missing.0.first() else { continue };
        let message = format!(
            "network ACL `{}` does not let all replies in for NAT gateway `{name}`: no inbound entry allows {} from {}",
            acl.name,
            first.traffic_text(),
            addresses_text(first, entry),
        );
        let help = help(&missing, entry, acl, Direction::Inbound);
        let span = span(written, Direction::Outbound, entry);
        findings.add(&NAT_GATEWAY_REPLIES_BLOCKED, span, message).help(help);
        return;
    }
}

/// Where the traffic of an entry stands: its ports, or its protocol.
fn span(
    written: &Named<NetworkAclSection>,
    direction: Direction,
    it: &NetworkAclEntry,
) -> crate::config::Span {
    let section = entry(&written.value, direction, it);
    let ports = section.and_then(|section| section.ports.map(|ports| ports.span));
    let protocol = section.and_then(|section| section.allow.map(|allow| allow.span));
    ports.or(protocol).unwrap_or_else(|| number_span(&written.value, direction, it))
}

/// The replies that the requests among `admitted` ask for.
fn replies(admitted: &Region, far_ends: &Region, ephemeral: PortRange) -> Vec<Rect> {
    let echo = |kind| Traffic::Icmp(IcmpMatch { kind: Some(kind), code: Some(0) });
    let kinds = [
        (Traffic::Tcp(PortRange::ALL), Traffic::Tcp(ephemeral)),
        (Traffic::Udp(PortRange::ALL), Traffic::Udp(ephemeral)),
        (echo(8), echo(0)),
    ];
    let mut replies: Vec<Rect> = Vec::new();
    for (request, reply) in kinds {
        for far_end in &far_ends.0 {
            for piece in admitted.and(&far_end.with(request)).0 {
                let reply = piece.with(reply);
                if !replies.iter().any(|known| known.contains(&reply)) {
                    replies.push(reply);
                }
            }
        }
    }
    replies
}

/// Whether traffic has in it a good part of the ports that clients send from.
fn lets_replies_pass(traffic: Traffic) -> bool {
    let part = |ports: PortRange, range: PortRange| {
        let (from, to) = (ports.from.max(range.from), ports.to.min(range.to));
        to >= from && to - from >= GOOD_PART
    };
    match traffic {
        Traffic::All => true,
        Traffic::Tcp(ports) | Traffic::Udp(ports) => part(ports, LINUX) || part(ports, WINDOWS),
        Traffic::Icmp(_) | Traffic::Protocol(_) => false,
    }
}

/// More ports than any server has there, fewer than anyone opens for replies.
const GOOD_PART: u16 = 1000;

/// The addresses of a piece; those of its entry where it is no range that one would write.
fn addresses_text(piece: &Rect, entry: &NetworkAclEntry) -> String {
    piece.prefix().unwrap_or(entry.cidr).to_string()
}

/// The replies that no entry lets pass.
fn missing(replies: &[Rect], entries: &[NetworkAclEntry]) -> Region {
    let mut missing = Region::default();
    for reply in replies {
        let mut left = Region::from(*reply);
        for entry in entries {
            let it = rect(entry);
            if entry.action == Action::Deny && it.addresses.contains(&reply.addresses) {
                missing.0.extend(left.and(&it).0);
            }
            left.take(&it);
        }
        missing.0.extend(left.0);
    }
    missing
}

/// How many of the replies are missing, in words that fit before `of the replies get out`.
fn share(replies: &[Rect], missing: &Region) -> &'static str {
    let mut passing: Vec<Region> = replies.iter().map(|reply| Region::from(*reply)).collect();
    for region in &mut passing {
        missing.0.iter().for_each(|piece| {
            region.take(piece);
        });
    }
    if passing.iter().all(Region::is_empty) { "none" } else { "not all" }
}

/// What to add for the replies: below the first entry that denies any of them, and then for no more addresses than it denies.
fn help(missing: &Region, entry: &NetworkAclEntry, acl: &NetworkAcl, direction: Direction) -> String {
    let entries = acl.entries(direction);
    let closing = entries.iter().find(|it| it.action == Action::Deny && !missing.and(&rect(it)).is_empty());
    let is_partial = closing.is_some_and(|closing| !closing.cidr.contains(&entry.cidr));
    let mut words: Vec<(&str, String)> = Vec::new();
    for piece in &missing.0 {
        let word = match piece.traffic.first >> 16 {
            6 => "tcp, ports: 1024-65535",
            17 => "udp, ports: 1024-65535",
            _ => "icmp, type: echo-reply",
        };
        let far = if is_partial { addresses_text(piece, entry) } else { entry.cidr.to_string() };
        if !words.contains(&(word, far.clone())) {
            words.push((word, far));
        }
    }
    let mut number = match closing {
        Some(closing) => free_below(entries, closing.number),
        None => entries.iter().map(|it| it.number).max().unwrap_or(0).checked_add(10),
    };
    let mut added = Vec::new();
    for (word, far) in words {
        let shown = number.map_or_else(|| "...".into(), |number| number.to_string());
        added.push(format!("`{{ rule: {shown}, allow: {word}, {}: {far} }}`", far_key(direction)));
        number = match closing {
            Some(_) => number.and_then(|number| free_below(entries, number)),
            None => number.and_then(|number| number.checked_add(10)),
        };
    }
    format!("add {} to its {} entries.", added.join(" and "), word(direction))
}
