//! Keeps a connection's streams where any worker can reach them: a cache line of atomics.
//!
//! Only the worker that has a packet of a direction writes that direction's numbers, so plain stores do. Where two have
//! one at the same time, the numbers may fall back by a packet, which the next one makes good.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use localvpc_api::trace::Direction;
use zerocopy::FromZeros;

use super::Connection;
use super::side::{Reach, Side, shift};
use crate::packet::TcpFacts;

/// [`Connection`] without its state, in 64 bytes.
#[derive(Debug, Default, FromZeros)]
#[repr(C)]
pub struct Line {
    sides: [Stored; 2],
    pending: Stored,
}

#[derive(Debug, Default, FromZeros)]
#[repr(C)]
struct Stored {
    end: AtomicU32,
    ack: AtomicU32,
    window: AtomicU32,
    first: AtomicU32,
    /// One more than the scale that was offered; 0 if none was.
    scale: AtomicU8,
}

const _: () = assert!(size_of::<Line>() <= 64);

impl Line {
    /// What is known, together with the state.
    pub fn load(&self, state: u16) -> Connection {
        Connection {
            state,
            sides: [self.sides[0].load(), self.sides[1].load()],
            pending: self.pending.load(),
        }
    }

    /// Writes what has changed.
    pub fn store(&self, before: &Connection, after: &Connection) {
        let sides = self.sides.iter().zip(before.sides.iter().zip(&after.sides));
        for (stored, (before, after)) in sides.chain([(&self.pending, (&before.pending, &after.pending))]) {
            if before != after {
                stored.store(after);
            }
        }
    }

    /// Writes all of it.
    pub fn reset(&self, to: &Connection) {
        for (stored, side) in self.sides.iter().zip(&to.sides).chain([(&self.pending, &to.pending)]) {
            stored.store(side);
        }
    }

    /// Moves a direction's stream on: all that a packet in mid-stream does.
    #[inline]
    pub fn advance(&self, facts: &TcpFacts, direction: Direction) {
        let (sender, receiver) =
            (&self.sides[direction as usize], &self.sides[direction.opposite() as usize]);
        let shift = shift(sender.scale(), receiver.scale());
        if let Some(reach) = sender.reach().after(facts, receiver.reach(), shift) {
            sender.store_reach(reach);
        }
    }
}

impl Stored {
    fn load(&self) -> Side {
        Side { first: self.first.load(Relaxed), reach: self.reach(), scale: self.scale() }
    }

    fn store(&self, side: &Side) {
        self.first.store(side.first, Relaxed);
        self.store_reach(side.reach);
        self.scale.store(side.scale.map_or(0, |scale| scale + 1), Relaxed);
    }

    #[inline]
    fn scale(&self) -> Option<u8> {
        self.scale.load(Relaxed).checked_sub(1)
    }

    #[inline]
    fn reach(&self) -> Reach {
        Reach { end: self.end.load(Relaxed), ack: self.ack.load(Relaxed), window: self.window.load(Relaxed) }
    }

    #[inline]
    fn store_reach(&self, reach: Reach) {
        self.end.store(reach.end, Relaxed);
        self.ack.store(reach.ack, Relaxed);
        self.window.store(reach.window, Relaxed);
    }
}
