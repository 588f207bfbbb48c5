//! `localvpc daemon`: the lab's daemon, which `up` starts; and how it is started.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use super::Failure;
use crate::host::RunDir;
use crate::host::run_dir::RUN_DIR_VARIABLE;

/// Run the daemon of a lab in the foreground, without applying a file
///
/// `up` starts it. Once it takes requests it writes `ready` to standard output, and nothing afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sudo localvpc daemon two-tier")]
pub struct Args {
    /// The lab
    name: String,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let run_dir = RunDir::of(&args.name)?;
    // A session of its own: Ctrl-C and hang-ups of the terminal that started us are not meant for us. Fails
    // where we lead a group already, as under systemd; then nobody else's signals come here.
    let _ = rustix::process::setsid();
    crate::daemon::run(run_dir, say_ready)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells who started us, and lets go of the pipe to them.
fn say_ready() {
    let mut stdout = std::io::stdout().lock();
    // Whoever started us may be gone: the daemon runs all the same.
    let _ = stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush());
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
    }
}

const READY: &str = "ready\n";

/// Starts the daemon as a process of its own and returns once it takes requests.
///
/// # Errors
/// [`Failure::DaemonStart`] with what it wrote to its log.
pub fn in_background(run_dir: &RunDir) -> Result<(), Failure> {
    run_dir.create()?;
    let log_path = run_dir.log("control");
    let system = |action| move |source| Failure::System { action, source };
    let log =
        File::options().create(true).append(true).open(&log_path).map_err(system("open the daemon's log"))?;
    let before = log.metadata().map_or(0, |meta| meta.len());
    // It works in `/`, so that it holds no file system busy; a relative path would mean another place there.
    let parent = run_dir.path().parent().unwrap_or(run_dir.path());
    let parent = std::path::absolute(parent).map_err(system("find the run directory"))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("localvpc")
        .args(["daemon", run_dir.lab()])
        .current_dir("/")
        .env(RUN_DIR_VARIABLE, parent)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(system("start the daemon"))?;
    let mut said = [0; READY.len()];
    // `piped` above.
    if child.stdout.take().unwrap().read_exact(&mut said).is_ok() && said == *READY.as_bytes() {
        return Ok(());
    }
    // Its standard output is closed, so it is ending.
    let status = child.wait().map_err(system("wait for the daemon"))?;
    let log = fs::read(&log_path).unwrap_or_default();
    let reason = last_words(&String::from_utf8_lossy(log.get(before as usize..).unwrap_or_default()))
        .unwrap_or_else(|| status.to_string());
    Err(Failure::DaemonStart { lab: run_dir.lab().to_owned(), reason })
}

/// The error with which the daemon ended; without one, all that it said.
fn last_words(log: &str) -> Option<String> {
    let error = log.rfind("error: ").map(|at| &log[at + "error: ".len()..]);
    Some(error.unwrap_or(log).trim().to_owned()).filter(|words| !words.is_empty())
}

/// Becomes the daemon, and lets `first` run beside it as soon as it takes requests.
///
/// # Errors
/// Those of `first`; else the daemon's.
pub fn in_foreground(
    run_dir: RunDir,
    first: impl FnOnce(RunDir) -> Result<(), Failure> + Send,
) -> Result<ExitCode, Failure> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let for_first = run_dir.clone();
        // Where the daemon ends before it is ready, it says why itself.
        let first = scope.spawn(move || is_ready.recv().map_or(Ok(()), |()| first(for_first)));
        // The receiver lives until it has received.
        let ended = crate::daemon::run(run_dir, move || {
            let _ = ready.send(());
        });
        first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ended?;
        Ok(ExitCode::SUCCESS)
    })
}
