//! Programs that are run to their end, or until they are not needed any more.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait;

/// What no program may need: it hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A program that has ended.
#[derive(Debug)]
pub struct Done {
    /// The command line.
    pub command: String,
    /// Exit status; 128 and the signal's number when it was killed.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Done {
    /// Requires exit status 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Requires an exit status.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit status (left) of:\n{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr, took } = self;
        write!(f, "$ {command}\n{stdout}{stderr}[exit status {code} after {took:?}]")
    }
}

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    started: Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a program, its output collected.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child = start(command, Stdio::piped());
        // `piped` above.
        let stdout = Some(collect(child.stdout.take().unwrap()));
        let stderr = Some(collect(child.stderr.take().unwrap()));
        Self { command: line(command), child, started: Instant::now(), stdout, stderr }
    }

    /// Starts a program whose standard output the caller reads.
    #[track_caller]
    pub fn start_reading(command: &mut Command) -> (Self, impl Read + Send + use<>) {
        let mut child = start(command, Stdio::piped());
        // `piped` above.
        let stdout = child.stdout.take().unwrap();
        let stderr = Some(collect(child.stderr.take().unwrap()));
        (Self { command: line(command), child, started: Instant::now(), stdout: None, stderr }, stdout)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Done {
        let status = wait::within(HANGS, || self.child.try_wait().ok().flatten());
        let Some(status) = status else { panic!("it hangs: {}", self.command) };
        let output = |thread: Option<JoinHandle<String>>| {
            // The threads do nothing that could panic.
            thread.map(|thread| thread.join().unwrap()).unwrap_or_default()
        };
        Done {
            command: self.command.clone(),
            code: code(status),
            stdout: output(self.stdout.take()),
            stderr: output(self.stderr.take()),
            took: self.started.elapsed(),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        signal_process(self.pid(), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    Running::start(command).end()
}

/// Runs a line of words, as it would be typed.
#[track_caller]
pub fn run_line(line: &str) -> Done {
    let mut words = line.split_whitespace();
    // Every caller writes at least a program.
    run(Command::new(words.next().unwrap()).args(words))
}

/// Sends a signal to a process that the test knows to be its own.
pub fn signal_process(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // Process ids fit, and are not zero.
    let _ = rustix::process::kill_process(pid.unwrap(), signal);
}

#[track_caller]
fn start(command: &mut Command, stdout: Stdio) -> Child {
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            panic!("cannot run {}: {error} (scripts/test installs the tools that tests need)", line(command))
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
