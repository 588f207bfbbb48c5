//! Route tables: which one is main, local routes, and which targets a destination may have.

use ipnet::IpNet;

use crate::config::Span;
use crate::config::diagnostic::{nearest, quoted};
use crate::config::document::{RouteSection, RouteTableRecord};

use super::build::{Scope, check_cidr, place};
use super::id::Kind;
use super::{Route, RouteTable, Target};

/// The name of the route table that every VPC has (VPC-13).
const MAIN: &str = "main";

/// All route tables of a VPC, and the name of the main one.
pub fn route_tables(scope: &mut Scope<'_>, cidrs: &[IpNet]) -> (Vec<RouteTable>, String) {
    let section = &scope.vpc.value;
    let main = main_table(scope);
    let mut tables: Vec<RouteTable> = section
        .route_tables
        .iter()
        .map(|named| RouteTable {
            name: named.name.clone(),
            id: scope.id(Kind::RouteTable, &named.name),
            place: Some(place(named.span)),
            routes: routes(scope, &named.name, &named.value.0, cidrs),
        })
        .collect();
    if !tables.iter().any(|table| table.name == main) {
        tables.push(RouteTable {
            name: main.clone(),
            id: scope.id(Kind::RouteTable, &main),
            place: None,
            routes: local_routes(cidrs, &[]),
        });
    }
    (tables, main)
}

/// Names of the route tables that a subnet may refer to.
pub fn route_table_names<'a>(scope: &Scope<'a>) -> Vec<&'a str> {
    let names = scope.vpc.value.route_tables.iter().map(|named| named.name.as_str());
    names.chain([MAIN]).collect()
}

fn main_table(scope: &mut Scope<'_>) -> String {
    let section = &scope.vpc.value;
    let mut chosen: Option<(String, Span)> = None;
    if let Some(word) = &section.main_route_table
        && scope.refer("route table", "route_tables", word, &route_table_names(scope))
    {
        chosen = Some((word.value.0.clone(), word.span));
    }
    for named in section.route_tables.iter() {
        let Some(main) = named.value.0.main.filter(|main| main.value) else { continue };
        match &chosen {
            Some((other, span)) if *other != named.name => {
                let message =
                    format!("route tables `{other}` and `{}` cannot both be the main one", named.name);
                let (span, note) = (*span, format!("`{other}` is made the main one here"));
                scope
                    .errors
                    .error(main.span, message)
                    .related(span, note)
                    .help("a VPC has one main route table.");
            }
            _ => chosen = Some((named.name.clone(), main.span)),
        }
    }
    chosen.map_or_else(|| MAIN.to_owned(), |(name, _)| name)
}

fn routes(scope: &mut Scope<'_>, table: &str, record: &RouteTableRecord, cidrs: &[IpNet]) -> Vec<Route> {
    let mut written: Vec<(Route, Span)> = Vec::new();
    for section in &record.routes {
        let destination = *section.to;
        if !check_cidr(scope.errors, &section.to, &format!("destination {destination}")) {
            continue;
        }
        if let Some((_, first)) = written.iter().find(|(route, _)| route.destination == destination) {
            let message = format!("route table `{table}` has two routes to {destination}");
            let first = *first;
            scope
                .errors
                .error(section.to.span, message)
                .related(first, "the first one")
                .help("keep one of the two.");
            continue;
        }
        let Some(target) = target(scope, section) else { continue };
        check_destination(scope, section, &target, cidrs);
        written.push((Route { destination, target, place: Some(place(section.span)) }, section.to.span));
    }
    let written: Vec<Route> = written.into_iter().map(|(route, _)| route).collect();
    let mut all = local_routes(cidrs, &written);
    all.extend(written);
    all
}

/// One local route for each CIDR of the VPC (RT-5) that no written route replaces.
fn local_routes(cidrs: &[IpNet], written: &[Route]) -> Vec<Route> {
    cidrs
        .iter()
        .filter(|cidr| !written.iter().any(|route| route.destination == **cidr))
        .map(|cidr| Route { destination: *cidr, target: Target::Local, place: None })
        .collect()
}

fn target(scope: &mut Scope<'_>, section: &RouteSection) -> Option<Target> {
    let vpc = scope.vpc;
    let (word, span) = (section.via.value.0.as_str(), section.via.span);
    match word {
        "local" => return Some(Target::Local),
        "blackhole" => return Some(Target::Blackhole),
        _ => {}
    }
    let gateway = vpc.value.internet_gateway.as_ref().map(|name| name.value.0.as_str());
    if gateway == Some(word) {
        return Some(Target::InternetGateway);
    }
    if vpc.value.nat_gateways.iter().any(|named| named.name == word) {
        return Some(Target::NatGateway(word.to_owned()));
    }
    if vpc.value.instances.iter().any(|named| named.name == word) {
        return Some(Target::Instance(word.to_owned()));
    }
    // Its section has another name, which has been said.
    if ["internet_gateway", "nat_gateways", "instances"].iter().any(|key| scope.errors.has_slip(key)) {
        return None;
    }
    let nat_gateways = vpc.value.nat_gateways.iter().map(|named| named.name.as_str());
    let instances = vpc.value.instances.iter().map(|named| named.name.as_str());
    let candidates: Vec<&str> = gateway.into_iter().chain(nat_gateways).chain(instances).collect();
    let help = match nearest(word, candidates.iter().copied().chain(["local", "blackhole"])) {
        Some(near) => format!("did you mean `{near}`?"),
        // What a file looks like after its NAT gateway was cut out.
        _ if vpc.value.nat_gateways.is_empty() && !candidates.is_empty() => format!(
            "in VPC `{}` a route can lead to {}, or `blackhole`; for a NAT gateway that was deleted, keep it with `state: deleted`.",
            vpc.name,
            quoted(candidates)
        ),
        None if candidates.is_empty() => {
            format!("VPC `{}` has no internet gateway, NAT gateway or instance yet: define one.", vpc.name)
        }
        None => format!("in VPC `{}` a route can lead to {}, or `blackhole`.", vpc.name, quoted(candidates)),
    };
    let message = format!("the route leads to `{word}`, which is not defined in VPC `{}`", vpc.name);
    scope.errors.error_once(span, message).help(help);
    None
}

/// What AWS says about destinations inside the VPC and in the service range (RT-5, RT-9, VPC-31).
fn check_destination(scope: &mut Scope<'_>, section: &RouteSection, target: &Target, cidrs: &[IpNet]) {
    let destination = *section.to;
    let replaces_local = cidrs.contains(&destination);
    let inside = cidrs.iter().any(|cidr| cidr.contains(&destination));
    let vpc = &scope.vpc.name;
    if *target == Target::Local && !replaces_local {
        let help = format!("`local` routes exist for {} without being written.", list(cidrs));
        let message = format!("{destination} is not a CIDR of VPC `{vpc}`, so it cannot be `local`");
        scope.errors.error(section.via.span, message).help(help);
    } else if inside && *target == Target::InternetGateway {
        let message =
            format!("{destination} is inside VPC `{vpc}`, so it cannot lead to the internet gateway");
        let help = "inside the VPC a route leads to `local`, a NAT gateway or an instance.";
        scope.errors.error(section.via.span, message).help(help);
    } else if inside
        && !replaces_local
        && !scope.vpc.value.subnets.iter().any(|named| *named.value.cidr == destination)
    {
        let message = format!("{destination} is inside VPC `{vpc}` but is not the CIDR of a subnet");
        let help = "a route more specific than `local` must be for exactly one whole subnet.";
        scope.errors.error(section.to.span, message).help(help);
    }
    // A constant that parses.
    let services: Option<IpNet> = "169.254.168.0/22".parse().ok();
    if services.is_some_and(|services| services.contains(&destination)) {
        let message = format!("{destination} is in 169.254.168.0/22, which AWS keeps for its services");
        scope.errors.error(section.to.span, message).help("no route can be made for it.");
    }
}

fn list(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}
