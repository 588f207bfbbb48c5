//! Requests, replies, handshake and errors of `dataplane.sock`.
//!
//! The socket is SOCK_SEQPACKET: one packet is one [`Envelope`] in JSON, at most
//! [`MAX_MESSAGE`] bytes. A body that is larger travels as JSON in a sealed memfd
//! whose descriptor accompanies the envelope ([`Body::Memfd`]). Every connection
//! starts with [`Request::Hello`]. Anything malformed is answered with a typed
//! [`Error`] and ends the connection; the tables stay as they are.

use serde::{Deserialize, Serialize};

use crate::ids::*;
use crate::report::{Connection, Counters, Lease, Status};
use crate::settings::Settings;
use crate::trace::{TraceReport, TraceRequest};

/// Which protocol this is: a hash of what this crate says, made by its build script. Both sides must have the same; the
/// hello, and the refusal of a wrong one, stay as they are in every protocol.
pub const PROTOCOL: u32 = match u32::from_str_radix(env!("LOCALVPC_PROTOCOL"), 10) {
    Ok(number) => number,
    Err(_) => panic!("the build script writes a number"),
};

/// Largest packet on the socket, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Largest body in a memfd, in bytes.
pub const MAX_BODY: u64 = 1 << 30;

/// Most descriptors beside one message (the kernel's SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;

/// One packet on the socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<T> {
    /// Chosen by the requester, repeated by the reply.
    pub id: u64,
    /// What it carries.
    pub body: Body<T>,
}

/// Where the content of an envelope is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body<T> {
    /// In the envelope itself.
    Inline(T),
    /// As JSON of the given length in a sealed memfd, the last of the accompanying descriptors.
    Memfd {
        /// Bytes of JSON in the memfd.
        length: u64,
    },
}

/// What control asks of the dataplane.
// One exists at a time, so that its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// First message of a connection.
    Hello {
        /// [`PROTOCOL`] of the sender.
        protocol: u32,
    },
    /// Take over the queues of a TUN device. Descriptors: one per queue, in queue order.
    AttachLink {
        /// The link they belong to; it need not be in the tables yet.
        link: LinkId,
        /// Whether they speak virtio headers.
        offload: Offload,
    },
    /// Stop using a link and close its queues.
    DetachLink {
        /// The link.
        link: LinkId,
    },
    /// Validate these tables and put them in force, or refuse.
    Install(crate::Tables),
    /// Work by these settings from now on.
    Configure(Settings),
    /// Report status.
    Status,
    /// Report counters.
    Counters,
    /// Report tracked connections.
    Connections,
    /// Report NAT leases.
    Leases,
    /// Walk a packet without sending it.
    Trace(TraceRequest),
    /// Send back the queue descriptors of a link (they stay in use): a new control adopts them.
    HandBack {
        /// The link.
        link: LinkId,
    },
    /// End the process.
    Shutdown,
}

/// Whether a link's queues carry a virtio header and super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Each packet is preceded by a 10-byte `virtio_net_hdr`; checksum and segmentation offloads are on.
    VirtioHeader,
    /// Bare IP packets up to the MTU, checksums complete.
    Off,
}

/// What the dataplane answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Answer to [`Request::Hello`].
    Welcome {
        /// [`PROTOCOL`] of the dataplane.
        protocol: u32,
        /// Version of the program.
        version: String,
        /// Process id.
        pid: u32,
        /// Worker threads, and so queues that a link should have.
        workers: u32,
        /// The tables in force; 0 before the first push.
        generation: Generation,
        /// Links attached.
        links: Vec<LinkId>,
    },
    /// Done, nothing to report.
    Done,
    /// The tables are in force on every worker.
    Installed {
        /// Their generation.
        generation: Generation,
        /// From receipt to the last worker's switch, in microseconds.
        took_us: u64,
    },
    /// Answer to [`Request::Status`].
    Status(Status),
    /// Answer to [`Request::Counters`].
    Counters(Counters),
    /// Answer to [`Request::Connections`].
    Connections(Vec<Connection>),
    /// Answer to [`Request::Leases`].
    Leases(Vec<Lease>),
    /// Answer to [`Request::Trace`].
    Trace(TraceReport),
    /// Answer to [`Request::HandBack`]; the descriptors travel beside it.
    Link {
        /// The link.
        link: LinkId,
        /// Whether its queues speak virtio headers.
        offload: Offload,
    },
    /// The request failed; nothing was changed.
    Error(Error),
}

/// Why a request failed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Error {
    /// The first message was not a hello.
    #[error("the connection must start with hello")]
    ExpectedHello,
    /// The other side speaks another protocol.
    #[error(
        "protocol {offered} was offered, this dataplane speaks {supported}: install control and dataplane of one build"
    )]
    WrongProtocol {
        /// What the requester speaks.
        offered: u32,
        /// What the dataplane speaks.
        supported: u32,
    },
    /// The packet was larger than [`MAX_MESSAGE`], or its body than [`MAX_BODY`].
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The limit it passed.
        limit: u64,
    },
    /// The packet or body is not the JSON that was expected.
    #[error("the message cannot be read: {detail}")]
    Malformed {
        /// What the parser said.
        detail: String,
    },
    /// More or fewer descriptors than the request needs.
    #[error("{received} descriptors came with the request, {expected} were expected")]
    Descriptors {
        /// How many came.
        received: u32,
        /// How many the request takes.
        expected: u32,
    },
    /// A descriptor is not what it should be.
    #[error("descriptor {index} is unusable: {detail}")]
    BadDescriptor {
        /// Position beside the message, from 0.
        index: u32,
        /// What is wrong with it.
        detail: String,
    },
    /// The requester may not talk to this dataplane.
    #[error("user {uid} may not control this dataplane")]
    NotPermitted {
        /// The requester's uid.
        uid: u32,
    },
    /// The link is attached already.
    #[error("{link} is attached already")]
    LinkAttached {
        /// The link.
        link: LinkId,
    },
    /// No such link is attached.
    #[error("{link} is not attached")]
    LinkNotAttached {
        /// The link.
        link: LinkId,
    },
    /// The tables are not newer than those in force.
    #[error("generation {offered} is not newer than {installed}")]
    StaleGeneration {
        /// Generation of the push.
        offered: Generation,
        /// Generation in force.
        installed: Generation,
    },
    /// A row of the tables is invalid.
    #[error("{0}")]
    InvalidTables(#[from] InvalidRow),
    /// The dataplane ran out of something.
    #[error("the dataplane could not do it: {detail}")]
    Failed {
        /// What went wrong.
        detail: String,
    },
}

/// A row that cannot be installed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{row}: {problem}")]
pub struct InvalidRow {
    /// The row, as its id prints: `subnet#3`, `route-table#2 route 1`.
    pub row: String,
    /// What is wrong with it.
    pub problem: RowProblem,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RowProblem {
    /// Its id occurs twice.
    #[error("the id occurs twice")]
    DuplicateId,
    /// It refers to a row that does not exist.
    #[error("refers to {0}, which does not exist")]
    Dangling(String),
    /// It refers to a row of another VPC.
    #[error("refers to {0}, which belongs to another VPC")]
    ForeignVpc(String),
    /// A CIDR has host bits, or overlaps, or lies outside what contains it.
    #[error("{0}")]
    Cidr(String),
    /// An address is outside its subnet, or taken twice.
    #[error("{0}")]
    Address(String),
    /// Two routes for one destination, or two entries with one number, or entries out of order.
    #[error("{0}")]
    Duplicate(String),
    /// A value is outside its range.
    #[error("{0}")]
    OutOfRange(String),
    /// More rows than the dataplane holds.
    #[error("{0}")]
    TooMany(String),
}
