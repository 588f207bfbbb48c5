//! Errors and warnings that point at a line of the file.
//!
//! A [`Diagnostics`] collects everything that is wrong with one file, so that one run
//! shows all of it, and renders it the way rustc does.

use std::fmt::Write as _;
use std::sync::Arc;

use super::allow::{Allowance, allowances};
use crate::view;

/// Where a value stands in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters it takes on that line; 0 where nothing stands.
    pub width: u32,
}

/// A file with its content.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path as the user gave it.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Whether a diagnostic stops what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is done.
    Error,
    /// It is done, and will probably not do what was meant.
    Warning,
    /// It is done as it should be; there is something to know about it.
    Note,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops what was asked for.
    pub severity: Severity,
    /// Name of the check that found it, as `# lint: allow` takes it; errors of the file itself have none.
    pub id: Option<&'static str>,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Another place that has to do with it, and what is there.
    pub related: Option<(Span, String)>,
    /// The fact that makes it wrong: a sentence.
    pub reason: Option<&'static str>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where else the same is wrong.
    pub also: Vec<Span>,
    /// The key that was probably meant by an unknown one.
    pub meant: Option<&'static str>,
}

impl Diagnostic {
    /// Says which check found it.
    pub fn id(&mut self, id: &'static str) -> &mut Self {
        self.id = Some(id);
        self
    }

    /// Says which key was probably meant: what is missing because of that is not worth an error of its own.
    pub fn meant(&mut self, key: &'static str) -> &mut Self {
        self.meant = Some(key);
        self
    }

    /// Adds what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that has to do with it.
    pub fn related(&mut self, span: Span, note: impl Into<String>) -> &mut Self {
        self.related = Some((span, note.into()));
        self
    }
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    source: Arc<SourceFile>,
    list: Vec<Diagnostic>,
    /// Allowances of the file that something made use of.
    used: Vec<Allowance>,
}

impl Diagnostics {
    /// Nothing wrong so far with `source`.
    pub fn new(source: Arc<SourceFile>) -> Self {
        Self { source, list: Vec::new(), used: Vec::new() }
    }

    /// Notes an error; the reference returned takes help and related places.
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, span, message.into())
    }

    /// Notes what a check found, as severe as the check says.
    pub fn found(
        &mut self,
        severity: Severity,
        id: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(severity, span, message.into()).id(id)
    }

    /// Notes an error that may be the same in many places: the first is shown, the others are counted.
    pub fn error_once(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.once(Severity::Error, span, message.into())
    }

    /// Notes a warning; the same one in several places is shown once.
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.once(Severity::Warning, span, message.into())
    }

    /// Notes something to know about the whole file.
    pub fn note(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.once(Severity::Note, Span::default(), message.into())
    }

    /// Whether an unknown key was noted that probably means `key`.
    pub fn has_slip(&self, key: &str) -> bool {
        self.list.iter().any(|one| one.meant == Some(key))
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Diagnostics) {
        self.list.extend(other.list);
        self.used.extend(other.used);
    }

    /// Everything noted so far.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any of it is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|one| one.severity == Severity::Error)
    }

    /// Leaves out what the file allows (`# lint: allow ID` on its line or above it).
    pub fn leave_out_allowed(&mut self) {
        let allowances = allowances(&self.source.text);
        let mut used = Vec::new();
        self.list.retain_mut(|one| {
            let Some(id) = one.id else { return true };
            let mut places: Vec<Span> = std::iter::once(one.span).chain(one.also.drain(..)).collect();
            places.retain(|place| {
                let allowance = allowances.iter().find(|it| it.line == place.line && it.id == id);
                used.extend(allowance.cloned());
                allowance.is_none()
            });
            let mut left = places.into_iter();
            let Some(first) = left.next() else { return false };
            one.span = first;
            one.also = left.collect();
            true
        });
        self.used.extend(used);
    }

    /// The allowances that [`Self::leave_out_allowed`] found a use for.
    pub fn used(&self) -> &[Allowance] {
        &self.used
    }

    /// Everything noted so far, to change it.
    pub fn list_mut(&mut self) -> &mut Vec<Diagnostic> {
        &mut self.list
    }

    /// Keeps those of one severity.
    pub fn retain(&mut self, severity: Severity) {
        self.list.retain(|one| one.severity == severity);
    }

    /// In the order of the file.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|one| (one.span.line, one.span.column));
    }

    /// The file it is about.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// One rendered text for each, without trailing newline.
    pub fn rendered(&self) -> Vec<String> {
        self.list.iter().map(|one| self.render_one(one)).collect()
    }

    /// All of it for a person, without trailing newline.
    pub fn render(&self) -> String {
        self.rendered().join("\n\n")
    }

    /// All of it, and the assurance that nothing was changed: what `up` prints for a broken file.
    pub fn refusal(&self) -> String {
        let errors = self.list.iter().filter(|one| one.severity == Severity::Error).count();
        match (errors, self.list.last()) {
            (0 | 1, Some(Diagnostic { help: Some(_), .. })) => {
                format!("{} Nothing was changed.", self.render())
            }
            (0 | 1, _) => format!("{}\nNothing was changed.", self.render()),
            (errors, _) => format!("{}\n\n{errors} errors. Nothing was changed.", self.render()),
        }
    }

    /// The same for programs.
    pub fn error_view(&self) -> view::ErrorView {
        view::ErrorView {
            kind: "invalid_config".into(),
            message: self.refusal(),
            positions: self
                .list
                .iter()
                .filter(|one| one.severity == Severity::Error)
                .map(|one| position(&self.source, one.span))
                .collect(),
        }
    }

    fn push(&mut self, severity: Severity, span: Span, message: String) -> &mut Diagnostic {
        self.list.push(Diagnostic {
            severity,
            id: None,
            message,
            span,
            related: None,
            reason: None,
            help: None,
            also: Vec::new(),
            meant: None,
        });
        // Just pushed.
        self.list.last_mut().unwrap()
    }

    fn once(&mut self, severity: Severity, span: Span, message: String) -> &mut Diagnostic {
        match self.list.iter().position(|one| one.severity == severity && one.message == message) {
            Some(at) => {
                let one = &mut self.list[at];
                if one.span != span {
                    one.also.push(span);
                }
                one
            }
            None => self.push(severity, span, message),
        }
    }

    fn render_one(&self, one: &Diagnostic) -> String {
        let id = one.id.map_or_else(String::new, |id| format!("[{id}]"));
        let gutter = [Some(one.span.line), one.related.as_ref().map(|(span, _)| span.line)]
            .into_iter()
            .flatten()
            .max()
            .map_or(1, |line| line.to_string().len());
        let mut out = format!("{}{id}: {}", one.severity, one.message);
        if one.span.line > 0 {
            self.snippet(&mut out, one.span, gutter);
        }
        if let Some((span, note)) = &one.related {
            let _ = write!(out, "\nnote: {note}");
            self.snippet(&mut out, *span, gutter);
        }
        match one.also.len() {
            0 => {}
            1 => out += "\nnote: the same in one more place",
            more => {
                let _ = write!(out, "\nnote: the same in {more} more places");
            }
        }
        if let Some(reason) = one.reason {
            let _ = write!(out, "\nnote: {reason}");
        }
        if let Some(help) = &one.help {
            let _ = write!(out, "\nhelp: {help}");
        }
        out
    }

    fn snippet(&self, out: &mut String, span: Span, gutter: usize) {
        let line = self.source.text.lines().nth(span.line as usize - 1).unwrap_or_default();
        let (shown, column) = excerpt(line, span);
        let _ = write!(
            out,
            "\n{:gutter$}--> {}:{}:{}\n{:gutter$} |\n{:gutter$} | {shown}\n{:gutter$} | {:column$}{}",
            "",
            self.source.path,
            span.line,
            span.column,
            "",
            span.line,
            "",
            "",
            "^".repeat(span.width.clamp(1, LONGEST_LINE as u32) as usize),
        );
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.refusal())
    }
}

impl std::error::Error for Diagnostics {}

/// A place for outputs.
pub fn position(source: &SourceFile, span: Span) -> view::Position {
    view::Position { file: source.path.clone(), line: span.line, column: span.column }
}

/// The candidate that is nearest to `name` and near enough to be a slip of the pen.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= name.len().max(candidate.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Names for a sentence: `` `a`, `b` and `c` ``.
pub fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

/// Longest piece of a line that is shown, in characters.
const LONGEST_LINE: usize = 100;

/// The piece of `line` to show and the offset of the span in it.
fn excerpt(line: &str, span: Span) -> (String, usize) {
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = (span.column as usize).saturating_sub(1).min(characters.len());
    let end = column + span.width as usize;
    if characters.len() <= LONGEST_LINE {
        return (characters.into_iter().collect(), column);
    }
    if end < LONGEST_LINE {
        return (characters[..LONGEST_LINE - 1].iter().chain(&['…']).collect(), column);
    }
    let start = column.saturating_sub(LONGEST_LINE / 2);
    let stop = (start + LONGEST_LINE - 2).min(characters.len());
    let tail: &[char] = if stop < characters.len() { &['…'] } else { &[] };
    (['…'].iter().chain(&characters[start..stop]).chain(tail).collect(), column - start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_like_rustc() {
        let text = "lab: x\nvpcs: { main: { cidr: 10.0.0.0/8 } }\n";
        let mut all = Diagnostics::new(Arc::new(SourceFile { path: "x.yaml".into(), text: text.into() }));
        all.error(Span { line: 2, column: 23, width: 10 }, "too large").help("at most /16.");
        assert_eq!(
            all.refusal(),
            "error: too large\n --> x.yaml:2:23\n  |\n2 | vpcs: { main: { cidr: 10.0.0.0/8 } }\n  |                       ^^^^^^^^^^\n\
             help: at most /16. Nothing was changed."
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_span() {
        let line = "x".repeat(300);
        let (shown, column) = excerpt(&line, Span { line: 1, column: 200, width: 3 });
        assert!(shown.chars().count() <= LONGEST_LINE && shown.starts_with('…') && shown.ends_with('…'));
        assert!(column < LONGEST_LINE);
    }

    #[test]
    fn nearest_takes_slips_and_leaves_strangers() {
        assert_eq!(nearest("nat-b", ["igw", "nat-a"]), Some("nat-a"));
        assert_eq!(nearest("inbuond", ["inbound", "outbound"]), Some("inbound"));
        assert_eq!(nearest("frontend", ["igw", "nat-a"]), None);
    }
}
