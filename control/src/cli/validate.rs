//! `localvpc validate`: is the file right.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Format, Global, file, output};
use crate::config::values::QuotaWord;
use crate::model::Model;

/// Check a file without touching anything
///
/// Every error is shown with its line, what was expected, and what would be right. Needs no root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc validate two-tier.yaml
  localvpc validate two-tier.yaml --quotas
  localvpc validate two-tier.yaml -o json | jq .positions")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab]
    file: Option<PathBuf>,
    /// Also check AWS's quotas, as `quotas: aws` in the file does: beyond the default is a warning, beyond what AWS
    /// takes at most an error
    #[arg(long)]
    quotas: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let document = file::read(args.file.as_deref())?;
    let path = document.path.display().to_string();
    let quotas = if args.quotas { QuotaWord::Aws } else { QuotaWord::Off };
    match (Model::read_with_quotas(&path, &document.text, quotas), global.output) {
        (Ok((model, warnings)), Format::Table) => {
            if !warnings.is_empty() {
                output::say(&(warnings.render() + "\n"));
            }
            output::print(&format!("{path} is valid: {}\n", summary(&model)))?;
            Ok(ExitCode::SUCCESS)
        }
        (Ok((model, warnings)), Format::Json) => {
            output::print_json(&serde_json::json!({
                "valid": true,
                "lab": model.lab,
                "warnings": warnings.rendered(),
            }))?;
            Ok(ExitCode::SUCCESS)
        }
        (Err(errors), Format::Table) => {
            output::say(&errors.render());
            Ok(ExitCode::FAILURE)
        }
        (Err(errors), Format::Json) => {
            output::print_json(&serde_json::json!({
                "valid": false,
                "errors": errors.rendered(),
                "positions": errors.error_view().positions,
            }))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `lab two-tier with 1 VPC, 2 subnets, 3 instances, 1 internet host`.
fn summary(model: &Model) -> String {
    let subnets = model.vpcs.iter().map(|vpc| vpc.subnets.len()).sum::<usize>();
    format!(
        "lab {} with {}, {}, {}, {}",
        model.lab,
        output::count(model.vpcs.len() as u64, "VPC"),
        output::count(subnets as u64, "subnet"),
        output::count(model.instances().count() as u64, "instance"),
        output::count(model.internet_hosts.len() as u64, "internet host"),
    )
}
