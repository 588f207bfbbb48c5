//! Routes that discard, and routes that are never chosen.

use ipnet::IpNet;

use crate::config::document::RouteSection;
use crate::model::{NatGatewayState, Route, Target};

use super::catalog::*;
use super::ranges::is_private;
use super::region::{Rect, Region};
use super::subject::{Findings, Pair, Subject};
use localvpc_api::tables::Traffic;

/// Looks at all written routes.
pub fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for pair in subject.vpcs() {
        for named in pair.written.route_tables.iter() {
            let Some(table) = pair.vpc.route_table(&named.name) else { continue };
            for section in &named.value.0.routes {
                let destination = section.to.value;
                let Some(route) = table.routes.iter().find(|route| route.destination == destination) else {
                    continue;
                };
                match &route.target {
                    Target::Blackhole => {
                        let message =
                            format!("the route to {destination} leads nowhere: what it matches is discarded");
                        findings.add(&ROUTE_BLACKHOLE, section.via.span, message).help(
                            "let it lead to something, or remove it; a shorter prefix then takes its place.",
                        );
                    }
                    Target::NatGateway(name) => through_nat_gateway(pair, section, name, findings),
                    _ => {}
                }
                never_chosen(section, route, &table.routes, findings);
            }
        }
    }
}

fn through_nat_gateway(pair: Pair<'_>, section: &RouteSection, name: &str, findings: &mut Findings) {
    let vpc = pair.vpc;
    let Some(nat) = vpc.nat_gateway(name).filter(|nat| nat.state == NatGatewayState::Available) else {
        return;
    };
    let Some(subnet) = vpc.subnet(&nat.subnet) else { return };
    let destination = section.to.value;
    let is_public = nat.addresses.iter().any(|address| address.public.is_some());
    let stays = is_private(destination) || vpc.cidrs.iter().any(|cidr| cidr.contains(&destination));
    if !is_public || stays || vpc.is_public(subnet) {
        return;
    }
    // An instance may know a way.
    let forwards = |route: &Route| matches!(route.target, Target::Instance(_));
    if vpc.route_table(&subnet.route_table).is_some_and(|table| table.routes.iter().any(forwards)) {
        return;
    }
    let message = format!(
        "the route to {destination} can never work: NAT gateway `{name}` stands in subnet `{}`, whose route table `{}` does not lead to the internet gateway",
        subnet.name, subnet.route_table
    );
    let circle = subnet.route_table == table_of(pair, section);
    let help = match (&vpc.internet_gateway, circle) {
        (_, true) => format!("this is the table of `{name}`'s own subnet: move `{name}` to a public subnet."),
        (Some(gateway), false) => {
            format!("move `{name}` to a public subnet, or route its subnet to `{}`.", gateway.name)
        }
        (None, false) => format!("move `{name}` to a public subnet."),
    };
    findings.add(&ROUTE_TO_NAT_GATEWAY_WITHOUT_WAY_OUT, section.via.span, message).help(help);
}

/// Name of the route table that a route is written in.
fn table_of<'a>(pair: Pair<'a>, section: &RouteSection) -> &'a str {
    let has = |named: &&'a crate::config::decode::Named<crate::config::document::RouteTableSection>| {
        named
            .value
            .0
            .routes
            .iter()
            .any(|route| route.span == section.span && route.to.span == section.to.span)
    };
    pair.written.route_tables.iter().find(has).map_or("", |named| &named.name)
}

fn never_chosen(section: &RouteSection, route: &Route, routes: &[Route], findings: &mut Findings) {
    let rect = |net: IpNet| Rect::new(net, Traffic::All);
    let mut left = Region::from(rect(route.destination));
    let longer =
        routes.iter().filter(|other| other.destination.prefix_len() > route.destination.prefix_len());
    let takers: Vec<String> = longer
        .filter(|other| left.take(&rect(other.destination)))
        .map(|it| it.destination.to_string())
        .collect();
    if left.is_empty() {
        let message = format!(
            "the route to {} is never chosen: {} together are all of it",
            route.destination,
            takers.join(" and ")
        );
        findings.add(&ROUTE_NEVER_CHOSEN, section.to.span, message).help("remove it, or one of the others.");
    }
}
