//! From the model to rows for the dataplane and a plan for the host.
//!
//! ```text
//! Model ──┬─▶ Tables    rows with numbers, for the dataplane
//!         ├─▶ HostPlan  namespaces, devices, processes, for the host
//!         └─▶ Index     numbers back to names and lines, for explain, counters, nat
//! ```
//!
//! The numbers come from an [`IdRegistry`] that the daemon keeps for the life of the lab.

mod host;
mod index;
mod registry;
mod tables;

use localvpc_api::{Generation, Tables};

use crate::host::plan::HostPlan;
use crate::model::Model;

pub use index::{Index, RuleText};
pub use registry::IdRegistry;

/// A model, lowered.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Rows for the dataplane.
    pub tables: Tables,
    /// Namespaces and what is in them.
    pub host: HostPlan,
    /// Names and lines for the numbers in the tables.
    pub index: Index,
}

/// Lowers a model. Resources that were in `ids` before keep their numbers; those that are gone lose
/// them for good, so a resource that comes back later is a new one to the dataplane.
///
/// To try something out (a dry run), lower with a clone of the registry.
pub fn lower(model: &Model, ids: &mut IdRegistry, generation: Generation) -> Lowered {
    let mut names = ids.naming();
    let tables = tables::tables(model, &mut names, generation);
    let host = host::host_plan(model, &mut names);
    let index = Index::new(model.clone(), &mut names);
    names.finish();
    Lowered { tables, host, index }
}

#[cfg(test)]
mod tests;
