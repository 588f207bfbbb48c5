//! What each request does.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use localvpc_api::message::{Error, Offload, PROTOCOL, Reply, Request};
use localvpc_api::report::{Counters, Status};
use localvpc_api::settings::Settings;
use localvpc_api::{LinkId, Tables};
use localvpc_engine::report;

use crate::clock;
use crate::device::Device;
use crate::device::tun::TunQueue;
use crate::fleet::{Fleet, Laggard};
use crate::links::Link;

/// A reply, with the link whose descriptors travel beside it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    link: Option<Arc<Link>>,
}

impl Answer {
    /// What travels beside the reply.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.link.as_ref().map_or_else(Vec::new, |link| link.descriptors())
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, link: None }
    }
}

/// Whether a request came with as many descriptors as it takes.
pub(super) fn check_descriptors(request: &Request, received: usize, fleet: &Fleet) -> Result<(), Error> {
    let expected = match request {
        Request::AttachLink { .. } if received > 0 => return Ok(()),
        Request::AttachLink { .. } => fleet.workers() as u32,
        _ => 0,
    };
    if received as u32 == expected {
        return Ok(());
    }
    Err(Error::Descriptors { received: received as u32, expected })
}

/// Does what is asked. Descriptors that are not kept are closed.
pub(super) fn perform(request: Request, descriptors: Vec<OwnedFd>, fleet: &Fleet) -> Answer {
    let now = clock::now().into();
    let (tables, state) = (fleet.tables(), fleet.state());
    let result = match request {
        Request::Hello { .. } => Ok(welcome(fleet)),
        Request::AttachLink { link, offload } => attach(link, offload, descriptors, fleet),
        Request::DetachLink { link } => detach(link, fleet),
        Request::Install(rows) => install(&rows, fleet),
        Request::Configure(settings) => configure(settings, fleet),
        Request::Status => Ok(Reply::Status(status(fleet))),
        Request::Counters => Ok(Reply::Counters(Counters {
            links: fleet.link_counters(),
            workers: fleet.worker_counters(),
            enis: report::enis(&tables),
            nat_gateways: report::nat_gateways(&tables, state, now),
            discards: report::discards(state),
        })),
        Request::Connections => Ok(Reply::Connections(report::connections(state, now))),
        Request::Leases => Ok(Reply::Leases(report::leases(state, now))),
        Request::Trace(request) => Ok(Reply::Trace(localvpc_engine::trace(&tables, state, &request, now))),
        Request::HandBack { link } => return hand_back(link, fleet),
        Request::Shutdown => Ok(Reply::Done),
    };
    Answer::from(result.unwrap_or_else(Reply::Error))
}

fn welcome(fleet: &Fleet) -> Reply {
    Reply::Welcome {
        protocol: PROTOCOL,
        version: VERSION.into(),
        pid: std::process::id(),
        workers: fleet.workers() as u32,
        generation: fleet.tables().generation,
        links: attached(fleet, |_| true),
    }
}

fn status(fleet: &Fleet) -> Status {
    Status {
        pid: std::process::id(),
        version: VERSION.into(),
        generation: fleet.tables().generation,
        settings: fleet.settings(),
        links: attached(fleet, |_| true),
        broken_links: attached(fleet, Link::is_broken),
        connections: fleet.state().connections.len() as u64,
        leases: fleet.state().leases.len() as u64,
        workers: fleet.worker_counters(),
    }
}

fn attach(link: LinkId, offload: Offload, descriptors: Vec<OwnedFd>, fleet: &Fleet) -> Result<Reply, Error> {
    if fleet.links().contains_key(&link) {
        return Err(Error::LinkAttached { link });
    }
    let queues = TunQueue::adopt(descriptors, offload)
        .map_err(|(index, why)| Error::BadDescriptor { index: index as u32, detail: why.to_string() })?;
    let queues = queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Device>).collect();
    fleet.attach(Link::new(link, offload, queues))?;
    Ok(Reply::Done)
}

fn detach(link: LinkId, fleet: &Fleet) -> Result<Reply, Error> {
    if !fleet.links().contains_key(&link) {
        return Err(Error::LinkNotAttached { link });
    }
    fleet.detach(link)?;
    Ok(Reply::Done)
}

fn install(rows: &Tables, fleet: &Fleet) -> Result<Reply, Error> {
    let began = Instant::now();
    let (offered, installed) = (rows.generation, fleet.tables().generation);
    if offered <= installed {
        return Err(Error::StaleGeneration { offered, installed });
    }
    let tables = localvpc_engine::tables::build(rows, &fleet.state().metrics)?;
    fleet.install(tables)?;
    let took_us = began.elapsed().as_micros() as u64;
    tracing::info!("generation {offered} is in force on every worker after {took_us} µs");
    Ok(Reply::Installed { generation: offered, took_us })
}

fn configure(settings: Settings, fleet: &Fleet) -> Result<Reply, Error> {
    if settings != fleet.settings() {
        fleet.configure(settings)?;
        tracing::info!("polling is {}, merging is {}", settings.poll, settings.merge);
    }
    Ok(Reply::Done)
}

fn hand_back(link: LinkId, fleet: &Fleet) -> Answer {
    match fleet.links().get(&link) {
        Some(held) => Answer { reply: Reply::Link { link, offload: held.offload }, link: Some(held.clone()) },
        None => Answer::from(Reply::Error(Error::LinkNotAttached { link })),
    }
}

/// The links of a kind, by ascending id.
fn attached(fleet: &Fleet, of_kind: impl Fn(&Link) -> bool) -> Vec<LinkId> {
    let mut links: Vec<_> = fleet.links().values().filter(|link| of_kind(link)).map(|link| link.id).collect();
    links.sort_unstable();
    links
}

impl From<Laggard> for Error {
    fn from(laggard: Laggard) -> Self {
        Self::Failed { detail: laggard.to_string() }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
