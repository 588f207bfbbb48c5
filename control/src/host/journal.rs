//! What a lab has made of the machine, on disk before it is made.
//!
//! `state.json` is replaced as a whole by rename. A reader after a crash sees everything that exists, and
//! perhaps one object that was about to be made.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use localvpc_api::settings::Settings;
use serde::{Deserialize, Serialize};

use super::names::ETC_NETNS;
use super::netns::Identity;
use super::plan::{NamespacePlan, ProcessPlan};
use super::proc::ProcessId;
use super::{Error, IoContext, RunDir};

/// Version of the file's format. Another one is not read: the lab is found by its marks alone.
const FORMAT: u32 = 1;

/// The journal of one lab, in memory and on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

/// Content of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The lab.
    pub lab: String,
    /// Distinguishes this life of the lab from earlier ones, in process marks.
    pub nonce: String,
    /// Whether `/etc/netns` was made for this lab, to be removed with it when nobody else has put anything there.
    pub made_etc_netns: bool,
    /// Namespaces with their links, in the order in which they were made.
    pub namespaces: Vec<NamespaceRecord>,
    /// `run:` commands.
    pub processes: Vec<ProcessRecord>,
    /// The control that wrote this.
    pub control: Option<ProcessId>,
    /// The dataplane.
    pub dataplane: Option<ProcessId>,
    /// How the dataplane works.
    #[serde(default)]
    pub settings: Settings,
    /// What is in force; none before the first `up` has succeeded.
    pub document: Option<Document>,
}

/// The document in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Where it came from, for messages.
    pub file: String,
    /// The document.
    pub text: String,
    /// Generation of the tables made of it.
    pub generation: u64,
    /// The numbers given to resources so far, as [`lower`](crate::lower) keeps them.
    pub ids: serde_json::Value,
}

/// A namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// What was asked for.
    pub plan: NamespacePlan,
    /// How far it has come.
    pub stage: Stage,
    /// Which namespace it is, once it is there.
    pub identity: Option<Identity>,
}

/// How far a namespace has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Being made, or being removed: any part of it may be missing.
    Partial,
    /// Complete.
    Ready,
}

/// A `run:` command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Name of its namespace in the plan.
    pub namespace: String,
    /// What was asked for.
    pub plan: ProcessPlan,
    /// Its mark: the value of `LOCALVPC_OWNER` in its environment.
    pub mark: String,
    /// The process; none before it was started.
    pub process: Option<ProcessId>,
    /// How it ended.
    pub ended: Option<String>,
}

impl Journal {
    /// The journal of a lab that has nothing yet, written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be written.
    pub fn new(run_dir: &RunDir) -> Result<Self, Error> {
        let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let state = State {
            format: FORMAT,
            lab: run_dir.lab().to_owned(),
            nonce: format!("{:x}{:x}", std::process::id(), since_epoch.as_nanos()),
            made_etc_netns: !Path::new(ETC_NETNS).exists(),
            namespaces: Vec::new(),
            processes: Vec::new(),
            control: ProcessId::of(std::process::id()),
            dataplane: None,
            settings: Settings::default(),
            document: None,
        };
        write(&run_dir.journal(), &state)?;
        Ok(Self::from_state(run_dir, state))
    }

    /// The journal with this content, which is on disk.
    pub fn from_state(run_dir: &RunDir, state: State) -> Self {
        Self { path: run_dir.journal(), state: Mutex::new(state) }
    }

    /// Reads what an earlier process left. None when there is none that can be read: the marks remain.
    pub fn read(run_dir: &RunDir) -> Option<State> {
        let state: State = serde_json::from_slice(&fs::read(run_dir.journal()).ok()?).ok()?;
        (state.format == FORMAT && state.lab == run_dir.lab()).then_some(state)
    }

    /// A copy of the content.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Looks something up in the content.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the content, on disk first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; then nothing has changed.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut state = self.lock();
        let mut next = state.clone();
        change(&mut next);
        write(&self.path, &next)?;
        *state = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a whole state: it is replaced in one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A namespace by its name in the plan.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceRecord> {
        self.namespaces.iter().find(|record| record.plan.name == name)
    }

    /// Whether a command of a namespace was started, also when it has ended since.
    pub fn knows_command(&self, namespace: &str, plan: &ProcessPlan) -> bool {
        self.processes.iter().any(|record| record.namespace == namespace && record.plan == *plan)
    }

    /// Puts a namespace in, in place of one with the same name.
    pub fn put_namespace(&mut self, record: NamespaceRecord) {
        match self.namespaces.iter_mut().find(|old| old.plan.name == record.plan.name) {
            Some(old) => *old = record,
            None => self.namespaces.push(record),
        }
    }
}

fn write(path: &Path, state: &State) -> Result<(), Error> {
    let aside = path.with_extension("json.new");
    let json = serde_json::to_vec(state).map_err(std::io::Error::other).doing("write", path)?;
    let mut file: File = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .doing("write", &aside)?;
    file.write_all(&json).doing("write", &aside)?;
    fs::rename(&aside, path).doing("write", path)
}
