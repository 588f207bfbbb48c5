//! The checks: one name, severity and reason each.

use crate::config::Severity;

/// A check.
#[derive(Debug, PartialEq, Eq)]
pub struct Lint {
    /// Its name, which never changes: `nat-gateway-without-way-out`.
    pub id: &'static str,
    /// `Error`: packets that are meant to pass are discarded. `Warning`: it does nothing, or more than is likely meant.
    pub severity: Severity,
    /// What it finds, in a few words.
    pub summary: &'static str,
    /// What AWS documents that makes it wrong, and the facts' ids (`facts.toml`).
    pub reason: &'static str,
}

/// The check of a name.
pub fn lint(id: &str) -> Option<&'static Lint> {
    LINTS.iter().copied().find(|lint| lint.id == id)
}

macro_rules! lints {
    ($($(#[$meta:meta])* $name:ident $id:literal $severity:ident: $summary:literal, $reason:literal;)*) => {
        $($(#[$meta])* pub static $name: Lint =
            Lint { id: $id, severity: Severity::$severity, summary: $summary, reason: $reason };)*

        /// All checks.
        pub static LINTS: &[&Lint] = &[$(&$name),*];
    };
}

lints! {
    /// Its subnet is private.
    NAT_GATEWAY_WITHOUT_WAY_OUT "nat-gateway-without-way-out" Error:
        "a public NAT gateway in a subnet without a route to the internet gateway",
        "a NAT gateway sends on what it translated by the route table of its own subnet (NATGW-1, ORD-9)";
    /// What leads to such a gateway.
    ROUTE_TO_NAT_GATEWAY_WITHOUT_WAY_OUT "route-to-nat-gateway-without-way-out" Error:
        "a route out of the VPC by a NAT gateway that has no way out itself",
        "a NAT gateway sends on what it translated by the route table of its own subnet (NATGW-1, ORD-9)";
    /// The internet gateway has no address for it.
    PRIVATE_NAT_GATEWAY_TO_INTERNET "private-nat-gateway-to-internet" Error:
        "a route to the internet by a private NAT gateway",
        "the internet gateway discards what comes from a private NAT gateway (NATGW-4)";
    /// The network ACL of its subnet is in the way.
    NAT_GATEWAY_REPLIES_BLOCKED "nat-gateway-replies-blocked" Error:
        "a NAT gateway whose network ACL does not let all replies in",
        "a NAT gateway sends from ports 1024-65535, and the network ACL of its subnet sees the replies (NATGW-10, NATGW-31)";
    /// It is gone.
    ROUTE_TO_DELETED_NAT_GATEWAY "route-to-deleted-nat-gateway" Error:
        "a route to a deleted NAT gateway",
        "a route whose target is gone is a blackhole: it is still chosen, and discards (RT-17, RT-19)";
    /// Source/destination check.
    ROUTE_TO_INSTANCE_THAT_DOES_NOT_FORWARD "route-to-instance-that-does-not-forward" Error:
        "a route to an instance with the source/destination check on",
        "an interface with the check on discards what is neither from nor to its own address (ENI-4, NATI-1)";
    /// An Elastic IP in a private subnet.
    PUBLIC_ADDRESS_WITHOUT_ROUTE "public-address-without-route" Error:
        "a public address in a subnet without a route to the internet gateway",
        "a public address works only where the subnet's route table leads to the internet gateway (IGW-2)";
    /// Its address is in the VPC.
    INTERNET_HOST_HIDDEN "internet-host-hidden" Error:
        "an internet host whose address lies in a VPC's own range",
        "every route table sends the VPC's own addresses to `local` (RT-5, VPC-5)";
    /// Earlier entries say the opposite.
    NETWORK_ACL_ENTRY_SHADOWED "network-acl-entry-shadowed" Error:
        "a network ACL entry that never decides, because earlier ones decide otherwise",
        "the lowest number that matches decides, allow or deny (NACL-2)";
    /// Replies need entries.
    NETWORK_ACL_BLOCKS_REPLIES "network-acl-blocks-replies" Error:
        "a network ACL that lets requests pass and not their replies",
        "a network ACL remembers no connections: replies to a client's ephemeral ports need entries of their own \
         (NACL-5, NACL-13)";
    /// Two answers to one question.
    EXPECTATIONS_CONTRADICT "expectations-contradict" Error:
        "two expectations that cannot both hold",
        "the same packet either arrives or does not";
    /// Earlier entries say the same.
    NETWORK_ACL_ENTRY_REDUNDANT "network-acl-entry-redundant" Warning:
        "a network ACL entry that never decides, because earlier ones decide the same",
        "the lowest number that matches decides (NACL-2)";
    /// NACLs stand at the edge.
    NETWORK_ACL_ENTRY_FOR_OWN_SUBNET "network-acl-entry-for-own-subnet" Warning:
        "a network ACL entry for the addresses of the only subnet it stands before",
        "network ACLs are evaluated where packets enter or leave a subnet, never within it (NACL-4)";
    /// Nobody can have such an address.
    RANGE_NOBODY_HAS "range-nobody-has" Warning:
        "a rule for private addresses that are not in the VPC",
        "private addresses exist inside a VPC only, and the internet gateway takes none (IGW-8)";
    /// Written so.
    ROUTE_BLACKHOLE "route-blackhole" Warning:
        "a route to nowhere",
        "a blackhole is chosen like any other route, and discards what it matches (RT-17)";
    /// Longer prefixes take everything.
    ROUTE_NEVER_CHOSEN "route-never-chosen" Warning:
        "a route whose whole destination is taken by more specific routes",
        "the longest prefix that matches decides (RT-7)";
    /// Nobody carries the group.
    SECURITY_GROUP_RULE_WITHOUT_MEMBERS "security-group-rule-without-members" Warning:
        "a security group rule for a group that nobody carries",
        "a rule that names a group matches the private addresses of the interfaces that carry it (SG-20)";
    /// Others admit it.
    SECURITY_GROUP_RULE_CONTAINED "security-group-rule-contained" Warning:
        "a security group rule that admits nothing that others of the group do not",
        "the rules of a group have no order: whatever any of them admits, is admitted (SG-2)";
    /// Everything from everywhere.
    EVERYTHING_OPEN_TO_THE_WORLD "everything-open-to-the-world" Warning:
        "every port open to every address",
        "0.0.0.0/0 is everyone, and each admitted connection reaches the instance (SG-2, SG-9)";
    /// SSH, RDP, …
    ADMIN_PORT_OPEN_TO_THE_WORLD "admin-port-open-to-the-world" Warning:
        "SSH, RDP or another way to administer open to every address",
        "0.0.0.0/0 is everyone; administrators come from somewhere (SG-2)";
    /// MySQL, PostgreSQL, …
    DATABASE_PORT_OPEN_TO_THE_WORLD "database-port-open-to-the-world" Warning:
        "a database or file store open to every address",
        "0.0.0.0/0 is everyone; a database's clients are better named by their security group (SG-2, SG-20)";
    /// A server without clients.
    INSTANCE_ADMITS_NOTHING "instance-admits-nothing" Warning:
        "an instance that runs something, and whose security groups let nothing in",
        "without a rule that admits it, every new connection is discarded (SG-3, SG-9)";
    /// `localvpc serve` behind a closed port.
    SERVED_PORT_NOT_ADMITTED "served-port-not-admitted" Warning:
        "an instance that serves a port that no rule admits",
        "without a rule that admits it, every new connection is discarded (SG-3, SG-9)";
    /// Public subnet, private instance.
    INSTANCE_WITHOUT_PUBLIC_ADDRESS "instance-without-public-address" Warning:
        "an instance without a public address whose way out is the internet gateway",
        "the internet gateway discards what comes from an address without a public one (IGW-9)";
    /// Written and not used.
    UNUSED_SECURITY_GROUP "unused-security-group" Warning:
        "a security group that no instance carries",
        "a group filters the interfaces that carry it, and nothing else (SG-1)";
    /// Written and not used.
    UNUSED_NETWORK_ACL "unused-network-acl" Warning:
        "a network ACL that no subnet names",
        "a network ACL filters the subnets it is associated with, and nothing else (NACL-1)";
    /// Written and not used.
    UNUSED_ROUTE_TABLE "unused-route-table" Warning:
        "a route table that no subnet uses",
        "a subnet uses one table: the one it names, or the main one (RT-3)";
    /// Written and not used.
    UNUSED_NAT_GATEWAY "unused-nat-gateway" Warning:
        "a NAT gateway that no route in use leads to",
        "packets get to a NAT gateway by a route, and it costs by the hour (NATGW-50)";
    /// Written and not used.
    UNUSED_INTERNET_GATEWAY "unused-internet-gateway" Warning:
        "an internet gateway that no route in use leads to",
        "packets leave by an internet gateway only where a route leads to it (IGW-2)";
    /// Twice.
    EXPECTATION_REPEATED "expectation-repeated" Warning:
        "an expectation that stands there twice",
        "it is checked twice and says nothing new";
    /// `quotas: aws`.
    BEYOND_QUOTA "beyond-quota" Warning:
        "more of something than a new account may have (`quotas: aws`)",
        "quotas of the VPC User Guide (VPC-27, SG-13, NACL-17, RT-28)";
    /// Other than AWS.
    TIMEOUT_BEYOND_AWS "timeout-beyond-aws" Warning:
        "a timeout that AWS does not take",
        "350 s for NAT gateways, and ranges for tracked connections (NATGW-22, SG-37)";
    /// Of the file's own allowances.
    ALLOWANCE_UNKNOWN "allowance-unknown" Warning:
        "`# lint: allow` of a check that does not exist",
        "it silences nothing";
    /// Of the file's own allowances.
    ALLOWANCE_UNUSED "allowance-unused" Warning:
        "`# lint: allow` where nothing is found",
        "it would hide what is found there later";
}
