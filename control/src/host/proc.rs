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

/// How long the kernel may take from the moment at which a program is being started until its arguments and environment can
/// be read.
const START: Duration = Duration::from_secs(2);

/// `PF_EXITING` and `PF_KTHREAD` of the kernel's `sched.h`, as `/proc/<pid>/stat` shows them.
const EXITING: u32 = 0x0000_0004;
const KERNEL_THREAD: u32 = 0x0020_0000;

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
        Some(Self { pid, started: status(pid)?.started })
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        status(self.pid).is_some_and(|status| status.started == self.started && !status.is_dead())
    }

    /// A handle that cannot come to mean another process; none when it is gone.
    pub fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Before the handle was there it may have ended and the id have been given away.
        let is_it = status(self.pid).is_some_and(|status| status.started == self.started);
        is_it.then_some(pidfd)
    }
}

/// Whether the process with this id has ended, or is about to: it does nothing any more but close what it had open.
pub fn is_ending(pid: u32) -> bool {
    status(pid).is_none_or(|status| status.is_dead() || status.flags & EXITING != 0)
}

/// Processes whose environment, as it was at their start, has this variable with a value that `matches`. Zombies
/// have none. One that is just being started has none yet, and is waited for.
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
    let environment = |process: &ProcessId| settled(*process, "environ", "cmdline");
    all().filter(|process| environment(process).is_some_and(|environment| has(&environment))).collect()
}

/// Processes whose command line has these two arguments next to each other. One that is just being started has none yet,
/// and is waited for.
pub fn with_arguments(first: &str, second: &str) -> Vec<ProcessId> {
    all()
        .filter(|process| {
            let line = settled(*process, "cmdline", "environ").unwrap_or_default();
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
    let deadline = Instant::now() + patience;
    let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
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

/// A file of a process in `/proc`, once the program that it runs has been started: in the middle of execve(2) both its
/// arguments and its environment are empty, which they are otherwise never together.
fn settled(process: ProcessId, name: &str, other: &str) -> Option<Vec<u8>> {
    let deadline = Instant::now() + START;
    loop {
        let content = fs::read(proc_file(process.pid, name)).ok()?;
        let is_starting = || {
            let is_empty = fs::read(proc_file(process.pid, other)).is_ok_and(|other| other.is_empty());
            let runs = |status: Status| status.started == process.started && !status.is_dead();
            let is_program = |status: Status| status.flags & (EXITING | KERNEL_THREAD) == 0 && runs(status);
            is_empty && status(process.pid).is_some_and(is_program)
        };
        if !content.is_empty() || !is_starting() || Instant::now() > deadline {
            return Some(content);
        }
        std::thread::yield_now();
    }
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy)]
struct Status {
    state: char,
    flags: u32,
    started: u64,
}

impl Status {
    fn is_dead(self) -> bool {
        "ZX".contains(self.state)
    }
}

/// Fields 3, 9 and 22 of `/proc/<pid>/stat`, counted after the command name, which may contain anything.
fn status(pid: u32) -> Option<Status> {
    let stat = fs::read_to_string(proc_file(pid, "stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Status { state, flags, started: fields.nth(12)?.parse().ok()? })
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
        // Also right after it was started.
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
