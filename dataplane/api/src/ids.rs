//! One newtype per kind of row.
//!
//! Control assigns these numbers, keeps them stable for as long as the resource
//! exists, and never gives a number to another resource within the life of a
//! lab: connections and NAT leases refer to them across pushes.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "#{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// A VPC: the scope of addresses. Two VPCs may use the same CIDR.
    VpcId "vpc";
    /// A subnet.
    SubnetId "subnet";
    /// A route table.
    RouteTableId "route-table";
    /// A network ACL.
    NetworkAclId "network-acl";
    /// A security group.
    SecurityGroupId "security-group";
    /// An elastic network interface of an instance. A NAT gateway's is named by its [`NatGatewayId`].
    EniId "eni";
    /// An internet gateway.
    InternetGatewayId "internet-gateway";
    /// A NAT gateway.
    NatGatewayId "nat-gateway";
    /// A TUN device with its queues: where packets enter and leave the dataplane.
    LinkId "link";
}

/// The version of a pushed configuration. Each push has a greater one than the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
