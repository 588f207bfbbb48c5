//! One VPC: its CIDRs, its subnets, and what AWS says about their ranges.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::decode::Named;
use crate::config::diagnostic::Diagnostics;
use crate::config::document::VpcSection;
use crate::config::values::NamespaceMode;
use crate::config::{Span, Spanned};

use super::addresses::{Taken, fitting, forbidden_beside, forbidden_for_vpc, overlap};
use super::build::{Lab, Scope, check_cidr, offload, place};
use super::id::{Kind, resource_id};
use super::instances::{fixed_addresses, instances, nat_gateways, warn_about_dead_ends};
use super::routes::{route_table_names, route_tables};
use super::rules::{DEFAULT, network_acls, security_groups};
use super::{InternetGateway, Namespaces, Subnet, Vpc};

/// Validates a VPC with everything in it.
pub fn vpc(named: &Named<VpcSection>, lab: &mut Lab, errors: &mut Diagnostics) -> Vpc {
    let lab_name = lab.name.clone();
    let mut scope = Scope { lab: &lab_name, vpc: named, errors };
    let section = &named.value;
    route_target_names(&mut scope);
    let cidrs = vpc_cidrs(&mut scope);
    let internet_gateway = section.internet_gateway.as_ref().map(|word| InternetGateway {
        name: word.value.0.clone(),
        id: scope.id(Kind::InternetGateway, &word.value.0),
        place: place(word.span),
    });
    let (route_tables, main_route_table) = route_tables(&mut scope, &cidrs);
    let subnets = subnets(&mut scope, lab, &cidrs, &main_route_table);
    let network_acls = network_acls(&mut scope);
    let security_groups = security_groups(&mut scope);
    let mut taken = Taken::default();
    fixed_addresses(&mut scope, &subnets, &mut taken);
    let nat_gateways = nat_gateways(&mut scope, lab, &subnets, &mut taken);
    let instances = instances(&mut scope, lab, &subnets, &mut taken);
    let vpc = Vpc {
        name: named.name.clone(),
        id: resource_id(scope.lab, Kind::Vpc, "", &named.name),
        place: place(named.span),
        cidrs,
        internet_gateway,
        main_route_table,
        subnets,
        route_tables,
        network_acls,
        security_groups,
        nat_gateways,
        instances,
    };
    warn_about_dead_ends(&mut scope, &vpc);
    vpc
}

/// A word after `via:` must mean one thing.
fn route_target_names(scope: &mut Scope<'_>) {
    let section = &scope.vpc.value;
    let mut seen: BTreeMap<&str, (Span, &str)> = BTreeMap::new();
    let gateway = section
        .internet_gateway
        .iter()
        .map(|name| (name.value.0.as_str(), name.span, "the internet gateway"));
    let nat_gateways =
        section.nat_gateways.iter().map(|named| (named.name.as_str(), named.span, "a NAT gateway"));
    let instances = section.instances.iter().map(|named| (named.name.as_str(), named.span, "an instance"));
    for (name, span, what) in gateway.chain(nat_gateways).chain(instances) {
        if what != "an instance" && matches!(name, "local" | "blackhole") {
            scope
                .errors
                .error(span, format!("{what} cannot be called `{name}`"))
                .help("it is a target of routes.");
        } else if let Some((first, other)) = seen.insert(name, (span, what)) {
            scope
                .errors
                .error(span, format!("the name `{name}` is taken by {other} of VPC `{}`", scope.vpc.name))
                .related(first, "it is here")
                .help("routes name gateways and instances alike, so their names differ.");
        }
    }
}

fn vpc_cidrs(scope: &mut Scope<'_>) -> Vec<IpNet> {
    let section = &scope.vpc.value;
    let mut good: Vec<Spanned<IpNet>> = Vec::new();
    for cidr in std::iter::once(&section.cidr).chain(&section.cidrs) {
        let what = format!("VPC `{}` ({})", scope.vpc.name, cidr.value);
        if !check_cidr(scope.errors, cidr, &what) || !check_size(scope.errors, cidr, &what, "a VPC") {
            continue;
        }
        let earlier: Vec<IpNet> = good.iter().map(|earlier| earlier.value).collect();
        if let Some(range) = forbidden_for_vpc(cidr.value) {
            let message = format!("{what} is in {range}, which no VPC can use");
            scope.errors.error(cidr.span, message).help("use a private range, such as 10.0.0.0/16.");
        } else if let Some(other) = good.iter().find(|other| overlap(other.value, cidr.value)) {
            let message =
                format!("secondary CIDR {} of VPC `{}` overlaps {}", cidr.value, scope.vpc.name, other.value);
            let related = other.span;
            scope
                .errors
                .error(cidr.span, message)
                .related(related, "it is here")
                .help("the CIDRs of a VPC are disjoint.");
        } else if let Some(why) = forbidden_beside(&earlier, cidr.value) {
            let message = format!(
                "AWS does not add {} to VPC `{}` ({}): {why}",
                cidr.value, scope.vpc.name, section.cidr.value
            );
            let help = "a part of 100.64.0.0/10 can always be added.";
            scope.errors.error(cidr.span, message).help(help);
        } else {
            good.push(*cidr);
        }
    }
    good.into_iter().map(|cidr| cidr.value).collect()
}

/// Whether a CIDR has a size that AWS takes (VPC-2, VPC-15).
fn check_size(errors: &mut Diagnostics, cidr: &Spanned<IpNet>, what: &str, noun: &str) -> bool {
    let size = match cidr.prefix_len() {
        16..=28 => return true,
        ..16 => "too large",
        29.. => "too small",
    };
    errors
        .error(cidr.span, format!("{what} is {size}"))
        .help(format!("{noun} takes a prefix from /16 to /28."));
    false
}

fn subnets(scope: &mut Scope<'_>, lab: &mut Lab, cidrs: &[IpNet], main: &str) -> Vec<Subnet> {
    let section = &scope.vpc.value;
    let mut good: Vec<(&str, Spanned<IpNet>)> = Vec::new();
    let mut subnets = Vec::new();
    for named in section.subnets.iter() {
        let (name, written) = (&named.name, &named.value);
        if subnet_cidr(scope, name, &written.cidr, cidrs, &good) {
            good.push((name, written.cidr));
        }
        let tables = route_table_names(scope);
        let route_table = written
            .route_table
            .as_ref()
            .filter(|word| scope.refer("route table", "route_tables", word, &tables));
        let acls: Vec<&str> =
            section.network_acls.iter().map(|acl| acl.name.as_str()).chain([DEFAULT]).collect();
        let network_acl = written
            .network_acl
            .as_ref()
            .filter(|word| scope.refer("network ACL", "network_acls", word, &acls));
        let namespaces = match written.namespace.map(|mode| mode.value) {
            Some(NamespaceMode::Shared) => Namespaces::Shared,
            Some(NamespaceMode::Instance) | None => Namespaces::PerInstance,
        };
        if namespaces == Namespaces::Shared {
            lab.take_name(name, named.span, "a shared subnet", scope.errors);
        }
        let public_ip = written.public_ip.filter(|public| public.value);
        if let Some(public) = public_ip.filter(|_| section.internet_gateway.is_none()) {
            no_internet_gateway(scope, public.span, &format!("subnet `{name}`"));
        }
        subnets.push(Subnet {
            name: name.clone(),
            id: scope.id(Kind::Subnet, name),
            place: place(named.span),
            cidr: written.cidr.trunc(),
            route_table: route_table.map_or_else(|| main.to_owned(), |word| word.value.0.clone()),
            network_acl: network_acl.map_or_else(|| DEFAULT.to_owned(), |word| word.value.0.clone()),
            namespaces,
            offload: offload(written.offload),
            public_ip: public_ip.is_some(),
        });
    }
    subnets
}

fn subnet_cidr(
    scope: &mut Scope<'_>,
    name: &str,
    cidr: &Spanned<IpNet>,
    vpc_cidrs: &[IpNet],
    others: &[(&str, Spanned<IpNet>)],
) -> bool {
    let what = format!("subnet `{name}` ({})", cidr.value);
    if !check_cidr(scope.errors, cidr, &what) || !check_size(scope.errors, cidr, &what, "a subnet") {
        return false;
    }
    let taken: Vec<IpNet> = others.iter().map(|(_, other)| other.value).collect();
    let fits = fitting(cidr.value, vpc_cidrs, &taken).map(|cidr| format!("{cidr} would fit."));
    if !vpc_cidrs.iter().any(|vpc| vpc.contains(&cidr.value)) {
        // A VPC without any good CIDR has been complained about.
        if let [primary, ..] = vpc_cidrs {
            let message = format!("{what} is outside VPC `{}` ({primary})", scope.vpc.name);
            let error = scope.errors.error(cidr.span, message);
            error.help(fits.unwrap_or_else(|| format!("take a part of {primary}.")));
        }
        return false;
    }
    if let Some((other, range)) = others.iter().find(|(_, other)| overlap(other.value, cidr.value)) {
        let message = format!("{what} overlaps subnet `{other}` ({})", range.value);
        let error = scope.errors.error(cidr.span, message);
        error.related(range.span, format!("subnet `{other}` is here"));
        error.help(fits.unwrap_or_else(|| {
            "the VPC has no room for it: use a smaller subnet or a secondary CIDR.".into()
        }));
        return false;
    }
    true
}

/// Notes that public addresses need an internet gateway.
pub fn no_internet_gateway(scope: &mut Scope<'_>, span: Span, what: &str) {
    let message =
        format!("{what} asks for public addresses, but VPC `{}` has no internet gateway", scope.vpc.name);
    scope.errors.error(span, message).help("add `internet_gateway: igw` to the VPC.");
}
