//! A namespace that is not the lab's.

use std::path::Path;

use super::command::run_line;

/// A namespace made with `ip netns add`, removed when dropped.
#[derive(Debug)]
pub struct Netns {
    /// Its name in `/run/netns`.
    pub name: String,
}

impl Netns {
    /// Makes it.
    #[track_caller]
    pub fn add(name: String) -> Self {
        run_line(&format!("ip netns add {name}")).ok();
        Self { name }
    }

    /// What `ip -n NAME` prints for these words.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        run_line(&format!("ip -n {} {line}", self.name)).ok().stdout
    }

    /// Whether it has its name still.
    pub fn exists(&self) -> bool {
        Path::new("/run/netns").join(&self.name).exists()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.exists() {
            run_line(&format!("ip netns delete {}", self.name));
        }
    }
}

/// Linux sends few ICMP errors to one host, and few in all; in this namespace it sends as many as it is asked to.
///
/// The limit for all starts with no credit: of the first two errors that a new namespace sends on two processors at once, one is lost.
/// `icmp_ratelimit` is about the limit per host only; types that are not in the mask have no limit.
#[track_caller]
pub fn tell_always(netns: &str) {
    run_line(&format!("ip netns exec {netns} sysctl -q -w net.ipv4.icmp_ratemask=0")).ok();
}
