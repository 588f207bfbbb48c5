//! The other world: the same instances around a Linux router with nftables.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::command::run_line;
use crate::harness::tell_always;

use super::rules::{INSTANCES, Rules};

/// Addresses of the router itself: the gateways of the subnets, and the NAT gateway's two.
const ROUTER: [&str; 5] = ["169.254.0.1", "10.0.1.1", "10.0.2.1", "10.0.1.100", "203.0.113.20"];

/// Namespaces `<prefix>-router`, `<prefix>-web`, … Removed when dropped.
pub struct Linux {
    prefix: String,
}

impl Linux {
    /// Builds the topology, without rules: everything is dropped.
    #[track_caller]
    pub fn build() -> Self {
        let linux = Self { prefix: format!("r{}", std::process::id()) };
        let router = linux.netns("router");
        run_line(&format!("ip netns add {router}")).ok();
        for switch in ["ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"] {
            run_line(&format!("ip netns exec {router} sysctl -q -w net.ipv4.{switch}")).ok();
        }
        tell_always(&router);
        let within = |netns: &str, line: &str| run_line(&format!("ip -n {netns} {line}")).ok();
        within(&router, "link set lo up");
        for address in ROUTER {
            within(&router, &format!("address add {address}/32 dev lo"));
        }
        let internet: &[&str] = &["198.51.100.10", "198.51.100.11"];
        let places = INSTANCES.iter().map(|(name, address)| (*name, std::slice::from_ref(address)));
        for (name, addresses) in places.chain([("internet", internet)]) {
            let netns = linux.netns(name);
            run_line(&format!("ip netns add {netns}")).ok();
            tell_always(&netns);
            run_line(&format!("ip link add eth0 netns {netns} type veth peer name {name} netns {router}"))
                .ok();
            within(&netns, "link set lo up");
            within(&netns, "link set eth0 up");
            within(&router, &format!("link set {name} up"));
            for address in addresses {
                within(&netns, &format!("address add {address}/32 dev eth0"));
                within(&router, &format!("route add {address}/32 dev {name}"));
            }
            within(&netns, "route add default via 169.254.0.1 dev eth0 onlink");
        }
        linux
    }

    /// The name of a namespace.
    pub fn netns(&self, who: &str) -> String {
        format!("{}-{who}", self.prefix)
    }

    /// Replaces the rules.
    #[track_caller]
    pub fn apply(&self, rules: &Rules) {
        let text = format!("flush ruleset\ntable ip lab {{\n{}{FRAME}}}\n", rules.nft());
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.netns("router"), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft");
        // `piped` above; it is closed at the end of the statement.
        nft.stdin.take().unwrap().write_all(text.as_bytes()).expect("nft reads");
        assert!(nft.wait().is_ok_and(|status| status.success()), "nft refuses\n{text}");
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        for who in ["router", "internet"].into_iter().chain(INSTANCES.map(|(name, _)| name)) {
            run_line(&format!("ip netns delete {}", self.netns(who)));
        }
    }
}

/// Around the rules: translation, the stateless filter at the private subnet's edge, the stateful one at each interface.
const FRAME: &str = r#"
chain destination {
  type nat hook prerouting priority dstnat
  iifname internet ip daddr 203.0.113.10 dnat to 10.0.1.10
}
chain source {
  type nat hook postrouting priority srcnat
  oifname internet ip saddr 10.0.1.10 snat to 203.0.113.10
  oifname internet ip saddr 10.0.2.0/24 snat to 203.0.113.20 random
}
chain edge {
  type filter hook forward priority -10
  iifname internet ct direction original ct original ip daddr 10.0.0.0/8 drop
  iifname { app, db } oifname { app, db } accept
  iifname { app, db } jump acl_out
  oifname { app, db } jump acl_in
}
chain interfaces {
  type filter hook forward priority 0
  ct state established,related accept
  iifname vmap { web : jump out_web, app : jump out_app, db : jump out_db }
  oifname vmap { web : jump in_web, app : jump in_app, db : jump in_db }
}
"#;
