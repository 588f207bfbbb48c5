//! Forwards packets that the flow cache decides about: in mid-stream, where a few additions are all there is to do, and such as may change
//! the state of their connection.

use localvpc_api::LinkId;

use super::batch::BatchPacket;
use super::{Arrival, Verdict, Worker};
use crate::Time;
use crate::flow::Place;
use crate::packet::{self, Brief};
use crate::state::State;

impl Worker {
    /// Forwards a packet whose flow the cache knows, if it is in mid-stream.
    #[inline(always)]
    pub(super) fn hit(
        &mut self,
        state: &State,
        arrival: Arrival,
        hint: Option<Place>,
        bytes: &mut [u8],
    ) -> Option<Verdict> {
        // Apart, so that each of them knows what it deals with.
        if packet::is_tcp(bytes) {
            let packet = packet::tcp_brief(bytes, arrival.offload)?;
            self.hit_by(&packet, state, arrival, hint, bytes)
        } else {
            let packet = packet::udp_brief(bytes, arrival.offload)?;
            self.hit_by(&packet, state, arrival, hint, bytes)
        }
    }

    #[inline(always)]
    fn hit_by(
        &mut self,
        packet: &Brief,
        state: &State,
        arrival: Arrival,
        hint: Option<Place>,
        bytes: &mut [u8],
    ) -> Option<Verdict> {
        let key = packet.key(arrival.from)?;
        let link = self.cache.forward(hint, key, packet, bytes, state, arrival.now)?;
        Some(self.counted_hit(packet, link))
    }

    /// The same of a TCP segment that may change the state of its connection, which [`hit`](Self::hit) leaves alone. Apart from that, and read once more, so
    /// that a hit keeps all it needs in registers.
    #[inline(never)]
    pub(super) fn hit_by_segment(
        &mut self,
        state: &State,
        arrival: Arrival,
        hint: Option<Place>,
        bytes: &mut [u8],
    ) -> Option<Verdict> {
        let packet = packet::segment_brief(bytes, arrival.offload)?;
        let key = packet.key(arrival.from)?;
        let link = self.cache.forward_segment(hint, key, &packet, bytes, state, arrival.now)?;
        Some(self.counted_hit(&packet, link))
    }

    #[inline(always)]
    fn counted_hit(&mut self, packet: &Brief, link: LinkId) -> Verdict {
        self.pending.cache_hits += 1;
        Verdict::Forward { link, length: packet.length.into(), segments: packet.segments }
    }

    /// A hit in mid-stream, or one that may change its connection.
    #[inline]
    pub(super) fn hit_either(
        &mut self,
        state: &State,
        packet: &mut BatchPacket<'_>,
        place: Option<Place>,
        now: Time,
    ) -> bool {
        if self.hit_apart(state, packet, place, now) {
            return true;
        }
        let arrival = Arrival { from: packet.from, offload: packet.offload, now };
        packet.verdict = self.hit_by_segment(state, arrival, place, packet.bytes);
        packet.verdict.is_some()
    }

    /// A hit, apart from the loop around it: both need all registers. Says whether it is one.
    #[inline(never)]
    fn hit_apart(
        &mut self,
        state: &State,
        packet: &mut BatchPacket<'_>,
        place: Option<Place>,
        now: Time,
    ) -> bool {
        let arrival = Arrival { from: packet.from, offload: packet.offload, now };
        let Some(verdict) = self.hit(state, arrival, place, packet.bytes) else { return false };
        packet.verdict = Some(verdict);
        true
    }
}
