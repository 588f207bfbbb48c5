//! The document as it was written, with the position of every value.
//!
//! Text → [`tree`] (YAML with positions) → [`document`] (records with known keys). Whether the
//! values make sense together is the [`model`](crate::model)'s business.

pub mod allow;
pub mod decode;
pub mod diagnostic;
pub mod document;
mod slips;
pub mod tree;
pub mod values;

use std::sync::Arc;

use decode::Decode;
use diagnostic::{Diagnostics, SourceFile};
use document::LabSection;

pub use decode::Spanned;
pub use diagnostic::{Diagnostic, Severity, Span};

/// A document that could be read.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file it was read from.
    pub source: Arc<SourceFile>,
    /// What it says.
    pub content: LabSection,
    /// Errors that left the content readable, such as unknown keys. The model reports them with its own.
    pub problems: Diagnostics,
}

/// Reads a document.
///
/// # Errors
/// Everything that keeps it from being read: syntax, missing keys, values of the wrong kind.
pub fn parse(path: &str, text: &str) -> Result<Document, Diagnostics> {
    let source = Arc::new(SourceFile { path: path.to_owned(), text: text.to_owned() });
    let mut problems = Diagnostics::new(source.clone());
    let content = tree::parse(&mut problems).and_then(|root| LabSection::decode(&root, &mut problems));
    match content {
        Some(content) => Ok(Document { source, content, problems }),
        None => {
            problems.sort();
            Err(problems)
        }
    }
}

/// The JSON schema of the document, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(LabSection).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "localvpc lab".into());
    }
    schema
}

#[cfg(test)]
mod tests;
