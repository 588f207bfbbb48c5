//! From the plan in force to the next one, or back.
//!
//! ```text
//! before the tables     make new namespaces and links, change links in place     undone when anything fails
//! the tables            pushed by the caller: the moment at which it counts
//! after the tables      end and start commands, remove what is gone              goes on when something fails
//! ```
//!
//! A namespace is changed in place as long as it is the same one with the same device; what did not change is not
//! touched.

use std::path::Path;
use std::sync::Arc;

use super::dataplane::Dataplane;
use super::difference::{Difference, in_place, is_there};
use super::enter::NamespaceRef;
use super::journal::{Journal, NamespaceRecord, Stage, State};
use super::netns::{self, Identity, Namespace};
use super::plan::{HostPlan, LinkPlan, NamespaceOrigin, NamespacePlan};
use super::proc::{self, ProcessId};
use super::process::{Job, Processes};
use super::run_dir::{Lock, PREDECESSOR, RunDir};
use super::teardown::{Teardown, sweep};
use super::{Error, IoContext, attach, names, netlink, of, tun};

/// The machine as far as one lab is concerned. Only one process has it at a time.
#[derive(Debug)]
pub struct Host {
    run_dir: RunDir,
    journal: Arc<Journal>,
    dataplane: Dataplane,
    processes: Processes,
    /// Held for as long as this lives.
    _lock: Lock,
}

/// Something to be told while an apply works: steps done, steps in all, what is being done.
pub type Progress<'a> = dyn FnMut(u32, u32, String) + 'a;

impl Host {
    /// Takes a lab: a new one, or what a dead control left of it. Its dataplane runs when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another process has it; else what kept the dataplane from starting.
    pub fn open(run_dir: &RunDir) -> Result<Self, Error> {
        run_dir.create()?;
        let lock = run_dir.lock()?;
        let Some(state) = Journal::read(run_dir) else {
            // Marked objects without a journal: nobody knows what they were for.
            sweep(run_dir, None);
            let journal = Arc::new(Journal::new(run_dir)?);
            let dataplane = Dataplane::start(run_dir, journal.clone())?;
            let processes = Processes::adopt(run_dir, journal.clone())?;
            return Ok(Self { run_dir: run_dir.clone(), journal, dataplane, processes, _lock: lock });
        };
        tracing::info!(namespaces = state.namespaces.len(), "taking over what an earlier control left");
        if let Some(predecessor) = state.control.and_then(ProcessId::open) {
            // Its lock is free already, but its devices are closed one after the other.
            let _ = proc::wait(&predecessor, PREDECESSOR);
        }
        let journal = Arc::new(Journal::from_state(run_dir, state));
        journal.update(|state| state.control = ProcessId::of(std::process::id()))?;
        let dataplane = match Dataplane::adopt(run_dir, journal.clone())? {
            Some(dataplane) => dataplane,
            None => Dataplane::start(run_dir, journal.clone())?,
        };
        let processes = Processes::adopt(run_dir, journal.clone())?;
        let host = Self { run_dir: run_dir.clone(), journal, dataplane, processes, _lock: lock };
        host.adopt_namespaces()?;
        Ok(host)
    }

    /// What is there.
    pub fn state(&self) -> State {
        self.journal.state()
    }

    /// The journal, for those who look while an apply works.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// The dataplane.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// Makes the machine what `next` says. `push` puts the tables in force when everything they refer to is
    /// there. Returns what could not be done after that, for people.
    ///
    /// # Errors
    ///
    /// [`Error::NotApplied`] with whatever failed up to and including `push`: then everything is as it was.
    pub fn apply(
        &self,
        next: &HostPlan,
        push: impl FnOnce(&Dataplane) -> Result<(), Error>,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<String>, Error> {
        let now = self.journal.state();
        let not_applied =
            |error, touched, problems| Error::NotApplied { source: Box::new(error), touched, problems };
        attach::check(next, &own_namespaces(&now)).map_err(|error| not_applied(error, false, Vec::new()))?;
        let difference = Difference::between(&now, next);
        let total = difference.steps();
        let mut done = 0;
        let mut step = |what: String| {
            progress(done, total, what);
            done += 1;
        };

        let mut undo = Vec::new();
        let before = self.before_tables(&difference, &mut undo, &mut step).and_then(|()| {
            step("tables".to_owned());
            push(&self.dataplane)
        });
        if let Err(error) = before {
            let mut problems = Vec::new();
            for action in undo.into_iter().rev() {
                if let Err(error) = self.undo(&action) {
                    tracing::error!(%error, "undoing a failed apply");
                    problems.push(error.to_string());
                }
            }
            return Err(not_applied(error, true, problems));
        }
        Ok(self.after_tables(&difference, &mut step))
    }

    /// Lets go of attached namespaces that have ended: our device would keep them alive. Returns their names.
    pub fn release_ended(&self) -> Vec<String> {
        let ended: Vec<String> = self.journal.look(|state| {
            let ended = |record: &&NamespaceRecord| {
                matches!(record.plan.origin, NamespaceOrigin::Attach { .. }) && !is_there(record)
            };
            state.namespaces.iter().filter(ended).map(|record| record.plan.name.clone()).collect()
        });
        for name in &ended {
            match self.remove(&[name], |_| {}) {
                Ok(()) => tracing::info!(name, "an attached namespace has ended: its link is closed"),
                Err(error) => tracing::warn!(%error, "an attached namespace has ended"),
            }
        }
        ended
    }

    /// Takes everything down, the run directory included. Nothing else may be done with it afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the run directory cannot be removed.
    pub fn down(&self) -> Result<Teardown, Error> {
        // First, or it would be replaced. Processes in the namespaces notice that only as silence.
        self.dataplane.stop();
        let done = sweep(&self.run_dir, Some(&self.journal.state()));
        if done.problems.is_empty() {
            self.run_dir.remove()?;
        }
        Ok(done)
    }

    fn before_tables<'a>(
        &self,
        difference: &Difference<'a>,
        undo: &mut Vec<Undo<'a>>,
        step: &mut impl FnMut(String),
    ) -> Result<(), Error> {
        for (old, new) in &difference.replace {
            undo.push(Undo::Recreate(old));
            self.remove(&[&old.name], |_| {})?;
            undo.push(Undo::Remove(vec![&new.name]));
            self.create(&[new], |name| step(format!("namespace {name}")))?;
        }
        undo.push(Undo::Remove(difference.create.iter().map(|new| new.name.as_str()).collect()));
        self.create(&difference.create, |name| step(format!("namespace {name}")))?;
        for (old, new) in &difference.change {
            let Some(what) = in_place(old, new) else { continue };
            step(format!("{what} of {}", new.name));
            undo.push(Undo::Change { from: new, to: old });
            self.change(old, new).map_err(of(&new.name))?;
        }
        Ok(())
    }

    fn after_tables(&self, difference: &Difference<'_>, step: &mut impl FnMut(String)) -> Vec<String> {
        let mut problems = Vec::new();
        let note = |problems: &mut Vec<String>, result: Result<(), Error>| {
            problems.extend(result.err().map(|error| error.to_string()));
        };
        let commands: Vec<&NamespacePlan> = difference.commands().collect();
        if !commands.is_empty() {
            step("commands".to_owned());
            let stopped = self.processes.stop(|record| {
                let next = commands.iter().find(|new| new.name == record.namespace);
                next.is_some_and(|new| !new.processes.contains(&record.plan))
            });
            note(&mut problems, stopped);
            match self.start_processes(&commands) {
                Ok(early) => problems.extend(early),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if !difference.change.is_empty() {
            let written = self.journal.update(|state| {
                for (_, new) in &difference.change {
                    if let Some(record) = state.namespaces.iter_mut().find(|it| it.plan.name == new.name) {
                        record.plan = (*new).clone();
                    }
                }
            });
            note(&mut problems, written);
        }
        let gone: Vec<&str> = difference.remove.iter().map(|old| old.name.as_str()).collect();
        let removed = self.remove(&gone, |name| step(format!("remove namespace {name}")));
        note(&mut problems, removed);
        problems
    }

    fn undo(&self, action: &Undo<'_>) -> Result<(), Error> {
        match action {
            Undo::Remove(names) => self.remove(names, |_| {}),
            Undo::Recreate(plan) => {
                self.create(&[plan], |_| {}).and_then(|()| self.start_processes(&[plan])).map(drop)
            }
            Undo::Change { from, to } => self.change(from, to),
        }
    }

    /// Makes namespaces with their links; attaches to those that are there. Written down before and after all of them,
    /// not each: the journal of a large lab is large.
    fn create(&self, plans: &[&NamespacePlan], mut telling: impl FnMut(&str)) -> Result<(), Error> {
        if plans.is_empty() {
            return Ok(());
        }
        let mut records: Vec<NamespaceRecord> = plans
            .iter()
            .map(|plan| NamespaceRecord { plan: (*plan).clone(), stage: Stage::Partial, identity: None })
            .collect();
        self.journal.update(|state| records.iter().for_each(|it| state.put_namespace(it.clone())))?;
        for record in &mut records {
            telling(&record.plan.name);
            record.identity = Some(self.create_one(&record.plan).map_err(of(&record.plan.name))?);
            record.stage = Stage::Ready;
        }
        self.journal.update(|state| records.into_iter().for_each(|record| state.put_namespace(record)))
    }

    fn create_one(&self, plan: &NamespacePlan) -> Result<Identity, Error> {
        let namespace = match &plan.origin {
            NamespaceOrigin::Create { netns } => {
                let lab = self.run_dir.lab();
                netns::create(lab, netns, &netns::mark(lab, &plan.name))?
            }
            NamespaceOrigin::Attach { path } => attach::open(path)?,
        };
        self.write_names(plan)?;
        self.make_link(&namespace, plan)?;
        namespace.identity()
    }

    /// Makes the device and hands it to the dataplane.
    fn make_link(&self, namespace: &Namespace, plan: &NamespacePlan) -> Result<(), Error> {
        let link = &plan.link;
        let workers = self.dataplane.workers()?;
        let queues = namespace.run(|| {
            let queues = tun::open(&link.device, link.offload, workers)?;
            if matches!(plan.origin, NamespaceOrigin::Attach { .. }) {
                disable_ipv6(&link.device)?;
            }
            netlink::configure(&self.alias(plan), None, &permitted(plan)?)?;
            Ok(queues)
        })?;
        Ok(self.dataplane.attach(link.id, link.offload, queues)?)
    }

    /// Changes what can be changed without recreating: addresses, routes, sizes, names.
    fn change(&self, old: &NamespacePlan, new: &NamespacePlan) -> Result<(), Error> {
        if old.link != new.link {
            let namespace = Namespace::open(&new.origin.path())?;
            namespace
                .run(|| netlink::configure(&self.alias(new), Some(&permitted(old)?), &permitted(new)?))?;
        }
        if (&old.hosts, &old.resolv_conf) != (&new.hosts, &new.resolv_conf) {
            self.write_names(new)?;
        }
        Ok(())
    }

    /// Removes namespaces with all that is in them. Whatever part is missing already is no error; what cannot be
    /// removed stays in the journal, and the others go all the same.
    fn remove(&self, names: &[&str], mut telling: impl FnMut(&str)) -> Result<(), Error> {
        let are_meant = |record: &&NamespaceRecord| names.contains(&record.plan.name.as_str());
        let records: Vec<NamespaceRecord> =
            self.journal.look(|state| state.namespaces.iter().filter(are_meant).cloned().collect());
        if records.is_empty() {
            return Ok(());
        }
        self.processes.stop(|process| names.contains(&process.namespace.as_str()))?;
        self.journal.update(|state| {
            for record in state.namespaces.iter_mut().filter(|record| are_meant(&&**record)) {
                record.stage = Stage::Partial;
            }
        })?;
        let mut gone = Vec::new();
        let mut failed = None;
        for record in records.iter().rev() {
            telling(&record.plan.name);
            match self.remove_one(&record.plan).map_err(of(&record.plan.name)) {
                Ok(()) => gone.push(&record.plan.name),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.journal.update(|state| state.namespaces.retain(|record| !gone.contains(&&record.plan.name)))?;
        failed.map_or(Ok(()), Err)
    }

    fn remove_one(&self, plan: &NamespacePlan) -> Result<(), Error> {
        self.dataplane.detach(plan.link.id)?;
        let lab = self.run_dir.lab();
        if let NamespaceOrigin::Create { netns } = &plan.origin {
            netns::delete(netns, &netns::mark(lab, &plan.name))?;
        }
        names::remove(&self.reference(plan).names, lab)
    }

    /// Starts the commands of namespaces that have not been started. Returns which of them failed at once, for people.
    fn start_processes(&self, plans: &[&NamespacePlan]) -> Result<Vec<String>, Error> {
        let state = self.journal.state();
        let mut jobs = Vec::new();
        for plan in plans {
            for process in plan.processes.iter().filter(|it| !state.knows_command(&plan.name, it)) {
                jobs.push(Job {
                    namespace: plan.name.clone(),
                    place: self.reference(plan),
                    plan: process.clone(),
                });
            }
        }
        self.processes.start(jobs)
    }

    /// Puts in order what a dead control left: half-made namespaces go, links that died with their dataplane come back.
    fn adopt_namespaces(&self) -> Result<(), Error> {
        let held = self.dataplane.links();
        for record in self.journal.state().namespaces {
            let plan = &record.plan;
            if record.stage == Stage::Partial || !is_there(&record) {
                self.remove(&[&plan.name], |_| {})?;
            } else if !held.contains(&plan.link.id) {
                self.make_link(&Namespace::open(&plan.origin.path())?, plan)?;
            }
        }
        Ok(())
    }

    fn write_names(&self, plan: &NamespacePlan) -> Result<(), Error> {
        names::write(&self.reference(plan).names, self.run_dir.lab(), &plan.hosts, &plan.resolv_conf)
    }

    fn reference(&self, plan: &NamespacePlan) -> NamespaceRef {
        NamespaceRef::of(&self.run_dir, &plan.origin.to_string())
    }

    fn alias(&self, plan: &NamespacePlan) -> String {
        netns::mark(self.run_dir.lab(), &plan.link.id.to_string())
    }
}

/// Namespaces that the lab has made, by name.
fn own_namespaces(state: &State) -> Vec<(String, Identity)> {
    let made =
        state.namespaces.iter().filter(|record| matches!(record.plan.origin, NamespaceOrigin::Create { .. }));
    made.filter_map(|record| Some((record.plan.name.clone(), record.identity?))).collect()
}

/// How a step that was done is undone.
#[derive(Debug)]
enum Undo<'a> {
    Remove(Vec<&'a str>),
    Recreate(&'a NamespacePlan),
    Change { from: &'a NamespacePlan, to: &'a NamespacePlan },
}

/// The link as far as it may be configured: an attached namespace keeps a default route that it has. Runs inside
/// the namespace.
fn permitted(plan: &NamespacePlan) -> Result<LinkPlan, Error> {
    let mut link = plan.link.clone();
    if matches!(plan.origin, NamespaceOrigin::Attach { .. })
        && netlink::has_default_route_beside(&link.device)?
    {
        link.routes.retain(|route| route.destination.prefix_len() > 0);
    }
    Ok(link)
}

/// On our device only: the rest of an attached namespace is not ours.
fn disable_ipv6(device: &str) -> Result<(), Error> {
    let knob = Path::new("/proc/sys/net/ipv6/conf").join(device).join("disable_ipv6");
    if knob.exists() { std::fs::write(&knob, "1").doing("write", &knob) } else { Ok(()) }
}
