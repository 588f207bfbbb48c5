//! Mermaid text: a flowchart with nested subgraphs.

use std::fmt::Write as _;

use super::{At, Graph, Kind, Verdict};

/// The picture as Mermaid text.
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart TB\n");
    for (at, _) in graph.nodes.iter().enumerate().filter(|(_, node)| node.parent.is_none()) {
        node(graph, at, 1, &mut out);
    }
    for edge in &graph.edges {
        let label = if edge.label.is_empty() { String::new() } else { format!("|{}|", quoted(&edge.label)) };
        let _ = writeln!(out, "  n{} -->{label} n{}", edge.from, edge.to);
    }
    for leg in graph.path.iter().flat_map(|path| &path.legs) {
        let (arrow, word) = match (leg.passes, leg.back) {
            (true, false) => ("==>", ""),
            (true, true) => ("==>", "|\"reply\"|"),
            (false, false) => ("==x", ""),
            (false, true) => ("==x", "|\"reply\"|"),
        };
        let _ = writeln!(out, "  n{} {arrow}{word} n{}", leg.from, leg.to);
    }
    styles(graph, &mut out);
    out
}

fn node(graph: &Graph, at: At, depth: usize, out: &mut String) {
    let (indent, node_) = ("  ".repeat(depth), &graph.nodes[at]);
    let mut lines = vec![format!("<b>{}</b>", node_.name)];
    if node_.kind == Kind::Vpc {
        lines[0] = format!("<b>VPC {}</b>", node_.name);
    }
    lines.extend(node_.lines.iter().map(|line| line.trim().to_owned()));
    let label = quoted(&lines.join("<br/>"));
    // Writing to a String cannot fail, here and below.
    if !node_.kind.is_container() {
        let (open, close) = match node_.kind {
            Kind::InternetGateway | Kind::NatGateway => ("([", "])"),
            _ => ("[", "]"),
        };
        let _ = writeln!(out, "{indent}n{at}{open}{label}{close}");
        return;
    }
    let _ = writeln!(out, "{indent}subgraph n{at}[{label}]");
    let children: Vec<At> = graph.children(at).map(|(at, _)| at).collect();
    for child in children {
        node(graph, child, depth + 1, out);
    }
    let _ = writeln!(out, "{indent}end");
}

fn styles(graph: &Graph, out: &mut String) {
    for (kind, style) in [
        (Kind::Vpc, "fill:none,stroke:#8c4fff,stroke-width:2px"),
        (Kind::PublicSubnet, "fill:#7aa11622,stroke:#7aa116"),
        (Kind::PrivateSubnet, "fill:#00a4a622,stroke:#00a4a6"),
        (Kind::Internet, "fill:none,stroke:#888888"),
    ] {
        for (at, _) in graph.of_kind(kind) {
            let _ = writeln!(out, "  style n{at} {style}");
        }
    }
    let Some(path) = &graph.path else { return };
    for (index, leg) in path.legs.iter().enumerate() {
        let colour = match (leg.passes, path.verdict) {
            (false, _) => "#d13212",
            (true, Verdict::Depends | Verdict::Undecidable) => "#b7791f",
            (true, _) => "#1d8102",
        };
        let _ = writeln!(out, "  linkStyle {} stroke:{colour},stroke-width:4px", graph.edges.len() + index);
    }
    if let Some(reason) = &path.reason {
        let text = [path.code.as_deref().unwrap_or_default(), reason].join("<br/>");
        // The last leg is the one that is stopped.
        let Some(leg) = path.legs.last() else { return };
        let _ = writeln!(out, "  stopped[{}]", quoted(text.trim_start_matches("<br/>")));
        let _ = writeln!(out, "  n{} -.- stopped", leg.to);
        let _ = writeln!(out, "  style stopped fill:#d1321222,stroke:#d13212");
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;"))
}
