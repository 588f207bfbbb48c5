//! From the steps of a trace to an explanation with names, rules and lines of the file.
//!
//! [`resolve`] turns names into the packet to trace, [`render_report`] turns the dataplane's report
//! into steps that a person reads; `advice` says what would let a
//! discarded packet through, `addresses` what an address is that nothing can have.

mod addresses;
mod advice;
mod render;
mod resolve;

use localvpc_api::trace::TraceRequest;

use crate::view::Explanation;

pub use render::render_report;
pub use resolve::resolve;

/// What a question comes to.
#[derive(Clone, Debug)]
pub enum Question {
    /// A packet to trace; the dataplane's report goes to [`render_report`].
    Trace(Asked),
    /// It is answered without a packet.
    Answered(Box<Explanation>),
}

/// A packet to trace, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What the dataplane is asked.
    pub request: TraceRequest,
    /// The sender: `app 10.0.2.20`.
    pub from: String,
    /// The receiver: `example 198.51.100.10:443`.
    pub to: String,
    /// The question without its sender, as it was put: `example tcp/443`.
    pub rest: String,
    /// What the destination is, where no instance or host can have it.
    pub destination: Option<String>,
}

#[cfg(test)]
mod tests;
