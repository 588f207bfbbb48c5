//! Keeps, for each live connection or lease, what changes with every packet.
//!
//! An [`Activity`] is a cache line of atomics that every packet changes, and one that few do, in a fixed array. Creating and
//! ending one happens under the lock of the [index](super::index) that refers to it; touching it, and reading what
//! it belongs to, takes no lock. A [`Ref`] names one together with its version, so that
//! whoever kept a reference notices when it has been given to another
//! connection.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::*, fence};
use std::sync::{Mutex, PoisonError};

use localvpc_api::report::{ConnectionState, Traffic};
use localvpc_api::trace::Direction;
use zerocopy::FromZeros;

use super::tcp::side::Segment;
use super::tcp::stored::{self, Beginnings, Streams};
use super::tcp::{self, Timer};
use crate::Time;
use crate::hint::cold_path;
use crate::memory::{Zeroed, prefetch, prefetch_all};
use crate::packet::{Kind, Load, Packet, TcpFacts};

/// Names a live activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ref {
    pub(crate) slot: u32,
    pub(crate) version: u32,
}

/// Milliseconds of silence after which a connection ends, by how far it has come.
///
/// TCP goes through all four. Everything else is `new` until more than one
/// packet was seen in both directions, and `established` from then on (SG-37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One direction seen, or an incomplete handshake; TCP also while only one FIN was seen.
    pub new: u32,
    /// Both directions.
    pub established: u32,
}

impl Timeouts {
    fn of(self, state: ConnectionState) -> u32 {
        match state {
            ConnectionState::Established => self.established,
            ConnectionState::New | ConnectionState::Closing => self.new,
            ConnectionState::Closed => self.new.min(CLOSED_MS),
        }
    }
}

/// TCP: both FINs or a RST were seen. It is that short for all; what idles out sooner when new does so when closed.
pub const CLOSED_MS: u32 = 60_000;

/// What names a connection or lease, packed. What it means is up to who keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// What it is found by, with the lowest eight bits of `more`.
    pub words: [u64; 2],
    /// More of it.
    pub more: u32,
    /// More of it.
    pub extra: u32,
}

impl Label {
    /// What it is found by.
    #[inline]
    pub fn key(&self) -> [u64; 3] {
        [self.words[0], self.words[1], u64::from(self.more & 0xFF)]
    }
}

/// A connection or lease: all that a packet of it changes.
#[derive(Debug, Default, FromZeros)]
#[repr(C, align(64))]
pub struct Activity {
    hot: Hot,
    cold: Cold,
}

/// What every packet reads or changes: one cache line.
#[derive(Debug, Default, FromZeros)]
#[repr(C, align(64))]
struct Hot {
    /// Odd while in use; changes whenever the line is given out or taken back.
    version: AtomicU32,
    /// For TCP the state as [`tcp`] packs it; [`BY_TRAFFIC`] for everything else.
    state: AtomicU32,
    /// Time of the last packet that refreshed it.
    last_seen: AtomicU64,
    /// Bytes, by direction.
    bytes: [AtomicU64; 2],
    /// Packets, by direction: the lower half of their number.
    packets: [AtomicU32; 2],
    /// The one of [`Cold::timeouts`] that belongs to the state.
    timeout: AtomicU32,
    /// Where the streams of a TCP connection are.
    streams: Streams,
}

/// What only packets change that are walked, and few others.
#[derive(Debug, Default, FromZeros)]
#[repr(C, align(64))]
struct Cold {
    /// [`Label::words`].
    words: [AtomicU64; 2],
    /// [`Label::more`] and [`Label::extra`].
    more: [AtomicU32; 2],
    /// [`Timeouts`]: new, established.
    timeouts: [AtomicU32; 2],
    /// Packets, by direction: the upper part.
    packets: [AtomicU16; 2],
    /// How the streams of a TCP connection began.
    beginnings: Beginnings,
}

/// The most activities that there can be: slots have 29 bits.
pub const MAX_LINES: u32 = 1 << 29;

/// Lines ahead of the one that is given out: so many connections take longer than memory does.
const AHEAD: u32 = 4;

/// No state of a TCP connection, but steady by the same test: see [`Activity::is_steady`].
const BY_TRAFFIC: u32 = !0b11 | tcp::ESTABLISHED;

const _: () = assert!(size_of::<Hot>() == 64 && size_of::<Cold>() == 64);

/// A fixed number of activities, given out and taken back.
#[derive(Debug)]
pub struct Activities {
    lines: Zeroed<Activity>,
    /// Lines from here on were never given out.
    fresh: AtomicU32,
    /// Lines that were taken back.
    returned: Mutex<Vec<u32>>,
    /// How many those are, so that nobody locks them in vain.
    waiting: AtomicU32,
}

impl Activities {
    /// Room for `capacity` activities, 128 bytes each. Pages that were never used take no memory.
    ///
    /// # Panics
    /// If there is not that much memory, or more than [`MAX_LINES`] are asked for.
    pub fn new(capacity: u32) -> Self {
        assert!(capacity <= MAX_LINES, "room for at most {MAX_LINES} connections");
        Self {
            lines: Zeroed::new(capacity as usize),
            fresh: AtomicU32::new(0),
            // It never grows, which would take long while others wait for it.
            returned: Mutex::new(Vec::with_capacity(capacity as usize)),
            waiting: AtomicU32::new(0),
        }
    }

    /// Has the kernel give all of its memory now.
    pub fn populate(&mut self) {
        self.lines.populate();
    }

    /// Gives a line out, or `None` if all are in use. It counts `packet` as its first.
    pub fn start(
        &self,
        label: Label,
        packet: &Packet,
        direction: Direction,
        timeouts: Timeouts,
        now: Time,
    ) -> Option<Ref> {
        let slot = self.free_slot()?;
        let line = &self.lines[slot as usize];
        // Whoever still reads what the line was sees first that it has been taken back.
        fence(Release);
        line.cold.set_label(label);
        line.restart(packet, direction, timeouts, now);
        let version = line.hot.version.load(Relaxed).wrapping_add(1);
        line.hot.version.store(version, Release);
        Some(Ref { slot, version })
    }

    fn free_slot(&self) -> Option<u32> {
        if self.waiting.load(Relaxed) > 0
            && let Some(slot) = self.change_returned(Vec::pop)
        {
            return Some(slot);
        }
        let more = |fresh: u32| ((fresh as usize) < self.lines.len()).then(|| fresh + 1);
        let slot = self.fresh.fetch_update(Relaxed, Relaxed, more).ok()?;
        // Those that are next will be soon.
        self.prefetch_all(slot + AHEAD);
        Some(slot)
    }

    fn change_returned<T>(&self, change: impl FnOnce(&mut Vec<u32>) -> T) -> T {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut returned);
        self.waiting.store(returned.len() as u32, Relaxed);
        outcome
    }

    /// Takes a line back; every [`Ref`] to it is dead from here on.
    pub fn end(&self, reference: Ref) {
        let line = &self.lines[reference.slot as usize];
        line.hot.version.store(reference.version.wrapping_add(1), Release);
        self.change_returned(|returned| returned.push(reference.slot));
    }

    /// Makes the line that of a new connection, beginning with `packet`: references to the old one are dead.
    pub fn restart(
        &self,
        old: Ref,
        label: Label,
        packet: &Packet,
        direction: Direction,
        timeouts: Timeouts,
        now: Time,
    ) -> Ref {
        let line = &self.lines[old.slot as usize];
        line.cold.set_label(label);
        line.restart(packet, direction, timeouts, now);
        let version = old.version.wrapping_add(2);
        line.hot.version.store(version, Release);
        Ref { slot: old.slot, version }
    }

    /// Who a line belongs to, if it is in use.
    #[inline]
    pub fn label(&self, slot: u32) -> Option<(Ref, Label)> {
        let line = &self.lines[slot as usize];
        loop {
            let version = line.hot.version.load(Acquire);
            if version.is_multiple_of(2) {
                return None;
            }
            let label = line.cold.label();
            fence(Acquire);
            if line.hot.version.load(Relaxed) == version {
                return Some((Ref { slot, version }, label));
            }
        }
    }

    /// The line in use at `slot` if it has this key.
    #[inline]
    pub fn with_key(&self, slot: u32, key: [u64; 3]) -> Option<(Ref, Label)> {
        self.label(slot).filter(|(_, label)| label.key() == key)
    }

    /// Calls `each` for every line in use among those of a part, of `parts`.
    pub fn each_of_part(&self, part: usize, parts: usize, mut each: impl FnMut(Ref, Label, &Activity)) {
        let fresh = self.fresh.load(Relaxed);
        let size = (self.lines.len().div_ceil(parts)) as u32;
        let start = part as u32 * size;
        for slot in start..(start + size).min(fresh) {
            if let Some((reference, label)) = self.label(slot) {
                each(reference, label, &self.lines[slot as usize]);
            }
        }
    }

    /// Lines in use.
    pub fn len(&self) -> usize {
        // Both change while they are read, if others make and end some.
        self.fresh.load(Relaxed).saturating_sub(self.waiting.load(Relaxed)) as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The line, if it still is what `reference` meant and has not idled out.
    #[inline(always)]
    pub fn live(&self, reference: Ref, now: Time) -> Option<&Activity> {
        let line = &self.lines[reference.slot as usize];
        (line.hot.version.load(Acquire) == reference.version && !line.expired(now)).then_some(line)
    }

    /// The same, if a packet in mid-stream leaves its state alone.
    #[inline(always)]
    pub fn steady(&self, reference: Ref, now: Time) -> Option<&Activity> {
        self.live(reference, now).filter(|line| line.is_steady())
    }

    /// Has the processor fetch what a packet of it reads and changes.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(line) = self.lines.get(slot as usize) {
            prefetch(&line.hot);
        }
    }

    /// Has the processor fetch all of it.
    #[inline]
    pub fn prefetch_all(&self, slot: u32) {
        if let Some(line) = self.lines.get(slot as usize) {
            prefetch_all(line);
        }
    }

    /// The line, if it still is what `reference` meant.
    #[inline]
    pub fn same(&self, reference: Ref) -> Option<&Activity> {
        let line = &self.lines[reference.slot as usize];
        (line.hot.version.load(Acquire) == reference.version).then_some(line)
    }

    /// The line, whether or not it has idled out. For holders of the index lock.
    pub fn line(&self, reference: Ref) -> &Activity {
        &self.lines[reference.slot as usize]
    }
}

impl Activity {
    /// Writes all but the label and the version.
    fn restart(&self, packet: &Packet, direction: Direction, timeouts: Timeouts, now: Time) {
        let Self { hot, cold } = self;
        let (state, timeout) = match &packet.kind {
            Kind::Tcp(facts) => {
                let scale = packet.window_scale;
                let state = stored::begin(facts, scale, direction, &hot.streams, &cold.beginnings);
                (state, timeouts.of(tcp::phase(state)))
            }
            _ => (BY_TRAFFIC, timeouts.new),
        };
        hot.state.store(state, Relaxed);
        hot.timeout.store(timeout, Relaxed);
        hot.last_seen.store(now.0, Relaxed);
        let (here, there) = (direction as usize, direction.opposite() as usize);
        hot.packets[here].store(packet.segments.into(), Relaxed);
        hot.packets[there].store(0, Relaxed);
        hot.bytes[here].store(packet.length.into(), Relaxed);
        hot.bytes[there].store(0, Relaxed);
        for at in 0..2 {
            cold.packets[at].store(0, Relaxed);
        }
        cold.timeouts[0].store(timeouts.new, Relaxed);
        cold.timeouts[1].store(timeouts.established, Relaxed);
    }

    /// Counts a packet, moves the TCP state along, and refreshes the timer if that is due. `true` if it completes the
    /// handshake of a TCP connection.
    pub fn see(&self, packet: &Packet, direction: Direction, now: Time) -> bool {
        match &packet.kind {
            Kind::Tcp(facts) => self.see_segment(packet.load(), facts, packet.window_scale, direction, now),
            _ => {
                self.touch(packet.load(), None, direction, now);
                false
            }
        }
    }

    /// The same of a TCP segment. `scale` is the window scale that a SYN offers.
    pub fn see_segment(
        &self,
        load: Load,
        facts: &TcpFacts,
        scale: Option<u8>,
        direction: Direction,
        now: Time,
    ) -> bool {
        self.count(load, direction);
        if facts.flags & (TcpFacts::SYN | TcpFacts::RST) != 0 {
            cold_path();
            return self.see_control(facts, scale, direction, now);
        }
        // Before the state, whose timeout may be shorter than it was idle.
        self.hot.last_seen.store(now.0, Relaxed);
        let Self { hot, cold } = self;
        match stored::follow(&hot.state, facts, direction, &hot.streams, &cold.beginnings) {
            Some((before, after)) => {
                self.settle_segment(after);
                opens(tcp::phase(before), tcp::phase(after))
            }
            None => false,
        }
    }

    /// Moves the TCP state along by a segment with SYN or RST.
    #[inline(never)]
    fn see_control(&self, facts: &TcpFacts, scale: Option<u8>, direction: Direction, now: Time) -> bool {
        let Self { hot, cold } = self;
        if stored::answer(&hot.state, facts, scale, direction, &hot.streams, &cold.beginnings) {
            hot.last_seen.store(now.0, Relaxed);
            self.settle();
            return false;
        }
        let mut state = self.hot.state.load(Relaxed);
        loop {
            let before = stored::load(state, &self.hot.streams, &self.cold.beginnings);
            let mut after = before;
            let timer = after.see(facts, scale, direction);
            if timer == Timer::Restart {
                self.hot.last_seen.store(now.0, Relaxed);
            }
            match self.hot.state.compare_exchange(state, after.state(), Relaxed, Relaxed) {
                Ok(_) => {
                    stored::update(&before, &after, &self.hot.streams, &self.cold.beginnings);
                    self.settle();
                    return opens(before.phase(), after.phase());
                }
                Err(other) => state = other,
            }
        }
    }

    /// Counts a packet, moves its stream on and refreshes the timer: all that a packet in mid-stream does.
    #[inline(always)]
    pub fn touch(&self, load: Load, segment: Option<&Segment>, direction: Direction, now: Time) {
        let before = self.count(load, direction);
        self.hot.last_seen.store(now.0, Relaxed);
        match segment {
            Some(segment) => self.hot.streams.advance(self.hot.state.load(Relaxed), segment, direction),
            _ if before <= 1 => self.settle(),
            _ => {}
        }
    }

    /// Returns how many packets were counted before in that direction, modulo 2³².
    #[inline]
    fn count(&self, load: Load, direction: Direction) -> u32 {
        let Hot { packets, bytes, .. } = &self.hot;
        let at = direction as usize;
        let before = packets[at].load(Relaxed);
        let (after, carry) = before.overflowing_add(load.segments.into());
        packets[at].store(after, Relaxed);
        if carry {
            cold_path();
            self.cold.packets[at].fetch_add(1, Relaxed);
        }
        bytes[at].store(bytes[at].load(Relaxed) + u64::from(load.length), Relaxed);
        before
    }

    /// Sets the timeout that belongs to a state of TCP.
    #[inline]
    fn settle_segment(&self, state: u32) {
        let [new, established] = [0, 1].map(|at: usize| self.cold.timeouts[at].load(Relaxed));
        let by_phase = [new, established, new, new.min(CLOSED_MS)];
        self.hot.timeout.store(by_phase[(state & 3) as usize], Relaxed);
    }

    /// Sets the timeout that belongs to the state.
    fn settle(&self) {
        let [new, established] = [0, 1].map(|at: usize| self.cold.timeouts[at].load(Relaxed));
        self.hot.timeout.store(Timeouts { new, established }.of(self.state()), Relaxed);
    }

    /// Whether a packet in mid-stream leaves its state alone, so that [`touch`](Self::touch) is all it does. Opening and closed connections
    /// are not steady: what comes next may open them, or show that they live.
    #[inline(always)]
    pub fn is_steady(&self) -> bool {
        tcp::is_steady(self.hot.state.load(Relaxed))
    }

    /// How far it has come.
    pub fn state(&self) -> ConnectionState {
        match self.hot.state.load(Relaxed) {
            BY_TRAFFIC if [0, 1].iter().all(|at| self.packets(*at) > 1) => ConnectionState::Established,
            BY_TRAFFIC => ConnectionState::New,
            state => tcp::phase(state),
        }
    }

    /// Milliseconds of silence after which it ends.
    #[inline]
    pub fn timeout_ms(&self) -> u64 {
        self.hot.timeout.load(Relaxed).into()
    }

    /// Milliseconds since its last packet.
    #[inline]
    pub fn idle_ms(&self, now: Time) -> u64 {
        now.0.saturating_sub(self.hot.last_seen.load(Relaxed))
    }

    /// Whether it has idled out.
    #[inline(always)]
    pub fn expired(&self, now: Time) -> bool {
        // The clock of another worker may have been ahead.
        let idle = now.0.wrapping_sub(self.hot.last_seen.load(Relaxed)).cast_signed();
        idle >= i64::from(self.hot.timeout.load(Relaxed))
    }

    /// Packets and bytes seen in a direction.
    pub fn traffic(&self, direction: Direction) -> Traffic {
        let at = direction as usize;
        Traffic { packets: self.packets(at), bytes: self.hot.bytes[at].load(Relaxed) }
    }

    fn packets(&self, at: usize) -> u64 {
        u64::from(self.cold.packets[at].load(Relaxed)) << 32 | u64::from(self.hot.packets[at].load(Relaxed))
    }
}

/// Whether a handshake was completed.
fn opens(before: ConnectionState, after: ConnectionState) -> bool {
    (before, after) == (ConnectionState::New, ConnectionState::Established)
}

impl Cold {
    fn set_label(&self, label: Label) {
        self.words[0].store(label.words[0], Relaxed);
        self.words[1].store(label.words[1], Relaxed);
        self.more[0].store(label.more, Relaxed);
        self.more[1].store(label.extra, Relaxed);
    }

    #[inline]
    fn label(&self) -> Label {
        Label {
            words: [self.words[0].load(Relaxed), self.words[1].load(Relaxed)],
            more: self.more[0].load(Relaxed),
            extra: self.more[1].load(Relaxed),
        }
    }
}
