//! Starts and watches `run:` commands.
//!
//! A command outlives control: it has a session of its own, writes to a file, and is found again by the mark
//! in its environment. It is not restarted when it ends; how it ended is shown.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::enter::{NamespaceRef, enter};
use super::journal::{Journal, ProcessRecord};
use super::plan::ProcessPlan;
use super::proc::{self, ProcessId};
use super::{Error, IoContext, RunDir, netns};

/// The variable with the ownership mark: `<lab>:<nonce>.<n>`.
pub const OWNER_VARIABLE: &str = "LOCALVPC_OWNER";

/// What commands get between SIGTERM and SIGKILL.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long an apply looks whether the commands that it started go on: a command that cannot be found, or a port that
/// is taken, shows at once.
const FIRST_MOMENTS: Duration = Duration::from_millis(200);

/// For a process that somebody else has reaped.
const ENDED_SOMEHOW: &str = "an unknown exit status";

/// The `run:` commands of a lab.
#[derive(Debug)]
pub struct Processes {
    run_dir: RunDir,
    journal: Arc<Journal>,
    watched: Arc<Watched>,
}

/// A command to start.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of its namespace in the plan.
    pub namespace: String,
    /// The namespace.
    pub place: NamespaceRef,
    /// The command.
    pub plan: ProcessPlan,
}

/// What the watching thread shares with the rest.
#[derive(Debug)]
struct Watched {
    /// Handles by mark, of processes that have not been seen to end.
    handles: Mutex<HashMap<String, Arc<OwnedFd>>>,
    /// Signalled when `handles` has changed.
    changed: OwnedFd,
}

impl Processes {
    /// Watches the processes in the journal that still run, and all that are started later.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when the watching thread cannot be started.
    pub fn adopt(run_dir: &RunDir, journal: Arc<Journal>) -> Result<Self, Error> {
        let changed = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .trying(|| "watch processes".to_owned())?;
        let watched = Arc::new(Watched { handles: Mutex::default(), changed });
        let processes = Self { run_dir: run_dir.clone(), journal, watched };
        processes.take_over()?;
        let (journal, watched) = (processes.journal.clone(), processes.watched.clone());
        std::thread::Builder::new()
            .name("processes".into())
            .spawn(move || watch(&journal, &watched))
            .trying(|| "watch processes".to_owned())?;
        Ok(processes)
    }

    /// Starts commands. All of them are written down before the first, and again after the last. Returns which of
    /// them have failed within the first moments, for people.
    ///
    /// A command that cannot be started is recorded as ended, with the reason: one bad command does not
    /// stop a lab.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the journal cannot be written.
    pub fn start(&self, jobs: Vec<Job>) -> Result<Vec<String>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.journal.look(|state| {
            let marked = state.processes.iter().filter_map(|record| mark_number(&record.mark)).max();
            marked.map_or(0, |last| last + 1)
        });
        let life = self.journal.look(|state| format!("{}:{}", state.lab, state.nonce));
        let mut records: Vec<ProcessRecord> = (first..)
            .zip(&jobs)
            .map(|(number, job)| ProcessRecord {
                namespace: job.namespace.clone(),
                plan: job.plan.clone(),
                mark: format!("{life}.{number}"),
                process: None,
                ended: None,
            })
            .collect();
        self.journal.update(|state| state.processes.extend(records.iter().cloned()))?;
        for (record, job) in records.iter_mut().zip(&jobs) {
            match spawn(&self.run_dir, &job.place, &job.plan, &record.mark) {
                Ok(pid) => record.process = ProcessId::of(pid),
                Err(error) => record.ended = Some(format!("not started: {error}")),
            }
        }
        self.write_down(&records)?;
        let mut running: Vec<(String, OwnedFd)> = records
            .iter()
            .filter_map(|record| Some((record.mark.clone(), record.process?.open()?)))
            .collect();
        let ended = early_ends(&mut running);
        for record in &mut records {
            if let Some((_, how)) = ended.iter().find(|(mark, _)| *mark == record.mark) {
                record.ended = Some(how.clone());
            }
        }
        if !ended.is_empty() {
            self.write_down(&records)?;
        }
        self.watched.add(running);
        Ok(records.iter().filter_map(failure).collect())
    }

    fn write_down(&self, records: &[ProcessRecord]) -> Result<(), Error> {
        self.journal.update(|state| {
            for started in records {
                if let Some(record) = state.processes.iter_mut().find(|it| it.mark == started.mark) {
                    record.process = started.process;
                    record.ended.clone_from(&started.ended);
                }
            }
        })
    }

    /// Ends every process of the records that are chosen, with all that they started, and forgets them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the journal cannot be written.
    pub fn stop(&self, chosen: impl Fn(&ProcessRecord) -> bool) -> Result<(), Error> {
        let marks: Vec<String> = self.journal.look(|state| {
            state.processes.iter().filter(|record| chosen(record)).map(|record| record.mark.clone()).collect()
        });
        if marks.is_empty() {
            return Ok(());
        }
        proc::end_all(PATIENCE, || {
            proc::with_variable(OWNER_VARIABLE, |mark| marks.iter().any(|m| m == mark))
        });
        self.watched.remove(&marks);
        self.journal.update(|state| state.processes.retain(|record| !marks.contains(&record.mark)))
    }

    /// Takes the processes of a dead predecessor over, and records which are gone. What it meant to start and did not is
    /// forgotten, so that the next apply starts it.
    fn take_over(&self) -> Result<(), Error> {
        let mut records = self.journal.look(|state| state.processes.clone());
        if records.is_empty() {
            return Ok(());
        }
        for record in records.iter_mut().filter(|record| record.process.is_none() && record.ended.is_none()) {
            // Perhaps it was started, and the predecessor did not live to write its id down.
            record.process =
                proc::with_variable(OWNER_VARIABLE, |mark| mark == record.mark).into_iter().next();
        }
        records.retain(|record| record.process.is_some() || record.ended.is_some());
        let mut running = Vec::new();
        for record in records.iter_mut().filter(|record| record.ended.is_none()) {
            match record.process.filter(|process| process.is_alive()).and_then(ProcessId::open) {
                Some(handle) => running.push((record.mark.clone(), handle)),
                None => record.ended = Some("ended while control was not running".to_owned()),
            }
        }
        self.journal.update(|state| state.processes = records)?;
        self.watched.add(running);
        Ok(())
    }
}

impl Watched {
    fn add(&self, running: impl IntoIterator<Item = (String, OwnedFd)>) {
        let running = running.into_iter().map(|(mark, handle)| (mark, Arc::new(handle)));
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).extend(running);
        self.wake();
    }

    fn remove(&self, marks: &[String]) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).retain(|mark, _| !marks.contains(mark));
        self.wake();
    }

    fn wake(&self) {
        // It can only fail when it is signalled 2^64 times over.
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes());
    }
}

/// Ends all processes that bear a lab's mark, and those that its journal knows. Returns how many there were.
pub fn stop_marked(lab: &str, known: &[Option<ProcessId>]) -> usize {
    let prefix = format!("{lab}:");
    end(known, |mark| mark.starts_with(&prefix))
}

/// A command may have cleared its environment: then only its id is known.
fn end(known: &[Option<ProcessId>], marked: impl Fn(&str) -> bool) -> usize {
    proc::end_all(PATIENCE, || {
        let found = proc::with_variable(OWNER_VARIABLE, &marked);
        proc::and_known(found, known.iter().flatten().copied().filter(|process| process.is_alive()))
    })
}

/// Takes those out that end within [`FIRST_MOMENTS`], each with how it ended. A pidfd is readable once its process
/// has ended.
fn early_ends(running: &mut Vec<(String, OwnedFd)>) -> Vec<(String, String)> {
    let deadline = Instant::now() + FIRST_MOMENTS;
    let mut ended = Vec::new();
    while !running.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = rustix::event::Timespec::try_from(left) else { break };
        let mut polls: Vec<PollFd<'_>> =
            running.iter().map(|(_, handle)| PollFd::new(handle, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polls, Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            // The watching thread will see them.
            Err(_) => break,
        }
        let over: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        let mut over = over.into_iter();
        running.retain(|(mark, handle)| {
            let is_over = over.next().unwrap_or(false);
            if is_over {
                let how = proc::reap(handle).unwrap_or_else(|| ENDED_SOMEHOW.to_owned());
                ended.push((mark.clone(), how));
            }
            !is_over
        });
    }
    ended
}

/// What to say of a command that has failed; none while it runs, or when it has done its work.
fn failure(record: &ProcessRecord) -> Option<String> {
    let ended = record.ended.as_deref().filter(|ended| *ended != "exit status 0")?;
    let ProcessPlan { owner, command, .. } = &record.plan;
    Some(match ended.strip_prefix("not started: ") {
        Some(reason) => format!("{owner}: `{command}` was not started: {reason}"),
        None => format!("{owner}: `{command}` ended with {ended}; see `localvpc logs {owner}`"),
    })
}

/// Writes down how processes end, for as long as control runs.
fn watch(journal: &Journal, watched: &Watched) {
    loop {
        let handles: Vec<(String, Arc<OwnedFd>)> = {
            let handles = watched.handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles.iter().map(|(mark, handle)| (mark.clone(), handle.clone())).collect()
        };
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(watched.changed.as_fd())
            .chain(handles.iter().map(|(_, handle)| handle.as_fd()))
            .collect();
        let mut polls: Vec<PollFd<'_>> =
            descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polls, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "processes are not watched any more");
                return;
            }
        }
        let mut buffer = [0; 8];
        let _ = rustix::io::read(&watched.changed, &mut buffer);
        for ((mark, handle), poll) in handles.iter().zip(&polls[1..]) {
            if poll.revents().is_empty() {
                continue;
            }
            let ended = proc::reap(handle).unwrap_or_else(|| ENDED_SOMEHOW.to_owned());
            watched.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(mark);
            let written = journal.update(|state| {
                if let Some(record) = state.processes.iter_mut().find(|record| &record.mark == mark) {
                    tracing::info!(
                        owner = record.plan.owner,
                        command = record.plan.command,
                        ended,
                        "run ended"
                    );
                    record.ended = Some(ended);
                }
            });
            if let Err(error) = written {
                tracing::error!(%error, "the end of a process was not recorded");
            }
        }
    }
}

/// Starts `sh -c` from a thread that has entered the namespace.
fn spawn(run_dir: &RunDir, namespace: &NamespaceRef, plan: &ProcessPlan, mark: &str) -> Result<u32, Error> {
    let log = run_dir.log(&plan.owner);
    let out = File::options().append(true).create(true).mode(0o640).open(&log).doing("open", &log)?;
    let err = out.try_clone().doing("open", &log)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &plan.command])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .env("PATH", path_with_ourselves())
        .env(OWNER_VARIABLE, mark)
        .envs(plan.environment.iter().map(|(name, value)| (name, value)));
    // SAFETY: setsid(2) is async-signal-safe and touches no memory.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
    netns::in_thread(|| {
        enter(namespace)?;
        // Its end is seen through a pidfd, and it is reaped there.
        command.spawn().map(|child| child.id()).trying(|| format!("run `{}`", plan.command))
    })
}

/// The search path with the directory of the running program in front, so that `localvpc serve` means this one.
fn path_with_ourselves() -> std::ffi::OsString {
    let inherited = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let Some(own) = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)) else {
        return inherited;
    };
    let all = std::iter::once(own).chain(std::env::split_paths(&inherited));
    // A directory with a colon in its name cannot be in a search path.
    std::env::join_paths(all).unwrap_or(inherited)
}

fn mark_number(mark: &str) -> Option<u64> {
    mark.rsplit_once('.')?.1.parse().ok()
}
