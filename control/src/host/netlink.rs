//! Addresses, routes, MTU and marks over rtnetlink, in the namespace of the calling thread.
//!
//! A netlink socket belongs to the namespace in which it was opened: call these inside
//! [`Namespace::run`](super::netns::Namespace::run).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::plan::{HostRoute, LinkPlan};
use super::{Error, IoContext};

/// `lo` is the first device of every namespace.
const LOOPBACK: u32 = 1;

/// Sets the alias of `lo` and brings it up.
///
/// # Errors
///
/// [`Error::Netlink`].
pub fn prepare_loopback(alias: &str) -> Result<(), Error> {
    talk(async |handle| {
        let lo = LinkMessageBuilder::<LinkUnspec>::default().index(LOOPBACK).alias(alias).up().build();
        handle.link().set(lo).execute().await.asking(|| "mark lo".to_owned())
    })
}

/// The alias of `lo`.
///
/// # Errors
///
/// [`Error::Netlink`].
pub fn loopback_alias() -> Result<Option<String>, Error> {
    talk(async |handle| {
        let lo = handle.link().get().match_index(LOOPBACK).execute().try_next().await;
        let attributes = lo.asking(|| "read the mark of lo".to_owned())?.map(|lo| lo.attributes);
        Ok(attributes.into_iter().flatten().find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias),
            _ => None,
        }))
    })
}

/// Whether a device of this name exists.
///
/// # Errors
///
/// [`Error::Netlink`].
pub fn device_exists(device: &str) -> Result<bool, Error> {
    talk(async |handle| Ok(find(&handle, device).await?.is_some()))
}

/// Makes a pair of veth devices: `near` here, `far` in the namespace of a descriptor.
///
/// # Errors
///
/// [`Error::Netlink`].
pub fn make_veth(near: &str, far: &str, namespace: RawFd) -> Result<(), Error> {
    talk(async |handle| {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(far.to_owned()).setns_by_fd(namespace);
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(near.to_owned())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        handle
            .link()
            .add(pair.build())
            .execute()
            .await
            .asking(|| format!("make the devices {near} and {far}"))
    })
}

/// Whether the main table has an IPv4 default route through another device than this one.
///
/// # Errors
///
/// [`Error::Netlink`].
pub fn has_default_route_beside(device: &str) -> Result<bool, Error> {
    talk(async |handle| {
        let own = find(&handle, device).await?;
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = std::pin::pin!(handle.route().get(filter).execute());
        while let Some(route) = routes.try_next().await.asking(|| "read the routes".to_owned())? {
            let through = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            if route.header.table == RouteHeader::RT_TABLE_MAIN
                && route.header.destination_prefix_length == 0
                && through != own
            {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Brings a device from one plan (none: just made) to another, without touching what both have: alias, MTU, queue
/// length, addresses, routes, up. What others have set on the device stays.
///
/// # Errors
///
/// [`Error::Netlink`] names the first thing the kernel refused.
pub fn configure(alias: &str, from: Option<&LinkPlan>, to: &LinkPlan) -> Result<(), Error> {
    talk(async |handle| {
        let device = &to.device;
        let index = find(&handle, device).await?.ok_or_else(|| Error::Netlink {
            action: format!("find {device}"),
            reason: "no such device".into(),
        })?;
        set_link(&handle, index, alias, from, to).await?;

        let (old_addresses, old_routes) =
            from.map_or((&[][..], &[][..]), |from| (&from.addresses[..], &from.routes[..]));
        for address in to.addresses.iter().filter(|address| !old_addresses.contains(address)) {
            add_address(&handle, index, *address).await.asking(|| format!("set {address} on {device}"))?;
        }
        for address in old_addresses.iter().filter(|address| !to.addresses.contains(address)) {
            remove_address(&handle, index, *address)
                .await
                .asking(|| format!("take {address} off {device}"))?;
        }
        for route in old_routes {
            if !to.routes.iter().any(|kept| kept.destination == route.destination) {
                let message = route_message(index, route)?;
                // Gone already: with an address that it preferred, or by someone's hand.
                let _ = handle.route().del(message).execute().await;
            }
        }
        // All of them, unchanged ones too: the kernel drops a route along with its preferred address.
        for route in &to.routes {
            let message = route_message(index, route)?;
            handle
                .route()
                .add(message)
                .replace()
                .execute()
                .await
                .asking(|| format!("route {} through {device}", route.destination))?;
        }
        Ok(())
    })
}

/// Sizes first, up second: changing the queue length of a device that is up costs the kernel a grace period of tens of
/// milliseconds.
async fn set_link(
    handle: &Handle,
    index: u32,
    alias: &str,
    from: Option<&LinkPlan>,
    to: &LinkPlan,
) -> Result<(), Error> {
    let message = || LinkMessageBuilder::<LinkUnspec>::default().index(index);
    let mut sizes = message().alias(alias).mtu(u32::from(to.mtu));
    if from.is_none_or(|from| from.queue_length != to.queue_length) {
        sizes = sizes.txqueuelen(to.queue_length);
    }
    let set = async |message| handle.link().set(message).execute().await;
    set(sizes.build()).await.asking(|| format!("set the sizes of {}", to.device))?;
    set(message().up().build()).await.asking(|| format!("bring up {}", to.device))
}

async fn add_address(handle: &Handle, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    handle.address().add(index, address, prefix_length(address)).replace().execute().await
}

async fn remove_address(handle: &Handle, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    match handle.address().del(address_message(index, address)).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EADDRNOTAVAIL => Ok(()),
        other => other,
    }
}

fn address_message(index: u32, address: IpAddr) -> AddressMessage {
    let length = prefix_length(address);
    match address {
        IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, length).build(),
        IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, length).build(),
    }
}

/// Addresses are set as hosts: what a subnet is, the dataplane knows.
fn prefix_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn route_message(index: u32, route: &HostRoute) -> Result<RouteMessage, Error> {
    let destination = route.destination;
    let refuse =
        |error| Error::Netlink { action: format!("route {destination}"), reason: format!("{error}") };
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .map_err(refuse)?
        .output_interface(index)
        .scope(RouteScope::Link);
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(refuse)?;
    }
    let mut message = builder.build();
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(mtu))]));
    }
    Ok(message)
}

async fn find(handle: &Handle, device: &str) -> Result<Option<u32>, Error> {
    let found: Result<Option<LinkMessage>, _> =
        handle.link().get().match_name(device.to_owned()).execute().try_next().await;
    match found {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(error).asking(|| format!("find {device}")),
    }
}

/// Runs one conversation on a netlink socket of the thread's namespace.
fn talk<T>(conversation: impl AsyncFnOnce(Handle) -> Result<T, Error>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .trying(|| "start a netlink conversation".to_owned())?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().trying(|| "open a netlink socket".to_owned())?;
        tokio::spawn(connection);
        conversation(handle).await
    })
}

/// Names what was asked of the kernel when it refuses.
trait Asking<T> {
    fn asking(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Asking<T> for Result<T, rtnetlink::Error> {
    fn asking(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Netlink {
            action: action(),
            reason: match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
                other => other.to_string(),
            },
        })
    }
}
