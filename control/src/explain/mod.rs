//! From a question to an explanation with names, rules and lines of the file.
//!
//! [`resolve`] turns names into a [`Question`], [`answer`] has it analysed and turns what
//! comes out into steps that a person reads; `advice` says what would let a discarded packet through, `addresses` what an
//! address is that nothing can have, `insights` says it all again in the EC2 API's shape, and [`compare`] what the
//! dataplane says to the same question.

mod addresses;
mod advice;
mod answer;
mod compare;
mod insights;
mod render;
mod resolve;

use localvpc_api::LinkId;
use localvpc_api::trace::TraceRequest;

use crate::analysis::Question;
use crate::view::Sendable;

pub use answer::{answer, answer_of};
pub use compare::compare;
pub use resolve::{Unnamed, resolve};

/// A question, and what its ends were called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is analysed.
    pub question: Question,
    /// What a running dataplane is asked; none where nothing could send such a packet.
    pub trace: Option<TraceRequest>,
    /// The packet that would prove it, where somebody could send one.
    pub send: Option<Sendable>,
    /// Why nobody could, otherwise.
    pub unsendable: Option<String>,
    /// The sender: `app 10.0.2.20`.
    pub from: String,
    /// The receiver: `example 198.51.100.10:443`.
    pub to: String,
    /// The question without its sender, as it was put: `example tcp/443`.
    pub rest: String,
    /// What the destination is, where no instance or host can have it.
    pub nowhere: Option<String>,
    /// The namespace whose kernel delivers without a packet that anybody could look at, and why.
    pub kernel: Option<(LinkId, String)>,
    /// The receiver, where the sender has no address for it.
    pub unnamed: Option<Unnamed>,
}

#[cfg(test)]
mod tests;
