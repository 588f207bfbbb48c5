//! The instances and rules that rows are measured in, and the three ways to have packets carried between them.
//!
//! ```text
//!   l0 ── left ──┐                ┌── right ── r0     pairs: security groups of 60 rules at both ends, network ACLs of
//!   l1 ── left ──┼── main ────────┼── right ── r1     20 + 20 entries at both subnets
//!   app ─ private┴─ nat ─ igw ─ internet: host        through the NAT gateway
//! ```
//!
//! In the way of the null forwarder `l0` and `r0` are neighbours, `l1` and `r1`, and `app` and the internet: that is what
//! the order of instances in the file is for.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use localvpc::bench::linux_router::{self, LinuxRouter, STATEFUL_RULES, STATELESS_RULES, Side, Station};
use localvpc::host::netns;
use localvpc::view::CountersView;
use localvpc_traffic::udp::Framing;
use localvpc_traffic::{self as traffic, Endpoint};

use crate::lab::Lab;
use crate::rows;

/// What there is to measure in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Pairs of instances that talk to each other; `app` and an internet host come in addition.
    pub pairs: usize,
    /// What the instances' links can do.
    pub links: Links,
    /// How dataplanes wait for packets.
    pub poll: Poll,
}

/// How dataplanes wait for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// As the command line says, or else as they do by themselves.
    AsAsked,
    /// The one whose turn it is never sleeps. The others do: they would take its processors.
    Busy,
}

/// How dataplanes work: words for `localvpc up`. They hold for ours and for the null forwarder alike.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--poll`.
    pub poll: Option<String>,
    /// `--merge`.
    pub merge: Option<String>,
}

/// What links can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// All offloads that the kernel grants: super-packets.
    Offload,
    /// `offload: off`: bare packets. The Linux router stays as it is.
    Bare,
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A lab.
    Ours,
    /// A lab whose dataplane decides nothing.
    Null,
    /// A Linux router.
    Linux,
}

/// A scene that is up, one way. Taken down when dropped.
#[derive(Debug)]
pub struct Way {
    /// Which.
    pub kind: Kind,
    /// How its devices count bytes.
    pub framing: Framing,
    /// `l0` and `r0`, `l1` and `r1`, …
    pub pairs: Vec<(Endpoint, Endpoint)>,
    /// `app` and the internet host.
    through_nat: (Endpoint, Endpoint),
    /// Whether its dataplane, in its turns, never sleeps.
    never_sleeps: bool,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    Lab(Lab),
    Linux(LinuxRouter),
}

/// Why a scene is not up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `localvpc` failed.
    #[error("`localvpc {verb}` failed:\n{said}")]
    Localvpc {
        /// What was asked of it.
        verb: String,
        /// Its last words.
        said: String,
    },
    /// A program is not where it should be.
    #[error("{path} is missing: run scripts/compare, or `cargo build --release --workspace --bins` first", path = .path.display())]
    Program {
        /// Where.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is no Linux router.
    #[error(transparent)]
    Linux(#[from] linux_router::Error),
    /// Its namespaces are not there.
    #[error(transparent)]
    Traffic(#[from] traffic::Error),
}

const APP: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 10);
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

impl Scene {
    /// Brings it up.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing is left then.
    pub fn up(self, kind: Kind, settings: &Settings) -> Result<Way, Error> {
        let asked = match self.poll {
            Poll::AsAsked => settings.poll.as_deref(),
            Poll::Busy => Some(NEVER_SLEEPING),
        };
        let never_sleeps = asked == Some(NEVER_SLEEPING);
        let poll = if never_sleeps { Some(RESTING) } else { asked };
        let carrier = match kind {
            Kind::Ours | Kind::Null => {
                let words = [("--poll", poll), ("--merge", settings.merge.as_deref())];
                let words = words.into_iter().filter_map(|(option, word)| Some([option, word?]));
                let words: Vec<&str> = words.flatten().collect();
                Carrier::Lab(Lab::up(kind, &self.file(), &words)?)
            }
            Kind::Linux => Carrier::Linux(LinuxRouter::build(&self.stations())?),
        };
        let open = |name: &str, address| -> Result<Endpoint, Error> {
            match &carrier {
                Carrier::Lab(lab) => {
                    Ok(Endpoint::open(&netns::path(&format!("{}-{name}", lab.name)), address)?)
                }
                Carrier::Linux(router) => Ok(router.endpoint(name)?),
            }
        };
        let pair = |pair| {
            let [left, right] = addresses(pair);
            Ok((open(&format!("l{pair}"), left)?, open(&format!("r{pair}"), right)?))
        };
        let pairs = (0..self.pairs).map(pair).collect::<Result<_, Error>>()?;
        let through_nat = (open("app", APP)?, open("internet", HOST)?);
        let framing = match carrier {
            Carrier::Lab(_) => Framing::Ip,
            Carrier::Linux(_) => Framing::Ethernet,
        };
        Ok(Way { kind, framing, pairs, through_nat, never_sleeps, carrier })
    }

    fn stations(self) -> Vec<Station> {
        let station = |name: String, address, side| Station { name, address, side };
        let pairs = (0..self.pairs).flat_map(|pair| {
            let [left, right] = addresses(pair);
            [
                station(format!("l{pair}"), left, Side::Inside),
                station(format!("r{pair}"), right, Side::Inside),
            ]
        });
        [station("app".into(), APP, Side::Inside), station("internet".into(), HOST, Side::Internet)]
            .into_iter()
            .chain(pairs)
            .collect()
    }

    /// The lab's file. As many rules as the Linux router has, and the one that admits is the last.
    fn file(self) -> String {
        let offload = match self.links {
            Links::Offload => "",
            Links::Bare => ", offload: off",
        };
        let entries = |from: &str| -> String {
            (1..STATELESS_RULES / 2)
                .map(|n| {
                    format!(
                        "          - {{ rule: {n}, deny: tcp, ports: {}, {from}: 172.20.{n}.0/24 }}\n",
                        2000 + n
                    )
                })
                .chain([format!("          - {{ rule: 100, allow: all, {from}: 0.0.0.0/0 }}\n")])
                .collect()
        };
        let rules: String = (1..STATEFUL_RULES - 1)
            .map(|n| format!("          - {{ tcp: {}, from: 172.21.{n}.0/24 }}\n", 3000 + n))
            .chain(
                ["tcp", "udp"]
                    .map(|it| format!("          - {{ {it}: {}, from: 10.0.0.0/16 }}\n", rows::PORT)),
            )
            .collect();
        let mut instances =
            format!("      app: {{ subnet: private, ip: {APP}, security_groups: crowd{offload} }}\n");
        for pair in 0..self.pairs {
            let [left, right] = addresses(pair);
            // Writing to a String cannot fail.
            let _ = writeln!(
                instances,
                "      l{pair}: {{ subnet: left, ip: {left}, security_groups: crowd{offload} }}"
            );
            let _ = writeln!(
                instances,
                "      r{pair}: {{ subnet: right, ip: {right}, security_groups: crowd{offload} }}"
            );
        }
        format!(
            "\
lab: compare
vpcs:
  main:
    cidr: 10.0.0.0/16
    internet_gateway: igw
    subnets:
      public:  {{ cidr: 10.0.1.0/24, route_table: public }}
      left:    {{ cidr: 10.0.2.0/24, network_acl: guard }}
      right:   {{ cidr: 10.0.3.0/24, network_acl: guard }}
      private: {{ cidr: 10.0.4.0/24, route_table: private, network_acl: guard }}
    route_tables:
      public:  [ {{ to: 0.0.0.0/0, via: igw }} ]
      private: [ {{ to: 0.0.0.0/0, via: nat }} ]
    nat_gateways:
      nat: {{ subnet: public, ip: 10.0.1.100, eip: [{NAT_ADDRESSES}] }}
    network_acls:
      guard:
        inbound:
{}        outbound:
{}    security_groups:
      crowd:
        inbound:
{rules}    instances:
{instances}internet:
  hosts:
    host: {{ ip: {HOST} }}
",
            entries("from"),
            entries("to"),
        )
    }
}

/// So many, because each has 55,000 ports to a destination (NATGW-12), and each port is held for minutes after its connection has closed
/// (NATGW-14): one address would soon have none for the connections of a measurement.
const NAT_ADDRESSES: &str = "203.0.113.20, 203.0.113.21, 203.0.113.22, 203.0.113.23, 203.0.113.24, 203.0.113.25, 203.0.113.26, 203.0.113.27";

/// Of both instances of a pair. The router's address and the like are below 10.
fn addresses(pair: usize) -> [Ipv4Addr; 2] {
    let last = 10 + pair as u8;
    [Ipv4Addr::new(10, 0, 2, last), Ipv4Addr::new(10, 0, 3, last)]
}

/// How dataplanes wait for packets that never sleep in their turns; and how between them.
const NEVER_SLEEPING: &str = "busy";
const RESTING: &str = "block";

impl Way {
    /// Does something while it is its turn.
    ///
    /// # Errors
    ///
    /// When its dataplane cannot be told how to wait.
    pub fn in_turn<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        self.set_poll(NEVER_SLEEPING)?;
        let done = act();
        self.set_poll(RESTING)?;
        Ok(done)
    }

    fn set_poll(&self, word: &str) -> Result<(), Error> {
        match &self.carrier {
            Carrier::Lab(lab) if self.never_sleeps => lab.configure(&["--poll", word]),
            Carrier::Lab(_) | Carrier::Linux(_) => Ok(()),
        }
    }

    /// The client's and the server's end of a path.
    pub fn ends(&self, path: rows::Path) -> (&Endpoint, &Endpoint) {
        let (client, server) = match path {
            rows::Path::SecurityGroups => &self.pairs[0],
            rows::Path::NatGateway => &self.through_nat,
        };
        (client, server)
    }

    /// The counters of the lab; none of a Linux router.
    ///
    /// # Errors
    ///
    /// When `localvpc counters` fails.
    pub fn counters(&self) -> Result<Option<CountersView>, Error> {
        let Carrier::Lab(lab) = &self.carrier else { return Ok(None) };
        let printed = lab.localvpc(&["counters", "-o", "json"])?;
        serde_json::from_slice(&printed).map(Some).map_err(|error| Error::Localvpc {
            verb: "counters -o json".into(),
            said: format!("what it printed cannot be understood: {error}"),
        })
    }
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Null, Self::Linux];

    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Null => "null",
            Self::Linux => "linux",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_valid_and_has_as_many_rules_as_the_router() {
        for (pairs, links) in [(1, Links::Offload), (1, Links::Bare), (50, Links::Offload)] {
            let text = Scene { pairs, links, poll: Poll::AsAsked }.file();
            let (model, warnings) =
                localvpc::model::Model::read("compare.yaml", &text).expect("a valid file");
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(model.instances().count(), 2 * pairs + 1);
            assert_eq!(text.matches("rule:").count(), STATELESS_RULES);
            assert_eq!(text.matches("from: 172.21.").count(), STATEFUL_RULES - 2, "and two that admit");
        }
    }
}
