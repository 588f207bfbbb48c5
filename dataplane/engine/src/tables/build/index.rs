//! Finds rows by id.

use std::fmt::Display;
use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use localvpc_api::message::{InvalidRow, RowProblem};
use localvpc_api::tables as api;
use localvpc_api::*;

use crate::tables::*;

/// The position of every row, by id. Compiled tables keep the order of the rows, so that it is the position there too.
pub(super) struct Index<'a> {
    pub vpcs: Positions<VpcId>,
    pub subnets: Positions<SubnetId>,
    pub route_tables: Positions<RouteTableId>,
    pub network_acls: Positions<NetworkAclId>,
    pub security_groups: Positions<SecurityGroupId>,
    pub enis: Positions<EniId>,
    pub internet_gateways: Positions<InternetGatewayId>,
    pub nat_gateways: Positions<NatGatewayId>,
    pub links: Positions<LinkId>,
    rows: &'a localvpc_api::Tables,
}

impl<'a> Index<'a> {
    /// Indexes all rows.
    ///
    /// # Errors
    ///
    /// [`RowProblem::DuplicateId`] for the second row of an id.
    pub fn new(rows: &'a localvpc_api::Tables) -> Result<Self, InvalidRow> {
        Ok(Self {
            vpcs: Positions::of(rows.vpcs.iter().map(|row| row.id))?,
            subnets: Positions::of(rows.subnets.iter().map(|row| row.id))?,
            route_tables: Positions::of(rows.route_tables.iter().map(|row| row.id))?,
            network_acls: Positions::of(rows.network_acls.iter().map(|row| row.id))?,
            security_groups: Positions::of(rows.security_groups.iter().map(|row| row.id))?,
            enis: Positions::of(rows.enis.iter().map(|row| row.id))?,
            internet_gateways: Positions::of(rows.internet_gateways.iter().map(|row| row.id))?,
            nat_gateways: Positions::of(rows.nat_gateways.iter().map(|row| row.id))?,
            links: Positions::of(rows.links.iter().map(|row| row.id))?,
            rows,
        })
    }

    /// The row of a subnet.
    pub fn subnet(&self, id: SubnetId) -> Result<&'a api::Subnet, RowProblem> {
        Ok(&self.rows.subnets[self.subnets.of_id(id)?])
    }

    /// The VPC of a subnet.
    pub fn vpc_of_subnet(&self, id: SubnetId) -> Result<VpcId, RowProblem> {
        Ok(self.subnet(id)?.vpc)
    }

    /// The VPC of an ENI.
    pub fn vpc_of_eni(&self, id: EniId) -> Result<VpcId, RowProblem> {
        self.vpc_of_subnet(self.rows.enis[self.enis.of_id(id)?].subnet)
    }

    /// The VPC of a NAT gateway.
    pub fn vpc_of_nat_gateway(&self, id: NatGatewayId) -> Result<VpcId, RowProblem> {
        self.vpc_of_subnet(self.rows.nat_gateways[self.nat_gateways.of_id(id)?].subnet)
    }

    /// The VPC of an internet gateway.
    pub fn vpc_of_internet_gateway(&self, id: InternetGatewayId) -> Result<VpcId, RowProblem> {
        Ok(self.rows.internet_gateways[self.internet_gateways.of_id(id)?].vpc)
    }

    /// The VPC of a route table.
    pub fn vpc_of_route_table(&self, id: RouteTableId) -> Result<VpcId, RowProblem> {
        Ok(self.rows.route_tables[self.route_tables.of_id(id)?].vpc)
    }

    /// The VPC of a security group.
    pub fn vpc_of_security_group(&self, id: SecurityGroupId) -> Result<VpcId, RowProblem> {
        Ok(self.rows.security_groups[self.security_groups.of_id(id)?].vpc)
    }

    /// The row of a link.
    pub fn link(&self, id: LinkId) -> Result<&'a api::Link, RowProblem> {
        Ok(&self.rows.links[self.links.of_id(id)?])
    }
}

/// Positions of the rows of one kind.
pub(super) struct Positions<Id>(HashMap<Id, u32, RandomState>);

impl<Id: Copy + Eq + Hash + Display> Positions<Id> {
    fn of(ids: impl ExactSizeIterator<Item = Id>) -> Result<Self, InvalidRow> {
        let mut positions = HashMap::with_capacity_and_hasher(ids.len(), RandomState::default());
        for (at, id) in (0..).zip(ids) {
            if positions.insert(id, at).is_some() {
                return Err(InvalidRow { row: id.to_string(), problem: RowProblem::DuplicateId });
            }
        }
        Ok(Self(positions))
    }

    /// The position of a row that may not exist.
    fn of_id(&self, id: Id) -> Result<usize, RowProblem> {
        self.0.get(&id).map(|at| *at as usize).ok_or_else(|| RowProblem::Dangling(id.to_string()))
    }

    /// Whether the row exists.
    pub fn require(&self, id: Id) -> Result<(), RowProblem> {
        self.of_id(id).map(drop)
    }
}

/// Positions of rows that [`check`](super::check) has found to exist.
macro_rules! checked {
    ($($kind:ty => $index:ident;)*) => {$(
        impl Positions<$kind> {
            /// The index of a row that was checked to exist.
            pub fn at(&self, id: $kind) -> $index {
                $index(self.0[&id])
            }
        }
    )*};
}

checked! {
    VpcId => VpcIndex;
    SubnetId => SubnetIndex;
    RouteTableId => RouteTableIndex;
    NetworkAclId => NetworkAclIndex;
    EniId => EniIndex;
    NatGatewayId => NatGatewayIndex;
    InternetGatewayId => InternetGatewayIndex;
}
