//! Typed resources: what a document means.
//!
//! Everything in a [`Model`] has been validated: names resolve, addresses fit and are unique,
//! defaults are filled in (main route table, default network ACL, default security group,
//! automatic addresses). Nothing in it knows about YAML; a [`Place`] is a line of whatever file it came from.

mod addresses;
mod build;
pub mod describe;
mod diff;
mod expect;
pub mod id;
mod instances;
mod quotas;
mod routes;
mod rules;
pub mod text;
mod vpc;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use localvpc_api::message::Offload;
use localvpc_api::tables::{Action, PortRange, SourceDestCheck, TrackingTimeouts, Traffic};
use localvpc_api::trace::{Direction, Protocol};

use crate::view;

pub use addresses::{not_public, reserved};
pub use diff::diff;

/// A lab.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The file it came from, as the user named it.
    pub file: String,
    /// Its name.
    pub lab: String,
    /// Its VPCs, in the order of the file.
    pub vpcs: Vec<Vpc>,
    /// Hosts on the internet, in the order of the file. When there is an internet gateway but no host,
    /// one called `internet` is added, so that there is something to send from.
    pub internet_hosts: Vec<InternetHost>,
    /// Whether the internet's device carries super-packets.
    pub internet_offload: Offload,
    /// What should be reachable, and what should not.
    pub expectations: Vec<Expectation>,
}

/// Where something stands in the file; `None` in its place means that nobody wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// A VPC with everything in it. All lists are in the order of the file, what nobody wrote at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Vpc {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// Primary CIDR first.
    pub cidrs: Vec<IpNet>,
    /// Its way to the internet.
    pub internet_gateway: Option<InternetGateway>,
    /// Name of the main route table.
    pub main_route_table: String,
    /// Subnets.
    pub subnets: Vec<Subnet>,
    /// Route tables, the main one included.
    pub route_tables: Vec<RouteTable>,
    /// Network ACLs, `default` included.
    pub network_acls: Vec<NetworkAcl>,
    /// Security groups, `default` included.
    pub security_groups: Vec<SecurityGroup>,
    /// NAT gateways.
    pub nat_gateways: Vec<NatGateway>,
    /// Instances.
    pub instances: Vec<Instance>,
}

/// An internet gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct InternetGateway {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Place,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// Its address range.
    pub cidr: IpNet,
    /// Name of its route table.
    pub route_table: String,
    /// Name of its network ACL.
    pub network_acl: String,
    /// How its instances map to namespaces.
    pub namespaces: Namespaces,
    /// Whether the devices of its instances carry super-packets.
    pub offload: Offload,
    /// Whether its instances get a public address by themselves.
    pub public_ip: bool,
}

/// How the instances of a subnet map to namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// One each.
    #[default]
    PerInstance,
    /// One for all of them, called as the subnet.
    Shared,
}

/// A route table.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Its routes, local ones first.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Which way.
    pub target: Target,
    /// Where it stands.
    pub place: Option<Place>,
}

/// Target of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The owner of the address in the VPC.
    Local,
    /// The internet gateway of the VPC.
    InternetGateway,
    /// A NAT gateway, by name.
    NatGateway(String),
    /// An instance that forwards, by name.
    Instance(String),
    /// Nowhere.
    Blackhole,
}

/// A network ACL.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkAcl {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Entries for packets that enter a subnet, by ascending number.
    pub inbound: Vec<NetworkAclEntry>,
    /// Entries for packets that leave a subnet, by ascending number.
    pub outbound: Vec<NetworkAclEntry>,
}

/// An entry of a network ACL.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkAclEntry {
    /// Its number.
    pub number: u16,
    /// What happens to a match.
    pub action: Action,
    /// What it matches.
    pub traffic: Traffic,
    /// The far end.
    pub cidr: IpNet,
    /// Where it stands.
    pub place: Option<Place>,
}

/// A security group.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroup {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// What it is for; may be empty.
    pub description: String,
    /// What its members may receive.
    pub inbound: Vec<SecurityGroupRule>,
    /// What its members may send.
    pub outbound: Vec<SecurityGroupRule>,
}

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityGroupRule {
    /// What it admits.
    pub traffic: Traffic,
    /// The far end.
    pub peer: Peer,
    /// What it is for; may be empty.
    pub description: String,
    /// Where it stands.
    pub place: Option<Place>,
}

/// Far end of a security group rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A range of addresses.
    Cidr(IpNet),
    /// The members of a group, by name.
    SecurityGroup(String),
}

/// A NAT gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct NatGateway {
    /// Its name.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// Where it stands.
    pub place: Place,
    /// Name of its subnet.
    pub subnet: String,
    /// Its addresses, primary first.
    pub addresses: Vec<NatAddress>,
    /// Idle timeout of its leases, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Whether it exists still.
    pub state: NatGatewayState,
}

/// State of a NAT gateway (NATGW-41). Here it has no time in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatGatewayState {
    /// It translates.
    #[default]
    Available,
    /// It is gone and has no addresses; routes to it are blackholes (RT-19).
    Deleted,
}

/// An address of a NAT gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatAddress {
    /// Private address in the subnet.
    pub private: IpAddr,
    /// Elastic IP; none for a private NAT gateway.
    pub public: Option<IpAddr>,
}

/// An instance with its one network interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name, unique in the lab.
    pub name: String,
    /// AWS-style id.
    pub id: String,
    /// AWS-style id of its network interface.
    pub eni_id: String,
    /// Where it stands.
    pub place: Place,
    /// Name of its subnet.
    pub subnet: String,
    /// Primary private address.
    pub ip: IpAddr,
    /// Public address of the primary one.
    pub public: Option<PublicAddress>,
    /// Secondary private addresses (ENI-3).
    pub secondary: Vec<SecondaryAddress>,
    /// Names of its security groups, at least one.
    pub security_groups: Vec<String>,
    /// Commands that run in it.
    pub commands: Vec<String>,
    /// Whether packets must be from or to its own address.
    pub source_dest_check: SourceDestCheck,
    /// An existing namespace to use.
    pub attach: Option<PathBuf>,
    /// Idle timeouts of its tracked connections.
    pub tracking: TrackingTimeouts,
    /// Most connections that it tracks at a time.
    pub max_connections: u32,
    /// Whether its device carries super-packets.
    pub offload: Offload,
    /// Most IP fragments that it sends in a second.
    pub fragments_per_second: u32,
}

/// A secondary private address of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondaryAddress {
    /// The address.
    pub ip: IpAddr,
    /// Its Elastic IP.
    pub eip: Option<IpAddr>,
}

/// A public address of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// The address.
    pub ip: IpAddr,
    /// Where it comes from.
    pub kind: PublicAddressKind,
}

/// Where a public address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicAddressKind {
    /// Written as `eip:`.
    Elastic,
    /// From the pool of the lab.
    Automatic,
}

/// A host on the internet.
#[derive(Clone, Debug, PartialEq)]
pub struct InternetHost {
    /// Its name, unique in the lab.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Its address.
    pub ip: IpAddr,
    /// Commands that run in it.
    pub commands: Vec<String>,
}

/// What should be reachable, or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// Where it stands.
    pub place: Place,
    /// Sender.
    pub from: String,
    /// Receiver.
    pub to: String,
    /// Protocol; none stands for every one, each by itself.
    pub protocol: Option<Protocol>,
    /// Destination port.
    pub port: Option<u16>,
    /// Source ports; those that Linux takes where none are named.
    pub source_ports: Option<PortRange>,
    /// Whether it should arrive.
    pub reachable: bool,
    /// What it should pass.
    pub via: Vec<String>,
    /// Code of the reason for which it should not arrive.
    pub because: Option<String>,
}

impl Model {
    /// Everything with a name of its own on the network: instances of all VPCs.
    pub fn instances(&self) -> impl Iterator<Item = (&Vpc, &Instance)> {
        self.vpcs.iter().flat_map(|vpc| vpc.instances.iter().map(move |instance| (vpc, instance)))
    }

    /// Whether the lab has an internet: a host, or a gateway to it.
    pub fn has_internet(&self) -> bool {
        !self.internet_hosts.is_empty() || self.vpcs.iter().any(|vpc| vpc.internet_gateway.is_some())
    }

    /// The place for outputs.
    pub fn position(&self, place: Place) -> view::Position {
        view::Position { file: self.file.clone(), line: place.line, column: place.column }
    }

    /// `two-tier.yaml:31`, or `default` for what nobody wrote.
    pub fn source(&self, place: Option<Place>) -> String {
        let Some(place) = place else { return "default".into() };
        let name = std::path::Path::new(&self.file).file_name().map(|name| name.to_string_lossy());
        format!("{}:{}", name.as_deref().unwrap_or(&self.file), place.line)
    }
}

impl Vpc {
    /// A subnet by name.
    pub fn subnet(&self, name: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.name == name)
    }

    /// A route table by name.
    pub fn route_table(&self, name: &str) -> Option<&RouteTable> {
        self.route_tables.iter().find(|table| table.name == name)
    }

    /// A network ACL by name.
    pub fn network_acl(&self, name: &str) -> Option<&NetworkAcl> {
        self.network_acls.iter().find(|acl| acl.name == name)
    }

    /// A security group by name.
    pub fn security_group(&self, name: &str) -> Option<&SecurityGroup> {
        self.security_groups.iter().find(|group| group.name == name)
    }

    /// A NAT gateway by name, a deleted one too.
    pub fn nat_gateway(&self, name: &str) -> Option<&NatGateway> {
        self.nat_gateways.iter().find(|nat| nat.name == name)
    }

    /// Whether a route leads to something that is gone (RT-17).
    pub fn is_blackhole(&self, route: &Route) -> bool {
        match &route.target {
            Target::Blackhole => true,
            Target::NatGateway(name) => {
                self.nat_gateway(name).is_none_or(|nat| nat.state == NatGatewayState::Deleted)
            }
            Target::InternetGateway => self.internet_gateway.is_none(),
            Target::Local | Target::Instance(_) => false,
        }
    }

    /// Whether a subnet is public: its route table leads to the internet gateway (VPC-20).
    pub fn is_public(&self, subnet: &Subnet) -> bool {
        self.route_table(&subnet.route_table)
            .is_some_and(|table| table.routes.iter().any(|route| route.target == Target::InternetGateway))
    }
}

impl Instance {
    /// Its private addresses, the primary one first, each with its public address if it has one (EIP-7).
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Option<IpAddr>)> {
        let primary = (self.ip, self.public.map(|public| public.ip));
        std::iter::once(primary).chain(self.secondary.iter().map(|second| (second.ip, second.eip)))
    }

    /// Whether `address` is one of its private addresses.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses().any(|(private, _)| private == address)
    }

    /// The private address that `address` is, or that it is the public address of.
    pub fn private_of(&self, address: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses();
        own.find(|(private, public)| *private == address || *public == Some(address))
            .map(|(private, _)| private)
    }
}

impl NetworkAcl {
    /// The entries of one direction.
    pub fn entries(&self, direction: Direction) -> &[NetworkAclEntry] {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

impl SecurityGroup {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[SecurityGroupRule] {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}
