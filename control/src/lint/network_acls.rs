//! Network ACLs: entries that never decide, and entries that wait for what never comes.

use localvpc_api::tables::Action;
use localvpc_api::trace::Direction;

use crate::config::Span;
use crate::config::decode::Named;
use crate::config::document::NetworkAclSection;
use crate::model::{NetworkAcl, NetworkAclEntry, text};

use super::catalog::*;
use super::ranges::nobody_has;
use super::region::{Rect, Region};
use super::subject::{DIRECTIONS, Findings, Pair, Subject, entry, far_key, number_span, word};

/// Looks at the entries of all network ACLs.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for (written, acl) in pair.network_acls() {
            for direction in DIRECTIONS {
                never_decide(written, acl, direction, findings);
                own_subnet(pair, written, acl, direction, findings);
                foreign(pair, written, acl, direction, findings);
            }
        }
    }
}

/// What an entry matches.
pub fn rect(entry: &NetworkAclEntry) -> Rect {
    Rect::new(entry.cidr, entry.traffic)
}

/// What is left for an entry by those before it.
pub fn effective(entries: &[NetworkAclEntry], index: usize) -> Region {
    let mut left = Region::from(rect(&entries[index]));
    for earlier in &entries[..index] {
        left.take(&rect(earlier));
    }
    left
}

fn never_decide(
    written: &Named<NetworkAclSection>,
    acl: &NetworkAcl,
    direction: Direction,
    findings: &mut Findings,
) {
    let entries = acl.entries(direction);
    for (index, entry) in entries.iter().enumerate() {
        let mut left = Region::from(rect(entry));
        let takers: Vec<&NetworkAclEntry> =
            entries[..index].iter().filter(|earlier| left.take(&rect(earlier))).collect();
        let (true, Some(first)) = (left.is_empty(), takers.first()) else { continue };
        let same = takers.iter().all(|taker| taker.action == entry.action);
        let numbers: Vec<String> = takers.iter().map(|taker| taker.number.to_string()).collect();
        let (noun, verb) =
            if takers.len() == 1 { ("entry", "matches") } else { ("entries", "together match") };
        let who = format!(
            "{} entry {} of network ACL `{}` never decides: {noun} {} {verb} all that it matches",
            word(direction),
            entry.number,
            acl.name,
            list(&numbers),
        );
        let (related, note) =
            (number_span(&written.value, direction, first), format!("entry {} comes first", first.number));
        let span = number_span(&written.value, direction, entry);
        if same {
            findings
                .add(&NETWORK_ACL_ENTRY_REDUNDANT, span, format!("{who}, with the same result"))
                .related(related, note)
                .help("remove it.");
        } else {
            let wanted = text::action(entry.action);
            let help = match free_below(entries, first.number) {
                Some(number) => {
                    format!("to {wanted} it, give it a number below {}: {number} is free.", first.number)
                }
                None => format!("to {wanted} it, let it stand before entry {}.", first.number),
            };
            let all = takers.iter().all(|taker| taker.action != entry.action);
            let what = match (all, entry.action) {
                (true, Action::Allow) => "all of it is denied",
                (true, Action::Deny) => "all of it is allowed",
                (false, Action::Allow) => "some of it is denied",
                (false, Action::Deny) => "some of it is allowed",
            };
            findings
                .add(&NETWORK_ACL_ENTRY_SHADOWED, span, format!("{who}, so {what}"))
                .related(related, note)
                .help(help);
        }
    }
}

/// The highest free number below another.
pub fn free_below(entries: &[NetworkAclEntry], number: u16) -> Option<u16> {
    (1..number).rev().find(|free| entries.iter().all(|entry| entry.number != *free))
}

/// `90`, `90 and 100`.
fn list(numbers: &[String]) -> String {
    match numbers {
        [init @ .., last] if !init.is_empty() => format!("{} and {last}", init.join(", ")),
        _ => numbers.concat(),
    }
}

fn own_subnet(
    pair: Pair<'_>,
    written: &Named<NetworkAclSection>,
    acl: &NetworkAcl,
    direction: Direction,
    findings: &mut Findings,
) {
    let [subnet] = pair.subnets_behind(&acl.name)[..] else { return };
    for entry in acl.entries(direction).iter().filter(|entry| subnet.cidr.contains(&entry.cidr)) {
        let message = format!(
            "{} entry {} of network ACL `{}` is for {}, which is within subnet `{}`, the only one it stands before",
            word(direction),
            entry.number,
            acl.name,
            entry.cidr,
            subnet.name
        );
        findings.add(&NETWORK_ACL_ENTRY_FOR_OWN_SUBNET, far_span(written, direction, entry), message).help(
            "within the subnet only security groups filter: remove it, or name the subnet it is meant for.",
        );
    }
}

fn foreign(
    pair: Pair<'_>,
    written: &Named<NetworkAclSection>,
    acl: &NetworkAcl,
    direction: Direction,
    findings: &mut Findings,
) {
    for entry in acl.entries(direction).iter().filter(|entry| nobody_has(pair, entry.cidr)) {
        let message = format!(
            "{} entry {} of network ACL `{}` is `{}` {}, which nothing in VPC `{}` can have",
            word(direction),
            entry.number,
            acl.name,
            far_key(direction),
            entry.cidr,
            pair.vpc.name
        );
        findings.add(&RANGE_NOBODY_HAS, far_span(written, direction, entry), message).help(format!(
            "the VPC is {}; remove the entry, or name the range it is meant for.",
            super::ranges::list(&pair.vpc.cidrs)
        ));
    }
}

fn far_span(written: &Named<NetworkAclSection>, direction: Direction, it: &NetworkAclEntry) -> Span {
    let section = entry(&written.value, direction, it);
    section.and_then(|section| section.from.or(section.to)).map(|far| far.span).unwrap_or_default()
}
