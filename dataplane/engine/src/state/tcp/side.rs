//! Judges sequence numbers: what one end of a connection has sent, acknowledged and offered to take.
//!
//! Sequence numbers go round at 2³²; of two that are compared, the later one is less than 2³¹ ahead (RFC 9293 §3.4).

use crate::packet::TcpFacts;

/// One end of a connection, as far as its segments have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The sequence number behind its SYN.
    pub first: u32,
    /// How far its stream has come.
    pub reach: Reach,
    /// The window scale that its SYN offered, at most 14.
    pub scale: Option<u8>,
}

/// How far one end's stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The sequence number behind all that it has sent.
    pub end: u32,
    /// The sequence number that it expects next: the highest that it has acknowledged.
    pub ack: u32,
    /// The largest window that it has offered, in bytes.
    pub window: u32,
}

/// Where a segment belongs in the streams: read once, however many keep track of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    sequence: u32,
    /// The sequence number behind it.
    end: u32,
    acknowledges: bool,
    acknowledgement: u32,
    /// The window that it offers, not scaled.
    pub(super) window: u16,
}

impl Segment {
    /// From the numbers in its header.
    #[inline]
    pub fn of(facts: &TcpFacts) -> Self {
        const { assert!(TcpFacts::FIN == 1 && TcpFacts::SYN == 2) };
        // RFC 9293 §3.4: SYN and FIN take a number each.
        let controls = (facts.flags & 1) + (facts.flags >> 1 & 1);
        let this = Self::in_mid_stream(facts);
        Self { end: this.end.wrapping_add(controls.into()), ..this }
    }

    /// The same of one without SYN and FIN.
    #[inline]
    pub fn in_mid_stream(facts: &TcpFacts) -> Self {
        Self {
            sequence: facts.sequence,
            end: facts.sequence.wrapping_add(facts.payload),
            acknowledges: facts.flags & TcpFacts::ACK != 0,
            acknowledgement: facts.acknowledgement,
            window: facts.window,
        }
    }
}

impl Side {
    /// The end that has sent this SYN or SYN-ACK. The window in it is not scaled (RFC 7323 §2.2).
    #[inline]
    pub fn beginning(facts: &TcpFacts, scale: Option<u8>) -> Self {
        Self {
            first: facts.sequence.wrapping_add(1),
            reach: Reach {
                end: Segment::of(facts).end,
                ack: facts.acknowledgement,
                window: facts.window.into(),
            },
            scale: scale.map(|scale| scale.min(MAX_SCALE)),
        }
    }

    /// Whether `acknowledgement` is one of this end's SYN, with or without the data that came in it (RFC 7413).
    pub fn is_begun_by(&self, acknowledgement: u32) -> bool {
        !is_after(self.first, acknowledgement) && !is_after(acknowledgement, self.reach.end)
    }
}

impl Reach {
    /// Whether a segment that `self` sent to `receiver` fits the stream.
    ///
    /// It does if it carries an acknowledgement and (Guido van Rooij, "Real Stateful TCP Packet Filtering", as Linux has it)
    /// begins within what the receiver takes, ends no further back than a retransmission can,
    /// and acknowledges what the receiver has sent, no further back than an old acknowledgement can.
    #[inline]
    pub fn fits(self, segment: &Segment, receiver: Self) -> bool {
        let room = receiver.window.max(1);
        segment.acknowledges
            && !is_after(segment.sequence, receiver.ack.wrapping_add(room))
            && !is_after(self.end.wrapping_sub(room), segment.end)
            && receiver.end.wrapping_sub(segment.acknowledgement) <= self.window.max(OLD_ACK)
    }

    /// How far `self` has come after a segment that fits. Its window is in the units of `shift`.
    #[inline]
    pub fn after(self, segment: &Segment, shift: u32) -> Self {
        Self {
            end: later(self.end, segment.end),
            ack: later(self.ack, segment.acknowledgement),
            window: self.window.max(u32::from(segment.window) << shift),
        }
    }

    /// Whether `sequence`, of a segment that `self` sent, is the one that `receiver` expects next: either what it has
    /// acknowledged, or what it will have once all that is on its way has arrived (RFC 5961 §3.2).
    pub fn is_next(self, sequence: u32, receiver: Self) -> bool {
        sequence == receiver.ack || sequence == self.end
    }

    /// Whether a segment with this sequence number is within the window that this end, which receives it, has offered.
    pub fn takes(self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.ack) < self.window.max(1)
    }
}

/// Whether `a` is later than `b`.
pub fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

fn later(a: u32, b: u32) -> u32 {
    if is_after(a, b) { a } else { b }
}

/// RFC 7323 §2.3.
const MAX_SCALE: u8 = 14;

/// How far back an acknowledgement may lie, however small the windows (Linux: MAXACKWINCONST).
const OLD_ACK: u32 = 66_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(flags: u8, sequence: u32, payload: u32, acknowledgement: u32) -> TcpFacts {
        TcpFacts { flags, sequence, acknowledgement, window: 500, payload }
    }

    fn segment(flags: u8, sequence: u32, payload: u32, acknowledgement: u32) -> Segment {
        Segment::of(&facts(flags, sequence, payload, acknowledgement))
    }

    /// Has sent up to 1000, acknowledged 9000 and offered 100.
    const SENDER: Reach = Reach { end: 1_000, ack: 9_000, window: 100 };
    /// Has sent up to 9500 and acknowledged 800.
    const RECEIVER: Reach = Reach { end: 9_500, ack: 800, window: 300 };

    fn fits(sequence: u32, payload: u32, acknowledgement: u32) -> bool {
        SENDER.fits(&segment(TcpFacts::ACK, sequence, payload, acknowledgement), RECEIVER)
    }

    #[test]
    fn a_segment_begins_within_the_window() {
        assert!(fits(1_100, 1_400, 9_500), "800 acknowledged, 300 offered");
        assert!(!fits(1_101, 1_400, 9_500));
        let closed = Reach { window: 0, ..RECEIVER };
        assert!(SENDER.fits(&segment(TcpFacts::ACK, 801, 199, 9_500), closed), "a window probe");
        assert!(!SENDER.fits(&segment(TcpFacts::ACK, 802, 198, 9_500), closed));
    }

    #[test]
    fn a_segment_ends_where_a_retransmission_may() {
        assert!(fits(600, 100, 9_500), "as much as the window was, before the end");
        assert!(!fits(600, 99, 9_500));
        let closed = Reach { window: 0, ..RECEIVER };
        assert!(SENDER.fits(&segment(TcpFacts::ACK, 500, 499, 9_500), closed), "a keep-alive");
        assert!(!SENDER.fits(&segment(TcpFacts::ACK, 500, 498, 9_500), closed));
    }

    #[test]
    fn an_acknowledgement_is_of_what_was_sent() {
        assert!(fits(1_000, 0, 9_500) && !fits(1_000, 0, 9_501));
        let back = 9_500_u32.wrapping_sub(66_000);
        assert!(fits(1_000, 0, back) && !fits(1_000, 0, back.wrapping_sub(1)));
        let wide = Reach { window: 70_000, ..SENDER };
        let back = 9_500_u32.wrapping_sub(70_000);
        assert!(wide.fits(&segment(TcpFacts::ACK, 1_000, 0, back), RECEIVER));
        assert!(!wide.fits(&segment(TcpFacts::ACK, 1_000, 0, back.wrapping_sub(1)), RECEIVER));
    }

    #[test]
    fn without_an_acknowledgement_nothing_fits() {
        let segment = segment(TcpFacts::PSH, 1_000, 10, 9_500);
        assert!(!SENDER.fits(&segment, RECEIVER));
    }

    #[test]
    fn what_fits_moves_the_stream_on_and_never_back() {
        let after = |sequence, payload, acknowledgement, shift| {
            SENDER.after(&segment(TcpFacts::ACK, sequence, payload, acknowledgement), shift)
        };
        assert_eq!(after(1_000, 40, 9_400, 3), Reach { end: 1_040, ack: 9_400, window: 4_000 });
        assert_eq!(after(700, 40, 8_000, 0), Reach { end: 1_000, ack: 9_000, window: 500 });
        let wide = Reach { window: 501, ..SENDER };
        let same = wide.after(&segment(TcpFacts::ACK, 1_000, 0, 9_000), 0);
        assert_eq!(same, wide, "the largest window counts");
        let fin = SENDER.after(&segment(TcpFacts::ACK | TcpFacts::FIN, 1_000, 4, 9_000), 0);
        assert_eq!(fin.end, 1_005, "a FIN takes a number");
    }

    #[test]
    fn sequence_numbers_go_round() {
        assert!(is_after(1, 0) && !is_after(0, 0) && !is_after(0, 1));
        assert!(is_after(5, u32::MAX - 5) && !is_after(u32::MAX - 5, 5));
        assert!(is_after((1 << 31) - 1, 0) && !is_after(0, (1 << 31) - 1));
        let sender = Reach { end: u32::MAX - 9, ack: 20, window: 100 };
        let receiver = Reach { end: 20, ack: u32::MAX - 9, window: 100 };
        let segment = segment(TcpFacts::ACK, u32::MAX - 9, 30, 20);
        assert!(sender.fits(&segment, receiver));
        assert_eq!(sender.after(&segment, 0), Reach { end: 20, ack: 20, window: 500 });
    }

    #[test]
    fn the_next_sequence_number_is_the_acknowledged_or_the_sent_one() {
        assert!(SENDER.is_next(800, RECEIVER) && SENDER.is_next(1_000, RECEIVER));
        for other in [799, 801, 999, 1_001] {
            assert!(!SENDER.is_next(other, RECEIVER), "{other}");
        }
    }

    #[test]
    fn a_window_begins_at_the_acknowledgement() {
        assert!(RECEIVER.takes(800) && RECEIVER.takes(1_099));
        assert!(!RECEIVER.takes(799) && !RECEIVER.takes(1_100));
        let closed = Reach { window: 0, ..RECEIVER };
        assert!(closed.takes(800) && !closed.takes(801), "RFC 9293 §3.10.7.4");
    }

    #[test]
    fn a_syn_begins_a_side() {
        let syn = Side::beginning(&facts(TcpFacts::SYN, u32::MAX, 10, 77), Some(15));
        let reach = Reach { end: 10, ack: 77, window: 500 };
        assert_eq!(syn, Side { first: 0, reach, scale: Some(14) }, "RFC 7323 §2.3: more than 14 means 14");
        assert!(syn.is_begun_by(0) && syn.is_begun_by(10), "RFC 7413: its data need not be acknowledged");
        assert!(!syn.is_begun_by(u32::MAX) && !syn.is_begun_by(11));
        assert_eq!(Side::beginning(&facts(TcpFacts::SYN, 0, 0, 0), None).scale, None);
    }
}
