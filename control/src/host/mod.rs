//! What touches the machine: namespaces, TUN devices, netlink, processes.
//!
//! Everything here is synchronous; the daemon calls it from blocking threads. Every object that is made carries
//! a mark with the lab's name, and is written into the journal before it is made, so that
//! [`teardown`](teardown::teardown) finds it after a crash of anything and touches nothing else:
//!
//! | object | mark |
//! |---|---|
//! | namespace | alias of its `lo`: `localvpc:<lab>:<name>` |
//! | TUN device | its alias; it vanishes with its descriptors |
//! | `/etc/netns/<ns>/hosts`, `resolv.conf` | first line: `# made by localvpc for lab <lab>` |
//! | process | `LOCALVPC_OWNER=<lab>:<nonce>` in its environment |
//! | dataplane | its command line names this lab's socket; pid and start time in the journal |
//!
//! - [`plan`]: what a lab needs
//! - [`run_dir`]: where a lab keeps its files
//! - [`netns`], [`attach`], [`names`], [`tun`], [`steering`], [`netlink`]: one kind of object each
//! - [`enter`](mod@enter): how a process gets into a namespace
//! - [`process`], [`proc`]: `run:` commands; telling processes apart
//! - [`launch`], [`dataplane`]: starts it and talks to it; keeps one running
//! - [`difference`], [`apply`]: from the plan in force to the next one, or back
//! - [`journal`], [`teardown`](mod@teardown): what is there, and how it goes away

use std::io;
use std::path::{Path, PathBuf};

pub mod apply;
pub mod attach;
pub mod dataplane;
pub mod difference;
pub mod enter;
pub mod journal;
pub mod launch;
pub mod names;
pub mod netlink;
pub mod netns;
pub mod plan;
pub mod proc;
pub mod process;
pub mod run_dir;
pub mod steering;
pub mod teardown;
pub mod tun;

pub use apply::Host;
pub use enter::{NamespaceRef, enter};
pub use run_dir::RunDir;
pub use teardown::{Teardown, teardown};

/// What went wrong with the machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of a lab cannot be part of a path.
    #[error("`{lab}` cannot be a lab's name: it has lower-case letters, digits and dashes, at most 48")]
    LabName {
        /// The name.
        lab: String,
    },
    /// Another process works on the lab.
    #[error("lab {lab} is in use by {}: it has a daemon, or is being taken down", pid_or_unknown(*.pid))]
    Busy {
        /// The lab.
        lab: String,
        /// Who has it, where that can be read.
        pid: Option<u32>,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried: `open`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call without a path failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried: `enter the namespace of web`.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something with the name of a namespace that we were to make is there, and is not ours.
    #[error(
        "namespace {netns} exists already and does not belong to lab {lab}: it was left alone. Remove it (`ip netns delete {netns}`) or rename the lab or the instance"
    )]
    NamespaceTaken {
        /// Its name.
        netns: String,
        /// The lab that wanted it.
        lab: String,
    },
    /// A file that we were to write is there, and is not ours.
    #[error(
        "{path} exists already and was not made by lab {lab}: it was left alone. Move it away, or rename the lab or the instance",
        path = .path.display()
    )]
    FileTaken {
        /// The file.
        path: PathBuf,
        /// The lab that wanted it.
        lab: String,
    },
    /// A namespace that cannot be attached.
    #[error("cannot attach to {path}: {reason}", path = .path.display())]
    Attach {
        /// The namespace as the file gives it.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The kernel refused a request over netlink.
    #[error("cannot {action}: {reason}")]
    Netlink {
        /// What was tried: `set an address on eth0`.
        action: String,
        /// What the kernel said.
        reason: String,
    },
    /// Something failed for one namespace.
    #[error("{name}: {source}")]
    Namespace {
        /// Its name in the lab: an instance's, a shared subnet's, or `internet`.
        name: String,
        /// What failed.
        source: Box<Error>,
    },
    /// An apply failed.
    #[error("{}. {}", .source.to_string().trim_end_matches('.'), end_of(.problems, *.touched))]
    NotApplied {
        /// Why.
        source: Box<Error>,
        /// Whether anything had been done, which was undone then.
        touched: bool,
        /// What could not be undone.
        problems: Vec<String>,
    },
    /// The dataplane could not be started, or refused.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
}

/// What a failed apply has left.
fn end_of(problems: &[String], touched: bool) -> String {
    match (problems, touched) {
        ([], false) => "Nothing was changed".to_owned(),
        ([], true) => "Rolled back: everything is as it was".to_owned(),
        (problems, _) => format!("Rolling back failed as well: {}", problems.join("; ")),
    }
}

/// Says for which namespace something failed.
fn of(name: &str) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        // The dataplane's troubles are nobody's in particular.
        Error::Dataplane(error) => Error::Dataplane(error),
        error => Error::Namespace { name: name.to_owned(), source: Box::new(error) },
    }
}

fn pid_or_unknown(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Names what was tried when a system call fails.
trait IoContext<T> {
    /// `action` is a verb, `path` its object.
    fn doing(self, action: &'static str, path: &Path) -> Result<T, Error>;
    /// `action` is a verb with its object.
    fn trying(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| Error::Io { action, path: path.to_owned(), source: error.into() })
    }

    fn trying(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::System { action: action(), source: error.into() })
    }
}
