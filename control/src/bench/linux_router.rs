//! A Linux router in namespaces: what people would use instead, and what `localvpc bench` and `scripts/compare` measure
//! beside a lab.
//!
//! ```text
//!   station ── veth ──┐                        ┌── veth ── station
//!                     router: routes, nftables ┤
//!   station ── veth ──┘                        └── veth ── station (internet: masquerade)
//! ```
//!
//! Its rules do what a lab's do, in the way in which nftables are usually written: 40 stateless rules that every packet
//! passes, conntrack, established traffic accepted, 60 rules for new connections, the last of which admits everything,
//! and masquerade towards the internet.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::{IpNet, Ipv4Net};
use localvpc_api::LinkId;
use localvpc_api::message::Offload;
use localvpc_traffic::Endpoint;

use crate::host::netns::{self, Namespace};
use crate::host::plan::{HostRoute, LinkPlan};
use crate::host::{self, netlink};

/// A Linux router and its stations, in namespaces without names: they are gone when this is dropped, and when the process
/// ends in any way.
#[derive(Debug)]
pub struct LinuxRouter {
    _router: Namespace,
    stations: Vec<(Station, Namespace)>,
}

/// What is connected to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Unique.
    pub name: String,
    /// Its only address.
    pub address: Ipv4Addr,
    /// Whether it is inside.
    pub side: Side,
}

/// On which side of the router a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the VPC: packets of up to 9001 bytes.
    Inside,
    /// In the internet: packets of up to 1500 bytes; who sends there appears under the router's address.
    Internet,
}

/// Why there is no router.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// nftables are not installed.
    #[error(
        "nft is not installed, so there is no Linux router to compare with (on Debian and Ubuntu: apt install nftables)"
    )]
    NoNft,
    /// nftables refused the rules.
    #[error("nft refuses the rules of the Linux router: {reason}")]
    Nft {
        /// What it said.
        reason: String,
    },
    /// There is no station of this name.
    #[error("the Linux router has no station `{name}`")]
    NoStation {
        /// The name.
        name: String,
    },
    /// The process is out of descriptors.
    #[error("cannot keep a namespace open: {0}")]
    Descriptor(io::Error),
    /// A setting of the kernel could not be made.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Setting {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Rules that new connections meet before one admits them, as a busy security group has.
pub const STATEFUL_RULES: usize = 60;

/// Rules that every packet meets, as two network ACLs have: 20 on the way out, 20 on the way in.
pub const STATELESS_RULES: usize = 40;

/// Whose address the internet sees.
pub const PUBLIC_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

impl LinuxRouter {
    /// Builds it around its stations, ready to forward.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing is left then.
    pub fn build(stations: &[Station]) -> Result<Self, Error> {
        let router = netns::unnamed(MARK)?;
        router.run(|| Ok(settings()))??;
        let connected = stations.iter().enumerate().map(|(index, station)| {
            let namespace = netns::unnamed(MARK)?;
            connect(&router, index, station, &namespace)?;
            Ok((station.clone(), namespace))
        });
        let connected = connected.collect::<Result<_, Error>>()?;
        load(&router, &rules(stations))?;
        Ok(Self { _router: router, stations: connected })
    }

    /// Where a station's traffic begins and ends.
    ///
    /// # Errors
    ///
    /// [`Error::NoStation`], and what the kernel refused.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        let (station, namespace) = self
            .stations
            .iter()
            .find(|(station, _)| station.name == name)
            .ok_or_else(|| Error::NoStation { name: name.to_owned() })?;
        let descriptor = namespace.as_fd().try_clone_to_owned().map_err(Error::Descriptor)?;
        Ok(Endpoint::of(name, descriptor, station.address))
    }
}

fn connect(router: &Namespace, index: usize, station: &Station, namespace: &Namespace) -> Result<(), Error> {
    let near = device(index);
    router.run(|| netlink::make_veth(&near, FAR, namespace.as_fd().as_raw_fd()))?;
    // An answer in another's name comes at once, not after up to 0.8 s. No default to inherit: it is the machine's.
    router.run(|| Ok(set(&format!("neigh/{near}/proxy_delay"), "0")))??;
    let (mtu, addresses) = match station.side {
        Side::Inside => (9001, vec![]),
        Side::Internet => (1500, vec![IpAddr::V4(PUBLIC_ADDRESS)]),
    };
    let to = |destination| HostRoute { destination: IpNet::V4(destination), source: None, mtu: None };
    let link = |device: &str, addresses, route| LinkPlan {
        id: LinkId(0),
        device: device.to_owned(),
        mtu,
        queue_length: QUEUE_LENGTH,
        offload: Offload::Off,
        addresses,
        routes: vec![to(route)],
    };
    let host = Ipv4Net::from(station.address);
    let everything = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
    router.run(|| netlink::configure(MARK, None, &link(&near, addresses, host)))?;
    let far = link(FAR, vec![IpAddr::V4(station.address)], everything);
    Ok(namespace.run(|| netlink::configure(MARK, None, &far))?)
}

/// Settings of the router's namespace, made before its devices, which inherit them. It answers ARP for everyone, so that
/// stations need no gateway.
fn settings() -> Result<(), Error> {
    let settings = [
        ("ip_forward", "1"),
        ("conf/all/proxy_arp", "1"),
        ("conf/default/proxy_arp", "1"),
        ("conf/all/rp_filter", "0"),
        ("conf/default/rp_filter", "0"),
    ];
    settings.into_iter().try_for_each(|(name, value)| set(name, value))
}

fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv4").join(name);
    fs::write(&path, value).map_err(|source| Error::Setting { path, source })
}

fn load(router: &Namespace, rules: &str) -> Result<(), Error> {
    let run = || -> io::Result<std::process::Output> {
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut nft = nft.spawn()?;
        if let Some(mut stdin) = nft.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        nft.wait_with_output()
    };
    let refused = |reason: String| Err(Error::Nft { reason });
    match router.run(|| Ok(run()))? {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoNft),
        Err(error) => refused(error.to_string()),
    }
}

/// The router's rules as nftables read them.
fn rules(stations: &[Station]) -> String {
    let mut text = String::from("table ip router {\n");
    text += "chain stateless {\n type filter hook forward priority -10; policy accept\n";
    for n in 0..STATELESS_RULES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, " ip saddr 172.20.{n}.0/24 tcp dport {} drop", 2000 + n);
    }
    text += "}\nchain stateful {\n type filter hook forward priority 0; policy drop\n";
    text += " ct state established,related accept\n";
    for n in 0..STATEFUL_RULES - 1 {
        let _ = writeln!(text, " ip saddr 172.21.{n}.0/24 tcp dport {} accept", 3000 + n);
    }
    text += " ip saddr 0.0.0.0/0 accept\n}\n";
    text += "chain source {\n type nat hook postrouting priority srcnat\n";
    for (index, _) in stations.iter().enumerate().filter(|(_, station)| station.side == Side::Internet) {
        let _ = writeln!(text, " oifname {} masquerade", device(index));
    }
    text + "}\n}\n"
}

/// The router's device towards a station.
fn device(index: usize) -> String {
    format!("s{index}")
}

/// Alias of every device, for whoever wonders where it comes from.
const MARK: &str = "localvpc-bench";

/// A station's device.
const FAR: &str = "eth0";

/// The kernel's own.
const QUEUE_LENGTH: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_as_many_as_they_say() {
        let station = |name: &str, side| Station { name: name.into(), address: Ipv4Addr::LOCALHOST, side };
        let text = rules(&[station("app", Side::Inside), station("host", Side::Internet)]);
        assert_eq!(text.matches(" drop\n").count(), STATELESS_RULES + 1, "and a policy");
        assert_eq!(text.matches("ip saddr").count(), STATELESS_RULES + STATEFUL_RULES);
        assert_eq!(text.matches("masquerade").count(), 1);
        assert!(text.contains("oifname s1 masquerade"));
    }
}
