//! Where a lab keeps its files: `/run/localvpc/<lab>/`.
//!
//! ```text
//! /run/localvpc/<lab>/          0750
//!   lock                        held by the daemon, or by a teardown without one
//!   control.sock                0660, HTTP and JSON
//!   dataplane.sock              private
//!   state.json                  the journal
//!   logs/control.log  logs/dataplane.log  logs/<instance>.log
//!   names/<namespace>/          hosts and resolv.conf for attached namespaces
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, IoContext, proc};
use crate::config::decode::is_lab_name;

/// Replaces `/run/localvpc`, the directory that holds one directory per lab.
pub const RUN_DIR_VARIABLE: &str = "LOCALVPC_RUN_DIR";

/// How long the end of a process that was killed may take.
pub(super) const PREDECESSOR: Duration = Duration::from_secs(10);

/// How often it is looked whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The run directory of one lab. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    lab: String,
    path: PathBuf,
}

impl RunDir {
    /// The run directory of the named lab.
    ///
    /// # Errors
    ///
    /// [`Error::LabName`] for a name that could not be part of a path or of a namespace's name.
    pub fn of(lab: &str) -> Result<Self, Error> {
        if !is_lab_name(lab) {
            return Err(Error::LabName { lab: lab.to_owned() });
        }
        Ok(Self { lab: lab.to_owned(), path: parent().join(lab) })
    }

    /// Labs that have a run directory, sorted.
    pub fn labs() -> Vec<String> {
        let mut labs: Vec<String> = fs::read_dir(parent())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|lab| Self::of(lab).is_ok_and(|dir| dir.path.is_dir()))
            .collect();
        labs.sort();
        labs
    }

    /// The lab's name.
    pub fn lab(&self) -> &str {
        &self.lab
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon's HTTP socket.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The dataplane's socket.
    pub fn dataplane_socket(&self) -> PathBuf {
        self.path.join("dataplane.sock")
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// The log of `control`, `dataplane`, or an instance's commands.
    pub fn log(&self, owner: &str) -> PathBuf {
        self.path.join("logs").join(format!("{owner}.log"))
    }

    /// Where `hosts` and `resolv.conf` of an attached namespace are.
    pub(super) fn names(&self, namespace: &Path) -> PathBuf {
        let slug: String = namespace
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .collect();
        self.path.join("names").join(slug.trim_matches('-'))
    }

    /// Makes the directory and its subdirectories where they are missing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when they cannot be made.
    pub fn create(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(parent()).doing("make", &parent())?;
        builder.mode(0o750);
        for directory in [self.path.clone(), self.path.join("logs"), self.path.join("names")] {
            builder.create(&directory).doing("make", &directory)?;
        }
        Ok(())
    }

    /// Takes the lab for this process: one daemon or one teardown at a time. Released when dropped.
    ///
    /// One that was killed has it until all is closed that it had open, and a child that it was about to start until
    /// that has become another program: both are waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while another process has it.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.path.join("lock");
        let deadline = Instant::now() + PREDECESSOR;
        loop {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .doing("open", &path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    // An unreadable pid only makes the message poorer.
                    let _ = file.read_to_string(&mut pid);
                    let pid = pid.trim().parse().ok();
                    if Instant::now() < deadline && pid.is_some_and(proc::is_ending) {
                        // Nothing tells of a lock's end that need not be held when it is told.
                        std::thread::sleep(LOOK_AGAIN);
                        continue;
                    }
                    return Err(Error::Busy { lab: self.lab.clone(), pid });
                }
                Err(TryLockError::Error(error)) => return Err(error).doing("lock", &path),
            }
            // A teardown may have removed the file between open and lock: then it is nobody's lock.
            let held = file.metadata().doing("read", &path)?.ino();
            if fs::metadata(&path).is_ok_and(|now| now.ino() == held) {
                file.set_len(0).and_then(|()| file.rewind()).doing("write", &path)?;
                writeln!(file, "{}", std::process::id()).doing("write", &path)?;
                return Ok(Lock { _file: file });
            }
        }
    }

    /// Removes the directory with everything in it. Logs go too.
    pub(super) fn remove(&self) -> Result<(), Error> {
        loop {
            match fs::remove_dir_all(&self.path) {
                // A thread has just written down how a process ended.
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).doing("remove", &self.path);
                }
                _ => return Ok(()),
            }
        }
    }
}

/// A lab taken by this process.
#[derive(Debug)]
pub struct Lock {
    /// Holds the lock by being open.
    _file: File,
}

fn parent() -> PathBuf {
    std::env::var_os(RUN_DIR_VARIABLE).map_or_else(|| PathBuf::from("/run/localvpc"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in ["", "..", ".", "a/b", "-a", "a b", "A", "a_b", "a.b", &"x".repeat(49)] {
            assert!(matches!(RunDir::of(bad), Err(Error::LabName { .. })), "{bad:?}");
        }
        assert!(RunDir::of("two-tier").is_ok() && RunDir::of(&"x".repeat(48)).is_ok());
    }

    #[test]
    fn a_lab_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir { lab: "t".into(), path: root.path().join("t") };
        fs::create_dir(&dir.path).unwrap();
        let lock = dir.lock().unwrap();
        match dir.lock() {
            Err(Error::Busy { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        dir.lock().unwrap();
    }

    /// A control that is killed while it starts a command: the child has the lock until it has become that command.
    #[test]
    fn what_a_dead_process_has_left_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir { lab: "t".into(), path: root.path().join("t") };
        fs::create_dir(&dir.path).unwrap();
        let killed = "exec 8<&0 9<>lock && flock 9 && echo $$ >&9 && { read end <&8 & kill -9 $$; }";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", killed]).current_dir(&dir.path).stdin(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let end = shell.stdin.take().unwrap();
        assert!(!shell.wait().unwrap().success());
        std::thread::scope(|scope| {
            let lock = scope.spawn(|| dir.lock());
            // Long enough for that to find the lock held.
            std::thread::park_timeout(Duration::from_millis(100));
            assert!(!lock.is_finished(), "{:?}", lock.join());
            drop(end);
            lock.join().unwrap().unwrap();
        });
    }

    #[test]
    fn attached_namespaces_have_a_directory_of_their_own() {
        let dir = RunDir::of("t").unwrap();
        assert!(dir.names(Path::new("/proc/12/ns/net")).ends_with("names/proc-12-ns-net"));
    }
}
