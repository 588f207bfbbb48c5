//! What has to be done to get from what is there to a plan.

use super::journal::{NamespaceRecord, Stage, State};
use super::netns::Identity;
use super::plan::{HostPlan, LinkPlan, NamespacePlan};

/// The difference between what is there and a plan, by namespace. What is the same is not in it.
#[derive(Debug, Default)]
pub struct Difference<'a> {
    /// The same name, but another namespace or another device: the old one, the new one.
    pub replace: Vec<(&'a NamespacePlan, &'a NamespacePlan)>,
    /// New ones.
    pub create: Vec<&'a NamespacePlan>,
    /// To be changed in place: as it is, as it is to be.
    pub change: Vec<(&'a NamespacePlan, &'a NamespacePlan)>,
    /// As they are to be, except that some of their commands were never started: an apply was killed before that.
    pub start: Vec<&'a NamespacePlan>,
    /// Gone from the plan.
    pub remove: Vec<&'a NamespacePlan>,
}

impl<'a> Difference<'a> {
    /// Compares. A namespace that somebody has removed or replaced since is made again.
    pub fn between(now: &'a State, next: &'a HostPlan) -> Self {
        let mut difference = Self::default();
        for new in &next.namespaces {
            match now.namespace(&new.name) {
                None => difference.create.push(new),
                Some(record) if record.stage != Stage::Ready || !is_there(record) => {
                    difference.replace.push((&record.plan, new));
                }
                Some(record) if !same_device(&record.plan, new) => {
                    difference.replace.push((&record.plan, new));
                }
                Some(record) if record.plan != *new => difference.change.push((&record.plan, new)),
                Some(_) if new.processes.iter().any(|process| !now.knows_command(&new.name, process)) => {
                    difference.start.push(new);
                }
                Some(_) => {}
            }
        }
        let is_gone =
            |record: &&NamespaceRecord| !next.namespaces.iter().any(|new| new.name == record.plan.name);
        difference.remove.extend(now.namespaces.iter().filter(is_gone).map(|record| &record.plan));
        difference
    }

    /// Namespaces in which commands start or end after the tables.
    pub fn commands(&self) -> impl Iterator<Item = &'a NamespacePlan> {
        let made = self.replace.iter().map(|(_, new)| *new).chain(self.create.iter().copied());
        let changed = self.change.iter().filter(|(old, new)| old.processes != new.processes);
        let made = made.filter(|new| !new.processes.is_empty());
        made.chain(changed.map(|(_, new)| *new)).chain(self.start.iter().copied())
    }

    /// Steps that are told: one per namespace, the tables, and all commands together.
    pub fn steps(&self) -> u32 {
        let in_place = self.change.iter().filter(|(old, new)| in_place(old, new).is_some()).count();
        let whole = self.replace.len() + self.create.len() + self.remove.len();
        let commands = usize::from(self.commands().next().is_some());
        (whole + in_place + commands + 1) as u32
    }
}

/// What of a namespace changes in place before the tables do.
pub fn in_place(old: &NamespacePlan, new: &NamespacePlan) -> Option<&'static str> {
    match (old.link != new.link, (&old.hosts, &old.resolv_conf) != (&new.hosts, &new.resolv_conf)) {
        (true, _) => Some("device"),
        (_, true) => Some("names"),
        _ => None,
    }
}

fn same_device(old: &NamespacePlan, new: &NamespacePlan) -> bool {
    let device = |link: &LinkPlan| (link.id, link.device.clone(), link.offload);
    old.origin == new.origin && device(&old.link) == device(&new.link)
}

/// Whether the namespace is the one that we made or joined; somebody may have removed it, or made another.
pub fn is_there(record: &NamespaceRecord) -> bool {
    record.identity.is_some() && Identity::at(&record.plan.origin.path()) == record.identity
}
