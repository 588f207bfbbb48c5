//! Labs on the real machine: the real binaries, namespaces, TUN devices, and curl, ping, tcpdump and iperf3 in them.
//!
//! Every test brings up a lab of its own (`t<pid>-<n>`) in a run directory of its own, and takes it down again, also
//! after a panic; then nothing of it may be left. All traffic stays in the lab's namespaces. Needs root; skipped
//! without. Tests with `load` in their name measure, or make the machine busy: they run alone.

mod harness;

mod addresses;
mod bench;
mod changes;
mod compare;
mod configs;
mod crashes;
mod differential;
mod explain;
mod file_transfer;
mod load;
mod mtu;
mod namespaces;
mod nat_gateways;
mod network_acls;
mod offload;
mod path_tools;
mod random_labs;
mod raw;
mod readme;
mod routing;
mod security_groups;
mod source_check;
mod stun;
mod transport;
mod verbs;
mod walks;
