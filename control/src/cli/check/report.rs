//! What came out of a check: for people, and for those who read JUnit's XML.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::check::{Checked, Verdict};
use crate::cli::{Failure, output, probing};

/// What was checked, and how it came out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub file: String,
    pub lab: String,
    pub mode: Mode,
    pub took_ms: u64,
    pub results: Vec<Checked>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By what the file says.
    Analysis,
    /// By that and by real packets.
    Probe,
}

impl Report {
    fn count(&self, verdict: Verdict) -> usize {
        self.results.iter().filter(|checked| checked.verdict == verdict).count()
    }

    /// 0 all hold, 1 some fail, 3 warnings only.
    pub fn exit_code(&self) -> u8 {
        if self.count(Verdict::Fails) > 0 {
            1
        } else if self.count(Verdict::Unknown) > 0 || !self.warnings.is_empty() {
            3
        } else {
            0
        }
    }

    /// As lines for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let name = Path::new(&self.file).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let width = |of: fn(&Checked) -> &str| {
            self.results.iter().map(|checked| of(checked).chars().count()).max().unwrap_or(0)
        };
        let (questions, wishes) = (width(|it| &it.question), width(|it| &it.expected));
        for checked in &self.results {
            let mark = match checked.verdict {
                Verdict::Holds => "ok  ".green().to_string(),
                Verdict::Unknown => "?   ".yellow().to_string(),
                Verdict::Fails => "FAIL".red().bold().to_string(),
            };
            let proof = self.proof(checked);
            let line = format!(
                "{mark} {:<questions$}  {:<wishes$}  {name}:{}  {proof}",
                checked.question, checked.expected, checked.line
            );
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
            let parts = if checked.each.is_empty() { std::slice::from_ref(checked) } else { &checked.each };
            for part in parts.iter().filter(|part| part.verdict != Verdict::Holds) {
                if let Some(probe) = &part.probe {
                    let _ = writeln!(text, "       {}", probing::line(probe));
                }
            }
            for why in &checked.why {
                let _ = writeln!(text, "       {why}");
            }
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "{} {warning}", "warning:".yellow());
        }
        let how = match self.mode {
            Mode::Analysis => "by analysis",
            Mode::Probe => "by analysis and by packet",
        };
        let expectations = output::count(self.results.len() as u64, "expectation");
        let mut sum = vec![format!("{} hold", self.count(Verdict::Holds))];
        sum.extend((self.count(Verdict::Fails) > 0).then(|| format!("{} fail", self.count(Verdict::Fails))));
        sum.extend(
            (self.count(Verdict::Unknown) > 0).then(|| format!("{} undecided", self.count(Verdict::Unknown))),
        );
        let _ = writeln!(text, "{expectations} of lab {}, {how}: {}", self.lab, sum.join(", "));
        text
    }
}

impl Report {
    /// What packets did, in a few words; nothing where none was meant to be sent.
    fn proof(&self, checked: &Checked) -> String {
        if self.mode == Mode::Analysis {
            return String::new();
        }
        if checked.each.is_empty() {
            return match (&checked.probe, &checked.unsendable) {
                (Some(probe), _) => short(probe),
                (None, Some(why)) => format!("no packet: {why}"),
                (None, None) => String::new(),
            };
        }
        let mut words: Vec<String> = Vec::new();
        for part in &checked.each {
            let word = self.proof(part);
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words.retain(|word| !word.is_empty());
        words.join(", ")
    }
}

/// What the packet did, in a few words.
fn short(probe: &crate::view::ProbeView) -> String {
    match (&probe.answer, probe.arrived) {
        (Some(answer), _) => format!("{answer} came back"),
        (None, Some(true)) => "arrived, no answer".into(),
        (None, Some(false)) => "did not arrive".into(),
        (None, None) => "nothing came back".into(),
    }
}

/// Writes the report as JUnit XML.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_junit(path: &Path, report: &Report) -> Result<(), Failure> {
    std::fs::write(path, junit(report)).map_err(|source| Failure::Write { path: path.to_owned(), source })
}

/// As JUnit's XML has it: a suite for the file, a case for each expectation.
fn junit(report: &Report) -> String {
    let seconds = Duration::from_millis(report.took_ms).as_secs_f64();
    let (tests, failures) = (report.results.len(), report.count(Verdict::Fails));
    let skipped = report.count(Verdict::Unknown);
    let counts = format!(
        "tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\""
    );
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let file = xml(&report.file);
    let _ = writeln!(text, "<testsuites {counts}>\n  <testsuite name=\"{file}\" {counts}>");
    for checked in &report.results {
        let name = xml(&format!("{} is {}", checked.question, checked.expected));
        let class = xml(&format!("localvpc.{}", report.lab));
        let _ = write!(
            text,
            "    <testcase name=\"{name}\" classname=\"{class}\" file=\"{file}\" line=\"{}\"",
            checked.line
        );
        let (message, rest) = match checked.why.split_first() {
            Some((first, rest)) => (xml(first), xml(&rest.join("\n"))),
            None => Default::default(),
        };
        let _ = match checked.verdict {
            Verdict::Holds => writeln!(text, "/>"),
            Verdict::Unknown => {
                writeln!(text, ">\n      <skipped message=\"{message}\"/>\n    </testcase>")
            }
            Verdict::Fails => writeln!(
                text,
                ">\n      <failure message=\"{message}\" type=\"{}\">{rest}</failure>\n    </testcase>",
                xml(checked.codes.first().map_or("", String::as_str))
            ),
        };
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// Text for an attribute or an element; what XML 1.0 cannot say is left out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}
