//! AWS's quotas, for a lab that asks for them (`quotas: aws`, `validate --quotas`).
//!
//! What a new account may have is a warning: AWS raises such a quota on request, and the lab works. What AWS gives to
//! nobody is an error. A lab is taken for one account in one Region, and, as subnets have no Availability Zones here,
//! for one Zone.

use localvpc_api::trace::Direction;

use crate::config::Span;
use crate::config::diagnostic::Diagnostics;
use crate::config::document::{LabSection, VpcSection};

use super::instances::elastic_ips_of;
use super::{NatGatewayState, SecurityGroup, Vpc};

/// How many of something there may be.
#[derive(Clone, Copy)]
struct Quota {
    /// For a new account.
    default: usize,
    /// After an increase, where AWS names a limit.
    most: Option<usize>,
    /// The error of the API, or the fact.
    fact: &'static str,
}

const fn quota(default: usize, most: Option<usize>, fact: &'static str) -> Quota {
    Quota { default, most, fact }
}

const VPCS: Quota = quota(5, None, "VPC-27");
const CIDRS: Quota = quota(5, Some(50), "VPC-6");
const SUBNETS: Quota = quota(200, None, "VPC-27");
const ROUTE_TABLES: Quota = quota(200, None, "RT-28");
const ROUTES: Quota = quota(500, Some(1000), "RT-28");
const NETWORK_ACLS: Quota = quota(200, None, "NACL-17");
const ACL_ENTRIES: Quota = quota(20, Some(40), "NACL-17");
const SECURITY_GROUPS: Quota = quota(2500, None, "SG-13");
const RULES: Quota = quota(60, Some(RULES_PER_ENI), "SG-13");
const GROUPS: Quota = quota(5, Some(16), "SG-1");
const ELASTIC_IPS: Quota = quota(5, None, "EIP-12");
const NAT_GATEWAYS: Quota = quota(5, None, "NATGW-45");
const NAT_ELASTIC_IPS: Quota = quota(2, Some(8), "NATGW-7");

/// Rules of a group times groups of an ENI (SG-13).
const RULES_PER_ENI: usize = 1000;

/// Notes what is beyond a quota. Everything else about the document has been validated.
pub fn check(content: &LabSection, vpcs: &[Vpc], errors: &mut Diagnostics) {
    let mut check = Check { errors };
    let spans: Vec<Span> = content.vpcs.iter().map(|named| named.span).collect();
    check.list(&spans, VPCS, "the lab has", "VPCs");
    elastic_ips(content, &mut check);
    nat_gateways(content, vpcs, &mut check);
    let groups: Vec<Span> =
        content.vpcs.iter().flat_map(|named| named.value.security_groups.iter()).map(|it| it.span).collect();
    check.list(&groups, SECURITY_GROUPS, "the lab has", "security groups");
    for (named, vpc) in content.vpcs.iter().zip(vpcs) {
        within_vpc(&named.name, &named.value, &mut check);
        security_groups(&named.value, vpc, &mut check);
    }
}

struct Check<'a> {
    errors: &'a mut Diagnostics,
}

impl Check<'_> {
    /// Notes a list that is too long, at its first item that is one too many.
    fn list(&mut self, items: &[Span], quota: Quota, who: &str, what: &str) {
        let beyond = |most: usize| items.get(most).copied();
        let span = quota.most.and_then(beyond).or_else(|| beyond(quota.default));
        if let Some(span) = span {
            self.number(span, items.len(), quota, who, what);
        }
    }

    /// Notes a number that is too large.
    fn number(&mut self, span: Span, number: usize, quota: Quota, who: &str, what: &str) {
        let Quota { default, most, fact } = quota;
        if let Some(most) = most.filter(|most| number > *most) {
            let message = format!("{who} {number} {what}; AWS takes {most} at most ({fact})");
            self.errors.error(span, message).help("leave some out, or do not ask for AWS's quotas.");
        } else if number > default {
            let message = format!("{who} {number} {what}; AWS's quota is {default} ({fact})");
            let increase = most.map_or_else(String::new, |most| format!(" up to {most}"));
            let help = format!("AWS raises it{increase} on request; here it works as written.");
            self.errors.warning(span, message).id("beyond-quota").help(help);
        }
    }
}

fn elastic_ips(content: &LabSection, check: &mut Check<'_>) {
    let of = |vpc: &VpcSection| -> Vec<Span> {
        let nat_gateways = vpc.nat_gateways.iter().flat_map(|named| named.value.eip.iter());
        let instances = vpc.instances.iter().flat_map(|named| elastic_ips_of(&named.value));
        nat_gateways.chain(instances).map(|eip| eip.span).collect()
    };
    let mut all: Vec<Span> = content.vpcs.iter().flat_map(|named| of(&named.value)).collect();
    all.sort();
    check.list(&all, ELASTIC_IPS, "the lab has", "Elastic IPs");
}

/// A deleted NAT gateway does not count.
fn nat_gateways(content: &LabSection, vpcs: &[Vpc], check: &mut Check<'_>) {
    let mut all = Vec::new();
    for (section, vpc) in content.vpcs.iter().zip(vpcs) {
        for named in section.value.nat_gateways.iter() {
            let gone =
                |nat: &super::NatGateway| nat.name == named.name && nat.state == NatGatewayState::Deleted;
            if vpc.nat_gateways.iter().any(gone) {
                continue;
            }
            all.push(named.span);
            let eips: Vec<Span> = named.value.eip.iter().map(|eip| eip.span).collect();
            check.list(&eips, NAT_ELASTIC_IPS, &format!("NAT gateway `{}` has", named.name), "Elastic IPs");
        }
    }
    check.list(&all, NAT_GATEWAYS, "the lab has", "NAT gateways in one Availability Zone");
}

fn within_vpc(name: &str, vpc: &VpcSection, check: &mut Check<'_>) {
    let who = format!("VPC `{name}` has");
    let cidrs: Vec<Span> = std::iter::once(&vpc.cidr).chain(&vpc.cidrs).map(|cidr| cidr.span).collect();
    check.list(&cidrs, CIDRS, &who, "CIDRs");
    let subnets: Vec<Span> = vpc.subnets.iter().map(|named| named.span).collect();
    check.list(&subnets, SUBNETS, &who, "subnets");
    let tables: Vec<Span> = vpc.route_tables.iter().map(|named| named.span).collect();
    check.list(&tables, ROUTE_TABLES, &who, "route tables");
    for named in vpc.route_tables.iter() {
        let routes: Vec<Span> = named.value.0.routes.iter().map(|route| route.span).collect();
        check.list(&routes, ROUTES, &format!("route table `{}` has", named.name), "routes");
    }
    let acls: Vec<Span> = vpc.network_acls.iter().map(|named| named.span).collect();
    check.list(&acls, NETWORK_ACLS, &who, "network ACLs");
    for named in vpc.network_acls.iter() {
        let who = format!("network ACL `{}` has", named.name);
        for (entries, what) in
            [(&named.value.inbound, "inbound entries"), (&named.value.outbound, "outbound entries")]
        {
            let entries: Vec<Span> = entries.iter().map(|entry| entry.span).collect();
            check.list(&entries, ACL_ENTRIES, &who, what);
        }
    }
}

/// Rules are counted as AWS counts them: one for each port range and far end.
fn security_groups(section: &VpcSection, vpc: &Vpc, check: &mut Check<'_>) {
    let directions = [(Direction::Inbound, "inbound rules"), (Direction::Outbound, "outbound rules")];
    for named in section.security_groups.iter() {
        let Some(group) = vpc.security_group(&named.name) else { continue };
        for (direction, what) in directions {
            let who = format!("security group `{}` has", named.name);
            check.number(named.span, group.rules(direction).len(), RULES, &who, what);
        }
    }
    for named in section.instances.iter() {
        let groups: Vec<Span> = named.value.security_groups.iter().map(|word| word.span).collect();
        check.list(&groups, GROUPS, &format!("instance `{}` carries", named.name), "security groups");
        let Some(instance) = vpc.instances.iter().find(|instance| instance.name == named.name) else {
            continue;
        };
        let carried: Vec<&SecurityGroup> =
            instance.security_groups.iter().filter_map(|name| vpc.security_group(name)).collect();
        for (direction, what) in directions {
            let largest = carried.iter().map(|group| group.rules(direction).len()).max().unwrap_or(0);
            let product = largest * carried.len();
            // A single group beyond it was complained about.
            if product > RULES_PER_ENI && carried.len() > 1 {
                let message = format!(
                    "instance `{}` carries {} security groups of up to {largest} {what}; AWS takes {RULES_PER_ENI} as \
                     the product at most (SG-13)",
                    named.name,
                    carried.len()
                );
                let span = groups.first().copied().unwrap_or(named.span);
                check.errors.error(span, message).help("use fewer groups, or fewer rules in each.");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::config::values::QuotaWord;
    use crate::model::Model;

    /// `severity line message` of everything that is said about quotas.
    fn said(text: &str) -> Vec<String> {
        let list = match Model::read_with_quotas("q.yaml", text, QuotaWord::Aws) {
            Ok((_, warnings)) => warnings,
            Err(errors) => errors,
        };
        let say = |one: &crate::config::Diagnostic| {
            format!("{:?} {}: {}", one.severity, one.span.line, one.message)
        };
        list.list().iter().map(say).collect()
    }

    fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "{}", line(n));
            text
        })
    }

    /// Line 5 is the first of `more`.
    fn vpc(more: &str) -> String {
        format!("lab: q\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n{more}")
    }

    #[test]
    fn only_a_lab_that_asks_is_checked() {
        let entries =
            lines(21, |n| format!("          - {{ rule: {}, allow: all, from: 0.0.0.0/0 }}", n + 1));
        let text = vpc(&format!("    network_acls:\n      a:\n        inbound:\n{entries}"));
        assert!(Model::read("q.yaml", &text).unwrap().1.is_empty());
        let expected = "Warning 28: network ACL `a` has 21 inbound entries; AWS's quota is 20 (NACL-17)";
        assert_eq!(said(&text), [expected]);
        let asking = text.replace("lab: q\n", "lab: q\nquotas: aws\n");
        let rendered = Model::read("q.yaml", &asking).unwrap().1.render();
        assert!(rendered.contains("--> q.yaml:29:13"), "{rendered}");
        assert!(rendered.contains("AWS raises it up to 40 on request"), "{rendered}");
        let off = text.replace("lab: q\n", "lab: q\nquotas: off\n");
        assert!(Model::read("q.yaml", &off).unwrap().1.is_empty());
    }

    #[test]
    fn what_aws_gives_to_nobody_is_an_error() {
        let entries =
            lines(41, |n| format!("          - {{ rule: {}, allow: all, from: 0.0.0.0/0 }}", n + 1));
        let text =
            vpc(&format!("    network_acls:\n      a:\n        outbound:\n{entries}")).replace("from", "to");
        assert_eq!(
            said(&text),
            ["Error 48: network ACL `a` has 41 outbound entries; AWS takes 40 at most (NACL-17)"]
        );
    }

    #[test]
    fn sg_13_rules_are_counted_as_aws_counts_them() {
        let ports = (1..=61).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
        let text = vpc(&format!(
            "    security_groups:\n      web: {{ inbound: [ {{ tcp: [{ports}], from: 0.0.0.0/0 }} ] }}\n"
        ));
        let expected = "Warning 6: security group `web` has 61 inbound rules; AWS's quota is 60 (SG-13)";
        assert_eq!(said(&text), [expected]);
        // 13 groups of 80 rules are 1,040.
        let ports = (1..=80).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
        let group = |n| format!("      g{n}: {{ inbound: [ {{ tcp: [{ports}], from: 0.0.0.0/0 }} ] }}");
        let names = (0..13).map(|n| format!("g{n}")).collect::<Vec<_>>().join(", ");
        let text = vpc(&format!(
            "    subnets: {{ s: {{ cidr: 10.0.1.0/24 }} }}\n    security_groups:\n{}    instances:\n      i: {{ subnet: s, security_groups: [{names}] }}\n",
            lines(13, group)
        ));
        let said = said(&text);
        let errors: Vec<_> = said.iter().filter(|line| line.starts_with("Error")).collect();
        let product = "Error 21: instance `i` carries 13 security groups of up to 80 inbound rules; AWS takes 1000 as the product at most (SG-13)";
        assert_eq!(errors, [product], "{said:?}");
    }

    #[test]
    fn sg_1_natgw_7_eip_12_vpc_6_rt_28() {
        let groups = lines(6, |n| format!("      g{n}: {{}}"));
        let routes = lines(501, |n| {
            format!("        - {{ to: 172.{}.{}.0/24, via: blackhole }}", 16 + n / 256, n % 256)
        });
        let text = vpc(&format!(
            "    internet_gateway: igw
    cidrs: [10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, 10.5.0.0/16]
    subnets: {{ s: {{ cidr: 10.0.1.0/24, route_table: out }} }}
    nat_gateways:
      nat: {{ subnet: s, eip: [203.0.113.1, 203.0.113.2, 203.0.113.3] }}
    instances:
      i: {{ subnet: s, security_groups: [g0, g1, g2, g3, g4, g5], eip: 203.0.113.4 }}
      j: {{ subnet: s, eip: 203.0.113.5 }}
      k: {{ subnet: s, eip: 203.0.113.6 }}
    security_groups:
{groups}    route_tables:
      out:
        - {{ to: 0.0.0.0/0, via: igw }}
{routes}"
        ));
        let mut expected = [
            "Warning 6: VPC `main` has 6 CIDRs; AWS's quota is 5 (VPC-6)",
            "Warning 9: NAT gateway `nat` has 3 Elastic IPs; AWS's quota is 2 (NATGW-7)",
            "Warning 11: instance `i` carries 6 security groups; AWS's quota is 5 (SG-1)",
            "Warning 13: the lab has 6 Elastic IPs; AWS's quota is 5 (EIP-12)",
            "Warning 523: route table `out` has 502 routes; AWS's quota is 500 (RT-28)",
        ];
        expected.sort();
        let mut said = said(&text);
        said.sort();
        assert_eq!(said, expected);
    }

    #[test]
    fn natgw_45_a_deleted_nat_gateway_does_not_count() {
        let nats = lines(6, |n| format!("      n{n}: {{ subnet: s, connectivity: private }}"));
        let text = vpc(&format!("    subnets: {{ s: {{ cidr: 10.0.1.0/24 }} }}\n    nat_gateways:\n{nats}"));
        let expected =
            "Warning 12: the lab has 6 NAT gateways in one Availability Zone; AWS's quota is 5 (NATGW-45)";
        assert_eq!(said(&text), [expected]);
        let deleted = text.replace("n0: { subnet: s,", "n0: { subnet: s, state: deleted,");
        assert_eq!(said(&deleted), Vec::<String>::new());
    }

    #[test]
    fn vpc_27_vpcs() {
        // IGW-21: each has one internet gateway at most.
        let text = format!("lab: q\nvpcs:\n{}", lines(6, |n| format!("  v{n}: {{ cidr: 10.{n}.0.0/16 }}")));
        assert_eq!(said(&text), ["Warning 8: the lab has 6 VPCs; AWS's quota is 5 (VPC-27)"]);
    }
}
