//! Who reaches whom as a picture: a square for each pair, senders down the side, receivers along the top.
//!
//! Names along the top are written upwards where they are wider than what stands below them, so that a lab of twenty instances
//! still fits a screen.

use std::fmt::Write;

use super::scene::text_width;
use super::svg::escaped;
use crate::analysis::matrix::{Matrix, Reach};

/// Sizes, in pixels.
const PAD: i32 = 6;
const ROW: i32 = 28;
const TITLE: i32 = 32;
const LINE: i32 = 20;
const SQUARE: i32 = 12;
const MARGIN: i32 = 12;

/// Longest text in a square, in characters.
const LONGEST: usize = 28;

/// What a colour means.
const LEGEND: [(Reach, &str); 4] = [
    (Reach::All, "all of it"),
    (Reach::Some, "some of it"),
    (Reach::Nothing, "nothing"),
    (Reach::Unknown, "an instance forwards it: not known"),
];

impl Matrix {
    /// The picture, as SVG.
    pub fn svg(&self) -> String {
        let plan = Plan::of(self);
        let mut out = String::new();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
             <title>{}</title>\n{STYLE}<rect class=\"paper\" width=\"{w}\" height=\"{h}\" rx=\"6\"/>",
            escaped(&plan.title),
            w = plan.width,
            h = plan.height
        );
        write_text(&mut out, "name", MARGIN, MARGIN + 12, &plan.title);
        self.names(&plan, &mut out);
        self.squares(&plan, &mut out);
        self.legend(&plan, &mut out);
        out + "</svg>\n"
    }

    fn names(&self, plan: &Plan, out: &mut String) {
        for (name, (x, width)) in self.ends.iter().zip(&plan.columns) {
            let bottom = plan.top - 8;
            match plan.names {
                Names::Across => write_text(out, "name", x + PAD, bottom, name),
                Names::Upwards => {
                    let _ = writeln!(
                        out,
                        "<text class=\"name\" transform=\"translate({} {bottom}) rotate(-90)\">{}</text>",
                        x + width / 2 + 4,
                        escaped(name)
                    );
                }
            }
        }
        for (at, name) in self.ends.iter().enumerate() {
            write_text(out, "name", MARGIN, plan.row(at) + 18, name);
        }
    }

    fn squares(&self, plan: &Plan, out: &mut String) {
        for (at, (name, row)) in self.ends.iter().zip(&self.rows).enumerate() {
            let y = plan.row(at);
            for (to, (cell, (x, width))) in self.ends.iter().zip(row.iter().zip(&plan.columns)) {
                let told = cell.codes.first().map_or(cell.text(), String::as_str);
                let _ = writeln!(
                    out,
                    "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"3\"><title>{} → {}: {}</title></rect>",
                    class(cell.reach),
                    width - 2,
                    ROW - 2,
                    escaped(name),
                    escaped(to),
                    escaped(told)
                );
                let text = shortened(cell.text());
                if !text.is_empty() {
                    write_text(out, "cell", x + PAD, y + 18, &text);
                }
            }
        }
    }

    fn legend(&self, plan: &Plan, out: &mut String) {
        for (at, (reach, words)) in plan.legend.iter().enumerate() {
            let y = plan.legend_y + LINE * at as i32;
            if let Some(reach) = reach {
                let _ = writeln!(
                    out,
                    "<rect class=\"{}\" x=\"{MARGIN}\" y=\"{}\" width=\"{SQUARE}\" height=\"{SQUARE}\" rx=\"3\"/>",
                    class(*reach),
                    y - 10
                );
            } else {
                write_text(out, "cell", MARGIN + 2, y, "*");
            }
            write_text(out, "cell", MARGIN + SQUARE + PAD, y, words);
        }
    }
}

/// Where everything stands.
struct Plan {
    title: String,
    names: Names,
    /// Left side and width of each.
    columns: Vec<(i32, i32)>,
    /// Where the first row begins.
    top: i32,
    /// The base line of the legend's first line.
    legend_y: i32,
    /// Only what occurs; without a colour, what the star means.
    legend: Vec<(Option<Reach>, &'static str)>,
    width: i32,
    height: i32,
}

/// How names are written along the top.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Across,
    Upwards,
}

impl Plan {
    fn of(matrix: &Matrix) -> Self {
        let title = format!("who reaches whom: {} (from a row to a column)", matrix.asked);
        let wide = |text: &str| text_width(text) + 2 * PAD;
        let contents: Vec<i32> = (0..matrix.ends.len())
            .map(|at| {
                let cells = matrix.rows.iter().map(|row| wide(&shortened(row[at].text())));
                cells.max().unwrap_or(0).max(ROW)
            })
            .collect();
        let named: Vec<i32> =
            contents.iter().zip(&matrix.ends).map(|(it, name)| (*it).max(wide(name))).collect();
        let total = |widths: &[i32]| widths.iter().sum::<i32>();
        // Names that are read without turning one's head are worth some width.
        let names = match total(&named) > 700 && total(&named) > total(&contents) {
            true => Names::Upwards,
            false => Names::Across,
        };
        let longest = matrix.ends.iter().map(|name| text_width(name)).max().unwrap_or(0);
        let mut x = MARGIN + longest + PAD;
        let widths = if names == Names::Upwards { contents } else { named };
        let columns: Vec<(i32, i32)> = widths
            .into_iter()
            .map(|width| {
                x += width;
                (x - width, width)
            })
            .collect();
        let occurs = |reach: Reach| matrix.rows.iter().flatten().any(|cell| cell.reach == reach);
        let mut legend: Vec<(Option<Reach>, &str)> = LEGEND
            .iter()
            .filter(|(reach, _)| occurs(*reach))
            .map(|(reach, words)| (Some(*reach), *words))
            .collect();
        if matrix.rows.iter().flatten().any(|cell| cell.open.contains('*')) {
            legend.push((None, "from some addresses or source ports only"));
        }
        let words = legend.iter().map(|(_, words)| SQUARE + PAD + text_width(words));
        let right =
            words.chain([text_width(&title)]).map(|width| MARGIN + width).chain([x]).max().unwrap_or(x);
        let top = MARGIN + TITLE + if names == Names::Upwards { longest + 8 } else { LINE };
        let legend_y = top + ROW * matrix.ends.len() as i32 + 24;
        let height = legend_y + LINE * (legend.len() as i32 - 1).max(0) + MARGIN;
        Self { title, names, columns, top, legend_y, legend, width: right + MARGIN, height }
    }

    /// Upper side of a row.
    fn row(&self, at: usize) -> i32 {
        self.top + ROW * at as i32
    }
}

const STYLE: &str = "<style>
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
.name { font-weight: bold; fill: #16191f; } .cell { fill: #1f2933; }
.paper { fill: #ffffff; }
.same { fill: #eef1f4; } .all { fill: #b7e4c7; } .some { fill: #ffe8a3; } .nothing { fill: #f8c9c4; } .unknown { fill: #d6d9f5; }
@media (prefers-color-scheme: dark) {
.name { fill: #f2f3f3; } .cell { fill: #e6e9ec; } .paper { fill: #0f141a; }
.same { fill: #1b232d; } .all { fill: #1d5c37; } .some { fill: #6b5310; } .nothing { fill: #6e2b24; } .unknown { fill: #3b3f78; }
}
</style>
";

const fn class(reach: Reach) -> &'static str {
    match reach {
        Reach::Same => "same",
        Reach::All => "all",
        Reach::Some => "some",
        Reach::Nothing => "nothing",
        Reach::Unknown => "unknown",
    }
}

fn shortened(text: &str) -> String {
    match text.chars().count() {
        0..=LONGEST => text.to_owned(),
        _ => text.chars().take(LONGEST - 1).chain(['…']).collect(),
    }
}

fn write_text(out: &mut String, class: &str, x: i32, y: i32, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}
