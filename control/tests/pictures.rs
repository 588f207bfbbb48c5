//! What pictures look like: rendered to pixels, and compared with renderings that somebody has looked at.
//!
//! Fonts differ between machines, so pixels are of everything but words (resvg without its text feature). Words are measured instead: each
//! stays in its box and off its neighbours in every font of one width that is in use.
//!
//! `GOLDEN=write` writes the renderings anew. Look at them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::roxmltree::{Document, Node};
use resvg::usvg::{Options, Tree};

/// Pictures by name, and the words that ask for them.
const PICTURES: &[(&str, &str)] = &[
    ("two-tier", "graph configs/two-tier.yaml"),
    ("peers", "graph configs/peers.yaml"),
    ("dev-prod", "graph configs/scenarios/dev-prod.yaml"),
    ("wrong-subnet", "graph configs/scenarios/nat-in-the-wrong-subnet.yaml"),
    ("large", "graph control/src/graph/large.yaml"),
    ("path-reachable", "graph configs/two-tier.yaml --path app example tcp/443"),
    ("path-blocked", "graph configs/two-tier.yaml --path web db tcp/5432"),
    ("path-undecidable", "graph configs/scenarios/nat-instance.yaml --path app example tcp/80"),
    ("path-large", "graph control/src/graph/large.yaml --path staging-app-2 mirror tcp/443"),
    ("matrix", "explain --all --svg --offline configs/two-tier.yaml"),
    ("matrix-forwarded", "explain --all --svg --offline configs/scenarios/nat-instance.yaml"),
    ("matrix-large", "explain --all --svg --offline control/src/graph/large.yaml"),
];

#[test]
fn they_look_as_they_did() {
    let mut changed = Vec::new();
    for (name, words) in PICTURES {
        let now = rendered(&svg(words));
        let golden = directory().join(format!("{name}.png"));
        if std::env::var("GOLDEN").is_ok_and(|how| how == "write") {
            fs::create_dir_all(directory()).expect("a directory can be made");
            now.save_png(&golden).expect("a picture can be written");
            continue;
        }
        let before = Pixmap::load_png(&golden);
        if before.is_ok_and(|before| look_alike(&before, &now)) {
            continue;
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        now.save_png(&path).expect("a picture can be written");
        changed.push(format!("{name}: {} is not {}", path.display(), golden.display()));
    }
    assert!(changed.is_empty(), "look at them, then run again with GOLDEN=write: {changed:#?}");
    let kept =
        |path: &PathBuf| PICTURES.iter().any(|(name, _)| path.file_stem().is_some_and(|it| it == *name));
    let there = fs::read_dir(directory()).expect("renderings").map(|entry| entry.expect("an entry").path());
    assert_eq!(there.filter(|path| !kept(path)).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn words_stay_in_their_boxes_and_off_each_other() {
    for words in PICTURES.iter().map(|(_, words)| (*words).to_owned()).chain(scenarios()) {
        let svg = svg(&words);
        let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{words}: {error}"));
        let of = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
        // What only stands in a sign or marks a head has no words; the first one is the paper.
        let boxes: Vec<Area> = of("rect").filter_map(|node| Area::of_rect(&node)).collect();
        let texts: Vec<(Area, &str)> =
            of("text").map(|node| (Area::of_text(&node), node.text().unwrap_or(""))).collect();
        assert!(texts.len() > 3, "{words}: {texts:?}");
        for (at, (area, text)) in texts.iter().enumerate() {
            let around = boxes.iter().filter(|it| it.holds_start(area));
            let innermost = around.min_by(|a, b| a.size().total_cmp(&b.size()));
            let innermost = innermost.unwrap_or_else(|| panic!("{words}: `{text}` is beside the paper"));
            assert!(innermost.holds(area), "{words}: `{text}` {area:?} sticks out of {innermost:?}");
            for (other, their) in &texts[..at] {
                assert!(!area.meets(other), "{words}: `{text}` {area:?} is on `{their}` {other:?}");
            }
        }
    }
}

#[test]
fn what_passes_is_green_and_what_is_stopped_is_red() {
    let drawn = |name: &str, colour: [u8; 3]| {
        let (_, words) = PICTURES.iter().find(|(it, _)| *it == name).expect("a name of the list");
        let pixels = rendered(&svg(words));
        pixels.pixels().iter().filter(|it| [it.red(), it.green(), it.blue()] == colour).count()
    };
    const GREEN: [u8; 3] = [0x1d, 0x81, 0x02];
    const RED: [u8; 3] = [0xd1, 0x32, 0x12];
    const AMBER: [u8; 3] = [0xb7, 0x79, 0x1f];
    let colours = |name: &str| [GREEN, RED, AMBER].map(|colour| drawn(name, colour) > 50);
    assert_eq!(colours("two-tier"), [false, false, false]);
    assert_eq!(colours("path-reachable"), [true, false, false]);
    assert_eq!(colours("path-blocked"), [true, true, false]);
    assert_eq!(colours("path-undecidable"), [false, false, true]);
}

/// Graphviz draws what is written for it, and has nothing to remark.
#[test]
fn graphviz_draws_every_lab_and_path() {
    if Command::new("dot").arg("-V").output().is_err() {
        // Past the test runner's capture of output.
        let _ = writeln!(std::io::stderr(), "skipped: needs `dot` (graphviz)");
        return;
    }
    let mut tried = 0;
    let graphs = PICTURES.iter().map(|(_, words)| (*words).to_owned()).chain(scenarios());
    for words in graphs.filter(|words| words.starts_with("graph ")) {
        let mut dot = Command::new("dot")
            .arg("-Tsvg")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dot starts");
        let text = svg(&format!("{words} --format dot"));
        dot.stdin.take().expect("piped").write_all(text.as_bytes()).expect("dot reads");
        let done = dot.wait_with_output().expect("dot ends");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{words}: {said}\n{text}");
        assert!(String::from_utf8_lossy(&done.stdout).contains("</svg>"), "{words}");
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
}

/// Mermaid's grammar, as far as we use it: what is opened is closed, lines join what there is, and whatever people have named is in quotes.
/// (Mermaid 11 itself parses and renders all of them; it is not part of the tests because it needs a browser.)
#[test]
fn mermaid_text_keeps_to_its_grammar() {
    let graphs = PICTURES.iter().map(|(_, words)| (*words).to_owned()).chain(scenarios());
    for words in graphs.filter(|words| words.starts_with("graph ")) {
        let text = svg(&format!("{words} --format mermaid"));
        let mut lines = text.lines().map(str::trim);
        assert_eq!(lines.next(), Some("flowchart TB"));
        let (mut known, mut depth, mut links) = (BTreeSet::new(), 0, 0);
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let is_quoted = |label: &str| {
                let inner = label.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                inner.is_some_and(|inner| !inner.contains(['"', '`']))
            };
            match word {
                "end" => depth -= 1,
                "subgraph" => {
                    let (id, label) = rest.split_once('[').expect(line);
                    assert!(is_quoted(label.strip_suffix(']').expect(line)) && known.insert(id), "{line}");
                    depth += 1;
                }
                "style" | "linkStyle" => {
                    let (of, _) = rest.split_once(' ').expect(line);
                    assert!(known.contains(of) || of.parse().is_ok_and(|link: usize| link < links), "{line}");
                }
                _ if known.contains(word) => {
                    let (arrow, to) = rest.rsplit_once(' ').expect(line);
                    let (arrow, label) = arrow.split_once('|').unwrap_or((arrow, "\"\"|"));
                    assert!(["-->", "==>", "==x", "-.-"].contains(&arrow) && known.contains(to), "{line}");
                    assert!(is_quoted(label.strip_suffix('|').expect(line)), "{line}");
                    links += 1;
                }
                _ => {
                    let (id, label) = line.split_once(['[', '(']).expect(line);
                    let label = label.trim_start_matches('[').trim_end_matches([']', ')']);
                    assert!(is_quoted(label) && known.insert(id), "{line}");
                }
            }
            assert!(depth >= 0, "{line}");
        }
        assert!(depth == 0 && known.len() > 3, "{words}\n{text}");
    }
}

/// The graphs and matrices of all scenarios.
fn scenarios() -> Vec<String> {
    let files = fs::read_dir(root().join("configs/scenarios")).expect("scenarios");
    files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .flat_map(|path| {
            ["graph", "explain --all --svg --offline"].map(|verb| format!("{verb} {}", path.display()))
        })
        .collect()
}

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// Of 12-pixel letters: none of the fonts of one width in use (DejaVu, Menlo, Consolas, Courier, Liberation, SF, Cascadia) has wider ones
/// than 0.62 em, and lines are 15 apart.
const LETTER: f64 = 7.45;
const ASCENT: f64 = 9.5;
const DESCENT: f64 = 3.0;

impl Area {
    fn of_rect(node: &Node<'_, '_>) -> Option<Self> {
        let of = |name: &str| node.attribute(name).map_or(Some(0.0), |it| it.parse::<f64>().ok());
        let (left, top) = (of("x")?, of("y")?);
        Some(Self { left, top, right: left + of("width")?, bottom: top + of("height")? })
    }

    fn of_text(node: &Node<'_, '_>) -> Self {
        let number = |name: &str| node.attribute(name).map_or(0.0, |it| it.parse::<f64>().expect("a number"));
        let length = node.text().unwrap_or("").chars().count() as f64 * LETTER;
        match node.attribute("transform") {
            None => {
                let (x, y) = (number("x"), number("y"));
                Self { left: x, top: y - ASCENT, right: x + length, bottom: y + DESCENT }
            }
            Some(transform) => {
                let moved =
                    transform.strip_prefix("translate(").and_then(|it| it.strip_suffix(") rotate(-90)"));
                let (x, y) = moved.and_then(|it| it.split_once(' ')).expect("upwards");
                let (x, y) = (x.parse::<f64>().expect("a number"), y.parse::<f64>().expect("a number"));
                Self { left: x - ASCENT, top: y - length, right: x + DESCENT, bottom: y }
            }
        }
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }

    /// Whether the other's left lower corner is in it.
    fn holds_start(&self, other: &Self) -> bool {
        (self.left..self.right).contains(&other.left) && (self.top..self.bottom).contains(&other.bottom)
    }

    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && other.right <= self.right
            && other.bottom <= self.bottom
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// What `localvpc` draws.
fn svg(words: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localvpc"));
    let output = command.args(words.split(' ')).current_dir(root()).output().expect("the program starts");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("SVG is text")
}

/// Its pixels, words left out.
fn rendered(svg: &str) -> Pixmap {
    let tree = Tree::from_str(svg, &Options::default()).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).expect("a picture has a size");
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    pixels
}

/// Whether two pictures are the same but for the rounding of a few edges.
fn look_alike(before: &Pixmap, now: &Pixmap) -> bool {
    if (before.width(), before.height()) != (now.width(), now.height()) {
        return false;
    }
    let differs = |(a, b): &(&[u8], &[u8])| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > 24);
    let different = before.data().chunks(4).zip(now.data().chunks(4)).filter(differs).count();
    different <= before.pixels().len() / 20_000
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}
