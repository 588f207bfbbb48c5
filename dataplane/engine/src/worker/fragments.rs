//! Forwards fragments: the first one walks, the others follow it. Cuts what is too big into fragments.

use std::sync::Arc;

use localvpc_api::{DiscardReason, LinkId};
use zerocopy::IntoBytes;

use super::{Origin, Start, Verdict, Worker, count_enis, forwarded, identify};
use crate::Time;
use crate::flow::activity;
use crate::fragment::fragment;
use crate::metrics::EniMetrics;
use crate::packet::{Fragment, Offload, Packet};
use crate::pipeline::rewrite::{Rewrite, set_identification};
use crate::pipeline::{self, Walk};
use crate::segment::{Unfit, segment};
use crate::state::State;
use crate::state::fragments::{Admission, Fate, Refusal, Way};
use crate::tables::Tables;

/// Where a fragment came from, and when.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) from: LinkId,
    pub(super) fragment: Fragment,
    pub(super) now: Time,
}

impl Worker {
    /// Decides about a fragment. Nothing of it meets the flow cache.
    #[cold]
    #[inline(never)]
    pub(super) fn forward_fragment(
        &mut self,
        tables: &Tables,
        state: &State,
        arrival: Arrival,
        bytes: &mut [u8],
        packet: &Packet,
    ) -> Verdict {
        let Arrival { from, fragment, now } = arrival;
        // Before anything is remembered for it: a spoofed source must not have a share.
        let mut walk = Walk::new(packet, now, 0);
        if let Err(stop) = pipeline::admit(tables, from, &mut walk, &mut ()) {
            return self.discard(tables, state, 1, stop.reason, walk.sender);
        }
        let sender = walk.sender;
        if let Some(eni) = sender.map(|sender| tables.eni(sender))
            && !eni.allowance.take_fragment(eni.fragments_per_second, now)
        {
            return self.discard(tables, state, 1, DiscardReason::FragmentAllowanceExceeded, sender);
        }
        let lost = |reason| {
            self.discard(tables, state, 1, reason, sender);
        };
        match state.fragments.admit(from, packet, fragment, bytes, now, lost) {
            Ok(Admission::Walk { earlier }) => {
                self.forward_first(tables, state, arrival, bytes, packet, earlier.as_deref())
            }
            Ok(Admission::Follow(fate)) => self.follow(tables, state, &fate, bytes, packet, now),
            Ok(Admission::Held) => Verdict::Held,
            Err(reason) => self.discard(tables, state, 1, reason, sender),
        }
    }

    /// Walks a first fragment, remembers what became of it, and lets go what waited for it.
    fn forward_first(
        &mut self,
        tables: &Tables,
        state: &State,
        arrival: Arrival,
        bytes: &mut [u8],
        packet: &Packet,
        earlier: Option<&Fate>,
    ) -> Verdict {
        let Arrival { from, fragment, now } = arrival;
        self.counters.walks.add(1);
        let eni = |index| Arc::clone(&tables.eni(index).metrics);
        let nat_gateway = |index| Arc::clone(&tables.nat_gateway(index).metrics);
        let (verdict, fate) = match self.walk(tables, state, Start::Link(from), packet, &[], now) {
            Ok(accepted) => {
                accepted.rewrite(bytes, packet);
                count_enis(tables, accepted.sender, accepted.receiver, packet, self.index);
                let identification = match earlier {
                    // Others of the datagram have left with it.
                    Some(Fate::Pass(Way { identification: Some(same), .. })) => {
                        set_identification(bytes, *same);
                        Some(*same)
                    }
                    _ => identify(state, bytes, packet, &accepted.nat_gateways),
                };
                let way = Way {
                    out: accepted.out,
                    rewrite: Rewrite::new(packet.tuple, accepted.tuple, accepted.ttl_spent),
                    mtu: accepted.mtu,
                    ttl_spent: accepted.ttl_spent,
                    identification,
                    dependencies: accepted.dependencies,
                    sender: accepted.sender.map(eni),
                    receiver: accepted.receiver.map(eni),
                    nat_gateways: accepted
                        .nat_gateways
                        .iter()
                        .map(|(index, direction)| (nat_gateway(*index), *direction))
                        .collect(),
                };
                let verdict = self.depart(state, way.out, bytes, packet, Offload::default(), way.mtu);
                (verdict, Fate::Pass(way))
            }
            Err(refused) => {
                self.answer(tables, state, &refused, bytes, packet, now);
                let to = refused.receiver.or(refused.sender);
                let reason = refused.stop.reason;
                let by = refused.refused_by.map(|(index, direction)| (nat_gateway(index), direction));
                let refusal = Refusal { reason, eni: to.map(eni), nat_gateway: by };
                (self.discard(tables, state, 1, reason, to), Fate::Discard(refusal))
            }
        };
        let fate = Arc::new(fate);
        for mut held in state.fragments.decide(from, packet, fragment, &fate) {
            let follows = self.follow(tables, state, &fate, &mut held.bytes, &held.packet, now);
            if let Verdict::Forward { link, length, .. } = follows {
                self.outbox.push(Origin::Fragment, link, &[&held.bytes[..length as usize]]);
            }
        }
        verdict
    }

    /// Does with a later fragment what was done with its first.
    fn follow(
        &mut self,
        tables: &Tables,
        state: &State,
        fate: &Fate,
        bytes: &mut [u8],
        packet: &Packet,
        now: Time,
    ) -> Verdict {
        let way = match fate {
            Fate::Pass(way) => way,
            Fate::Discard(refusal) => {
                if let Some((metrics, direction)) = &refusal.nat_gateway {
                    metrics.slot(self.index).refused[*direction as usize].add(1, packet.length);
                }
                return self.refuse(state, 1, refusal.reason, refusal.eni.as_deref());
            }
        };
        let ends = if !tables.links.contains_key(&way.out) {
            // A push in between has taken the receiver away.
            Some(DiscardReason::NoSuchAddress)
        } else if way.ttl_spent > 0 && packet.ttl <= way.ttl_spent {
            Some(DiscardReason::TtlExceeded)
        } else if packet.dont_fragment && packet.segment_length > way.mtu {
            Some(DiscardReason::TooBig)
        } else {
            None
        };
        if let Some(reason) = ends {
            // No ICMP error is sent about a later fragment (RFC 1812 §4.3.2.7).
            return self.refuse(state, 1, reason, way.receiver.as_deref().or(way.sender.as_deref()));
        }
        for dependency in &way.dependencies {
            if let Some((line, direction)) = activity(state, dependency, now)
                && line.is_steady()
            {
                // Its place in the stream was in the first.
                line.touch(packet.load(), None, direction, now);
            }
        }
        if let Some(sender) = &way.sender {
            sender.slot(self.index).sent.add(1, packet.length);
        }
        if let Some(receiver) = &way.receiver {
            receiver.slot(self.index).received.add(1, packet.length);
        }
        for (metrics, direction) in &way.nat_gateways {
            metrics.slot(self.index).traffic(*direction).add(1, packet.length);
        }
        way.rewrite.apply(bytes, packet);
        if let Some(identification) = way.identification {
            set_identification(bytes, identification);
        }
        self.depart(state, way.out, bytes, packet, Offload::default(), way.mtu)
    }

    /// Lets an accepted and rewritten packet go, in fragments if it is too big for its way.
    pub(super) fn depart(
        &mut self,
        state: &State,
        link: LinkId,
        bytes: &mut [u8],
        packet: &Packet,
        offload: Offload,
        mtu: u16,
    ) -> Verdict {
        if packet.segment_length <= mtu {
            return forwarded(link, packet);
        }
        let outbox = &mut self.outbox;
        // Checksums first: a fragment has nobody behind it who could complete them.
        let cut = segment(&mut bytes[..packet.length as usize], offload, |segment| {
            fragment(segment, mtu, |header, data| {
                outbox.push(Origin::Fragment, link, &[header.as_bytes(), data])
            });
            Ok::<_, Unfit>(())
        });
        match cut {
            Ok(()) => Verdict::Fragmented { link, segments: packet.segments },
            Err(_) => self.refuse(state, packet.segments, DiscardReason::HostileOffload, None),
        }
    }

    /// Counts a discard.
    pub(super) fn refuse(
        &self,
        state: &State,
        segments: u16,
        reason: DiscardReason,
        eni: Option<&EniMetrics>,
    ) -> Verdict {
        state.metrics.discards(self.index).add(reason, segments);
        if let Some(eni) = eni {
            eni.slot(self.index).discards.add(reason, segments);
        }
        Verdict::Discard(reason)
    }
}
