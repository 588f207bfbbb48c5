//! Which gaps between boxes a line goes through, and on which lane of each.
//!
//! Boxes stand in rows. Between two rows there is a gap, and on the left of all rows a trunk that joins the
//! gaps; so a line leaves its box up or down, and gets everywhere without crossing another:
//!
//! ```text
//!   internet ─────────┐                  Canvas(0), above the first row of VPCs
//!   ┌ VPC ────────── igw ─┐
//!   │ ┌───────────────┘   │              Vpc(v, 0), below the gateway
//!   │ │ ┌ public ─ nat ┐  │              row 0
//!   │ │ └─────────┬────┘  │              Vpc(v, 1)
//!   │ │ ┌ private ┘ ───┐  │              row 1
//!   └ trunk ──────────────┘
//! ```

use std::collections::BTreeMap;

use super::{At, Graph, Kind};

/// A gap that lines go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Above a row of VPCs, from side to side.
    Canvas(usize),
    /// On the left of all VPCs.
    CanvasTrunk,
    /// Above a row of a VPC's subnets; the last is below all rows.
    Vpc(At, usize),
    /// On the left of a VPC's subnets.
    VpcTrunk(At),
}

/// What a lane is for. Lines to one target share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Routes to this box.
    Route(At),
    /// A leg of the path.
    Leg(usize),
    /// The words beside a stop.
    Label,
}

/// The rows that boxes stand in.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// VPCs, row by row.
    pub vpcs: Vec<Vec<At>>,
    /// For each VPC its subnets, row by row.
    pub subnets: BTreeMap<At, Vec<Vec<At>>>,
}

/// The gaps of every line, and the lanes of every gap.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For each edge of the graph.
    pub edges: Vec<Vec<Channel>>,
    /// For each leg of the path.
    pub legs: Vec<Vec<Channel>>,
    /// Lanes in use.
    pub lanes: BTreeMap<Channel, Vec<Lane>>,
}

/// Which side of a box a line touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The upper one.
    Top,
    /// The lower one.
    Bottom,
}

impl Plan {
    /// Plans all lines of a graph.
    pub fn new(graph: &Graph, rows: &Rows) -> Self {
        let mut plan = Self::default();
        for edge in &graph.edges {
            let (from, to) = edge_sides(graph, rows, edge.from, edge.to);
            let channels = between(home(graph, rows, edge.from, from), home(graph, rows, edge.to, to));
            plan.use_lanes(&channels, Lane::Route(edge.to));
            plan.edges.push(channels);
        }
        for (index, leg) in graph.path.iter().flat_map(|path| &path.legs).enumerate() {
            let (from, to) = leg_sides(graph, leg.from, leg.to);
            let channels = if leg.from == leg.to || graph.nodes[leg.from].parent == Some(leg.to) {
                Vec::new()
            } else {
                between(home(graph, rows, leg.from, from), home(graph, rows, leg.to, to))
            };
            plan.use_lanes(&channels, Lane::Leg(index));
            plan.legs.push(channels);
        }
        if let Some(channel) = stop_channel(graph, rows) {
            plan.use_lanes(&[channel], Lane::Label);
        }
        plan
    }

    /// The lanes of a gap.
    pub fn lanes(&self, channel: Channel) -> &[Lane] {
        self.lanes.get(&channel).map_or(&[], Vec::as_slice)
    }

    fn use_lanes(&mut self, channels: &[Channel], lane: Lane) {
        for channel in channels {
            let lanes = self.lanes.entry(*channel).or_default();
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
    }
}

/// Where the words beside a stop stand: the gap that the stopped line is in.
pub fn stop_channel(graph: &Graph, rows: &Rows) -> Option<Channel> {
    let path = graph.path.as_ref().filter(|path| path.reason.is_some())?;
    let leg = path.legs.last()?;
    let (_, side) = leg_sides(graph, leg.from, leg.to);
    Some(home(graph, rows, leg.to, side))
}

/// The sides at which a route leaves its subnet and meets its target.
pub fn edge_sides(graph: &Graph, rows: &Rows, from: At, to: At) -> (Side, Side) {
    match graph.nodes[to].kind {
        Kind::Internet => (Side::Top, Side::Bottom),
        Kind::InternetGateway => (Side::Top, Side::Bottom),
        _ if row_of(graph, rows, to) < row_of(graph, rows, from) => (Side::Top, Side::Bottom),
        _ => (Side::Bottom, Side::Bottom),
    }
}

/// The sides at which a leg leaves and arrives.
pub fn leg_sides(graph: &Graph, from: At, to: At) -> (Side, Side) {
    let outside = |at: At| matches!(graph.nodes[at].kind, Kind::Internet | Kind::InternetHost);
    let gateway = |at: At, other: At| match graph.nodes[at].kind {
        Kind::InternetGateway if outside(other) || graph.nodes[other].kind == Kind::InternetGateway => {
            Side::Top
        }
        _ => Side::Bottom,
    };
    (gateway(from, to), gateway(to, from))
}

/// The gap at a side of a box.
fn home(graph: &Graph, rows: &Rows, at: At, side: Side) -> Channel {
    match (graph.nodes[at].kind, side) {
        (Kind::Internet | Kind::InternetHost, _) => Channel::Canvas(0),
        (Kind::InternetGateway, Side::Top) | (Kind::Vpc, _) => {
            Channel::Canvas(vpc_row(rows, vpc_of(graph, at)))
        }
        (Kind::InternetGateway, Side::Bottom) => Channel::Vpc(vpc_of(graph, at), 0),
        (_, Side::Top) => Channel::Vpc(vpc_of(graph, at), row_of(graph, rows, at)),
        (_, Side::Bottom) => Channel::Vpc(vpc_of(graph, at), row_of(graph, rows, at) + 1),
    }
}

/// The gaps from one to another.
fn between(from: Channel, to: Channel) -> Vec<Channel> {
    match (from, to) {
        _ if from == to => vec![from],
        (Channel::Vpc(vpc, _), Channel::Vpc(..)) => vec![from, Channel::VpcTrunk(vpc), to],
        _ => vec![from, Channel::CanvasTrunk, to],
    }
}

/// The VPC that something is in, or is.
pub fn vpc_of(graph: &Graph, at: At) -> At {
    let mut at = at;
    while let (false, Some(parent)) = (graph.nodes[at].kind == Kind::Vpc, graph.nodes[at].parent) {
        at = parent;
    }
    at
}

/// The subnet that something is in, or is.
fn subnet_of(graph: &Graph, at: At) -> At {
    match graph.nodes[at].kind {
        Kind::Instance | Kind::NatGateway => graph.nodes[at].parent.unwrap_or(at),
        _ => at,
    }
}

/// The row of its subnet; 0 for what is in none.
fn row_of(graph: &Graph, rows: &Rows, at: At) -> usize {
    let subnet = subnet_of(graph, at);
    let of_vpc = rows.subnets.get(&vpc_of(graph, at));
    of_vpc.and_then(|rows| rows.iter().position(|row| row.contains(&subnet))).unwrap_or(0)
}

fn vpc_row(rows: &Rows, vpc: At) -> usize {
    rows.vpcs.iter().position(|row| row.contains(&vpc)).unwrap_or(0)
}
