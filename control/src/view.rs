//! What the outside sees of a lab: the JSON of the HTTP API and of `-o json`.
//!
//! Field names are stable: they are documented output.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use localvpc_api::report;
use localvpc_api::settings::{Merge, Poll};
use localvpc_api::trace::Tuple;

use crate::analysis::insights::{AnalysisPortRange, NetworkInsightsAnalysis};

/// Body of `POST /v1/apply` and `POST /v1/plan`, and answer to `GET /v1/document`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Where the document came from, for messages.
    pub file: String,
    /// The document.
    pub text: String,
    /// How the dataplane waits for packets; as before otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    /// Whether it joins packets; as before otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

impl ApplyRequest {
    /// A document, to be applied without another setting.
    pub fn new(file: String, text: String) -> Self {
        Self { file, text, poll: None, merge: None }
    }
}

/// A line of the NDJSON stream that answers `POST /v1/apply`; the last is `Applied` or `Failed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ApplyEvent {
    /// What will be done.
    Plan(Plan),
    /// A step that has begun.
    Step {
        /// Steps done so far.
        done: u32,
        /// Steps in all.
        total: u32,
        /// What is being done: `namespace web`.
        what: String,
    },
    /// Everything is in force.
    Applied {
        /// Generation of the tables in force.
        generation: u64,
        /// Warnings of the file, as in the plan, and what could not be done after the tables were in force.
        warnings: Vec<String>,
        /// From request to the end, in milliseconds.
        took_ms: u64,
    },
    /// Nothing was changed, or what had been begun was undone.
    Failed(ErrorView),
}

/// The difference between what runs and what a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry per resource that is added, changed or removed.
    pub changes: Vec<Change>,
    /// Resources that stay as they are.
    pub unchanged: u32,
    /// Warnings of the file, rendered.
    pub warnings: Vec<String>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What happens to it.
    pub action: ChangeAction,
    /// Kind of resource: `subnet`, `security group`.
    pub kind: String,
    /// Its name, with its VPC where that is needed: `main/private-a`.
    pub name: String,
    /// What about it: `1 rule added`; empty for a whole resource.
    pub detail: String,
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    /// It is new.
    Add,
    /// It differs.
    Change,
    /// It is gone from the file.
    Remove,
}

/// An error for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorView {
    /// Stable word for programs: `invalid_config`, `not_found`, `host`, `dataplane`, `internal`.
    pub kind: String,
    /// What a person reads, rendered, without a trailing newline.
    pub message: String,
    /// Positions in the file, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<Position>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// The lab.
    pub lab: String,
    /// The file it was brought up from.
    pub file: String,
    /// Control's process id.
    pub control_pid: u32,
    /// Seconds since control started.
    pub uptime_s: u64,
    /// The dataplane; absent while it is being restarted.
    pub dataplane: Option<report::Status>,
    /// Times the dataplane had to be restarted.
    pub dataplane_restarts: u32,
    /// What is broken, and the command that mends it.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Resources by kind.
    pub resources: BTreeMap<String, u32>,
    /// Instances and internet hosts.
    pub instances: Vec<InstanceView>,
}

/// A secondary private address of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondaryIpView {
    /// The address.
    pub ip: IpAddr,
    /// Its Elastic IP.
    pub public_ip: Option<IpAddr>,
}

/// An instance or internet host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its name.
    pub name: String,
    /// `instance` or `internet host`.
    pub kind: String,
    /// Its VPC; empty for an internet host.
    pub vpc: String,
    /// Its subnet; empty for an internet host.
    pub subnet: String,
    /// Its primary private address, or an internet host's only one.
    pub ip: IpAddr,
    /// Its Elastic IP or automatic public address.
    pub public_ip: Option<IpAddr>,
    /// Its secondary private addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary_ips: Vec<SecondaryIpView>,
    /// Its security groups.
    pub security_groups: Vec<String>,
    /// The namespace: a name for `ip netns exec`, or a path.
    pub namespace: String,
    /// Whether other instances share the namespace.
    pub shared: bool,
    /// Its commands.
    pub processes: Vec<ProcessView>,
}

/// A `run:` command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessView {
    /// The command line.
    pub command: String,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// How it ended: `exit status 1`, `signal 9`.
    pub ended: Option<String>,
    /// The file with its output.
    pub log: String,
}

/// `GET /v1/resources`: everything in the lab, for `ls` and `inspect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResourceView {
    /// Kind: `vpc`, `subnet`, `route table`, ...
    pub kind: String,
    /// Name as in the file.
    pub name: String,
    /// AWS-style id, derived from the name: `subnet-0a1b…`.
    pub id: String,
    /// The VPC; empty for what belongs to none.
    pub vpc: String,
    /// Where it stands in the file.
    pub position: Option<Position>,
    /// One line: `10.0.1.0/24, route table public`.
    pub summary: String,
    /// All of it.
    pub detail: serde_json::Value,
}

/// `POST /v1/explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// Instance, internet host, `internet`, or address.
    pub from: String,
    /// Instance, internet host, NAT gateway or address.
    pub to: String,
    /// `tcp`, `udp`, `icmp` or a protocol number.
    pub protocol: String,
    /// Destination port, for TCP and UDP.
    pub port: Option<u16>,
    /// Source port, or the first of a range; Linux's ephemeral range otherwise.
    pub source_port: Option<u16>,
    /// Last source port of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port_to: Option<u16>,
    /// Another source address than the sender's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<Ipv4Addr>,
}

impl ExplainRequest {
    /// About packets from the sender's own address, and any of the ports that Linux takes.
    pub fn new(
        from: impl Into<String>,
        to: impl Into<String>,
        protocol: impl Into<String>,
        port: Option<u16>,
    ) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            protocol: protocol.into(),
            port,
            source_port: None,
            source_port_to: None,
            source_address: None,
        }
    }
}

/// Answer to `POST /v1/explain`: in words, and as the EC2 API has it (the fields whose names begin with a capital).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked, names resolved: `app 10.0.2.20`.
    pub from: String,
    /// `example 198.51.100.10:443`.
    pub to: String,
    /// `tcp`.
    pub protocol: String,
    /// What came out.
    pub outcome: ExplainOutcome,
    /// Explanation code of what is in the way first; empty where it is reachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The way there. Behind a refusal it goes on as if there were none.
    pub forward: Vec<ExplainStep>,
    /// The way back of the reply.
    pub back: Vec<ExplainStep>,
    /// What would let it through, where something would: one line for each thing in the way.
    pub advice: Option<String>,
    /// What else is to say: what the answer depends on, what is assumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the dataplane's own walk says, where the lab runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<DataplaneAnswer>,
    /// The packet that would prove it, where somebody could send one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Sendable>,
    /// Why nobody can send one, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsendable: Option<String>,
    /// What became of a real packet, where one was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeView>,
    /// The analysis in the shape of the EC2 API's NetworkInsightsAnalysis.
    #[serde(flatten)]
    pub analysis: Option<NetworkInsightsAnalysis>,
}

/// What the dataplane says to the same question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataplaneAnswer {
    /// Whether packet and reply get through its live tables and state.
    pub reachable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the analysis says the same.
    pub agrees: bool,
}

/// A packet that would prove an analysis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sendable {
    /// The instance or internet host whose namespace sends it.
    pub from: String,
    /// The packet.
    pub packet: Tuple,
    /// Source ports for TCP and UDP: those asked about whose replies come back, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<AnalysisPortRange>,
    /// The instance or internet host that has its destination; none where nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What became of a real packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeView {
    /// What was sent: `SYN 10.0.2.20:40123 → 198.51.100.10:443`.
    pub sent: String,
    /// Whether it came to its destination; absent where nobody could look.
    pub arrived: Option<bool>,
    /// What came back: `SYN-ACK`, `RST`.
    pub answer: Option<String>,
    /// Whether that is what the analysis says.
    pub agrees: bool,
    /// From sending to the answer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// What the counters say of where it was discarded: `eni app: SUBNET_ACL_RESTRICTION`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,
}

/// Outcome of an explanation, and the CLI's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainOutcome {
    /// The packet arrives and its reply comes back. Exit code 0.
    Reachable,
    /// The packet or its reply is discarded. Exit code 1.
    Blocked,
    /// It depends on what the question leaves open, such as the source port. Exit code 3.
    Partial,
    /// It cannot be told. Exit code 3.
    Undecidable,
}

/// One stage of an explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainStep {
    /// Where: `eni app`, `subnet private-a`, `nat-a`, `igw`.
    pub place: String,
    /// What looked at it: `security group default`, `network ACL app out`, `route table private`.
    pub component: String,
    /// What it said: `rule 100 allow tcp 443`, `0.0.0.0/0 → nat-a`.
    pub decision: String,
    /// Where the deciding rule stands: `two-tier.yaml:31`; `default` for what nobody wrote.
    pub source: String,
    /// Whether the packet went on.
    pub pass: bool,
    /// The packet as it came to the stage.
    pub packet: Tuple,
    /// Explanation code, where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Id of the component: `acl-0a1b…`; that of the subnet, interface or gateway at which it stands is in `place_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_id: Option<String>,
    /// Whether it stands behind a refusal: packets never come here, and what is said holds once that is put right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond: bool,
    /// Id of the place: `subnet-0a1b…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place_id: Option<String>,
}

/// `GET /v1/counters`, names added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CountersView {
    /// ENI names, as `counters.enis` has ids.
    pub enis: Vec<Named<report::EniCounters>>,
    /// NAT gateways.
    pub nat_gateways: Vec<Named<report::NatGatewayCounters>>,
    /// Links, by namespace.
    pub links: Vec<Named<report::LinkCounters>>,
    /// All discards by reason, with a sentence each.
    pub discards: Vec<DiscardView>,
    /// Worker threads.
    pub workers: Vec<report::WorkerCounters>,
}

/// A NAT gateway's metrics under the names that CloudWatch has for them (NATGW-48), since the dataplane started.
///
/// *Source* is the inside, *destination* the far end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NatGatewayMetrics {
    /// Its name in the file.
    pub name: String,
    /// TCP connections now that are not closed.
    pub active_connection_count: u64,
    /// Bytes that came from a destination.
    pub bytes_in_from_destination: u64,
    /// Bytes that came from inside.
    pub bytes_in_from_source: u64,
    /// Bytes that left for a destination.
    pub bytes_out_to_destination: u64,
    /// Bytes that left for the inside.
    pub bytes_out_to_source: u64,
    /// TCP connections that a SYN from inside began.
    pub connection_attempt_count: u64,
    /// TCP connections whose handshake came to its end.
    pub connection_established_count: u64,
    /// Packets it had no source port for.
    pub error_port_allocation: u64,
    /// Connections that ended by idling.
    pub idle_timeout_count: u64,
    /// Packets it discarded.
    pub packets_drop_count: u64,
    /// Packets that came from a destination.
    pub packets_in_from_destination: u64,
    /// Packets that came from inside.
    pub packets_in_from_source: u64,
    /// Packets that left for a destination.
    pub packets_out_to_destination: u64,
    /// Packets that left for the inside.
    pub packets_out_to_source: u64,
    /// Highest average over 10 seconds within the last minute, both directions.
    pub peak_bytes_per_second: u64,
    /// The same for packets.
    pub peak_packets_per_second: u64,
}

impl From<&Named<report::NatGatewayCounters>> for NatGatewayMetrics {
    fn from(Named { name, row }: &Named<report::NatGatewayCounters>) -> Self {
        Self {
            name: name.clone(),
            active_connection_count: row.active_connections,
            bytes_in_from_destination: row.in_from_destination.bytes,
            bytes_in_from_source: row.in_from_source.bytes,
            bytes_out_to_destination: row.out_to_destination.bytes,
            bytes_out_to_source: row.out_to_source.bytes,
            connection_attempt_count: row.connection_attempts,
            connection_established_count: row.connections_established,
            error_port_allocation: row.error_port_allocation,
            idle_timeout_count: row.idle_timeouts,
            packets_drop_count: row.packets_dropped,
            packets_in_from_destination: row.in_from_destination.packets,
            packets_in_from_source: row.in_from_source.packets,
            packets_out_to_destination: row.out_to_destination.packets,
            packets_out_to_source: row.out_to_source.packets,
            peak_bytes_per_second: row.peak_bytes_per_second,
            peak_packets_per_second: row.peak_packets_per_second,
        }
    }
}

/// A row of the dataplane with the name control knows for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named<T> {
    /// The name; the bare id for something that is gone from the file.
    pub name: String,
    /// The row.
    #[serde(flatten)]
    pub row: T,
}

/// Discards for one reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscardView {
    /// Its code.
    pub code: String,
    /// One sentence.
    pub explanation: String,
    /// Packets.
    pub packets: u64,
}
