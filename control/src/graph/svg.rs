//! SVG: own drawing in the familiar style, legible on light and on dark.

use std::fmt::Write as _;

use super::layout::layout;
use super::scene::{Face, Placed, Rect, Scene, Text, WireKind};
use super::{Graph, Kind};

/// The picture as SVG.
pub fn svg(graph: &Graph) -> String {
    let scene = layout(graph);
    let mut out = String::new();
    let (w, h) = (scene.width, scene.height);
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">"
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(&title(graph)));
    out += STYLE;
    let _ = writeln!(out, "<rect class=\"paper\" width=\"{w}\" height=\"{h}\" rx=\"6\"/>");
    for text in &scene.caption {
        write_text(text, &mut out);
    }
    let boxes = |container: bool| {
        graph.nodes.iter().zip(&scene.boxes).filter(move |(node, _)| node.kind.is_container() == container)
    };
    for (node, placed) in boxes(true) {
        container(node.kind, placed, &mut out);
    }
    wires(&scene, &mut out);
    for (node, placed) in boxes(false) {
        chip(node.kind, placed, &mut out);
    }
    stop(&scene, &mut out);
    out + "</svg>\n"
}

const STYLE: &str = "<style>
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
.name { font-weight: bold; fill: #16191f; }
.detail { fill: #545b64; }
.good { font-weight: bold; fill: #1d8102; }
.bad { font-weight: bold; fill: #d13212; }
.open { font-weight: bold; fill: #b7791f; }
.paper { fill: #ffffff; }
.internet { fill: none; stroke: #879596; stroke-dasharray: 5 4; }
.vpc { fill: none; stroke: #8c4fff; stroke-width: 1.5; }
.public { fill: #f2f6e8; stroke: #7aa116; }
.private { fill: #e6f6f7; stroke: #00a4a6; }
.chip { fill: #ffffff; stroke: #d5dbdb; }
.orange { fill: #ed7100; } .purple { fill: #8c4fff; } .green { fill: #7aa116; } .teal { fill: #00a4a6; } .grey { fill: #687078; }
.sign { fill: none; stroke: #ffffff; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
.route { fill: none; stroke: #9b8bb4; stroke-width: 1.5; stroke-linejoin: round; }
.passes { fill: none; stroke: #1d8102; stroke-width: 3.5; stroke-linejoin: round; }
.unknown { fill: none; stroke: #b7791f; stroke-width: 3.5; stroke-linejoin: round; }
.stopped { fill: none; stroke: #d13212; stroke-width: 3.5; stroke-linejoin: round; stroke-dasharray: 8 5; }
.route-head { fill: #9b8bb4; } .passes-head { fill: #1d8102; } .unknown-head { fill: #b7791f; }
.cross { fill: none; stroke: #d13212; stroke-width: 4; stroke-linecap: round; }
.label { fill: #fdf3f1; stroke: #d13212; }
@media (prefers-color-scheme: dark) {
.name { fill: #f2f3f3; } .detail { fill: #b6bec9; } .good { fill: #6aaf35; } .bad { fill: #ff7a5c; }
.paper { fill: #0f141a; } .chip { fill: #1b232d; stroke: #3b4754; }
.public { fill: #1c2413; } .private { fill: #0d2628; } .label { fill: #33150f; }
.passes { stroke: #6aaf35; } .passes-head { fill: #6aaf35; } .stopped, .cross { stroke: #ff7a5c; }
}
</style>
";

fn title(graph: &Graph) -> String {
    match &graph.path {
        Some(path) => format!("Lab {}: {}", graph.lab, path.question),
        None => format!("Lab {}", graph.lab),
    }
}

fn container(kind: Kind, placed: &Placed, out: &mut String) {
    let (class, colour) = match kind {
        Kind::Vpc => ("vpc", "purple"),
        Kind::PublicSubnet => ("public", "green"),
        Kind::PrivateSubnet => ("private", "teal"),
        _ => ("internet", "grey"),
    };
    let Rect { x, y, w, h } = placed.rect;
    let _ = writeln!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>");
    let _ = writeln!(out, "<rect class=\"{colour}\" x=\"{x}\" y=\"{y}\" width=\"24\" height=\"24\"/>");
    sign(kind, x, y, out);
    placed.texts.iter().for_each(|text| write_text(text, out));
}

fn chip(kind: Kind, placed: &Placed, out: &mut String) {
    let colour = match kind {
        Kind::Instance => "orange",
        Kind::InternetHost => "grey",
        _ => "purple",
    };
    let Rect { x, y, w, h } = placed.rect;
    let _ = writeln!(out, "<rect class=\"chip\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"4\"/>");
    let (x, y) = (x + 8, y + (h - 24) / 2);
    let _ =
        writeln!(out, "<rect class=\"{colour}\" x=\"{x}\" y=\"{y}\" width=\"24\" height=\"24\" rx=\"3\"/>");
    sign(kind, x, y, out);
    placed.texts.iter().for_each(|text| write_text(text, out));
}

/// A sign of 24 by 24 for each kind.
fn sign(kind: Kind, x: i32, y: i32, out: &mut String) {
    let path = match kind {
        // A cloud.
        Kind::Vpc => "M7 16h10a3.2 3.2 0 0 0 .4-6.4A5 5 0 0 0 7.9 9 3.6 3.6 0 0 0 7 16z",
        // A lock, open and closed.
        Kind::PublicSubnet => "M6.5 11h11v7h-11zM9 11V8.500a3 3 0 0 1 6-.8",
        Kind::PrivateSubnet => "M6.500 11h11v7h-11zM9 11V8.500a3 3 0 0 1 6 0V11",
        // A globe.
        Kind::Internet | Kind::InternetHost => {
            "M12 5a7 7 0 1 0 0 14a7 7 0 1 0 0-14zM5 12h14M12 5c-4.500 4-4.500 10 0 14M12 5c4.500 4 4.500 10 0 14"
        }
        // An arch with a way through.
        Kind::InternetGateway => "M5 18v-5a7 7 0 0 1 14 0v5M12 19v-8M9 14l3-3 3 3",
        // Many into one.
        Kind::NatGateway => "M4.500 7h5l3 5h7M4.500 17h5l3-5M16.500 9l3 3-3 3",
        // A machine.
        Kind::Instance => {
            "M7 7h10v10h-10zM10 4.500v2.500M14 4.500v2.500M10 17v2.500M14 17v2.500M4.500 10h2.500M4.500 14h2.500M17 10h2.500M17 14h2.500"
        }
    };
    let _ = writeln!(out, "<path class=\"sign\" transform=\"translate({x} {y})\" d=\"{path}\"/>");
}

fn wires(scene: &Scene, out: &mut String) {
    for wire in &scene.wires {
        let class = match wire.kind {
            WireKind::Route => "route",
            WireKind::Passes => "passes",
            WireKind::Unknown => "unknown",
            WireKind::Stopped => "stopped",
        };
        let points: Vec<String> = wire.points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        let _ = writeln!(out, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
        if let ([.., before, last], true) = (&wire.points[..], wire.ends) {
            let size = if wire.kind == WireKind::Route { 4 } else { 6 };
            let head = arrow(*before, *last, size);
            let _ = writeln!(out, "<polygon class=\"{class}-head\" points=\"{head}\"/>");
        }
    }
}

/// A triangle that ends at `tip`.
fn arrow(before: (i32, i32), tip: (i32, i32), size: i32) -> String {
    let (dx, dy) = ((tip.0 - before.0).signum(), (tip.1 - before.1).signum());
    let back = (tip.0 - dx * size * 2, tip.1 - dy * size * 2);
    let (a, b) = ((back.0 + dy * size, back.1 + dx * size), (back.0 - dy * size, back.1 - dx * size));
    format!("{},{} {},{} {},{}", tip.0, tip.1, a.0, a.1, b.0, b.1)
}

fn stop(scene: &Scene, out: &mut String) {
    if let Some((x, y)) = scene.stop {
        let _ = writeln!(out, "<path class=\"cross\" d=\"M{} {}l12 12m0 -12l-12 12\"/>", x - 6, y - 6);
    }
    if let Some(label) = &scene.label {
        let Rect { x, y, w, h } = label.rect;
        let _ = writeln!(
            out,
            "<rect class=\"label\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"4\"/>"
        );
        label.texts.iter().for_each(|text| write_text(text, out));
    }
}

fn write_text(text: &Text, out: &mut String) {
    let class = match text.face {
        Face::Name => "name",
        Face::Detail => "detail",
        Face::Good => "good",
        Face::Bad => "bad",
        Face::Open => "open",
    };
    let Text { x, y, text, .. } = text;
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}

/// Text for an element or an attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
