//! Moves the state of a TCP connection along, for security groups and NAT gateways alike.
//!
//! States are those of RFC 7857 §2 as far as timers need them: new, established,
//! closing after one FIN, closed after both or a RST. Sequence numbers are not
//! judged yet. The state is packed into a byte: phase in the low two bits, then a
//! bit per direction for the FINs.

use localvpc_api::report::ConnectionState;
use localvpc_api::trace::Direction;

use crate::packet::TcpFacts;

/// A connection whose handshake is not complete.
pub const NEW: u8 = 0;

const PHASE: u8 = 0b11;
const ESTABLISHED: u8 = 1;
const CLOSING: u8 = 2;
const CLOSED: u8 = 3;

/// The state after a segment with `flags`; `replied` says whether the other direction was seen before.
pub fn next(state: u8, flags: u8, direction: Direction, replied: bool) -> u8 {
    if flags & TcpFacts::RST != 0 {
        return state & !PHASE | CLOSED;
    }
    if flags & TcpFacts::SYN != 0 {
        // A retransmitted SYN or SYN-ACK changes nothing; reuse of a closed tuple starts anew before it comes here.
        return state;
    }
    if flags & TcpFacts::FIN != 0 {
        let fins = state & !PHASE | fin(direction);
        let both = fin(Direction::Inbound) | fin(Direction::Outbound);
        return fins | if fins & both == both { CLOSED } else { CLOSING };
    }
    match state & PHASE {
        NEW if replied => state | ESTABLISHED,
        _ => state,
    }
}

/// How far the connection has come.
#[inline]
pub fn phase(state: u8) -> ConnectionState {
    match state & PHASE {
        NEW => ConnectionState::New,
        ESTABLISHED => ConnectionState::Established,
        CLOSING => ConnectionState::Closing,
        _ => ConnectionState::Closed,
    }
}

fn fin(direction: Direction) -> u8 {
    match direction {
        Direction::Inbound => 0b100,
        Direction::Outbound => 0b1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};
    use TcpFacts as F;

    fn run(segments: &[(u8, Direction)]) -> ConnectionState {
        let mut state = NEW;
        let mut seen = [false; 2];
        for &(flags, direction) in segments {
            state = next(state, flags, direction, seen[direction.opposite() as usize]);
            seen[direction as usize] = true;
        }
        phase(state)
    }

    #[test]
    fn a_handshake_establishes_with_the_third_segment() {
        assert_eq!(run(&[(F::SYN, Outbound)]), ConnectionState::New);
        assert_eq!(run(&[(F::SYN, Outbound), (F::SYN | F::ACK, Inbound)]), ConnectionState::New);
        assert_eq!(
            run(&[(F::SYN, Outbound), (F::SYN | F::ACK, Inbound), (F::ACK, Outbound)]),
            ConnectionState::Established
        );
    }

    #[test]
    fn retransmitted_syns_alone_establish_nothing() {
        assert_eq!(run(&[(F::SYN, Outbound), (F::SYN, Outbound), (F::ACK, Outbound)]), ConnectionState::New);
    }

    #[test]
    fn fins_close_in_either_order_and_a_reset_at_once() {
        let open = [(F::SYN, Outbound), (F::SYN | F::ACK, Inbound), (F::ACK, Outbound)];
        for (first, second) in [(Inbound, Outbound), (Outbound, Inbound)] {
            let mut all = open.to_vec();
            all.push((F::FIN | F::ACK, first));
            assert_eq!(run(&all), ConnectionState::Closing);
            all.push((F::FIN | F::ACK, first));
            assert_eq!(run(&all), ConnectionState::Closing, "a retransmitted FIN is not the other side's");
            all.push((F::FIN | F::ACK, second));
            assert_eq!(run(&all), ConnectionState::Closed);
        }
        let mut all = open.to_vec();
        all.push((F::RST, Inbound));
        assert_eq!(run(&all), ConnectionState::Closed);
    }
}
