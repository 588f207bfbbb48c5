//! Keeps a connection where any worker can reach it: in atomics, those that every packet changes apart from the others.
//!
//! Only the worker that has a packet of a direction writes that direction's numbers, so plain stores do. Where two have
//! one at the same time, the numbers may fall back by a packet, which the next one makes good.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

use localvpc_api::trace::Direction;
use zerocopy::FromZeros;

use super::side::{Reach, Segment, Side};
use super::{ACKED, Connection, NEW, SYN, shift, shifted};
use crate::hint::cold_path;
use crate::packet::TcpFacts;

/// How far both streams have come, by the direction in which they go: what a packet in mid-stream changes.
#[derive(Debug, Default, FromZeros)]
#[repr(C)]
pub struct Streams {
    numbers: [Numbers; 2],
    /// In the units of the negotiated scale, rounded up.
    window: [AtomicU16; 2],
}

#[derive(Debug, Default, FromZeros)]
#[repr(C)]
struct Numbers {
    end: AtomicU32,
    ack: AtomicU32,
}

/// What SYNs have said, and what only they change.
#[derive(Debug, Default, FromZeros)]
#[repr(C)]
pub struct Beginnings {
    first: [AtomicU32; 3],
    /// One more than the scale that was offered; 0 if none was.
    scale: [AtomicU8; 3],
    /// The reach of the SYN that did not fit.
    pending: [AtomicU32; 3],
}

/// Where a pending SYN stands among [`Beginnings`], behind those of the two directions.
const PENDING: usize = 2;

impl Streams {
    /// Moves a direction's stream on: all that a packet in mid-stream does.
    #[inline]
    pub fn advance(&self, state: u32, segment: &Segment, from: Direction) {
        let (sender, receiver) = (self.reach(state, from), self.reach(state, from.opposite()));
        if sender.fits(segment, receiver) {
            let at = from as usize;
            let Reach { end, ack, .. } = sender.after(segment, 0);
            self.numbers[at].end.store(end, Relaxed);
            self.numbers[at].ack.store(ack, Relaxed);
            if segment.window > self.window[at].load(Relaxed) {
                self.window[at].store(segment.window, Relaxed);
            }
        }
    }

    #[inline]
    fn reach(&self, state: u32, of: Direction) -> Reach {
        let at = of as usize;
        Reach {
            end: self.numbers[at].end.load(Relaxed),
            ack: self.numbers[at].ack.load(Relaxed),
            window: u32::from(self.window[at].load(Relaxed)) << shift(state, of),
        }
    }

    #[inline]
    fn store(&self, state: u32, reach: Reach, of: Direction) {
        let at = of as usize;
        self.numbers[at].end.store(reach.end, Relaxed);
        self.numbers[at].ack.store(reach.ack, Relaxed);
        // It came in these units, or from a SYN, whose window has 16 bits.
        let shift = shift(state, of);
        let window = (reach.window + (1 << shift) - 1) >> shift;
        self.window[at].store(window as u16, Relaxed);
    }
}

impl Beginnings {
    fn side(&self, at: usize, reach: Reach) -> Side {
        let scale = self.scale[at].load(Relaxed).checked_sub(1);
        Side { first: self.first[at].load(Relaxed), reach, scale }
    }

    #[inline]
    fn store(&self, at: usize, side: &Side) {
        self.first[at].store(side.first, Relaxed);
        self.scale[at].store(side.scale.map_or(0, |scale| scale + 1), Relaxed);
    }

    #[inline]
    fn store_pending(&self, side: &Side) {
        let Reach { end, ack, window } = side.reach;
        for (stored, value) in self.pending.iter().zip([end, ack, window]) {
            stored.store(value, Relaxed);
        }
        self.store(PENDING, side);
    }
}

/// What is known of a connection in `state`.
pub fn load(state: u32, streams: &Streams, beginnings: &Beginnings) -> Connection {
    let side = |of: Direction| beginnings.side(of as usize, streams.reach(state, of));
    let [end, ack, window] = [0, 1, 2].map(|at: usize| beginnings.pending[at].load(Relaxed));
    Connection {
        state,
        sides: [side(Direction::Inbound), side(Direction::Outbound)],
        pending: beginnings.side(PENDING, Reach { end, ack, window }),
    }
}

/// Writes a connection that begins with this segment, and returns its state: what [`Connection::see`] makes of the segment, only sooner if it is a SYN.
#[inline]
pub fn begin(
    facts: &TcpFacts,
    scale: Option<u8>,
    from: Direction,
    streams: &Streams,
    beginnings: &Beginnings,
) -> u32 {
    if !facts.begins_connection() {
        let mut connection = Connection::new();
        connection.see(facts, scale, from);
        write(&connection, streams, beginnings);
        return connection.state;
    }
    let (here, there) = (from as usize, from.opposite() as usize);
    let side = Side::beginning(facts, scale);
    streams.numbers[here].end.store(side.reach.end, Relaxed);
    streams.numbers[here].ack.store(side.reach.ack, Relaxed);
    // The other end has sent nothing, and is thought to expect what this one sends.
    streams.numbers[there].end.store(0, Relaxed);
    streams.numbers[there].ack.store(side.first, Relaxed);
    streams.window[here].store(facts.window, Relaxed);
    streams.window[there].store(0, Relaxed);
    beginnings.store(here, &side);
    beginnings.store(there, &Side::default());
    beginnings.store_pending(&Side::default());
    NEW | SYN << from as u32
}

/// Moves a connection on by the SYN-ACK that answers its SYN, where it is kept: what [`Connection::see`] makes of it, only sooner. `false`, and nothing
/// is changed, if more was seen than that SYN, or it is not answered.
#[inline]
pub fn answer(
    state: &AtomicU32,
    facts: &TcpFacts,
    scale: Option<u8>,
    from: Direction,
    streams: &Streams,
    beginnings: &Beginnings,
) -> bool {
    const BOTH: u8 = TcpFacts::SYN | TcpFacts::ACK;
    let to = from.opposite();
    let before = NEW | SYN << to as u32;
    if facts.flags & (BOTH | TcpFacts::RST) != BOTH || state.load(Relaxed) != before {
        return false;
    }
    let asked = beginnings.side(to as usize, streams.reach(before, to));
    let side = Side::beginning(facts, scale);
    if !asked.is_begun_by(facts.acknowledgement) {
        return false;
    }
    let shifts = match (side.scale, asked.scale) {
        (Some(own), Some(other)) => shifted(own, from) | shifted(other, to),
        _ => 0,
    };
    let after = before | (SYN | ACKED) << from as u32 | shifts;
    if state.compare_exchange(before, after, Relaxed, Relaxed).is_err() {
        return false;
    }
    streams.store(after, side.reach, from);
    streams.store(after, Reach { ack: side.first, ..asked.reach }, to);
    beginnings.store(from as usize, &side);
    true
}

/// Writes all of a connection.
fn write(connection: &Connection, streams: &Streams, beginnings: &Beginnings) {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let side = connection.side(direction);
        streams.store(connection.state, side.reach, direction);
        beginnings.store(direction as usize, &side);
    }
    beginnings.store_pending(&connection.pending);
}

/// Moves a connection on by a segment without SYN and RST, where it is kept: what [`Connection::see`] does, in place. Says which state it had and which it has; `None` if the segment changes nothing.
#[inline]
pub fn follow(
    state: &AtomicU32,
    facts: &TcpFacts,
    from: Direction,
    streams: &Streams,
    beginnings: &Beginnings,
) -> Option<(u32, u32)> {
    let to = from.opposite();
    let mut before = state.load(Relaxed);
    loop {
        let (sender, receiver) = (streams.reach(before, from), streams.reach(before, to));
        let begun_by = || beginnings.side(to as usize, receiver).is_begun_by(facts.acknowledgement);
        let after = super::stream(before, facts, from, sender, receiver, begun_by)?;
        // Two workers may see a FIN each.
        if after.state != before
            && let Err(other) = state.compare_exchange(before, after.state, Relaxed, Relaxed)
        {
            cold_path();
            before = other;
            continue;
        }
        streams.store(before, after.reach, from);
        return Some((before, after.state));
    }
}

/// Writes what differs from `before`.
pub fn update(before: &Connection, after: &Connection, streams: &Streams, beginnings: &Beginnings) {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let side = after.side(direction);
        let same =
            before.side(direction) == side && shift(before.state, direction) == shift(after.state, direction);
        if !same {
            streams.store(after.state, side.reach, direction);
            beginnings.store(direction as usize, &side);
        }
    }
    if before.pending != after.pending {
        beginnings.store_pending(&after.pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tcp::Timer;

    fn facts(flags: u8, sequence: u32, acknowledgement: u32, window: u16) -> TcpFacts {
        TcpFacts { flags, sequence, acknowledgement, window, payload: 10 }
    }

    /// A connection after some segments, kept in memory and in atomics.
    fn play(segments: &[(TcpFacts, Option<u8>, Direction)]) -> (Connection, Connection) {
        let (streams, beginnings) = (Streams::default(), Beginnings::default());
        let mut kept = Connection::new();
        let mut state = kept.state;
        for (facts, scale, from) in segments {
            kept.see(facts, *scale, *from);
            let before = load(state, &streams, &beginnings);
            let mut after = before;
            after.see(facts, *scale, *from);
            update(&before, &after, &streams, &beginnings);
            state = after.state;
        }
        (kept, load(state, &streams, &beginnings))
    }

    const SYN: u8 = TcpFacts::SYN;
    const ACK: u8 = TcpFacts::ACK;
    use Direction::{Inbound, Outbound};

    #[test]
    fn a_beginning_is_what_seeing_makes_of_the_first_segment() {
        for flags in 0..64 {
            for (scale, from) in [(None, Outbound), (Some(3), Inbound), (Some(15), Outbound)] {
                let first = facts(flags, 1_000, 77, 512);
                let mut seen = Connection::new();
                seen.see(&first, scale, from);
                // Of another connection, which is gone.
                let (streams, beginnings) = (Streams::default(), Beginnings::default());
                let old = Side { first: 5, reach: Reach { end: 6, ack: 7, window: 8 }, scale: Some(9) };
                write(&Connection { state: NEW, sides: [old; 2], pending: old }, &streams, &beginnings);

                let state = begin(&first, scale, from, &streams, &beginnings);
                assert_eq!(load(state, &streams, &beginnings), seen, "{first:?}");
            }
        }
    }

    #[test]
    fn what_is_stored_is_what_is_loaded() {
        // Windows are multiples of the scale, so that none is rounded.
        let (kept, loaded) = play(&[
            (facts(SYN, 1_000, 0, 512), Some(7), Outbound),
            (facts(SYN | ACK, 5_000, 1_011, 1_024), Some(8), Inbound),
            (facts(ACK, 1_011, 5_011, 300), None, Outbound),
            (facts(ACK, 5_011, 1_021, 400), None, Inbound),
            (facts(SYN, 9_000, 0, 777), Some(3), Outbound),
        ]);
        assert_eq!(loaded, kept);
        assert_eq!(
            (loaded.side(Outbound).reach.window, loaded.side(Inbound).reach.window),
            (300 << 7, 400 << 8)
        );
        assert_eq!((loaded.pending.first, loaded.pending.scale), (9_001, Some(3)));
        assert_eq!(loaded.pending.reach, Reach { end: 9_011, ack: 0, window: 777 });
    }

    #[test]
    fn the_window_of_a_syn_is_rounded_up_to_the_scale() {
        let (_, loaded) = play(&[
            (facts(SYN, 1_000, 0, 513), Some(7), Outbound),
            (facts(SYN | ACK, 5_000, 1_011, 65_535), Some(0), Inbound),
        ]);
        assert_eq!((loaded.side(Outbound).reach.window, loaded.side(Inbound).reach.window), (640, 65_535));
    }

    #[test]
    fn advancing_is_what_seeing_does_in_mid_stream() {
        let begin = [
            (facts(SYN, 1_000, 0, 500), Some(7), Outbound),
            (facts(SYN | ACK, 5_000, 1_011, 500), Some(2), Inbound),
            (facts(ACK, 1_011, 5_011, 500), None, Outbound),
        ];
        let (mut connection, _) = play(&begin);
        let (streams, beginnings) = (Streams::default(), Beginnings::default());
        write(&connection, &streams, &beginnings);
        for (facts, from) in [
            (facts(ACK, 5_011, 1_021, 600), Inbound),
            (facts(ACK, 1_021, 5_021, 9), Outbound),
            (facts(ACK, 1_021, 7_777, 700), Outbound),
            (facts(ACK, 5_011, 1_031, 900), Inbound),
        ] {
            assert_eq!(connection.see(&facts, None, from), Timer::Restart);
            streams.advance(connection.state, &Segment::of(&facts), from);
            assert_eq!(load(connection.state, &streams, &beginnings), connection, "{facts:?}");
        }
        assert_eq!(connection.side(Inbound).reach, Reach { end: 5_021, ack: 1_031, window: 900 << 2 });
    }

    #[test]
    fn an_answer_is_what_seeing_makes_of_it() {
        let rst = SYN | ACK | TcpFacts::RST;
        for flags in [SYN | ACK, SYN | ACK | TcpFacts::FIN, rst, SYN, ACK] {
            for acknowledgement in [1_000, 1_001, 1_006, 1_011, 1_012] {
                for (asked, answered) in
                    [(Some(7), Some(2)), (Some(15), Some(0)), (None, Some(3)), (Some(1), None)]
                {
                    for (to, before) in [(Outbound, 1), (Inbound, 1), (Outbound, 0), (Inbound, 2)] {
                        let syn = (facts(SYN, 1_000, 0, 500), asked, to);
                        let (mut connection, _) = play(&[syn, syn][..before]);
                        let (streams, beginnings) = (Streams::default(), Beginnings::default());
                        write(&connection, &streams, &beginnings);
                        let state = AtomicU32::new(connection.state);
                        let segment = facts(flags, 5_000, acknowledgement, 1_001);
                        let from = to.opposite();
                        let expected = before > 0
                            && flags & rst & !TcpFacts::FIN == SYN | ACK
                            && (1_001..=1_011).contains(&acknowledgement);
                        assert_eq!(answer(&state, &segment, answered, from, &streams, &beginnings), expected);
                        if expected {
                            assert_eq!(connection.see(&segment, answered, from), Timer::Restart);
                            // Windows are rounded up to the scale.
                            let kept = Streams::default();
                            kept.store(connection.state, connection.side(to).reach, to);
                            kept.store(connection.state, connection.side(from).reach, from);
                            for direction in [to, from] {
                                connection.sides[direction as usize].reach =
                                    kept.reach(connection.state, direction);
                            }
                        }
                        assert_eq!(
                            load(state.load(Relaxed), &streams, &beginnings),
                            connection,
                            "{segment:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn following_is_what_seeing_does_without_syn_and_rst() {
        let opened = [
            (facts(SYN, 1_000, 0, 512), Some(7), Outbound),
            (facts(SYN | ACK, 5_000, 1_011, 500), Some(2), Inbound),
        ];
        let fin = TcpFacts::FIN | ACK;
        let rst = (facts(TcpFacts::RST, 1_021, 0, 0), None, Outbound);
        let rest = [
            (facts(ACK, 1_011, 4_000, 500), None, Outbound),
            (facts(ACK, 1_011, 5_011, 500), None, Outbound),
            (facts(fin, 5_011, 1_021, 700), None, Inbound),
            rst,
            (facts(ACK, 1_021, 9_999, 9), None, Outbound),
            (facts(ACK, 1_021, 5_022, 9), None, Outbound),
            (facts(fin, 1_031, 5_022, 800), None, Outbound),
            (facts(ACK, 5_022, 1_042, 900), None, Inbound),
        ];
        // Before the handshake is complete, too, and where nothing has begun.
        for begin in [&opened[..], &opened[..1], &[]] {
            let (mut connection, _) = play(begin);
            let (streams, beginnings) = (Streams::default(), Beginnings::default());
            write(&connection, &streams, &beginnings);
            let state = AtomicU32::new(connection.state);
            for (facts, scale, from) in rest {
                let before = connection;
                connection.see(&facts, scale, from);
                if facts.flags & TcpFacts::RST != 0 {
                    write(&connection, &streams, &beginnings);
                    state.store(connection.state, Relaxed);
                    continue;
                }
                let followed = follow(&state, &facts, from, &streams, &beginnings);
                assert_eq!(load(state.load(Relaxed), &streams, &beginnings), connection, "{facts:?}");
                let (was, is) = followed.unwrap_or((before.state, before.state));
                assert_eq!((was, is), (before.state, connection.state), "{facts:?}");
            }
        }
    }

    #[test]
    fn everything_is_written_over_what_another_connection_left() {
        let (streams, beginnings) = (Streams::default(), Beginnings::default());
        let (used, _) = play(&[
            (facts(SYN, 1_000, 0, 500), Some(7), Outbound),
            (facts(SYN | ACK, 5_000, 1_011, 500), Some(2), Inbound),
            (facts(SYN, 9_000, 0, 777), Some(3), Outbound),
        ]);
        write(&used, &streams, &beginnings);
        write(&Connection::new(), &streams, &beginnings);
        assert_eq!(load(Connection::new().state, &streams, &beginnings), Connection::new());
    }
}
