//! `# lint: allow ID`: what a file says is meant as it is.
//!
//! At the end of a line it speaks of that line; on a line of its own, of the next line that is neither
//! empty nor a comment. Several ids are separated by commas; what follows them is for people. An id has a `-`.

use super::diagnostic::Span;

/// A finding that the file allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Name of the check, as written.
    pub id: String,
    /// Where it is written.
    pub span: Span,
    /// The line it speaks of; 0 where there is none.
    pub line: u32,
}

/// All allowances of a file.
pub fn allowances(text: &str) -> Vec<Allowance> {
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((before, ids)) = split(line) else { continue };
        let at = match before.trim() {
            "" => lines.iter().skip(index + 1).position(|line| is_content(line)).map(|skip| index + 1 + skip),
            _ => Some(index),
        };
        let mut column = line[..line.len() - ids.len()].chars().count() as u32 + 1;
        for word in ids.split_inclusive(',') {
            let id: String = word.trim_start().chars().take_while(|c| is_part_of_id(*c)).collect();
            let blanks = word.chars().take_while(|c| c.is_whitespace()).count() as u32;
            let width = id.chars().count() as u32;
            if !id.contains('-') {
                break;
            }
            let span = Span { line: index as u32 + 1, column: column + blanks, width };
            all.push(Allowance { id, span, line: at.map_or(0, |at| at as u32 + 1) });
            // After the last id there is a reason, which may have commas.
            if word.trim_start().trim_end_matches(',').trim_end().chars().count() as u32 != width {
                break;
            }
            column += word.chars().count() as u32;
        }
    }
    all
}

/// What begins an allowance in a comment.
const WORDS: &str = "lint: allow ";

/// The line before the comment, and what stands after the words.
fn split(line: &str) -> Option<(&str, &str)> {
    line.match_indices('#').find_map(|(at, _)| {
        let starts_comment = at == 0 || line[..at].ends_with(char::is_whitespace);
        let rest = line[at + 1..].trim_start().strip_prefix(WORDS)?;
        starts_comment.then_some((&line[..at], rest))
    })
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

fn is_part_of_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, u32, u32, u32)> {
        let all = allowances(text).into_iter();
        all.map(|it| (it.id, it.line, it.span.line, it.span.column)).collect()
    }

    #[test]
    fn at_the_end_of_a_line_or_above_it() {
        let text = "a: 1  # lint: allow a-one, b-two (both, of course)\n\n  # lint: allow c-three, as it is\n  # why\n\nb: 2\n";
        assert_eq!(
            read(text),
            [("a-one".into(), 1, 1, 21), ("b-two".into(), 1, 1, 28), ("c-three".into(), 6, 3, 17)]
        );
    }

    #[test]
    fn what_speaks_of_nothing_and_what_is_none() {
        assert_eq!(read("# lint: allow a-one"), [("a-one".into(), 0, 1, 15)]);
        assert_eq!(
            read("a: b#lint: allow a-one\n# lint allow a-one\n# lint: deny a-one\n# lint: allow one\n"),
            []
        );
        assert_eq!(read("# lint: allow a-one because b-two, c-three\na: 1"), [("a-one".into(), 2, 1, 15)]);
    }
}
