//! The dataplane's rows with the names of the file. What is gone from the file keeps its number.

use localvpc_api::{LinkId, report};

use crate::lower::Index;
use crate::model::text;
use crate::view::{CountersView, DiscardView, Named};

/// Counters; without an index (before the first apply) with numbers only.
pub fn counters(counters: report::Counters, index: Option<&Index>) -> CountersView {
    CountersView {
        enis: named(counters.enis, |row| name(index, row.eni, Index::eni_name)),
        nat_gateways: named(counters.nat_gateways, |row| {
            name(index, row.nat_gateway, Index::nat_gateway_name)
        }),
        links: named(counters.links, |row| name(index, row.link, Index::link_name)),
        discards: counters
            .discards
            .into_iter()
            .map(|discards| DiscardView {
                code: discards.reason.code().to_owned(),
                explanation: text::without_facts(discards.reason.explanation()),
                packets: discards.packets,
            })
            .collect(),
        workers: counters.workers,
    }
}

/// Connections, each with the name of its ENI.
pub fn connections(rows: Vec<report::Connection>, index: Option<&Index>) -> Vec<Named<report::Connection>> {
    named(rows, |row| name(index, row.eni, Index::eni_name))
}

/// Leases, each with the name of its NAT gateway.
pub fn leases(rows: Vec<report::Lease>, index: Option<&Index>) -> Vec<Named<report::Lease>> {
    named(rows, |row| name(index, row.nat_gateway, Index::nat_gateway_name))
}

/// What to say about links whose devices are gone.
pub fn broken(links: &[LinkId], index: Option<&Index>, lab: &str, file: &str) -> Vec<String> {
    let say = |link: &LinkId| {
        format!(
            "the network device of {} is gone (deleted by hand?), and nothing reaches it or leaves it; \
             `localvpc down --lab {lab} && localvpc up {file}` makes it again",
            name(index, *link, Index::link_name)
        )
    };
    links.iter().map(say).collect()
}

fn named<T>(rows: Vec<T>, name: impl Fn(&T) -> String) -> Vec<Named<T>> {
    rows.into_iter().map(|row| Named { name: name(&row), row }).collect()
}

fn name<Id: std::fmt::Display>(
    index: Option<&Index>,
    id: Id,
    look: impl FnOnce(&Index, Id) -> String,
) -> String {
    match index {
        Some(index) => look(index, id),
        None => id.to_string(),
    }
}
