//! What is looked at: each VPC as written, for places, and as meant.

use localvpc_api::tables::SourceDestCheck;
use localvpc_api::trace::Direction;

use crate::config::decode::Named;
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::document::{
    AclEntrySection, LabSection, NetworkAclSection, SecurityGroupSection, SgRuleSection, VpcSection,
};
use crate::config::{Document, Span};
use crate::model::{
    Instance, Model, NatGateway, NatGatewayState, NetworkAcl, NetworkAclEntry, RouteTable, Subnet, Vpc,
};

use super::catalog::Lint;

/// A file to look at.
pub struct Subject<'a> {
    /// As written.
    pub content: &'a LabSection,
    /// What it means.
    pub model: &'a Model,
}

/// A VPC of it.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// As written.
    pub written: &'a VpcSection,
    /// What it means.
    pub vpc: &'a Vpc,
}

/// What was found.
pub struct Findings(pub Diagnostics);

impl Findings {
    /// Notes one; the reference returned takes help and related places.
    pub fn add(&mut self, lint: &'static Lint, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let one = self.0.found(lint.severity, lint.id, span, message);
        one.reason = Some(lint.reason);
        one
    }
}

impl<'a> Subject<'a> {
    /// Of a document and the model made of it.
    pub fn new(document: &'a Document, model: &'a Model) -> Self {
        Self { content: &document.content, model }
    }

    /// Its VPCs: the model keeps the order of the file.
    pub fn vpcs(&self) -> impl Iterator<Item = Pair<'a>> {
        self.content.vpcs.iter().zip(&self.model.vpcs).map(|(named, vpc)| Pair { written: &named.value, vpc })
    }
}

impl<'a> Pair<'a> {
    /// The subnets that use a network ACL.
    pub fn subnets_behind(&self, acl: &str) -> Vec<&'a Subnet> {
        self.vpc.subnets.iter().filter(|subnet| subnet.network_acl == acl).collect()
    }

    /// The instances that carry a security group.
    pub fn members(&self, group: &str) -> impl Iterator<Item = &'a Instance> {
        self.vpc.instances.iter().filter(move |it| it.security_groups.iter().any(|name| name == group))
    }

    /// Route tables that a subnet uses.
    pub fn tables_in_use(&self) -> impl Iterator<Item = &'a RouteTable> {
        let vpc = self.vpc;
        vpc.route_tables.iter().filter(|table| vpc.subnets.iter().any(|it| it.route_table == table.name))
    }

    /// The NAT gateways of a subnet that work.
    pub fn nat_gateways_in(&self, subnet: &str) -> impl Iterator<Item = &'a NatGateway> {
        let all = self.vpc.nat_gateways.iter().filter(|nat| nat.state == NatGatewayState::Available);
        all.filter(move |nat| nat.subnet == subnet)
    }

    /// Whether something may send from addresses that are not its own.
    pub fn has_forwarder(&self) -> bool {
        let forwards =
            |it: &Instance| it.source_dest_check == SourceDestCheck::Disabled || it.attach.is_some();
        self.vpc.instances.iter().any(forwards)
    }

    /// The network ACLs that were written.
    pub fn network_acls(&self) -> impl Iterator<Item = (&'a Named<NetworkAclSection>, &'a NetworkAcl)> {
        let vpc = self.vpc;
        self.written.network_acls.iter().filter_map(|named| Some((named, vpc.network_acl(&named.name)?)))
    }

    /// The security groups that were written.
    pub fn security_groups(&self) -> impl Iterator<Item = &'a Named<SecurityGroupSection>> {
        self.written.security_groups.iter()
    }
}

/// An entry of a network ACL as written, by its number.
pub fn entry<'a>(
    acl: &'a NetworkAclSection,
    direction: Direction,
    entry: &NetworkAclEntry,
) -> Option<&'a AclEntrySection> {
    let entries = match direction {
        Direction::Inbound => &acl.inbound,
        Direction::Outbound => &acl.outbound,
    };
    entries.iter().find(|section| section.rule.value == u32::from(entry.number))
}

/// Where the number of an entry stands.
pub fn number_span(acl: &NetworkAclSection, direction: Direction, it: &NetworkAclEntry) -> Span {
    entry(acl, direction, it).map(|section| section.rule.span).unwrap_or_default()
}

/// The rules of a group in one direction as written.
pub fn rules(group: &SecurityGroupSection, direction: Direction) -> &[SgRuleSection] {
    match direction {
        Direction::Inbound => &group.inbound,
        Direction::Outbound => group.outbound.as_deref().unwrap_or_default(),
    }
}

/// `inbound`.
pub fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// The key of the far end.
pub fn far_key(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "from",
        Direction::Outbound => "to",
    }
}

/// The other direction.
pub fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Inbound => Direction::Outbound,
        Direction::Outbound => Direction::Inbound,
    }
}

/// Both.
pub const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
