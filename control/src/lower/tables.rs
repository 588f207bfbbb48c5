//! The model as rows.

use localvpc_api::tables::{self, Link, LinkKind, Tables};
use localvpc_api::{Generation, LinkId};

use crate::model::{self, Model, NetworkAclEntry, SecurityGroupRule, Target, Vpc};

use super::registry::Naming;

/// MTU inside a VPC, in bytes.
pub const VPC_MTU: u16 = 9001;

/// MTU towards the internet, in bytes (IGW-12).
pub const INTERNET_MTU: u16 = 1500;

/// All rows of a model.
pub fn tables(model: &Model, names: &mut Naming<'_>, generation: Generation) -> Tables {
    let mut tables = Tables { generation, ..Tables::default() };
    if let Some(id) = names.internet_link(model) {
        tables.links.push(Link { id, kind: LinkKind::Internet, mtu: INTERNET_MTU });
    }
    tables.internet_hosts = model.internet_hosts.iter().map(|host| host.ip).collect();
    for vpc in &model.vpcs {
        vpc_rows(vpc, names, &mut tables);
    }
    tables
}

fn vpc_rows(vpc: &Vpc, names: &mut Naming<'_>, tables: &mut Tables) {
    let id = names.vpc(vpc);
    tables.vpcs.push(tables::Vpc { id, cidrs: vpc.cidrs.clone() });
    for subnet in &vpc.subnets {
        tables.subnets.push(tables::Subnet {
            id: names.subnet(vpc, &subnet.name),
            vpc: id,
            cidr: subnet.cidr,
            route_table: names.route_table(vpc, &subnet.route_table),
            network_acl: names.network_acl(vpc, &subnet.network_acl),
        });
    }
    for table in &vpc.route_tables {
        tables.route_tables.push(tables::RouteTable {
            id: names.route_table(vpc, &table.name),
            vpc: id,
            routes: table.routes.iter().map(|route| route_row(vpc, route, names)).collect(),
        });
    }
    for acl in &vpc.network_acls {
        tables.network_acls.push(tables::NetworkAcl {
            id: names.network_acl(vpc, &acl.name),
            inbound: acl.inbound.iter().map(acl_row).collect(),
            outbound: acl.outbound.iter().map(acl_row).collect(),
        });
    }
    for group in &vpc.security_groups {
        tables.security_groups.push(tables::SecurityGroup {
            id: names.security_group(vpc, &group.name),
            vpc: id,
            inbound: group.inbound.iter().map(|rule| rule_row(vpc, rule, names)).collect(),
            outbound: group.outbound.iter().map(|rule| rule_row(vpc, rule, names)).collect(),
        });
    }
    for nat in vpc.nat_gateways.iter().filter(|nat| nat.state == model::NatGatewayState::Available) {
        tables.nat_gateways.push(tables::NatGateway {
            id: names.nat_gateway(vpc, &nat.name),
            subnet: names.subnet(vpc, &nat.subnet),
            addresses: nat.addresses.iter().map(|address| address.private).collect(),
            idle_timeout_ms: nat.idle_timeout_ms,
        });
    }
    for instance in &vpc.instances {
        let link = names.link(vpc, instance);
        add_link(tables, link);
        tables.enis.push(tables::Eni {
            id: names.eni(vpc, &instance.name),
            link,
            subnet: names.subnet(vpc, &instance.subnet),
            addresses: instance.addresses().map(|(private, _)| private).collect(),
            security_groups: instance
                .security_groups
                .iter()
                .map(|name| names.security_group(vpc, name))
                .collect(),
            source_dest_check: instance.source_dest_check,
            tracking: instance.tracking,
            max_connections: instance.max_connections,
            fragments_per_second: instance.fragments_per_second,
        });
    }
    internet_gateway_rows(vpc, names, tables);
}

fn internet_gateway_rows(vpc: &Vpc, names: &mut Naming<'_>, tables: &mut Tables) {
    let Some(gateway) = &vpc.internet_gateway else { return };
    let id = names.internet_gateway(vpc, &gateway.name);
    tables.internet_gateways.push(tables::InternetGateway { id, vpc: names.vpc(vpc) });
    let instances = vpc.instances.iter().flat_map(model::Instance::addresses);
    let instances = instances.filter_map(|(private, public)| Some((public?, private)));
    let nat_gateways = vpc.nat_gateways.iter().flat_map(|nat| &nat.addresses);
    let nat_gateways = nat_gateways.filter_map(|address| Some((address.public?, address.private)));
    tables.public_addresses.extend(
        instances.chain(nat_gateways).map(|(public, private)| tables::PublicAddress {
            internet_gateway: id,
            public,
            private,
        }),
    );
}

/// Several instances of a shared subnet have one link.
fn add_link(tables: &mut Tables, id: LinkId) {
    if !tables.links.iter().any(|link| link.id == id) {
        tables.links.push(Link { id, kind: LinkKind::Enis, mtu: VPC_MTU });
    }
}

fn route_row(vpc: &Vpc, route: &model::Route, names: &mut Naming<'_>) -> tables::Route {
    let target = match &route.target {
        // RT-17.
        _ if vpc.is_blackhole(route) => tables::RouteTarget::Blackhole,
        Target::Local => tables::RouteTarget::Local,
        Target::Blackhole => tables::RouteTarget::Blackhole,
        Target::NatGateway(name) => tables::RouteTarget::NatGateway(names.nat_gateway(vpc, name)),
        Target::Instance(name) => tables::RouteTarget::NetworkInterface(names.eni(vpc, name)),
        Target::InternetGateway => match &vpc.internet_gateway {
            Some(gateway) => tables::RouteTarget::InternetGateway(names.internet_gateway(vpc, &gateway.name)),
            // A gateway that is gone (RT-17); a file cannot say this.
            None => tables::RouteTarget::Blackhole,
        },
    };
    tables::Route { destination: route.destination, target }
}

fn acl_row(entry: &NetworkAclEntry) -> tables::NetworkAclEntry {
    tables::NetworkAclEntry {
        number: entry.number,
        action: entry.action,
        traffic: entry.traffic,
        cidr: entry.cidr,
    }
}

fn rule_row(vpc: &Vpc, rule: &SecurityGroupRule, names: &mut Naming<'_>) -> tables::SecurityGroupRule {
    let peer = match &rule.peer {
        model::Peer::Cidr(cidr) => tables::Peer::Cidr(*cidr),
        model::Peer::SecurityGroup(name) => tables::Peer::SecurityGroup(names.security_group(vpc, name)),
    };
    tables::SecurityGroupRule { traffic: rule.traffic, peer }
}
