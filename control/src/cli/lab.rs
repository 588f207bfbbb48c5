//! Which lab a verb is about.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::failure::Failure;
use super::{Global, file};
use crate::host::RunDir;

/// What is at the place of a lab's daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It takes connections.
    Running,
    /// It is there, but we may not talk to it.
    NoAccess,
    /// Nothing takes connections.
    Absent,
}

/// Looks whether the lab's daemon takes connections.
pub fn daemon(lab: &RunDir) -> Daemon {
    match UnixStream::connect(lab.control_socket()) {
        Ok(_) => Daemon::Running,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Daemon::NoAccess,
        Err(_) => Daemon::Absent,
    }
}

/// Labs whose daemon runs, sorted.
pub fn running() -> Vec<String> {
    RunDir::labs().into_iter().filter(|lab| is_running(lab)).collect()
}

fn is_running(lab: &str) -> bool {
    RunDir::of(lab).is_ok_and(|dir| daemon(&dir) != Daemon::Absent)
}

/// The lab that was named; else the only one that runs; else, of several, the one of the file in the working directory.
///
/// # Errors
/// A failure that says which labs there are.
pub fn pick(global: &Global) -> Result<RunDir, Failure> {
    let (running, leftovers): (Vec<String>, Vec<String>) =
        RunDir::labs().into_iter().partition(|lab| is_running(lab));
    if let Some(lab) = &global.lab {
        let dir = RunDir::of(lab)?;
        return if running.contains(lab) {
            Ok(dir)
        } else if leftovers.contains(lab) {
            Err(Failure::OnlyLeftovers { labs: vec![lab.clone()] })
        } else {
            Err(Failure::NotRunning { lab: lab.clone(), running })
        };
    }
    match running.as_slice() {
        [] if leftovers.is_empty() => Err(Failure::NoLab),
        [] => Err(Failure::OnlyLeftovers { labs: leftovers }),
        [lab] => Ok(RunDir::of(lab)?),
        _ => match file::lab_named_in(Path::new(".")) {
            Some(lab) if running.contains(&lab) => Ok(RunDir::of(&lab)?),
            _ => Err(Failure::SeveralLabs { running }),
        },
    }
}
