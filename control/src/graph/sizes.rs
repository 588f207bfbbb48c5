//! How large boxes are, and which rows they fill.

use super::plan::Rows;
use super::scene::text_width;
use super::{At, Graph, Kind};

/// The height of a line of text.
pub const LINE: i32 = 15;
/// Within boxes.
pub const PAD: i32 = 14;
/// Between neighbours.
pub const GAP: i32 = 20;
/// What has a sign stands this far to the right of it.
pub const ICON: i32 = 34;
/// Rows are filled up to these widths.
const VPC_ROW: i32 = 1000;
const CANVAS_ROW: i32 = 1500;

/// The boxes in a container that hold nothing themselves, in a grid.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// What stands in them.
    pub rows: Vec<Vec<At>>,
    /// Width of each column.
    pub column: i32,
    /// Height of each row.
    pub heights: Vec<i32>,
}

impl Grid {
    /// Width of all columns.
    pub fn width(&self) -> i32 {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0) as i32;
        (columns * (self.column + GAP) - GAP).max(0)
    }

    /// Height of all rows.
    pub fn height(&self) -> i32 {
        (self.heights.iter().sum::<i32>() + GAP * self.heights.len() as i32 - GAP).max(0)
    }
}

/// How large everything is, lines aside.
pub struct Sizes {
    /// Of what holds nothing: width and height. Of what holds something: its header's.
    pub own: Vec<(i32, i32)>,
    /// Of each node that contains small boxes.
    pub grids: Vec<Grid>,
}

impl Sizes {
    /// Measures everything in a graph.
    pub fn of(graph: &Graph) -> Self {
        let own: Vec<(i32, i32)> = (0..graph.nodes.len())
            .map(|at| {
                let lines = lines(graph, at);
                let width = lines.iter().map(|line| text_width(line)).max().unwrap_or(0) + ICON;
                let height = (lines.len() as i32 * LINE).max(24);
                if graph.nodes[at].kind.is_container() { (width, height) } else { (width + 16, height + 14) }
            })
            .collect();
        let grids = (0..graph.nodes.len()).map(|at| grid(graph, at, &own)).collect();
        Self { own, grids }
    }

    /// A subnet, or the internet: header and grid.
    pub fn outer(&self, at: At) -> (i32, i32) {
        let ((header_w, header_h), grid) = (self.own[at], &self.grids[at]);
        let inner = if grid.rows.is_empty() { 0 } else { grid.height() + 10 };
        (header_w.max(grid.width()) + 2 * PAD, header_h + inner + 2 * PAD)
    }
}

/// What a box says, a line each; the first is its name.
pub fn lines(graph: &Graph, at: At) -> Vec<String> {
    let node = &graph.nodes[at];
    let first = match node.kind {
        Kind::Vpc => format!("VPC {}", node.name),
        _ => node.name.clone(),
    };
    std::iter::once(first).chain(node.lines.iter().cloned()).collect()
}

/// Small boxes in rows. What routes lead to stands in the last rows, so that lines reach it from below.
fn grid(graph: &Graph, of: At, sizes: &[(i32, i32)]) -> Grid {
    let kind = graph.nodes[of].kind;
    if !kind.is_container() || kind == Kind::Vpc {
        return Grid::default();
    }
    let is_target = |at: &At| graph.edges.iter().any(|edge| edge.to == *at);
    let (targets, others): (Vec<At>, Vec<At>) = graph.children(of).map(|(at, _)| at).partition(is_target);
    let columns = match (kind, targets.len().max(others.len())) {
        (Kind::Internet, _) => 6,
        (_, 0..=3) => 3,
        (_, 4) => 2,
        (_, 5..=9) => 3,
        (_, 10..=16) => 4,
        _ => 5,
    };
    let rows: Vec<Vec<At>> =
        others.chunks(columns).chain(targets.chunks(columns)).map(<[At]>::to_vec).collect();
    let column = rows.iter().flatten().map(|at| sizes[*at].0).max().unwrap_or(0);
    let heights = rows.iter().map(|row| row.iter().map(|at| sizes[*at].1).max().unwrap_or(0)).collect();
    Grid { rows, column, heights }
}

/// Subnets into rows, public ones first and by themselves; VPCs into rows.
pub fn rows(graph: &Graph, sizes: &Sizes) -> Rows {
    let mut rows = Rows::default();
    let mut widths = Vec::new();
    for (vpc, _) in graph.of_kind(Kind::Vpc) {
        let mut of_vpc: Vec<Vec<At>> = Vec::new();
        for kind in [Kind::PublicSubnet, Kind::PrivateSubnet] {
            let subnets: Vec<At> =
                graph.children(vpc).filter(|(_, it)| it.kind == kind).map(|(at, _)| at).collect();
            of_vpc.extend(fill(&subnets, VPC_ROW, |at| sizes.outer(at).0));
        }
        let width = of_vpc.iter().map(|row| row.iter().map(|at| sizes.outer(*at).0 + GAP).sum::<i32>()).max();
        widths.push((vpc, width.unwrap_or(0) + 2 * PAD));
        rows.subnets.insert(vpc, of_vpc);
    }
    let vpcs: Vec<At> = widths.iter().map(|(at, _)| *at).collect();
    let width = |at: At| widths.iter().find(|(vpc, _)| *vpc == at).map_or(0, |(_, width)| *width);
    rows.vpcs = fill(&vpcs, CANVAS_ROW, width);
    rows
}

fn fill(items: &[At], most: i32, width: impl Fn(At) -> i32) -> Vec<Vec<At>> {
    let mut rows: Vec<Vec<At>> = Vec::new();
    let mut used = 0;
    for &at in items {
        used += width(at) + GAP;
        match rows.last_mut() {
            Some(row) if used <= most => row.push(at),
            _ => {
                rows.push(vec![at]);
                used = width(at) + GAP;
            }
        }
    }
    rows
}
