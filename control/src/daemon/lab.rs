//! What the requests do: apply, look, explain, take down.
//!
//! Everything here blocks and is called from blocking threads. Applies, the check of attached namespaces and
//! the teardown exclude each other; looking never waits for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use localvpc_api::message::{Reply, Request};
use localvpc_api::settings::Settings;
use localvpc_api::{Generation, Tables, report};
use tokio::sync::watch;

use super::names;
use crate::explain;
use crate::host::journal::{Document, Journal, ProcessRecord};
use crate::host::plan::NamespaceOrigin;
use crate::host::{Error, Host, RunDir, dataplane};
use crate::lower::{IdRegistry, Index, Lowered, lower};
use crate::model::{self, Model};
use crate::view::{self, ApplyEvent, ApplyRequest, ErrorView};

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    run_dir: RunDir,
    host: Host,
    /// For looking while an apply works.
    journal: Arc<Journal>,
    /// What the tables in the dataplane mean; none before the first apply.
    in_force: RwLock<Option<Arc<InForce>>>,
    /// Held by whatever changes the machine.
    changing: Mutex<Life>,
    started: Instant,
    /// Becomes true when the daemon is to end.
    ended: watch::Sender<bool>,
}

/// Whether the lab may still be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    Down,
}

/// An applied document.
#[derive(Debug)]
struct InForce {
    model: Model,
    lowered: Lowered,
    /// Warnings of the file, rendered.
    warnings: Vec<String>,
}

impl Lab {
    /// The lab on this host. What a dead daemon had in force is in force again.
    pub fn open(host: Host, run_dir: &RunDir) -> Self {
        let lab = Self {
            run_dir: run_dir.clone(),
            journal: host.journal(),
            host,
            in_force: RwLock::default(),
            changing: Mutex::new(Life::Up),
            started: Instant::now(),
            ended: watch::Sender::new(false),
        };
        if let Some(document) = lab.journal.look(|state| state.document.clone())
            && let Err(error) = lab.resume(&document)
        {
            // Forwarding goes on under the old tables; the next `up` puts things right.
            tracing::error!(error = error.message, "what was in force could not be resumed");
        }
        lab
    }

    /// Makes the lab what the document says, telling what happens on the way.
    pub fn apply(&self, request: &ApplyRequest, tell: &mut dyn FnMut(ApplyEvent)) {
        let began = Instant::now();
        let life = self.changing();
        let applied = match *life {
            Life::Up => self.try_apply(request, tell),
            Life::Down => Err(failure("internal", "the lab is being taken down".to_owned())),
        };
        match applied {
            Ok((generation, warnings)) => tell(ApplyEvent::Applied {
                generation: generation.0,
                warnings,
                took_ms: began.elapsed().as_millis() as u64,
            }),
            Err(error) => {
                tracing::warn!(file = request.file, error = error.message, "not applied");
                tell(ApplyEvent::Failed(error));
            }
        }
    }

    /// What an apply would do.
    ///
    /// # Errors
    ///
    /// What is wrong with the document.
    pub fn plan(&self, request: &ApplyRequest) -> Result<view::Plan, ErrorView> {
        let next = self.understand(request, &mut self.ids(), Generation(0))?;
        Ok(self.plan_for(&next))
    }

    /// The lab on one screen.
    pub fn status(&self) -> view::StatusView {
        let in_force = self.in_force();
        let state = self.journal.state();
        let mut resources = std::collections::BTreeMap::new();
        let mut instances = Vec::new();
        if let Some(in_force) = &in_force {
            for resource in in_force.lowered.index.resources() {
                *resources.entry(resource.kind).or_default() += 1;
            }
            instances = in_force.lowered.index.instances();
        }
        for instance in &mut instances {
            for record in &state.namespaces {
                // By its path: a name stands for a namespace that the lab has made.
                let attached = record.plan.origin.to_string();
                let named = attached.strip_prefix("/run/netns/") == Some(&instance.namespace);
                if named && matches!(record.plan.origin, NamespaceOrigin::Attach { .. }) {
                    instance.namespace = attached;
                }
            }
            let own = state.processes.iter().filter(|record| record.plan.owner == instance.name);
            let mut own: Vec<&ProcessRecord> = own.collect();
            // As the file has them; they are recorded in the order in which they were started.
            own.sort_by_key(|record| record.plan.index);
            instance.processes = own.into_iter().map(|record| self.process_view(record)).collect();
        }
        let status = match self.host.dataplane().ask(&Request::Status) {
            Ok(Reply::Status(status)) => Some(status),
            _ => None,
        };
        let file = state.document.map(|document| document.file).unwrap_or_default();
        let mut broken = status.as_ref().map(|status| status.broken_links.clone()).unwrap_or_default();
        broken.extend(self.host.dataplane().refused());
        let problems = names::broken(&broken, index(&in_force), self.run_dir.lab(), &file);
        view::StatusView {
            lab: self.run_dir.lab().to_owned(),
            file,
            control_pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            dataplane: status,
            dataplane_restarts: self.host.dataplane().restarts(),
            problems,
            resources,
            instances,
        }
    }

    /// Everything in the lab.
    pub fn resources(&self) -> Vec<view::ResourceView> {
        self.in_force().map(|in_force| in_force.lowered.index.resources()).unwrap_or_default()
    }

    /// The document in force, as it was given.
    ///
    /// # Errors
    ///
    /// Nothing in force yet.
    pub fn document(&self) -> Result<ApplyRequest, ErrorView> {
        let document = self.journal.look(|state| {
            state.document.as_ref().map(|it| ApplyRequest::new(it.file.clone(), it.text.clone()))
        });
        document.ok_or_else(|| failure("not_found", "nothing is in force in this lab yet".to_owned()))
    }

    /// Counters with names.
    ///
    /// # Errors
    ///
    /// While the dataplane is being restarted.
    pub fn counters(&self) -> Result<view::CountersView, ErrorView> {
        match self.ask(&Request::Counters)? {
            Reply::Counters(counters) => Ok(names::counters(counters, index(&self.in_force()))),
            other => Err(unexpected(&other)),
        }
    }

    /// Tracked connections with the names of their ENIs.
    ///
    /// # Errors
    ///
    /// While the dataplane is being restarted.
    pub fn connections(&self) -> Result<Vec<view::Named<report::Connection>>, ErrorView> {
        match self.ask(&Request::Connections)? {
            Reply::Connections(connections) => Ok(names::connections(connections, index(&self.in_force()))),
            other => Err(unexpected(&other)),
        }
    }

    /// NAT leases with the names of their gateways.
    ///
    /// # Errors
    ///
    /// While the dataplane is being restarted.
    pub fn leases(&self) -> Result<Vec<view::Named<report::Lease>>, ErrorView> {
        match self.ask(&Request::Leases)? {
            Reply::Leases(leases) => Ok(names::leases(leases, index(&self.in_force()))),
            other => Err(unexpected(&other)),
        }
    }

    /// Analyses whether a packet would get through the tables in force, and compares with what the dataplane, which knows
    /// its state, says to the same packet.
    ///
    /// # Errors
    ///
    /// Unknown or ambiguous names; nothing in force yet; while the dataplane is being restarted.
    pub fn explain(&self, request: &view::ExplainRequest) -> Result<view::Explanation, ErrorView> {
        let in_force = self
            .in_force()
            .ok_or_else(|| failure("not_found", "nothing is in force in this lab yet".to_owned()))?;
        let (lowered, index) = (&in_force.lowered, &in_force.lowered.index);
        let asked = explain::resolve(index, request)?;
        let mut explanation = explain::answer(index, &lowered.tables, &asked);
        if let Some(trace) = asked.trace {
            match self.ask(&Request::Trace(trace))? {
                Reply::Trace(report) => explain::compare(index, &mut explanation, &report),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(explanation)
    }

    /// Takes everything down. A second call finds nothing left to do.
    ///
    /// # Errors
    ///
    /// What could not be removed, and why.
    pub fn down(&self) -> Result<serde_json::Value, ErrorView> {
        let mut life = self.changing();
        *life = Life::Down;
        let done = self.host.down().map_err(|error| host_failure(&error))?;
        if !done.problems.is_empty() {
            return Err(failure("host", done.problems.join("\n")));
        }
        let lab = self.run_dir.lab();
        Ok(serde_json::json!({ "lab": lab, "down": true, "namespaces": done.namespaces }))
    }

    /// Lets go of attached namespaces that have ended, unless something else is at work.
    pub fn release_ended(&self) {
        if let Ok(life) = self.changing.try_lock()
            && *life == Life::Up
        {
            self.host.release_ended();
        }
    }

    /// Lets the daemon end.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until the daemon is to end.
    pub async fn ended(&self) {
        // The sender lives as long as this does.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn try_apply(
        &self,
        request: &ApplyRequest,
        tell: &mut dyn FnMut(ApplyEvent),
    ) -> Result<(Generation, Vec<String>), ErrorView> {
        let mut ids = self.ids();
        let last = self.generation();
        let mut next = self.understand(request, &mut ids, Generation(last.0 + 1))?;
        tell(ApplyEvent::Plan(self.plan_for(&next)));

        let unchanged =
            self.in_force().is_some_and(|now| same_rows(&now.lowered.tables, &next.lowered.tables));
        if unchanged {
            next.lowered.tables.generation = last;
        }
        let tables = &next.lowered.tables;
        let document = document(request, tables.generation, &ids)?;
        let push = |dataplane: &dataplane::Dataplane| {
            if !unchanged {
                dataplane.install(tables)?;
            }
            self.journal.update(|state| state.document = Some(document))
        };
        let mut step = |done, total, what| tell(ApplyEvent::Step { done, total, what });
        let problems =
            self.host.apply(&next.lowered.host, push, &mut step).map_err(|error| host_failure(&error))?;
        let generation = tables.generation;
        let now = self.host.dataplane().settings();
        let wanted =
            Settings { poll: request.poll.unwrap_or(now.poll), merge: request.merge.unwrap_or(now.merge) };
        if wanted != now {
            let configured = self.host.dataplane().configure(wanted);
            let written = configured
                .map_err(Error::from)
                .and_then(|()| self.journal.update(|state| state.settings = wanted));
            written.map_err(|error| host_failure(&error))?;
        }
        let mut warnings = next.warnings.clone();
        warnings.extend(problems.into_iter().map(|problem| format!("warning: {problem}")));
        tracing::info!(file = request.file, %generation, "applied");
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(next));
        Ok((generation, warnings))
    }

    /// After a takeover: what the journal says is in force, is brought about, with as little as possible.
    fn resume(&self, document: &Document) -> Result<(), ErrorView> {
        let request = ApplyRequest::new(document.file.clone(), document.text.clone());
        let mut ids = self.ids();
        let in_dataplane = match self.ask(&Request::Status)? {
            Reply::Status(status) => status.generation,
            other => return Err(unexpected(&other)),
        };
        let mut resumed = self.understand(&request, &mut ids, Generation(document.generation))?;
        // What we were attached to may have ended while nobody looked; the rest is there all the same.
        resumed.lowered.host.namespaces.retain(|namespace| {
            let created = matches!(namespace.origin, NamespaceOrigin::Create { .. });
            created || namespace.origin.path().exists()
        });
        let is_there = in_dataplane == resumed.lowered.tables.generation;
        if !is_there {
            // A new dataplane, or one that got tables which its control did not live to write down.
            resumed.lowered.tables.generation = Generation(document.generation.max(in_dataplane.0) + 1);
        }
        let tables = &resumed.lowered.tables;
        let written = self::document(&request, tables.generation, &ids)?;
        let push = |dataplane: &dataplane::Dataplane| {
            if is_there {
                dataplane.remember(tables.clone());
            } else {
                dataplane.install(tables)?;
            }
            self.journal.update(|state| state.document = Some(written))
        };
        let problems = self
            .host
            .apply(&resumed.lowered.host, push, &mut |_, _, _| {})
            .map_err(|error| host_failure(&error))?;
        for problem in problems {
            tracing::warn!(problem, "while resuming");
        }
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(resumed));
        Ok(())
    }

    /// Validates and lowers a document of this lab.
    fn understand(
        &self,
        request: &ApplyRequest,
        ids: &mut IdRegistry,
        generation: Generation,
    ) -> Result<InForce, ErrorView> {
        let (model, warnings) =
            Model::read(&request.file, &request.text).map_err(|errors| errors.error_view())?;
        if model.lab != self.run_dir.lab() {
            let message = format!(
                "error: {} describes lab `{}`, and this is the daemon of lab `{}`. Nothing was changed.",
                request.file,
                model.lab,
                self.run_dir.lab()
            );
            return Err(failure("invalid_config", message));
        }
        let lowered = lower(&model, ids, generation);
        Ok(InForce { model, lowered, warnings: warnings.rendered() })
    }

    fn plan_for(&self, next: &InForce) -> view::Plan {
        let now = self.in_force();
        let mut plan = model::diff(now.as_ref().map(|now| &now.model), &next.model);
        plan.warnings.clone_from(&next.warnings);
        plan
    }

    fn process_view(&self, record: &ProcessRecord) -> view::ProcessView {
        view::ProcessView {
            command: record.plan.command.clone(),
            pid: record.process.filter(|_| record.ended.is_none()).map(|process| process.pid),
            ended: record.ended.clone(),
            log: self.run_dir.log(&record.plan.owner).to_string_lossy().into_owned(),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, ErrorView> {
        self.host.dataplane().ask(request).map_err(|error| failure("dataplane", error.to_string()))
    }

    fn in_force(&self) -> Option<Arc<InForce>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The generation in force; 0 before the first.
    fn generation(&self) -> Generation {
        Generation(self.journal.look(|state| state.document.as_ref().map_or(0, |it| it.generation)))
    }

    /// The numbers given so far.
    fn ids(&self) -> IdRegistry {
        let ids = self.journal.look(|state| state.document.as_ref().map(|document| document.ids.clone()));
        // Ours, from JSON that we wrote; without it numbers would be given anew, to a new dataplane as well.
        ids.and_then(|ids| serde_json::from_value(ids).ok()).unwrap_or_default()
    }

    fn changing(&self) -> MutexGuard<'_, Life> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(in_force: &Option<Arc<InForce>>) -> Option<&Index> {
    in_force.as_ref().map(|in_force| &in_force.lowered.index)
}

/// Whether two pushes differ in nothing but their number.
fn same_rows(a: &Tables, b: &Tables) -> bool {
    let mut a = a.clone();
    a.generation = b.generation;
    a == *b
}

fn document(request: &ApplyRequest, generation: Generation, ids: &IdRegistry) -> Result<Document, ErrorView> {
    let ids = serde_json::to_value(ids).map_err(|error| failure("internal", error.to_string()))?;
    Ok(Document { file: request.file.clone(), text: request.text.clone(), generation: generation.0, ids })
}

fn failure(kind: &str, message: String) -> ErrorView {
    ErrorView { kind: kind.to_owned(), message, positions: Vec::new() }
}

fn host_failure(error: &Error) -> ErrorView {
    let cause = if let Error::NotApplied { source, .. } = error { source } else { error };
    let kind = if matches!(cause, Error::Dataplane(_)) { "dataplane" } else { "host" };
    failure(kind, error.to_string())
}

fn unexpected(reply: &Reply) -> ErrorView {
    let reply: String = format!("{reply:?}").chars().take(80).collect();
    failure("internal", format!("the dataplane answered something else than was asked: {reply}"))
}
