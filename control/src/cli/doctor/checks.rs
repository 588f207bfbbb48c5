//! One function per thing that labs need.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::probe::{self, Offloads};
use super::{Finding, State};
use crate::cli::is_root;
use crate::host;

/// Every check, the most basic first.
pub fn all() -> Vec<Finding> {
    let mut findings = vec![kernel(), tun(), privileges(), namespaces(), offloads(), steering(), dataplane()];
    findings.extend(TOOLS.iter().map(tool));
    findings
}

/// Oldest kernel that has everything we ask of it: 6.2 brought UDP segmentation through TUN, the rest is older.
const FULL_SPEED: (u32, u32) = (6, 2);
/// Oldest kernel that works at all: pidfd_getfd, openat2.
const OLDEST: (u32, u32) = (5, 6);

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    match version(&release) {
        Some(version) if version >= FULL_SPEED => Finding::ok("kernel", release),
        Some(version) if version >= OLDEST => Finding::lacking(
            State::Optional,
            "kernel",
            release,
            "UDP super-packets need Linux 6.2; everything else works",
        ),
        Some(_) => Finding::lacking(State::Missing, "kernel", release, "Linux 5.6 or newer is needed"),
        None => Finding::lacking(State::Unknown, "kernel", release, "Linux 5.6 or newer is needed"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

const TUN: &str = "/dev/net/tun";

fn tun() -> Finding {
    match fs::File::options().read(true).write(true).open(TUN) {
        Ok(file) => match probe::tun_features(&file) {
            Ok(features) if features.multi_queue && features.virtio_header => {
                Finding::ok("TUN", format!("{TUN}, with several queues and virtio headers"))
            }
            Ok(_) => Finding::lacking(
                State::Missing,
                "TUN",
                format!("{TUN}, without several queues or virtio headers"),
                "boot a kernel whose tun driver has both (any since 3.8)",
            ),
            Err(error) => Finding::lacking(State::Unknown, "TUN", format!("{TUN}: {error}"), "try as root"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Finding::lacking(State::Unknown, "TUN", format!("{TUN} is there, for root only"), "try as root")
        }
        Err(error) => Finding::lacking(
            State::Missing,
            "TUN",
            format!("{TUN}: {error}"),
            "modprobe tun; in a container: --device /dev/net/tun",
        ),
    }
}

/// Capabilities that control needs, by their bit (capability.h).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

fn privileges() -> Finding {
    let held = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or_default();
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| held & (1 << bit) == 0).map(|(_, name)| *name).collect();
    match (is_root(), missing.as_slice()) {
        (true, []) => Finding::ok("privileges", "root, with CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (true, missing) => Finding::lacking(
            State::Missing,
            "privileges",
            format!("root, without {}", missing.join(" and ")),
            "in a container: --privileged, or --cap-add for each of them",
        ),
        (false, _) => Finding::lacking(
            State::Missing,
            "privileges",
            "not root",
            "use sudo. Without root these work: validate, lint, graph, schema, doctor, serve, `up --dry-run`",
        ),
    }
}

fn namespaces() -> Finding {
    if !Path::new("/proc/self/ns/net").exists() {
        return Finding::lacking(State::Missing, "namespaces", "none", "boot a kernel with CONFIG_NET_NS");
    }
    match probe::in_a_new_namespace(|| ()) {
        Ok(()) => Finding::ok("namespaces", "network namespaces can be made"),
        Err(_) if !is_root() => Finding::lacking(
            State::Unknown,
            "namespaces",
            "the kernel has them; making one needs root",
            "try as root",
        ),
        Err(error) => Finding::lacking(
            State::Missing,
            "namespaces",
            format!("cannot make one: {error}"),
            "in a container: --cap-add SYS_ADMIN; also see /proc/sys/user/max_net_namespaces",
        ),
    }
}

fn offloads() -> Finding {
    let result = probe::in_a_new_namespace(probe::offloads).and_then(|offloads| offloads);
    match result {
        Ok(Offloads { tcp: true, udp: true }) => {
            Finding::ok("offloads", "checksum, TCP (TSO4, TSO6) and UDP (USO4, USO6) segmentation")
        }
        Ok(Offloads { tcp: true, udp: false }) => Finding::lacking(
            State::Optional,
            "offloads",
            "checksum and TCP segmentation, no UDP (USO)",
            "UDP super-packets need Linux 6.2; TCP runs at full speed",
        ),
        Ok(Offloads { tcp: false, .. }) => Finding::lacking(
            State::Optional,
            "offloads",
            "none",
            "labs work, but packet by packet: expect a fraction of the throughput",
        ),
        Err(error) if is_root() => Finding::lacking(
            State::Unknown,
            "offloads",
            format!("cannot ask: {error}"),
            "see TUN and namespaces above",
        ),
        Err(_) => Finding::lacking(State::Unknown, "offloads", "only root can ask", "try as root"),
    }
}

fn steering() -> Finding {
    match host::steering::probe() {
        Ok(()) => Finding::ok("steering", "eBPF: both directions of a connection come to one worker"),
        Err(error) if is_root() => Finding::lacking(
            State::Optional,
            "steering",
            format!("the kernel takes no eBPF program: {error}"),
            "everything works; connections through NAT gateways are a little slower",
        ),
        Err(_) => Finding::lacking(State::Unknown, "steering", "only root can ask", "try as root"),
    }
}

fn dataplane() -> Finding {
    const NAME: &str = "localvpc-dataplane";
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    match beside.filter(|path| path.is_file()).or_else(|| in_path(NAME)) {
        Some(path) => Finding::ok("dataplane", path.display().to_string()),
        None => Finding::lacking(
            State::Missing,
            "dataplane",
            format!("no {NAME} beside localvpc or in PATH"),
            "cargo build --workspace, or install both programs into one directory",
        ),
    }
}

/// A program that makes labs more fun, or is needed to follow the README.
struct Tool {
    name: &'static str,
    /// What it is good for here.
    purpose: &'static str,
    /// Its package on Debian and Ubuntu.
    package: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool { name: "ip", purpose: "ip netns exec", package: "iproute2" },
    Tool { name: "curl", purpose: "demo, tests", package: "curl" },
    Tool { name: "ping", purpose: "demo, tests", package: "iputils-ping" },
    Tool { name: "iperf3", purpose: "throughput, tests", package: "iperf3" },
    Tool { name: "tcpdump", purpose: "captures, tests", package: "tcpdump" },
    Tool { name: "tshark", purpose: "reading captures", package: "tshark" },
    Tool { name: "nft", purpose: "comparison with a Linux router", package: "nftables" },
];

fn tool(tool: &Tool) -> Finding {
    match in_path(tool.name) {
        Some(path) => Finding::ok(tool.name, path.display().to_string()),
        None => Finding::lacking(
            State::Optional,
            tool.name,
            format!("not installed ({})", tool.purpose),
            format!("apt-get install {}", tool.package),
        ),
    }
}

/// Looks in PATH, and where Debian keeps root's programs.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| {
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.10.0-8-amd64"), Some((5, 10)));
        assert_eq!(version("6.2+"), Some((6, 2)));
        assert_eq!(version("linux"), None);
        assert!(version("6.18.1").unwrap() > FULL_SPEED, "minor numbers compare as numbers");
    }
}
