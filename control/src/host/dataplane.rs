//! Starts the dataplane, talks to it, and replaces it when it dies.
//!
//! What the dataplane holds (queues of devices, tables), control holds too. When the process ends, a watching thread
//! starts another one, hands the same descriptors over and pushes the same tables: interfaces, routes and
//! processes in the namespaces notice a pause. The dataplane in turn outlives control, and gives
//! the descriptors back to the next one ([`Dataplane::adopt`]).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use localvpc_api::message::{self, Offload, Reply, Request};
use localvpc_api::settings::Settings;
use localvpc_api::{LinkId, Tables};

use super::journal::Journal;
use super::launch::{
    PROGRAM, PROGRAM_VARIABLE, REPLY, Running, START, find, greet, launch, stop_marked, unexpected,
};
use super::proc::{self, ProcessId};
use super::{IoContext, RunDir};

/// Pause before the second start in a row; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A dataplane that ran this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// What went wrong with the dataplane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error(
        "the dataplane's program {path} does not exist: install {PROGRAM} beside localvpc, or name it in {PROGRAM_VARIABLE}",
        path = .path.display()
    )]
    NoProgram {
        /// Where it was expected.
        path: PathBuf,
    },
    /// It ended, or said nothing, before it was ready.
    #[error("the dataplane did not start: {reason} (its log: {log})", log = .log.display())]
    NotStarted {
        /// Its last words, or what it did not do.
        reason: String,
        /// The whole log.
        log: PathBuf,
    },
    /// It died and its successor is not there yet.
    #[error("the dataplane is being restarted: try again in a moment")]
    Restarting,
    /// The lab is being taken down.
    #[error("the dataplane has been stopped")]
    Stopped,
    /// It refused, and said why.
    #[error("the dataplane refused: {0}")]
    Refused(#[from] message::Error),
    /// The two programs do not understand each other.
    #[error(
        "the dataplane is of another build than this localvpc ({detail}): install localvpc and {PROGRAM} of one build side by \
         side, or name the right one in {PROGRAM_VARIABLE}; then run `localvpc up` again"
    )]
    OtherBuild {
        /// What showed it.
        detail: String,
    },
    /// It could not be reached, or answered something else than was asked for.
    #[error("no answer from the dataplane: {0}")]
    Channel(String),
    /// The machine refused.
    #[error(transparent)]
    Host(Box<super::Error>),
}

impl From<super::Error> for Error {
    fn from(error: super::Error) -> Self {
        Self::Host(Box::new(error))
    }
}

/// The dataplane of a lab: whichever process it is at the moment.
#[derive(Debug)]
pub struct Dataplane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run_dir: RunDir,
    journal: Arc<Journal>,
    inner: Mutex<Inner>,
    /// Notified when `inner.phase` has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Our copies of everything it was handed.
    links: BTreeMap<LinkId, Link>,
    /// Of these, those that it refused when it took over: their devices are gone.
    refused: BTreeSet<LinkId>,
    /// What it was pushed last.
    tables: Option<Tables>,
    /// How it works.
    settings: Settings,
    restarts: u32,
}

#[derive(Debug)]
enum Phase {
    Running(Running),
    Restarting,
    Stopped,
}

/// A device's queues.
#[derive(Debug)]
struct Link {
    offload: Offload,
    queues: Vec<OwnedFd>,
}

impl Dataplane {
    /// Starts a dataplane that holds nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoProgram`], [`Error::NotStarted`], or what went wrong with the socket.
    pub fn start(run_dir: &RunDir, journal: Arc<Journal>) -> Result<Self, Error> {
        let running = launch(run_dir, &journal)?;
        Self::watched(run_dir, journal, running, BTreeMap::new())
    }

    /// Connects to the dataplane that a dead control left, and takes its descriptors back. None when there is none that
    /// could be talked to; what is left of it is ended then.
    ///
    /// # Errors
    ///
    /// When it speaks our protocol and nevertheless fails.
    pub fn adopt(run_dir: &RunDir, journal: Arc<Journal>) -> Result<Option<Self>, Error> {
        let known = journal.look(|state| state.dataplane);
        let found = known.filter(|process| process.is_alive()).or_else(|| find(run_dir).into_iter().next());
        let greeted = found.and_then(|process| match greet(run_dir, process) {
            Ok(greeted) => Some(greeted),
            Err(error) => {
                tracing::warn!(%error, "the dataplane that was left is replaced");
                None
            }
        });
        let Some((mut running, links)) = greeted else {
            stop_marked(run_dir, known);
            return Ok(None);
        };
        let mut held = BTreeMap::new();
        for link in links {
            match running.ask(&Request::HandBack { link }, &[])? {
                (Reply::Link { offload, .. }, queues) => held.insert(link, Link { offload, queues }),
                (other, _) => return Err(unexpected(&other)),
            };
        }
        journal.update(|state| state.dataplane = Some(running.process))?;
        Self::watched(run_dir, journal, running, held).map(Some)
    }

    fn watched(
        run_dir: &RunDir,
        journal: Arc<Journal>,
        running: Running,
        links: BTreeMap<LinkId, Link>,
    ) -> Result<Self, Error> {
        let settings = journal.look(|state| state.settings);
        let inner = Inner {
            phase: Phase::Running(running),
            links,
            refused: BTreeSet::new(),
            tables: None,
            settings,
            restarts: 0,
        };
        let shared = Arc::new(Shared {
            run_dir: run_dir.clone(),
            journal,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        });
        let watched = shared.clone();
        std::thread::Builder::new()
            .name("dataplane".into())
            .spawn(move || watched.watch())
            .trying(|| "watch the dataplane".to_owned())?;
        Ok(Self { shared })
    }

    /// Worker threads, and so queues that a device should have.
    ///
    /// # Errors
    ///
    /// [`Error::Restarting`] when there is none for too long.
    pub fn workers(&self) -> Result<u32, Error> {
        self.shared.running(|running| Ok(running.workers))
    }

    /// Times it had to be restarted since this control started.
    pub fn restarts(&self) -> u32 {
        self.shared.lock().restarts
    }

    /// Links that this dataplane refused when it took over from another one, because their devices are gone.
    pub fn refused(&self) -> Vec<LinkId> {
        self.shared.lock().refused.iter().copied().collect()
    }

    /// Links whose queues are held.
    pub fn links(&self) -> Vec<LinkId> {
        self.shared.lock().links.keys().copied().collect()
    }

    /// Hands the queues of a device over.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; the queues are closed then, and the device is gone.
    pub fn attach(&self, link: LinkId, offload: Offload, queues: Vec<OwnedFd>) -> Result<(), Error> {
        self.shared.lock().links.insert(link, Link { offload, queues });
        let attached = self.shared.change(|inner| match inner.hand_over(link) {
            // Its successor got it at its start.
            Err(Error::Refused(message::Error::LinkAttached { .. })) => Ok(()),
            other => other,
        });
        if attached.is_err() {
            self.shared.lock().links.remove(&link);
        }
        attached
    }

    /// Takes a device away: it is gone when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] and the like. A link that is not attached is no error.
    pub fn detach(&self, link: LinkId) -> Result<(), Error> {
        {
            let mut inner = self.shared.lock();
            inner.links.remove(&link);
            inner.refused.remove(&link);
        }
        self.shared.change(|inner| match inner.running()?.ask(&Request::DetachLink { link }, &[]) {
            Ok((Reply::Done, _)) | Err(Error::Refused(message::Error::LinkNotAttached { .. })) => Ok(()),
            Ok((other, _)) => Err(unexpected(&other)),
            Err(error) => Err(error),
        })
    }

    /// Puts tables in force. They are what a successor gets.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] names the row at fault; the old tables stay in force.
    pub fn install(&self, tables: &Tables) -> Result<(), Error> {
        self.shared.change(|inner| inner.push(tables))?;
        self.shared.lock().tables = Some(tables.clone());
        Ok(())
    }

    /// How it works.
    pub fn settings(&self) -> Settings {
        self.shared.lock().settings
    }

    /// Lets it, and its successors, work by other settings.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] and the like.
    pub fn configure(&self, settings: Settings) -> Result<(), Error> {
        self.shared.change(|inner| inner.configure(settings))?;
        self.shared.lock().settings = settings;
        Ok(())
    }

    /// Remembers tables that are in force already, for a successor.
    pub fn remember(&self, tables: Tables) {
        self.shared.lock().tables = Some(tables);
    }

    /// Asks for a report.
    ///
    /// # Errors
    ///
    /// [`Error::Restarting`] at once while there is no dataplane; else as the dataplane answers.
    pub fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let mut inner = self.shared.lock();
        let reply = inner.running().and_then(|running| running.ask(request, &[]));
        if matches!(reply, Err(Error::Channel(_))) && !self.shared.reconnect(&mut inner) {
            return Err(Error::Restarting);
        }
        reply.map(|(reply, _)| reply)
    }

    /// Ends it for good.
    pub fn stop(&self) {
        let process = {
            let mut inner = self.shared.lock();
            inner.links.clear();
            match std::mem::replace(&mut inner.phase, Phase::Stopped) {
                Phase::Running(running) => Some(running.process),
                Phase::Restarting | Phase::Stopped => None,
            }
        };
        self.shared.changed.notify_all();
        stop_marked(&self.shared.run_dir, process);
    }
}

impl Drop for Dataplane {
    /// Lets go of it: the process runs on, the watching thread ends with this process.
    fn drop(&mut self) {
        self.shared.lock().phase = Phase::Stopped;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under this lock is a bug in this file; what it left is still the best that is known.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the running dataplane, or with its successor when it dies over it.
    fn change<T>(&self, change: impl Fn(&mut Inner) -> Result<T, Error>) -> Result<T, Error> {
        let deadline = Instant::now() + START + REPLY;
        loop {
            let mut inner = self.wait_for_running(deadline)?;
            match change(&mut inner) {
                Err(Error::Channel(reason)) => {
                    let Phase::Running(running) = &inner.phase else { return Err(Error::Channel(reason)) };
                    if !has_ended(running.process) {
                        return Err(Error::Channel(reason));
                    }
                    // It is dead; the watching thread replaces it as soon as it gets the lock.
                    inner.phase = Phase::Restarting;
                    self.changed.notify_all();
                }
                other => return other,
            }
        }
    }

    /// After a failed exchange: a new connection, if the process lives. False when it is dead; the watching thread
    /// replaces it as soon as it gets the lock.
    fn reconnect(&self, inner: &mut Inner) -> bool {
        let Phase::Running(running) = &mut inner.phase else { return true };
        let ended = has_ended(running.process);
        if ended {
            inner.phase = Phase::Restarting;
            self.changed.notify_all();
        } else if let Ok((fresh, _)) = greet(&self.run_dir, running.process) {
            *running = fresh;
        }
        !ended
    }

    fn running<T>(&self, look: impl Fn(&Running) -> Result<T, Error>) -> Result<T, Error> {
        let mut inner = self.wait_for_running(Instant::now() + START)?;
        look(inner.running()?)
    }

    fn wait_for_running(&self, deadline: Instant) -> Result<MutexGuard<'_, Inner>, Error> {
        let mut inner = self.lock();
        loop {
            match inner.phase {
                Phase::Running(_) => return Ok(inner),
                Phase::Stopped => return Err(Error::Stopped),
                Phase::Restarting => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Restarting);
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the process to end and replaces it, until the dataplane is stopped.
    fn watch(&self) {
        let mut pause = Duration::ZERO;
        loop {
            let handle = match &self.lock().phase {
                Phase::Running(running) => running.process.open(),
                Phase::Restarting => None,
                Phase::Stopped => return,
            };
            let since = Instant::now();
            let mut how = None;
            if let Some(handle) = handle {
                while !proc::wait(&handle, Duration::from_secs(3600)).unwrap_or(true) {}
                how = proc::reap(&handle);
            }
            if since.elapsed() > SETTLED {
                pause = Duration::ZERO;
            }
            let mut inner = self.lock();
            if matches!(inner.phase, Phase::Stopped) {
                return;
            }
            tracing::warn!(how = how.as_deref().unwrap_or("it ended"), "there is no dataplane: starting one");
            inner.phase = Phase::Restarting;
            self.changed.notify_all();
            let until = Instant::now() + pause;
            while !matches!(inner.phase, Phase::Stopped) && Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if matches!(inner.phase, Phase::Stopped) {
                return;
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            inner.restarts += 1;
            match self.replace(&mut inner) {
                Ok(()) => tracing::info!(restarts = inner.restarts, "a new dataplane has taken over"),
                Err(error) => tracing::error!(%error, "the dataplane could not be restarted"),
            }
            self.changed.notify_all();
        }
    }

    /// Starts a successor and gives it everything.
    fn replace(&self, inner: &mut Inner) -> Result<(), Error> {
        inner.phase = Phase::Running(launch(&self.run_dir, &self.journal)?);
        let result = (|| {
            let settings = inner.settings;
            inner.configure(settings)?;
            inner.refused.clear();
            for link in inner.links.keys().copied().collect::<Vec<_>>() {
                match inner.hand_over(link) {
                    // One device that somebody has deleted must not cost all others their packets.
                    Err(Error::Refused(message::Error::BadDescriptor { detail, .. })) => {
                        tracing::error!(%link, detail, "the device of a link is gone");
                        inner.refused.insert(link);
                    }
                    other => other?,
                }
            }
            match inner.tables.take() {
                Some(tables) => {
                    let pushed = inner.push(&tables);
                    inner.tables = Some(tables);
                    pushed
                }
                None => Ok(()),
            }
        })();
        if result.is_err()
            && let Phase::Running(running) = std::mem::replace(&mut inner.phase, Phase::Restarting)
        {
            stop_marked(&self.run_dir, Some(running.process));
        }
        result
    }
}

/// Whether a process with which an exchange has failed is dead. Of one that was killed the sockets are closed first: the rest of
/// its end is waited for.
fn has_ended(process: ProcessId) -> bool {
    let Some(handle) = process.open() else { return true };
    let ends_within = |patience| proc::wait(&handle, patience).unwrap_or(false);
    ends_within(FIRST_PAUSE) || proc::is_ending(process.pid) && ends_within(START)
}

impl Inner {
    fn running(&mut self) -> Result<&mut Running, Error> {
        match &mut self.phase {
            Phase::Running(running) => Ok(running),
            Phase::Restarting => Err(Error::Restarting),
            Phase::Stopped => Err(Error::Stopped),
        }
    }

    fn hand_over(&mut self, link: LinkId) -> Result<(), Error> {
        let Phase::Running(running) = &mut self.phase else { return Err(Error::Restarting) };
        let Some(Link { offload, queues }) = self.links.get(&link) else { return Ok(()) };
        let queues: Vec<BorrowedFd<'_>> = queues.iter().map(AsFd::as_fd).collect();
        match running.ask(&Request::AttachLink { link, offload: *offload }, &queues)?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Error> {
        match self.running()?.ask(&Request::Configure(settings), &[])?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn push(&mut self, tables: &Tables) -> Result<(), Error> {
        let installed = match self.running()?.ask(&Request::Install(tables.clone()), &[]) {
            // It died after it had taken them, or its successor got them at its start.
            Err(Error::Refused(message::Error::StaleGeneration { offered, installed }))
                if offered == installed =>
            {
                return Ok(());
            }
            other => other?.0,
        };
        match installed {
            Reply::Installed { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}
