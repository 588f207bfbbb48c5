//! A lab that packets are carried by: ours, or one whose dataplane decides nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use localvpc::host::run_dir::RUN_DIR_VARIABLE;

use crate::scene::{Error, Kind};

/// A lab in a run directory of its own, which `localvpc status` of other people does not show.
#[derive(Debug)]
pub struct Lab {
    /// Its name, with which those of its namespaces begin.
    pub name: String,
    run_dir: PathBuf,
    dataplane: PathBuf,
    /// What it was brought up from.
    file: PathBuf,
    /// Whether there is more to take down than a failed `up` leaves.
    is_up: bool,
}

/// Run directories are named by the process that made them, so that the next one sees what was left behind.
const RUN_DIRS: &str = "/run";
const PREFIX: &str = "localvpc-compare-";

impl Lab {
    /// Brings up what the text of a file says, with more words for `localvpc up`.
    ///
    /// # Errors
    ///
    /// When a program is missing, the file cannot be written, or `up` fails. Nothing is left then.
    pub fn up(kind: Kind, text: &str, settings: &[&str]) -> Result<Self, Error> {
        let program = match kind {
            Kind::Null => "localvpc-null-dataplane",
            _ => "localvpc-dataplane",
        };
        let run_dir = Path::new(RUN_DIRS).join(format!("{PREFIX}{}", std::process::id()));
        let mut lab = Self {
            name: format!("compare-{}-{}", std::process::id(), kind.name()),
            dataplane: sibling(program)?,
            file: run_dir.join(format!("{}.yaml", kind.name())),
            run_dir,
            is_up: false,
        };
        let text = text.replacen("lab: compare\n", &format!("lab: {}\n", lab.name), 1);
        fs::create_dir_all(&lab.run_dir)
            .and_then(|()| fs::write(&lab.file, text))
            .map_err(|source| Error::Write { path: lab.file.clone(), source })?;
        // On failure it is dropped, and so taken down.
        lab.configure(settings)?;
        lab.is_up = true;
        Ok(lab)
    }

    /// Has its dataplane work in another way from now on; what `settings` does not name stays.
    ///
    /// # Errors
    ///
    /// When `up` fails.
    pub fn configure(&self, settings: &[&str]) -> Result<(), Error> {
        self.localvpc(&[&["up", &*self.file.to_string_lossy()], settings].concat()).map(drop)
    }

    /// What `localvpc` prints on standard output.
    ///
    /// # Errors
    ///
    /// When it does not run, or fails.
    pub fn localvpc(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let verb = arguments.join(" ");
        let failed = |said: String| Error::Localvpc { verb: verb.clone(), said };
        let mut command = localvpc(&self.run_dir, &self.name)?;
        command.args(arguments).env("LOCALVPC_DATAPLANE", &self.dataplane);
        let Output { status, stdout, stderr } =
            command.output().map_err(|error| failed(error.to_string()))?;
        if status.success() {
            Ok(stdout)
        } else {
            Err(failed(String::from_utf8_lossy(&stderr).trim_end().to_owned()))
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        match self.localvpc(&["down"]) {
            Err(error) if self.is_up => localvpc_compare::say(&format!("warning: {error}")),
            _ => {}
        }
    }
}

/// Removes the run directory; and takes down the labs of processes that are gone, killed perhaps.
pub fn sweep() {
    for entry in fs::read_dir(RUN_DIRS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let is_ours = pid == std::process::id();
        if !is_ours && Path::new("/proc").join(pid.to_string()).exists() {
            continue;
        }
        if !is_ours {
            for kind in [Kind::Ours, Kind::Null] {
                let lab = format!("compare-{pid}-{}", kind.name());
                if let Ok(mut down) = localvpc(&entry.path(), &lab) {
                    let _ = down.arg("down").output();
                }
            }
        }
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn localvpc(run_dir: &Path, lab: &str) -> Result<Command, Error> {
    let mut command = Command::new(sibling("localvpc")?);
    command.stdin(Stdio::null()).env(RUN_DIR_VARIABLE, run_dir).env("LOCALVPC_LAB", lab);
    Ok(command)
}

/// A program that was built together with this one.
fn sibling(program: &str) -> Result<PathBuf, Error> {
    let path = std::env::current_exe().unwrap_or_default().with_file_name(program);
    if path.exists() { Ok(path) } else { Err(Error::Program { path }) }
}
