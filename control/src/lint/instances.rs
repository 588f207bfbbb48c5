//! Instances that serve nobody, and instances that cannot get out.

use localvpc_api::tables::{PortRange, Traffic};

use crate::config::Span;
use crate::config::decode::Named;
use crate::config::document::InstanceSection;
use crate::model::{Instance, Peer, PublicAddressKind, SecurityGroupRule, Target};

use super::catalog::*;
use super::region::Rect;
use super::subject::{Findings, Pair, Subject};

/// Looks at all instances.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for named in pair.written.instances.iter() {
            if let Some(instance) = pair.vpc.instances.iter().find(|it| it.name == named.name) {
                serves(pair, named, instance, findings);
                public_address(pair, named, instance, findings);
            }
        }
    }
}

fn serves(pair: Pair<'_>, named: &Named<InstanceSection>, instance: &Instance, findings: &mut Findings) {
    let Some(first) = named.value.run.first() else { return };
    let groups = instance.security_groups.iter().filter_map(|name| pair.vpc.security_group(name));
    let rules: Vec<&SecurityGroupRule> = groups.flat_map(|group| &group.inbound).collect();
    let admits = |rule: &&&SecurityGroupRule| match &rule.peer {
        Peer::Cidr(_) => true,
        Peer::SecurityGroup(group) => pair.members(group).any(|member| member.name != instance.name),
    };
    let admitting: Vec<&&SecurityGroupRule> = rules.iter().filter(admits).collect();
    let groups = instance.security_groups.join(", ");
    if admitting.is_empty() {
        let message = format!(
            "instance `{}` runs something, and its security groups ({groups}) let nobody in",
            instance.name
        );
        findings
            .add(
                &INSTANCE_ADMITS_NOTHING,
                named.value.security_groups.first().map_or(named.span, |it| it.span),
                message,
            )
            .help("add an inbound rule; if it only asks others, this is as it should be: allow it.");
        return;
    }
    for (command, span) in
        std::iter::once(first).chain(named.value.run.iter().skip(1)).map(|it| (&it.value.0, it.span))
    {
        for port in served_ports(command) {
            let wanted =
                Rect::new(ipnet::Ipv4Net::default().into(), Traffic::Tcp(PortRange::one(port))).traffic;
            let is_admitted = admitting.iter().any(|rule| {
                let anywhere = ipnet::Ipv4Net::default().into();
                Rect::new(anywhere, rule.traffic).traffic.contains(&wanted)
            });
            if !is_admitted {
                let message = format!(
                    "instance `{}` serves tcp {port}, which none of its security groups ({groups}) admits from anyone",
                    instance.name
                );
                findings
                    .add(&SERVED_PORT_NOT_ADMITTED, span, message)
                    .help(format!("add `{{ tcp: {port}, from: ... }}` to the inbound rules of one of them."));
            }
        }
    }
}

/// The ports of `localvpc serve PORT…`.
fn served_ports(command: &str) -> Vec<u16> {
    let Some((_, arguments)) = command.split_once("localvpc serve ") else { return Vec::new() };
    arguments.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

fn public_address(
    pair: Pair<'_>,
    named: &Named<InstanceSection>,
    instance: &Instance,
    findings: &mut Findings,
) {
    let Some(subnet) = pair.vpc.subnet(&instance.subnet) else { return };
    let Some(gateway) = &pair.vpc.internet_gateway else { return };
    let leads_out = pair.vpc.is_public(subnet);
    match instance.public {
        // One that was written has been warned of by the model.
        Some(public) if public.kind == PublicAddressKind::Automatic && !leads_out => {
            let message = format!(
                "instance `{}` gets a public address, but subnet `{}` has no route to the internet gateway: \
                 packets from the internet arrive, and no reply gets back",
                instance.name, subnet.name
            );
            findings.add(&PUBLIC_ADDRESS_WITHOUT_ROUTE, automatic_span(named, pair), message).help(format!(
                "add `{{ to: 0.0.0.0/0, via: {} }}` to the route table of `{}`.",
                gateway.name, subnet.name
            ));
        }
        None => {
            let table = pair.vpc.route_table(&subnet.route_table);
            let to_gateway = |table: &crate::model::RouteTable| {
                table
                    .routes
                    .iter()
                    .any(|it| it.destination.prefix_len() == 0 && it.target == Target::InternetGateway)
            };
            if table.is_some_and(to_gateway) {
                let message = format!(
                    "instance `{}` has no public address, and the way out of subnet `{}` is the internet gateway: \
                     what it sends to the internet is discarded there",
                    instance.name, subnet.name
                );
                findings
                    .add(&INSTANCE_WITHOUT_PUBLIC_ADDRESS, named.value.subnet.span, message)
                    .help("give it an `eip:` or `public_ip: true`, or move it to a private subnet with a NAT gateway.");
            }
        }
        Some(_) => {}
    }
}

/// Where an automatic public address is asked for.
fn automatic_span(named: &Named<InstanceSection>, pair: Pair<'_>) -> Span {
    let subnet = pair.written.subnets.iter().find(|subnet| subnet.name == named.value.subnet.value.0);
    let own = named.value.public_ip.map(|it| it.span);
    own.or(subnet.and_then(|it| it.value.public_ip).map(|it| it.span)).unwrap_or(named.span)
}
