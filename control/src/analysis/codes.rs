//! The explanation codes that AWS documents, and what becomes of each here.
//!
//! Where a packet is discarded, the code is that of the [`DiscardReason`]: one list for counters, traces and
//! analysis. [`Code`] has those of AWS's codes that the analysis adds, and [`ALL`] every code that AWS documents
//! (aws-vpc.md §20.2 to §20.4), with the reason where one cannot occur.

use std::fmt;

use localvpc_api::DiscardReason;

/// A code of the analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// What discards the packet.
    Discard(DiscardReason),
    /// What goes with it, or with the whole path.
    Detail(Detail),
}

macro_rules! details {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)*) => {
        /// Codes that no discard reason has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Detail {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Detail {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// AWS's name.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

details! {
    /// The component is not in a state to work.
    BadState = "BAD_STATE";
    /// The route's destination does not hold the packet's.
    CannotRoute = "CANNOT_ROUTE";
    /// The source and the destination are in VPCs that nothing connects for them.
    DisconnectedVpcs = "DISCONNECTED_VPCS";
    /// The interface sends from its own address only.
    EniAddressRestriction = "ENI_ADDRESS_RESTRICTION";
    /// The gateway takes nothing from the VPC whose source is no address of the VPC.
    RejectsSpoofed = "GATEWAY_REJECTS_SPOOFED_TRAFFIC";
    /// The internet gateway brings packets to its own VPC only.
    IgwOutsideVpc = "IGW_DESTINATION_ADDRESS_IN_VPC_CIDRS";
    /// From the internet something is reached by its public address.
    IgwExpectsPublic = "IGW_EXPECTS_PUBLIC_ADDRESS";
    /// A longer prefix takes the packet before this route can.
    MoreSpecificRoute = "MORE_SPECIFIC_ROUTE";
    /// A NAT gateway changes no destination: nothing behind it can be reached through it.
    NatKeepsDestination = "NGW_DEST_ADDRESS_PRESERVATION";
    /// Behind a NAT gateway the source is its private address.
    NatChangesSource = "NGW_SOURCE_ADDRESS_REASSIGN";
    /// There is no path that ends anywhere.
    NoPath = "NO_PATH";
    /// A NAT gateway sends from any port of 1024 to 65535.
    RemapsPort = "REMAP_EPHEMERAL_PORT";
    /// The way leads through a public address or a gateway, so a rule that names a security group does not know the sender.
    GroupNotPreserved = "SG_REFERENCES_NOT_PRESERVED";
    /// The way back was not analysed.
    Unidirectional = "UNIDIRECTIONAL_PATH_ANALYSIS_ONLY";
    /// What happens to the packet there is not known.
    UnknownDestination = "UNKNOWN_DESTINATION";
    /// The local route covers the addresses of the VPC only.
    LocalRouteOnly = "VPC_LOCAL_ROUTE_CIDR_RESTRICTION";
}

impl Code {
    /// As outputs show it and files expect it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discard(reason) => reason.code(),
            Self::Detail(detail) => detail.code(),
        }
    }

    /// One sentence for people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Discard(reason) => reason.explanation(),
            Self::Detail(detail) => detail.explanation(),
        }
    }

    /// The code of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|code| code.as_str() == name)
    }

    /// Every code that an analysis or the dataplane can give.
    pub fn all() -> impl Iterator<Item = Self> {
        let discards = DiscardReason::ALL.iter().copied().map(Self::Discard);
        discards.chain(Detail::ALL.iter().copied().map(Self::Detail))
    }
}

impl From<DiscardReason> for Code {
    fn from(reason: DiscardReason) -> Self {
        Self::Discard(reason)
    }
}

impl From<Detail> for Code {
    fn from(detail: Detail) -> Self {
        Self::Detail(detail)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a code of AWS's cannot occur; `None` for one that can, and for what is no code.
pub fn cannot_occur(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(name, _)| *name == code).and_then(|(_, why)| *why)
}

const NO_LOAD_BALANCER: Option<&str> = Some("there are no load balancers yet");
const NO_FIREWALL: Option<&str> = Some("there are no firewalls");
const NO_TRANSIT_GATEWAY: Option<&str> = Some("there are no transit gateways yet");
const NO_VPN: Option<&str> = Some("there are no VPN connections and virtual private gateways");
const NO_ENDPOINT: Option<&str> = Some("there are no VPC endpoints yet");
const NO_PEERING: Option<&str> = Some("there is no peering yet");
const NO_EDGE_TABLE: Option<&str> = Some("there are no edge route tables yet");
const NO_FILTER: Option<&str> = Some(
    "a question is about one kind of packet from one end to the other; paths are not searched and filtered",
);
const ALL_IS_KNOWN: Option<&str> = Some("everything there is stands in the file");

/// Every code that AWS documents; with the reason where it cannot occur here.
pub const ALL: &[(&str, Option<&str>)] = &[
    ("BAD_STATE", None),
    ("BAD_STATE_ATTACHMENT", Some("an internet gateway in a file is attached to its VPC")),
    ("BAD_STATE_ROUTE", None),
    ("BAD_STATE_VPN", NO_VPN),
    ("TGW_BAD_STATE_VPN", NO_VPN),
    ("CANNOT_ROUTE", None),
    ("ELB_ACL_RESTRICTION", NO_LOAD_BALANCER),
    ("ELB_INSTALLED_AZ_RESTRICTION", NO_LOAD_BALANCER),
    ("ELB_LISTENER_PORT_RESTRICTION", NO_LOAD_BALANCER),
    ("ELB_LISTENERS_MISMATCH", NO_LOAD_BALANCER),
    ("ELBV2_LISTENERS_MISMATCH", NO_LOAD_BALANCER),
    ("ELB_NOT_CROSSZONE", NO_LOAD_BALANCER),
    ("ELBV2_LISTENER_HAS_NO_TG", NO_LOAD_BALANCER),
    ("ELBV2_LISTENER_PORT_RESTRICTION", NO_LOAD_BALANCER),
    ("ELBV2_LISTENER_REQUIRES_TG_ACCEPT", NO_LOAD_BALANCER),
    ("ELBV2_NO_TARGETS_IN_AZ", NO_LOAD_BALANCER),
    ("ELBV2_SOURCE_ADDRESS_PRESERVATION", NO_LOAD_BALANCER),
    ("ENI_ADDRESS_RESTRICTION", None),
    ("ENI_SG_RULES_MISMATCH", None),
    ("ENI_SOURCE_DEST_CHECK_RESTRICTION", None),
    ("FIREWALL_RULES_RESTRICTION", NO_FIREWALL),
    ("GATEWAY_REJECTS_SPOOFED_TRAFFIC", None),
    ("GWLB_DESTINATION_PORT_RESTRICTION", NO_LOAD_BALANCER),
    ("GWLB_PROTOCOL_RESTRICTION", NO_LOAD_BALANCER),
    (
        "HIGHER_PRIORITY_ROUTE",
        Some("a route table of a file has one route to a destination: a second one is an error"),
    ),
    ("IGW_DESTINATION_ADDRESS_IN_VPC_CIDRS", None),
    ("IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS", None),
    ("IGW_DESTINATION_ADDRESS_NOT_IN_RFC6598_EGRESS", None),
    (
        "IGW_NAT_REFLECTION",
        Some("a path out of an internet gateway and in again is analysed like any other (IGW-14)"),
    ),
    ("IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS", None),
    ("IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS", None),
    ("IGW_SOURCE_ADDRESS_NOT_IN_RFC1918_INGRESS", None),
    ("IGW_SOURCE_ADDRESS_NOT_IN_RFC6598_INGRESS", None),
    ("INGRESS_RTB_NO_PUBLIC_IP", NO_EDGE_TABLE),
    ("INGRESS_RTB_TRAFFIC_REDIRECTION", NO_EDGE_TABLE),
    ("MORE_SPECIFIC_ROUTE", None),
    ("NGW_DEST_ADDRESS_PRESERVATION", None),
    ("NGW_REQUIRES_SOURCE_IN_VPC", None),
    ("NGW_SOURCE_ADDRESS_REASSIGN", None),
    ("NO_POSSIBLE_DESTINATION", None),
    ("NO_ROUTE_TO_DESTINATION", None),
    ("PCX_REQUIRES_ADDRESS_IN_VPC_CIDR", NO_PEERING),
    ("PROTOCOL_RESTRICTION", None),
    ("REGIONAL_NGW_ROUTE_AZ_RESTRICTION", Some("a lab is one Availability Zone")),
    ("REMAP_EPHEMERAL_PORT", None),
    ("SG_HAS_NO_RULES", None),
    ("SG_REFERENCES_NOT_PRESERVED", None),
    ("SG_REFERENCING_SUPPORT", NO_TRANSIT_GATEWAY),
    ("SUBNET_ACL_RESTRICTION", None),
    ("TARGET_ADDRESS_RESTRICTION", NO_LOAD_BALANCER),
    ("TARGET_PORT_RESTRICTION", NO_LOAD_BALANCER),
    ("TGW_ATTACH_MISSING_TGW_RTB_ASSOCIATION", NO_TRANSIT_GATEWAY),
    ("TGW_ATTACH_VPC_AZ_RESTRICTION", NO_TRANSIT_GATEWAY),
    ("TGW_ROUTE_AZ_RESTRICTION", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_BAD_STATE_ROUTE", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_CANNOT_ROUTE", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_HIGHER_PRIORITY_ROUTE", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_MORE_SPECIFIC_ROUTE", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_NO_ROUTE_TO_TGW_ATTACHMENT", NO_TRANSIT_GATEWAY),
    ("TGW_RTB_ROUTES_ARE_UNKNOWN", NO_TRANSIT_GATEWAY),
    ("UNKNOWN_DESTINATION", None),
    ("UNKNOWN_PEERED_SGS", NO_PEERING),
    ("UNKNOWN_RESOURCE", ALL_IS_KNOWN),
    ("VGW_PRIVATE_IP_ASSOCIATION_FOR_EGRESS", NO_VPN),
    ("VGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS", NO_VPN),
    ("VPC_BLOCK_PUBLIC_ACCESS_ENABLED", Some("there is no VPC Block Public Access")),
    ("VPC_LOCAL_ROUTE_CIDR_RESTRICTION", None),
    ("VPCE_GATEWAY_EGRESS_SOURCE_ADDRESS_RESTRICTION", NO_ENDPOINT),
    ("VPCE_GATEWAY_PROTOCOL_RESTRICTION", NO_ENDPOINT),
    ("VPCE_INTRA_VPC_TRAFFIC", NO_ENDPOINT),
    ("VPCE_SERVICE_NOT_INSTALLED_IN_AZ", NO_ENDPOINT),
    ("DISCONNECTED_VPCS", None),
    ("NO_PATH", None),
    ("NO_SOURCE_OR_DESTINATION", Some("a name that is not in the lab is an error that names the nearest")),
    ("UNASSOCIATED_COMPONENT", Some("what is in a file is attached to something")),
    ("UNSUPPORTED_COMPONENT", Some("what can be no end of a path is an error that says what can")),
    ("COMPONENT_FILTER_RESTRICTION", NO_FILTER),
    ("COMPONENT_FILTER_RESTRICTION_REMOVED_COMPONENT", NO_FILTER),
    ("FILTER_AT_SOURCE_SOURCE_ADDRESS", NO_FILTER),
    ("FILTER_AT_SOURCE_SOURCE_PORT_RANGE", NO_FILTER),
    ("FILTER_AT_SOURCE_DESTINATION_ADDRESS", NO_FILTER),
    ("FILTER_AT_SOURCE_DESTINATION_PORT_RANGE", NO_FILTER),
    ("FILTER_AT_SOURCE_PROTOCOL", NO_FILTER),
    ("FILTER_AT_DESTINATION_SOURCE_ADDRESS", NO_FILTER),
    ("FILTER_AT_DESTINATION_SOURCE_PORT_RANGE", NO_FILTER),
    ("FILTER_AT_DESTINATION_DESTINATION_ADDRESS", NO_FILTER),
    ("FILTER_AT_DESTINATION_DESTINATION_PORT_RANGE", NO_FILTER),
    ("FILTER_AT_DESTINATION_PROTOCOL", NO_FILTER),
    ("IGW_EXPECTS_PUBLIC_ADDRESS", None),
    ("ASSUMPTION_PRESERVE_CLIENT_IP_IS_DISABLED", NO_LOAD_BALANCER),
    ("ASSUMPTION_PRESERVE_CLIENT_IP_IS_ENABLED", NO_LOAD_BALANCER),
    ("AVAILABILITY_ZONE_CROSSED", Some("a lab is one Availability Zone")),
    ("FIREWALL_UNSUPPORTED_HIGHER_PRIORITY_RULE_GROUP_TYPE", NO_FIREWALL),
    ("FIREWALL_UNSUPPORTED_HIGHER_PRIORITY_RULES", NO_FIREWALL),
    ("FIREWALL_UNSUPPORTED_RULE_OPTIONS", NO_FIREWALL),
    ("MISSING_TARGET_GROUP_ATTRIBUTES", NO_LOAD_BALANCER),
    ("PATH_THROUGH_GWLB_NOT_CHECKED", NO_LOAD_BALANCER),
    ("RESPONSE_RTB_HAS_NO_ROUTE_TO_TRANSIT_GATEWAY", NO_TRANSIT_GATEWAY),
    ("TRANSIT_GATEWAY_APPLIANCE_MODE_RECOMMENDED", NO_TRANSIT_GATEWAY),
    ("UNIDIRECTIONAL_PATH_ANALYSIS_ONLY", None),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_one_meaning() {
        let documented: HashSet<_> = ALL.iter().map(|(code, _)| *code).collect();
        assert_eq!(documented.len(), ALL.len(), "a code stands twice");
        let ours: HashSet<_> = Code::all().map(Code::as_str).collect();
        assert_eq!(ours.len(), Code::all().count(), "two reasons share a code");
        for (code, why) in ALL {
            assert_eq!(ours.contains(code), why.is_none(), "{code}");
            assert_eq!(cannot_occur(code), *why);
        }
        for detail in Detail::ALL {
            assert!(documented.contains(detail.code()), "{detail:?} is none of AWS's");
            assert!(detail.explanation().ends_with('.'));
            assert_eq!(Code::named(detail.code()), Some(Code::Detail(*detail)));
        }
    }
}
