//! The worked packet walks of aws-vpc.md §33 as golden traces: every packet, every stage it meets, what becomes of it and what is remembered.
//!
//! Each test tells a story, which is compared with `tests/engine/golden/<name>.txt`. `GOLDEN=write cargo test -p localvpc-engine --test engine golden`
//! writes what is told now; read the difference before you keep it. Leased ports are random: they are shown as `P`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use localvpc_api::tables::{Action, Peer, RouteTarget, SourceDestCheck, Traffic};
use localvpc_api::trace::{
    Decision, Direction, Protocol, SecurityGroupVerdict, TraceOutcome, TraceStep, Tuple,
};
use localvpc_api::{EniId, LinkId, SecurityGroupId, SubnetId, Tables};
use localvpc_engine::packet::{self, Echo, Kind, TcpFacts};
use localvpc_engine::report;
use localvpc_engine::testing::craft::{self, ping, tcp, udp};
use localvpc_engine::testing::fabric::{Fabric, Outcome};
use localvpc_engine::testing::lab::{self, *};

const SYN: u8 = TcpFacts::SYN;
const SYN_ACK: u8 = TcpFacts::SYN | TcpFacts::ACK;
const ACK: u8 = TcpFacts::ACK;
const DATA: u8 = TcpFacts::ACK | TcpFacts::PSH;
const CLIENT: &str = "203.0.113.5:40000";
const SERVER: &str = "203.0.113.5:443";
const APP_END: &str = "10.0.2.20:51000";

#[test]
fn walk_1_internet_to_web() {
    let mut story = Story::new("WALK-1: the internet opens a connection to web's Elastic IP");
    story.tell(INTERNET, tcp(SYN, CLIENT, "198.51.100.10:80"));
    story.tell(WEB.1, tcp(SYN_ACK, "10.0.1.10:80", CLIENT));
    story.tell(INTERNET, tcp(ACK, CLIENT, "198.51.100.10:80"));
    story.then(
        "web's group has its rule for everybody replaced by one for the client: from now on it is tracked",
        |rows| {
            let client = Peer::Cidr(lab::net("203.0.113.5/32"));
            rows.security_groups[0].inbound = vec![rule(lab::tcp(80), client)];
        },
    );
    story.tell(INTERNET, tcp(SYN, "203.0.113.5:40001", "198.51.100.10:80"));
    story.tell(WEB.1, tcp(SYN_ACK, "10.0.1.10:80", "203.0.113.5:40001"));
    story.matches("walk_1");
}

#[test]
fn walk_2_app_to_the_internet() {
    let mut story = Story::new("WALK-2: app opens a connection through the NAT gateway");
    let eip = story.opens_a_connection();
    story.tell(APP.1, tcp(DATA, APP_END, SERVER));
    story.tell(INTERNET, tcp(DATA, SERVER, eip.as_str()));
    story.matches("walk_2");
}

#[test]
fn walk_3_app_after_a_long_silence() {
    let mut story = Story::new("WALK-3: app is silent for 350 s, then sends data");
    let eip = story.opens_a_connection();
    story.passes_ms(350_000);
    story.tell(INTERNET, tcp(DATA, SERVER, eip.as_str()));
    story.tell(APP.1, tcp(DATA, APP_END, SERVER));
    story.counts();
    story.matches("walk_3");
}

#[test]
fn walk_4_the_internet_to_the_nat_gateway_and_to_app() {
    let mut story = Story::new("WALK-4: nothing gets in that was not asked for");
    story.tell(INTERNET, tcp(SYN, CLIENT, "198.51.100.20:5000"));
    story.tell(INTERNET, ping(Echo::Request, "203.0.113.5", "198.51.100.20", 7, 1));
    story.tell(APP.1, ping(Echo::Request, "10.0.2.20", "10.0.1.100", 7, 1));
    story.tell(INTERNET, tcp(SYN, CLIENT, "10.0.2.20:22"));
    story.counts();
    story.matches("walk_4");
}

#[test]
fn walk_5_web_without_a_public_address() {
    let mut story = Story::new("WALK-5: a public subnet is not enough");
    story.then("web loses its Elastic IP", |rows| {
        rows.public_addresses.remove(0);
    });
    story.tell(WEB.1, tcp(SYN, "10.0.1.10:40000", SERVER));
    story.matches("walk_5");
}

#[test]
fn walk_6_web_to_app_between_subnets() {
    let mut story = Story::new("WALK-6: between subnets, to a group that admits web's");
    story.then("app's group admits web's on 8080", |rows| {
        rows.security_groups[1].inbound = vec![rule(lab::tcp(8080), Peer::SecurityGroup(WEB_GROUP))];
    });
    story.tell(WEB.1, tcp(SYN, "10.0.1.10:40000", "10.0.2.20:8080"));
    story.tell(APP.1, tcp(SYN_ACK, "10.0.2.20:8080", "10.0.1.10:40000"));
    story.tell(WEB.1, tcp(ACK, "10.0.1.10:40000", "10.0.2.20:8080"));
    story.then(
        "the private subnet's network ACL forgets the way out: replies have no state there (NACL-5)",
        |rows| {
            rows.network_acls[1].outbound = vec![entry(100, Action::Allow, lab::tcp(443), "0.0.0.0/0")];
        },
    );
    story.tell(APP.1, tcp(DATA, "10.0.2.20:8080", "10.0.1.10:40000"));
    story.matches("walk_6");
}

#[test]
fn walk_7_app_to_db_in_one_subnet() {
    let mut story = Story::new("WALK-7: in one subnet security groups decide, and nothing else");
    story.then("the private subnet has neither routes nor network ACL entries", |rows| {
        rows.network_acls[1].inbound.clear();
        rows.network_acls[1].outbound.clear();
        rows.route_tables[1].routes.clear();
    });
    story.tell(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5432"));
    story.tell(DB.1, tcp(SYN_ACK, "10.0.2.30:5432", "10.0.2.20:40000"));
    story.tell(APP.1, tcp(SYN, "10.0.2.20:40000", "10.0.2.30:5433"));
    story.matches("walk_7");
}

#[test]
fn walk_12_a_nat_instance() {
    let mut story = Story::new("WALK-12: web is a NAT instance for the private subnet");
    story.then("the private subnet's default route leads to web, whose group admits app's", |rows| {
        rows.route_tables[1].routes[1].target = RouteTarget::NetworkInterface(WEB.0);
        rows.security_groups[0].inbound = vec![rule(Traffic::All, Peer::SecurityGroup(APP_GROUP))];
    });
    story.tell(APP.1, tcp(SYN, APP_END, SERVER));
    story.then("web's source/destination check is turned off", |rows| {
        rows.enis[0].source_dest_check = SourceDestCheck::Disabled;
    });
    story.tell(APP.1, tcp(SYN, APP_END, SERVER));
    story.says("web's own system masquerades it");
    story.tell(WEB.1, tcp(SYN, "10.0.1.10:61000", SERVER));
    story.tell(INTERNET, tcp(SYN_ACK, SERVER, "198.51.100.10:61000"));
    story.says("and sends the answer on");
    story.tell(WEB.1, tcp(SYN_ACK, SERVER, APP_END));
    story.matches("walk_12");
}

#[test]
fn walk_13_path_mtu() {
    let mut story = Story::new(
        "WALK-13: web and app send packets of 9001 bytes to the internet that must not be fragmented",
    );
    story.tell(WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 8973]));
    story.tell(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", &[0; 8973]));
    story.says("the NAT gateway takes 8500 bytes, the internet gateway does not");
    story.tell(APP.1, udp("10.0.2.20:5000", "203.0.113.5:53", &[0; 8472]));
    story.then(
        "the network ACL of the public subnet lets no ICMP in: web learns nothing (NACL-14)",
        |rows| {
            rows.network_acls[0].inbound.insert(0, entry(50, Action::Deny, lab::ICMP, "0.0.0.0/0"));
        },
    );
    story.tell(WEB.1, udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 8973]));
    story.says("where it may be fragmented, it is");
    story.tell(WEB.1, craft::fragmentable(udp("10.0.1.10:5000", "203.0.113.5:53", &[0; 8973])));
    story.matches("walk_13");
}

/// What happens in the lab, as text.
struct Story {
    net: Fabric,
    text: String,
    /// Ports that the NAT gateway has leased, or would lease.
    leased: BTreeSet<u16>,
}

impl Story {
    fn new(title: &str) -> Self {
        Self { net: Fabric::new(lab::tables()), text: format!("{title}\n"), leased: BTreeSet::new() }
    }

    fn says(&mut self, what: &str) {
        let _ = writeln!(self.text, "\n# {what}");
    }

    /// Changes the tables.
    fn then(&mut self, what: &str, change: impl FnOnce(&mut Tables)) {
        self.says(what);
        self.net.push(change);
    }

    fn passes_ms(&mut self, ms: u64) {
        self.says(&format!("{ms} ms pass"));
        self.net.pass_ms(ms);
    }

    /// app's handshake with the server; where the server sees app.
    fn opens_a_connection(&mut self) -> String {
        let syn = self.tell(APP.1, tcp(SYN, APP_END, SERVER)).tuple();
        let eip = format!("{}:{}", syn.source, syn.source_port);
        self.tell(INTERNET, tcp(SYN_ACK, SERVER, eip.as_str()));
        self.tell(APP.1, tcp(ACK, APP_END, SERVER));
        eip
    }

    /// Sends a packet and tells its walk, its end, and what is remembered then.
    fn tell(&mut self, from: LinkId, bytes: Vec<u8>) -> Outcome {
        let walk = self.net.trace_packet(from, &bytes);
        let out = self.net.send(from, bytes.clone());
        self.leased.extend(walk.steps.iter().filter_map(would_lease));
        self.leased.extend(report::leases(&self.net.state, self.net.now).iter().map(|row| row.port));
        let mut told = format!("\n{} sends {}\n", link(from), self.packet(&bytes));
        for step in &walk.steps {
            told += &format!("  {}\n", self.step(step));
        }
        let traced = match walk.outcome {
            TraceOutcome::Delivered(link) => Ok(link),
            TraceOutcome::Discarded(reason) => Err(reason),
        };
        assert_eq!(out.verdict, traced, "a packet takes the way that its trace tells:\n{told}");
        told += &match out.verdict {
            Ok(to) if out.fragments.is_empty() => {
                format!("  => {} gets {}\n", link(to), self.packet(&out.bytes))
            }
            Ok(to) => format!("  => {} gets {} fragments\n", link(to), out.fragments.len()),
            Err(reason) => format!("  => discarded: {reason}\n"),
        };
        for (_, bytes) in &out.fragments {
            told += &format!("     {}\n", self.packet(bytes));
        }
        for (to, bytes) in &out.answers {
            told += &format!("  => {} is answered {}\n", link(*to), self.packet(bytes));
        }
        self.text += &told;
        self.text += &self.remembered();
        out
    }

    fn remembered(&self) -> String {
        let mut told = String::new();
        for row in report::connections(&self.net.state, self.net.now) {
            let state = format!("{:?}", row.state).to_lowercase();
            let (protocol, outbound) = (row.outbound.protocol, self.ends(row.outbound));
            told += &format!("  ** {} tracks {protocol} {outbound} {state}\n", eni(row.eni));
        }
        for row in report::leases(&self.net.state, self.net.now) {
            let state = format!("{:?}", row.state).to_lowercase();
            let inside = self.ends(row.inside);
            told += &format!("  ** nat leases {}:P to {} {inside} {state}\n", row.address, row.protocol);
        }
        told
    }

    /// What the NAT gateway has counted.
    fn counts(&mut self) {
        let row = report::nat_gateways(&self.net.tables, &self.net.state, self.net.now).remove(0);
        let _ = writeln!(
            self.text,
            "\nActiveConnectionCount {} ConnectionAttemptCount {} ConnectionEstablishedCount {} IdleTimeoutCount {} PacketsDropCount {}",
            row.active_connections,
            row.connection_attempts,
            row.connections_established,
            row.idle_timeouts,
            row.packets_dropped
        );
    }

    fn step(&self, step: &TraceStep) -> String {
        let (place, what, verdict) = self.decision(&step.decision);
        format!("{:<40}| {place:<8} {what:<18} {verdict}", self.ends(step.tuple))
    }

    /// Where, which stage, and what it says.
    fn decision(&self, decision: &Decision) -> (String, String, String) {
        let yes_or_no = |pass: bool| if pass { "pass" } else { "DISCARD" }.to_owned();
        match decision {
            Decision::SourceDestCheck { eni: at, direction, pass } => {
                (eni(*at), format!("check {}", way(direction)), yes_or_no(*pass))
            }
            Decision::SecurityGroup { eni: at, direction, verdict } => {
                (eni(*at), format!("groups {}", way(direction)), self.verdict(verdict, *direction))
            }
            Decision::Route { subnet: at, matched, .. } => {
                let to = matched.map_or("DISCARD: no route".to_owned(), |matched| {
                    format!("{} -> {}", matched.destination, target(matched.target))
                });
                (subnet(*at), "route".to_owned(), to)
            }
            Decision::SameSubnet { subnet: at } => (subnet(*at), "same subnet".to_owned(), String::new()),
            Decision::NetworkAcl { subnet: at, direction, entry, action, .. } => {
                let entry = entry.map_or("*".to_owned(), |number| number.to_string());
                let says = match action {
                    Action::Allow => format!("{entry} allows"),
                    Action::Deny => format!("DISCARD: {entry} denies"),
                };
                (subnet(*at), format!("network ACL {}", way(direction)), says)
            }
            Decision::NatGateway { direction, translated, established, .. } => {
                let known = if *established { "known" } else { "new" };
                let says = translated
                    .map_or("DISCARD".to_owned(), |to| format!("{known}, becomes {}", self.ends(to)));
                ("nat".to_owned(), format!("translates {}", way(direction)), says)
            }
            Decision::InternetGateway { direction, translated, .. } => {
                let says = translated.map_or("DISCARD".to_owned(), |to| format!("becomes {}", self.ends(to)));
                ("igw".to_owned(), format!("translates {}", way(direction)), says)
            }
            Decision::Internet { found } => ("internet".to_owned(), "host".to_owned(), yes_or_no(*found)),
            Decision::End => ("the end".to_owned(), String::new(), String::new()),
        }
    }

    fn verdict(&self, verdict: &SecurityGroupVerdict, direction: Direction) -> String {
        match *verdict {
            SecurityGroupVerdict::Tracked => "tracked: no rule is asked".to_owned(),
            SecurityGroupVerdict::Related => "related to what is tracked".to_owned(),
            SecurityGroupVerdict::Rule { security_group, rule, tracked } => {
                let mut groups = self.net.rows.security_groups.iter();
                let group = groups.find(|group| group.id == security_group).expect("a group of the tables");
                let rules = match direction {
                    Direction::Inbound => &group.inbound,
                    Direction::Outbound => &group.outbound,
                };
                let row = &rules[rule as usize];
                let peer = match row.peer {
                    Peer::Cidr(cidr) => cidr.to_string(),
                    Peer::SecurityGroup(id) => self::group(id).to_owned(),
                };
                let tracked = if tracked { "tracked" } else { "untracked" };
                format!("{} admits {} {peer}, {tracked}", self::group(security_group), traffic(row.traffic))
            }
            SecurityGroupVerdict::NoMatch { any_rules: true } => "DISCARD: no rule admits it".to_owned(),
            SecurityGroupVerdict::NoMatch { any_rules: false } => "DISCARD: there is no rule".to_owned(),
        }
    }

    /// One packet in a line.
    fn packet(&self, bytes: &[u8]) -> String {
        let parsed = packet::parse(bytes, Default::default()).expect("a well-formed packet");
        let what = match parsed.kind {
            Kind::Tcp(facts) => format!("tcp {}", flags(facts.flags)),
            Kind::Udp => "udp".to_owned(),
            Kind::IcmpEcho(Echo::Request) => "ping".to_owned(),
            Kind::IcmpEcho(Echo::Reply) => "pong".to_owned(),
            Kind::IcmpError(_) => format!("icmp {}/{}", bytes[20], bytes[21]),
            Kind::LaterFragment => "fragment".to_owned(),
            Kind::IcmpOther | Kind::Other => format!("protocol {}", parsed.tuple.protocol),
        };
        let about = match parsed.kind {
            Kind::IcmpError(about) => {
                let mtu = u16::from_be_bytes([bytes[26], bytes[27]]);
                format!(" mtu {mtu} about {} {}", about.tuple.protocol, self.ends(about.tuple))
            }
            _ => String::new(),
        };
        format!("{what} {} ttl {} length {}{about}", self.ends(parsed.tuple), parsed.ttl, parsed.length)
    }

    /// `10.0.2.20:51000 > 203.0.113.5:443`, without ports where there are none.
    fn ends(&self, tuple: Tuple) -> String {
        let Tuple { source, destination, source_port, destination_port, protocol } = tuple;
        if protocol != Protocol::TCP && protocol != Protocol::UDP || (source_port, destination_port) == (0, 0)
        {
            return format!("{source} > {destination}");
        }
        let port = |port: u16| if self.leased.contains(&port) { "P".to_owned() } else { port.to_string() };
        format!("{source}:{} > {destination}:{}", port(source_port), port(destination_port))
    }

    /// Compares the story with the one that is kept.
    #[track_caller]
    fn matches(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/engine/golden/{name}.txt"));
        let told: String = self.text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        if std::env::var("GOLDEN").is_ok_and(|how| how == "write") {
            std::fs::write(&path, told).expect("the story can be written");
            return;
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let at = kept.lines().zip(told.lines()).position(|(kept, told)| kept != told);
        let at = at.unwrap_or(kept.lines().count().min(told.lines().count()));
        let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
        assert!(
            kept == told,
            "{name}.txt differs in line {}:\n  kept: {}\n  told: {}\n`GOLDEN=write` writes what is told now:\n\n{told}",
            at + 1,
            line(&kept),
            line(&told)
        );
    }
}

/// The port that a NAT gateway would lease at this step.
fn would_lease(step: &TraceStep) -> Option<u16> {
    match step.decision {
        Decision::NatGateway { translated: Some(to), direction: Direction::Outbound, .. } => {
            Some(to.source_port)
        }
        _ => None,
    }
}

fn flags(flags: u8) -> String {
    let letters = [(SYN, 'S'), (TcpFacts::FIN, 'F'), (TcpFacts::RST, 'R'), (TcpFacts::PSH, 'P'), (ACK, '.')];
    letters.into_iter().filter(|(flag, _)| flags & flag != 0).map(|(_, letter)| letter).collect()
}

const fn way(direction: &Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

fn link(id: LinkId) -> String {
    if id == INTERNET { "internet".to_owned() } else { eni(EniId(id.0)) }
}

fn eni(id: EniId) -> String {
    let names = [(WEB.0, "web"), (APP.0, "app"), (DB.0, "db")];
    names.iter().find(|(known, _)| *known == id).expect("an ENI of the lab").1.to_owned()
}

fn subnet(id: SubnetId) -> String {
    if id == PUBLIC { "public" } else { "private" }.to_owned()
}

fn group(id: SecurityGroupId) -> &'static str {
    let names = [(WEB_GROUP, "sg-web"), (APP_GROUP, "sg-app"), (DB_GROUP, "sg-db")];
    names.iter().find(|(known, _)| *known == id).expect("a group of the lab").1
}

fn target(target: RouteTarget) -> &'static str {
    match target {
        RouteTarget::Local => "local",
        RouteTarget::InternetGateway(_) => "igw",
        RouteTarget::NatGateway(_) => "nat",
        RouteTarget::NetworkInterface(_) => "web",
        RouteTarget::Blackhole => "DISCARD: blackhole",
    }
}

fn traffic(traffic: Traffic) -> String {
    match traffic {
        Traffic::All => "all".to_owned(),
        Traffic::Tcp(ports) => format!("tcp {}", ports.from),
        Traffic::Udp(ports) => format!("udp {}", ports.from),
        Traffic::Icmp(_) => "icmp".to_owned(),
        Traffic::Protocol(number) => format!("protocol {number}"),
    }
}
