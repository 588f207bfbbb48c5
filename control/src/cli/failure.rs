//! Why a verb failed, as the person at the terminal reads it.

use std::io;
use std::path::PathBuf;

use crate::config::diagnostic::nearest;
use crate::view::ErrorView;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing runs.
    #[error("no lab is running: start one with `localvpc up FILE`")]
    NoLab,
    /// No daemon runs, but one that was killed has left its lab, which may still carry packets.
    #[error(
        "lab {} has no daemon, was it killed? `localvpc up FILE` takes the lab over, `localvpc down --lab {}` takes it down",
        .labs.join(", "),
        .labs[0]
    )]
    OnlyLeftovers {
        /// Their names; at least one.
        labs: Vec<String>,
    },
    /// The lab that was named does not run.
    #[error("lab {lab} is not running: start it with `localvpc up FILE`{}", others(.running))]
    NotRunning {
        /// Its name.
        lab: String,
        /// Labs that do run.
        running: Vec<String>,
    },
    /// `up --foreground` of a lab that runs in the background.
    #[error("lab {lab} is running already: `localvpc up FILE` applies a change, `localvpc down` ends it")]
    AlreadyRunning {
        /// Its name.
        lab: String,
    },
    /// `--lab` and the file disagree.
    #[error("--lab (or LOCALVPC_LAB) says {named}, but {} describes lab {written}", .path.display())]
    OtherLab {
        /// The lab that was named.
        named: String,
        /// The file.
        path: PathBuf,
        /// The lab in the file.
        written: String,
    },
    /// Several labs run, and none was named.
    #[error("several labs are running ({}): say which with `--lab NAME`", .running.join(", "))]
    SeveralLabs {
        /// Their names.
        running: Vec<String>,
    },
    /// The verb needs privileges.
    #[error(
        "`localvpc {verb}` needs root: run it with sudo. Without root these work: validate, lint, graph, schema, doctor, serve, and `up --dry-run` while no lab of that name runs"
    )]
    NeedsRoot {
        /// The verb.
        verb: &'static str,
    },
    /// The daemon is there but does not let us in.
    #[error("lab {lab} belongs to root: run this with sudo")]
    NoAccess {
        /// The lab.
        lab: String,
    },
    /// A dry run is compared with what runs, and the daemon does not let us in.
    #[error(
        "lab {lab} runs, and only root can compare the file with it: run this with sudo. Without root `up --dry-run` works \
         while no lab of that name runs, and `validate` always"
    )]
    NoAccessForDryRun {
        /// The lab.
        lab: String,
    },
    /// The conversation with the daemon broke off.
    #[error(
        "lab {lab} gave no usable answer: {reason}. What it was doing: `localvpc logs control --lab {lab}`"
    )]
    Conversation {
        /// The lab.
        lab: String,
        /// What happened.
        reason: String,
    },
    /// The daemon answered with an error.
    #[error("{}", .0.message)]
    Daemon(ErrorView),
    /// A file that is wrong, rendered with its lines.
    #[error("{}", .0.message)]
    Config(ErrorView),
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Words on the command line that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A packet could not be sent.
    #[error(transparent)]
    Probe(#[from] crate::probe::Error),
    /// No file was named and none, or more than one, was found.
    #[error("{0}")]
    WhichFile(String),
    /// Nothing has the name.
    #[error("{what} `{name}` is not in lab {lab}{}", suggestion(.known, .name))]
    NotFound {
        /// What was looked for: `instance`.
        what: String,
        /// The name.
        name: String,
        /// The lab.
        lab: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Programs in the namespace would send from another address than the instance's.
    #[error("{0}")]
    WrongSource(String),
    /// There is nothing to measure: no packet gets through.
    #[error("{0}")]
    Blocked(String),
    /// There is nothing to measure: the question makes no sense.
    #[error("{0}")]
    NothingToMeasure(String),
    /// Traffic failed.
    #[error("{source}{}", hint(.source))]
    Traffic {
        /// How.
        #[from]
        source: localvpc_traffic::Error,
    },
    /// The Linux router beside the lab failed.
    #[error("{0}. Without it: `localvpc bench … --no-linux`")]
    LinuxRouter(#[from] crate::bench::linux_router::Error),
    /// The host side failed.
    #[error(transparent)]
    Host(#[from] crate::host::Error),
    /// The built-in server failed.
    #[error(transparent)]
    Serve(#[from] crate::serve::Error),
    /// A command could not be started.
    #[error("cannot run {command}: {source}")]
    Command {
        /// The command.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon did not come up.
    #[error("the daemon of lab {lab} did not start: {reason}")]
    DaemonStart {
        /// The lab.
        lab: String,
        /// Its last words.
        reason: String,
    },
    /// Writing to standard output failed.
    #[error("cannot write: {0}")]
    Output(io::Error),
    /// A step of the machinery around the verb failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Failure {
    /// Whether the reader of our output went away (`localvpc ls | head -1`): nobody is left to be told.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure for programs.
    pub fn view(&self) -> ErrorView {
        let kind = match self {
            Self::Daemon(view) | Self::Config(view) => return view.clone(),
            Self::NoLab | Self::OnlyLeftovers { .. } | Self::NotRunning { .. } => "not_running",
            Self::SeveralLabs { .. } | Self::WhichFile(_) | Self::OtherLab { .. } => "ambiguous",
            Self::AlreadyRunning { .. } => "running",
            Self::NeedsRoot { .. } | Self::NoAccess { .. } | Self::NoAccessForDryRun { .. } => "privileges",
            Self::NotFound { .. } => "not_found",
            Self::WrongSource(_) => "wrong_source",
            Self::Usage(_) => "usage",
            Self::Host(_) | Self::LinuxRouter(_) | Self::Probe(_) => "host",
            Self::Blocked(_) => "blocked",
            Self::NothingToMeasure(_) => "nothing_to_measure",
            Self::Traffic { .. } => "traffic",
            Self::Read { .. } | Self::Write { .. } | Self::Output(_) | Self::System { .. } => "io",
            Self::Serve(_) => "serve",
            Self::Command { .. } => "command",
            Self::Conversation { .. } | Self::DaemonStart { .. } => "daemon",
        };
        ErrorView { kind: kind.to_owned(), message: self.to_string(), positions: Vec::new() }
    }

    /// The message for people: the rendered errors of a file begin with `error:` themselves.
    pub fn message(&self) -> String {
        let message = self.to_string();
        if message.starts_with("error") { message } else { format!("error: {message}") }
    }
}

/// What helps when traffic fails.
fn hint(error: &localvpc_traffic::Error) -> &'static str {
    match error {
        localvpc_traffic::Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            ": somebody listens there already, choose another port with `--port`"
        }
        localvpc_traffic::Error::Nothing { .. } | localvpc_traffic::Error::Connect { .. } => {
            ": `localvpc explain` and `localvpc counters` may say why"
        }
        _ => "",
    }
}

fn others(running: &[String]) -> String {
    match running {
        [] => String::new(),
        labs => format!(" (running: {})", labs.join(", ")),
    }
}

/// The known name that is nearest, or all of them where they are few.
fn suggestion(known: &[String], name: &str) -> String {
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!(": did you mean `{near}`?"),
        None if (1..=12).contains(&known.len()) => format!(": there are {}", known.join(", ")),
        None => String::new(),
    }
}
