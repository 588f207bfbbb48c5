//! `localvpc lint`: what is legal and wrong.
//!
//! Exit codes: 0 nothing found, 1 errors, 2 the file could not be looked at, 3 warnings only.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Failure, Format, Global, file, output};
use crate::config::diagnostic::{Diagnostic, position};
use crate::config::{Severity, parse};
use crate::lint::catalog::LINTS;
use crate::lint::{self, Report};

/// Find what is legal in a file and wrong all the same
///
/// Gateways without a way out, rules that never match, replies that a network ACL discards, databases open to everyone,
/// what nobody uses. Each finding has its line, the reason, and what to do. `# lint: allow ID` at the end of its line, or
/// on the line above, leaves it out. Sends nothing, and needs no root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing found, 1 errors, 2 the file could not be looked at, 3 warnings only.

Examples:
  localvpc lint two-tier.yaml
  localvpc lint --list                              all checks
  localvpc lint two-tier.yaml -o json | jq -r '.findings[].id'
  localvpc lint two-tier.yaml --sarif > lint.sarif  for code scanning and editors")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab, else the running lab's]
    file: Option<PathBuf>,
    /// Show all checks instead
    #[arg(long, conflicts_with_all = ["file", "sarif"])]
    list: bool,
    /// Print SARIF 2.1.0
    #[arg(long)]
    sarif: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.list {
        list(global)?;
        return Ok(ExitCode::SUCCESS);
    }
    let document = file::read_or_running(args.file.as_deref(), global)?;
    let path = document.path.display().to_string();
    let report =
        parse(&path, &document.text).and_then(|document| lint::check(&document)).map_err(|mut errors| {
            errors.retain(Severity::Error);
            Failure::Config(errors.error_view())
        })?;
    match (args.sarif, global.output) {
        (true, _) => output::print_json(&sarif(&report))?,
        (false, Format::Json) => output::print_json(&json(&report))?,
        (false, Format::Table) => output::print(&text(&path, &report))?,
    }
    Ok(ExitCode::from(match report.worst() {
        None => 0,
        Some(Severity::Error) => 1,
        Some(_) => 3,
    }))
}

fn list(global: &Global) -> Result<(), Failure> {
    if global.output == Format::Json {
        let all: Vec<Value> = LINTS
            .iter()
            .map(|it| {
                json!({ "id": it.id, "severity": it.severity.to_string(), "summary": it.summary, "reason": it.reason })
            })
            .collect();
        return output::print_json(&all);
    }
    let mut table = output::table(&["CHECK", "SEVERITY", "FINDS"]);
    for it in LINTS {
        table.add_row([it.id, &it.severity.to_string(), it.summary]);
    }
    output::print(&output::lines(&table, ""))
}

fn text(path: &str, report: &Report) -> String {
    let of = |severity| report.findings.list().iter().filter(|one| one.severity == severity).count() as u64;
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let allowed = match report.allowed {
        0 => String::new(),
        allowed => format!(" ({} allowed by the file)", output::count(allowed as u64, "finding")),
    };
    let sum = match (errors, warnings) {
        (0, 0) => "nothing found".to_owned(),
        (errors, 0) => output::count(errors, "error"),
        (0, warnings) => output::count(warnings, "warning"),
        (errors, warnings) => {
            format!("{}, {}", output::count(errors, "error"), output::count(warnings, "warning"))
        }
    };
    let mut text = report.findings.render();
    if !text.is_empty() {
        text += "\n\n";
    }
    text + &format!("{path}: {sum}{allowed}\n")
}

fn json(report: &Report) -> Value {
    let source = report.findings.source();
    let finding = |one: &Diagnostic| {
        json!({
            "id": one.id,
            "severity": one.severity.to_string(),
            "message": one.message,
            "position": position(source, one.span),
            "width": one.span.width,
            "related": one.related.as_ref().map(|(span, note)| json!({ "note": note, "position": position(source, *span) })),
            "reason": one.reason,
            "help": one.help,
        })
    };
    json!({
        "lab": report.lab,
        "file": source.path,
        "findings": report.findings.list().iter().map(finding).collect::<Vec<_>>(),
        "allowed": report.allowed,
    })
}

fn sarif(report: &Report) -> Value {
    let source = report.findings.source();
    let rule = |it: &&lint::catalog::Lint| {
        json!({
            "id": it.id,
            "shortDescription": { "text": it.summary },
            "fullDescription": { "text": it.reason },
            "defaultConfiguration": { "level": it.severity.to_string() },
        })
    };
    let result = |one: &Diagnostic| {
        let help = one.help.as_deref().unwrap_or_default();
        json!({
            "ruleId": one.id,
            "ruleIndex": LINTS.iter().position(|it| Some(it.id) == one.id),
            "level": one.severity.to_string(),
            "message": { "text": format!("{}: {help}", one.message) },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": source.path },
                "region": {
                    "startLine": one.span.line,
                    "startColumn": one.span.column,
                    "endColumn": one.span.column + one.span.width.max(1),
                },
            } }],
        })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "localvpc lint",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": LINTS.iter().map(rule).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": report.findings.list().iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_names_what_it_rests_on() {
        for it in LINTS {
            assert_eq!(lint::catalog::lint(it.id), Some(*it));
            assert!(!it.reason.ends_with('.') && !it.summary.ends_with('.'), "{}", it.id);
            assert!(it.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", it.id);
        }
    }
}
