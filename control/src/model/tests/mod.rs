//! Files and what is said about them: every case of bad input, with its line.

mod addresses;
mod file;
mod gateways;
mod instances;
mod rules;

use super::*;
use crate::config::Severity;

/// A VPC with a public and a private subnet; `{more}` is put into it, at line 14.
fn lab(more: &str) -> String {
    format!(
        "\
lab: bad
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public:  {{ cidr: 10.0.1.0/24, route_table: out }}
      private: {{ cidr: 10.0.2.0/24 }}
    route_tables:
      out: [ {{ to: 0.0.0.0/0, via: igw }} ]
    security_groups:
      web: {{}}
    # what is tested:
{more}"
    )
}

fn read(text: &str) -> Model {
    Model::read("bad.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n\n{text}")).0
}

/// Asserts that a file is refused with an error of this message at this place.
#[track_caller]
fn refuse(text: &str, at: &str, message: &str) -> String {
    let Err(errors) = Model::read("bad.yaml", text) else { panic!("accepted:\n{text}") };
    let wanted = (format!("error: {message}"), format!("--> bad.yaml:{at}\n"));
    let rendered = errors.rendered();
    let found = rendered.iter().find(|one| one.contains(&wanted.0) && one.contains(&wanted.1));
    let Some(found) = found else { panic!("expected {message:?} at {at}, got\n\n{}", errors.render()) };
    assert!(errors.refusal().ends_with("Nothing was changed."));
    found.clone()
}

/// Line and column of the last `word` in a text.
fn place_of(text: &str, word: &str) -> String {
    let before = &text[..text.rfind(word).expect("the word is there")];
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("{}:{}", before.lines().count(), line.len() + 1)
}

/// Asserts that a file is accepted with a warning of this message at this place.
#[track_caller]
fn warn(text: &str, at: &str, message: &str) -> Model {
    let (model, warnings) =
        Model::read("bad.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n\n{text}"));
    let rendered = warnings.render();
    assert!(rendered.starts_with("warning[") && rendered.contains(&format!("]: {message}")), "{rendered}");
    assert!(rendered.contains(&format!("--> bad.yaml:{at}\n")), "{rendered}");
    model
}
