//! Moves the state of a TCP connection along, for security groups and NAT gateways alike.
//!
//! ```text
//!                SYN          SYN-ACK, ACK              FIN             FIN of the other side
//!   (nothing) ─────────▶ opening ─────────▶ established ─────▶ closing ─────────▶ closed
//!                          │                     │  ▲             │                  │
//!                          └───── RST ───────────┴──┼── RST ──────┴────▶ closed      │
//!                                                   └── RST's sender goes on ──┘     │
//!   closed ── SYN ──▶ a new connection, made by whoever keeps this one ◀─────────────┘
//! ```
//!
//! The phases are those of RFC 7857 §2 (RFC 6146 §3.5.2), with a timer each. AWS documents no checks of sequence numbers, so no
//! segment is refused here. But a segment changes the phase only if its numbers are right, as RFC 5961 and Linux's
//! conntrack judge them:
//! - SYN-ACK: acknowledges the SYN; an old one changes nothing, and the right one may still come.
//! - ACK, FIN, data: fit the streams ([`side::Reach::fits`]). A challenge ACK for a SYN (RFC 5961 §4) opens nothing.
//! - RST: has exactly the sequence number that is expected next, or answers a SYN by acknowledging it; once a FIN was
//!   seen, any within the window will do.
//! - SYN on a live connection: changes nothing, but is remembered (`Connection::pending`). The far end either knows the old connection,
//!   and the reset that follows its challenge closes this one, or its SYN-ACK shows that both ends have begun anew.
//!
//! Only what says that the connection lives restarts its timer: not a repeated SYN or SYN-ACK, not a RST that is not believed.

pub mod side;
pub mod stored;

#[cfg(test)]
mod cases;

use localvpc_api::report::ConnectionState;
use localvpc_api::trace::Direction;

use self::side::{Reach, Segment, Side, is_after};
use crate::hint::cold_path;
use crate::packet::TcpFacts;

/// All that is known of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Phase in the low two bits, then a bit per direction for each thing that was seen, then the window scale in use per direction.
    state: u32,
    /// By the direction in which an end sends.
    sides: [Side; 2],
    /// The last SYN that did not fit the connection; of the end whose [`PENDING`] is set.
    pending: Side,
}

/// What a segment does to the timer of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// It starts again.
    Restart,
    /// It runs on.
    Keep,
}

/// The state of a connection of which nothing was seen.
pub const NEW: u32 = OPENING;

const PHASE: u32 = 0b11;
const OPENING: u32 = 0;
pub(super) const ESTABLISHED: u32 = 1;
const CLOSING: u32 = 2;
const CLOSED: u32 = 3;

/// A FIN that fits. These stand for the inbound bit; the outbound one is next to it.
const FIN: u32 = 1 << 2;
/// A SYN, or a SYN-ACK of the other side's.
const SYN: u32 = 1 << 4;
/// An acknowledgement of the other side's SYN.
const ACKED: u32 = 1 << 6;
/// The RST that closed the connection.
const RESET: u32 = 1 << 8;
/// A SYN that did not fit.
const PENDING: u32 = 1 << 10;

/// Window scale of what goes inward, in four bits; the outward one stands above it.
const SHIFT: u32 = 16;
const SHIFT_BITS: u32 = 4;

/// How far the windows in a direction are shifted (RFC 7323 §2.2).
#[inline]
pub fn shift(state: u32, direction: Direction) -> u32 {
    state >> (SHIFT + SHIFT_BITS * direction as u32) & ((1 << SHIFT_BITS) - 1)
}

/// The same, as a part of a state.
#[inline]
fn shifted(shift: u8, direction: Direction) -> u32 {
    u32::from(shift) << (SHIFT + SHIFT_BITS * direction as u32)
}

/// How far a connection in this state has come.
#[inline]
pub fn phase(state: u32) -> ConnectionState {
    match state & PHASE {
        OPENING => ConnectionState::New,
        ESTABLISHED => ConnectionState::Established,
        CLOSING => ConnectionState::Closing,
        _ => ConnectionState::Closed,
    }
}

/// Whether a segment in mid-stream leaves the phase alone: it is established or closing.
#[inline]
pub fn is_steady(state: u32) -> bool {
    const { assert!(ESTABLISHED == 1 && CLOSING == 2 && CLOSED == PHASE) };
    (state + 1) & 2 != 0
}

/// What a segment in a stream has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streamed {
    state: u32,
    /// How far its sender has come.
    reach: Reach,
}

/// Moves a connection on by a segment without SYN and RST. `begun_by` tells whether it acknowledges the SYN of its receiver. `None` if it does not
/// fit: nothing changes then.
#[inline]
fn stream(
    state: u32,
    facts: &TcpFacts,
    from: Direction,
    sender: Reach,
    receiver: Reach,
    begun_by: impl FnOnce() -> bool,
) -> Option<Streamed> {
    let to = from.opposite();
    let segment = Segment::of(facts);
    if !has(state, SYN, from) || !has(state, SYN, to) || !sender.fits(&segment, receiver) {
        cold_path();
        return None;
    }
    let reach = sender.after(&segment, shift(state, from));
    let mut state = state;
    if state & PHASE == OPENING {
        if !begun_by() {
            cold_path();
            return None;
        }
        state = establish(state | ACKED << from as u32);
    }
    let goes_on = reach.end != sender.end || reach.ack != sender.ack;
    if has(state, RESET, from) && goes_on {
        cold_path();
        // RFC 7857 §2 (TRANS): so the RST was not its own. What the other end still sends shows nothing.
        state = establish(enter(state & !(RESET << from as u32), OPENING));
    }
    state |= (FIN * u32::from(facts.flags & TcpFacts::FIN != 0)) << from as u32;
    // No branch, since which of these a short connection takes is hard to foresee. A phase never goes back here.
    let ended = has(state, FIN, from) as u32 + has(state, FIN, to) as u32;
    const { assert!(CLOSING == 2 && CLOSED == 3 && ESTABLISHED < CLOSING) };
    let phase = (state & PHASE).max((ended + 1) * u32::from(ended != 0));
    state = enter(state, phase);
    Some(Streamed { state, reach })
}

#[inline]
fn has(state: u32, what: u32, direction: Direction) -> bool {
    state & what << direction as u32 != 0
}

#[inline]
fn enter(state: u32, phase: u32) -> u32 {
    state & !PHASE | phase
}

#[inline]
fn establish(state: u32) -> u32 {
    match has(state, ACKED, Direction::Inbound) && has(state, ACKED, Direction::Outbound) {
        true => enter(state, ESTABLISHED),
        false => state,
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// Nothing was seen of it yet.
    pub fn new() -> Self {
        Self { state: NEW, sides: [Side::default(); 2], pending: Side::default() }
    }

    /// What [`phase`] and [`shift`] are asked about.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// How far it has come.
    pub fn phase(&self) -> ConnectionState {
        phase(self.state)
    }

    /// Moves it along by a segment that one end sent; `scale` is the window scale that a SYN offers.
    pub fn see(&mut self, facts: &TcpFacts, scale: Option<u8>, from: Direction) -> Timer {
        if facts.flags & TcpFacts::RST != 0 {
            self.reset(facts, from)
        } else if facts.flags & TcpFacts::SYN == 0 {
            self.stream(facts, from)
        } else if facts.flags & TcpFacts::ACK == 0 {
            self.syn(Side::beginning(facts, scale), from)
        } else {
            self.syn_ack(facts.acknowledgement, Side::beginning(facts, scale), from)
        }
    }

    fn syn(&mut self, side: Side, from: Direction) -> Timer {
        let opening = self.is_in(OPENING);
        if opening && !self.has(SYN, from) {
            // The first, or the other one of a simultaneous open (RFC 9293 §3.5, RFC 5382 REQ-2).
            self.sides[from as usize] = side;
            self.set(SYN, from);
            self.meet();
            return Timer::Restart;
        }
        let known = self.side(from);
        if self.has(SYN, from) && side.first == known.first {
            return Timer::Keep;
        }
        if opening && !self.has(ACKED, from.opposite()) && is_after(side.first, known.first) {
            // Nobody has answered, and it has tried again (RFC 9293 §3.4.3: later numbers than before).
            self.sides[from as usize] = side;
            self.meet();
        } else {
            self.pending = side;
            self.set(PENDING, from);
            self.clear(PENDING, from.opposite());
        }
        Timer::Keep
    }

    fn syn_ack(&mut self, acknowledgement: u32, side: Side, from: Direction) -> Timer {
        let to = from.opposite();
        if self.has(PENDING, to) && self.pending.is_begun_by(acknowledgement) {
            let pending = self.pending;
            *self = Self::new();
            self.sides[to as usize] = pending;
            self.set(SYN, to);
        }
        let known = self.has(SYN, from).then(|| self.side(from).first);
        let answered = self.has(ACKED, to) && known != Some(side.first);
        let repeated = self.has(ACKED, from) && known == Some(side.first);
        let acks = self.has(SYN, to) && self.side(to).is_begun_by(acknowledgement);
        if !self.is_in(OPENING) || !acks || answered || repeated {
            return Timer::Keep;
        }
        self.sides[from as usize] = side;
        self.set(SYN | ACKED, from);
        self.meet();
        self.establish();
        Timer::Restart
    }

    fn stream(&mut self, facts: &TcpFacts, from: Direction) -> Timer {
        let (sender, receiver) = (self.side(from), self.side(from.opposite()));
        let begun_by = || receiver.is_begun_by(facts.acknowledgement);
        if let Some(after) = stream(self.state, facts, from, sender.reach, receiver.reach, begun_by) {
            self.state = after.state;
            self.sides[from as usize].reach = after.reach;
        }
        Timer::Restart
    }

    fn reset(&mut self, facts: &TcpFacts, from: Direction) -> Timer {
        let to = from.opposite();
        let (sender, receiver) = (self.side(from).reach, self.side(to).reach);
        let next = self.has(SYN, from) && sender.is_next(facts.sequence, receiver);
        let answers = |syn: Side| facts.flags & TcpFacts::ACK != 0 && syn.is_begun_by(facts.acknowledgement);
        let refuses = self.has(PENDING, to) && answers(self.pending);
        let believed = refuses
            || match self.state & PHASE {
                OPENING => next || self.has(SYN, to) && answers(self.side(to)),
                ESTABLISHED => next,
                CLOSING => next || receiver.takes(facts.sequence),
                _ => false,
            };
        if !believed {
            return Timer::Keep;
        }
        self.set(RESET, from);
        self.enter(CLOSED);
        Timer::Restart
    }

    /// After a SYN the other end expects the first byte, whether or not it has said so. Windows are scaled if both SYNs
    /// have offered it.
    fn meet(&mut self) {
        let sides =
            [Direction::Inbound, Direction::Outbound].map(|direction| (direction, self.side(direction)));
        for ((direction, side), (opposite, other)) in [(sides[0], sides[1]), (sides[1], sides[0])] {
            if !self.has(ACKED, direction) && self.has(SYN, opposite) {
                self.sides[direction as usize].reach.ack = other.first;
            }
            let shift = match (side.scale, other.scale) {
                (Some(scale), Some(_)) => u32::from(scale),
                _ => 0,
            };
            let at = SHIFT + SHIFT_BITS * direction as u32;
            self.state = self.state & !(((1 << SHIFT_BITS) - 1) << at) | shift << at;
        }
    }

    fn establish(&mut self) {
        self.state = establish(self.state);
    }

    fn side(&self, direction: Direction) -> Side {
        self.sides[direction as usize]
    }

    fn is_in(&self, phase: u32) -> bool {
        self.state & PHASE == phase
    }

    fn enter(&mut self, phase: u32) {
        self.state = enter(self.state, phase);
    }

    fn has(&self, what: u32, direction: Direction) -> bool {
        has(self.state, what, direction)
    }

    fn set(&mut self, what: u32, direction: Direction) {
        self.state |= what << direction as u32;
    }

    fn clear(&mut self, what: u32, direction: Direction) {
        self.state &= !(what << direction as u32);
    }
}
