//! Graphviz text: clusters for what contains, boxes for the rest.

use std::fmt::Write as _;

use super::{At, Graph, Kind, Verdict};

/// The picture as Graphviz text.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "digraph {} {{", quoted(&graph.lab));
    out += "  compound=true;\n  rankdir=BT;\n  labeljust=l;\n  fontsize=11;\n  fontname=\"Helvetica\";\n  node [shape=box, style=rounded, fontname=\"Helvetica\", fontsize=11];\n  edge [fontname=\"Helvetica\", fontsize=10, color=\"#888888\"];\n";
    for (at, _) in graph.nodes.iter().enumerate().filter(|(_, node)| node.parent.is_none()) {
        node(graph, at, 1, &mut out);
    }
    for edge in &graph.edges {
        let label = format!("label={}", quoted(&edge.label));
        line(graph, edge.from, edge.to, &label, &mut out);
    }
    if let Some(path) = &graph.path {
        for leg in &path.legs {
            let colour = match (leg.passes, path.verdict) {
                (false, _) => "#d13212",
                (true, Verdict::Depends | Verdict::Undecidable) => "#b7791f",
                (true, _) => "#1d8102",
            };
            let head = if leg.passes { "normal" } else { "tee" };
            let stopped = (!leg.passes).then(|| path.reason.clone()).flatten();
            let word = stopped.or(leg.back.then(|| "reply".to_owned())).unwrap_or_default();
            let attributes = format!(
                "label={}, color=\"{colour}\", fontcolor=\"{colour}\", penwidth=3, arrowhead={head}",
                quoted(&word)
            );
            line(graph, leg.from, leg.to, &attributes, &mut out);
        }
        let _ = writeln!(out, "  labelloc=b;\n  label={};", quoted(&path.question));
    }
    out + "}\n"
}

fn node(graph: &Graph, at: At, depth: usize, out: &mut String) {
    let (indent, it) = ("  ".repeat(depth), &graph.nodes[at]);
    let name = if it.kind == Kind::Vpc { format!("VPC {}", it.name) } else { it.name.clone() };
    let label = quoted(&[&[name], &it.lines[..]].concat().join("\n"));
    let colour = match it.kind {
        Kind::Vpc | Kind::InternetGateway | Kind::NatGateway => "#8c4fff",
        Kind::PublicSubnet => "#7aa116",
        Kind::PrivateSubnet => "#00a4a6",
        Kind::Instance => "#ed7100",
        Kind::Internet | Kind::InternetHost => "#888888",
    };
    if !it.kind.is_container() {
        let _ = writeln!(out, "{indent}n{at} [label={label}, color=\"{colour}\"];");
        return;
    }
    let _ = writeln!(
        out,
        "{indent}subgraph cluster_{at} {{\n{indent}  label={label};\n{indent}  labelloc=b;\n{indent}  color=\"{colour}\";"
    );
    // A line needs a node to begin at, also in an empty cluster.
    let _ = writeln!(out, "{indent}  a{at} [shape=point, style=invis];");
    let children: Vec<At> = graph.children(at).map(|(at, _)| at).collect();
    for child in children {
        node(graph, child, depth + 1, out);
    }
    let _ = writeln!(out, "{indent}}}");
}

fn line(graph: &Graph, from: At, to: At, attributes: &str, out: &mut String) {
    // A line between a cluster and what is in it cannot end at the cluster's edge.
    let end = |at: At, other: At, key: &str| match graph.nodes[at].kind.is_container() {
        true if graph.is_within(other, at) => (format!("a{at}"), String::new()),
        true => (format!("a{at}"), format!(", {key}=cluster_{at}")),
        false => (format!("n{at}"), String::new()),
    };
    let ((from, tail), (to, head)) = (end(from, to, "ltail"), end(to, from, "lhead"));
    let _ = writeln!(out, "  {from} -> {to} [{attributes}{tail}{head}];");
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
