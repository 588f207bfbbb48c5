//! The model as namespaces, devices and processes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::host::plan::{HostPlan, HostRoute, LinkPlan, NamespaceOrigin, NamespacePlan, ProcessPlan};
use crate::model::id::stable_hash;
use crate::model::{Instance, Model, Namespaces, Vpc};

use super::registry::Naming;
use super::tables::{INTERNET_MTU, VPC_MTU};

/// Packets a device may queue: TUN's own 500 overflow under load.
const QUEUE_LENGTH: u32 = 2000;

/// Lookups of names that `hosts` does not have fail at once, and none leaves the lab.
const RESOLV_CONF: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// All namespaces of a model: the internet first, then instances in the order of the file.
pub fn host_plan(model: &Model, names: &mut Naming<'_>) -> HostPlan {
    let mut plan = HostPlan::default();
    plan.namespaces.extend(internet(model, names));
    for (vpc, instance) in model.instances() {
        let shared = is_shared(vpc, instance);
        let name = if shared { &instance.subnet } else { &instance.name };
        match plan.namespaces.iter_mut().find(|namespace| shared && namespace.name == *name) {
            Some(namespace) => namespace.link.addresses.extend(private_addresses(instance)),
            None => plan.namespaces.push(namespace(model, vpc, instance, name, names)),
        }
        // Either found or pushed just now.
        if let Some(namespace) = plan.namespaces.iter_mut().find(|namespace| namespace.name == *name) {
            namespace.processes.extend(processes(model, &instance.name, instance.ip, &instance.commands));
        }
    }
    plan
}

/// The name under `/run/netns` of the namespace that an instance runs in, or the path of an attached one.
pub fn namespace_of(model: &Model, vpc: &Vpc, instance: &Instance) -> String {
    if let Some(path) = &instance.attach {
        let path = path.display().to_string();
        return path.strip_prefix("/run/netns/").map_or_else(|| path.clone(), str::to_owned);
    }
    let name = if is_shared(vpc, instance) { &instance.subnet } else { &instance.name };
    netns(model, name)
}

/// The name under `/run/netns` of the internet.
pub fn internet_namespace(model: &Model) -> String {
    netns(model, "internet")
}

/// Whether an instance shares its namespace with the others of its subnet.
pub fn is_shared(vpc: &Vpc, instance: &Instance) -> bool {
    vpc.subnet(&instance.subnet).is_some_and(|subnet| subnet.namespaces == Namespaces::Shared)
}

fn netns(model: &Model, name: &str) -> String {
    format!("{}-{name}", model.lab)
}

fn namespace(
    model: &Model,
    vpc: &Vpc,
    instance: &Instance,
    name: &str,
    names: &mut Naming<'_>,
) -> NamespacePlan {
    let everywhere = HostRoute { destination: default_route(), source: Some(instance.ip), mtu: None };
    let (origin, device, routes) = match &instance.attach {
        None => (NamespaceOrigin::Create { netns: netns(model, name) }, "eth0".to_owned(), vec![everywhere]),
        Some(path) => {
            let inside = vpc.cidrs.iter().map(|cidr| HostRoute {
                destination: *cidr,
                source: Some(instance.ip),
                mtu: None,
            });
            let routes = inside.chain([everywhere]).collect();
            (NamespaceOrigin::Attach { path: path.clone() }, attached_device(model, name), routes)
        }
    };
    NamespacePlan {
        name: name.to_owned(),
        origin,
        link: LinkPlan {
            id: names.link(vpc, instance),
            device,
            mtu: VPC_MTU,
            queue_length: QUEUE_LENGTH,
            offload: instance.offload,
            addresses: private_addresses(instance).collect(),
            routes,
        },
        hosts: hosts(model, Some(vpc)),
        resolv_conf: RESOLV_CONF.into(),
        processes: Vec::new(),
    }
}

fn private_addresses(instance: &Instance) -> impl Iterator<Item = IpAddr> {
    instance.addresses().map(|(private, _)| private)
}

/// A device name that nothing else in a foreign namespace has: 14 of the 15 bytes there may be.
fn attached_device(model: &Model, name: &str) -> String {
    let hash = stable_hash(&[&model.lab, name], 0);
    format!("vpc-{:010x}", hash & 0xff_ffff_ffff)
}

fn internet(model: &Model, names: &mut Naming<'_>) -> Option<NamespacePlan> {
    let id = names.internet_link(model)?;
    let addresses: Vec<IpAddr> = model.internet_hosts.iter().map(|host| host.ip).collect();
    Some(NamespacePlan {
        name: "internet".into(),
        origin: NamespaceOrigin::Create { netns: internet_namespace(model) },
        link: LinkPlan {
            id,
            device: "inet0".into(),
            mtu: INTERNET_MTU,
            queue_length: QUEUE_LENGTH,
            offload: model.internet_offload,
            routes: vec![HostRoute {
                destination: default_route(),
                source: addresses.first().copied(),
                mtu: None,
            }],
            addresses,
        },
        hosts: hosts(model, None),
        resolv_conf: RESOLV_CONF.into(),
        processes: model
            .internet_hosts
            .iter()
            .flat_map(|host| processes(model, &host.name, host.ip, &host.commands))
            .collect(),
    })
}

/// Content of `/etc/hosts` as seen from a VPC, or from the internet.
fn hosts(model: &Model, from: Option<&Vpc>) -> String {
    let mut out = String::from("127.0.0.1 localhost\n");
    for (vpc, instance) in model.instances() {
        let here = from.is_some_and(|from| from.name == vpc.name);
        let address = if here { Some(instance.ip) } else { instance.public.map(|public| public.ip) };
        if let Some(address) = address {
            let _ = writeln!(out, "{address} {}", instance.name);
        }
    }
    for host in &model.internet_hosts {
        let _ = writeln!(out, "{} {}", host.ip, host.name);
    }
    out
}

fn processes<'a>(
    model: &'a Model,
    owner: &'a str,
    address: IpAddr,
    commands: &'a [String],
) -> impl Iterator<Item = ProcessPlan> + 'a {
    commands.iter().zip(0..).map(move |(command, index)| ProcessPlan {
        owner: owner.to_owned(),
        index,
        command: command.clone(),
        environment: vec![
            ("LOCALVPC_LAB".into(), model.lab.clone()),
            ("LOCALVPC_INSTANCE".into(), owner.to_owned()),
            ("LOCALVPC_ADDRESS".into(), address.to_string()),
        ],
    })
}

fn default_route() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
}
