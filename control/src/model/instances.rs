//! What stands in subnets: NAT gateways and instances, their addresses, and warnings about dead ends.

use std::net::IpAddr;

use localvpc_api::message::Offload;
use localvpc_api::tables::{
    DEFAULT_FRAGMENTS_PER_SECOND, DEFAULT_MAX_CONNECTIONS, SourceDestCheck, TrackingTimeouts,
};

use crate::config::decode::Named;
use crate::config::document::{InstanceSection, NatGatewaySection, SecondaryIpSection, TrackingSection};
use crate::config::values::{Connectivity, Millis, Name, NatStateWord};
use crate::config::{Span, Spanned};

use super::addresses::{Taken, reserved, usable};
use super::build::{Lab, Scope, offload, place, texts};
use super::id::Kind;
use super::rules::{DEFAULT, group_names};
use super::vpc::no_internet_gateway;
use super::{
    Instance, Namespaces, NatAddress, NatGateway, NatGatewayState, PublicAddress, PublicAddressKind,
    SecondaryAddress, Subnet, Target, Vpc,
};

/// Most addresses of a NAT gateway (NATGW-7).
const MOST_NAT_ADDRESSES: usize = 8;

/// Most security groups of an interface (SG-1).
const MOST_SECURITY_GROUPS: usize = 16;

/// AWS's idle timeout of a NAT gateway (NATGW-22).
const NAT_IDLE_TIMEOUT: Millis = Millis(350_000);

/// Checks and takes every private address that is written. Automatic ones are given out afterwards.
pub fn fixed_addresses(scope: &mut Scope<'_>, subnets: &[Subnet], taken: &mut Taken) {
    let section = &scope.vpc.value;
    for named in section.nat_gateways.iter().filter(|named| !is_deleted(&named.value)) {
        for ip in named.value.ip.iter() {
            fixed_address(
                scope,
                subnets,
                taken,
                &named.value.subnet,
                ip,
                &format!("NAT gateway `{}`", named.name),
            );
        }
    }
    for named in section.instances.iter() {
        let secondary = named.value.secondary_ips.iter().map(|second| &second.0.ip);
        for ip in named.value.ip.iter().chain(secondary) {
            fixed_address(
                scope,
                subnets,
                taken,
                &named.value.subnet,
                ip,
                &format!("instance `{}`", named.name),
            );
        }
    }
}

/// All NAT gateways of a VPC.
pub fn nat_gateways(
    scope: &mut Scope<'_>,
    lab: &mut Lab,
    subnets: &[Subnet],
    taken: &mut Taken,
) -> Vec<NatGateway> {
    let vpc = scope.vpc;
    let mut gateways = Vec::new();
    for named in vpc.value.nat_gateways.iter() {
        let subnet = subnet(scope, subnets, &named.value.subnet);
        let state = match is_deleted(&named.value) {
            true => NatGatewayState::Deleted,
            false => NatGatewayState::Available,
        };
        // A deleted gateway has given its addresses back (NATGW-43).
        let publics = match state {
            NatGatewayState::Available => elastic_ips(scope, lab, named),
            NatGatewayState::Deleted => Vec::new(),
        };
        let Some(subnet) = subnet else { continue };
        let addresses = match state {
            NatGatewayState::Available => nat_addresses(scope, named, subnet, &publics, taken),
            NatGatewayState::Deleted => Vec::new(),
        };
        let timeout = named.value.idle_timeout;
        if let Some(timeout) = timeout {
            check_timeout(scope, timeout, "idle_timeout", (NAT_IDLE_TIMEOUT, NAT_IDLE_TIMEOUT));
        }
        gateways.push(NatGateway {
            name: named.name.clone(),
            id: scope.id(Kind::NatGateway, &named.name),
            place: place(named.span),
            subnet: subnet.name.clone(),
            addresses,
            idle_timeout_ms: timeout.map_or(NAT_IDLE_TIMEOUT, |timeout| timeout.value).0,
            state,
        });
    }
    gateways
}

/// All instances of a VPC. Automatic public addresses are noted in `lab` and given out later.
pub fn instances(
    scope: &mut Scope<'_>,
    lab: &mut Lab,
    subnets: &[Subnet],
    taken: &mut Taken,
) -> Vec<Instance> {
    let vpc = scope.vpc;
    let mut instances = Vec::new();
    for named in vpc.value.instances.iter() {
        lab.take_name(&named.name, named.span, "an instance", scope.errors);
        let subnet = subnet(scope, subnets, &named.value.subnet);
        let security_groups = instance_groups(scope, &named.value);
        attach(scope, lab, named, subnet);
        let tracking =
            named.value.tracking.as_ref().map(|tracking| timeouts(scope, tracking)).unwrap_or_default();
        let max_connections = max_connections(scope, named);
        let public = public_address(scope, lab, named, subnet);
        let secondary = secondary_addresses(scope, lab, named);
        let Some(subnet) = subnet else { continue };
        let Some(ip) = private_address(scope, named, subnet, taken) else { continue };
        instances.push(Instance {
            name: named.name.clone(),
            id: scope.id(Kind::Instance, &named.name),
            eni_id: scope.id(Kind::NetworkInterface, &named.name),
            place: place(named.span),
            subnet: subnet.name.clone(),
            ip,
            public,
            secondary,
            security_groups,
            commands: texts(&named.value.run),
            source_dest_check: match named.value.source_dest_check.map(|check| check.value) {
                Some(false) => SourceDestCheck::Disabled,
                _ => SourceDestCheck::Enabled,
            },
            attach: named.value.attach.as_ref().map(|path| path.value.0.clone()),
            tracking,
            max_connections,
            offload: instance_offload(scope, named, subnet),
            fragments_per_second: named
                .value
                .fragments_per_second
                .map_or(DEFAULT_FRAGMENTS_PER_SECOND, |most| most.value),
        });
    }
    instances
}

/// Warns about routes, gateways and public addresses that no packet can use.
pub fn warn_about_dead_ends(scope: &mut Scope<'_>, vpc: &Vpc) {
    let written = &scope.vpc.value;
    for route in written.route_tables.iter().flat_map(|named| &named.value.0.routes) {
        let forwarder = vpc.instances.iter().find(|instance| instance.name == route.via.value.0);
        if forwarder.is_some_and(|instance| instance.source_dest_check == SourceDestCheck::Enabled) {
            let name = &route.via.value.0;
            let message = format!(
                "the route leads to instance `{name}`, whose source/destination check discards what is not for itself"
            );
            let help = format!("set `source_dest_check: false` on `{name}` to let it forward.");
            scope
                .errors
                .warning(route.via.span, message)
                .id("route-to-instance-that-does-not-forward")
                .help(help);
        }
    }
    warn_about_blackholes(scope, vpc);
    let Some(gateway) = &vpc.internet_gateway else { return };
    warn_about_private_gateways(scope, vpc);
    let leads_out = |name: &str| vpc.subnet(name).is_none_or(|subnet| vpc.is_public(subnet));
    for named in written.nat_gateways.iter() {
        let Some(nat) = vpc.nat_gateways.iter().find(|nat| nat.name == named.name) else { continue };
        if nat.addresses.iter().any(|address| address.public.is_some()) && !leads_out(&nat.subnet) {
            let message = format!(
                "NAT gateway `{}` stands in subnet `{}`, which has no route to the internet gateway: \
                 everything sent through it to the internet will be discarded there",
                nat.name, nat.subnet
            );
            let help = format!(
                "move it to a public subnet, or add `{{ to: 0.0.0.0/0, via: {} }}` to the route table of `{}`.",
                gateway.name, nat.subnet
            );
            scope
                .errors
                .warning(named.value.subnet.span, message)
                .id("nat-gateway-without-way-out")
                .help(help);
        }
    }
    for named in written.instances.iter() {
        let subnet = &named.value.subnet.value.0;
        for eip in elastic_ips_of(&named.value).filter(|_| !leads_out(subnet)) {
            let message = format!(
                "instance `{}` has Elastic IP {}, but subnet `{subnet}` has no route to the internet gateway: \
                 packets from the internet arrive, and no reply gets back",
                named.name, eip.value
            );
            let help =
                format!("add `{{ to: 0.0.0.0/0, via: {} }}` to the route table of `{subnet}`.", gateway.name);
            scope.errors.warning(eip.span, message).id("public-address-without-route").help(help);
        }
    }
}

/// A deleted NAT gateway leaves its routes behind (RT-19): that may be what is to be seen, so it is a warning.
fn warn_about_blackholes(scope: &mut Scope<'_>, vpc: &Vpc) {
    for named in scope.vpc.value.route_tables.iter() {
        for route in &named.value.0.routes {
            let Some(nat) = vpc.nat_gateway(&route.via.value.0) else { continue };
            if nat.state == NatGatewayState::Deleted {
                let message = format!(
                    "the route to {} leads to NAT gateway `{}`, which is deleted: it is a blackhole",
                    route.to.value, nat.name
                );
                let help = "packets that it matches are discarded, and no shorter prefix takes its place.";
                scope.errors.warning(route.via.span, message).id("route-to-deleted-nat-gateway").help(help);
            }
        }
    }
}

/// What comes from a private NAT gateway, the internet gateway drops (NATGW-4).
fn warn_about_private_gateways(scope: &mut Scope<'_>, vpc: &Vpc) {
    for named in scope.vpc.value.route_tables.iter() {
        for route in named.value.0.routes.iter().filter(|route| route.to.value.prefix_len() == 0) {
            let Some(nat) = vpc.nat_gateway(&route.via.value.0) else { continue };
            let private = nat.addresses.iter().any(|address| address.public.is_none());
            let table = vpc.subnet(&nat.subnet).and_then(|subnet| vpc.route_table(&subnet.route_table));
            let on =
                table.and_then(|table| table.routes.iter().find(|next| next.destination == route.to.value));
            if private && on.is_some_and(|on| on.target == Target::InternetGateway) {
                let message = format!(
                    "the route to {} leads to NAT gateway `{}`, which is private, and on to the internet gateway, \
                     which discards what has no public address",
                    route.to.value, nat.name
                );
                let help = format!("give `{}` an `eip` and leave `connectivity: private` out.", nat.name);
                scope
                    .errors
                    .warning(route.via.span, message)
                    .id("private-nat-gateway-to-internet")
                    .help(help);
            }
        }
    }
}

fn is_deleted(section: &NatGatewaySection) -> bool {
    section.state.is_some_and(|state| state.value == NatStateWord::Deleted)
}

fn max_connections(scope: &mut Scope<'_>, named: &Named<InstanceSection>) -> u32 {
    let Some(most) = named.value.max_connections else { return DEFAULT_MAX_CONNECTIONS };
    if most.value == 0 {
        let help = "no connection could ever be tracked: leave it out, or allow at least one.";
        scope.errors.error(most.span, "`max_connections` is zero").help(help);
    }
    most.value
}

/// As the instance says, or its subnet; instances that share a namespace share its device.
fn instance_offload(scope: &mut Scope<'_>, named: &Named<InstanceSection>, subnet: &Subnet) -> Offload {
    let Some(word) = named.value.offload else { return subnet.offload };
    if subnet.namespaces == Namespaces::Shared {
        let message =
            format!("instance `{}` has no device of its own: subnet `{}` is shared", named.name, subnet.name);
        let help = format!("write `offload` on subnet `{}`, for its one device.", subnet.name);
        scope.errors.error(word.span, message).help(help);
    }
    offload(Some(word))
}

fn subnet<'s>(scope: &mut Scope<'_>, subnets: &'s [Subnet], word: &Spanned<Name>) -> Option<&'s Subnet> {
    let names: Vec<&str> = subnets.iter().map(|subnet| subnet.name.as_str()).collect();
    scope.refer("subnet", "subnets", word, &names);
    subnets.iter().find(|subnet| subnet.name == word.value.0)
}

fn fixed_address(
    scope: &mut Scope<'_>,
    subnets: &[Subnet],
    taken: &mut Taken,
    subnet: &Spanned<Name>,
    ip: &Spanned<IpAddr>,
    what: &str,
) {
    // An undefined subnet is complained about elsewhere.
    let Some(subnet) = subnets.iter().find(|candidate| candidate.name == subnet.value.0) else { return };
    let (first, last) = usable(subnet.cidr);
    if !subnet.cidr.contains(&ip.value) {
        let message = format!(
            "{what} has {}, which is outside its subnet `{}` ({})",
            ip.value, subnet.name, subnet.cidr
        );
        scope.errors.error(ip.span, message).help(format!("use an address from {first} to {last}."));
    } else if let Some(why) = reserved(subnet.cidr, ip.value) {
        let message =
            format!("{} is reserved in subnet `{}` ({}): {why}", ip.value, subnet.name, subnet.cidr);
        scope.errors.error(ip.span, message).help(format!("use an address from {first} to {last}."));
    } else if let Err(owner) = taken.claim(ip.value, what, ip.span) {
        let error = scope.errors.error(ip.span, format!("{} is taken by {}", ip.value, owner.what));
        error.help(format!("give {what} another address, or leave `ip` out to get one automatically."));
        if let Some(span) = owner.span {
            error.related(span, "it is used here");
        }
    }
}

fn private_address(
    scope: &mut Scope<'_>,
    named: &Named<InstanceSection>,
    subnet: &Subnet,
    taken: &mut Taken,
) -> Option<IpAddr> {
    if let Some(ip) = named.value.ip {
        return Some(ip.value);
    }
    let what = format!("instance `{}`", named.name);
    let free = taken.automatic(usable(subnet.cidr), &named.name, &what);
    if free.is_none() {
        full(scope, named.value.subnet.span, subnet, &what);
    }
    free
}

fn full(scope: &mut Scope<'_>, span: Span, subnet: &Subnet, what: &str) {
    let message = format!("subnet `{}` ({}) has no address left for {what}", subnet.name, subnet.cidr);
    scope.errors.error(span, message).help("use another subnet, or a larger one.");
}

/// The Elastic IPs of a NAT gateway, checked against its kind (NATGW-1, NATGW-2).
fn elastic_ips(scope: &mut Scope<'_>, lab: &mut Lab, named: &Named<NatGatewaySection>) -> Vec<IpAddr> {
    let section = &named.value;
    let what = format!("NAT gateway `{}`", named.name);
    let private = section.connectivity.filter(|kind| kind.value == Connectivity::Private);
    match (private, section.eip.first()) {
        (Some(_), Some(eip)) => {
            let message = format!("{what} is private, so it cannot have an Elastic IP");
            scope.errors.error(eip.span, message).help("leave `eip` or `connectivity: private` out.");
            return Vec::new();
        }
        (None, None) => {
            let help =
                "write `eip: 203.0.113.20`, for example; one without is written `connectivity: private`.";
            scope.errors.error(named.span, format!("{what} needs an `eip`")).help(help);
        }
        (None, Some(eip)) if scope.vpc.value.internet_gateway.is_none() => {
            let message = format!("{what} is public, but VPC `{}` has no internet gateway", scope.vpc.name);
            scope.errors.error(eip.span, message).help("add `internet_gateway: igw` to the VPC.");
        }
        _ => {}
    }
    if let Some(extra) = section.eip.get(MOST_NAT_ADDRESSES).or(section.ip.get(MOST_NAT_ADDRESSES)) {
        let message = format!("{what} has more than {MOST_NAT_ADDRESSES} addresses");
        scope.errors.error(extra.span, message).help("spread the load over two NAT gateways.");
    }
    section.eip.iter().filter(|eip| lab.take_public(eip, &what, scope.errors)).map(|eip| eip.value).collect()
}

/// Pairs private and public addresses; private ones that are not written are automatic.
fn nat_addresses(
    scope: &mut Scope<'_>,
    named: &Named<NatGatewaySection>,
    subnet: &Subnet,
    publics: &[IpAddr],
    taken: &mut Taken,
) -> Vec<NatAddress> {
    let what = format!("NAT gateway `{}`", named.name);
    let private = named.value.connectivity.is_some_and(|kind| kind.value == Connectivity::Private);
    if let Some(extra) =
        named.value.ip.get(named.value.eip.len()).filter(|_| !private && !named.value.eip.is_empty())
    {
        let message = format!("{what} has more private addresses than Elastic IPs");
        scope.errors.error(extra.span, message).help("give each private address an Elastic IP.");
    }
    let count = publics.len().max(named.value.ip.len()).clamp(1, MOST_NAT_ADDRESSES);
    let mut addresses = Vec::new();
    for index in 0..count {
        let key = if index == 0 { named.name.clone() } else { format!("{} {index}", named.name) };
        let written = named.value.ip.get(index).map(|ip| ip.value);
        let Some(private) = written.or_else(|| taken.automatic(usable(subnet.cidr), &key, &what)) else {
            full(scope, named.value.subnet.span, subnet, &what);
            break;
        };
        addresses.push(NatAddress { private, public: publics.get(index).copied() });
    }
    addresses
}

fn instance_groups(scope: &mut Scope<'_>, section: &InstanceSection) -> Vec<String> {
    let known = group_names(scope);
    if let Some(extra) = section.security_groups.get(MOST_SECURITY_GROUPS) {
        let message = format!("an instance carries at most {MOST_SECURITY_GROUPS} security groups");
        scope.errors.error(extra.span, message).help("merge some of them.");
    }
    let mut groups: Vec<String> = Vec::new();
    for word in section.security_groups.iter() {
        if groups.contains(&word.value.0) {
            let message = format!("security group `{}` is named twice", word.value.0);
            scope.errors.error(word.span, message).help("name it once.");
        } else if scope.refer("security group", "security_groups", word, &known) {
            groups.push(word.value.0.clone());
        }
    }
    if groups.is_empty() { vec![DEFAULT.to_owned()] } else { groups }
}

fn public_address(
    scope: &mut Scope<'_>,
    lab: &mut Lab,
    named: &Named<InstanceSection>,
    subnet: Option<&Subnet>,
) -> Option<PublicAddress> {
    let section = &named.value;
    let what = format!("instance `{}`", named.name);
    let asked = section.public_ip.filter(|public| public.value);
    let has_gateway = scope.vpc.value.internet_gateway.is_some();
    if let Some(eip) = &section.eip {
        if !has_gateway {
            no_internet_gateway(scope, eip.span, &what);
        }
        if let Some(asked) = asked {
            let message = format!("{what} has an `eip` and asks for an automatic public address");
            scope
                .errors
                .error(asked.span, message)
                .help("an Elastic IP takes the automatic one's place: keep one.");
        }
        lab.take_public(eip, &what, scope.errors);
        return Some(PublicAddress { ip: eip.value, kind: PublicAddressKind::Elastic });
    }
    if let Some(asked) = asked.filter(|_| !has_gateway) {
        no_internet_gateway(scope, asked.span, &what);
    }
    let wanted =
        section.public_ip.map_or(subnet.is_some_and(|subnet| subnet.public_ip), |public| public.value);
    if wanted && has_gateway {
        lab.automatic.push((named.name.clone(), asked.map_or(named.span, |asked| asked.span)));
    }
    None
}

/// The Elastic IPs of an instance, in the order of its addresses.
pub fn elastic_ips_of(section: &InstanceSection) -> impl Iterator<Item = &Spanned<IpAddr>> {
    section.eip.iter().chain(section.secondary_ips.iter().filter_map(|second| second.0.eip.as_ref()))
}

fn secondary_addresses(
    scope: &mut Scope<'_>,
    lab: &mut Lab,
    named: &Named<InstanceSection>,
) -> Vec<SecondaryAddress> {
    let what = format!("instance `{}`", named.name);
    let mut addresses = Vec::new();
    for SecondaryIpSection(second) in named.value.secondary_ips.iter() {
        if let Some(eip) = &second.eip {
            if scope.vpc.value.internet_gateway.is_none() {
                no_internet_gateway(scope, eip.span, &what);
            }
            lab.take_public(eip, &what, scope.errors);
        }
        addresses.push(SecondaryAddress { ip: second.ip.value, eip: second.eip.map(|eip| eip.value) });
    }
    addresses
}

fn attach(scope: &mut Scope<'_>, lab: &mut Lab, named: &Named<InstanceSection>, subnet: Option<&Subnet>) {
    let Some(path) = &named.value.attach else { return };
    if subnet.is_some_and(|subnet| subnet.namespaces == Namespaces::Shared) {
        let message =
            format!("instance `{}` is in a shared subnet, so it has no namespace to attach", named.name);
        let help = "put it into a subnet without `namespace: shared`.";
        scope.errors.error(path.span, message).help(help);
    }
    if let Some((first, other)) = lab.attached.get(&path.value.0) {
        let message = format!("instance `{other}` attaches to this namespace already");
        let first = *first;
        scope
            .errors
            .error(path.span, message)
            .related(first, "it does here")
            .help("one instance per namespace.");
    } else {
        lab.attached.insert(path.value.0.clone(), (path.span, named.name.clone()));
    }
}

/// Tracking timeouts with AWS's defaults; other values than AWS takes are a warning (SG-37).
fn timeouts(scope: &mut Scope<'_>, section: &TrackingSection) -> TrackingTimeouts {
    const S: u64 = 1_000;
    let default = TrackingTimeouts::default();
    let mut read = |written: Option<Spanned<Millis>>, key: &str, default: u64, (low, high): (u64, u64)| {
        let Some(timeout) = written else { return default };
        check_timeout(scope, timeout, key, (Millis(low), Millis(high)));
        timeout.value.0
    };
    TrackingTimeouts {
        tcp_established_ms: read(
            section.tcp_established,
            "tcp_established",
            default.tcp_established_ms,
            (60 * S, 432_000 * S),
        ),
        udp_ms: read(section.udp, "udp", default.udp_ms, (30 * S, 60 * S)),
        udp_stream_ms: read(section.udp_stream, "udp_stream", default.udp_stream_ms, (60 * S, 180 * S)),
        other_ms: read(section.other, "other", default.other_ms, (600 * S, 600 * S)),
    }
}

fn check_timeout(scope: &mut Scope<'_>, timeout: Spanned<Millis>, key: &str, (low, high): (Millis, Millis)) {
    let value = timeout.value;
    if value.0 == 0 {
        scope
            .errors
            .error(timeout.span, format!("`{key}` is zero"))
            .help("nothing would ever be remembered.");
    } else if low == high && value != low {
        let message = format!("`{key}` is {value}; AWS always uses {low}");
        scope.errors.warning(timeout.span, message).id("timeout-beyond-aws").help("it is used as written.");
    } else if !(low.0..=high.0).contains(&value.0) {
        let message = format!("`{key}` is {value}; AWS takes {low} to {high}");
        scope.errors.warning(timeout.span, message).id("timeout-beyond-aws").help("it is used as written.");
    }
}
