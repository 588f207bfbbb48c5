//! Tells processes apart and ends them: `/proc` and pidfds.
//!
//! A process id alone means nothing after a crash: it may belong to somebody else by now. It is
//! believed together with the start time, or with a mark in the environment.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// How long after SIGKILL a process may stay, e.g. in a system call on a dead file server, before it is given up.
const UNKILLABLE: Duration = Duration::from_secs(5);

/// A process, told from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: status(pid)?.1 })
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        status(self.pid).is_some_and(|(state, started)| started == self.started && !"ZX".contains(state))
    }

    /// A handle that cannot come to mean another process; none when it is gone.
    pub fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Before the handle was there it may have ended and the id have been given away.
        let is_it = status(self.pid).is_some_and(|(_, started)| started == self.started);
        is_it.then_some(pidfd)
    }
}

/// Processes whose environment, as it was at their start, has this variable with a value that `matches`. Zombies
/// have none.
pub fn with_variable(name: &str, matches: impl Fn(&str) -> bool) -> Vec<ProcessId> {
    let has = |environment: &[u8]| {
        environment.split(|byte| *byte == 0).any(|entry| {
            entry
                .strip_prefix(name.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
                .and_then(|value| std::str::from_utf8(value).ok())
                .is_some_and(&matches)
        })
    };
    all()
        .filter(|process| fs::read(proc_file(process.pid, "environ")).is_ok_and(|environ| has(&environ)))
        .collect()
}

/// Processes whose command line has these two arguments next to each other.
pub fn with_arguments(first: &str, second: &str) -> Vec<ProcessId> {
    all()
        .filter(|process| {
            let line = fs::read(proc_file(process.pid, "cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            arguments.windows(2).any(|pair| pair == [first.as_bytes(), second.as_bytes()])
        })
        .collect()
}

/// Adds processes that are not among those found.
pub fn and_known(mut found: Vec<ProcessId>, known: impl IntoIterator<Item = ProcessId>) -> Vec<ProcessId> {
    for process in known {
        if !found.contains(&process) {
            found.push(process);
        }
    }
    found
}

/// Ends processes: SIGTERM, and SIGKILL for what is still there after `patience`. Looks again with `find`
/// until nothing is found, for a process may start others while it is being ended. Returns how many there were.
pub fn end_all(patience: Duration, find: impl Fn() -> Vec<ProcessId>) -> usize {
    let own = std::process::id();
    let find = || find().into_iter().filter(|process| process.pid != own).collect::<Vec<_>>();
    let mut ended: Vec<ProcessId> = Vec::new();
    let deadline = Instant::now() + patience;
    loop {
        let handles: Vec<(ProcessId, OwnedFd)> =
            find().into_iter().filter_map(|process| Some((process, process.open()?))).collect();
        if handles.is_empty() || Instant::now() > deadline + UNKILLABLE {
            return ended.len();
        }
        for (process, handle) in &handles {
            let late = Instant::now() >= deadline;
            let first = !ended.contains(process);
            if first {
                ended.push(*process);
            }
            if late || first {
                let signal = if late { Signal::KILL } else { Signal::TERM };
                // Gone by itself in the meantime.
                let _ = rustix::process::pidfd_send_signal(handle, signal);
            }
        }
        for (_, handle) in &handles {
            // SIGKILL needs a moment too, but never long.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(20));
            let _ = wait(handle, left);
            reap(handle);
        }
    }
}

/// Waits until the process has ended. False when it has not after `patience`.
///
/// # Errors
///
/// Those of poll(2).
pub fn wait(pidfd: impl AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut poll, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes a child's exit status, so that no zombie stays: `exit status 1`, `signal 9`. None for somebody else's child,
/// or when it has not ended.
pub fn reap(pidfd: impl AsFd) -> Option<String> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()??;
    Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "ended".to_owned(),
    })
}

fn all() -> impl Iterator<Item = ProcessId> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| ProcessId::of(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

/// State and start time: fields 3 and 22 of `/proc/<pid>/stat`, counted after the command name, which may
/// contain anything.
fn status(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(proc_file(pid, "stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn proc_file(pid: u32, name: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_are_found_by_their_mark_and_ended_even_if_they_refuse() {
        let mark = format!("proc-test:{}", std::process::id());
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; while :; do sleep 60; done"])
            .env("LOCALVPC_TEST_MARK", &mark)
            .spawn()
            .unwrap();
        let find = || with_variable("LOCALVPC_TEST_MARK", |value| value == mark);
        let id = ProcessId::of(child.id()).unwrap();
        // A program that is just being started has no environment yet.
        let patience = std::time::Instant::now() + Duration::from_secs(10);
        while !find().contains(&id) && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        assert!(find().contains(&id) && id.is_alive());
        assert!(end_all(Duration::from_millis(50), find) >= 1);
        let _ = child.wait();
        assert!(!id.is_alive());
    }

    #[test]
    fn a_later_process_with_the_same_id_is_another() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
        assert!(ProcessId { started: own.started + 1, ..own }.open().is_none());
    }
}
