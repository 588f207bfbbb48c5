//! Nodes to values, collecting every error on the way.
//!
//! serde stops at the first error and forgets where an untagged value stood; a person with a
//! broken file wants all errors at once, each with its place. So every type of the document
//! implements [`Decode`], and [`record!`](super::document) writes that implementation, the list of
//! known keys and the editor schema from one definition.

use std::borrow::Cow;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::{Diagnostics, Span, quoted};
use super::slips::slip;
use super::tree::{Key, Node, Value};

/// A value read from a node.
pub trait Decode: Sized {
    /// Reads a node. `None` means that an error was noted and nothing could be made of it.
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self>;

    /// What an absent key means: `None` where the key must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// A value that is written as one word or number.
pub trait Scalar: Sized {
    /// For `... is not a CIDR`.
    const NOUN: &'static str;

    /// What it means; `None` where it means nothing.
    fn parse(text: &str) -> Option<Self>;

    /// What would have been right: a sentence.
    fn help(text: &str) -> String;

    /// Its JSON schema.
    fn schema() -> Schema;
}

/// A scalar with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Scalar> Decode for Spanned<T> {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        let Value::Scalar { text, .. } = &node.value else {
            let found = node.value.describe();
            errors.error(node.span, format!("expected {}, found {found}", T::NOUN)).help(T::help(""));
            return None;
        };
        let Some(value) = T::parse(text) else {
            errors.error(node.span, format!("`{text}` is not {}", T::NOUN)).help(T::help(text));
            return None;
        };
        Some(Self { value, span: node.span })
    }
}

impl<T: Scalar> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::NOUN.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// Named things, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<T>(pub Vec<Named<T>>);

/// A thing with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T> {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub span: Span,
    /// What stands under it.
    pub value: T,
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Map<T> {
    type Target = [Named<T>];

    fn deref(&self) -> &[Named<T>] {
        &self.0
    }
}

impl<T: Decode> Decode for Map<T> {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        let entries = match &node.value {
            Value::Null => return Some(Self::default()),
            Value::Map(entries) => entries,
            other => {
                let found = other.describe();
                errors
                    .error(node.span, format!("expected names with what they stand for, found {found}"))
                    .help("write `NAME: { ... }` under this key.");
                return None;
            }
        };
        let read: Vec<Option<Named<T>>> =
            entries.iter().map(|(key, value)| named(key, value, errors)).collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl<T: JsonSchema> JsonSchema for Map<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<T>();
        json_schema!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": NAME_PATTERN, "maxLength": LONGEST_NAME },
            "additionalProperties": values,
        })
    }
}

/// Longest name of a lab in bytes. A namespace is `<lab>-<instance>`: with this, it fits a file name (255) and,
/// with the mark around it, the alias of a device (255); and `/run/localvpc/<lab>/dataplane.sock` fits the address of a
/// socket (107).
pub const LONGEST_LAB: usize = 48;

/// Names: what can also be a host name and a part of a namespace's name.
pub const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9-]*$";

/// Longest name in bytes: a DNS label.
pub const LONGEST_NAME: usize = 63;

/// Whether `text` is a name.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_NAME
        && !text.starts_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Whether `text` can be the name of a lab: the one rule for files, `--lab` and run directories.
pub fn is_lab_name(text: &str) -> bool {
    is_name(text) && text.len() <= LONGEST_LAB
}

/// What to say about a word that is not a name, which has at most `longest` bytes.
pub fn name_help(text: &str, longest: usize) -> String {
    let lower: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(longest)
        .collect();
    let lower = lower.trim_matches('-');
    let rule = format!("a name has lower-case letters, digits and dashes, at most {longest}");
    if is_name(lower) { format!("{rule}: `{lower}`.") } else { format!("{rule}.") }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Null => Some(None),
            _ => T::decode(node, errors).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        match &node.value {
            Value::Null => Some(Vec::new()),
            Value::List(items) => {
                let read: Vec<Option<T>> = items.iter().map(|item| T::decode(item, errors)).collect();
                read.into_iter().collect()
            }
            other => {
                let found = other.describe();
                errors
                    .error(node.span, format!("expected a list, found {found}"))
                    .help("write `[ ... ]` around it.");
                None
            }
        }
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(node: &Node, errors: &mut Diagnostics) -> Option<Self> {
        match &node.value {
            Value::List(_) | Value::Null => Vec::decode(node, errors).map(Self),
            _ => T::decode(node, errors).map(|one| Self(vec![one])),
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrManyOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
}

/// The keys of a map with fixed keys.
pub struct Fields<'a> {
    node: &'a Node,
    entries: &'a [(Key, Node)],
    noun: &'static str,
    /// Keys that unknown ones stand for: what is wrong with these has been said.
    meant: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Opens a map and notes its unknown keys; `noun` is what it describes: `a subnet`.
    pub fn open(
        node: &'a Node,
        known: &[&'static str],
        noun: &'static str,
        errors: &mut Diagnostics,
    ) -> Option<Self> {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Null => &[],
            Value::Map(entries) => entries,
            other => {
                let found = other.describe();
                let message = format!("expected {noun}, found {found}");
                errors
                    .error(node.span, message)
                    .help(format!("it has the keys {}.", quoted(known.iter().copied())));
                return None;
            }
        };
        let mut meant = Vec::new();
        let mut told = Vec::new();
        for (at, (key, _)) in entries.iter().enumerate() {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let slip = slip(noun, entries, at, known);
            let help = match &slip {
                Some(slip) => slip.help.clone(),
                None => format!("{noun} has the keys {}.", quoted(known.iter().copied())),
            };
            // Several keys may be one slip.
            if slip.is_some() && told.contains(&help) {
                continue;
            }
            let error = errors.error(key.span, format!("unknown key `{}` in {noun}", key.text));
            error.help(help.clone());
            told.push(help);
            if let Some(key) = slip.and_then(|slip| slip.meant) {
                error.meant(key);
                meant.push(key);
            }
        }
        Some(Self { node, entries, noun, meant })
    }

    /// Reads one key.
    pub fn take<T: Decode>(&self, key: &str, errors: &mut Diagnostics) -> Option<T> {
        let is_told = self.meant.contains(&key);
        // Whatever stands there, the rule as a whole is not what it should be.
        if is_told && key == "protocol" {
            return None;
        }
        if let Some((_, value)) = self.entries.iter().find(|(known, _)| known.text == key) {
            return T::decode(value, errors);
        }
        let absent = T::absent();
        if absent.is_none() && !is_told {
            errors.error(self.node.span, format!("{} needs the key `{key}`", self.noun));
        }
        absent
    }
}

fn named<T: Decode>(key: &Key, value: &Node, errors: &mut Diagnostics) -> Option<Named<T>> {
    if !is_name(&key.text) {
        errors
            .error(key.span, format!("`{}` is not a name", key.text))
            .help(name_help(&key.text, LONGEST_NAME));
    }
    // Something without content stands where its name stands.
    let value = match value.value {
        Value::Null => &Node { span: key.span, value: Value::Null },
        _ => value,
    };
    Some(Named { name: key.text.clone(), span: key.span, value: T::decode(value, errors)? })
}
