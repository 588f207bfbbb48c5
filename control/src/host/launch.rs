//! Starts the dataplane's program and talks to it over its socket, one request at a time.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use localvpc_api::LinkId;
use localvpc_api::message::{self, PROTOCOL, Reply, Request};
use localvpc_api::socket::{Channel, ReceiveError};

use super::dataplane::Error;
use super::journal::Journal;
use super::proc::{self, ProcessId};
use super::process::OWNER_VARIABLE;
use super::{IoContext, RunDir};

/// Names the dataplane's program, which otherwise is beside the running one.
pub const PROGRAM_VARIABLE: &str = "LOCALVPC_DATAPLANE";

/// Name of the program.
pub const PROGRAM: &str = "localvpc-dataplane";

/// How long a reply may take. Installing large tables is the longest.
pub const REPLY: Duration = Duration::from_secs(20);

/// How long the process may take until its socket listens.
pub const START: Duration = Duration::from_secs(10);

/// A dataplane that has been greeted.
#[derive(Debug)]
pub struct Running {
    channel: Channel,
    /// The process that answers.
    pub process: ProcessId,
    /// Its worker threads, and so the queues that a link should have.
    pub workers: u32,
    next_id: u64,
}

impl Running {
    /// One request and its reply, with the descriptors beside the reply.
    pub fn ask(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        self.next_id += 1;
        let id = self.next_id;
        self.channel.send(id, request, descriptors).map_err(|error| Error::Channel(error.to_string()))?;
        loop {
            let received = self.channel.receive::<Reply>().map_err(|error| match error {
                ReceiveError::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    Error::Channel(format!("nothing came for {} seconds", REPLY.as_secs()))
                }
                ReceiveError::Refused { error: message::Error::Malformed { detail }, .. } => {
                    Error::OtherBuild { detail }
                }
                error => Error::Channel(error.to_string()),
            })?;
            match received.content {
                // Late answer to a request that was given up.
                _ if received.id < id && received.id != 0 => {}
                Reply::Error(message::Error::WrongProtocol { offered, supported }) => {
                    let detail = format!("it speaks protocol {supported}, not {offered}");
                    return Err(Error::OtherBuild { detail });
                }
                Reply::Error(message::Error::Malformed { detail }) => {
                    return Err(Error::OtherBuild { detail });
                }
                Reply::Error(error) => return Err(Error::Refused(error)),
                reply => return Ok((reply, received.descriptors)),
            }
        }
    }
}

/// Starts the program and shakes hands.
pub fn launch(run_dir: &RunDir, journal: &Journal) -> Result<Running, Error> {
    let program = program()?;
    let socket = run_dir.dataplane_socket();
    // A dead one's socket: the name is ours, and nobody listens.
    let _ = fs::remove_file(&socket);
    let log_path = run_dir.log("dataplane");
    let log =
        fs::File::options().append(true).create(true).mode(0o640).open(&log_path).doing("open", &log_path)?;
    let length_before = log.metadata().map_or(0, |file| file.len());
    let (mut ready, writer) = std::io::pipe().trying(|| "make a pipe".to_owned())?;
    let writer = OwnedFd::from(writer);
    let inherited = writer.as_raw_fd();
    let mut command = Command::new(&program);
    command
        .arg("--socket")
        .arg(&socket)
        .arg("--ready-fd")
        .arg(inherited.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().doing("open", &log_path)?)
        .stderr(log)
        .env_remove(OWNER_VARIABLE);
    // SAFETY: setsid(2) and fcntl(2) are async-signal-safe and touch no memory; the descriptor is open until spawn() has
    // returned, because `writer` is dropped after it.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            let writer = BorrowedFd::borrow_raw(inherited);
            rustix::io::fcntl_setfd(writer, rustix::io::FdFlags::empty())?;
            Ok(())
        })
    };
    let child = command.spawn().doing("start", &program)?;
    drop(writer);
    let process =
        ProcessId::of(child.id()).ok_or_else(|| not_started(run_dir, length_before, "it ended at once"))?;
    journal.update(|state| state.dataplane = Some(process))?;

    let began = proc::wait(&ready, START).doing("read", &log_path)?;
    let said = if began { ready.read(&mut [0; 1]).unwrap_or(0) } else { 0 };
    if said == 0 {
        let reason = if began { "it ended before it was ready" } else { "it did not become ready in time" };
        stop_marked(run_dir, Some(process));
        return Err(not_started(run_dir, length_before, reason));
    }
    match greet(run_dir, process) {
        Ok((running, _)) => Ok(running),
        Err(error) => {
            stop_marked(run_dir, Some(process));
            Err(error)
        }
    }
}

/// Connects and says hello; returns the links that it holds.
pub fn greet(run_dir: &RunDir, process: ProcessId) -> Result<(Running, Vec<LinkId>), Error> {
    let channel = Channel::connect(&run_dir.dataplane_socket()).map_err(|e| Error::Channel(e.to_string()))?;
    say_hello(channel, process)
}

fn say_hello(channel: Channel, process: ProcessId) -> Result<(Running, Vec<LinkId>), Error> {
    channel.limit(Some(REPLY)).map_err(|e| Error::Channel(e.to_string()))?;
    let mut running = Running { channel, process, workers: 1, next_id: 0 };
    match running.ask(&Request::Hello { protocol: PROTOCOL }, &[])?.0 {
        Reply::Welcome { workers, links, pid, .. } => {
            running.workers = workers.max(1);
            // The one that answers is the one to watch.
            if let Some(process) = ProcessId::of(pid) {
                running.process = process;
            }
            Ok((running, links))
        }
        other => Err(unexpected(&other)),
    }
}

/// Ends every dataplane of this lab, known or found by its command line.
pub fn stop_marked(run_dir: &RunDir, known: Option<ProcessId>) -> usize {
    let ended = proc::end_all(Duration::from_secs(2), || {
        // Its command line is checked too: an id of an old journal may be somebody else's.
        let known = known.filter(|process| process.is_alive() && is_dataplane(*process));
        proc::and_known(find(run_dir), known)
    });
    if let Some(handle) = known.filter(|process| !process.is_alive()).and_then(ProcessId::open) {
        // Killed a moment ago: it counts as ended with its first thread, its devices go with the last.
        let _ = proc::wait(&handle, START);
    }
    ended
}

/// Dataplanes with this lab's socket in their command line.
pub fn find(run_dir: &RunDir) -> Vec<ProcessId> {
    proc::with_arguments("--socket", &run_dir.dataplane_socket().to_string_lossy())
}

fn is_dataplane(process: ProcessId) -> bool {
    fs::read(format!("/proc/{}/cmdline", process.pid))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == b"--socket"))
}

fn program() -> Result<PathBuf, Error> {
    let path = match std::env::var_os(PROGRAM_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(|directory| directory.join(PROGRAM)))
            .unwrap_or_else(|| PathBuf::from(PROGRAM)),
    };
    if path.exists() { Ok(path) } else { Err(Error::NoProgram { path }) }
}

/// With the last line that it wrote since it was started, which says more than we know.
fn not_started(run_dir: &RunDir, length_before: u64, otherwise: &str) -> Error {
    let log = run_dir.log("dataplane");
    let reason = last_line(&log, length_before).unwrap_or_else(|| otherwise.to_owned());
    Error::NotStarted { reason, log }
}

fn last_line(log: &Path, from: u64) -> Option<String> {
    let text = fs::read(log).ok()?;
    let new = String::from_utf8_lossy(text.get(usize::try_from(from).ok()?..)?).into_owned();
    new.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

/// An answer of the wrong kind.
pub fn unexpected(reply: &Reply) -> Error {
    let reply: String = format!("{reply:?}").chars().take(80).collect();
    Error::Channel(format!("it answered something else: {reply}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_build_is_named_as_such() {
        for answer in [
            json!({ "error": { "wrong_protocol": { "offered": 1, "supported": 2 } } }),
            json!({ "error": { "malformed": { "detail": "unknown variant `hello`" } } }),
            json!({ "welcome": { "protocol": 2 } }),
        ] {
            let (ours, theirs) = Channel::pair().unwrap();
            theirs.send(1, &answer, &[]).unwrap();
            let process = ProcessId::of(std::process::id()).unwrap();
            let error = say_hello(ours, process).unwrap_err();
            assert!(matches!(error, Error::OtherBuild { .. }), "{answer}: {error:?}");
            let text = error.to_string();
            assert!(text.contains("another build") && text.contains(PROGRAM_VARIABLE), "{text}");
        }
    }
}
