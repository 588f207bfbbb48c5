//! Security groups: rules for nobody, rules that others contain.

use ipnet::IpNet;
use localvpc_api::tables::PortRange;
use localvpc_api::trace::Direction;

use crate::config::Span;
use crate::config::decode::Named;
use crate::config::document::{SecurityGroupSection, SgRuleSection};
use crate::config::values::PeerWord;
use crate::model::{Peer, SecurityGroupRule, text};

use super::catalog::*;
use super::ranges::{list, nobody_has};
use super::region::{Rect, Region};
use super::subject::{DIRECTIONS, Findings, Pair, Subject, far_key, rules, word};

/// Looks at the rules of all groups.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for group in pair.security_groups() {
            for direction in DIRECTIONS {
                far_ends(pair, group, direction, findings);
                contained(pair, group, direction, findings);
            }
        }
    }
}

/// The words of a rule for its far ends.
pub fn peers(rule: &SgRuleSection) -> impl Iterator<Item = (&PeerWord, Span)> {
    rule.from.iter().chain(rule.to.iter()).map(|word| (&word.value, word.span))
}

/// The first word of a rule about its traffic.
pub fn traffic_span(rule: &SgRuleSection) -> Span {
    traffic_spans(rule).first().copied().unwrap_or(rule.span)
}

fn far_ends(
    pair: Pair<'_>,
    group: &Named<SecurityGroupSection>,
    direction: Direction,
    findings: &mut Findings,
) {
    for rule in rules(&group.value, direction) {
        for (peer, span) in peers(rule) {
            match peer {
                PeerWord::Group(name) if pair.members(name).next().is_none() => {
                    let message = format!(
                        "the rule of security group `{}` is `{}` group `{name}`, which no instance carries: it matches nothing",
                        group.name,
                        far_key(direction)
                    );
                    findings.add(&SECURITY_GROUP_RULE_WITHOUT_MEMBERS, span, message).help(format!(
                        "add `{name}` to the `security_groups:` of those it is meant for, or remove the rule."
                    ));
                }
                PeerWord::Cidr(range) if nobody_has(pair, *range) => {
                    let message = format!(
                        "the rule of security group `{}` is `{}` {range}, which nothing in VPC `{}` can have",
                        group.name,
                        far_key(direction),
                        pair.vpc.name
                    );
                    findings.add(&RANGE_NOBODY_HAS, span, message).help(format!(
                        "the VPC is {}; remove the rule, or name the range it is meant for.",
                        list(&pair.vpc.cidrs)
                    ));
                }
                _ => {}
            }
        }
    }
}

/// Rules without which the group would admit the same. The narrowest are tried first, and what was found is not
/// counted on any more, so that all of them can be removed at once.
fn contained(
    pair: Pair<'_>,
    group: &Named<SecurityGroupSection>,
    direction: Direction,
    findings: &mut Findings,
) {
    let Some(meant) = pair.vpc.security_group(&group.name) else { return };
    let all: Vec<(&SecurityGroupRule, Words<'_>)> =
        meant.rules(direction).iter().zip(words(&group.value, direction)).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|index| (breadth(all[*index].0), std::cmp::Reverse(*index)));
    let mut gone: Vec<usize> = Vec::new();
    for index in order {
        let (rule, _) = all[index];
        let takers: Vec<usize> = (0..all.len()).filter(|it| *it != index && !gone.contains(it)).collect();
        let others: Vec<&SecurityGroupRule> = takers.iter().map(|it| all[*it].0).collect();
        let Some(first) = covered(pair, rule, &others) else { continue };
        gone.push(index);
        let (_, words) = all[index];
        let (_, by) = all[takers[first]];
        let message = format!(
            "{} rule `{}` of security group `{}` admits nothing that its other rules do not",
            word(direction),
            text::rule(rule, far_key(direction)),
            group.name
        );
        let related = traffic_span(by.section);
        findings
            .add(&SECURITY_GROUP_RULE_CONTAINED, words.span(), message)
            .related(related, format!("`{}` has it", text::rule(all[takers[first]].0, far_key(direction))))
            .help("remove it, or the wider one if that was not meant.");
    }
}

/// How much a rule admits, roughly: only to try narrow ones first.
fn breadth(rule: &SecurityGroupRule) -> (u8, u32) {
    let Rect { traffic, .. } = Rect::new(anywhere(), rule.traffic);
    let far = match &rule.peer {
        Peer::SecurityGroup(_) => 0,
        Peer::Cidr(cidr) => 1 + cidr.max_prefix_len() - cidr.prefix_len(),
    };
    (far, traffic.last - traffic.first)
}

/// Whether others admit all that a rule does, and the first of them that does its part.
fn covered(pair: Pair<'_>, rule: &SecurityGroupRule, others: &[&SecurityGroupRule]) -> Option<usize> {
    let mut left = match &rule.peer {
        Peer::Cidr(cidr) => Region::from(Rect::new(*cidr, rule.traffic)),
        // Members have addresses of the VPC.
        Peer::SecurityGroup(_) => {
            Region(pair.vpc.cidrs.iter().map(|cidr| Rect::new(*cidr, rule.traffic)).collect())
        }
    };
    let mut first = None;
    for (index, other) in others.iter().enumerate() {
        let far = match (&other.peer, &rule.peer) {
            (Peer::Cidr(cidr), _) => *cidr,
            (Peer::SecurityGroup(one), Peer::SecurityGroup(two)) if one == two => anywhere(),
            _ => continue,
        };
        if left.take(&Rect::new(far, other.traffic)) {
            first = first.or(Some(index));
        }
    }
    first.filter(|_| left.is_empty())
}

/// Where one of the rules that a section stands for is written.
#[derive(Clone, Copy)]
struct Words<'a> {
    section: &'a SgRuleSection,
    traffic: Span,
    peer: Span,
}

impl Words<'_> {
    /// The word that only this rule has.
    fn span(&self) -> Span {
        if traffic_spans(self.section).len() > 1 || peers(self.section).count() == 1 {
            self.traffic
        } else {
            self.peer
        }
    }
}

/// For each rule of the model the words it comes from: a section stands for each of its ports with each of its far ends.
fn words(group: &SecurityGroupSection, direction: Direction) -> Vec<Words<'_>> {
    let mut all = Vec::new();
    for section in rules(group, direction) {
        for traffic in traffic_spans(section) {
            all.extend(peers(section).map(|(_, peer)| Words { section, traffic, peer }));
        }
    }
    all
}

/// The words about traffic, in the order in which the model makes rules of them.
fn traffic_spans(rule: &SgRuleSection) -> Vec<Span> {
    let ports =
        rule.tcp.iter().chain(rule.udp.iter()).map(|ports: &crate::config::Spanned<PortRange>| ports.span);
    let icmp = rule.icmp.as_ref().map(|icmp| icmp.kind.span);
    let number = rule.protocol.map(|number| number.span);
    let all = rule.all.map(|all| all.span);
    ports.chain(icmp).chain(number).chain(all).collect()
}

fn anywhere() -> IpNet {
    ipnet::Ipv4Net::default().into()
}
