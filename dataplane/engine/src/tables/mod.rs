//! Compiles pushed rows into immutable tables that packets are walked through.
//!
//! Rows refer to each other by id; compiled tables refer by dense index, so that a
//! walk follows arrays and never looks an id up. A [`Tables`] is built as a whole
//! ([`build()`]), validated completely on the way, and never changes afterwards.
//!
//! - [`lpm`]: longest-prefix match
//! - [`rules`]: security group and network ACL matching
//! - `intervals`: how both find a key
//! - [`build()`]: rows → tables, or the row at fault

mod build;
mod intervals;
pub mod lpm;
pub mod rules;

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use localvpc_api::tables::{LinkKind, SourceDestCheck, TrackingTimeouts};
use localvpc_api::{
    EniId, Generation, InternetGatewayId, LinkId, NatGatewayId, NetworkAclId, RouteTableId, SubnetId, VpcId,
};

pub use build::build;
use lpm::Lpm;
use rules::{AclRules, RuleSet};

use crate::metrics::{EniMetrics, NatGatewayMetrics};
use crate::state::allowance::Allowance;

macro_rules! indexes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);
    )*};
}

indexes! {
    /// Position of a [`Vpc`].
    VpcIndex;
    /// Position of a [`Subnet`].
    SubnetIndex;
    /// Position of a [`RouteTable`].
    RouteTableIndex;
    /// Position of a [`NetworkAcl`].
    NetworkAclIndex;
    /// Position of an [`Eni`].
    EniIndex;
    /// Position of a [`NatGateway`].
    NatGatewayIndex;
    /// Position of an [`InternetGateway`].
    InternetGatewayIndex;
}

/// Everything that a walk consults and that a push replaces.
#[derive(Debug, Default)]
pub struct Tables {
    /// The version that flow cache entries are decided under.
    pub generation: Generation,
    pub(crate) vpcs: Vec<Vpc>,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) route_tables: Vec<RouteTable>,
    pub(crate) network_acls: Vec<NetworkAcl>,
    pub(crate) enis: Vec<Eni>,
    pub(crate) nat_gateways: Vec<NatGateway>,
    pub(crate) internet_gateways: Vec<InternetGateway>,
    pub(crate) links: HashMap<LinkId, Link, RandomState>,
    pub(crate) internet: Internet,
    pub(crate) eni_ids: HashSet<EniId, RandomState>,
    pub(crate) nat_gateway_ids: HashSet<NatGatewayId, RandomState>,
    pub(crate) nat_addresses: HashSet<(NatGatewayId, IpAddr), RandomState>,
}

impl Tables {
    /// Whether the push has this ENI: connections of others are forgotten.
    pub fn has_eni(&self, id: EniId) -> bool {
        self.eni_ids.contains(&id)
    }

    /// The ENI that sends from `source` on a link. In a shared namespace only the source address tells ENIs apart.
    pub fn sender(&self, link: &Link, source: IpAddr) -> Option<EniIndex> {
        match link.enis.as_slice() {
            [only] => Some(*only),
            enis => enis.iter().copied().find(|eni| self.eni(*eni).addresses.contains(&source)),
        }
    }

    /// Whether the push has this NAT gateway.
    pub fn has_nat_gateway(&self, id: NatGatewayId) -> bool {
        self.nat_gateway_ids.contains(&id)
    }

    /// Whether the push has this NAT gateway with this address: leases of others are forgotten.
    pub fn has_nat_address(&self, id: NatGatewayId, address: IpAddr) -> bool {
        self.nat_addresses.contains(&(id, address))
    }
}

/// A scope of addresses.
#[derive(Debug)]
pub struct Vpc {
    /// Its row.
    pub id: VpcId,
    /// Its ranges.
    pub cidrs: Vec<IpNet>,
    /// Who owns an address: delivery is strictly by (VPC, address) (PKT-8).
    pub owners: HashMap<IpAddr, Owner, RandomState>,
    /// Positions of subnets, by their ranges.
    subnets: Lpm,
}

impl Vpc {
    /// The subnet of an address.
    #[inline]
    pub fn subnet(&self, address: IpAddr) -> Option<SubnetIndex> {
        self.subnets.lookup(address).map(SubnetIndex)
    }
}

/// What owns a private address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An instance's interface.
    Eni(EniIndex),
    /// A NAT gateway.
    NatGateway(NatGatewayIndex),
}

/// A subnet.
#[derive(Debug)]
pub struct Subnet {
    /// Its row.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcIndex,
    /// Its range.
    pub cidr: IpNet,
    /// Its route table.
    pub route_table: RouteTableIndex,
    /// Its network ACL.
    pub network_acl: NetworkAclIndex,
}

/// A route table.
#[derive(Debug)]
pub struct RouteTable {
    /// Its row.
    pub id: RouteTableId,
    /// Positions of routes, by their destinations.
    longest: Lpm,
    routes: Box<[Route]>,
}

impl RouteTable {
    /// The route with the longest prefix that contains `destination`.
    #[inline]
    pub fn route(&self, destination: IpAddr) -> Option<&Route> {
        self.longest.lookup(destination).map(|at| &self.routes[at as usize])
    }
}

/// A route with its target resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// As pushed, for traces.
    pub destination: IpNet,
    /// Where it leads.
    pub target: Target,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the owner of the address.
    Local,
    /// To the internet.
    InternetGateway(InternetGatewayIndex),
    /// Through source translation.
    NatGateway(NatGatewayIndex),
    /// To an instance that forwards.
    NetworkInterface(EniIndex),
    /// Nowhere.
    Blackhole,
}

/// A network ACL, both directions compiled.
#[derive(Debug)]
pub struct NetworkAcl {
    /// Its row.
    pub id: NetworkAclId,
    /// For packets that enter a subnet.
    pub inbound: AclRules,
    /// For packets that leave a subnet.
    pub outbound: AclRules,
}

/// An instance's interface with the rules of all its security groups merged.
#[derive(Debug)]
pub struct Eni {
    /// Its row.
    pub id: EniId,
    /// Where its packets enter and leave.
    pub link: LinkId,
    /// Its subnet.
    pub subnet: SubnetIndex,
    /// Its private addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Rules for packets that arrive. ENIs with the same groups share one set.
    pub inbound: Arc<RuleSet>,
    /// Rules for packets that it sends.
    pub outbound: Arc<RuleSet>,
    /// Source/destination check.
    pub source_dest_check: SourceDestCheck,
    /// Idle timeouts of its connections.
    pub tracking: TrackingTimeouts,
    /// Most connections that it tracks at a time.
    pub max_connections: u32,
    /// Most fragments that it sends in a second (ENI-13).
    pub fragments_per_second: u32,
    /// What it tracks and sends of that; it outlives the tables.
    pub allowance: Arc<Allowance>,
    /// Its counters; they outlive the tables.
    pub metrics: Arc<EniMetrics>,
}

/// A NAT gateway.
#[derive(Debug)]
pub struct NatGateway {
    /// Its row.
    pub id: NatGatewayId,
    /// Its subnet.
    pub subnet: SubnetIndex,
    /// Its private addresses, primary first; never empty.
    pub addresses: Vec<IpAddr>,
    /// Milliseconds of silence after which a lease ends.
    pub idle_timeout_ms: u64,
    /// Its counters; they outlive the tables.
    pub metrics: Arc<NatGatewayMetrics>,
}

/// An internet gateway.
#[derive(Debug)]
pub struct InternetGateway {
    /// Its row.
    pub id: InternetGatewayId,
    /// The VPC it is attached to.
    pub vpc: VpcIndex,
    /// Private → public, 1:1 (IGW-5).
    pub public_of: HashMap<IpAddr, IpAddr, RandomState>,
}

/// A link and what stands behind it.
#[derive(Debug)]
pub struct Link {
    /// What stands behind it.
    pub kind: LinkKind,
    /// Largest IP packet it takes.
    pub mtu: u16,
    /// The ENIs behind it: one, or several in a shared namespace, or none.
    pub enis: Vec<EniIndex>,
}

/// The internet side.
#[derive(Debug, Default)]
pub struct Internet {
    /// Its link, if the lab has one.
    pub link: Option<LinkId>,
    /// Addresses that exist there.
    pub hosts: HashSet<IpAddr, RandomState>,
    /// Public address → what it stands for. Unique over all VPCs.
    pub public: HashMap<IpAddr, Association, RandomState>,
}

/// What a public address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Association {
    /// The gateway that translates.
    pub internet_gateway: InternetGatewayIndex,
    /// The private address.
    pub private: IpAddr,
}

macro_rules! accessors {
    ($($name:ident: $index:ty => $field:ident: $row:ty;)*) => {
        impl Tables {$(
            #[inline]
            pub(crate) fn $name(&self, at: $index) -> &$row {
                &self.$field[at.0 as usize]
            }
        )*}
    };
}

accessors! {
    vpc: VpcIndex => vpcs: Vpc;
    subnet: SubnetIndex => subnets: Subnet;
    route_table: RouteTableIndex => route_tables: RouteTable;
    network_acl: NetworkAclIndex => network_acls: NetworkAcl;
    eni: EniIndex => enis: Eni;
    nat_gateway: NatGatewayIndex => nat_gateways: NatGateway;
    internet_gateway: InternetGatewayIndex => internet_gateways: InternetGateway;
}
