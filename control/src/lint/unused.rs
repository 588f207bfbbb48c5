//! What is written and used by nothing.

use crate::model::{NatGatewayState, Target};

use super::catalog::*;
use super::subject::{Findings, Pair, Subject};

/// Looks for groups, ACLs, tables and gateways that nothing uses. What AWS makes by itself (`default`, the main
/// route table) may stand unused.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        groups_acls_tables(pair, findings);
        gateways(pair, findings);
    }
}

/// The name of the group and the ACL that always exist.
const DEFAULT: &str = "default";

fn groups_acls_tables(pair: Pair<'_>, findings: &mut Findings) {
    for group in pair.security_groups().filter(|group| group.name != DEFAULT) {
        if pair.members(&group.name).next().is_none() {
            findings
                .add(
                    &UNUSED_SECURITY_GROUP,
                    group.span,
                    format!("no instance carries security group `{}`", group.name),
                )
                .help("name it in `security_groups:` of an instance, or remove it.");
        }
    }
    for (acl, _) in pair.network_acls().filter(|(acl, _)| acl.name != DEFAULT) {
        if pair.subnets_behind(&acl.name).is_empty() {
            findings
                .add(&UNUSED_NETWORK_ACL, acl.span, format!("no subnet names network ACL `{}`", acl.name))
                .help(format!("write `network_acl: {}` in a subnet, or remove it.", acl.name));
        }
    }
    for table in pair.written.route_tables.iter().filter(|table| table.name != pair.vpc.main_route_table) {
        if !pair.tables_in_use().any(|used| used.name == table.name) {
            findings
                .add(&UNUSED_ROUTE_TABLE, table.span, format!("no subnet uses route table `{}`", table.name))
                .help(format!("write `route_table: {}` in a subnet, or remove it.", table.name));
        }
    }
}

fn gateways(pair: Pair<'_>, findings: &mut Findings) {
    let leads = |target: &Target| {
        pair.tables_in_use().flat_map(|table| &table.routes).any(|route| route.target == *target)
    };
    for named in pair.written.nat_gateways.iter() {
        let available =
            pair.vpc.nat_gateway(&named.name).is_some_and(|nat| nat.state == NatGatewayState::Available);
        if available && !leads(&Target::NatGateway(named.name.clone())) {
            let message =
                format!("no route of a table that a subnet uses leads to NAT gateway `{}`", named.name);
            findings.add(&UNUSED_NAT_GATEWAY, named.span, message).help(format!(
                "add `{{ to: 0.0.0.0/0, via: {} }}` to the table of a private subnet, or remove it.",
                named.name
            ));
        }
    }
    if let Some(name) = &pair.written.internet_gateway
        && !leads(&Target::InternetGateway)
    {
        let gateway = &name.value.0;
        let message = format!("no route of a table that a subnet uses leads to internet gateway `{gateway}`");
        findings.add(&UNUSED_INTERNET_GATEWAY, name.span, message).help(format!(
            "add `{{ to: 0.0.0.0/0, via: {gateway} }}` to the table of a public subnet, or remove it."
        ));
    }
}
