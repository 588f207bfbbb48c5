//! The records of the document: one definition each for its keys, their reading and the editor schema.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use localvpc_api::tables::PortRange;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{Decode, Fields, Map, OneOrMany, Scalar, Spanned};
use super::diagnostic::{Diagnostics, Span};
use super::tree::{Node, Value};
use super::values::*;

/// Defines a record: a map with fixed keys. The text after its name is what messages call it.
macro_rules! record {
    ($($(#[$meta:meta])* pub struct $name:ident $noun:literal {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            /// Where it stands.
            #[schemars(skip)]
            pub span: Span,
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Decode for $name {
            fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
                let fields = Fields::open(node, &[$(key(stringify!($field))),*], $noun, errors)?;
                $(let $field = fields.take::<$type>(key(stringify!($field)), errors);)*
                Some(Self { span: node.span, $($field: $field?,)* })
            }
        }
    )*};
}

record! {
    /// A lab: VPCs and an internet, on this machine.
    pub struct LabSection "a lab" {
        /// Name of the lab. Namespaces are called `<lab>-<instance>`.
        pub lab: Spanned<LabName>,
        /// `aws`: what is beyond AWS's quotas is a warning, or an error where AWS raises them for nobody. Default: `off`.
        pub quotas: Option<Spanned<QuotaWord>>,
        /// VPCs by name. They are isolated from each other, and their CIDRs may overlap.
        #[schemars(default)]
        pub vpcs: Map<VpcSection>,
        /// The internet of this lab. No packet ever leaves the machine.
        pub internet: Option<InternetSection>,
        /// What should be reachable and what should not.
        #[schemars(default)]
        pub expect: Vec<ExpectSection>,
    }

    /// A VPC.
    pub struct VpcSection "a VPC" {
        /// Primary address range, /16 to /28.
        pub cidr: Spanned<IpNet>,
        /// Secondary address ranges, /16 to /28.
        #[schemars(default)]
        pub cidrs: Vec<Spanned<IpNet>>,
        /// Name of its internet gateway. Without one, nothing in the VPC has a way to the internet.
        pub internet_gateway: Option<Spanned<Name>>,
        /// The route table of subnets that name none. Default: the table called `main`, which has local routes only.
        pub main_route_table: Option<Spanned<Name>>,
        /// Subnets by name.
        #[schemars(default)]
        pub subnets: Map<SubnetSection>,
        /// Route tables by name. Local routes are in every table.
        #[schemars(default)]
        pub route_tables: Map<RouteTableSection>,
        /// NAT gateways by name.
        #[schemars(default)]
        pub nat_gateways: Map<NatGatewaySection>,
        /// Network ACLs by name. `default` always exists and lets everything pass, unless it is written here.
        #[schemars(default)]
        pub network_acls: Map<NetworkAclSection>,
        /// Security groups by name. `default` always exists and admits its own members, unless it is written here.
        #[schemars(default)]
        pub security_groups: Map<SecurityGroupSection>,
        /// Instances by name, each with one network interface.
        #[schemars(default)]
        pub instances: Map<InstanceSection>,
    }

    /// A subnet.
    pub struct SubnetSection "a subnet" {
        /// Its address range, within a CIDR of the VPC.
        pub cidr: Spanned<IpNet>,
        /// Its route table; the VPC's main one otherwise.
        pub route_table: Option<Spanned<Name>>,
        /// Its network ACL; `default` otherwise.
        pub network_acl: Option<Spanned<Name>>,
        /// `instance`: a namespace for each instance. `shared`: one for the whole subnet.
        pub namespace: Option<Spanned<NamespaceMode>>,
        /// Whether its instances get a public address by themselves.
        pub public_ip: Option<Spanned<bool>>,
        /// `off`: the devices of its instances carry no super-packets. Default: `on`.
        pub offload: Option<Spanned<OffloadWord>>,
    }

    /// A route table with attributes.
    pub struct RouteTableRecord "a route table" {
        /// Whether it is the VPC's main route table.
        pub main: Option<Spanned<bool>>,
        /// Its routes beside the local ones.
        #[schemars(default)]
        pub routes: Vec<RouteSection>,
    }

    /// A route.
    pub struct RouteSection "a route" {
        /// Destination, such as 0.0.0.0/0.
        pub to: Spanned<IpNet>,
        /// Target: the internet gateway, a NAT gateway, an instance, `local` or `blackhole`.
        pub via: Spanned<Name>,
    }

    /// A NAT gateway.
    pub struct NatGatewaySection "a NAT gateway" {
        /// The subnet it stands in: a public one, with a route to the internet gateway.
        pub subnet: Spanned<Name>,
        /// Its Elastic IP, or a list of up to eight. Each serves 55,000 connections to every destination.
        #[schemars(default)]
        pub eip: OneOrMany<Spanned<IpAddr>>,
        /// Its private address, or a list of up to eight; automatic otherwise.
        #[schemars(default)]
        pub ip: OneOrMany<Spanned<IpAddr>>,
        /// `public` (the default) or `private`, without Elastic IP.
        pub connectivity: Option<Spanned<Connectivity>>,
        /// Silence after which a connection is forgotten. AWS: 350s.
        pub idle_timeout: Option<Spanned<Millis>>,
        /// `deleted`: it is gone, its addresses are free, and routes that lead to it are blackholes.
        pub state: Option<Spanned<NatStateWord>>,
    }

    /// A network ACL: numbered entries, the lowest that matches decides, and nothing remembers connections.
    pub struct NetworkAclSection "a network ACL" {
        /// For packets that enter a subnet.
        #[schemars(default)]
        pub inbound: Vec<AclEntrySection>,
        /// For packets that leave a subnet.
        #[schemars(default)]
        pub outbound: Vec<AclEntrySection>,
    }

    /// An entry of a network ACL.
    pub struct AclEntrySection "a network ACL entry" {
        /// Its number, 1 to 32766.
        pub rule: Spanned<u32>,
        /// The protocol to let pass: tcp, udp, icmp, all or a number.
        pub allow: Option<Spanned<ProtocolWord>>,
        /// The protocol to discard: tcp, udp, icmp, all or a number.
        pub deny: Option<Spanned<ProtocolWord>>,
        /// Destination ports of TCP or UDP; all otherwise.
        pub ports: Option<Spanned<PortRange>>,
        /// Type of ICMP; all otherwise.
        pub r#type: Option<Spanned<IcmpWord>>,
        /// Code of ICMP; all otherwise.
        pub code: Option<Spanned<u8>>,
        /// Source of inbound packets.
        pub from: Option<Spanned<IpNet>>,
        /// Destination of outbound packets.
        pub to: Option<Spanned<IpNet>>,
    }

    /// A security group: what it does not admit is discarded; replies to what it admits come back.
    pub struct SecurityGroupSection "a security group" {
        /// What it is for.
        pub description: Option<Spanned<Text>>,
        /// What its members may receive. Nothing, unless it is written here.
        #[schemars(default)]
        pub inbound: Vec<SgRuleSection>,
        /// What its members may send. Everything, unless it is written here (`[]`: nothing).
        pub outbound: Option<Vec<SgRuleSection>>,
    }

    /// A rule of a security group: a protocol and a far end.
    pub struct SgRuleSection "a security group rule" {
        /// Destination ports of TCP: one, a range, `all`, or a list of these.
        #[schemars(default)]
        pub tcp: OneOrMany<Spanned<PortRange>>,
        /// Destination ports of UDP: one, a range, `all`, or a list of these.
        #[schemars(default)]
        pub udp: OneOrMany<Spanned<PortRange>>,
        /// ICMP: `echo-request`, `all`, another type, or a type with a code.
        pub icmp: Option<IcmpSection>,
        /// Another protocol by number.
        pub protocol: Option<Spanned<ProtocolNumber>>,
        /// Every protocol.
        pub all: Option<Spanned<bool>>,
        /// Who may send (inbound rules): a CIDR, a security group, `self`, or a list of these.
        #[schemars(default)]
        pub from: OneOrMany<Spanned<PeerWord>>,
        /// Who may be sent to (outbound rules): a CIDR, a security group, `self`, or a list of these.
        #[schemars(default)]
        pub to: OneOrMany<Spanned<PeerWord>>,
        /// What it is for.
        pub description: Option<Spanned<Text>>,
    }

    /// An ICMP type with a code.
    pub struct IcmpRecord "an ICMP type" {
        /// The type.
        pub r#type: Spanned<IcmpWord>,
        /// The code; every one otherwise.
        pub code: Option<Spanned<u8>>,
    }

    /// An instance: a namespace with one network interface.
    pub struct InstanceSection "an instance" {
        /// The subnet it is in.
        pub subnet: Spanned<Name>,
        /// Its primary private address; automatic otherwise.
        pub ip: Option<Spanned<IpAddr>>,
        /// The Elastic IP of its primary address.
        pub eip: Option<Spanned<IpAddr>>,
        /// Its secondary private addresses: one, or a list; each may have an Elastic IP of its own.
        #[schemars(default)]
        pub secondary_ips: OneOrMany<SecondaryIpSection>,
        /// Whether it gets a public address by itself; as the subnet says otherwise.
        pub public_ip: Option<Spanned<bool>>,
        /// Its security groups, at most 16; `default` otherwise.
        #[schemars(default)]
        pub security_groups: OneOrMany<Spanned<Name>>,
        /// Commands that run in it, for `sh -c`.
        #[schemars(default)]
        pub run: OneOrMany<Spanned<Text>>,
        /// Whether packets must be from or to its own address. `false` for one that forwards.
        pub source_dest_check: Option<Spanned<bool>>,
        /// A network namespace that exists already: its name, or `/proc/PID/ns/net`.
        pub attach: Option<Spanned<AttachPath>>,
        /// Idle timeouts of its tracked connections.
        pub tracking: Option<TrackingSection>,
        /// Most connections that its security groups track at a time. AWS: by instance type. Default: 262144.
        pub max_connections: Option<Spanned<u32>>,
        /// `off`: its device carries no super-packets. As the subnet says otherwise.
        pub offload: Option<Spanned<OffloadWord>>,
        /// Most IP fragments that it sends in a second. Default: 1024, as AWS.
        pub fragments_per_second: Option<Spanned<u32>>,
    }

    /// A secondary private address with what belongs to it.
    pub struct SecondaryIpRecord "a secondary address" {
        /// The address.
        pub ip: Spanned<IpAddr>,
        /// Its Elastic IP.
        pub eip: Option<Spanned<IpAddr>>,
    }

    /// Idle timeouts of tracked connections.
    pub struct TrackingSection "tracking timeouts" {
        /// Established TCP, 60s to 432000s. Default: 432000s.
        pub tcp_established: Option<Spanned<Millis>>,
        /// UDP seen in one direction or with one reply, 30s to 60s. Default: 30s.
        pub udp: Option<Spanned<Millis>>,
        /// UDP with several requests and replies, 60s to 180s. Default: 180s.
        pub udp_stream: Option<Spanned<Millis>>,
        /// Protocols other than TCP, UDP and ICMP. AWS: 600s.
        pub other: Option<Spanned<Millis>>,
    }

    /// The internet of a lab.
    pub struct InternetSection "the internet" {
        /// Hosts by name.
        #[schemars(default)]
        pub hosts: Map<HostSection>,
        /// Where automatic public addresses come from. Default: 203.0.113.128/25.
        pub public_pool: Option<Spanned<IpNet>>,
        /// `off`: its device carries no super-packets. Default: `on`.
        pub offload: Option<Spanned<OffloadWord>>,
    }

    /// A host on the internet.
    pub struct HostSection "an internet host" {
        /// Its address, from 198.51.100.0/24 or 203.0.113.0/24 for example.
        pub ip: Spanned<IpAddr>,
        /// Commands that run in it, for `sh -c`.
        #[schemars(default)]
        pub run: OneOrMany<Spanned<Text>>,
    }

    /// What should be reachable, or not.
    pub struct ExpectSection "an expectation" {
        /// Instance, internet host, `internet` or address.
        pub from: Spanned<Text>,
        /// Instance, internet host, NAT gateway or address.
        pub to: Spanned<Text>,
        /// Protocol: tcp, udp, icmp, a number, or all: TCP and UDP to the port, ping, and every other one.
        pub protocol: Spanned<ProtocolWord>,
        /// Destination port.
        pub port: Option<Spanned<u16>>,
        /// Source ports of TCP or UDP: one, or a range. Default: those that Linux takes, 32768-60999.
        pub source_ports: Option<Spanned<PortRange>>,
        /// Whether it is.
        pub reachable: Spanned<bool>,
        /// What it passes on the way, in this order.
        #[schemars(default)]
        pub via: OneOrMany<Spanned<Text>>,
        /// The code of the reason for which it is not.
        pub because: Option<Spanned<Text>>,
    }
}

/// A route table: a list of routes, or a record with attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTableSection(pub RouteTableRecord);

impl Decode for RouteTableSection {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::List(_) => {
                let routes = Vec::decode(node, errors)?;
                Some(Self(RouteTableRecord { span: node.span, main: None, routes }))
            }
            _ => RouteTableRecord::decode(node, errors).map(Self),
        }
    }
}

impl JsonSchema for RouteTableSection {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RouteTable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<Vec<RouteSection>>();
        let record = generator.subschema_for::<RouteTableRecord>();
        json_schema!({ "anyOf": [list, record] })
    }
}

/// A secondary address of an instance: the address, or a record with its Elastic IP.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondaryIpSection(pub SecondaryIpRecord);

impl Decode for SecondaryIpSection {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Map(_) => SecondaryIpRecord::decode(node, errors).map(Self),
            _ => {
                let ip = Spanned::decode(node, errors)?;
                Some(Self(SecondaryIpRecord { span: node.span, ip, eip: None }))
            }
        }
    }
}

impl JsonSchema for SecondaryIpSection {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecondaryIp".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let record = generator.subschema_for::<SecondaryIpRecord>();
        json_schema!({ "anyOf": [IpAddr::schema(), record] })
    }
}

/// ICMP of a security group rule: a word, or a record with type and code.
#[derive(Clone, Debug, PartialEq)]
pub struct IcmpSection {
    /// Where it stands.
    pub span: Span,
    /// The type.
    pub kind: Spanned<IcmpWord>,
    /// The code.
    pub code: Option<Spanned<u8>>,
}

impl Decode for IcmpSection {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        let (kind, code) = match node.value {
            Value::Map(_) => {
                let IcmpRecord { r#type, code, .. } = IcmpRecord::decode(node, errors)?;
                (r#type, code)
            }
            _ => (Spanned::decode(node, errors)?, None),
        };
        Some(Self { span: node.span, kind, code })
    }
}

impl JsonSchema for IcmpSection {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Icmp".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let record = generator.subschema_for::<IcmpRecord>();
        json_schema!({ "anyOf": [IcmpWord::schema(), record] })
    }
}

/// The key of a field: `type` for `r#type`.
fn key(field: &'static str) -> &'static str {
    field.trim_start_matches("r#")
}
