//! A picture of a lab: what there is, what stands in what, where routes lead, and the path of one packet.
//!
//! ```text
//! Model ──▶ Graph ──┬─▶ layout ──▶ svg     nested boxes, lines in the gaps between them
//!                   ├─▶ mermaid            for READMEs
//!                   ├─▶ dot                for Graphviz
//!                   └─▶ json               for programs
//! ```
//!
//! Everything is in the order of the file, and nothing depends on a clock or on the machine: the same file gives
//! the same picture.

mod build;
mod dot;
mod layout;
mod matrix;
mod mermaid;
mod path;
mod plan;
mod scene;
mod sizes;
mod svg;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use path::path;

/// A lab as boxes and lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    /// The lab.
    pub lab: String,
    /// Boxes; what stands in another comes after it.
    pub nodes: Vec<Node>,
    /// Lines: where routes lead.
    pub edges: Vec<Edge>,
    /// A packet's way, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
}

/// Place of a node in [`Graph::nodes`].
pub type At = usize;

/// A box.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Unique and stable: `subnet:main/public-a`.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Its name in the file.
    pub name: String,
    /// What else to say about it, a line each.
    pub lines: Vec<String>,
    /// What it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<At>,
}

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The internet of the lab.
    Internet,
    /// A host on it.
    InternetHost,
    /// A VPC.
    Vpc,
    /// Its internet gateway.
    InternetGateway,
    /// A subnet whose route table leads to the internet gateway (VPC-20).
    PublicSubnet,
    /// Any other subnet.
    PrivateSubnet,
    /// A NAT gateway.
    NatGateway,
    /// An instance.
    Instance,
}

/// A line: packets of `from` go to `to`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    /// A subnet, or an internet gateway.
    pub from: At,
    /// A gateway, an instance, or the internet.
    pub to: At,
    /// Destinations: `0.0.0.0/0`; empty for an attachment.
    pub label: String,
}

/// A packet's way through the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Path {
    /// `web 10.0.1.10 → db 10.0.2.30:5432 tcp`.
    pub question: String,
    /// Whether all of it passes.
    pub verdict: Verdict,
    /// Its legs, one after the other.
    pub legs: Vec<Leg>,
    /// Why it is stopped, where it is: `no rule admits tcp 5432 from 10.0.1.10 (two-tier.yaml:59)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The code of that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It arrives, and its reply comes back.
    Reachable,
    /// It is stopped, or its reply.
    Blocked,
    /// On what the question leaves open, such as the source port.
    Depends,
    /// Nobody can tell.
    Undecidable,
}

/// A piece of a way: from one box to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// Where it begins.
    pub from: At,
    /// Where it ends; where it is stopped, the box that stops it.
    pub to: At,
    /// Whether it gets there.
    pub passes: bool,
    /// Whether it belongs to the reply.
    pub back: bool,
}

/// A form of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A picture for browsers and READMEs.
    Svg,
    /// Mermaid text, which GitHub draws.
    Mermaid,
    /// Graphviz text.
    Dot,
    /// The boxes and lines for programs.
    Json,
}

impl Graph {
    /// The picture in a form, with a newline at the end.
    pub fn render(&self, form: Form) -> String {
        match form {
            Form::Svg => svg::svg(self),
            Form::Mermaid => mermaid::mermaid(self),
            Form::Dot => dot::dot(self),
            // Strings, numbers and lists always have a JSON form.
            Form::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
        }
    }

    /// What stands directly in a box.
    fn children(&self, of: At) -> impl Iterator<Item = (At, &Node)> {
        self.nodes.iter().enumerate().filter(move |(_, node)| node.parent == Some(of))
    }

    /// Whether something stands in a box, at any depth.
    fn is_within(&self, at: At, of: At) -> bool {
        std::iter::successors(self.nodes[at].parent, |outer| self.nodes[*outer].parent)
            .any(|outer| outer == of)
    }

    /// Boxes of one kind.
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (At, &Node)> {
        self.nodes.iter().enumerate().filter(move |(_, node)| node.kind == kind)
    }
}

impl Kind {
    /// Whether other boxes stand in it.
    fn is_container(self) -> bool {
        matches!(self, Self::Internet | Self::Vpc | Self::PublicSubnet | Self::PrivateSubnet)
    }
}
