//! The contract between control and dataplane.
//!
//! Everything that crosses `dataplane.sock` is defined here and nowhere else:
//! the tables that control pushes, the requests and replies around them, the
//! reasons for which a packet is discarded, and the steps of a trace. The types
//! are flat rows that refer to each other by id; they hold no names, because the
//! dataplane knows none, and no behaviour beyond small conversions.
//!
//! - [`ids`]: one newtype per kind of row
//! - [`tables`]: the whole configuration, as rows
//! - [`discard`]: the single list of discard reasons
//! - [`trace`]: what a dry-run walk reports, stage by stage
//! - [`report`]: counters, connections and NAT leases as the dataplane shows them
//! - [`scope`]: which addresses the internet knows
//! - [`message`]: requests, replies, handshake and errors of the socket
//! - [`socket`]: carries messages with their descriptors
//! - [`steering`]: which queue of a device packets come by

pub mod discard;
pub mod ids;
pub mod message;
pub mod report;
pub mod scope;
pub mod settings;
pub mod socket;
pub mod steering;
pub mod tables;
pub mod trace;

pub use discard::DiscardReason;
pub use ids::*;
pub use scope::Scope;
pub use tables::Tables;
