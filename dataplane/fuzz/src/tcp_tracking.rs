//! Any sequence of segments between two ends of one connection.
//!
//! - Where the numbers of the two streams begin makes no difference, so there is none where they go round.
//! - Which end is called inbound makes no difference.
//! - A connection is never open again after both ends have sent their FIN, unless it begins anew.

use localvpc_api::report::ConnectionState;
use localvpc_api::trace::Direction;
use localvpc_engine::packet::TcpFacts;
use localvpc_engine::state::tcp::{Connection, Timer};

use crate::input::Input;

/// Bytes: where the streams begin, then segments.
pub fn tcp_tracking(bytes: &[u8]) {
    run(&mut Input::new(bytes));
}

fn run(input: &mut Input<'_>) -> Option<()> {
    // By end: inbound, outbound.
    let begins = [input.long()?, input.long()?];
    let (mut plain, mut moved, mut mirrored) = (Connection::new(), Connection::new(), Connection::new());
    loop {
        let (from, facts, scale) = segment(input)?;
        let to = from.opposite();
        let elsewhere = TcpFacts {
            sequence: facts.sequence.wrapping_add(begins[from as usize]),
            acknowledgement: facts.acknowledgement.wrapping_add(begins[to as usize]),
            ..facts
        };
        let was = plain.phase();
        let seen = plain.see(&facts, scale, from);
        let same = (plain.phase(), seen);
        assert_eq!((moved.phase_after(&elsewhere, scale, from)), same, "{facts:?} at {begins:?}");
        assert_eq!(mirrored.phase_after(&facts, scale, to), same, "{facts:?} mirrored");
        legal(was, plain.phase(), seen, &facts);
    }
}

trait PhaseAfter {
    fn phase_after(
        &mut self,
        facts: &TcpFacts,
        scale: Option<u8>,
        from: Direction,
    ) -> (ConnectionState, Timer);
}

impl PhaseAfter for Connection {
    fn phase_after(
        &mut self,
        facts: &TcpFacts,
        scale: Option<u8>,
        from: Direction,
    ) -> (ConnectionState, Timer) {
        let timer = self.see(facts, scale, from);
        (self.phase(), timer)
    }
}

/// A segment with numbers that are near each other, or near the edges of what fits.
fn segment(input: &mut Input<'_>) -> Option<(Direction, TcpFacts, Option<u8>)> {
    let how = input.byte()?;
    let from = if how & 1 == 0 { Direction::Outbound } else { Direction::Inbound };
    let flags = input.byte()?;
    let number = |input: &mut Input<'_>| {
        let base = input.choose(&[1000, 1001, 1000, 1001, 66_000, 67_001, 1 << 31, u32::MAX])?;
        Some(u32::wrapping_add(base, input.byte()?.into()))
    };
    let (sequence, acknowledgement) = (number(input)?, number(input)?);
    let (window, payload) = (input.word()?, u32::from(input.byte()?) << (how >> 1 & 7));
    let scale = if how & 0x10 == 0 { None } else { Some(input.byte()?) };
    let facts = TcpFacts { flags, sequence, acknowledgement, window, payload };
    Some((from, facts, scale))
}

fn legal(was: ConnectionState, is: ConnectionState, timer: Timer, facts: &TcpFacts) {
    use ConnectionState::{Closed, Closing, Established, New};
    let syn_ack = TcpFacts::SYN | TcpFacts::ACK;
    match (was, is) {
        (was, is) if was == is => {}
        (New, Established) | (Established | New, Closing) => assert_ne!(facts.flags & TcpFacts::ACK, 0),
        // By a FIN on a connection that is closing, or a RST on any.
        (New | Established | Closing, Closed) => {
            assert_ne!(facts.flags & (TcpFacts::FIN | TcpFacts::RST), 0);
        }
        // A RST that its sender takes back by going on.
        (Closed, Established | Closing | New) if facts.flags & (TcpFacts::SYN | TcpFacts::RST) == 0 => {}
        // Both ends have begun anew.
        (_, Established | New) if facts.flags & (syn_ack | TcpFacts::RST) == syn_ack => {}
        (was, is) => panic!("{was:?} → {is:?} by {facts:?}"),
    }
    if was != is {
        assert_eq!(timer, Timer::Restart, "{was:?} → {is:?}");
    }
}
