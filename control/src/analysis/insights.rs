//! An analysis in the shape that the EC2 API has for it: `DescribeNetworkInsightsAnalyses` (RA-6, RA-8 to RA-11).
//!
//! Field names and nesting are the API's. Ids are those of the lab; there are no accounts, so there are no ARNs.

use serde::{Deserialize, Serialize};

/// The result of an analysis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkInsightsAnalysis {
    /// `nia-…`, derived from lab and question.
    pub network_insights_analysis_id: String,
    /// `nip-…`, derived from lab and question.
    pub network_insights_path_id: String,
    /// `succeeded`.
    pub status: String,
    /// Whether there is a path, for at least some of the packets asked about; absent where it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_path_found: Option<bool>,
    /// The way there.
    pub forward_path_components: Vec<PathComponent>,
    /// The way back.
    pub return_path_components: Vec<PathComponent>,
    /// What is in the way, and what goes with it.
    pub explanations: Vec<ExplanationItem>,
    /// Always empty: the path that packets take is the only one.
    pub alternate_path_hints: Vec<serde_json::Value>,
}

/// A component of a path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PathComponent {
    /// From 1.
    pub sequence_number: u32,
    /// The component.
    pub component: AnalysisComponent,
    /// What it belongs to: an interface to its instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<AnalysisComponent>,
    /// The entry of a network ACL that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl_rule: Option<AnalysisAclRule>,
    /// The rule of a security group that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_rule: Option<AnalysisSecurityGroupRule>,
    /// The route that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_table_route: Option<AnalysisRouteTableRoute>,
    /// Packets that come to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_header: Option<AnalysisPacketHeader>,
    /// Packets that leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_header: Option<AnalysisPacketHeader>,
    /// Its subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<AnalysisComponent>,
    /// Its VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<AnalysisComponent>,
    /// What it says against the packet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<ExplanationItem>,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisComponent {
    /// Its id.
    pub id: String,
    /// Its name in the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// An entry of a network ACL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisAclRule {
    /// The far addresses.
    pub cidr: String,
    /// Whether it is an outbound entry.
    pub egress: bool,
    /// Its ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<AnalysisPortRange>,
    /// `all`, a name or a number.
    pub protocol: String,
    /// `allow` or `deny`.
    pub rule_action: String,
    /// Its number; 32767 for `*` (NACL-3).
    pub rule_number: u32,
}

/// A rule of a security group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisSecurityGroupRule {
    /// The far addresses, where it names addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// `ingress` or `egress`.
    pub direction: String,
    /// The far group, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_group_id: Option<String>,
    /// Its ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_range: Option<AnalysisPortRange>,
    /// `all`, a name or a number.
    pub protocol: String,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisRouteTableRoute {
    /// Where to.
    pub destination_cidr: String,
    /// `local`, or an internet gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
    /// A NAT gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_gateway_id: Option<String>,
    /// An interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_interface_id: Option<String>,
    /// `createroutetable` for local routes, `createroute` for all others.
    pub origin: String,
    /// `active` or `blackhole`.
    pub state: String,
}

/// Ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisPortRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

/// A set of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnalysisPacketHeader {
    /// The fewest networks that hold the destinations.
    pub destination_addresses: Vec<String>,
    /// Destination ports of TCP and UDP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_port_ranges: Vec<AnalysisPortRange>,
    /// Number of the protocol.
    pub protocol: String,
    /// The fewest networks that hold the sources.
    pub source_addresses: Vec<String>,
    /// Source ports of TCP and UDP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_port_ranges: Vec<AnalysisPortRange>,
}

/// What is in the way, or goes with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExplanationItem {
    /// What it is.
    pub explanation_code: String,
    /// `ingress` or `egress`, seen from what filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// A network ACL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<AnalysisComponent>,
    /// Its entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl_rule: Option<AnalysisAclRule>,
    /// The address that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The component that says it, where it is none of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<AnalysisComponent>,
    /// The VPC of the destination, where that is the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_vpc: Option<AnalysisComponent>,
    /// An internet gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internet_gateway: Option<AnalysisComponent>,
    /// A NAT gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_gateway: Option<AnalysisComponent>,
    /// An interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<AnalysisComponent>,
    /// Which field of the packet: `source`, `destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_field: Option<String>,
    /// The destination ports that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_ranges: Vec<AnalysisPortRange>,
    /// Number of the protocol, where that is the matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    /// A route table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_table: Option<AnalysisComponent>,
    /// Its route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_table_route: Option<AnalysisRouteTableRoute>,
    /// Security groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<AnalysisComponent>,
    /// The VPC of the source, where that is the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_vpc: Option<AnalysisComponent>,
    /// `blackhole`, `deleted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// A subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<AnalysisComponent>,
    /// A VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<AnalysisComponent>,
}
