//! `localvpc graph`: a picture of a lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use localvpc_api::Generation;

use super::explain::Traffic;
use super::{Failure, Format, Global, file, output};
use crate::explain;
use crate::graph::{Form, Graph, path};
use crate::lower::{IdRegistry, lower};
use crate::model::Model;
use crate::view::{ExplainRequest, Explanation};

/// Draw a lab: VPCs, subnets, instances and gateways as nested boxes, and where routes lead
///
/// The same file gives the same picture. With --path, a packet's way is drawn on it: green where it passes, red where
/// it is stopped, with the reason. Sends nothing, and needs no root for a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  localvpc graph two-tier.yaml > two-tier.svg
  localvpc graph two-tier.yaml --format mermaid
  localvpc graph two-tier.yaml --path web db tcp/5432 --write blocked.svg
  sudo localvpc graph --lab two-tier --write now.svg         what runs
  localvpc graph two-tier.yaml --format dot | dot -Tpng > two-tier.png")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab, else the running lab's]
    file: Option<PathBuf>,
    /// Form of the picture [default: by the name of the file to write, else svg]
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Draw the way of a packet on it
    #[arg(long, num_args = 3, value_names = ["FROM", "TO", "PROTOCOL[/PORT]"])]
    path: Option<Vec<String>>,
    /// Write it to a file
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let document = file::read_or_running(args.file.as_deref(), global)?;
    let (model, _) = document.validate()?;
    let mut graph = Graph::of(&model);
    if let Some([from, to, traffic]) = args.path.as_deref() {
        let explanation = explain(&model, from, to, traffic)?;
        graph.path = Some(path(&graph, &explanation));
    }
    let text = graph.render(form(&args, global));
    match &args.write {
        Some(path) => {
            fs::write(path, text).map_err(|source| Failure::Write { path: path.clone(), source })?;
        }
        None => output::print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What `localvpc explain` says of the file.
fn explain(model: &Model, from: &str, to: &str, traffic: &str) -> Result<Explanation, Failure> {
    let traffic: Traffic = traffic.parse().unwrap_or_else(|why| {
        let message = format!("invalid value '{traffic}' for '--path <FROM> <TO> <PROTOCOL[/PORT]>': {why}");
        super::Cli::command().error(ErrorKind::ValueValidation, message).exit()
    });
    let request = ExplainRequest::new(from, to, traffic.protocol, traffic.port);
    let lowered = lower(model, &mut IdRegistry::default(), Generation(0));
    let asked = explain::resolve(&lowered.index, &request).map_err(Failure::Daemon)?;
    Ok(explain::answer(&lowered.index, &lowered.tables, &asked))
}

fn form(args: &Args, global: &Global) -> Form {
    let by_name = |path: &Path| match path.extension()?.to_str()? {
        "svg" => Some(Form::Svg),
        "mmd" | "mermaid" | "md" => Some(Form::Mermaid),
        "dot" | "gv" => Some(Form::Dot),
        "json" => Some(Form::Json),
        _ => None,
    };
    let asked = args.format.or_else(|| args.write.as_deref().and_then(by_name));
    asked.unwrap_or(if global.output == Format::Json { Form::Json } else { Form::Svg })
}
