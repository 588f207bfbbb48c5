//! Who reaches whom: every pair of ends, by what gets through.

use std::fmt::Write;

use localvpc_api::EniId;
use localvpc_api::tables::{PortRange, Tables};
use localvpc_api::trace::Protocol;
use serde::Serialize;

use super::*;
use crate::lower::Index;

/// What of which protocol is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The protocol.
    pub protocol: Protocol,
    /// Destination ports of TCP and UDP.
    pub ports: Ranges,
}

impl Traffic {
    /// Every port of TCP and UDP, and ping.
    pub fn everything() -> Vec<Self> {
        let all = || Ranges::ports(PortRange { from: 1, to: u16::MAX });
        vec![
            Self { protocol: Protocol::TCP, ports: all() },
            Self { protocol: Protocol::UDP, ports: all() },
            Self { protocol: Protocol::ICMP, ports: Ranges::one(0) },
        ]
    }
}

/// Who reaches whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matrix {
    /// The ends: instances, and `internet`.
    pub ends: Vec<String>,
    /// What was asked about: `tcp/443`, or `everything`.
    pub asked: String,
    /// One row for each sender, with one cell for each receiver.
    pub rows: Vec<Vec<Cell>>,
}

/// What gets from one end to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// How much of it.
    pub reach: Reach,
    /// What gets through, in words: `tcp 80, 443`.
    pub open: String,
    /// The codes of what is in the way of the rest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
}

/// How much gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It is the same end.
    Same,
    /// All that was asked about.
    All,
    /// Some of it.
    Some,
    /// Nothing.
    Nothing,
    /// Somebody forwards it, and what becomes of it is not known.
    Unknown,
}

/// The matrix of a lab; what is asked about every pair is `traffic`.
pub fn matrix(index: &Index, tables: &Tables, traffic: &[Traffic]) -> Matrix {
    let fabric = Fabric::new(tables);
    let model = index.model();
    let mut ends: Vec<(String, Option<EniId>)> = model
        .instances()
        .map(|(_, instance)| (instance.name.clone(), index.eni_of(&instance.name)))
        .collect();
    ends.extend(model.has_internet().then(|| ("internet".to_owned(), None)));
    let cell = |from: Option<EniId>, to: Option<EniId>| {
        if from == to {
            return Cell { reach: Reach::Same, open: String::new(), codes: Vec::new() };
        }
        let link = |eni: Option<EniId>| eni.and_then(|eni| index.link_of(eni));
        if link(from).is_some() && link(from) == link(to) {
            // One namespace: its kernel delivers whatever it is.
            return Cell { reach: Reach::All, open: "all".into(), codes: Vec::new() };
        }
        between(&fabric, from, to, traffic)
    };
    Matrix {
        rows: ends.iter().map(|(_, from)| ends.iter().map(|(_, to)| cell(*from, *to)).collect()).collect(),
        ends: ends.into_iter().map(|(name, _)| name).collect(),
        asked: match traffic {
            [Traffic { protocol: Protocol::ICMP, .. }] => "icmp".into(),
            [one] => format!("{}/{}", one.protocol, one.ports),
            _ => "everything".into(),
        },
    }
}

fn between(fabric: &Fabric<'_>, from: Option<EniId>, to: Option<EniId>, traffic: &[Traffic]) -> Cell {
    let (mut open, mut codes) = (Vec::new(), Vec::new());
    let (mut whole, mut unknown) = (true, false);
    for asked in traffic {
        let question = Question {
            from: from.map_or(Source::Internet, Source::Eni),
            source_address: None,
            to: to.map_or(Destination::Internet, Destination::Eni),
            protocol: asked.protocol,
            ports: asked.ports.clone(),
            source_ports: Ranges::of(EPHEMERAL.0, EPHEMERAL.1),
        };
        let analysis = analyse_in(fabric, &question);
        let mut best = Ranges::default();
        for case in &analysis.cases {
            unknown |= case.outcome == Outcome::Undecidable;
            if matches!(case.outcome, Outcome::Reachable | Outcome::Partial) {
                best = best.or(case.open_ports().unwrap_or(&asked.ports));
            }
        }
        // Some addresses or source ports only.
        let conditional = analysis.cases.iter().any(|case| {
            let narrowed = case.ports.iter().any(|it| it.chosen_by != Chooser::Question && it.good != it.all);
            narrowed || case.outcome == Outcome::Blocked
        });
        let mark = if conditional { "*" } else { "" };
        if !best.is_empty() {
            open.push(match asked.protocol {
                Protocol::ICMP => format!("icmp{mark}"),
                protocol if best == asked.ports && best.count() > 1 => format!("{protocol}{mark}"),
                protocol => format!("{protocol} {best}{mark}"),
            });
        }
        whole &= best == asked.ports && !conditional;
        let blockers = analysis.cases.iter().flat_map(Case::blockers).map(|it| it.code.to_string());
        for code in blockers {
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
    }
    let reach = match (open.is_empty(), whole) {
        (true, _) if unknown => Reach::Unknown,
        (true, _) => Reach::Nothing,
        (false, true) => Reach::All,
        (false, false) => Reach::Some,
    };
    let open = if reach == Reach::All && traffic.len() > 1 { "all".into() } else { open.join(" ") };
    Cell { reach, open, codes: if reach == Reach::All { Vec::new() } else { codes } }
}

impl Cell {
    /// For a table: what gets through, in few characters.
    pub fn text(&self) -> &str {
        match self.reach {
            Reach::Same => "",
            Reach::Nothing => "-",
            Reach::Unknown => "?",
            Reach::All | Reach::Some => &self.open,
        }
    }
}

impl Matrix {
    /// A line for each pair: `from,to,reach,open,codes`.
    pub fn csv(&self) -> String {
        let field = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let mut out = String::from("from,to,reach,open,codes\n");
        for (from, row) in self.ends.iter().zip(&self.rows) {
            for (to, cell) in self.ends.iter().zip(row).filter(|(_, cell)| cell.reach != Reach::Same) {
                let reach = match cell.reach {
                    Reach::Same | Reach::All => "all",
                    Reach::Some => "some",
                    Reach::Nothing => "nothing",
                    Reach::Unknown => "unknown",
                };
                // Writing to a String cannot fail.
                let _ = writeln!(
                    out,
                    "{},{},{reach},{},{}",
                    field(from),
                    field(to),
                    field(&cell.open),
                    field(&cell.codes.join(" "))
                );
            }
        }
        out
    }
}
