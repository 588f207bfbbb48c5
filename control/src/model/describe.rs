//! Resources in words: one line and all facts of each, for `ls`, `inspect` and plans.

use serde_json::{Value, json};

use localvpc_api::tables::SourceDestCheck;

use crate::view::ResourceView;

use super::id::{Kind, resource_id};
use super::*;

/// The key under which the facts of a rule say where it stands. It is left out of comparisons.
pub const DEFINED_AT: &str = "defined_at";

/// The kind under which Elastic IPs are shown. They are facts of their owner, too.
pub const ELASTIC_IP: &str = "Elastic IP";

/// Every resource of a model, VPC by VPC.
pub fn resources(model: &Model) -> Vec<ResourceView> {
    let mut all: Vec<ResourceView> =
        model.vpcs.iter().flat_map(|vpc| Describe { model, vpc }.everything()).collect();
    all.extend(model.internet_hosts.iter().map(|host| ResourceView {
        kind: "internet host".into(),
        name: host.name.clone(),
        id: resource_id(&model.lab, Kind::Instance, "", &host.name),
        vpc: String::new(),
        position: host.place.map(|place| model.position(place)),
        summary: host.ip.to_string(),
        detail: json!({ "ip": host.ip, "run": host.commands, "offload": word(model.internet_offload) }),
    }));
    all
}

struct Describe<'a> {
    model: &'a Model,
    vpc: &'a Vpc,
}

impl Describe<'_> {
    fn everything(&self) -> Vec<ResourceView> {
        let vpc = self.vpc;
        let mut all = vec![self.vpc_view()];
        all.extend(vpc.internet_gateway.iter().map(|gateway| {
            let detail = json!({ "attached_to": vpc.name });
            self.view(
                "internet gateway",
                &gateway.name,
                &gateway.id,
                Some(gateway.place),
                String::new(),
                detail,
            )
        }));
        all.extend(vpc.subnets.iter().map(|subnet| self.subnet(subnet)));
        all.extend(vpc.route_tables.iter().map(|table| self.route_table(table)));
        all.extend(vpc.nat_gateways.iter().map(|nat| self.nat_gateway(nat)));
        all.extend(vpc.network_acls.iter().map(|acl| self.network_acl(acl)));
        all.extend(vpc.security_groups.iter().map(|group| self.security_group(group)));
        all.extend(vpc.instances.iter().map(|instance| self.instance(instance)));
        all.extend(self.elastic_ips());
        all
    }

    fn view(
        &self,
        kind: &str,
        name: &str,
        id: &str,
        place: Option<Place>,
        summary: String,
        detail: Value,
    ) -> ResourceView {
        ResourceView {
            kind: kind.into(),
            name: name.into(),
            id: id.into(),
            vpc: self.vpc.name.clone(),
            position: place.map(|place| self.model.position(place)),
            summary,
            detail,
        }
    }

    fn vpc_view(&self) -> ResourceView {
        let vpc = self.vpc;
        let summary = vpc.cidrs.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        let detail = json!({ "cidrs": vpc.cidrs, "main_route_table": vpc.main_route_table });
        ResourceView {
            vpc: String::new(),
            ..self.view("VPC", &vpc.name, &vpc.id, Some(vpc.place), summary, detail)
        }
    }

    fn subnet(&self, subnet: &Subnet) -> ResourceView {
        let kind = if self.vpc.is_public(subnet) { "public" } else { "private" };
        let shared = match subnet.namespaces {
            Namespaces::PerInstance => "",
            Namespaces::Shared => ", one namespace",
        };
        let Subnet { cidr, route_table, network_acl, .. } = subnet;
        let summary = format!("{cidr}, {kind}, route table {route_table}, network ACL {network_acl}{shared}");
        let detail = json!({
            "cidr": cidr,
            "route_table": route_table,
            "network_acl": network_acl,
            "namespace": match subnet.namespaces {
                Namespaces::PerInstance => "instance",
                Namespaces::Shared => "shared",
            },
            "public_ip": subnet.public_ip,
        });
        self.view("subnet", &subnet.name, &subnet.id, Some(subnet.place), summary, detail)
    }

    fn route_table(&self, table: &RouteTable) -> ResourceView {
        let written = table.routes.iter().filter(|route| route.place.is_some());
        let mut summary: Vec<String> = written.map(|route| text::route(self.vpc, route)).collect();
        let main = table.name == self.vpc.main_route_table;
        if main {
            summary.insert(0, "main".into());
        }
        if table.routes.iter().all(|route| route.place.is_none()) {
            summary.push("local routes only".into());
        }
        let routes = table.routes.iter().map(|route| {
            json!({
                "to": route.destination,
                "via": text::target(self.vpc, &route.target),
                DEFINED_AT: self.model.source(route.place),
            })
        });
        let detail = json!({ "main": main, "routes": routes.collect::<Vec<_>>() });
        self.view("route table", &table.name, &table.id, table.place, summary.join(", "), detail)
    }

    fn network_acl(&self, acl: &NetworkAcl) -> ResourceView {
        let entries = |entries: &[NetworkAclEntry], far: &str| -> Value {
            entries
                .iter()
                .map(|entry| {
                    json!({
                        "rule": entry.number,
                        "action": text::action(entry.action),
                        "traffic": text::traffic(entry.traffic),
                        far: entry.cidr,
                        DEFINED_AT: self.model.source(entry.place),
                    })
                })
                .collect()
        };
        let summary = format!("{} inbound, {} outbound entries", acl.inbound.len(), acl.outbound.len());
        let detail =
            json!({ "inbound": entries(&acl.inbound, "from"), "outbound": entries(&acl.outbound, "to") });
        self.view("network ACL", &acl.name, &acl.id, acl.place, summary, detail)
    }

    fn security_group(&self, group: &SecurityGroup) -> ResourceView {
        let rules = |rules: &[SecurityGroupRule], far: &str| -> Value {
            rules
                .iter()
                .map(|rule| {
                    json!({
                        "traffic": text::traffic(rule.traffic),
                        far: text::peer(&rule.peer),
                        "description": some(&rule.description),
                        DEFINED_AT: self.model.source(rule.place),
                    })
                })
                .collect()
        };
        let members = self.vpc.instances.iter().filter(|it| it.security_groups.contains(&group.name)).count();
        let summary = format!(
            "{} inbound, {} outbound rules, {members} member{}",
            group.inbound.len(),
            group.outbound.len(),
            if members == 1 { "" } else { "s" }
        );
        let detail = json!({
            "description": some(&group.description),
            "inbound": rules(&group.inbound, "from"),
            "outbound": rules(&group.outbound, "to"),
        });
        self.view("security group", &group.name, &group.id, group.place, summary, detail)
    }

    fn nat_gateway(&self, nat: &NatGateway) -> ResourceView {
        let addresses = nat.addresses.iter().map(|address| match address.public {
            Some(public) => format!("{} → {public}", address.private),
            None => format!("{} (private)", address.private),
        });
        let (state, addresses) = match nat.state {
            NatGatewayState::Available => ("available", addresses.collect::<Vec<_>>().join(", ")),
            NatGatewayState::Deleted => ("deleted", "deleted".into()),
        };
        let summary = format!("{addresses}, subnet {}", nat.subnet);
        let pairs =
            nat.addresses.iter().map(|address| json!({ "ip": address.private, "eip": address.public }));
        let detail = json!({
            "subnet": nat.subnet,
            "state": state,
            "addresses": pairs.collect::<Vec<_>>(),
            "idle_timeout": seconds(nat.idle_timeout_ms),
        });
        self.view("NAT gateway", &nat.name, &nat.id, Some(nat.place), summary, detail)
    }

    fn instance(&self, instance: &Instance) -> ResourceView {
        let mut summary = vec![instance.ip.to_string()];
        summary.extend(instance.public.map(|public| format!("public {}", public.ip)));
        summary.extend(instance.secondary.iter().map(|second| match second.eip {
            Some(eip) => format!("{} public {eip}", second.ip),
            None => second.ip.to_string(),
        }));
        summary.push(format!("subnet {}", instance.subnet));
        summary.push(format!("security groups {}", instance.security_groups.join(" ")));
        let detail = json!({
            "eni": instance.eni_id,
            "subnet": instance.subnet,
            "ip": instance.ip,
            "public_ip": instance.public.map(|public| public.ip),
            "public_ip_kind": instance.public.map(|public| match public.kind {
                PublicAddressKind::Elastic => "elastic",
                PublicAddressKind::Automatic => "automatic",
            }),
            "secondary_ips": instance
                .secondary
                .iter()
                .map(|second| json!({ "ip": second.ip, "eip": second.eip }))
                .collect::<Vec<_>>(),
            "security_groups": instance.security_groups,
            "source_dest_check": instance.source_dest_check == SourceDestCheck::Enabled,
            "run": instance.commands,
            "attach": instance.attach,
            "tracking": {
                "tcp_established": seconds(instance.tracking.tcp_established_ms),
                "udp": seconds(instance.tracking.udp_ms),
                "udp_stream": seconds(instance.tracking.udp_stream_ms),
                "other": seconds(instance.tracking.other_ms),
            },
            "max_connections": instance.max_connections,
            "offload": word(instance.offload),
            "fragments_per_second": instance.fragments_per_second,
        });
        let Instance { name, id, place, .. } = instance;
        self.view("instance", name, id, Some(*place), summary.join(", "), detail)
    }

    fn elastic_ips(&self) -> Vec<ResourceView> {
        let instances = self.vpc.instances.iter().flat_map(|instance| {
            let is_elastic = |public: &PublicAddress| public.kind == PublicAddressKind::Elastic;
            let primary = instance.public.filter(is_elastic).map(|public| (public.ip, instance.ip));
            let secondary = instance.secondary.iter().filter_map(|second| Some((second.eip?, second.ip)));
            primary.into_iter().chain(secondary).map(move |(public, private)| {
                (public, private, format!("instance {}", instance.name), instance.place)
            })
        });
        let nat_gateways = self.vpc.nat_gateways.iter().flat_map(|nat| {
            nat.addresses.iter().filter_map(move |address| {
                Some((address.public?, address.private, format!("NAT gateway {}", nat.name), nat.place))
            })
        });
        let all = instances.chain(nat_gateways).map(|(public, private, owner, place)| {
            let name = public.to_string();
            let id = resource_id(&self.model.lab, Kind::ElasticIp, "", &name);
            let detail = json!({ "ip": private, "owner": owner });
            self.view(ELASTIC_IP, &name, &id, Some(place), format!("{owner}, {private}"), detail)
        });
        all.collect()
    }
}

/// As a file has it.
fn word(offload: Offload) -> &'static str {
    match offload {
        Offload::VirtioHeader => "on",
        Offload::Off => "off",
    }
}

/// `null` for an empty text.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn seconds(milliseconds: u64) -> String {
    crate::config::values::Millis(milliseconds).to_string()
}
