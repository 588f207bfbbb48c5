//! Decides what happens to a packet. No I/O, no threads; time and randomness come as arguments.
//!
//! # The life of a packet
//!
//! A [`Worker`] takes a packet's bytes from a link, parses them once ([`packet`]), and looks the
//! flow up in its cache ([`flow`]). A hit is rewritten and leaves. Everything else is
//! walked ([`pipeline`]): through the sender's security groups, its subnet's route table and
//! network ACL, a NAT gateway, the internet gateway, the far subnet's network ACL and the
//! receiver's security groups, as far as its way leads there. If every stage agrees, what
//! the walk proposed is committed to the [`state`] (connections, leases, counters), the bytes are
//! rewritten, and the packet leaves on another link. If one does not, it is discarded for
//! exactly one [reason](localvpc_api::DiscardReason), and may be answered ([`answer`]). What is too big for
//! its way, and may be cut, leaves as [fragments](mod@fragment); fragments that come in are walked once per datagram, and the later
//! ones follow the first ([`state::fragments`]).
//!
//! # The modules, in path order
//!
//! - [`worker`]: packets from bytes to verdicts, one by one or in batches
//! - [`wire`], [`packet`]: views over bytes, and what a packet says
//! - [`flow`]: the cache in front of the walk
//! - [`pipeline`]: the walk, one file per stage, and the rewriting at its end
//! - [`tables`]: what the walk consults; a push replaces it
//! - [`state`]: what the walk remembers; a push leaves it alone
//! - [`memory`]: where the big tables lie
//! - [`metrics`], [`report`]: what was counted, and how it is shown
//! - [`merge`]: several packets into one, where a link takes super-packets
//! - [`segment`](mod@segment), [`fragment`](mod@fragment): one packet into several, where a link cannot take it as it is
//! - [`rate`]: how often something may happen
//! - [`answer`]: ICMP errors and resets that the dataplane makes
//! - [`trace`](mod@trace): the same walk, told step by step, changing nothing

pub mod answer;
pub mod flow;
pub mod fragment;
mod hash;
mod hint;
pub mod memory;
pub mod merge;
pub mod metrics;
pub mod packet;
pub mod pipeline;
pub mod rate;
pub mod report;
pub mod segment;
pub mod state;
pub mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;
pub mod wire;
pub mod worker;

pub use state::{Limits, State};
pub use tables::Tables;
pub use trace::{trace, trace_packet};
pub use worker::{BatchPacket, Verdict, Worker};

/// A point in time: milliseconds on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);
