//! Pictures of the labs of this project as they are, and what holds for the picture of any lab.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use localvpc_api::Generation;
use proptest::prelude::*;

use super::layout::layout;
use super::scene::{Label, Placed, Rect, Scene, Text};
use super::*;
use crate::explain;
use crate::lower::{IdRegistry, lower};
use crate::model::Model;
use crate::view::ExplainRequest;

const FORMS: [(Form, &str); 4] =
    [(Form::Svg, "svg"), (Form::Mermaid, "mmd"), (Form::Dot, "dot"), (Form::Json, "json")];

/// Every lab of `configs/` in all forms, and some paths. `GOLDEN=write` writes them anew.
#[test]
fn the_labs_of_this_project_look_as_they_did() {
    let mut wrong = Vec::new();
    let mut kept = Vec::new();
    for path in configs() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let graph = Graph::of(&read(&path));
        for (form, end) in FORMS {
            kept.push(format!("{name}.{end}"));
            compare(&format!("{name}.{end}"), &graph.render(form), &mut wrong);
        }
    }
    for (file, lab, question) in [
        ("path-reachable", "two-tier.yaml", ["app", "example", "tcp/443"]),
        ("path-blocked", "two-tier.yaml", ["web", "db", "tcp/5432"]),
        ("path-leaving", "two-tier.yaml", ["db", "example", "udp/53"]),
        ("path-from-outside", "two-tier.yaml", ["internet", "app", "tcp/22"]),
        ("path-between-vpcs", "peers.yaml", ["left", "right", "tcp/80"]),
    ] {
        let graph = asked(&read(&configs_dir().join(lab)), question);
        for (form, end) in FORMS {
            kept.push(format!("{file}.{end}"));
            compare(&format!("{file}.{end}"), &graph.render(form), &mut wrong);
        }
    }
    assert!(
        wrong.is_empty(),
        "these pictures changed; look at them, then run again with GOLDEN=write: {wrong:#?}"
    );
    let mut there: Vec<String> = fs::read_dir(golden(""))
        .unwrap()
        .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    there.retain(|name| !kept.contains(name));
    assert_eq!(there, Vec::<String>::new(), "pictures of labs that are gone");
}

/// The picture in the README is that of its first lab, with the path that its text explains.
#[test]
fn the_picture_of_the_readme_is_true() {
    let mut wrong = Vec::new();
    let graph = asked(&read(&configs_dir().join("two-tier.yaml")), ["web", "db", "tcp/5432"]);
    compare("../../../../configs/two-tier.svg", &graph.render(Form::Svg), &mut wrong);
    assert_eq!(wrong, Vec::<String>::new(), "it changed: GOLDEN=write");
    assert!(include_str!("../../../README.md").contains("(configs/two-tier.svg)"));
}

#[test]
fn a_lab_of_32_instances_in_three_vpcs_keeps_its_order() {
    let model = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/graph/large.yaml")));
    let graph = Graph::of(&model);
    assert_eq!(graph.of_kind(Kind::Instance).count(), 32);
    let scene = layout(&graph);
    check(&graph, &scene).unwrap();
    // It fits on a screen in width.
    assert!(scene.width <= 1500, "{}", scene.width);
    let path = asked(&model, ["staging-app-1", "payments", "tcp/443"]);
    check(&path, &layout(&path)).unwrap();
}

#[test]
fn a_path_names_what_it_passes_and_what_stops_it() {
    let model = read(&configs_dir().join("two-tier.yaml"));
    let legs = |question: [&str; 3]| {
        let graph = asked(&model, question);
        let name = |at: At| graph.nodes[at].name.clone();
        let path = graph.path.clone().unwrap();
        let legs: Vec<String> = path
            .legs
            .iter()
            .map(|leg| format!("{} {} {}", name(leg.from), if leg.passes { "→" } else { "✕" }, name(leg.to)))
            .collect();
        (legs.join(", "), path.code.unwrap_or_default())
    };
    assert_eq!(legs(["app", "example", "tcp/443"]).0, "app → nat-a, nat-a → igw, igw → example");
    assert_eq!(legs(["app", "db", "tcp/5432"]).0, "app → db");
    assert_eq!(legs(["web", "db", "tcp/5432"]), ("web ✕ db".into(), "ENI_SG_RULES_MISMATCH".into()));
    assert_eq!(legs(["db", "example", "udp/53"]), ("db ✕ private-a".into(), "SUBNET_ACL_RESTRICTION".into()));
    let blocked = legs(["internet", "app", "tcp/22"]);
    assert_eq!(blocked, ("example ✕ igw".into(), "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS".into()));
}

/// A network ACL that lets no reply back: the way there is drawn, and of the way back what is stopped.
#[test]
fn the_way_back_is_drawn_where_it_is_what_stops() {
    let text = "lab: x\nvpcs:\n  main:\n    cidr: 10.0.0.0/16\n    subnets:\n      a: { cidr: 10.0.1.0/24 }\n      \
        b: { cidr: 10.0.2.0/24, network_acl: in }\n    network_acls:\n      in: { inbound: [ { rule: 1, allow: all, from: 0.0.0.0/0 } ] }\n    \
        security_groups:\n      any: { inbound: [ { tcp: 80, from: 0.0.0.0/0 } ] }\n    instances:\n      one: { subnet: a }\n      \
        two: { subnet: b, security_groups: [any] }\n";
    let (model, _) = Model::read("x.yaml", text).unwrap();
    let graph = asked(&model, ["one", "two", "tcp/80"]);
    let [there, back] = &graph.path.as_ref().unwrap().legs[..] else { panic!("{:?}", graph.path) };
    assert!(there.passes && !there.back && !back.passes && back.back);
    assert_eq!((graph.nodes[back.from].name.as_str(), graph.nodes[back.to].name.as_str()), ("two", "b"));
    check(&graph, &layout(&graph)).unwrap();
}

#[test]
fn an_instance_shows_all_of_its_addresses_up_to_a_few() {
    let lines = |secondary: &str| {
        let text = format!(
            "lab: x\nvpcs:\n  v:\n    cidr: 10.0.0.0/16\n    internet_gateway: igw\n    subnets: {{ s: {{ cidr: 10.0.1.0/24 }} }}\n    \
             instances: {{ i: {{ subnet: s, ip: 10.0.1.10, eip: 203.0.113.10, secondary_ips: [{secondary}] }} }}\n"
        );
        let (model, _) = Model::read("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        let graph = Graph::of(&model);
        graph.nodes.into_iter().find(|node| node.kind == Kind::Instance).unwrap().lines
    };
    let one = lines("{ ip: 10.0.1.11, eip: 203.0.113.11 }");
    assert_eq!(one, ["10.0.1.10", "EIP 203.0.113.10", "10.0.1.11", "EIP 203.0.113.11", "sg default"]);
    let five = lines("10.0.1.11, 10.0.1.12, 10.0.1.13, 10.0.1.14, 10.0.1.15");
    assert_eq!(five[2..], ["10.0.1.11", "10.0.1.12", "10.0.1.13", "and 2 more", "sg default"]);
}

#[test]
fn text_is_escaped_in_every_form() {
    let node =
        |name: &str, kind, parent| Node { id: name.into(), kind, name: name.into(), lines: vec![], parent };
    let graph = Graph {
        lab: "a<b>&\"c\"\\".into(),
        nodes: vec![node("<v>&\"\\", Kind::Vpc, None)],
        edges: Vec::new(),
        path: None,
    };
    let svg = graph.render(Form::Svg);
    assert!(svg.contains("VPC &lt;v&gt;&amp;&quot;\\</text>") && !svg.contains("<v>"), "{svg}");
    assert!(graph.render(Form::Dot).contains("label=\"VPC <v>&\\\"\\\\\""), "{}", graph.render(Form::Dot));
    assert!(graph.render(Form::Mermaid).contains("VPC <v>&#quot;"));
    serde_json::from_str::<serde_json::Value>(&graph.render(Form::Json)).unwrap();
}

proptest! {
    /// In the picture of any lab siblings lie beside each other, children and words inside their boxes, lines outside
    /// of boxes that they have nothing to do with.
    #[test]
    fn nothing_overlaps(text in lab(), from in 0usize..40, to in 0usize..40, port in 1u16..2000) {
        let (model, _) = Model::read("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let mut graph = Graph::of(&model);
        check(&graph, &layout(&graph)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(Graph::of(&model).render(Form::Svg), graph.render(Form::Svg));
        let ends: Vec<&Node> =
            graph.nodes.iter().filter(|it| matches!(it.kind, Kind::Instance | Kind::InternetHost)).collect();
        if !ends.is_empty() {
            let (from, to) = (&ends[from % ends.len()].name, &ends[to % ends.len()].name);
            graph = asked(&model, [from, to, &format!("tcp/{port}")]);
            check(&graph, &layout(&graph)).map_err(TestCaseError::fail)?;
        }
    }
}

/// Labs of up to three VPCs with everything that can be drawn.
fn lab() -> impl Strategy<Value = String> {
    let subnet = (any::<[bool; 4]>(), 0usize..9, "[a-z]{1,24}");
    let vpc = (prop::collection::vec(subnet, 0..9), any::<bool>(), 0usize..3);
    (prop::collection::vec(vpc, 0..4), 0usize..9).prop_map(|(vpcs, hosts)| {
        let mut out = String::from("lab: x\nvpcs:\n");
        let mut eips = 1..120;
        for (v, (subnets, gateway, nats)) in vpcs.iter().enumerate() {
            let _ = writeln!(out, "  v{v}:\n    cidr: 10.{v}.0.0/16");
            let gateway = *gateway && !subnets.is_empty();
            if gateway {
                out += "    internet_gateway: igw\n";
            }
            out += "    route_tables:\n      local: []\n";
            if gateway {
                out += "      public: [ { to: 0.0.0.0/0, via: igw } ]\n";
                for nat in 0..*nats {
                    let _ = writeln!(
                        out,
                        "      private{nat}: [ {{ to: 0.0.0.0/0, via: nat{nat} }}, {{ to: 198.51.100.0/25, via: blackhole }} ]"
                    );
                }
            }
            out += "    security_groups:\n      a-rather-long-name-of-a-group: {}\n";
            out += if subnets.is_empty() { "" } else { "    subnets:\n" };
            for (s, ([public, shared, private, _], _, name)) in subnets.iter().enumerate() {
                let table = match (gateway, public, *private && *nats > 0) {
                    (true, true, _) => "public".to_owned(),
                    (true, false, true) => format!("private{}", s % nats),
                    _ => "local".to_owned(),
                };
                let shared = if *shared { ", namespace: shared" } else { "" };
                let _ = writeln!(out, "      {name}-{v}-{s}: {{ cidr: 10.{v}.{s}.0/24, route_table: {table}{shared} }}");
            }
            if gateway && *nats > 0 {
                out += "    nat_gateways:\n";
                for nat in 0..*nats {
                    let s = nat % subnets.len();
                    let eip = eips.next().unwrap();
                    let _ = writeln!(out, "      nat{nat}: {{ subnet: {}-{v}-{s}, eip: 203.0.113.{eip} }}", subnets[s].2);
                }
            }
            out += "    instances:\n";
            for (s, ([_, _, _, groups], count, name)) in subnets.iter().enumerate() {
                for i in 0..*count {
                    let groups = if *groups { ", security_groups: [default, a-rather-long-name-of-a-group]" } else { "" };
                    let eip = eips.next().filter(|_| gateway && i == 0);
                    let eip = eip.map_or_else(String::new, |eip| format!(", eip: 203.0.113.{eip}"));
                    let more = if i == 1 { format!(", secondary_ips: [10.{v}.{s}.200, 10.{v}.{s}.201]") } else { String::new() };
                    let _ = writeln!(out, "      i{v}-{s}-{i}: {{ subnet: {name}-{v}-{s}{groups}{eip}{more} }}");
                }
            }
            if subnets.iter().all(|(_, count, _)| *count == 0) {
                out = out.trim_end_matches("    instances:\n").to_owned();
            }
        }
        if vpcs.is_empty() {
            out = "lab: x\n".into();
        }
        if hosts > 0 {
            out += "internet:\n  hosts:\n";
            for host in 0..hosts {
                let _ = writeln!(out, "    host-{host}: {{ ip: 198.51.100.{} }}", host + 1);
            }
        }
        out
    })
}

/// What holds for every picture.
fn check(graph: &Graph, scene: &Scene) -> Result<(), String> {
    let paper = Rect { x: 0, y: 0, w: scene.width, h: scene.height };
    let name = |at: At| graph.nodes[at].id.as_str();
    for (at, (node, Placed { rect, texts })) in graph.nodes.iter().zip(&scene.boxes).enumerate() {
        let outer = node.parent.map_or(paper, |parent| scene.boxes[parent].rect);
        if !within(rect, &outer) {
            return Err(format!("{} {rect:?} is not in {outer:?}", node.id));
        }
        for text in texts {
            if !within(&area(text), rect) {
                return Err(format!("`{}` is not in {} {rect:?}", text.text, node.id));
            }
        }
        for other in 0..at {
            let theirs = &scene.boxes[other];
            if graph.nodes[other].parent == node.parent && meet(rect, &theirs.rect) {
                return Err(format!("{} and {} overlap", node.id, name(other)));
            }
            // Words of what contains are not under what it contains.
            if node.parent == Some(other) && theirs.texts.iter().any(|text| meet(&area(text), rect)) {
                return Err(format!("{} covers words of {}", node.id, name(other)));
            }
        }
    }
    if let Some(Label { rect, texts }) = &scene.label {
        if !within(rect, &paper) || texts.iter().any(|text| !within(&area(text), rect)) {
            return Err(format!("the words beside the stop are not in their place: {rect:?}"));
        }
        let covered = graph.nodes.iter().zip(&scene.boxes).find(|(node, placed)| {
            node.kind != Kind::Vpc && node.kind != Kind::Internet && meet(&placed.rect, rect)
        });
        if let Some((node, _)) = covered {
            return Err(format!("the words beside the stop cover {}", node.id));
        }
    }
    for text in &scene.caption {
        if !within(&area(text), &paper) {
            return Err(format!("`{}` is beyond the paper", text.text));
        }
    }
    wires(graph, scene)
}

/// Lines are horizontal or vertical, on the paper, and meet no small box but at their ends.
fn wires(graph: &Graph, scene: &Scene) -> Result<(), String> {
    for wire in &scene.wires {
        for piece in wire.points.windows(2) {
            let [(x1, y1), (x2, y2)] = [piece[0], piece[1]];
            if x1 != x2 && y1 != y2 {
                return Err(format!("{:?} is neither horizontal nor vertical", wire.points));
            }
            let line = Rect { x: x1.min(x2), y: y1.min(y2), w: (x1 - x2).abs(), h: (y1 - y2).abs() };
            let paper = Rect { x: 0, y: 0, w: scene.width, h: scene.height };
            if !within(&line, &paper) {
                return Err(format!("{:?} leaves the paper", wire.points));
            }
            for (node, placed) in graph.nodes.iter().zip(&scene.boxes) {
                let Rect { x, y, w, h } = placed.rect;
                let core = Rect { x: x + 1, y: y + 1, w: w - 2, h: h - 2 };
                let crosses = !node.kind.is_container() && line_meets(&line, &core);
                let words = placed.texts.iter().any(|text| line_meets(&line, &area(text)));
                if crosses || words {
                    return Err(format!("{:?} crosses {}", wire.points, node.id));
                }
            }
        }
    }
    Ok(())
}

fn within(inner: &Rect, outer: &Rect) -> bool {
    outer.x <= inner.x
        && outer.y <= inner.y
        && inner.right() <= outer.right()
        && inner.bottom() <= outer.bottom()
}

fn meet(a: &Rect, b: &Rect) -> bool {
    a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom()
}

/// As above, for a line without width.
fn line_meets(line: &Rect, b: &Rect) -> bool {
    line.x < b.right() && b.x < line.x + line.w.max(1) && line.y < b.bottom() && b.y < line.y + line.h.max(1)
}

/// Where a text is: from the height of its letters to what hangs below the line.
fn area(text: &Text) -> Rect {
    Rect { x: text.x, y: text.y - 9, w: text.width(), h: 12 }
}

/// The lab with a path on it.
fn asked(model: &Model, [from, to, traffic]: [&str; 3]) -> Graph {
    let (protocol, port) = traffic.split_once('/').unwrap();
    let request = ExplainRequest::new(from, to, protocol, Some(port.parse().unwrap()));
    let lowered = lower(model, &mut IdRegistry::default(), Generation(0));
    let asked =
        explain::resolve(&lowered.index, &request).unwrap_or_else(|error| panic!("{}", error.message));
    let explanation = explain::answer(&lowered.index, &lowered.tables, &asked);
    let mut graph = Graph::of(model);
    graph.path = Some(path(&graph, &explanation));
    graph
}

fn configs_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"))
}

fn configs() -> Vec<PathBuf> {
    let files = fs::read_dir(configs_dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Model {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.file_name().unwrap().to_string_lossy();
    Model::read(&name, &text).unwrap_or_else(|errors| panic!("{errors}")).0
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/graph/golden").join(name)
}

fn compare(name: &str, text: &str, wrong: &mut Vec<String>) {
    let path = golden(name);
    if std::env::var("GOLDEN").is_ok_and(|how| how == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    } else if !fs::read_to_string(&path).is_ok_and(|golden| golden == text) {
        wrong.push(name.to_owned());
    }
}
