//! What would a walk change, and how is it made true?
//!
//! Stages propose effects; [`Effects::commit`] carries them out when the packet
//! has been accepted by every stage, or not at all. So a connection is tracked at
//! the sender's ENI only if the receiver's side accepted the packet too. AWS does not
//! document this case; nothing but the number of connections depends on it.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use localvpc_api::DiscardReason;
use localvpc_api::trace::{Direction, Tuple};

use super::Walk;
use crate::Time;
use crate::packet::{Kind, Packet};
use crate::state::State;
use crate::state::activity::Ref;
use crate::state::conntrack::{Allowed, NewConnection, NotTracked, Tracked};
use crate::state::index::Absence;
use crate::state::leases::{NewLease, NotLeased, OutsideKey, PortReservation, Translation};
use crate::state::place::Place;
use crate::tables::{EniIndex, NatGatewayIndex, Tables};

/// A change that a stage proposes.
#[derive(Debug)]
pub enum Effect<'a> {
    /// A tracked connection has another packet.
    Connection {
        /// The connection.
        activity: Ref,
        /// Seen from its ENI.
        direction: Direction,
    },
    /// A security group rule admitted a new connection.
    Track {
        /// The ENI.
        eni: EniIndex,
        /// The connection.
        new: NewConnection,
        /// Whether the rules leave it untracked, unless it passes a NAT gateway (SG-32, SG-35).
        untracked: bool,
        /// That it was not tracked before.
        absence: Absence,
    },
    /// Security group rules admitted a packet that belongs to no tracked connection and begins none.
    Judge {
        /// The connection that it would belong to.
        place: Place,
        /// That it is not tracked.
        absence: Absence,
    },
    /// A NAT lease has another packet.
    Lease {
        /// The lease.
        activity: Ref,
        /// The gateway.
        nat_gateway: NatGatewayIndex,
        /// Outbound is from inside to the destination.
        direction: Direction,
    },
    /// A NAT gateway translates a new connection.
    NewLease {
        /// The gateway.
        nat_gateway: NatGatewayIndex,
        /// The connection as it comes from inside.
        new: NewLease,
        /// The port that was taken for it.
        reservation: PortReservation<'a>,
    },
    /// A NAT gateway translates a connection that begins anew on the tuple of one that has closed, as it translated that one.
    Reopen {
        /// The gateway.
        nat_gateway: NatGatewayIndex,
        /// The connection as it comes from inside.
        place: Place,
        /// The lease of the one that has closed.
        activity: Ref,
        /// Which of the gateway's addresses that has.
        address: IpAddr,
    },
    /// An ICMP error passes a NAT gateway: it is counted and changes nothing (RFC 5508 REQ-6).
    Relate {
        /// The gateway.
        nat_gateway: NatGatewayIndex,
        /// Outbound is from inside to the destination.
        direction: Direction,
    },
}

/// A packet meets at most two ENIs and two NAT gateways.
const MAX_EFFECTS: usize = 8;

/// Everything that a walk would change.
#[derive(Debug, Default)]
pub struct Effects<'a>(ArrayVec<Effect<'a>, MAX_EFFECTS>);

/// What a flow cache entry depends on, beside the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// A tracked connection, and the direction of the packets seen from its ENI.
    Connection(Ref, Direction),
    /// A NAT lease, and the direction of the packets: outbound is from inside.
    Lease(Ref, Direction),
    /// That an ENI tracks no such connection.
    NoConnection(Absence),
}

/// The connections and leases that an accepted packet belongs to.
pub type Dependencies = ArrayVec<Dependency, 4>;

/// Why the effects of a walk were not kept. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCommitted {
    /// Another worker was faster: walk again.
    Raced,
    /// There is no room; at an ENI, if one is named.
    Full(DiscardReason, Option<EniIndex>),
}

impl<'a> Effects<'a> {
    /// Adds a proposal.
    #[inline]
    pub fn propose(&mut self, effect: Effect<'a>) -> Result<(), DiscardReason> {
        // A path with more effects goes through more gateways than a path can: it is a loop.
        self.0.try_push(effect).map_err(|_| DiscardReason::Loop)
    }

    /// Takes all proposals back.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the packet passes a NAT gateway, which makes it tracked whatever the rules say (SG-35).
    pub fn pass_nat_gateway(&self) -> bool {
        pass_nat_gateway(&self.0)
    }

    /// The proposals.
    pub fn as_slice(&self) -> &[Effect<'a>] {
        &self.0
    }

    /// Whether there is room for the connections that it proposes: what only [`commit`](Self::commit) finds out, for a
    /// walk that will not be committed.
    ///
    /// # Errors
    /// Why the packet would be discarded.
    pub fn fit(&self, tables: &Tables, state: &State, now: Time) -> Result<(), DiscardReason> {
        let track_all = self.pass_nat_gateway();
        let refused = self.0.iter().any(|effect| {
            matches!(effect, Effect::Track { eni, new, untracked, .. }
                if (track_all || !untracked) && !state.connections.has_room(new, allowed(tables, *eni), now))
        });
        if refused { Err(DiscardReason::ConnectionAllowanceExceeded) } else { Ok(()) }
    }

    /// Makes every proposal true, or none. To be called once.
    ///
    /// # Errors
    /// [`NotCommitted`].
    pub fn commit(
        &mut self,
        tables: &Tables,
        state: &State,
        packet: &Packet,
        worker: usize,
        now: Time,
    ) -> Result<Dependencies, NotCommitted> {
        let track_all = self.pass_nat_gateway();
        let mut dependencies = Dependencies::new();
        let mut made: ArrayVec<Made, MAX_EFFECTS> = ArrayVec::new();
        // What can fail comes first, so that nothing needs to be unseen afterwards.
        for effect in &self.0 {
            if let Effect::Track { eni, new, untracked, absence } = effect {
                if *untracked && !track_all {
                    dependencies.push(Dependency::NoConnection(*absence));
                    continue;
                }
                match state.connections.track(new, allowed(tables, *eni), packet, now) {
                    Ok(tracked) => {
                        let activity = tracked.activity();
                        dependencies.push(Dependency::Connection(activity, new.direction));
                        if let Tracked::New(_) = tracked {
                            made.push(Made::Connection(new.place, activity));
                        }
                    }
                    Err(not) => {
                        undo(state, &made);
                        let reason = match not {
                            NotTracked::Allowance => DiscardReason::ConnectionAllowanceExceeded,
                            NotTracked::Full => DiscardReason::ConnectionTableFull,
                        };
                        return Err(NotCommitted::Full(reason, Some(*eni)));
                    }
                }
            }
        }
        for effect in &mut self.0 {
            match effect {
                Effect::Track { .. } => {}
                Effect::Judge { absence, .. } => dependencies.push(Dependency::NoConnection(*absence)),
                &mut Effect::Connection { activity, direction } => {
                    if let Some(live) = state.connections.activities.live(activity, now) {
                        live.see(packet, direction, now);
                    }
                    dependencies.push(Dependency::Connection(activity, direction));
                }
                Effect::NewLease { nat_gateway, new, reservation } => {
                    let gateway = tables.nat_gateway(*nat_gateway);
                    let (addresses, idle) = (&gateway.addresses, gateway.idle_timeout_ms);
                    match state.leases.lease(new, reservation, addresses, idle, packet, now) {
                        Ok(activity) => {
                            made.push(Made::Lease(activity));
                            count_first(tables, *nat_gateway, packet, worker);
                            dependencies.push(Dependency::Lease(activity, Direction::Outbound));
                        }
                        Err(not) => {
                            undo(state, &made);
                            return Err(match not {
                                NotLeased::Raced => NotCommitted::Raced,
                                NotLeased::Full => NotCommitted::Full(DiscardReason::LeaseTableFull, None),
                            });
                        }
                    }
                }
                Effect::Reopen { nat_gateway, place, activity, .. } => {
                    let idle = tables.nat_gateway(*nat_gateway).idle_timeout_ms;
                    let Some(activity) = state.leases.reopen(place, *activity, idle, packet, now) else {
                        undo(state, &made);
                        return Err(NotCommitted::Raced);
                    };
                    count_first(tables, *nat_gateway, packet, worker);
                    dependencies.push(Dependency::Lease(activity, Direction::Outbound));
                }
                &mut Effect::Lease { activity, nat_gateway, direction } => {
                    if let Some(live) = state.leases.activities.live(activity, now)
                        && live.see(packet, direction, now)
                    {
                        let slot = tables.nat_gateway(nat_gateway).metrics.slot(worker);
                        slot.connections_established.add(1);
                    }
                    count(tables, nat_gateway, direction, packet, worker);
                    dependencies.push(Dependency::Lease(activity, direction));
                }
                &mut Effect::Relate { nat_gateway, direction } => {
                    count(tables, nat_gateway, direction, packet, worker)
                }
            }
        }
        Ok(dependencies)
    }
}

fn pass_nat_gateway(effects: &[Effect<'_>]) -> bool {
    let nat = |effect: &Effect<'_>| {
        use Effect::*;
        matches!(effect, Lease { .. } | NewLease { .. } | Reopen { .. } | Relate { .. })
    };
    effects.iter().any(nat)
}

/// What this commit has made so far.
enum Made {
    Connection(Place, Ref),
    Lease(Ref),
}

fn undo(state: &State, made: &[Made]) {
    for made in made {
        match made {
            Made::Connection(place, activity) => state.connections.forget(place, *activity),
            Made::Lease(activity) => state.leases.forget(*activity),
        }
    }
}

fn allowed(tables: &Tables, eni: EniIndex) -> Allowed<'_> {
    let eni = tables.eni(eni);
    Allowed { tracking: &eni.tracking, max_connections: eni.max_connections, allowance: &eni.allowance }
}

/// Counts a packet that was discarded at the NAT gateways that it came to: at `refused_by`, or after those in `effects`.
pub fn count_refused(
    tables: &Tables,
    effects: &Effects<'_>,
    refused_by: Option<(NatGatewayIndex, Direction)>,
    packet: &Packet,
    worker: usize,
) {
    for effect in effects.as_slice() {
        match effect {
            Effect::Lease { nat_gateway, direction, .. } | Effect::Relate { nat_gateway, direction }
                if refused_by != Some((*nat_gateway, *direction)) =>
            {
                count(tables, *nat_gateway, *direction, packet, worker);
            }
            Effect::NewLease { nat_gateway, .. } | Effect::Reopen { nat_gateway, .. } => {
                count(tables, *nat_gateway, Direction::Outbound, packet, worker);
            }
            _ => {}
        }
    }
    if let Some((nat_gateway, direction)) = refused_by {
        let slot = tables.nat_gateway(nat_gateway).metrics.slot(worker);
        slot.refused[direction as usize].add(packet.segments, packet.length);
    }
}

/// Counts the packet that begins a connection through a NAT gateway.
fn count_first(tables: &Tables, at: NatGatewayIndex, packet: &Packet, worker: usize) {
    if let Kind::Tcp(_) = packet.kind {
        tables.nat_gateway(at).metrics.slot(worker).connection_attempts.add(1);
    }
    count(tables, at, Direction::Outbound, packet, worker);
}

/// Counts a packet at a NAT gateway.
pub fn count(tables: &Tables, at: NatGatewayIndex, direction: Direction, packet: &Packet, worker: usize) {
    let slot = tables.nat_gateway(at).metrics.slot(worker);
    slot.traffic(direction).add(packet.segments, packet.length);
}

impl Walk<'_> {
    /// Whether an earlier walk, taken for granted, made this connection, or sent a packet of it to a NAT gateway, which would
    /// have had it tracked (SG-35).
    #[inline]
    pub(super) fn assumes_connection(&self, place: &Place) -> bool {
        if self.assumed.is_empty() {
            return false;
        }
        let track_all = pass_nat_gateway(self.assumed);
        self.assumed.iter().any(|effect| match effect {
            Effect::Track { new, untracked, .. } => (track_all || !untracked) && new.place == *place,
            Effect::Judge { place: judged, .. } => track_all && judged == place,
            _ => false,
        })
    }

    /// The inside of a lease that an earlier walk, taken for granted, made.
    pub(super) fn assumed_inside(&self, key: &OutsideKey) -> Option<Tuple> {
        self.assumed.iter().find_map(|effect| match effect {
            Effect::NewLease { new, reservation, .. } if reservation.key() == *key => Some(new.place.tuple()),
            _ => None,
        })
    }

    /// The translation that this very walk, or an earlier one, has proposed for a connection from inside.
    pub(super) fn assumed_translation(&self, place: &Place) -> Option<Translation> {
        self.assumed.iter().find_map(|effect| match effect {
            Effect::NewLease { new, reservation, .. } if new.place == *place => {
                Some(reservation.translation())
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Offload, TcpFacts, parse};
    use crate::testing::fabric::Fabric;
    use crate::testing::{craft, lab};

    #[test]
    fn of_two_workers_that_begin_the_same_connection_one_walks_again() {
        // One that was not known, and one on the tuple of a closed one.
        for before in [&[][..], &[TcpFacts::SYN, TcpFacts::RST]] {
            let (from, to) = ("10.0.2.20:2000", "203.0.113.5:443");
            let mut fabric = Fabric::new(lab::tables());
            for flags in before {
                fabric.send(lab::APP.1, craft::tcp(*flags, from, to));
            }
            let syn = parse(&craft::tcp(TcpFacts::SYN, from, to), Offload::default()).unwrap();
            let mut walks = [0, 1].map(|_| {
                let mut walk = Walk::new(&syn, fabric.now, 0);
                let at = crate::pipeline::admit(&fabric.tables, lab::APP.1, &mut walk, &mut ()).unwrap();
                crate::pipeline::walk(&fabric.tables, &fabric.state, at, &mut walk, &mut ()).unwrap();
                walk
            });
            let [first, second] = walks
                .each_mut()
                .map(|walk| walk.effects.commit(&fabric.tables, &fabric.state, &syn, 0, fabric.now));
            let first = first.unwrap();
            assert_eq!(second, Err(NotCommitted::Raced));
            let Some(Dependency::Lease(lease, _)) = first.last() else { panic!("{first:?}") };
            assert!(
                fabric.state.leases.activities.live(*lease, fabric.now).is_some(),
                "the first one's stays"
            );
        }
    }
}
