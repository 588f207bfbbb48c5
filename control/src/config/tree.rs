//! YAML text to a tree of nodes that know where they stand.
//!
//! The tree keeps scalars as text: what a scalar means depends on the key it stands under
//! (`22` may be a port, a protocol or a name), so nothing is guessed here. Aliases are expanded.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span as YamlSpan};

use super::diagnostic::{Diagnostics, Span};

/// A value of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it stands; a collection is where its first line is.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar, as text without its quotes.
    Scalar {
        /// The text.
        text: String,
        /// Whether it was quoted, so that it is not a number or truth value.
        quoted: bool,
    },
    /// `[a, b]` or lines with dashes.
    List(Vec<Node>),
    /// `{a: b}` or lines with colons, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Value {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Scalar { text, .. } => format!("`{text}`"),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a map".into(),
        }
    }
}

/// Parses a file that holds one YAML document. Syntax errors end up in `errors`.
pub fn parse(errors: &mut Diagnostics) -> Option<Node> {
    let source = errors.source().clone();
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&source.text) {
        let result = event
            .map_err(|error| syntax(&error, &source.text))
            .and_then(|(event, span)| builder.take(event, span));
        if let Err(problem) = result {
            let diagnostic = errors.error(problem.span, problem.message);
            if let Some(help) = problem.help {
                diagnostic.help(help);
            }
            if let Some((span, note)) = problem.related {
                diagnostic.related(span, note);
            }
            return None;
        }
    }
    match builder.root {
        Some(root) => Some(root),
        None => {
            errors
                .error(Span { line: 1, column: 1, width: 1 }, "the file is empty")
                .help("start with `lab: NAME` and `vpcs:`.");
            None
        }
    }
}

/// Most nodes of a document, aliases expanded: far beyond any lab, far below what hurts.
const MOST_NODES: usize = 200_000;

struct Problem {
    span: Span,
    message: String,
    help: Option<String>,
    related: Option<(Span, String)>,
}

impl Problem {
    fn new(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: Some(help.into()), related: None }
    }
}

/// Collections that are open, and the anchors seen.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
}

struct Open {
    span: Span,
    anchor: usize,
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: YamlSpan) -> Result<(), Problem> {
        let at = convert(span);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem::new(
                at,
                "the file holds a second document",
                "one file is one lab: keep the part before `---`.",
            )),
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if !quoted => Value::Null,
                    text => Value::Scalar { text: text.to_owned(), quoted },
                };
                self.finish(Node { span: at, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(at, anchor, Content::List(Vec::new()));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(at, anchor, Content::Map { entries: Vec::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                // The parser balances starts and ends.
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Map { entries, .. } => Value::Map(entries),
                };
                let count = self.nodes - open.nodes_before + 1;
                self.finish(Node { span: open.span, value }, open.anchor, count)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, count)) => {
                    let (node, count) = (node.clone(), *count);
                    self.nodes += count - 1;
                    self.finish(node, 0, count)
                }
                None => Err(Problem::new(
                    at,
                    "the alias refers to something that contains it",
                    "an anchor can be used only after it is complete.",
                )),
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, span: Span, anchor: usize, content: Content) {
        self.open.push(Open { span, anchor, nodes_before: self.nodes, content });
    }

    fn finish(&mut self, node: Node, anchor: usize, count: usize) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            let help = format!("at most {MOST_NODES} values are read, aliases expanded.");
            return Err(Problem::new(node.span, "the document is too large", help));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key } => match key.take() {
                Some(taken) => entries.push((taken, node)),
                None => *key = Some(new_key(node, entries)?),
            },
        }
        Ok(())
    }
}

fn new_key(node: Node, entries: &[(Key, Node)]) -> Result<Key, Problem> {
    let text = match node.value {
        Value::Scalar { text, .. } => text,
        other => {
            return Err(Problem::new(
                node.span,
                format!("{} cannot be a key", other.describe()),
                "a key is a word.",
            ));
        }
    };
    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
        return Err(Problem {
            related: Some((first.span, "it is here already".into())),
            ..Problem::new(node.span, format!("the key `{text}` is given twice"), "keep one of the two.")
        });
    }
    Ok(Key { text, span: node.span })
}

fn syntax(error: &ScanError, text: &str) -> Problem {
    let marker = error.marker();
    let line = marker.line().max(1);
    // The scanner notices a tab at the end of the line before it.
    let indented = |(number, line): &(usize, &str)| {
        (*number == marker.line() || *number == marker.line() + 1)
            && line.trim_start_matches(' ').starts_with('\t')
    };
    if let Some((number, content)) = (1..).zip(text.lines()).find(indented) {
        let column = content.chars().take_while(|c| *c == ' ').count() as u32 + 1;
        let span = Span { line: number as u32, column, width: 1 };
        return Problem::new(span, "this line is indented with a tab", "YAML is indented with spaces.");
    }
    let span = Span { line: line as u32, column: marker.col() as u32 + 1, width: 1 };
    let help = "check the indentation, and that every `{`, `[` and quote before this place is closed.";
    Problem::new(span, format!("this is not YAML: {}", error.info()), help)
}

fn convert(span: YamlSpan) -> Span {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Span { line: start.line() as u32, column: start.col() as u32 + 1, width: width as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::SourceFile;

    fn read(text: &str) -> Result<Node, String> {
        let file = SourceFile { path: "x.yaml".into(), text: text.into() };
        let mut errors = Diagnostics::new(file.into());
        parse(&mut errors).ok_or_else(|| errors.render())
    }

    fn child<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        &entries.iter().find(|(k, _)| k.text == key).unwrap().1
    }

    #[test]
    fn flow_values_keep_their_position() {
        let root = read("a:\n  b: { c: 10.0.0.0/16, d: [x, 'y'] }\n").unwrap();
        let c = child(child(child(&root, "a"), "b"), "c");
        assert_eq!(c.span, Span { line: 2, column: 11, width: 11 });
        let Value::List(items) = &child(child(child(&root, "a"), "b"), "d").value else { panic!() };
        assert_eq!(items[1].span, Span { line: 2, column: 31, width: 3 });
        assert_eq!(items[1].value, Value::Scalar { text: "y".into(), quoted: true });
    }

    #[test]
    fn aliases_are_expanded() {
        let root = read("a: &rules [x, y]\nb: *rules\n").unwrap();
        assert_eq!(child(&root, "a"), child(&root, "b"));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{previous}]\n");
        }
        assert!(read(&text).unwrap_err().contains("the document is too large"));
    }

    #[test]
    fn syntax_and_duplicates_name_the_line() {
        let error = read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.contains("error: this is not YAML"), "{error}");
        assert!(error.contains("x.yaml:3:") || error.contains("x.yaml:2:"), "{error}");
        let error = read("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert!(error.contains("the key `a` is given twice") && error.contains("x.yaml:3:1"), "{error}");
        assert!(error.contains("note: it is here already") && error.contains("x.yaml:1:1"), "{error}");
    }

    #[test]
    fn an_empty_file_is_an_error() {
        assert!(read("# nothing\n").unwrap_err().contains("the file is empty"));
    }
}
