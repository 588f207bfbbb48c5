//! `localvpc check`: does the design do what its file expects.
//!
//! Exit codes: 0 all expectations hold, 1 some fail, 2 error, 3 warnings only.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use localvpc_api::Generation;
use localvpc_api::trace::Protocol;
use owo_colors::OwoColorize;
use serde::Serialize;

use super::client::Client;
use super::file::{self, Document};
use super::{Failure, Format, Global, is_root, lab, output, probing};
use crate::check::{Checked, Verdict, judge};
use crate::explain;
use crate::host::RunDir;
use crate::lower::{IdRegistry, Lowered, lower};
use crate::model::{Expectation, Model};
use crate::view::{ApplyRequest, CountersView, ExplainRequest, Explanation, Plan, StatusView};

/// Check what a file expects: `expect:` lines are a design's tests
///
/// Each line is analysed; where the lab of the file runs, each is also proved by a real packet, sent from the sender's
/// namespace and looked for in the receiver's. `because` is an explanation code, as `localvpc explain` shows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 all expectations hold, 1 some fail, 2 error, 3 warnings only.

Examples:
  localvpc check two-tier.yaml                  analysis, and packets where the lab runs
  localvpc check two-tier.yaml --offline        analysis only: no lab, no root
  localvpc check two-tier.yaml --junit check.xml
  localvpc check -o json | jq '.results[] | select(.verdict != \"holds\")'")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab, else the running lab's]
    file: Option<PathBuf>,
    /// Send nothing, even where the lab runs
    #[arg(long)]
    offline: bool,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let document = match args.offline {
        true => file::read(args.file.as_deref())?,
        false => file::read_or_running(args.file.as_deref(), global)?,
    };
    let (model, _) = document.validate()?;
    let mut warnings = Vec::new();
    let running = if args.offline { None } else { running(&document, &model, &mut warnings)? };
    if model.expectations.is_empty() {
        warnings.push("the file expects nothing: add `expect:` lines".into());
    }
    let explanations = match &running {
        Some(running) => running.explain(&model.expectations)?,
        None => offline(&model)?,
    };
    let results: Vec<Checked> = model
        .expectations
        .iter()
        .zip(&explanations)
        .map(|(expected, explanation)| judge(expected, explanation))
        .collect();
    let report = Report {
        file: document.path.display().to_string(),
        lab: model.lab.clone(),
        mode: if running.is_some() { Mode::Probe } else { Mode::Analysis },
        took_ms: began.elapsed().as_millis() as u64,
        results,
        warnings,
    };
    if let Some(path) = &args.junit {
        write_junit(path, &report)?;
    }
    match global.output {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&report.render())?,
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// What was checked, and how it came out.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    lab: String,
    mode: Mode,
    took_ms: u64,
    results: Vec<Checked>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// By what the file says.
    Analysis,
    /// By that and by real packets.
    Probe,
}

/// The lab of the file, where it runs as the file has it.
struct Running {
    client: Client,
    run_dir: RunDir,
    status: StatusView,
}

/// The lab that the file describes, if it runs, is the same, and may be probed; why not, as a warning, where it runs.
fn running(
    document: &Document,
    model: &Model,
    warnings: &mut Vec<String>,
) -> Result<Option<Running>, Failure> {
    let run_dir = RunDir::of(&model.lab)?;
    let only = "the file is analysed, and no packet is sent (`--offline` asks for that)";
    match lab::daemon(&run_dir) {
        lab::Daemon::Absent => return Ok(None),
        lab::Daemon::NoAccess => {
            warnings.push(format!("lab {} runs, but only root may probe it: {only}", model.lab));
            return Ok(None);
        }
        lab::Daemon::Running if !is_root() => {
            warnings.push(format!("only root may send packets in lab {}: {only}", model.lab));
            return Ok(None);
        }
        lab::Daemon::Running => {}
    }
    let client = Client::new(run_dir.clone())?;
    let request = ApplyRequest::new(document.path.display().to_string(), document.text.clone());
    let plan: Plan = client.tell("/v1/plan", &request)?;
    if !plan.changes.is_empty() {
        warnings.push(format!(
            "lab {} runs another version of the file ({} to apply with `localvpc up`): {only}",
            model.lab,
            output::count(plan.changes.len() as u64, "change")
        ));
        return Ok(None);
    }
    let status = client.ask("/v1/status")?;
    Ok(Some(Running { client, run_dir, status }))
}

impl Running {
    /// Explains every expectation and sends its packet: all at once, and one that surprises again alone, so that the
    /// counters tell where it was discarded.
    fn explain(&self, expectations: &[Expectation]) -> Result<Vec<Explanation>, Failure> {
        let mut explanations = Vec::new();
        for expected in expectations {
            explanations.push(self.client.tell::<Explanation>("/v1/explain", &request(expected))?);
        }
        let bar = ProgressBar::new(explanations.len() as u64);
        let next = AtomicUsize::new(0);
        let probes = Mutex::new(vec![None; explanations.len()]);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(explanations.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(explanation) = explanations.get(at) else { return };
                        let probe = probing::probe(&self.run_dir, &self.status, explanation);
                        // Nobody panics with it in hand.
                        probes.lock().unwrap()[at] = Some(probe.map_err(|failure| failure.message()));
                        bar.inc(1);
                    }
                });
            }
        });
        bar.finish_and_clear();
        let probes = probes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((explanation, probe), expected) in explanations.iter_mut().zip(probes).zip(expectations) {
            match probe {
                Some(Ok(probe)) => explanation.probe = probe,
                Some(Err(message)) => explanation.notes.push(message),
                None => {}
            }
            if judge(expected, explanation).verdict == Verdict::Fails && explanation.probe.is_some() {
                let before: CountersView = self.client.ask("/v1/counters")?;
                explanation.probe = probing::probe(&self.run_dir, &self.status, explanation)?;
                let after: CountersView = self.client.ask("/v1/counters")?;
                if let Some(probe) = &mut explanation.probe {
                    probe.discarded = probing::discarded(&before, &after);
                }
            }
        }
        Ok(explanations)
    }
}

/// Probes at a time: most of their time is waiting.
const AT_ONCE: usize = 8;

/// Explains every expectation from the file alone.
fn offline(model: &Model) -> Result<Vec<Explanation>, Failure> {
    let Lowered { tables, index, .. } = lower(model, &mut IdRegistry::default(), Generation(0));
    let explain = |expected: &Expectation| {
        let asked = explain::resolve(&index, &request(expected)).map_err(|mut error| {
            error.message = format!("{}: {}", model.source(Some(expected.place)), error.message);
            Failure::Daemon(error)
        })?;
        Ok(explain::answer(&index, &tables, &asked))
    };
    model.expectations.iter().map(explain).collect()
}

fn request(expected: &Expectation) -> ExplainRequest {
    ExplainRequest {
        from: expected.from.clone(),
        to: expected.to.clone(),
        protocol: match expected.protocol {
            // `all`: one protocol stands for them.
            Protocol(0) => Protocol::TCP.to_string(),
            protocol => protocol.to_string(),
        },
        port: expected.port,
        source_port: expected.source_ports.map(|ports| ports.from),
        source_port_to: expected.source_ports.map(|ports| ports.to),
        source_address: None,
    }
}

impl Report {
    fn count(&self, verdict: Verdict) -> usize {
        self.results.iter().filter(|checked| checked.verdict == verdict).count()
    }

    fn exit_code(&self) -> u8 {
        if self.count(Verdict::Fails) > 0 {
            1
        } else if self.count(Verdict::Unknown) > 0 || !self.warnings.is_empty() {
            3
        } else {
            0
        }
    }

    fn render(&self) -> String {
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
            let proof = match &checked.probe {
                Some(probe) => short(probe),
                None => String::new(),
            };
            let line = format!(
                "{mark} {:<questions$}  {:<wishes$}  {name}:{}  {proof}",
                checked.question, checked.expected, checked.line
            );
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
            if let (false, Some(probe)) = (checked.verdict == Verdict::Holds, &checked.probe) {
                let _ = writeln!(text, "       {}", probing::line(probe));
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

/// What the packet did, in a few words.
fn short(probe: &crate::view::ProbeView) -> String {
    match (&probe.answer, probe.arrived) {
        (Some(answer), _) => format!("{answer} came back"),
        (None, Some(true)) => "arrived, no answer".into(),
        (None, Some(false)) => "did not arrive".into(),
        (None, None) => "nothing came back".into(),
    }
}

fn write_junit(path: &Path, report: &Report) -> Result<(), Failure> {
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
