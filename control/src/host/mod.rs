//! What touches the machine: namespaces, TUN devices, netlink, processes.

pub mod plan;
