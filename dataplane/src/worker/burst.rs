//! One turn at one queue: reads a batch, has it decided about, joins what belongs together, and writes.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrayvec::ArrayVec;
use localvpc_api::settings::Merge;
use localvpc_api::{DiscardReason, LinkId};
use localvpc_engine::merge::{Candidate, Merger};
use localvpc_engine::{Tables, Verdict};

use crate::clock::Instant;
use crate::device::{Arrival, Batch, Device, HEADROOM, Made, Outgoing, Written, segments};
use crate::engine::Engine;
use crate::fleet::Shared;
use crate::links::{Link, Links};

/// Packets taken from one queue before the next has its turn.
pub const BURST: usize = 64;

/// Bytes after which a batch ends: one large super-packet, which is still in the processor's cache when it is written.
const BUDGET: usize = 64 * 1024;

/// What packets pass through.
pub(super) struct Hands<E> {
    index: usize,
    shared: Arc<Shared>,
    engine: E,
    /// In force.
    pub(super) tables: Arc<Tables>,
    /// Attached.
    pub(super) links: Arc<Links>,
    /// Whether packets are joined.
    pub(super) merge: Merge,
    /// The packets at hand.
    batch: Batch,
    /// How many of them have met their fate.
    settled: usize,
    merger: Merger,
    /// A packet beside those at hand: a fragment, or an answer of our own.
    made: Made,
}

type Verdicts = ArrayVec<Verdict, BURST>;

impl<E: Engine> Hands<E> {
    pub(super) fn new(index: usize, engine: E, shared: Arc<Shared>) -> Self {
        Self {
            index,
            tables: shared.tables.load_full(),
            links: Arc::default(),
            merge: shared.settings().merge,
            engine,
            shared,
            batch: Batch::new(BURST, BUDGET),
            settled: 0,
            merger: Merger::default(),
            made: Made::default(),
        }
    }

    /// Takes a batch from `queue` to where it goes.
    ///
    /// # Errors
    ///
    /// The queue is broken. What was read before has been forwarded.
    pub(super) fn burst(&mut self, from: &Link, queue: &dyn Device, now: Instant) -> io::Result<()> {
        let read = self.read(from, queue);
        while self.settled < self.batch.slots().len() {
            self.forward(from, now);
        }
        read
    }

    /// After a panic: counts the packets of the batch that it cost, and starts over with an empty flow cache.
    pub(super) fn recover(&mut self) {
        let lost = self.batch.slots().len().saturating_sub(self.settled) as u16;
        self.discard(DiscardReason::Internal, lost);
        self.engine.drop_cache();
    }

    fn read(&mut self, from: &Link, queue: &dyn Device) -> io::Result<()> {
        self.batch.clear();
        self.settled = 0;
        let slot = from.slot(self.index);
        while !self.batch.is_full() {
            match queue.read(&mut self.batch)? {
                Arrival::Nothing => break,
                Arrival::Hostile => {
                    let length = self.batch.pop().map_or(0, |packet| packet.length);
                    slot.read(length, 1);
                    self.discard(DiscardReason::HostileOffload, 1);
                }
                Arrival::Packet => {
                    let at = self.batch.slots().len() - 1;
                    let packet = self.batch.packet(at);
                    slot.read(packet.len(), segments(packet, self.batch.slots()[at].offload));
                }
            }
        }
        Ok(())
    }

    /// Has the packets that are not settled decided about, and sends what leaves. One at which the engine panics is lost, and
    /// those behind it are left.
    fn forward(&mut self, from: &Link, now: Instant) {
        let first = self.settled;
        let mut packets: ArrayVec<_, BURST> = self.batch.to_forward(first, from.id).collect();
        let (engine, tables, state) = (&mut self.engine, &self.tables, &self.shared.state);
        let decided = catch_unwind(AssertUnwindSafe(|| {
            engine.forward_batch(tables, state, &mut packets, now.into());
        }));
        let verdicts: Verdicts = packets.iter().map_while(|packet| packet.verdict).collect();
        drop(packets);
        if self.merge == Merge::On && verdicts.len() > 1 && self.engine.extras().next().is_none() {
            self.send_joined(first, &verdicts);
        } else {
            self.send_each(first, &verdicts);
        }
        self.settled = first + verdicts.len();
        if decided.is_err() {
            self.discard(DiscardReason::Internal, 1);
            self.engine.drop_cache();
            self.settled += 1;
        }
    }

    /// Sends packets one by one, each with what leaves beside it.
    fn send_each(&mut self, first: usize, verdicts: &Verdicts) {
        let (links, index, state) = (&self.links, self.index, &self.shared.state);
        let mut extras = self.engine.extras().peekable();
        for (at, verdict) in verdicts.iter().enumerate() {
            if let Verdict::Forward { link, length, segments } = *verdict {
                let slot = self.batch.slots()[first + at];
                let packet = self.batch.outgoing(slot.start, slot.length.min(length as usize), slot.offload);
                if send(links, index, link, packet).is_err() {
                    self.engine.lost(state, segments, DiscardReason::LinkWrite);
                }
            }
            while let Some(extra) = extras.next_if(|extra| extra.after <= at) {
                if send(links, index, extra.link, self.made.fill(extra.bytes)).is_err() {
                    self.engine.lost(state, 1, DiscardReason::LinkWrite);
                }
            }
        }
    }

    /// Sends packets, those of a flow that follow each other as one where the receiving link takes that.
    fn send_joined(&mut self, first: usize, verdicts: &Verdicts) {
        self.merger.clear();
        for (at, verdict) in verdicts.iter().enumerate() {
            let Verdict::Forward { link: to, length, segments } = *verdict else { continue };
            let slot = self.batch.slots()[first + at];
            let length = slot.length.min(length as usize);
            let takes = self.links.get(&to).map(|link| link.queue_of(self.index).takes()).unwrap_or_default();
            let packet = Candidate { to, takes, start: slot.start, length, offload: slot.offload, segments };
            self.merger.add(self.batch.bytes(), packet);
        }
        for group in self.merger.groups() {
            let offload = group.seal(&mut self.batch.bytes_mut()[group.head.clone()]);
            // What is joined lies behind the head.
            let (head, behind) = self.batch.bytes_mut().split_at_mut(group.head.end);
            let head = &mut head[group.head.start - HEADROOM..];
            let mut payloads = ArrayVec::<_, BURST>::new();
            payloads.extend(self.merger.joined(group).map(|payload| {
                IoSlice::new(&behind[payload.start - group.head.end..payload.end - group.head.end])
            }));
            let packet = Outgoing::joined(head, &payloads, offload);
            let sent = send(&self.links, self.index, group.to, packet);
            drop(payloads);
            match sent {
                Err(Unsent) => self.discard(DiscardReason::LinkWrite, group.segments),
                // In several calls where the kernel refused it whole.
                Ok(Written { calls: 1, .. }) if group.packets > 1 => {
                    // It was there a moment ago.
                    self.links.get(&group.to).inspect(|link| link.slot(self.index).merged(group.packets));
                }
                Ok(_) => {}
            }
        }
    }

    fn discard(&self, reason: DiscardReason, packets: u16) {
        self.engine.lost(&self.shared.state, packets, reason);
    }
}

/// The link is gone, or would not take the packet.
struct Unsent;

fn send(links: &Links, worker: usize, to: LinkId, packet: Outgoing<'_>) -> Result<Written, Unsent> {
    let link = links.get(&to).ok_or(Unsent)?;
    match link.queue_of(worker).write(packet) {
        Ok(written) => {
            link.slot(worker).wrote(written);
            Ok(written)
        }
        Err(_) => {
            link.slot(worker).write_failed();
            Err(Unsent)
        }
    }
}
