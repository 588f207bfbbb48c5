//! Workers, state and a virtual clock around tables: sends packets and says where they come out.

use localvpc_api::trace::{TraceReport, TraceRequest, TraceWalk, Tuple};
use localvpc_api::{DiscardReason, EniId, Generation, LinkId};

use crate::packet::{self, Offload};
use crate::state::{Limits, State};
use crate::tables::{Tables, build};
use crate::worker::{BatchPacket, Origin, Verdict, Worker};
use crate::{Time, report};

/// A dataplane in memory.
pub struct Fabric {
    /// What was pushed last.
    pub rows: localvpc_api::Tables,
    /// The same, compiled.
    pub tables: Tables,
    /// What is remembered.
    pub state: State,
    /// Two or more workers.
    pub workers: Vec<Worker>,
    /// The time; it moves only when a test moves it.
    pub now: Time,
    next: usize,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Forwarded to a link, or discarded.
    pub verdict: Result<LinkId, DiscardReason>,
    /// The packet as it left.
    pub bytes: Vec<u8>,
    /// Packets that the dataplane made in answer.
    pub answers: Vec<(LinkId, Vec<u8>)>,
    /// Fragments that left: pieces of the packet if it was too big (then `bytes` is empty), and those that waited for it.
    pub fragments: Vec<(LinkId, Vec<u8>)>,
}

impl Outcome {
    /// The tuple of the packet as it left.
    ///
    /// # Panics
    /// If it was discarded.
    pub fn tuple(&self) -> Tuple {
        assert!(self.verdict.is_ok(), "discarded: {:?}", self.verdict);
        packet::parse(&self.bytes, Offload::default()).expect("what leaves is well-formed").tuple
    }
}

impl Fabric {
    /// Two workers with flow caches, which take packets in turn.
    ///
    /// # Panics
    /// If the tables are invalid.
    pub fn new(rows: localvpc_api::Tables) -> Self {
        Self::with_workers(
            rows,
            vec![Worker::new(0, 1), Worker::new(1, 2)],
            Limits { connections: 1 << 17, leases: 1 << 17 },
        )
    }

    /// The same with workers and limits of the test's choice.
    ///
    /// # Panics
    /// If the tables are invalid.
    pub fn with_workers(rows: localvpc_api::Tables, workers: Vec<Worker>, limits: Limits) -> Self {
        let state = State::new(limits).with_queues(workers.len() as u32);
        let tables = build(&rows, &state.metrics).expect("a test's tables");
        Self { rows, tables, state, workers, now: Time(1_000_000), next: 0 }
    }

    /// Changes the rows and pushes them with the next generation.
    ///
    /// # Panics
    /// If the tables have become invalid.
    pub fn push(&mut self, change: impl FnOnce(&mut localvpc_api::Tables)) {
        change(&mut self.rows);
        self.rows.generation = Generation(self.rows.generation.0 + 1);
        self.tables = build(&self.rows, &self.state.metrics).expect("a test's tables");
    }

    /// Lets time pass, and what has idled out end.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now.0 += ms;
        for part in 0..self.state.parts() {
            self.state.expire(&self.tables, part, self.now);
        }
    }

    /// Sends a packet, on the next worker in turn.
    pub fn send(&mut self, from: LinkId, bytes: Vec<u8>) -> Outcome {
        self.send_offloaded(from, bytes, Offload::default())
    }

    /// Sends a packet with an offload header, on the next worker in turn.
    pub fn send_offloaded(&mut self, from: LinkId, bytes: Vec<u8>, offload: Offload) -> Outcome {
        self.next = (self.next + 1) % self.workers.len();
        self.send_on(self.next, from, bytes, offload)
    }

    /// Sends a packet on a certain worker.
    ///
    /// # Panics
    /// If it is a fragment that is held back.
    pub fn send_on(&mut self, worker: usize, from: LinkId, bytes: Vec<u8>, offload: Offload) -> Outcome {
        self.offer_on(worker, from, bytes, offload).expect("it is not held back")
    }

    /// Sends a packet, on the next worker in turn. `None` if it is a fragment that is held back.
    pub fn offer(&mut self, from: LinkId, bytes: Vec<u8>) -> Option<Outcome> {
        self.next = (self.next + 1) % self.workers.len();
        self.offer_on(self.next, from, bytes, Offload::default())
    }

    /// The same on a certain worker.
    pub fn offer_on(
        &mut self,
        worker: usize,
        from: LinkId,
        mut bytes: Vec<u8>,
        offload: Offload,
    ) -> Option<Outcome> {
        let worker = &mut self.workers[worker];
        let verdict = worker.forward(&self.tables, &self.state, from, &mut bytes, offload, self.now);
        outcome(worker, 0, verdict, bytes)
    }

    /// Sends packets as one batch on a certain worker; `None` for each fragment that is held back.
    ///
    /// # Panics
    /// If a packet is left without a verdict.
    pub fn offer_batch(
        &mut self,
        worker: usize,
        mut packets: Vec<(LinkId, Vec<u8>, Offload)>,
    ) -> Vec<Option<Outcome>> {
        let worker = &mut self.workers[worker];
        let mut batch: Vec<_> = packets
            .iter_mut()
            .map(|(from, bytes, offload)| BatchPacket::new(*from, bytes, *offload))
            .collect();
        worker.forward_batch(&self.tables, &self.state, &mut batch, self.now);
        let verdicts: Vec<_> = batch.iter().map(|packet| packet.verdict.expect("it was decided")).collect();
        let packets = packets.into_iter().zip(verdicts).enumerate();
        packets.map(|(at, ((_, bytes, _), verdict))| outcome(worker, at, verdict, bytes)).collect()
    }

    /// Traces the first packet of a connection, and its reply.
    pub fn trace(&self, link: LinkId, tuple: Tuple) -> TraceReport {
        crate::trace(&self.tables, &self.state, &TraceRequest { link, tuple, reply: true }, self.now)
    }

    /// Traces a packet as it would come in on a link now.
    ///
    /// # Panics
    /// If it is malformed.
    pub fn trace_packet(&self, link: LinkId, bytes: &[u8]) -> TraceWalk {
        let packet = packet::parse(bytes, Offload::default()).expect("a well-formed packet");
        crate::trace_packet(&self.tables, &self.state, link, &packet, self.now)
    }

    /// Packets discarded for a reason so far.
    pub fn discarded(&self, reason: DiscardReason) -> u64 {
        report::discards(&self.state).iter().find(|row| row.reason == reason).map_or(0, |row| row.packets)
    }

    /// Packets (received, sent) by an ENI so far.
    ///
    /// # Panics
    /// If there is no such ENI.
    pub fn counted(&self, eni: EniId) -> (u64, u64) {
        let rows = report::enis(&self.tables);
        let row = rows.iter().find(|row| row.eni == eni).expect("an ENI of the tables");
        (row.received.packets, row.sent.packets)
    }
}

fn outcome(worker: &Worker, at: usize, verdict: Verdict, mut bytes: Vec<u8>) -> Option<Outcome> {
    let extras = |origin| {
        let mine = worker.extras().filter(move |extra| extra.after == at && extra.origin == origin);
        mine.map(|extra| (extra.link, extra.bytes.to_vec())).collect()
    };
    let (answers, fragments) = (extras(Origin::Answer), extras(Origin::Fragment));
    let verdict = match verdict {
        Verdict::Forward { link, length, .. } => {
            bytes.truncate(length as usize);
            Ok(link)
        }
        Verdict::Fragmented { link, .. } => {
            bytes.clear();
            Ok(link)
        }
        Verdict::Discard(reason) => Err(reason),
        Verdict::Held => return None,
    };
    Some(Outcome { verdict, bytes, answers, fragments })
}
