//! `localvpc up`: make what runs equal to what the file says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};

use localvpc_api::Generation;
use localvpc_api::settings::{Merge, Poll};

use super::client::Client;
use super::file::Document;
use super::lab::{self, Daemon};
use super::{Failure, Format, Global, daemon, file, hints, is_root, output, plan};
use crate::host::{self, RunDir};
use crate::lower::{IdRegistry, lower};
use crate::model::{self, Model};
use crate::view::{ApplyEvent, ApplyRequest, Plan};

/// Bring a lab up, or apply what changed in its file
///
/// Prints what will be added (+), changed (~) and removed (-), and does that. What did not change is not
/// interrupted: connections through it go on. A file with an error changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo localvpc up two-tier.yaml
  sudo localvpc up                          the only *.vpc.yaml, or *.yaml with `lab:`, of this directory
  localvpc up two-tier.yaml --dry-run       only show what would be done; needs no root while no lab of that name runs
  sudo localvpc up two-tier.yaml --foreground
  sudo localvpc up two-tier.yaml --poll busy    lowest latency; also for a lab that is up already")]
pub struct Args {
    /// The file [default: the one in the working directory that is a lab]
    file: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How the dataplane waits for packets: `adaptive` looks for a moment and sleeps then, `busy` never sleeps (lowest
    /// latency, a processor for each of its workers), `block` sleeps at once [default: as before; adaptive at first]
    #[arg(long, value_name = "HOW", value_parser = words(Poll::WORDS))]
    poll: Option<Poll>,
    /// Whether small packets of a flow that follow each other closely are joined, as GRO does [default: as before; on at first]
    #[arg(long, value_name = "WHETHER", value_parser = words(Merge::WORDS))]
    merge: Option<Merge>,
    /// Stay in the foreground until the lab is taken down, for systemd and containers
    #[arg(long, conflicts_with = "dry_run")]
    foreground: bool,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let document = file::read(args.file.as_deref())?;
    // A file that is wrong is refused here, before anything is started for it.
    let (model, warnings) = document.validate()?;
    if let Some(lab) = &global.lab
        && *lab != model.lab
    {
        return Err(Failure::OtherLab { named: lab.clone(), path: document.path, written: model.lab });
    }
    let run_dir = RunDir::of(&model.lab)?;
    let request = ApplyRequest { poll: args.poll, merge: args.merge, ..document.request() };
    let daemon = match lab::daemon(&run_dir) {
        Daemon::Running if Client::new(run_dir.clone())?.is_dying() => Daemon::Absent,
        daemon => daemon,
    };
    match daemon {
        Daemon::NoAccess if args.dry_run => Err(Failure::NoAccessForDryRun { lab: model.lab }),
        Daemon::NoAccess => Err(Failure::NoAccess { lab: model.lab }),
        Daemon::Running if args.dry_run => {
            let plan: Plan = Client::new(run_dir)?.tell("/v1/plan", &request)?;
            show_plan(&plan, global)
        }
        Daemon::Absent if args.dry_run => {
            let plan = Plan { warnings: warnings.rendered(), ..model::diff(None, &model) };
            show_plan(&plan, global)
        }
        Daemon::Running if args.foreground => Err(Failure::AlreadyRunning { lab: model.lab }),
        Daemon::Running => apply(&Client::new(run_dir)?, &request, global),
        Daemon::Absent if !is_root() => Err(Failure::NeedsRoot { verb: "up" }),
        Daemon::Absent => {
            // A daemon that was killed has left its lab running, and the next one takes it over.
            let lab = if run_dir.journal().exists() { Lab::TakenOver } else { Lab::New };
            if lab == Lab::New {
                // What will certainly fail starts nothing.
                let plan = lower(&model, &mut IdRegistry::default(), Generation(1)).host;
                host::attach::check(&plan, &[]).map_err(|source| host::Error::NotApplied {
                    source: Box::new(source),
                    touched: false,
                    problems: Vec::new(),
                })?;
            }
            if args.foreground {
                return daemon::in_foreground(run_dir, |run_dir| start(run_dir, lab, &request, global));
            }
            daemon::in_background(&run_dir)?;
            start(run_dir, lab, &request, global)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// What a daemon that has just started finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lab {
    /// Nothing.
    New,
    /// What a dead daemon has left running.
    TakenOver,
}

fn show_plan(plan: &Plan, global: &Global) -> Result<(), Failure> {
    match global.output {
        Format::Json => output::print_json(plan),
        Format::Table => {
            say_warnings(&plan.warnings);
            output::print(&plan::render(plan))
        }
    }
}

/// The first apply of a daemon. Where it fails in a new lab, there is nothing to run a daemon for.
fn start(run_dir: RunDir, lab: Lab, request: &ApplyRequest, global: &Global) -> Result<(), Failure> {
    let client = Client::new(run_dir)?;
    let applied = apply(&client, request, global);
    if lab == Lab::New && applied.as_ref().is_err_and(|failure| !failure.is_closed_pipe()) {
        // The failure that is reported is the first one.
        let _ = client.order("/v1/down");
    }
    applied
}

fn apply(client: &Client, request: &ApplyRequest, global: &Global) -> Result<(), Failure> {
    let bar = ProgressBar::new(0).with_style(style());
    let mut end = None;
    let mut shown = Vec::new();
    client.follow("/v1/apply", request, |event| {
        if global.output == Format::Json {
            let line = serde_json::to_string(&event).map_err(|error| Failure::Output(error.into()))?;
            output::print(&(line + "\n"))?;
        }
        match event {
            ApplyEvent::Plan(plan) => {
                if global.output == Format::Table {
                    say_warnings(&plan.warnings);
                    output::print(&plan::render(&plan))?;
                }
                shown = plan.warnings;
            }
            ApplyEvent::Step { done, total, what } => {
                bar.set_length(total.into());
                bar.set_position(done.into());
                bar.set_message(what);
            }
            ApplyEvent::Applied { .. } | ApplyEvent::Failed(_) => end = Some(event),
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    match end {
        Some(ApplyEvent::Applied { generation, warnings, took_ms }) if global.output == Format::Table => {
            let new: Vec<_> = warnings.into_iter().filter(|warning| !shown.contains(warning)).collect();
            say_warnings(&new);
            let lab = client.lab();
            output::print(&format!("\nlab {lab} is up: generation {generation}, after {took_ms} ms\n"))?;
            if generation == 1 { output::print(&hints::what_next(client)?) } else { Ok(()) }
        }
        Some(ApplyEvent::Failed(error)) => Err(Failure::Daemon(error)),
        Some(_) => Ok(()),
        None => Err(Failure::Conversation {
            lab: client.lab().to_owned(),
            reason: "it broke off before the end".into(),
        }),
    }
}

/// Takes one of a few words.
fn words<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word)).map(move |found| {
        let known = words.iter().find(|(word, _)| *word == found);
        // The parser lets no other pass.
        known.unwrap().1
    })
}

fn say_warnings(warnings: &[String]) {
    for warning in warnings {
        output::say(&format!("{warning}\n"));
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {bar:24} {pos}/{len} {wide_msg}")
        // A constant, and valid.
        .unwrap()
}

impl Document {
    /// The document's meaning and its warnings.
    ///
    /// # Errors
    /// [`Failure::Config`] with every error, rendered.
    pub fn validate(&self) -> Result<(Model, crate::config::diagnostic::Diagnostics), Failure> {
        Model::read(&self.path.display().to_string(), &self.text)
            .map_err(|errors| Failure::Config(errors.error_view()))
    }

    fn request(&self) -> ApplyRequest {
        ApplyRequest::new(self.path.display().to_string(), self.text.clone())
    }
}
