//! `localvpc schema`: the JSON schema of the file, for editors.

use std::process::ExitCode;

use super::{Failure, output};

/// Print the JSON schema of the file, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A first line in the file tells editors with a YAML language server:
  # yaml-language-server: $schema=./localvpc.schema.json

Examples:
  localvpc schema > localvpc.schema.json")]
pub struct Args {}

pub fn run(_: Args) -> Result<ExitCode, Failure> {
    output::print_json(&crate::config::schema())?;
    Ok(ExitCode::SUCCESS)
}
