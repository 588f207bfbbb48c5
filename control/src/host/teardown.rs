//! Removes everything that a lab made, in reverse order, from the journal and the marks alone.
//!
//! It needs no daemon and no dataplane, may be repeated, and may be interrupted: whatever is left is found by
//! the next one.

use std::fs;
use std::path::Path;

use super::journal::{Journal, State};
use super::names::ETC_NETNS;
use super::netns::{self, Deletion};
use super::plan::NamespaceOrigin;
use super::{Error, RunDir, launch, names, process};

/// What a teardown did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Teardown {
    /// Processes that were ended, the dataplane among them.
    pub processes: usize,
    /// Namespaces that were removed.
    pub namespaces: Vec<String>,
    /// What could not be removed and why, or was found under our name and belongs to others.
    pub problems: Vec<String>,
}

/// Takes a lab down that has no daemon, e.g. because it was killed.
///
/// # Errors
///
/// [`Error::Busy`] when it has one: ask it.
pub fn teardown(run_dir: &RunDir) -> Result<Teardown, Error> {
    // Without its directory a lab may still have marked objects; then there is nobody to lock out either.
    let lock = run_dir.path().is_dir().then(|| run_dir.lock()).transpose()?;
    let done = sweep(run_dir, Journal::read(run_dir).as_ref());
    if done.problems.is_empty() {
        run_dir.remove()?;
    }
    drop(lock);
    Ok(done)
}

/// Removes everything except the run directory. The caller holds the lab's lock.
pub(super) fn sweep(run_dir: &RunDir, state: Option<&State>) -> Teardown {
    let lab = run_dir.lab();
    let mut done = Teardown::default();

    let known: Vec<_> =
        state.into_iter().flat_map(|state| &state.processes).map(|record| record.process).collect();
    done.processes += process::stop_marked(lab, &known);
    // The TUN devices end with it: ours were closed with the control that held them.
    done.processes += launch::stop_marked(run_dir, state.and_then(|state| state.dataplane));

    let mut namespaces: Vec<(String, String)> = state
        .into_iter()
        .flat_map(|state| state.namespaces.iter().rev())
        .filter_map(|record| match &record.plan.origin {
            NamespaceOrigin::Create { netns } => Some((netns.clone(), netns::mark(lab, &record.plan.name))),
            NamespaceOrigin::Attach { .. } => None,
        })
        .collect();
    namespaces.extend(netns::marked(lab));
    for (netns, mark) in &namespaces {
        match netns::delete(netns, mark) {
            Ok(Deletion::Deleted) => done.namespaces.push(netns.clone()),
            Ok(Deletion::Absent) => {}
            Ok(Deletion::Foreign) => tracing::warn!(netns, "left alone: it does not bear this lab's mark"),
            Err(error) => done.problems.push(error.to_string()),
        }
    }
    let in_etc = fs::read_dir(ETC_NETNS).into_iter().flatten().filter_map(|entry| {
        entry.ok().filter(|entry| names::are_ours(&entry.path(), lab))?.file_name().into_string().ok()
    });
    for netns in namespaces.into_iter().map(|(netns, _)| netns).chain(in_etc) {
        if let Err(error) = names::remove(&Path::new(ETC_NETNS).join(netns), lab) {
            done.problems.push(error.to_string());
        }
    }
    if state.is_some_and(|state| state.made_etc_netns) {
        // Fails where another lab or somebody else has put something there: then it stays.
        let _ = fs::remove_dir(ETC_NETNS);
    }
    done
}
