//! Where everything stands: boxes in rows, lines in the gaps between them.
//!
//! First all boxes are measured, then put into rows; then lines are planned, which says how wide the gaps must
//! be; then everything gets its place. Lengths are whole pixels, and text is measured by a table of one width.

use super::plan::{Channel, Lane, Plan, Rows, Side, edge_sides, leg_sides, stop_channel};
use super::scene::{Face, Label, Placed, Rect, Scene, Text, Wire, WireKind, text_width};
use super::sizes::{GAP, ICON, LINE, PAD, Sizes, lines, rows};
use super::{At, Graph, Kind, Verdict};

/// Around everything.
const MARGIN: i32 = 20;
/// Between lanes.
const LANE: i32 = 9;
/// From a box to the first lane.
const SHORE: i32 = 10;
/// Characters of a line beside a stop.
const LABEL_CHARS: usize = 46;

/// Puts a graph into place.
pub fn layout(graph: &Graph) -> Scene {
    let sizes = Sizes::of(graph);
    let rows = rows(graph, &sizes);
    let plan = Plan::new(graph, &rows);
    let mut placing = Placing {
        graph,
        sizes: &sizes,
        rows: &rows,
        plan: &plan,
        label: label_lines(graph),
        channels: Vec::new(),
        scene: Scene { boxes: vec![Placed::default(); graph.nodes.len()], ..Scene::default() },
    };
    placing.place();
    placing.wires();
    placing.scene
}

/// The words beside a stop.
fn label_lines(graph: &Graph) -> Vec<String> {
    let Some(path) = graph.path.as_ref() else { return Vec::new() };
    let Some(reason) = &path.reason else { return Vec::new() };
    let mut lines: Vec<String> = path.code.iter().cloned().collect();
    let mut line = String::new();
    for word in reason.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= LABEL_CHARS {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push(line);
    lines
}

struct Placing<'a> {
    graph: &'a Graph,
    sizes: &'a Sizes,
    rows: &'a Rows,
    plan: &'a Plan,
    label: Vec<String>,
    /// Where each gap begins: its upper or left end.
    channels: Vec<(Channel, i32)>,
    scene: Scene,
}

impl Placing<'_> {
    fn place(&mut self) {
        let mut y = MARGIN + self.caption();
        let left = MARGIN + self.trunk(Channel::CanvasTrunk);
        self.open(Channel::CanvasTrunk, MARGIN - SHORE);
        let internet = self.graph.of_kind(Kind::Internet).next().map(|(at, _)| at);
        let internet_y = y;
        if let Some(internet) = internet {
            y += self.sizes.outer(internet).1;
        }
        let mut right = self.scene.caption.iter().map(|text| text.x + text.width()).max().unwrap_or(0);
        for (number, row) in self.rows.vpcs.iter().enumerate() {
            self.open(Channel::Canvas(number), y);
            y += self.thickness(Channel::Canvas(number));
            let height = row.iter().map(|vpc| self.vpc_size(*vpc).1).max().unwrap_or(0);
            let mut x = left;
            for &vpc in row {
                let w = self.vpc_size(vpc).0;
                self.vpc(vpc, Rect { x, y, w, h: height });
                x += w + GAP;
            }
            right = right.max(x - GAP);
            y += height;
        }
        if let Some(internet) = internet {
            let (w, h) = self.sizes.outer(internet);
            right = right.max(MARGIN + w).max(MARGIN + self.label_size().0);
            let rect = Rect { x: MARGIN, y: internet_y, w: right - MARGIN, h };
            self.container(internet, rect);
        }
        self.scene.width = right + MARGIN;
        self.scene.height = y + MARGIN;
    }

    /// The question above the picture; its height.
    fn caption(&mut self) -> i32 {
        let Some(path) = &self.graph.path else { return 0 };
        let (face, verdict) = match path.verdict {
            Verdict::Reachable => (Face::Good, "reachable"),
            Verdict::Blocked => (Face::Bad, "blocked"),
            Verdict::Depends => (Face::Open, "depends"),
            Verdict::Undecidable => (Face::Open, "undecidable"),
        };
        let question = Text { x: MARGIN, y: MARGIN + 10, face: Face::Name, text: path.question.clone() };
        let x = question.x + question.width() + 16;
        let verdict = Text { x, y: MARGIN + 10, face, text: verdict.into() };
        self.scene.caption = vec![question, verdict];
        LINE + 14
    }

    fn vpc(&mut self, at: At, rect: Rect) {
        self.header(at, rect);
        let (title_w, title_h) = self.sizes.own[at];
        let mut y = rect.y + PAD;
        let mut band = title_h;
        let gateway = self.gateway(at);
        if let Some(gateway) = gateway {
            let (w, h) = self.sizes.own[gateway];
            let x = (rect.x + PAD + title_w + GAP).max(rect.x + rect.w / 2 - w / 2);
            self.chip(gateway, Rect { x, y, w, h });
            band = band.max(h);
        }
        y += band;
        let trunk = Channel::VpcTrunk(at);
        self.open(trunk, rect.x + 4);
        let left = rect.x + PAD + self.trunk(trunk);
        let rows = &self.rows.subnets[&at];
        for (number, row) in rows.iter().enumerate() {
            self.open(Channel::Vpc(at, number), y);
            y += self.thickness(Channel::Vpc(at, number));
            let height = row.iter().map(|subnet| self.sizes.outer(*subnet).1).max().unwrap_or(0);
            let mut x = left;
            for &subnet in row {
                let w = self.sizes.outer(subnet).0;
                self.container(subnet, Rect { x, y, w, h: height });
                x += w + GAP;
            }
            y += height;
        }
        self.open(Channel::Vpc(at, rows.len()), y);
    }

    fn gateway(&self, vpc: At) -> Option<At> {
        let mut children = self.graph.children(vpc);
        children.find(|(_, node)| node.kind == Kind::InternetGateway).map(|(at, _)| at)
    }

    fn vpc_size(&self, at: At) -> (i32, i32) {
        let (title_w, title_h) = self.sizes.own[at];
        let gateway = self.gateway(at).map_or((0, 0), |gateway| self.sizes.own[gateway]);
        let rows = &self.rows.subnets[&at];
        let row_width = |row: &Vec<At>| row.iter().map(|it| self.sizes.outer(*it).0 + GAP).sum::<i32>() - GAP;
        let inner = rows.iter().map(row_width).max().unwrap_or(0);
        let heights = rows.iter().map(|row| row.iter().map(|it| self.sizes.outer(*it).1).max().unwrap_or(0));
        let gaps = (0..=rows.len()).map(|number| self.thickness(Channel::Vpc(at, number))).sum::<i32>();
        let label = match stop_channel(self.graph, self.rows) {
            Some(Channel::Vpc(vpc, _)) if vpc == at => self.label_size().0,
            _ => 0,
        };
        let trunk = self.trunk(Channel::VpcTrunk(at));
        let band = if gateway.0 > 0 { title_w + GAP + gateway.0 } else { title_w };
        let width = band.max(inner + trunk).max(label + trunk);
        (width + 2 * PAD, PAD + title_h.max(gateway.1) + heights.sum::<i32>() + gaps)
    }

    /// A box with a header and small boxes.
    fn container(&mut self, at: At, rect: Rect) {
        self.header(at, rect);
        let grid = &self.sizes.grids[at];
        // The last row stands at the bottom, where lines come from.
        let mut y = rect.y + PAD + self.sizes.own[at].1 + 10;
        let spare = rect.bottom() - PAD - (y + grid.height());
        for (number, (row, height)) in grid.rows.iter().zip(&grid.heights).enumerate() {
            if number + 1 == grid.rows.len() && number > 0 {
                y += spare.max(0);
            }
            for (column, &chip) in row.iter().enumerate() {
                let x = rect.x + PAD + column as i32 * (grid.column + GAP);
                self.chip(chip, Rect { x, y, w: grid.column, h: *height });
            }
            y += height + GAP;
        }
    }

    fn header(&mut self, at: At, rect: Rect) {
        let texts = texts(&lines(self.graph, at), rect.x + ICON, rect.y + PAD + 10);
        self.scene.boxes[at] = Placed { rect, texts };
    }

    fn chip(&mut self, at: At, rect: Rect) {
        let lines = lines(self.graph, at);
        let spare = rect.h - lines.len() as i32 * LINE;
        let texts = texts(&lines, rect.x + ICON + 6, rect.y + spare / 2 + 11);
        self.scene.boxes[at] = Placed { rect, texts };
    }

    fn open(&mut self, channel: Channel, start: i32) {
        self.channels.push((channel, start));
    }

    /// How thick a gap is, from box to box.
    fn thickness(&self, channel: Channel) -> i32 {
        let lanes = self.plan.lanes(channel).iter().map(|lane| self.lane(*lane)).sum::<i32>();
        (lanes + 2 * SHORE).max(GAP - 4)
    }

    /// How thick a trunk is; nothing where nobody uses it.
    fn trunk(&self, channel: Channel) -> i32 {
        let lanes = self.plan.lanes(channel);
        if lanes.is_empty() { 0 } else { lanes.iter().map(|lane| self.lane(*lane)).sum::<i32>() + SHORE / 2 }
    }

    fn lane(&self, lane: Lane) -> i32 {
        match lane {
            Lane::Label => self.label_size().1 + 6,
            Lane::Route(_) | Lane::Leg(_) => LANE,
        }
    }

    fn label_size(&self) -> (i32, i32) {
        let width = self.label.iter().map(|line| text_width(line)).max().unwrap_or(0);
        if self.label.is_empty() { (0, 0) } else { (width + 20, self.label.len() as i32 * LINE + 10) }
    }

    /// The middle of a lane of a gap: y of a horizontal one, x of a trunk.
    fn on(&self, channel: Channel, lane: Lane) -> i32 {
        let start = self.channels.iter().find(|(it, _)| *it == channel).map_or(0, |(_, start)| *start);
        let before = self.plan.lanes(channel).iter().take_while(|it| **it != lane);
        start + SHORE + before.map(|it| self.lane(*it)).sum::<i32>() + self.lane(lane) / 2
    }

    fn wires(&mut self) {
        for (index, edge) in self.graph.edges.iter().enumerate() {
            let (from_side, to_side) = edge_sides(self.graph, self.rows, edge.from, edge.to);
            let earlier = self.graph.edges[..index].iter().filter(|it| it.from == edge.from).count() as i32;
            let rect = self.scene.boxes[edge.from].rect;
            let x = match self.graph.nodes[edge.from].kind {
                Kind::InternetGateway => rect.x + rect.w / 2 - 8,
                _ => rect.right() - 16 - 12 * earlier,
            };
            let start = vec![(x, side(rect, from_side))];
            let channels = &self.plan.edges[index];
            let target = self.scene.boxes[edge.to].rect;
            let x = match (self.graph.nodes[edge.to].kind, channels.len()) {
                (Kind::Internet, 1) => x,
                (Kind::Internet, _) => self.on(Channel::CanvasTrunk, Lane::Route(edge.to)),
                _ => target.x + target.w / 2 - 8,
            };
            let end = vec![(x, side(target, to_side))];
            let points = self.join(start, channels, Lane::Route(edge.to), end);
            self.scene.wires.push(Wire { points, kind: WireKind::Route, ends: true });
        }
        let Some(path) = &self.graph.path else { return };
        for (index, leg) in path.legs.iter().enumerate() {
            let (from_side, to_side) = leg_sides(self.graph, leg.from, leg.to);
            let mut start = self.port(leg.from, from_side, 18);
            let inside = self.graph.nodes[leg.from].parent == Some(leg.to);
            let end = if leg.from == leg.to {
                // It does not get beyond its own box.
                start.truncate(2);
                Vec::new()
            } else if inside {
                // It is stopped where it leaves its subnet.
                let x = start.last().map_or(0, |(x, _)| *x);
                vec![(x, self.scene.boxes[leg.to].rect.bottom())]
            } else {
                self.port(leg.to, to_side, 8)
            };
            let mut points = self.join(start, &self.plan.legs[index], Lane::Leg(index), end.clone());
            let kind =
                if path.verdict == Verdict::Undecidable { WireKind::Unknown } else { WireKind::Passes };
            match points.len() {
                _ if leg.passes => self.scene.wires.push(Wire { points, kind, ends: true }),
                2.. => {
                    // It passes until its last turn.
                    let last = points.len() - 2;
                    if !inside {
                        // The cross stands before the box, not on its words.
                        points[last + 1] = towards(points[last + 1], points[last], 8);
                    }
                    self.scene.stop = points.last().copied();
                    let stopped = points[last..].to_vec();
                    self.scene.wires.push(Wire { points: points[..=last].to_vec(), kind, ends: false });
                    self.scene.wires.push(Wire { points: stopped, kind: WireKind::Stopped, ends: false });
                }
                _ => self.scene.stop = points.last().copied(),
            }
        }
        self.label();
    }

    /// Where a leg touches a box, seen from the box: what is not in the last row of its subnet is left sideways.
    fn port(&self, at: At, touched: Side, offset: i32) -> Vec<(i32, i32)> {
        let rect = self.scene.boxes[at].rect;
        let node = &self.graph.nodes[at];
        let grid = node.parent.map(|parent| &self.sizes.grids[parent]);
        let in_last = grid.is_none_or(|grid| grid.rows.last().is_none_or(|row| row.contains(&at)));
        if in_last || node.kind == Kind::InternetGateway {
            return vec![(rect.x + (rect.w / 2 + offset).min(rect.w - 6), side(rect, touched))];
        }
        let (x, y) = (rect.right() + 3 + offset / 3, rect.y + rect.h / 2 + offset / 2 - 6);
        let below = node.parent.map_or(rect.bottom(), |parent| self.scene.boxes[parent].rect.bottom());
        vec![(rect.right(), y), (x, y), (x, below)]
    }

    /// A line of horizontal and vertical pieces: out of a box, along the lanes, into a box.
    fn join(
        &self,
        start: Vec<(i32, i32)>,
        channels: &[Channel],
        lane: Lane,
        end: Vec<(i32, i32)>,
    ) -> Vec<(i32, i32)> {
        let mut points = start;
        let (mut x, _) = points.last().copied().unwrap_or_default();
        let mut y = None;
        for channel in channels {
            let on = self.on(*channel, lane);
            match channel {
                Channel::Canvas(_) | Channel::Vpc(..) => {
                    points.push((x, on));
                    y = Some(on);
                }
                Channel::CanvasTrunk | Channel::VpcTrunk(_) => {
                    x = on;
                    points.extend(y.map(|y| (x, y)));
                }
            }
        }
        if let (Some(y), Some((last, _))) = (y, end.last()) {
            points.push((*last, y));
        }
        points.extend(end.into_iter().rev());
        straighten(points)
    }

    /// The words beside the stop, in the lane that was kept for them.
    fn label(&mut self) {
        let Some(((stop, _), channel)) = self.scene.stop.zip(stop_channel(self.graph, self.rows)) else {
            return;
        };
        let (w, h) = self.label_size();
        let y = self.on(channel, Lane::Label) - h / 2;
        let within = match channel {
            Channel::Vpc(vpc, _) | Channel::VpcTrunk(vpc) => {
                let rect = self.scene.boxes[vpc].rect;
                let trunk = self.trunk(Channel::VpcTrunk(vpc));
                (rect.x + PAD + trunk, rect.right() - PAD)
            }
            Channel::Canvas(_) | Channel::CanvasTrunk => {
                self.scene.width = self.scene.width.max(stop + 12 + w + MARGIN);
                (MARGIN, self.scene.width - MARGIN)
            }
        };
        // Beside the line; in front of it only where there is no room on either side.
        let x = match (stop + 12 + w <= within.1, stop - 12 - w >= within.0) {
            (true, _) => stop + 12,
            (false, true) => stop - 12 - w,
            (false, false) => (within.1 - w).max(within.0),
        };
        let mut texts = texts(&self.label, x + 10, y + 16);
        for text in &mut texts {
            text.face = if text.face == Face::Name { Face::Bad } else { Face::Detail };
        }
        self.scene.label = Some(Label { rect: Rect { x, y, w, h }, texts });
    }
}

fn side(rect: Rect, side: Side) -> i32 {
    match side {
        Side::Top => rect.y,
        Side::Bottom => rect.bottom(),
    }
}

fn texts(lines: &[String], x: i32, y: i32) -> Vec<Text> {
    let face = |index| if index == 0 { Face::Name } else { Face::Detail };
    let line = |(index, line): (usize, &String)| {
        let text = line.trim_start();
        let indent = text_width(&line[..line.len() - text.len()]);
        Text { x: x + indent, y: y + index as i32 * LINE, face: face(index), text: text.to_owned() }
    };
    lines.iter().enumerate().map(line).collect()
}

/// A point so far from one on the way to another, straight up, down or aside.
fn towards((x, y): (i32, i32), other: (i32, i32), distance: i32) -> (i32, i32) {
    let step = |from: i32, to: i32| (to - from).clamp(-distance, distance);
    (x + step(x, other.0), y + step(y, other.1))
}

/// Without points that change nothing.
fn straighten(points: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    let mut straight: Vec<(i32, i32)> = Vec::with_capacity(points.len());
    for point in points {
        if straight.last() == Some(&point) {
            continue;
        }
        if let [.., a, b] = straight[..]
            && ((a.0 == b.0 && b.0 == point.0) || (a.1 == b.1 && b.1 == point.1))
        {
            straight.pop();
        }
        straight.push(point);
    }
    straight
}
