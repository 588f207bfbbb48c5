//! Forwards many packets at once, with the outcome that they have one after the other.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use localvpc_api::LinkId;
use localvpc_api::trace::{Direction, Protocol, Tuple};

use super::{Arrival, Verdict, Worker};
use crate::Time;
use crate::flow::Spot;
use crate::packet::{self, Key, Offload, Opens};
use crate::state::leases::InsideKey;
use crate::state::nat_ports::Destination;
use crate::state::{self, State};
use crate::tables::Tables;

/// A packet of a batch.
#[derive(Debug)]
pub struct BatchPacket<'a> {
    /// The link it came in on.
    pub from: LinkId,
    /// From the IP header on; rewritten in place.
    pub bytes: &'a mut [u8],
    /// What its virtio header said.
    pub offload: Offload,
    /// What becomes of it; `None` until that is decided.
    ///
    /// A panic leaves the packets that were decided before it with their verdicts. The first one without is lost;
    /// those behind it are as they came and may be handed over again.
    pub verdict: Option<Verdict>,
}

impl<'a> BatchPacket<'a> {
    /// A packet about which nothing is decided yet.
    pub fn new(from: LinkId, bytes: &'a mut [u8], offload: Offload) -> Self {
        Self { from, bytes, offload, verdict: None }
    }
}

impl Worker {
    /// Decides about packets in the order in which they came, and rewrites them in place: as [`forward`](Self::forward) does
    /// with each, only faster.
    ///
    /// They may be of any links and any number; 32 to 64 are best. What leaves beside them is in [`extras`](Self::extras).
    pub fn forward_batch(
        &mut self,
        tables: &Tables,
        state: &State,
        batch: &mut [BatchPacket<'_>],
        now: Time,
    ) {
        self.outbox.clear();
        self.turn_to(tables);
        let mut before = 0;
        for group in batch.chunks_mut(GROUP) {
            match group.len() {
                1 => self.forward_alone(tables, state, before, &mut group[0], now),
                2..=FEW => self.forward_group::<FEW>(tables, state, before, group, now),
                _ => self.forward_group::<GROUP>(tables, state, before, group, now),
            }
            before += group.len();
            self.settle(tables);
        }
    }

    /// Nothing is to be waited for beside it, unless it is walked.
    fn forward_alone(
        &mut self,
        tables: &Tables,
        state: &State,
        at: usize,
        packet: &mut BatchPacket<'_>,
        now: Time,
    ) {
        self.pending.packets += 1;
        match packet::guess(packet.bytes, packet.from) {
            Some((_, Opens::No)) if self.hit_either(state, packet, None, now) => return,
            Some((key, Opens::Yes)) => {
                let foreseen = self.foresee(tables, state, packet.from, packet.bytes);
                if let Some(spot) = self.cache.spot(key) {
                    self.cache.place(spot);
                }
                foreseen.inspect(|foreseen| foreseen.prefetch_records(state));
            }
            _ => {}
        }
        self.outbox.turn_to(at);
        let arrival = Arrival { from: packet.from, offload: packet.offload, now };
        packet.verdict = Some(self.decide(tables, state, arrival, packet.bytes));
    }

    /// Each stage has the processor fetch what the next one reads, for all packets, so that they wait for memory together.
    #[inline(never)]
    fn forward_group<const MOST: usize>(
        &mut self,
        tables: &Tables,
        state: &State,
        before: usize,
        group: &mut [BatchPacket<'_>],
        now: Time,
    ) {
        // Packets of a flow come one after the other more often than not: what is found for one holds for those behind it.
        let (mut spots, mut repeated) = ([None; MOST], [false; MOST]);
        let (mut last, mut spot) = (Key::default(), None);
        let mut opening = ArrayVec::<Spot, MOST>::new();
        for ((found, repeated), packet) in spots.iter_mut().zip(&mut repeated).zip(&*group) {
            match packet::guess(packet.bytes, packet.from) {
                Some((key, Opens::No)) => {
                    *repeated = key == last;
                    if !*repeated {
                        last = key;
                        spot = self.cache.spot(key);
                    }
                    *found = spot;
                }
                // No cache decides about it; but its flow will be kept there soon.
                Some((key, Opens::Yes)) => opening.extend(self.cache.spot(key)),
                None => {}
            }
        }
        let mut places = [None; MOST];
        let mut place = None;
        let mut foreseen = ArrayVec::<Foreseen, MOST>::new();
        for (((found, spot), repeated), packet) in places.iter_mut().zip(&spots).zip(&repeated).zip(&*group) {
            if !repeated {
                place = spot.and_then(|spot| self.cache.place(spot));
                if place.is_none() {
                    foreseen.extend(self.foresee(tables, state, packet.from, packet.bytes));
                }
            }
            *found = place;
        }
        for (place, repeated) in places[..group.len()].iter().zip(&repeated) {
            if let (Some(place), false) = (place, repeated) {
                self.cache.prefetch_dependencies(*place, state);
            }
        }
        for spot in &opening {
            self.cache.place(*spot);
        }
        if MOST <= FEW || foreseen.len() <= FEW {
            foreseen.iter().for_each(|foreseen| foreseen.prefetch_records(state));
        }
        // What one packet changes, the next may depend on: from here on, one after the other.
        for (at, ((packet, spot), place)) in group.iter_mut().zip(&spots).zip(&places).enumerate() {
            if spot.is_none() || !self.hit_either(state, packet, *place, now) {
                self.outbox.turn_to(before + at);
                let arrival = Arrival { from: packet.from, offload: packet.offload, now };
                packet.verdict = Some(self.decide(tables, state, arrival, packet.bytes));
            }
        }
        self.pending.packets += group.len() as u64;
    }

    /// Has the processor fetch where the walk of a packet that an ENI sends will look for its connection, its lease and a port.
    fn foresee(&self, tables: &Tables, state: &State, from: LinkId, bytes: &[u8]) -> Option<Foreseen> {
        let head: &[u8; 24] = bytes.first_chunk()?;
        let [eni] = tables.links.get(&from)?.enis.as_slice() else { return None };
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into();
        let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let tuple = Tuple {
            source: address(12),
            destination: address(16),
            source_port: port(20),
            destination_port: port(22),
            protocol: Protocol(head[9]),
        };
        let connection = state.connections.place(tables.eni(*eni).id, &tuple, Direction::Outbound)?;
        state.connections.prefetch(&connection);
        let Some((nat_gateway, address)) = self.last_nat_gateway else {
            return Some(Foreseen { connection, lease: None });
        };
        let lease = state.leases.inside(&InsideKey { nat_gateway, tuple })?;
        state.leases.prefetch_inside(&lease);
        state.leases.ports.prefetch(&Destination {
            nat_gateway,
            address,
            remote: tuple.destination,
            remote_port: tuple.destination_port,
            protocol: tuple.protocol,
        });
        Some(Foreseen { connection, lease: Some(lease) })
    }
}

/// Where the walk of a packet will likely look.
struct Foreseen {
    /// For the connection at its sender.
    connection: state::place::Place,
    /// For its lease, if it goes through the NAT gateway that the last one went through.
    lease: Option<state::place::Place>,
}

impl Foreseen {
    /// Has the processor fetch the records that a connection before it may have left.
    fn prefetch_records(&self, state: &State) {
        state.connections.prefetch_records(&self.connection);
        self.lease.iter().for_each(|lease| state.leases.prefetch_records(lease));
    }
}

/// Packets that go through the stages together: enough that memory is waited for once, and few enough that what was fetched
/// is still there when it is needed.
const GROUP: usize = 32;

/// Of so few walks the processor fetches the records, too, that a connection before them may have left. Among more, it is faster to leave that
/// to each: most of those that come together have none.
const FEW: usize = 8;
