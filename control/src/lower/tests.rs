//! What a model is lowered to.

use std::net::IpAddr;

use localvpc_api::message::Offload;
use localvpc_api::tables::{LinkKind, RouteTarget, Traffic};
use localvpc_api::{Generation, SecurityGroupId};
use localvpc_engine::metrics::Metrics;

use super::*;
use crate::host::plan::{NamespaceOrigin, NamespacePlan};

const TWO_TIER: &str = include_str!("../../../configs/two-tier.yaml");
const PEERS: &str = include_str!("../../../configs/peers.yaml");
const SHARED: &str = include_str!("../../../configs/shared.yaml");

fn model(text: &str) -> Model {
    Model::read("configs/lab.yaml", text).unwrap_or_else(|errors| panic!("{errors}")).0
}

fn lowered(text: &str) -> Lowered {
    lower(&model(text), &mut IdRegistry::default(), Generation(7))
}

fn namespace<'a>(lowered: &'a Lowered, name: &str) -> &'a NamespacePlan {
    lowered.host.namespaces.iter().find(|namespace| namespace.name == name).unwrap()
}

#[test]
fn the_engine_takes_every_lab_in_configs() {
    for text in [TWO_TIER, PEERS, SHARED] {
        let tables = lowered(text).tables;
        assert_eq!(tables.generation, Generation(7));
        localvpc_engine::tables::build(&tables, &Metrics::default()).unwrap();
    }
}

#[test]
fn rt_5_every_table_has_local_routes() {
    let text = TWO_TIER.replace("cidr: 10.0.0.0/16\n", "cidr: 10.0.0.0/16\n    cidrs: [10.1.0.0/16]\n");
    for table in lowered(&text).tables.route_tables {
        let local = table.routes.iter().filter(|route| route.target == RouteTarget::Local);
        let local: Vec<String> = local.map(|route| route.destination.to_string()).collect();
        assert_eq!(local, ["10.0.0.0/16", "10.1.0.0/16"]);
    }
}

#[test]
fn a_namespace_per_instance_and_one_for_the_internet() {
    let lowered = lowered(TWO_TIER);
    let names: Vec<&str> = lowered.host.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["internet", "web", "app", "db"]);

    let web = namespace(&lowered, "web");
    assert_eq!(web.origin, NamespaceOrigin::Create { netns: "two-tier-web".into() });
    assert_eq!((web.link.device.as_str(), web.link.mtu), ("eth0", 9001));
    assert!(web.link.queue_length >= 1000);
    assert_eq!(web.link.addresses, [IpAddr::from([10, 0, 1, 10])]);
    assert_eq!(web.link.routes.len(), 1);
    assert_eq!(web.link.routes[0].destination.to_string(), "0.0.0.0/0");
    assert_eq!(web.link.routes[0].source, Some(IpAddr::from([10, 0, 1, 10])));
    assert_eq!(web.processes[0].command, "localvpc serve 80");
    let environment: Vec<(&str, &str)> =
        web.processes[0].environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expected =
        [("LOCALVPC_LAB", "two-tier"), ("LOCALVPC_INSTANCE", "web"), ("LOCALVPC_ADDRESS", "10.0.1.10")];
    assert_eq!(environment, expected);

    let internet = namespace(&lowered, "internet");
    assert_eq!((internet.link.device.as_str(), internet.link.mtu), ("inet0", 1500));
    let kinds: Vec<LinkKind> = lowered.tables.links.iter().map(|link| link.kind).collect();
    assert_eq!(kinds, [LinkKind::Internet, LinkKind::Enis, LinkKind::Enis, LinkKind::Enis]);
}

#[test]
fn devices_have_the_offload_of_the_file() {
    let text = TWO_TIER
        .replace("ip: 10.0.2.20", "offload: off, ip: 10.0.2.20")
        .replace("internet:\n", "internet:\n  offload: off\n");
    let lowered = lowered(&text);
    let offload = |name: &str| namespace(&lowered, name).link.offload;
    assert_eq!([offload("app"), offload("internet")], [Offload::Off; 2]);
    assert_eq!([offload("web"), offload("db")], [Offload::VirtioHeader; 2]);
    let shared = SHARED.replace("namespace: shared", "namespace: shared, offload: off");
    let shared = self::lowered(&shared);
    let of_subnet = shared.host.namespaces.iter().find(|it| it.link.offload == Offload::Off).unwrap();
    assert!(of_subnet.link.addresses.len() > 1);
}

#[test]
fn names_resolve_as_seen_from_where_one_is() {
    let lowered = lowered(PEERS);
    let hosts = |name: &str| namespace(&lowered, name).hosts.clone();
    assert_eq!(
        hosts("left"),
        "127.0.0.1 localhost\n10.0.1.10 left\n203.0.113.12 right\n198.51.100.66 stranger\n"
    );
    assert_eq!(
        hosts("internet"),
        "127.0.0.1 localhost\n203.0.113.11 left\n203.0.113.12 right\n198.51.100.66 stranger\n"
    );
    assert_eq!(
        namespace(&lowered, "left").resolv_conf,
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
    );
}

#[test]
fn a_shared_subnet_is_one_namespace() {
    let lowered = lowered(SHARED);
    let names: Vec<&str> = lowered.host.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["workers", "store"], "no internet where nothing leads there");
    let workers = namespace(&lowered, "workers");
    assert_eq!(workers.origin, NamespaceOrigin::Create { netns: "shared-workers".into() });
    let addresses: Vec<String> = workers.link.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["10.20.1.11", "10.20.1.12", "10.20.1.13"]);
    let links: Vec<_> = lowered.tables.enis.iter().map(|eni| eni.link).collect();
    assert_eq!(links[..3], [workers.link.id; 3]);
    assert_ne!(links[3], workers.link.id);
    let views = lowered.index.instances();
    assert!(views.iter().filter(|view| view.shared).all(|view| view.namespace == "shared-workers"));
    assert_eq!(views.iter().filter(|view| view.shared).count(), 3);
}

#[test]
fn eni_3_eip_7_an_interface_with_several_addresses() {
    let text = TWO_TIER.replace(
        "eip: 203.0.113.10,",
        "eip: 203.0.113.10, secondary_ips: [10.0.1.11, { ip: 10.0.1.12, eip: 203.0.113.12 }],",
    );
    let lowered = lowered(&text);
    let own = ["10.0.1.10", "10.0.1.11", "10.0.1.12"].map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!(lowered.tables.enis[0].addresses, own, "ENI-3: the primary one first");
    let web = namespace(&lowered, "web");
    assert_eq!(web.link.addresses, own);
    assert_eq!(web.link.routes[0].source, Some(own[0]), "it sends from the primary one");
    let public = |private: IpAddr| {
        let row = lowered.tables.public_addresses.iter().find(|row| row.private == private);
        row.map(|row| row.public.to_string())
    };
    assert_eq!(
        own.map(public),
        [Some("203.0.113.10".into()), None, Some("203.0.113.12".into())],
        "EIP-7: each has its own"
    );
    assert!(namespace(&lowered, "app").hosts.contains("10.0.1.10 web\n"), "names are for primary addresses");
    assert!(!namespace(&lowered, "app").hosts.contains("10.0.1.11"));
    localvpc_engine::tables::build(&lowered.tables, &Metrics::default()).unwrap();
}

#[test]
fn an_attached_namespace_gets_a_device_of_our_own_name() {
    let text = TWO_TIER.replace("security_groups: [app] }", "security_groups: [app], attach: box }");
    let lowered = lowered(&text);
    let app = namespace(&lowered, "app");
    assert_eq!(app.origin, NamespaceOrigin::Attach { path: "/run/netns/box".into() });
    assert!(app.link.device.starts_with("vpc-") && app.link.device.len() <= 15, "{}", app.link.device);
    let routes: Vec<String> = app.link.routes.iter().map(|route| route.destination.to_string()).collect();
    assert_eq!(routes, ["10.0.0.0/16", "0.0.0.0/0"]);
    let view = lowered.index.instances().into_iter().find(|view| view.name == "app").unwrap();
    assert_eq!(view.namespace, "box");
}

#[test]
fn an_instance_that_moves_to_another_namespace_gets_a_new_link_but_keeps_its_interface() {
    let mut ids = IdRegistry::default();
    let before = lower(&model(TWO_TIER), &mut ids, Generation(1));
    let text = TWO_TIER.replace("security_groups: [app] }", "security_groups: [app], attach: box }");
    let after = lower(&model(&text), &mut ids, Generation(2));
    let app = |lowered: &Lowered| lowered.index.eni_of("app").unwrap();
    assert_eq!(app(&before), app(&after));
    assert_ne!(before.index.link_of(app(&before)), after.index.link_of(app(&after)));
}

/// RT-17, RT-19: its routes stay; its leases are not to come to life again with its name.
#[test]
fn natgw_41_a_nat_gateway_that_was_deleted_and_comes_back_is_another_one() {
    let mut ids = IdRegistry::default();
    let deleted = TWO_TIER.replace("nat-a: {", "nat-a: { state: deleted,");
    let [before, gone, after] =
        [TWO_TIER, deleted.as_str(), TWO_TIER].map(|text| lower(&model(text), &mut ids, Generation(1)));
    let default = |lowered: &Lowered| {
        let tables = &lowered.tables.route_tables;
        let private =
            tables.iter().find(|table| lowered.index.route_table_name(table.id) == "private").unwrap();
        private.routes.iter().find(|route| route.destination.prefix_len() == 0).unwrap().target
    };
    let number = |lowered: &Lowered| lowered.tables.nat_gateways[0].id;
    assert_eq!(default(&before), RouteTarget::NatGateway(number(&before)));
    assert_eq!((default(&gone), gone.tables.nat_gateways.len()), (RouteTarget::Blackhole, 0));
    assert!(gone.tables.public_addresses.len() < before.tables.public_addresses.len());
    localvpc_engine::tables::build(&gone.tables, &Metrics::default()).unwrap();
    assert_ne!(number(&after), number(&before));
}

#[test]
fn lowering_twice_gives_the_same_rows() {
    let mut ids = IdRegistry::default();
    let first = lower(&model(TWO_TIER), &mut ids, Generation(1));
    let known = ids.clone();
    let second = lower(&model(TWO_TIER), &mut ids, Generation(1));
    assert_eq!(first.tables, second.tables);
    assert_eq!(first.host, second.host);
    assert_eq!(ids, known);
}

#[test]
fn the_index_knows_rules_and_lines() {
    use localvpc_api::trace::Direction;
    let Lowered { tables, index, .. } = lowered(TWO_TIER);
    let group = |wanted: &str| -> SecurityGroupId {
        let ids = tables.security_groups.iter().map(|group| group.id);
        ids.into_iter().find(|id| index.security_group_name(*id) == wanted).unwrap()
    };
    let rule = index.security_group_rule(group("db"), Direction::Inbound, 0).unwrap();
    assert_eq!(rule.text, "tcp 5432 from security group app");
    let line = TWO_TIER.lines().position(|line| line.contains("tcp: 5432")).unwrap() + 1;
    assert_eq!(rule.source, format!("lab.yaml:{line}"));
    assert_eq!(index.security_group_rule(group("db"), Direction::Inbound, 1), None);

    let default = tables.security_groups.iter().find(|it| it.id == group("default")).unwrap();
    assert_eq!(default.inbound[0].traffic, Traffic::All);
    let rule = index.security_group_rule(default.id, Direction::Outbound, 0).unwrap();
    assert_eq!((rule.text.as_str(), rule.source.as_str()), ("all traffic", "default"));

    let acl = tables.network_acls.iter().find(|acl| index.network_acl_name(acl.id) == "app").unwrap();
    let entry = index.network_acl_entry(acl.id, Direction::Outbound, Some(110)).unwrap();
    assert_eq!(entry.text, "rule 110 allow tcp 443");
    let star = index.network_acl_entry(acl.id, Direction::Outbound, None).unwrap();
    assert_eq!(star.text, "rule * deny all");

    let kinds: Vec<String> = index.resources().into_iter().map(|resource| resource.kind).collect();
    for kind in ["VPC", "subnet", "route table", "NAT gateway", "Elastic IP", "internet host"] {
        assert!(kinds.iter().any(|it| it == kind), "{kind}");
    }
}

#[test]
fn names_that_two_vpcs_have_carry_their_vpc() {
    let Lowered { tables, index, .. } = lowered(PEERS);
    let gateways: Vec<String> =
        tables.internet_gateways.iter().map(|gateway| index.internet_gateway_name(gateway.id)).collect();
    assert_eq!(gateways, ["a/igw", "b/igw"]);
}

#[test]
fn an_internet_gateway_without_hosts_still_has_an_internet() {
    let text = "lab: x\nvpcs:\n  main: { cidr: 10.0.0.0/16, internet_gateway: igw }\n";
    let lowered = lowered(text);
    assert_eq!(namespace(&lowered, "internet").link.addresses, lowered.tables.internet_hosts);
    assert_eq!(lowered.tables.internet_hosts.len(), 1);
}
