//! What a lab needs of the machine. Made by [`lower`](crate::lower), applied by the rest of [`host`](crate::host).
//!
//! A plan is plain data: the difference between the plan in force and the next one is
//! what an `up` has to do.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use localvpc_api::LinkId;
use localvpc_api::message::Offload;
use serde::{Deserialize, Serialize};

/// Every namespace of a lab, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Namespaces, each with its one link.
    pub namespaces: Vec<NamespacePlan>,
}

/// A namespace, its link and what runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// The lab's own name for it: an instance (`web`), a subnet (`shared-a`) or `internet`. Unique in the lab.
    pub name: String,
    /// Where the namespace comes from.
    pub origin: NamespaceOrigin,
    /// The TUN device in it.
    pub link: LinkPlan,
    /// Content of `/etc/hosts` for its processes.
    pub hosts: String,
    /// Content of `/etc/resolv.conf` for its processes.
    pub resolv_conf: String,
    /// Commands that run in it.
    pub processes: Vec<ProcessPlan>,
}

/// Where a namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceOrigin {
    /// Made by us as `/run/netns/<lab>-<name>`, removed by us.
    Create {
        /// The name under `/run/netns`.
        netns: String,
    },
    /// There already; left as it was found.
    Attach {
        /// `/run/netns/<name>` or `/proc/<pid>/ns/net`.
        path: PathBuf,
    },
}

/// A TUN device inside a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPlan {
    /// Its id in the tables.
    pub id: LinkId,
    /// Its device name inside the namespace, at most 15 bytes.
    pub device: String,
    /// MTU of the device in bytes.
    pub mtu: u16,
    /// Length of the device's transmit queue in packets.
    pub queue_length: u32,
    /// Whether it carries virtio headers.
    pub offload: Offload,
    /// Addresses to set on the device, as host prefixes (/32).
    pub addresses: Vec<IpAddr>,
    /// Routes through the device. A default route is left out for an attached namespace that has one.
    pub routes: Vec<HostRoute>,
}

/// A route through the link's device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Destination.
    pub destination: IpNet,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// MTU towards this destination, where it is smaller than the device's.
    pub mtu: Option<u16>,
}

/// A command that runs in a namespace for as long as the lab is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The instance or internet host it belongs to: unique with `index`.
    pub owner: String,
    /// Position among the owner's commands, from 0.
    pub index: u32,
    /// The command line, for `sh -c`. `localvpc` in it means the running program.
    pub command: String,
    /// Environment, e.g. `LOCALVPC_ADDRESS`: the address that `localvpc serve` binds to.
    pub environment: Vec<(String, String)>,
}
