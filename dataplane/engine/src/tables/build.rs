//! Rows → tables, or the row at fault.
//!
//! Two steps: [`check`] proves that the rows refer to each other as they should, and
//! what follows turns ids into positions and cannot fail. Compiled tables keep the
//! order of the rows.

mod check;
#[cfg(test)]
mod fixture;
mod index;

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::SecurityGroupId;
use localvpc_api::message::InvalidRow;
use localvpc_api::tables as api;

use super::*;
use crate::metrics::Metrics;
use index::Index;

/// Compiles a push. Counters and allowances of new ENIs and NAT gateways are made in `metrics`, and only if the push is valid.
///
/// # Errors
///
/// The first row that is invalid, and why. Nothing was changed.
pub fn build(rows: &localvpc_api::Tables, metrics: &Metrics) -> Result<Tables, InvalidRow> {
    let index = check::check(rows)?;
    Ok(Tables {
        generation: rows.generation,
        vpcs: vpcs(rows, &index),
        subnets: rows.subnets.iter().map(|row| subnet(row, &index)).collect(),
        route_tables: rows.route_tables.iter().map(|row| route_table(row, &index)).collect(),
        network_acls: rows.network_acls.iter().map(network_acl).collect(),
        enis: enis(rows, &index, metrics),
        nat_gateways: rows.nat_gateways.iter().map(|row| nat_gateway(row, &index, metrics)).collect(),
        internet_gateways: internet_gateways(rows, &index),
        links: links(rows),
        internet: internet(rows, &index),
        eni_ids: rows.enis.iter().map(|row| row.id).collect(),
        nat_gateway_ids: rows.nat_gateways.iter().map(|row| row.id).collect(),
        nat_addresses: rows
            .nat_gateways
            .iter()
            .flat_map(|row| row.addresses.iter().map(|address| (row.id, *address)))
            .collect(),
    })
}

fn vpcs(rows: &localvpc_api::Tables, index: &Index) -> Vec<Vpc> {
    let mut owners: Vec<HashMap<IpAddr, Owner, RandomState>> =
        rows.vpcs.iter().map(|_| HashMap::default()).collect();
    let mut own = |subnet, addresses: &[IpAddr], owner| {
        let subnet = &rows.subnets[index.subnets.at(subnet).0 as usize];
        let owners = &mut owners[index.vpcs.at(subnet.vpc).0 as usize];
        owners.extend(addresses.iter().map(|address| (*address, owner)));
    };
    for row in &rows.enis {
        own(row.subnet, &row.addresses, Owner::Eni(index.enis.at(row.id)));
    }
    for row in &rows.nat_gateways {
        own(row.subnet, &row.addresses, Owner::NatGateway(index.nat_gateways.at(row.id)));
    }
    let mut subnets: Vec<Vec<(IpNet, u32)>> = vec![Vec::new(); rows.vpcs.len()];
    for row in &rows.subnets {
        subnets[index.vpcs.at(row.vpc).0 as usize].push((row.cidr, index.subnets.at(row.id).0));
    }
    let parts = rows.vpcs.iter().zip(owners).zip(subnets);
    parts
        .map(|((row, owners), subnets)| Vpc {
            id: row.id,
            cidrs: row.cidrs.clone(),
            owners,
            subnets: Lpm::build(subnets),
        })
        .collect()
}

fn subnet(row: &api::Subnet, index: &Index) -> Subnet {
    Subnet {
        id: row.id,
        vpc: index.vpcs.at(row.vpc),
        cidr: row.cidr,
        route_table: index.route_tables.at(row.route_table),
        network_acl: index.network_acls.at(row.network_acl),
    }
}

fn route_table(row: &api::RouteTable, index: &Index) -> RouteTable {
    let route = |route: &api::Route| Route {
        destination: route.destination,
        target: match route.target {
            api::RouteTarget::Local => Target::Local,
            api::RouteTarget::InternetGateway(id) => Target::InternetGateway(index.internet_gateways.at(id)),
            api::RouteTarget::NatGateway(id) => Target::NatGateway(index.nat_gateways.at(id)),
            api::RouteTarget::NetworkInterface(id) => Target::NetworkInterface(index.enis.at(id)),
            api::RouteTarget::Blackhole => Target::Blackhole,
        },
    };
    RouteTable {
        id: row.id,
        longest: Lpm::build(row.routes.iter().map(|row| row.destination).zip(0..)),
        routes: row.routes.iter().map(route).collect(),
    }
}

fn network_acl(row: &api::NetworkAcl) -> NetworkAcl {
    NetworkAcl {
        id: row.id,
        inbound: AclRules::build(&row.inbound),
        outbound: AclRules::build(&row.outbound),
    }
}

fn enis<'a>(rows: &'a localvpc_api::Tables, index: &Index, metrics: &Metrics) -> Vec<Eni> {
    let groups: HashMap<SecurityGroupId, &api::SecurityGroup, RandomState> =
        rows.security_groups.iter().map(|row| (row.id, row)).collect();
    let members = members(rows);
    let compile = |ids: &[SecurityGroupId], rules: fn(&api::SecurityGroup) -> &[api::SecurityGroupRule]| {
        let members = |id| members.get(&id).map_or(&[][..], Vec::as_slice);
        Arc::new(RuleSet::build(ids.iter().map(|id| (*id, rules(groups[id]))), members))
    };
    let mut shared: HashMap<&[SecurityGroupId], (Arc<RuleSet>, Arc<RuleSet>), RandomState> =
        HashMap::default();
    let eni = |row: &'a api::Eni| {
        let (inbound, outbound) = shared
            .entry(&row.security_groups)
            .or_insert_with_key(|ids| {
                (compile(ids, |group| &group.inbound), compile(ids, |group| &group.outbound))
            })
            .clone();
        Eni {
            id: row.id,
            link: row.link,
            subnet: index.subnets.at(row.subnet),
            addresses: row.addresses.clone(),
            inbound,
            outbound,
            source_dest_check: row.source_dest_check,
            tracking: row.tracking,
            max_connections: row.max_connections,
            fragments_per_second: row.fragments_per_second,
            allowance: metrics.allowances.of(row.id),
            metrics: metrics.eni(row.id),
        }
    };
    rows.enis.iter().map(eni).collect()
}

/// The private addresses behind a reference to a group: those of the ENIs that carry it (SG-20), the referring
/// ENI's own included (SG-21). Each push counts them anew, so that membership is live (SG-22).
fn members(rows: &localvpc_api::Tables) -> HashMap<SecurityGroupId, Vec<IpAddr>, RandomState> {
    let mut members: HashMap<SecurityGroupId, Vec<IpAddr>, RandomState> = HashMap::default();
    for eni in &rows.enis {
        for group in &eni.security_groups {
            members.entry(*group).or_default().extend(&eni.addresses);
        }
    }
    members
}

fn nat_gateway(row: &api::NatGateway, index: &Index, metrics: &Metrics) -> NatGateway {
    NatGateway {
        id: row.id,
        subnet: index.subnets.at(row.subnet),
        addresses: row.addresses.clone(),
        idle_timeout_ms: row.idle_timeout_ms,
        metrics: metrics.nat_gateway(row.id),
    }
}

fn internet_gateways(rows: &localvpc_api::Tables, index: &Index) -> Vec<InternetGateway> {
    let gateway = |row: &api::InternetGateway| InternetGateway {
        id: row.id,
        vpc: index.vpcs.at(row.vpc),
        public_of: HashMap::default(),
    };
    let mut gateways: Vec<InternetGateway> = rows.internet_gateways.iter().map(gateway).collect();
    for row in &rows.public_addresses {
        let gateway = &mut gateways[index.internet_gateways.at(row.internet_gateway).0 as usize];
        gateway.public_of.insert(row.private, row.public);
    }
    gateways
}

fn links(rows: &localvpc_api::Tables) -> HashMap<LinkId, Link, RandomState> {
    let link = |row: &api::Link| (row.id, Link { kind: row.kind, mtu: row.mtu, enis: Vec::new() });
    let mut links: HashMap<LinkId, Link, RandomState> = rows.links.iter().map(link).collect();
    for (at, eni) in (0..).zip(&rows.enis) {
        if let Some(link) = links.get_mut(&eni.link) {
            link.enis.push(EniIndex(at));
        }
    }
    links
}

fn internet(rows: &localvpc_api::Tables, index: &Index) -> Internet {
    let association = |row: &api::PublicAddress| {
        let internet_gateway = index.internet_gateways.at(row.internet_gateway);
        (row.public, Association { internet_gateway, private: row.private })
    };
    Internet {
        link: rows.links.iter().find(|row| row.kind == LinkKind::Internet).map(|row| row.id),
        hosts: rows.internet_hosts.iter().copied().collect(),
        public: rows.public_addresses.iter().map(association).collect(),
    }
}

#[cfg(test)]
mod tests {
    use localvpc_api::report::Traffic;
    use localvpc_api::tables::{Peer, RouteTarget};

    use super::fixture::rows;
    use super::*;
    use crate::tables::rules::Selector;

    fn address(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn built(rows: &localvpc_api::Tables) -> Tables {
        build(rows, &Metrics::default()).unwrap()
    }

    #[test]
    fn references_become_positions() {
        let tables = built(&rows());
        assert_eq!(tables.generation.0, 7);
        let eni = tables.eni(EniIndex(1));
        let subnet = tables.subnet(eni.subnet);
        assert_eq!((eni.id, subnet.id, tables.vpc(subnet.vpc).id), (EniId(2), SubnetId(2), VpcId(1)));
        assert_eq!(tables.network_acl(subnet.network_acl).id, NetworkAclId(1));
        let table = tables.route_table(subnet.route_table);
        let target = table.route(address("198.51.100.10")).unwrap().target;
        assert_eq!((table.id, target), (RouteTableId(2), Target::NatGateway(NatGatewayIndex(0))));
        let nat = tables.nat_gateway(NatGatewayIndex(0));
        assert_eq!((nat.id, tables.subnet(nat.subnet).id), (NatGatewayId(1), SubnetId(1)));
        let igw = tables.internet_gateway(InternetGatewayIndex(0));
        assert_eq!((igw.id, tables.vpc(igw.vpc).id), (InternetGatewayId(1), VpcId(1)));
    }

    /// PKT-8: the same address in two VPCs has two owners.
    #[test]
    fn each_vpc_knows_its_owners_and_subnets() {
        let tables = built(&rows());
        let [one, two] = &tables.vpcs[..] else { panic!("two VPCs") };
        assert_eq!(one.owners[&address("10.0.1.10")], Owner::Eni(EniIndex(0)));
        assert_eq!(two.owners[&address("10.0.1.10")], Owner::Eni(EniIndex(3)));
        assert_eq!(one.owners[&address("10.0.1.100")], Owner::NatGateway(NatGatewayIndex(0)));
        assert_eq!((one.owners.len(), two.owners.len()), (4, 1));
        assert_eq!(one.subnet(address("10.0.2.77")), Some(SubnetIndex(1)));
        assert_eq!(two.subnet(address("10.0.1.77")), Some(SubnetIndex(2)));
        assert_eq!(two.subnet(address("10.0.2.77")), None);
    }

    #[test]
    fn links_know_their_enis_and_the_internet_its_addresses() {
        let mut rows = rows();
        rows.enis[2].link = LinkId(2);
        let tables = built(&rows);
        assert_eq!(tables.links[&LinkId(2)].enis, [EniIndex(1), EniIndex(2)]);
        assert_eq!(tables.links[&LinkId(3)].enis, []);
        assert_eq!(tables.internet.link, Some(LinkId(9)));
        assert!(tables.internet.hosts.contains(&address("198.51.100.10")));
        let nat = tables.internet.public[&address("203.0.113.20")];
        assert_eq!((nat.internet_gateway, nat.private), (InternetGatewayIndex(0), address("10.0.1.100")));
        assert_eq!(tables.internet_gateways[0].public_of[&address("10.0.1.100")], address("203.0.113.20"));
    }

    #[test]
    fn enis_with_the_same_groups_share_their_rules() {
        let tables = built(&rows());
        let [web, db, db_too, _] = &tables.enis[..] else { panic!("four ENIs") };
        assert!(Arc::ptr_eq(&db.inbound, &db_too.inbound) && Arc::ptr_eq(&db.outbound, &db_too.outbound));
        assert!(!Arc::ptr_eq(&web.inbound, &db.inbound));
    }

    /// SG-20 and SG-22: a reference admits the members' addresses, as they are at the push.
    #[test]
    fn a_group_reference_admits_its_members() {
        let mut rows = rows();
        let admits = |rows: &_, from| {
            let tables = built(rows);
            tables.eni(EniIndex(1)).inbound.admit(address(from), Selector::Tcp(5432)).is_some()
        };
        assert!(admits(&rows, "10.0.1.10"));
        assert!(!admits(&rows, "203.0.113.10"), "public addresses never match (SG-25)");
        assert!(!admits(&rows, "10.0.2.21"));
        rows.enis[2].security_groups.push(SecurityGroupId(1));
        assert!(admits(&rows, "10.0.2.21"), "a new member");
        rows.enis[0].security_groups = vec![];
        assert!(!admits(&rows, "10.0.1.10"), "a member no more");
    }

    /// SG-21.
    #[test]
    fn a_self_reference_admits_the_other_members() {
        let mut rows = rows();
        rows.security_groups[1].inbound[0].peer = Peer::SecurityGroup(SecurityGroupId(2));
        let tables = built(&rows);
        let db = tables.eni(EniIndex(1));
        assert!(db.inbound.admit(address("10.0.2.21"), Selector::Tcp(5432)).is_some());
        assert!(db.inbound.admit(address("10.0.1.10"), Selector::Tcp(5432)).is_none());
    }

    #[test]
    fn counters_outlive_a_push_and_are_not_made_by_a_refused_one() {
        let metrics = Metrics::default();
        let mut rows = rows();
        build(&rows, &metrics).unwrap().enis[0].metrics.slot(0).sent.add(1, 100);
        assert_eq!(
            build(&rows, &metrics).unwrap().enis[0].metrics.sent(),
            Traffic { packets: 1, bytes: 100 }
        );

        rows.enis[1].id = EniId(55);
        rows.route_tables[0].routes[0].target = RouteTarget::NetworkInterface(EniId(56));
        build(&rows, &metrics).unwrap_err();
        assert_eq!(Arc::strong_count(&metrics.eni(EniId(55))), 2, "made by this very call");
    }
}
