//! Keeps, for each live connection or lease, what changes with every packet.
//!
//! An [`Activity`] is two adjacent cache lines of atomics in a fixed array. Creating and
//! ending one happens under the lock of the index that refers to it; touching it
//! takes no lock. A [`Ref`] names one together with its version, so that
//! whoever kept a reference notices when it has been given to another
//! connection.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, PoisonError};

use localvpc_api::report::{ConnectionState, Traffic};
use localvpc_api::trace::{Direction, Protocol};
use zerocopy::FromZeros;

use super::tcp::line::Line;
use super::tcp::{self, Connection, Timer};
use crate::Time;
use crate::packet::{Kind, Packet};

/// Names a live activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ref {
    slot: u32,
    version: u32,
}

/// Milliseconds of silence after which a connection ends, by how far it has come.
///
/// TCP goes through all four. Everything else is `new` until more than one
/// packet was seen in both directions, and `established` from then on (SG-37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One direction seen, or an incomplete handshake.
    pub new: u32,
    /// Both directions.
    pub established: u32,
    /// TCP: one FIN was seen.
    pub closing: u32,
    /// TCP: both FINs or a RST were seen.
    pub closed: u32,
}

/// All that a packet of a connection changes: one cache line, and for TCP the one behind it.
///
/// Processors fetch lines in pairs of 128 bytes, so the second costs little.
#[derive(Debug, Default, FromZeros)]
#[repr(C, align(128))]
pub struct Activity {
    /// Odd while in use; changes whenever the line is given out or taken back.
    version: AtomicU32,
    /// For TCP the state as [`tcp`] packs it; [`BY_TRAFFIC`] for everything else.
    state: AtomicU16,
    /// Time of the last packet that refreshed it.
    last_seen: AtomicU64,
    /// [`Timeouts`], by state.
    timeouts: [AtomicU32; 4],
    /// Packets and bytes, outbound then inbound.
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    /// Where the streams of a TCP connection are.
    streams: Line,
}

const BY_TRAFFIC: u16 = u16::MAX;

const _: () = assert!(std::mem::offset_of!(Activity, streams) == 64 && size_of::<Activity>() == 128);

/// A fixed number of activities, given out and taken back.
#[derive(Debug)]
pub struct Activities {
    lines: Box<[Activity]>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Lines that were taken back.
    returned: Vec<u32>,
    /// Lines from here on were never given out.
    fresh: u32,
}

impl Activities {
    /// Room for `capacity` activities, 128 bytes each. Pages that were never used take no memory.
    ///
    /// # Panics
    /// If there is not that much memory.
    pub fn new(capacity: u32) -> Self {
        Self {
            lines: <[Activity]>::new_box_zeroed_with_elems(capacity as usize)
                .expect("memory for as many activities as the limits say"),
            free: Mutex::new(Free { returned: Vec::new(), fresh: 0 }),
        }
    }

    /// Gives a line out, or `None` if all are in use. It counts `packet` as its first.
    pub fn start(&self, packet: &Packet, direction: Direction, timeouts: Timeouts, now: Time) -> Option<Ref> {
        let slot = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.returned.pop() {
                Some(slot) => slot,
                None if (free.fresh as usize) < self.lines.len() => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return None,
            }
        };
        let line = &self.lines[slot as usize];
        line.restart(packet, direction, timeouts, now);
        let version = line.version.load(Relaxed).wrapping_add(1);
        line.version.store(version, Release);
        Some(Ref { slot, version })
    }

    /// Takes a line back; every [`Ref`] to it is dead from here on.
    pub fn end(&self, reference: Ref) {
        let line = &self.lines[reference.slot as usize];
        line.version.store(reference.version.wrapping_add(1), Release);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(reference.slot);
    }

    /// Makes the line that of a new connection, beginning with `packet`: references to the old one are dead.
    pub fn restart(
        &self,
        old: Ref,
        packet: &Packet,
        direction: Direction,
        timeouts: Timeouts,
        now: Time,
    ) -> Ref {
        let line = &self.lines[old.slot as usize];
        line.restart(packet, direction, timeouts, now);
        let version = old.version.wrapping_add(2);
        line.version.store(version, Release);
        Ref { slot: old.slot, version }
    }

    /// The line, if it still is what `reference` meant and has not idled out.
    #[inline]
    pub fn live(&self, reference: Ref, now: Time) -> Option<&Activity> {
        let line = &self.lines[reference.slot as usize];
        (line.version.load(Acquire) == reference.version && !line.expired(now)).then_some(line)
    }

    /// The line, if it still is what `reference` meant, has not idled out, and a mid-stream packet leaves its state alone:
    /// so that a flow cache may stand in for the walk.
    #[inline]
    pub fn steady(&self, reference: Ref, now: Time) -> Option<&Activity> {
        self.live(reference, now).filter(|line| line.is_steady())
    }

    /// The line, if it still is what `reference` meant.
    #[inline]
    pub fn same(&self, reference: Ref) -> Option<&Activity> {
        let line = &self.lines[reference.slot as usize];
        (line.version.load(Acquire) == reference.version).then_some(line)
    }

    /// The line, whether or not it has idled out. For holders of the index lock.
    pub fn line(&self, reference: Ref) -> &Activity {
        &self.lines[reference.slot as usize]
    }
}

impl Activity {
    fn restart(&self, packet: &Packet, direction: Direction, timeouts: Timeouts, now: Time) {
        let state = if packet.tuple.protocol == Protocol::TCP { tcp::NEW } else { BY_TRAFFIC };
        self.state.store(state, Relaxed);
        self.streams.reset(&Connection::new());
        for (slot, value) in
            self.timeouts.iter().zip([timeouts.new, timeouts.established, timeouts.closing, timeouts.closed])
        {
            slot.store(value, Relaxed);
        }
        for counter in self.packets.iter().chain(&self.bytes) {
            counter.store(0, Relaxed);
        }
        self.see(packet, direction, now);
    }

    /// Counts a packet, moves the TCP state along, and refreshes the timer if that is due.
    pub fn see(&self, packet: &Packet, direction: Direction, now: Time) {
        let Kind::Tcp(facts) = &packet.kind else { return self.touch(packet, direction, now) };
        self.count(packet, direction);
        let mut state = self.state.load(Relaxed);
        loop {
            let before = self.streams.load(state);
            let mut after = before;
            let timer = after.see(facts, packet.window_scale, direction);
            if timer == Timer::Restart {
                // Before the state, whose timeout may be shorter than it was idle.
                self.last_seen.store(now.0, Relaxed);
            }
            // Two workers may see a FIN each.
            match self.state.compare_exchange(state, after.state, Relaxed, Relaxed) {
                Ok(_) => return self.streams.store(&before, &after),
                Err(other) => state = other,
            }
        }
    }

    /// Counts a packet, moves its stream on and refreshes the timer: all that a packet in mid-stream does.
    #[inline]
    pub fn touch(&self, packet: &Packet, direction: Direction, now: Time) {
        self.count(packet, direction);
        self.last_seen.store(now.0, Relaxed);
        if let Kind::Tcp(facts) = &packet.kind {
            self.streams.advance(facts, direction);
        }
    }

    #[inline]
    fn count(&self, packet: &Packet, direction: Direction) {
        let at = direction as usize;
        self.packets[at].store(self.packets[at].load(Relaxed) + u64::from(packet.segments), Relaxed);
        self.bytes[at].store(self.bytes[at].load(Relaxed) + u64::from(packet.length), Relaxed);
    }

    /// What is known of a TCP connection.
    pub fn connection(&self) -> Option<Connection> {
        let state = self.state.load(Relaxed);
        (state != BY_TRAFFIC).then(|| self.streams.load(state))
    }

    /// Opening and closed connections are not: what comes next may open them, or show that they live.
    #[inline]
    fn is_steady(&self) -> bool {
        let state = self.state.load(Relaxed);
        state == BY_TRAFFIC
            || matches!(tcp::phase(state), ConnectionState::Established | ConnectionState::Closing)
    }

    /// How far it has come.
    #[inline]
    pub fn state(&self) -> ConnectionState {
        match self.state.load(Relaxed) {
            BY_TRAFFIC if self.packets.iter().all(|packets| packets.load(Relaxed) > 1) => {
                ConnectionState::Established
            }
            BY_TRAFFIC => ConnectionState::New,
            state => tcp::phase(state),
        }
    }

    /// Milliseconds of silence after which it ends.
    #[inline]
    pub fn timeout_ms(&self) -> u64 {
        u64::from(self.timeouts[self.state() as usize].load(Relaxed))
    }

    /// Milliseconds since its last packet.
    #[inline]
    pub fn idle_ms(&self, now: Time) -> u64 {
        now.0.saturating_sub(self.last_seen.load(Relaxed))
    }

    /// Whether it has idled out.
    #[inline]
    pub fn expired(&self, now: Time) -> bool {
        self.idle_ms(now) >= self.timeout_ms()
    }

    /// Packets and bytes seen in a direction.
    pub fn traffic(&self, direction: Direction) -> Traffic {
        let at = direction as usize;
        Traffic { packets: self.packets[at].load(Relaxed), bytes: self.bytes[at].load(Relaxed) }
    }
}
