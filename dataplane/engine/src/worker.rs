//! Forwards packets, one after the other: parse, look up or walk, commit, rewrite.

mod batch;
mod fragments;
mod hit;
mod outbox;

use std::net::IpAddr;
use std::sync::Arc;

use localvpc_api::trace::Direction;
use localvpc_api::{DiscardReason, LinkId, NatGatewayId};

use crate::Time;
use crate::answer::{self, LIMIT};
use crate::flow::{Decided, FlowCache};
use crate::metrics::{Counter, MAX_WORKERS};
use crate::packet::{self, Key, Kind, Offload, Packet, TcpFacts};
use crate::pipeline::effects::{Dependencies, Effect, Effects, NotCommitted, count_refused};
use crate::pipeline::rewrite::{Rewrite, rewrite_icmp_error, set_identification};
use crate::pipeline::shortcut::Shortcuts;
use crate::pipeline::{self, Answer, AnswerKind, At, Stop, Walk, mss};
use crate::rate::{Rate, TokenBucket};
use crate::state::State;
use crate::state::identification::Ends;
use crate::tables::{EniIndex, NatGatewayIndex, Tables};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves, rewritten in place.
    Forward {
        /// The link it leaves on.
        link: LinkId,
        /// Bytes to write, from the IP header on; what lay behind them was padding.
        length: u32,
        /// Packets that it stands for.
        segments: u16,
    },
    /// It leaves in fragments, because it is too big for its way: they are in [`Worker::extras`]. Its bytes are undefined.
    Fragmented {
        /// The link they leave on.
        link: LinkId,
        /// Packets that it stood for before.
        segments: u16,
    },
    /// It is a fragment that came before the first of its datagram: it leaves, or is counted as discarded, later.
    Held,
    /// It ends here.
    Discard(DiscardReason),
}

pub use batch::BatchPacket;
pub use outbox::{Extra, Origin};
/// ICMP errors a second that one worker sends: Linux's `icmp_msgs_per_sec`.
pub const ICMP_ERRORS_PER_SECOND: u64 = 1000;
/// ICMP errors that it sends at once after a pause: three `traceroute`s with all their probes under way.
pub const ICMP_ERROR_BURST: u64 = 100;

const ICMP_ERRORS: Rate = Rate { per_second: ICMP_ERRORS_PER_SECOND, burst: ICMP_ERROR_BURST };

/// What one thread forwards with: a flow cache and counters of its own.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    cache: FlowCache,
    shortcuts: Shortcuts,
    random: Random,
    /// What was counted since [`settle`](Self::settle).
    pending: Pending,
    counters: Arc<WorkerCounters>,
    /// A buffer for the answer at hand.
    answer: Vec<u8>,
    outbox: outbox::Outbox,
    icmp_errors: TokenBucket,
    /// The last that a packet went out through, and its address: the next will likely do so, too.
    last_nat_gateway: Option<(NatGatewayId, IpAddr)>,
}

/// Counters of a worker; read by anyone.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Packets and super-packets handled.
    pub packets: Counter,
    /// Of these, decided by the flow cache.
    pub cache_hits: Counter,
    /// Of these, walked.
    pub walks: Counter,
    /// Places of the cache that hold a flow.
    pub cached_flows: Counter,
}

/// Counts of the batch at hand.
#[derive(Debug, Default)]
struct Pending {
    packets: u64,
    cache_hits: u64,
}

/// Flows that a worker's cache holds.
const CACHE_CAPACITY: usize = 1 << 15;

/// How often a walk is repeated because another worker was faster. Each repetition finds what the other one made.
const MAX_RACES: usize = 4;

impl Worker {
    /// Worker number `index`, below [`MAX_WORKERS`]; `seed` should come from the system's randomness.
    ///
    /// # Panics
    /// If `index` is too large.
    pub fn new(index: usize, seed: u64) -> Self {
        Self::with_cache(index, seed, CACHE_CAPACITY)
    }

    /// A worker whose cache holds `flows` flows; 0 turns it off, and shortcuts too.
    ///
    /// # Panics
    /// If `index` is too large.
    pub fn with_cache(index: usize, seed: u64, flows: usize) -> Self {
        assert!(index < MAX_WORKERS, "at most {MAX_WORKERS} workers");
        let shortcuts = if flows > 0 { Shortcuts::new(Random(seed).current()) } else { Shortcuts::none() };
        Self {
            index,
            cache: FlowCache::new(flows, Random(seed).current()),
            shortcuts,
            pending: Pending::default(),
            random: Random(seed),
            counters: Arc::default(),
            answer: Vec::with_capacity(LIMIT),
            outbox: outbox::Outbox::default(),
            icmp_errors: TokenBucket::default(),
            last_nat_gateway: None,
        }
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Forgets every cached flow, which changes no packet.
    pub fn drop_cache(&mut self) {
        self.cache.clear();
        self.shortcuts.clear();
    }

    /// Decides about the packet that came in on `from` and rewrites it in place.
    ///
    /// `bytes` begin with the IP header. Their number never changes. What leaves beside it is in [`extras`](Self::extras).
    pub fn forward(
        &mut self,
        tables: &Tables,
        state: &State,
        from: LinkId,
        bytes: &mut [u8],
        offload: Offload,
        now: Time,
    ) -> Verdict {
        self.outbox.clear();
        self.outbox.turn_to(0);
        self.turn_to(tables);
        let arrival = Arrival { from, offload, now };
        let hit = self.hit(state, arrival, None, bytes);
        let verdict = match hit.or_else(|| self.hit_by_segment(state, arrival, None, bytes)) {
            Some(verdict) => verdict,
            None => self.decide(tables, state, arrival, bytes),
        };
        self.pending.packets += 1;
        self.settle(tables);
        verdict
    }

    #[inline]
    fn turn_to(&mut self, tables: &Tables) {
        self.cache.turn_to(tables.generation);
        self.shortcuts.turn_to(tables.generation);
    }

    /// The packets that leave beside those of the last [`forward`](Self::forward) or [`forward_batch`](Self::forward_batch),
    /// in the order in which they leave.
    #[inline]
    pub fn extras(&self) -> impl Iterator<Item = Extra<'_>> {
        self.outbox.packets()
    }

    /// Adds what was counted to what others can read.
    #[inline]
    fn settle(&mut self, tables: &Tables) {
        let Pending { packets, cache_hits } = std::mem::take(&mut self.pending);
        self.counters.packets.add(packets);
        self.counters.cache_hits.add(cache_hits);
        self.cache.paths().settle(tables, self.index);
    }

    /// Parses and walks a packet that the flow cache does not know.
    #[inline(never)]
    fn decide(&mut self, tables: &Tables, state: &State, arrival: Arrival, bytes: &mut [u8]) -> Verdict {
        let Arrival { from, offload, now } = arrival;
        // Borrowed: copying what was written a moment ago in smaller pieces would wait for all of them.
        let parsed = packet::parse(bytes, offload);
        let packet = match &parsed {
            Ok(packet) => packet,
            &Err(reason) => {
                let sender = match tables.links.get(&from).map(|link| link.enis.as_slice()) {
                    Some([only]) => Some(*only),
                    _ => None,
                };
                return self.discard(tables, state, 1, reason, sender);
            }
        };
        if let Some(fragment) = packet.fragment {
            let arrival = fragments::Arrival { from, fragment, now };
            return self.forward_fragment(tables, state, arrival, bytes, packet);
        }
        // Not of what asks for a new connection: the cache knows the one before it, and most that come alone are never answered.
        let key = match &packet.kind {
            Kind::Tcp(facts) if facts.begins_connection() => None,
            _ => Key::of(packet, from),
        };
        self.counters.walks.add(1);
        // Borrowed, likewise.
        match &self.walk(tables, state, Start::Link(from), packet, &[], now) {
            Ok(accepted) => {
                let rewrite = accepted.rewrite(bytes, packet);
                if let Some((nat_gateway, Direction::Outbound)) = accepted.nat_gateways.first() {
                    let gateway = tables.nat_gateway(*nat_gateway);
                    self.last_nat_gateway = gateway.addresses.first().map(|address| (gateway.id, *address));
                }
                if !packet.dont_fragment {
                    identify(state, bytes, packet, &accepted.nat_gateways);
                }
                count_enis(tables, accepted.sender, accepted.receiver, packet, self.index);
                let (out, mtu) = (accepted.out, accepted.mtu);
                if let Kind::Tcp(facts) = &packet.kind
                    && facts.begins_connection()
                    && let Some(answers) = Key::of_answers(&accepted.tuple, out)
                {
                    // Its answer will be kept there soon.
                    self.cache.spot(answers);
                }
                if let Some(key) = key {
                    self.remember(from, key, packet, accepted, rewrite);
                }
                self.depart(state, out, bytes, packet, offload, mtu)
            }
            Err(refused) => {
                self.answer(tables, state, refused, bytes, packet, now);
                let eni = refused.receiver.or(refused.sender);
                self.discard(tables, state, packet.segments, refused.stop.reason, eni)
            }
        }
    }

    /// Has the flow cache keep what a walk has decided.
    fn remember(&mut self, from: LinkId, key: Key, packet: &Packet, accepted: &Accepted, rewrite: Rewrite) {
        let decided = accepted.decided(rewrite);
        if let Kind::Tcp(facts) = &packet.kind
            && facts.flags & TcpFacts::SYN != 0
            && let Some((key, decided)) =
                self.shortcuts.other_way(from, &packet.tuple, &accepted.tuple, &decided)
        {
            // A SYN is answered: what comes next goes the way of that.
            let more = self.cache.insert(key, &decided);
            self.counters.cached_flows.add(more);
        }
        let more = self.cache.insert(key, &decided);
        self.counters.cached_flows.add(more);
    }

    /// Counts a packet that was lost after its verdict: the device did not take it.
    pub fn lost(&self, state: &State, segments: u16, reason: DiscardReason) {
        state.metrics.discards(self.index).add(reason, segments);
    }

    #[expect(
        clippy::result_large_err,
        reason = "the effects of a refused walk live until it is answered; a box would allocate"
    )]
    /// Walks a packet and keeps what the walk proposes. `assumed` are the effects of the packet that this one answers.
    fn walk<'a>(
        &mut self,
        tables: &Tables,
        state: &'a State,
        start: Start,
        packet: &'a Packet,
        assumed: &'a [Effect<'a>],
        now: Time,
    ) -> Result<Accepted, Refused<'a>> {
        let mut races = 0;
        loop {
            let mut walk = Walk::new(packet, now, self.random.current());
            let shortcut = match start {
                Start::Link(link) => self.shortcuts.take(tables, state, link, &mut walk),
                Start::At(_) => None,
            };
            let outcome = match shortcut {
                Some(out) => Ok(out),
                None => self.ask_stages(tables, state, start, assumed, &mut walk),
            };
            let out = match outcome {
                Ok(out) => out,
                Err(stop) => {
                    count_refused(tables, &walk.effects, walk.refused_by, packet, self.index);
                    if let Some((nat_gateway, _)) = walk.refused_by
                        && stop.reason == DiscardReason::NatPortsExhausted
                    {
                        let slot = tables.nat_gateway(nat_gateway).metrics.slot(self.index);
                        slot.error_port_allocation.add(u64::from(packet.segments));
                    }
                    return Err(Refused::by(stop, walk));
                }
            };
            let nat_gateways = nat_gateways(&walk.effects);
            if walk.effects.as_slice().iter().any(|effect| matches!(effect, Effect::NewLease { .. })) {
                self.random.advance();
            }
            let stop = match walk.effects.commit(tables, state, packet, self.index, now) {
                Ok(dependencies) => {
                    return Ok(Accepted {
                        out,
                        tuple: walk.tuple,
                        embedded: walk.embedded,
                        ttl_spent: walk.ttl_spent,
                        mtu: walk.mtu,
                        mss: walk.mss,
                        dependencies,
                        nat_gateways,
                        sender: walk.sender,
                        receiver: walk.receiver,
                    });
                }
                Err(NotCommitted::Raced) if races < MAX_RACES => {
                    races += 1;
                    continue;
                }
                Err(NotCommitted::Raced) => DiscardReason::Internal,
                Err(NotCommitted::Full(reason, eni)) => {
                    walk.receiver = eni.or(walk.receiver);
                    reason
                }
            };
            walk.effects.clear();
            return Err(Refused::by(stop.into(), walk));
        }
    }

    /// Has the stages decide.
    fn ask_stages<'a>(
        &mut self,
        tables: &Tables,
        state: &'a State,
        start: Start,
        assumed: &'a [Effect<'a>],
        walk: &mut Walk<'a>,
    ) -> Result<LinkId, Stop> {
        walk.assumed = assumed;
        let at = match start {
            Start::Link(link) => pipeline::admit(tables, link, walk, &mut ())?,
            Start::At(at) => at,
        };
        let out = pipeline::walk(tables, state, at, walk, &mut ())?;
        if let Start::Link(link) = start {
            self.shortcuts.remember(tables, state, link, out, walk);
        }
        Ok(out)
    }

    /// Makes an answer and walks it from where it was made. An answer that is discarded is counted, and not answered.
    fn answer(
        &mut self,
        tables: &Tables,
        state: &State,
        refused: &Refused<'_>,
        bytes: &[u8],
        packet: &Packet,
        now: Time,
    ) {
        let Some(answer) = &refused.stop.answer else { return };
        let mut made = std::mem::take(&mut self.answer);
        self.answer_in(&mut made, tables, state, refused, answer, (bytes, packet), now);
        self.answer = made;
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of `answer`, taken apart")]
    fn answer_in(
        &mut self,
        made: &mut Vec<u8>,
        tables: &Tables,
        state: &State,
        refused: &Refused<'_>,
        answer: &Answer,
        (bytes, packet): (&[u8], &Packet),
        now: Time,
    ) {
        let written = match answer.kind {
            AnswerKind::Icmp(kind) => {
                // The quote shows the packet as it was where it was discarded.
                let mut quote = [0; LIMIT];
                let length = bytes.len().min(LIMIT);
                quote[..length].copy_from_slice(&bytes[..length]);
                Rewrite::new(packet.tuple, refused.tuple, refused.ttl_spent)
                    .apply(&mut quote[..length], packet);
                answer::icmp_error(made, kind, answer.source, &quote[..length])
            }
            AnswerKind::Reset => answer::tcp_reset(made, packet),
        };
        let parsed = written.and_then(|()| packet::parse(made, Offload::default()).ok());
        let Some(parsed) = parsed else { return };
        if matches!(answer.kind, AnswerKind::Icmp(_)) && !self.icmp_errors.take(ICMP_ERRORS, now) {
            self.discard(tables, state, 1, DiscardReason::IcmpErrorRate, None);
            return;
        }
        match self.walk(tables, state, Start::At(answer.at), &parsed, refused.effects.as_slice(), now) {
            Ok(accepted) => {
                accepted.rewrite(made, &parsed);
                count_enis(tables, None, accepted.receiver, &parsed, self.index);
                self.outbox.push(Origin::Answer, accepted.out, &[made]);
            }
            Err(refused) => {
                self.discard(tables, state, 1, refused.stop.reason, refused.receiver);
            }
        }
    }

    fn discard(
        &self,
        tables: &Tables,
        state: &State,
        segments: u16,
        reason: DiscardReason,
        eni: Option<EniIndex>,
    ) -> Verdict {
        self.refuse(state, segments, reason, eni.map(|eni| &*tables.eni(eni).metrics))
    }
}

/// Gives a packet that leaves a NAT gateway, which many share, an identification that none of the others has (RFC 7857 §9,
/// RFC 6864 §5.3); for packets that are, or may become, fragments.
fn identify(state: &State, bytes: &mut [u8], packet: &Packet, gateways: &NatGateways) -> Option<u16> {
    gateways.iter().any(|(_, direction)| *direction == Direction::Outbound).then(|| {
        let identification = state.identifications.take(Ends::of(bytes), packet.segments);
        set_identification(bytes, identification);
        identification
    })
}

/// Where a packet came from, and when.
#[derive(Clone, Copy)]
struct Arrival {
    from: LinkId,
    offload: Offload,
    now: Time,
}

fn forwarded(link: LinkId, packet: &Packet) -> Verdict {
    Verdict::Forward { link, length: packet.length, segments: packet.segments }
}

/// Where a walk starts.
#[derive(Clone, Copy)]
enum Start {
    Link(LinkId),
    At(At),
}

/// A packet that every stage accepted, its effects kept.
struct Accepted {
    out: LinkId,
    tuple: localvpc_api::trace::Tuple,
    embedded: Option<localvpc_api::trace::Tuple>,
    ttl_spent: u8,
    mtu: u16,
    mss: u16,
    dependencies: Dependencies,
    nat_gateways: NatGateways,
    sender: Option<EniIndex>,
    receiver: Option<EniIndex>,
}

/// A packet that some stage refused.
struct Refused<'a> {
    stop: Stop,
    tuple: localvpc_api::trace::Tuple,
    ttl_spent: u8,
    sender: Option<EniIndex>,
    receiver: Option<EniIndex>,
    refused_by: Option<(NatGatewayIndex, localvpc_api::trace::Direction)>,
    /// What the walk had proposed until then. The answer takes it for granted: AWS would have tracked the packet at its sender
    /// before anything further along saw it.
    effects: Effects<'a>,
}

type NatGateways = arrayvec::ArrayVec<(crate::tables::NatGatewayIndex, localvpc_api::trace::Direction), 2>;

impl<'a> Refused<'a> {
    fn by(stop: Stop, walk: Walk<'a>) -> Self {
        let Walk { tuple, ttl_spent, sender, receiver, refused_by, effects, .. } = walk;
        Self { stop, tuple, ttl_spent, sender, receiver, refused_by, effects }
    }
}

impl Accepted {
    /// Rewrites the packet; says what has changed, beside the quote of an ICMP error.
    fn rewrite(&self, bytes: &mut [u8], packet: &Packet) -> Rewrite {
        let rewrite = Rewrite::new(packet.tuple, self.tuple, self.ttl_spent);
        match self.embedded {
            Some(embedded) => rewrite_icmp_error(bytes, packet, self.tuple, embedded, self.ttl_spent),
            None => rewrite.apply(bytes, packet),
        }
        if self.mss < u16::MAX {
            mss::clamp(bytes, packet, self.mss);
        }
        rewrite
    }

    /// What the flow cache may keep, of UDP and TCP.
    fn decided(&self, rewrite: Rewrite) -> Decided {
        Decided {
            out: self.out,
            rewrite,
            mtu: self.mtu,
            ttl: Decided::smallest_ttl(self.ttl_spent),
            dependencies: self.dependencies.clone(),
            nat_gateways: self.nat_gateways.clone(),
            sender: self.sender,
            receiver: self.receiver,
        }
    }
}

fn nat_gateways(effects: &Effects<'_>) -> NatGateways {
    effects
        .as_slice()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Lease { nat_gateway, direction, .. } => Some((*nat_gateway, *direction)),
            Effect::NewLease { nat_gateway, .. } | Effect::Reopen { nat_gateway, .. } => {
                Some((*nat_gateway, localvpc_api::trace::Direction::Outbound))
            }
            _ => None,
        })
        .take(2)
        .collect()
}

fn count_enis(
    tables: &Tables,
    sender: Option<EniIndex>,
    receiver: Option<EniIndex>,
    packet: &Packet,
    worker: usize,
) {
    if let Some(sender) = sender {
        tables.eni(sender).metrics.slot(worker).sent.add(packet.segments, packet.length);
    }
    if let Some(receiver) = receiver {
        tables.eni(receiver).metrics.slot(worker).received.add(packet.segments, packet.length);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): chooses source ports, seeded from the system's randomness.
#[derive(Debug)]
struct Random(u64);

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The number that is next. It stays the same until a port was chosen with it, so that chance does not depend on what was cached.
    fn current(&self) -> u64 {
        let mut z = self.0.wrapping_add(Self::STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn advance(&mut self) {
        self.0 = self.0.wrapping_add(Self::STEP);
    }
}
