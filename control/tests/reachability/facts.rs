//! What becomes of one packet and its reply, word for word as the facts have it. Slow, simple, and on its own.

use crate::world::{ANY, End, Net, Peer, Target, Traffic, Vpc, World};

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    /// A SYN-ACK, an echo reply, an answer.
    pub is_reply: bool,
}

/// How it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and its reply comes back.
    Reached,
    /// An instance that forwards has it.
    Forwarded(Way),
    /// It is discarded, with the code for it.
    Dropped(&'static str, Way),
}

/// Addresses and ports of who sends, and of who should receive.
type Ends = [(u32, u16); 2];

/// The packet, or its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

/// Where one packet ends.
enum Arrival {
    Instance(usize, usize),
    Host,
    Forwarder,
}

/// What has been remembered of the packet when its reply is on its way.
#[derive(Default)]
struct Memory {
    /// Interfaces that track the connection, with the way the first packet went (out of it or in) and as what.
    tracked: Vec<(usize, usize, bool, Ends)>,
    /// Translations: VPC, NAT gateway, the packet as it came and as it left.
    leases: Vec<(usize, usize, Packet, Packet)>,
}

/// The fate of a packet and its reply; NAT gateways on the way take these ports, in turn.
pub fn fate(world: &World, from: End, packet: Packet, nat_ports: &[u16]) -> (Fate, Packet) {
    let mut memory = Memory::default();
    let mut there = packet;
    let mut walk = Walk { world, memory: &mut memory, nat_ports, way: Way::There };
    let arrival = match walk.send(from, &mut there) {
        Ok(arrival) => arrival,
        Err(code) => return (Fate::Dropped(code, Way::There), there),
    };
    let replier = match arrival {
        Arrival::Instance(vpc, instance) => End::Instance(vpc, instance),
        Arrival::Host => End::Host(there.destination),
        Arrival::Forwarder => return (Fate::Forwarded(Way::There), there),
    };
    let mut back = Packet {
        source: there.destination,
        destination: there.source,
        source_port: there.destination_port,
        destination_port: there.source_port,
        protocol: there.protocol,
        is_reply: true,
    };
    walk.way = Way::Back;
    match walk.send(replier, &mut back) {
        Err(code) => (Fate::Dropped(code, Way::Back), back),
        Ok(Arrival::Forwarder) => (Fate::Forwarded(Way::Back), back),
        Ok(Arrival::Instance(..) | Arrival::Host) => {
            let expected = (packet.destination, packet.source, packet.destination_port, packet.source_port);
            let came = (back.source, back.destination, back.source_port, back.destination_port);
            assert_eq!(came, expected, "a reply that arrives is one to what was sent");
            (Fate::Reached, back)
        }
    }
}

struct Walk<'a> {
    world: &'a World,
    memory: &'a mut Memory,
    nat_ports: &'a [u16],
    way: Way,
}

type Step<T> = Result<T, &'static str>;

impl Walk<'_> {
    fn send(&mut self, from: End, packet: &mut Packet) -> Step<Arrival> {
        match from {
            End::Host(_) => self.on_the_internet(packet, true),
            End::Instance(vpc, instance) => {
                // ORD-1: the check, the groups, then the subnet.
                let own = &self.world.vpcs[vpc].instances[instance];
                if own.checks && !own.has(packet.source) {
                    return Err("ENI_SOURCE_DEST_CHECK_RESTRICTION");
                }
                self.groups(vpc, instance, true, packet)?;
                self.out_of_subnet(vpc, own.subnet, packet, 0)
            }
        }
    }

    /// What a subnet's member has sent. `exits` counts how many members it was: a packet that goes on and on is in a loop.
    fn out_of_subnet(
        &mut self,
        vpc: usize,
        subnet: usize,
        packet: &mut Packet,
        exits: usize,
    ) -> Step<Arrival> {
        if exits > 6 {
            return Err("ROUTING_LOOP");
        }
        let world = self.world;
        let row = &world.vpcs[vpc];
        // ORD-6: inside a subnet neither route table nor network ACL is asked.
        if within(row.subnets[subnet].cidr, packet.destination) {
            let (to, _) = owner(row, packet.destination).ok_or("NO_POSSIBLE_DESTINATION")?;
            return self.at(vpc, to, packet, exits);
        }
        // RT-7: the longest prefix; RT-5: the local route is in every table.
        let routes = &row.tables[row.subnets[subnet].table];
        let mut best: Option<(u8, Option<Target>)> =
            within(row.cidr, packet.destination).then_some((row.cidr.1, None));
        for (to, target) in routes {
            if within(*to, packet.destination) && best.is_none_or(|(length, _)| to.1 > length) {
                best = Some((to.1, Some(*target)));
            }
        }
        let (_, target) = best.ok_or("NO_ROUTE_TO_DESTINATION")?;
        let (next, beyond) = match target {
            // RT-17: a blackhole still matches, and drops.
            Some(Target::Blackhole) => return Err("BAD_STATE_ROUTE"),
            None => {
                let (to, subnet) = owner(row, packet.destination).ok_or("NO_POSSIBLE_DESTINATION")?;
                (Some(to), Some(subnet))
            }
            Some(Target::Nat(nat)) => (Some(Member::Nat(nat)), Some(row.nats[nat].subnet)),
            Some(Target::Instance(instance)) => {
                (Some(Member::Instance(instance)), Some(row.instances[instance].subnet))
            }
            Some(Target::Gateway) => (None, None),
        };
        // NACL-4: entries are asked where a subnet is left and where one is entered.
        if beyond != Some(subnet) {
            self.acl(vpc, subnet, true, packet)?;
            if let Some(beyond) = beyond {
                self.acl(vpc, beyond, false, packet)?;
            }
        }
        match next {
            Some(member) => self.at(vpc, member, packet, exits),
            None => self.out_of_vpc(vpc, packet),
        }
    }

    fn at(&mut self, vpc: usize, member: Member, packet: &mut Packet, exits: usize) -> Step<Arrival> {
        match member {
            Member::Instance(instance) => {
                let row = &self.world.vpcs[vpc].instances[instance];
                // ENI-4.
                let own = row.has(packet.destination);
                if !own && row.checks {
                    return Err("ENI_SOURCE_DEST_CHECK_RESTRICTION");
                }
                self.groups(vpc, instance, false, packet)?;
                Ok(if own { Arrival::Instance(vpc, instance) } else { Arrival::Forwarder })
            }
            Member::Nat(nat) => self.nat(vpc, nat, packet, exits),
        }
    }

    fn nat(&mut self, vpc: usize, nat: usize, packet: &mut Packet, exits: usize) -> Step<Arrival> {
        let world = self.world;
        let row = &world.vpcs[vpc].nats[nat];
        let translates = matches!(packet.protocol, 1 | 6 | 17);
        if packet.destination == row.address {
            // NATGW-9; NATGW-18: only what answers something that went out.
            if !translates {
                return Err("PROTOCOL_RESTRICTION");
            }
            let known = self.memory.leases.iter().rev().find(|(v, n, _, left)| {
                (*v, *n) == (vpc, nat)
                    && packet.is_reply
                    && (left.source, left.destination) == (packet.destination, packet.source)
                    && (left.source_port, left.destination_port)
                        == (packet.destination_port, packet.source_port)
            });
            let (_, _, came, _) = known.ok_or("NGW_NO_CONNECTION")?;
            packet.destination = came.source;
            packet.destination_port = came.source_port;
            return self.out_of_subnet(vpc, row.subnet, packet, exits + 1);
        }
        if packet.source == row.address {
            return Err("ROUTING_LOOP");
        }
        // NATGW-32.
        if owner(&world.vpcs[vpc], packet.source).is_none() {
            return Err("NGW_REQUIRES_SOURCE_IN_VPC");
        }
        if !translates {
            return Err("PROTOCOL_RESTRICTION");
        }
        if packet.is_reply {
            // NATGW-22: no connection of it. A datagram would begin one, and so come from a stranger.
            return Err(if packet.protocol == 17 {
                "NGW_SOURCE_ADDRESS_REASSIGN"
            } else {
                "NGW_NO_CONNECTION"
            });
        }
        let came = *packet;
        packet.source = row.address;
        if packet.protocol != 1 {
            let taken = self.memory.leases.len();
            packet.source_port = self.nat_ports.get(taken).copied().unwrap_or(1024);
        }
        self.memory.leases.push((vpc, nat, came, *packet));
        self.out_of_subnet(vpc, row.subnet, packet, exits + 1)
    }

    /// By the internet gateway.
    fn out_of_vpc(&mut self, vpc: usize, packet: &mut Packet) -> Step<Arrival> {
        // IGW-8.
        if is_private(packet.destination) {
            return Err("IGW_DESTINATION_ADDRESS_NOT_IN_RFC1918_EGRESS");
        }
        if is_shared(packet.destination) {
            return Err("IGW_DESTINATION_ADDRESS_NOT_IN_RFC6598_EGRESS");
        }
        // IGW-3, IGW-9.
        let row = &self.world.vpcs[vpc];
        let public =
            row.addresses().find(|(address, _)| *address == packet.source).and_then(|(_, public)| public);
        packet.source = public.ok_or("IGW_PUBLIC_IP_ASSOCIATION_FOR_EGRESS")?;
        self.on_the_internet(packet, false)
    }

    fn on_the_internet(&mut self, packet: &mut Packet, from_host: bool) -> Step<Arrival> {
        // IGW-6, IGW-14: into the gateway that has the address, wherever the packet comes from.
        for (at, vpc) in self.world.vpcs.iter().enumerate() {
            let inside = vpc.addresses().find(|(_, public)| *public == Some(packet.destination));
            let Some((private, _)) = inside else { continue };
            if is_private(packet.source) {
                return Err("IGW_SOURCE_ADDRESS_NOT_IN_RFC1918_INGRESS");
            }
            if is_shared(packet.source) {
                return Err("IGW_SOURCE_ADDRESS_NOT_IN_RFC6598_INGRESS");
            }
            packet.destination = private;
            let (member, subnet) = owner(vpc, private).ok_or("NO_POSSIBLE_DESTINATION")?;
            // RT-32: no route is needed to come in; ORD-2: the subnet's entries are asked.
            self.acl(at, subnet, false, packet)?;
            return self.at(at, member, packet, 0);
        }
        let is_known = self.world.hosts.contains(&packet.destination);
        // A reply goes to whoever has asked, whether a host of the lab or any other.
        if is_known || self.way == Way::Back {
            return Ok(Arrival::Host);
        }
        Err(if from_host { "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS" } else { "INTERNET_HOST_UNKNOWN" })
    }

    /// NACL-2: ascending, the first match decides, and what matches none is denied. NACL-8: the far address, and the
    /// destination port. NACL-5: nothing is remembered.
    fn acl(&self, vpc: usize, subnet: usize, outbound: bool, packet: &Packet) -> Step<()> {
        let row = &self.world.vpcs[vpc];
        let acl = &row.acls[row.subnets[subnet].acl];
        let (entries, far) = match outbound {
            true => (&acl.outbound, packet.destination),
            false => (&acl.inbound, packet.source),
        };
        let first = entries.iter().find(|(_, traffic, net)| within(*net, far) && matches(*traffic, packet));
        match first {
            Some((true, ..)) => Ok(()),
            _ => Err("SUBNET_ACL_RESTRICTION"),
        }
    }

    /// SG-9: a packet of a tracked connection passes, any other by some rule (SG-2). It belongs to the connection by its
    /// addresses and ports (SG-30): a reply that comes in at another interface, or under another address, does not.
    fn groups(&mut self, vpc: usize, instance: usize, outbound: bool, packet: &Packet) -> Step<()> {
        let [sender, receiver]: Ends =
            [(packet.source, packet.source_port), (packet.destination, packet.destination_port)];
        let there = (vpc, instance, !outbound, [receiver, sender]);
        if packet.is_reply && self.memory.tracked.contains(&there) {
            return Ok(());
        }
        let rules = rules(&self.world.vpcs[vpc], instance, outbound);
        if rules.is_empty() {
            return Err("SG_HAS_NO_RULES");
        }
        let far = if outbound { packet.destination } else { packet.source };
        let is_far = |peer: Peer| match peer {
            Peer::Net(net) => within(net, far),
            // SG-20: the private addresses of the interfaces that carry the group.
            Peer::Group(group) => {
                let members = self.world.vpcs[vpc].instances.iter();
                members.filter(|it| it.groups.contains(&group)).any(|it| it.has(far))
            }
        };
        let admitted: Vec<&(Traffic, Peer)> =
            rules.iter().filter(|(traffic, peer)| is_far(*peer) && matches(*traffic, packet)).collect();
        if admitted.is_empty() {
            return Err("ENI_SG_RULES_MISMATCH");
        }
        // SG-32: TCP and UDP that a rule for everybody admits while everything may go the other way are not tracked; what
        // passes a NAT gateway is (SG-35), but then its reply may as well pass by the rules: they admit everything.
        let everybody = admitted.iter().any(|(_, peer)| is_everybody(*peer));
        let opposite = self::rules(&self.world.vpcs[vpc], instance, !outbound);
        let all = opposite
            .iter()
            .any(|(traffic, peer)| is_everybody(*peer) && is_every_port(*traffic, packet.protocol));
        let has_ports = matches!(packet.protocol, 6 | 17);
        let untracked = has_ports && everybody && all;
        if !(packet.is_reply || untracked) {
            self.memory.tracked.push((vpc, instance, outbound, [sender, receiver]));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Member {
    Instance(usize),
    Nat(usize),
}

/// Who has an address of a VPC, and in which subnet.
fn owner(vpc: &Vpc, address: u32) -> Option<(Member, usize)> {
    let instances = vpc.instances.iter().enumerate();
    let mut instances = instances.filter(|(_, it)| it.has(address));
    let nats = vpc.nats.iter().enumerate();
    let mut nats = nats.filter(|(_, it)| it.address == address);
    let instance = instances.next().map(|(at, it)| (Member::Instance(at), it.subnet));
    instance.or_else(|| nats.next().map(|(at, it)| (Member::Nat(at), it.subnet)))
}

fn rules(vpc: &Vpc, instance: usize, outbound: bool) -> Vec<(Traffic, Peer)> {
    let groups = vpc.instances[instance].groups.iter().map(|group| &vpc.groups[*group]);
    groups.flat_map(|group| if outbound { &group.outbound } else { &group.inbound }).copied().collect()
}

/// SG-8, NACL-9: what is not TCP, UDP or ICMP has no ports to match.
fn matches(traffic: Traffic, packet: &Packet) -> bool {
    let port = packet.destination_port;
    match traffic {
        Traffic::All => true,
        Traffic::Tcp(from, to) => packet.protocol == 6 && from <= port && port <= to,
        Traffic::Udp(from, to) => packet.protocol == 17 && from <= port && port <= to,
        Traffic::Icmp(None) => packet.protocol == 1,
        Traffic::Icmp(Some(kind)) => packet.protocol == 1 && kind == if packet.is_reply { 0 } else { 8 },
        Traffic::Protocol(number) => packet.protocol == number,
    }
}

fn is_everybody(peer: Peer) -> bool {
    matches!(peer, Peer::Net(net) if net == ANY)
}

fn is_every_port(traffic: Traffic, protocol: u8) -> bool {
    match traffic {
        Traffic::All => true,
        Traffic::Tcp(0, 65_535) => protocol == 6,
        Traffic::Udp(0, 65_535) => protocol == 17,
        Traffic::Protocol(number) => number == protocol,
        _ => false,
    }
}

fn within((net, length): Net, address: u32) -> bool {
    length == 0 || (net ^ address) >> (32 - u32::from(length)) == 0
}

/// RFC 1918.
fn is_private(address: u32) -> bool {
    within((0x0a00_0000, 8), address)
        || within((0xac10_0000, 12), address)
        || within((0xc0a8_0000, 16), address)
}

/// RFC 6598.
fn is_shared(address: u32) -> bool {
    within((0x6440_0000, 10), address)
}
